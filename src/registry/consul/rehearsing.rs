//! What would be asked of an agent.

use super::Consul;
use super::client::Client;
use super::entry::{self, Check, Holder};
use crate::model::{Drained, Registration};
use crate::registry::rehearsal::{DRAINED, Rehearsal, Rehearsed, Step};
use crate::registry::{Claim, Result};

impl Consul {
    pub(super) async fn rehearsal(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        let (id, token) = (&registration.id, entry::token(claim.instance));
        let holder = Holder { instance: claim.instance, name: claim.holder.clone() };
        let definition = self.client.definition(registration, &holder, Check::Only)?;
        let mut requests = Vec::new();
        for (step, ask, note) in [
            (Step::Registration, Self::look(&Drained::key(id)), DRAINED),
            (Step::Registration, Client::health(id), "whether the id is taken"),
            (Step::Registration, definition, ""),
            (Step::Heartbeat, Client::pass(id, &token), ""),
            (Step::Deregistration, Client::health(id), "whether it is still ours"),
            (Step::Deregistration, Client::removal(id), ""),
        ] {
            requests.push(Rehearsed::http(step, &self.client.rehearsed(&ask).await?, note));
        }
        Ok(Rehearsal { requests, stand_ins: Vec::new() })
    }
}
