//! What would be asked of an ensemble.

use serde_json::{Value, json};

use super::Zookeeper;
use super::layout::Entry;
use super::operation::{Kind, Lasting, Request};
use super::record::Record;
use super::wire::{Flag, Garbled, Reader};
use crate::model::{Drained, Registration, Timestamp};
use crate::registry::rehearsal::{DRAINED, HIDDEN, NOW, Rehearsal, Rehearsed, Step, read};
use crate::registry::{Claim, Result};

impl Zookeeper {
    pub(super) fn rehearsal(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        let mut record = Record::new(registration, claim, Timestamp::now());
        let entry = self.url.layout().entry(registration, record.registered_at);
        let id_path = self.tree.service(registration.id.as_str());
        let entering = self.entering(&mut record, entry.as_ref());
        let seen = entry.as_ref().map(|entry| self.tree.rooted(&entry.path));
        let exists = [Some(&id_path), seen.as_ref()].into_iter().flatten().map(|path| Request::exists(path));
        let (look, leaving) = (Request::data(&id_path, Flag::No), self.leaving(&record, 0, seen.as_deref()));
        let timeout = registration.heartbeat_timeout.as_duration().as_millis();
        let session = json!({"timeout_ms": u64::try_from(timeout).unwrap_or_default()});
        let servers = self.url.as_str().to_owned();
        let connect = Rehearsed::new(Step::Registration, "connect", servers, session, "the session");
        let mut requests = vec![connect];
        if self.ensemble.login.is_some() {
            let secret = json!(HIDDEN);
            requests.push(Rehearsed::new(Step::Registration, "auth", "digest".to_owned(), secret, ""));
        }
        let drained = [Request::data(&self.tree.value(&Drained::key(&registration.id)), Flag::No)];
        let lookup = [look.clone()];
        let exists: Vec<_> = exists.collect();
        for (step, asked, several) in [
            (Step::Registration, &drained[..], DRAINED),
            (Step::Registration, &lookup, ""),
            (Step::Registration, &entering, ALL_OR_NONE),
            (Step::Heartbeat, &exists, ""),
            (Step::Deregistration, &lookup, ""),
            (Step::Deregistration, &leaving, ALL_OR_NONE),
        ] {
            for request in asked {
                let rehearsed = rehearsed(step, request, several);
                requests.push(rehearsed.map_err(|garbled| self.garbled(garbled))?);
            }
        }
        let now = record.registered_at.as_millis().to_string();
        Ok(Rehearsal { requests, stand_ins: vec![(now, NOW)] })
    }

    /// The requests that make the nodes of a service.
    pub(super) fn entering(&self, record: &mut Record, entry: Option<&Entry>) -> Vec<Request> {
        record.entry = entry.and_then(Entry::fixed_path).map(str::to_owned);
        let id_path = self.tree.service(record.registration.id.as_str());
        let mut requests = vec![Request::create(&id_path, &record.write(), self.acl(), Lasting::Ephemeral)];
        requests.extend(entry.map(|entry| self.show(entry)));
        requests
    }

    /// The requests that take them away, with the word that it did not fall silent.
    pub(super) fn leaving(&self, record: &Record, version: i32, entry: Option<&str>) -> Vec<Request> {
        let id_path = self.tree.service(record.registration.id.as_str());
        let mut requests = vec![Request::delete(&id_path, version), self.removal(record)];
        requests.extend(entry.map(|entry| Request::delete(entry, super::ANY_VERSION)));
        requests
    }
}

const ALL_OR_NONE: &str = "all of these or none";

/// What is on the wire, read.
fn rehearsed(step: Step, request: &Request, note: &'static str) -> std::result::Result<Rehearsed, Garbled> {
    let mut reader = Reader::new(&request.body);
    let path = reader.text()?;
    let (method, body) = match request.kind {
        Kind::Create | Kind::CreateContainer => {
            let data = reader.bytes()?;
            let lasting = request.body.last().copied().map(i32::from);
            let lasting = [Lasting::Ephemeral, Lasting::Sequential, Lasting::Container, Lasting::Persistent]
                .into_iter()
                .find(|known| Some(*known as i32) == lasting);
            let method = match lasting {
                Some(Lasting::Ephemeral) => "create ephemeral",
                Some(Lasting::Sequential) => "create ephemeral sequential",
                Some(Lasting::Container) => "create container",
                Some(Lasting::Persistent) | None => "create",
            };
            (method, if data.is_empty() { Value::Null } else { read(data) })
        }
        Kind::Delete => ("delete", Value::Null),
        Kind::Exists => ("exists", Value::Null),
        _ => ("getData", Value::Null),
    };
    Ok(Rehearsed::new(step, method, path, body, note))
}
