//! What would be asked of a cluster.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Etcd;
use super::configuration;
use super::kv::Range;
use super::layout;
use super::lease::{self, LeaseId};
use super::record::Record;
use crate::model::{Drained, Registration};
use crate::registry::rehearsal::{DRAINED, NOW, Rehearsal, Rehearsed, Step, read};
use crate::registry::{Claim, Result};

const NOTE: &str = "keys and values go in Base64";

impl Etcd {
    pub(super) fn rehearsal(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        let key = layout::key(&self.url, &registration.id);
        let (record, lease) = (Record::new(registration, claim), LeaseId::random());
        let revision = fastrand::i64(1 << 61..1 << 62);
        let look = || Range::one(&key).body().to_string();
        let ttl = registration.heartbeat_timeout.as_duration();
        let entering = self.writing(&record, lease, None).or_get(&key).body().to_string();
        let leaving = self.leaving(&key, &record, lease, revision).body().to_string();
        let mut requests = Vec::new();
        if let Some(body) = self.client.login_body() {
            let login = self.client.rehearsed("auth/authenticate", &body)?;
            let mut login = Rehearsed::http(Step::Registration, &login, "");
            login.headers.remove("authorization");
            requests.push(login);
        }
        let drained = Range::one(&configuration::key(&self.url, &Drained::key(&registration.id)));
        for (step, path, body, note) in [
            (Step::Registration, "kv/range", drained.body().to_string(), DRAINED),
            (Step::Registration, "kv/range", look(), NOTE),
            (Step::Registration, "lease/grant", lease::grant_body(lease, ttl), ""),
            (Step::Registration, "kv/txn", entering, NOTE),
            (Step::Heartbeat, "lease/keepalive", lease::body(lease), ""),
            (Step::Deregistration, "kv/range", look(), NOTE),
            (Step::Deregistration, "kv/txn", leaving, NOTE),
            (Step::Deregistration, "lease/revoke", lease::body(lease), ""),
        ] {
            let mut rehearsed = Rehearsed::http(step, &self.client.rehearsed(path, &body)?, note);
            decode(&mut rehearsed.body);
            requests.push(rehearsed);
        }
        let stand_ins = vec![
            (lease.get().to_string(), "<lease>"),
            (revision.to_string(), "<revision>"),
            (record.created_at.as_millis().to_string(), NOW),
        ];
        Ok(Rehearsal { requests, stand_ins })
    }
}

/// Keys and values as they are without the gateway.
fn decode(body: &mut Value) {
    match body {
        Value::Array(list) => list.iter_mut().for_each(decode),
        Value::Object(map) => {
            for (name, value) in map {
                let decoded = matches!(&**name, "key" | "value")
                    .then(|| STANDARD.decode(value.as_str()?).ok())
                    .flatten();
                match decoded {
                    Some(bytes) => *value = read(&bytes),
                    None => decode(value),
                }
            }
        }
        _ => {}
    }
}
