//! What was changed in the store by others than servers: wrappers and `raxsr` that use it directly, and leases that ran
//! out. Servers write each change together with its events; these have none, so that a server adds them to the log.

use std::collections::HashSet;

use super::council::Fingerprint;
use super::keys::{Keys, Kind};
use super::state::{Place, State};
use super::writer::{Change, Expected};
use crate::model::{ConfigurationId, EventBody, ServiceId};
use crate::registry::etcd::changes::Change as Told;
use crate::registry::etcd::record::Found;
use crate::registry::etcd::wire::KeyValue;

/// How many events are logged at a time.
const MOST: usize = 100;

/// The revisions that servers made: each moves the clock forward.
pub(super) fn revisions_of_servers(keys: &Keys, changes: &[Told]) -> HashSet<i64> {
    let clock = keys.clock();
    let is_clock = |change: &&Told| matches!(change, Told::Put { now } if now.key == clock.as_bytes());
    changes.iter().filter(is_clock).map(Told::revision).collect()
}

impl State {
    /// Takes note of what is to be logged of a change, before the change itself is noted.
    pub(super) fn note_foreign(&mut self, change: &Told) {
        let (key, now) = match change {
            Told::Put { now } => (&now.key, Some(now)),
            Told::Delete { key, .. } => (key, None),
        };
        let bodies = match std::str::from_utf8(key).ok().and_then(|key| self.keys.kind(key)) {
            Some(Kind::Service(id)) => self.bodies_of_service(&id, now),
            Some(Kind::Value(id)) => self.body_of_value(id, now).into_iter().collect(),
            _ => return,
        };
        let revision = change.revision();
        let logged = self.logged.as_ref().map(|known| known.value);
        for body in bodies {
            let before = self.foreign.back().filter(|(place, _)| place.0 == revision);
            let place = Place(revision, before.map_or(0, |(place, _)| place.1 + 1));
            if logged.is_none_or(|logged| place > logged) {
                self.foreign.push_back((place, body));
            }
        }
    }

    fn bodies_of_service(&self, id: &ServiceId, now: Option<&KeyValue>) -> Vec<EventBody> {
        let now = now.map(Found::read);
        let (old, new) =
            (self.services.get(id).map(|known| &known.value), now.as_ref().and_then(Found::listed));
        let mut bodies = Vec::new();
        if let Some(old) = old
            && new.is_none_or(|new| new.instance != old.instance)
        {
            // Whoever takes a service out that is on a lease says so before, or replaces it.
            let is_silent = now.is_none() && old.seed.is_none();
            bodies.push(if is_silent {
                EventBody::ServiceTimeout(old.registration())
            } else {
                EventBody::ServiceRemove(old.registration())
            });
        }
        if let Some(new) = new
            && old.is_none_or(|old| old.instance != new.instance)
        {
            bodies.push(EventBody::ServiceJoin(new.registration()));
        }
        bodies
    }

    fn body_of_value(&self, id: ConfigurationId, now: Option<&KeyValue>) -> Option<EventBody> {
        let old_value = self.values.get(&id).map(|known| known.value.value().to_owned());
        let new_value = now.and_then(|found| String::from_utf8(found.value.clone()).ok());
        let configuration_value_id = id;
        match (old_value, new_value) {
            (old_value, Some(new_value)) if old_value.as_ref() != Some(&new_value) => {
                Some(EventBody::ConfigurationUpdate { old_value, new_value, configuration_value_id })
            }
            (Some(old_value), None) => {
                Some(EventBody::ConfigurationRemove { old_value, configuration_value_id })
            }
            _ => None,
        }
    }

    /// What is to be written of it now, if that is for us to do: one server has that office.
    pub(super) fn foreign_change(&self, key: String) -> Option<Change> {
        if !self.council.is_ours(Fingerprint::OF_THE_LOG) {
            return None;
        }
        let some: Vec<_> = self.foreign.iter().take(MOST).collect();
        let (last, _) = some.last()?;
        Some(Change {
            key,
            expected: self
                .logged
                .as_ref()
                .map_or(Expected::Absent, |known| Expected::Unchanged(known.revision)),
            value: Some(serde_json::json!(last).to_string()),
            others: Vec::new(),
            bodies: some.into_iter().map(|(_, body)| body.clone()).collect(),
            unless_new: None,
        })
    }
}
