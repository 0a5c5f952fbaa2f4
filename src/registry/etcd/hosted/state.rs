//! What one server knows: everything that is in the registry, and who is alive.
//!
//! The watch tells it of each change, in the order of the store's revisions. Our own changes are known before that, as
//! soon as they are made: who has registered here is listed here at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::council::{Council, Fingerprint, Member, Report};
use super::keys::{self, Keys, Kind};
use super::writer::{Change, Expected};
use crate::model::{ConfigurationId, ConfigurationValue, EventBody, ServiceId};
use crate::registry::clock::Ticks;
use crate::registry::etcd::lease::LeaseId;
use crate::registry::etcd::record::{Found, Record};
use crate::registry::etcd::wire::KeyValue;
use crate::registry::hosted::leases::{Lease, Leases};
use crate::registry::hosted::token::Seed;

/// How far back a new server is told whom the others have heard: longer than a watch lags behind.
const MEMORY: Duration = Duration::from_secs(20);

/// What makes us one of the servers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) lease: LeaseId,
    /// Until when the others are sure to count us in, in milliseconds since boot.
    pub(super) valid_until: i64,
}

/// Where a change is among all: its revision, and the how-manieth it is of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place(pub(super) i64, pub(super) usize);

/// Whether the others are to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    None,
    Asked,
}

/// What a key holds, and since which revision.
#[derive(Debug, Clone)]
pub(super) struct Known<T> {
    pub(super) value: T,
    pub(super) revision: i64,
}

/// Everything that one server knows.
pub(super) struct State {
    pub(super) keys: Keys,
    /// Up to which revision all changes are known.
    pub(super) revision: i64,
    /// Those that are listed.
    pub(super) services: BTreeMap<ServiceId, Known<Record>>,
    pub(super) values: BTreeMap<ConfigurationId, Known<ConfigurationValue>>,
    by_fingerprint: HashMap<Fingerprint, ServiceId>,
    pub(super) leases: Leases,
    pub(super) council: Council,
    /// Who was heard since our last report.
    pub(super) heard: HashSet<Fingerprint>,
    /// The dead, and the report of ours that the others have to have answered.
    pub(super) suspects: HashMap<ServiceId, u64>,
    clock: Ticks,
    /// Keys that we have written, until the watch has told of it.
    ahead: HashMap<String, i64>,
    /// What others than servers have changed, and has still to be logged.
    pub(super) foreign: VecDeque<(Place, EventBody)>,
    /// Up to where that is done, and when that was written.
    pub(super) logged: Option<Known<Place>>,
    pub(super) seat: Option<Seat>,
    pub(super) timeouts: u64,
}

impl State {
    pub(super) fn new(keys: Keys, me: Member) -> Self {
        Self {
            keys,
            revision: 0,
            services: BTreeMap::new(),
            values: BTreeMap::new(),
            by_fingerprint: HashMap::new(),
            leases: Leases::default(),
            council: Council::new(me),
            heard: HashSet::new(),
            suspects: HashMap::new(),
            clock: Ticks(0),
            ahead: HashMap::new(),
            foreign: VecDeque::new(),
            logged: None,
            seat: None,
            timeouts: 0,
        }
    }

    /// Takes over all that there is at `revision`. Whoever is alive has its full timeout.
    pub(super) fn load(&mut self, all: &[KeyValue], revision: i64, uptime: i64) {
        let fresh = Self { council: self.council.anew(), ..Self::new(self.keys.clone(), self.council.me()) };
        let before = std::mem::replace(self, fresh);
        (self.timeouts, self.leases, self.heard) = (before.timeouts, before.leases, before.heard);
        self.seat = before.seat;
        for key_value in all {
            self.put(key_value, uptime);
        }
        for id in before.services.keys().filter(|id| !self.services.contains_key(*id)) {
            self.leases.forget(id);
        }
        self.leases.spare_all(uptime);
        self.revision = revision;
    }

    /// Takes note of a key that was written.
    pub(super) fn put(&mut self, found: &KeyValue, uptime: i64) {
        let revision = found.mod_revision;
        let Ok(key) = std::str::from_utf8(&found.key) else { return };
        if self.ahead.get(key).is_some_and(|ours| *ours >= revision) {
            return;
        }
        match self.keys.kind(key) {
            Some(Kind::Service(id)) => match Found::read(found) {
                Found { record: Some(record), lease, .. } if !record.leaving => {
                    let seed = record.seed.filter(|_| lease.is_none()).map(Seed::of);
                    self.enter(id, seed, Known { value: record, revision }, uptime);
                }
                _ => self.leave(&id),
            },
            Some(Kind::Value(id)) => {
                let value = String::from_utf8(found.value.clone()).ok();
                let value = value.and_then(|value| ConfigurationValue::new(id.clone(), value).ok());
                match value {
                    Some(value) => drop(self.values.insert(id, Known { value, revision })),
                    None => drop(self.values.remove(&id)),
                }
            }
            Some(Kind::Server(member)) => {
                if let Ok(report) = serde_json::from_slice::<Report>(&found.value) {
                    self.reported(member, &report, uptime);
                }
            }
            Some(Kind::Clock) => self.saw_time(keys::read(&found.value).unwrap_or(self.clock)),
            Some(Kind::Logged) => self.was_logged(found),
            None => {}
        }
    }

    /// Takes note of a key that is gone.
    pub(super) fn delete(&mut self, key: &str, revision: i64, uptime: i64) {
        if self.ahead.get(key).is_some_and(|ours| *ours >= revision) {
            return;
        }
        match self.keys.kind(key) {
            Some(Kind::Service(id)) => self.leave(&id),
            Some(Kind::Value(id)) => drop(self.values.remove(&id)),
            Some(Kind::Server(member)) => {
                if member == self.council.me() {
                    self.stand_up();
                } else if self.council.lose(member) {
                    self.leases.spare_all(uptime);
                }
            }
            Some(Kind::Clock | Kind::Logged) | None => {}
        }
    }

    /// All changes up to this revision are known.
    pub(super) fn is_at(&mut self, revision: i64) {
        self.revision = revision.max(self.revision);
        self.ahead.retain(|_, ours| *ours > revision);
    }

    /// We have written a key.
    pub(super) fn wrote(&mut self, key: &str, value: Option<&str>, revision: i64, uptime: i64) {
        match value {
            Some(value) => {
                let key_value = KeyValue {
                    key: key.as_bytes().to_owned(),
                    value: value.as_bytes().to_owned(),
                    mod_revision: revision,
                    lease: 0,
                };
                self.put(&key_value, uptime);
            }
            None => self.delete(key, revision, uptime),
        }
        if revision > self.revision {
            self.ahead.insert(key.to_owned(), revision);
        }
    }

    fn enter(&mut self, id: ServiceId, seed: Option<Seed>, known: Known<Record>, uptime: i64) {
        let record = &known.value;
        match seed {
            Some(seed) if self.leases.seed_of(&id) == Some(seed) => {
                self.leases.retime(&id, record.heartbeat_timeout);
            }
            Some(seed) => {
                let lease = Lease::new(seed, record.heartbeat_timeout, Some(record.instance));
                self.leases.keep(id.clone(), lease, uptime);
            }
            // It has a lease of its own in the store.
            None => self.leases.forget(&id),
        }
        self.by_fingerprint.insert(Fingerprint::of(&id), id.clone());
        self.services.insert(id, known);
    }

    fn leave(&mut self, id: &ServiceId) {
        self.services.remove(id);
        self.leases.forget(id);
        self.suspects.remove(id);
        self.by_fingerprint.remove(&Fingerprint::of(id));
    }

    fn reported(&mut self, member: Member, report: &Report, uptime: i64) {
        if member == self.council.me() {
            return;
        }
        if !self.council.is_member(member) {
            // It may not have been there yet when we told this to all who were.
            let recent = self.leases.heard_within(MEMORY, uptime);
            self.heard.extend(recent.map(Fingerprint::of));
        }
        self.council.hear(member, report);
        for fingerprint in report.heard() {
            if let Some(id) = self.by_fingerprint.get(&fingerprint) {
                self.leases.hear(id, uptime);
            }
        }
    }

    /// The time of the next event.
    pub(super) fn next_time(&self) -> Ticks {
        Ticks::now().max(Ticks(self.clock.0 + 1))
    }

    pub(super) fn saw_time(&mut self, time: Ticks) {
        self.clock = self.clock.max(time);
    }

    /// Whether a change could still be made, as far as we know.
    pub(super) fn holds(&self, change: &Change) -> bool {
        let revision = match self.keys.kind(&change.key) {
            Some(Kind::Service(id)) => self.services.get(&id).map(|known| known.revision),
            Some(Kind::Value(id)) => self.values.get(&id).map(|known| known.revision),
            Some(Kind::Logged) => self.logged.as_ref().map(|known| known.revision),
            Some(Kind::Server(_) | Kind::Clock) | None => None,
        };
        let is_expected = match change.expected {
            Expected::Absent => revision.is_none(),
            Expected::Unchanged(expected) => revision == Some(expected),
        };
        // What is new is known by the watch alone.
        is_expected && change.unless_new.is_none()
    }

    fn was_logged(&mut self, found: &KeyValue) {
        if let Ok(value) = serde_json::from_slice(&found.value) {
            self.logged = Some(Known { value, revision: found.mod_revision });
            while self.foreign.front().is_some_and(|(place, _)| *place <= value) {
                self.foreign.pop_front();
            }
        }
    }

    /// The dead that may be taken out now, and whether the others have to be asked about more. `again` is when those
    /// who stay are looked at next, in milliseconds.
    pub(super) fn judge(&mut self, uptime: i64, again: i64) -> (Vec<ServiceId>, Question) {
        for id in self.leases.overdue(uptime, again) {
            if self.council.is_ours(Fingerprint::of(&id)) {
                let next = self.council.next();
                self.suspects.entry(id).or_insert(next);
            }
        }
        let (leases, council) = (&mut self.leases, &self.council);
        self.suspects.retain(|id, _| leases.is_overdue(id, uptime) && council.is_ours(Fingerprint::of(id)));
        let has_to_ask = self.suspects.values().any(|number| council.has_to_ask(*number));
        let dead = self.suspects.iter().filter(|(_, number)| council.has_answered(**number));
        let question = if has_to_ask { Question::Asked } else { Question::None };
        (dead.map(|(id, _)| id.clone()).collect(), question)
    }

    /// We are not one of the servers any more. We come back as another.
    pub(super) fn stand_up(&mut self) {
        self.seat = None;
        self.council = self.council.reborn();
        self.suspects.clear();
    }

    /// Whether we are one of the servers, for sure.
    pub(super) fn is_seated(&self, uptime: i64) -> bool {
        self.revision > 0 && self.seat.is_some_and(|seat| uptime < seat.valid_until)
    }
}
