//! When the hosted services are dead: a table in memory, which no heartbeat takes to the disk.
//!
//! It reads no clock: time is told to it, in milliseconds since boot. What is asked of it at a heartbeat costs the
//! same whatever the number of services; each of them is looked at once more in a timeout, when the deadline has
//! come that it had the last time.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::token::Seed;
use crate::model::{HeartbeatTimeout, InstanceId, ServiceId, Timestamp};
use crate::registry::Owner;
use crate::registry::clock::{Ticks, millis};

/// Nobody looks at the table for so long only when we did not run: stopped, or on a machine that slept.
const PAUSE: i64 = 2_000;

#[derive(Default)]
pub(in crate::registry) struct Leases {
    time: OwnTime,
    by_id: HashMap<ServiceId, Lease>,
    /// Each service once, by a deadline that is not later than its own.
    due: BinaryHeap<Reverse<(i64, ServiceId)>>,
    /// Dead, but not yet in the file.
    dying: Vec<(ServiceId, Lease)>,
    /// Who was seen since it was last written down.
    unwritten: Vec<ServiceId>,
}

/// The life of one hosted service.
#[derive(Clone)]
pub(in crate::registry) struct Lease {
    seed: Seed,
    timeout: HeartbeatTimeout,
    instance: Option<InstanceId>,
    deadline: i64,
    /// Where it stands in `due`.
    due_at: i64,
    /// The next heartbeat's token. None when the host has started since: then any that was made with the seed is good.
    current: Option<Uuid>,
    previous: Option<Uuid>,
    last_seen: Option<Timestamp>,
    is_written: bool,
}

impl Lease {
    pub(in crate::registry) fn new(
        seed: Seed,
        timeout: HeartbeatTimeout,
        instance: Option<InstanceId>,
    ) -> Self {
        Self {
            seed,
            timeout,
            instance,
            deadline: 0,
            due_at: 0,
            current: None,
            previous: None,
            last_seen: None,
            is_written: true,
        }
    }

    #[cfg(test)]
    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// Makes the token of the next heartbeat.
    pub(in crate::registry) fn issue(&mut self) -> Uuid {
        let now = Ticks::now().after(self.timeout.as_duration());
        // Another one even in the same instant, or under a clock that was put back.
        let last = self.current.and_then(|token| Ticks::of(&token).ok());
        let token = self.seed.token(last.map_or(now, |Ticks(last)| now.max(Ticks(last + 1))));
        self.previous = self.current.replace(token);
        token
    }

    /// The answer to a heartbeat that presents `token`.
    fn renew(&mut self, token: &Uuid, whose: Owner) -> Option<Uuid> {
        let is_current = match &self.current {
            Some(current) => current == token || self.is_later(token, current),
            None => self.seed.deadline_of(token).is_some(),
        };
        if is_current {
            self.current = Some(*token);
            return Some(self.issue());
        }
        let is_ours = matches!((whose, self.instance), (Owner::Instance(asks), Some(has)) if asks == has);
        self.current.filter(|_| is_ours && self.previous.as_ref() == Some(token))
    }

    /// Whether another host of the same service has made it since.
    fn is_later(&self, token: &Uuid, current: &Uuid) -> bool {
        let made = self.seed.deadline_of(token);
        made.is_some_and(|made| Ticks::of(current).is_ok_and(|current| made > current))
    }
}

impl Leases {
    /// Enters a service, which has its full timeout.
    pub(in crate::registry) fn keep(&mut self, id: ServiceId, mut lease: Lease, uptime: i64) {
        lease.deadline = self.time.at(uptime) + millis(lease.timeout.as_duration());
        lease.due_at = lease.deadline;
        self.due.push(Reverse((lease.due_at, id.clone())));
        self.by_id.insert(id, lease);
    }

    /// Renews a service, and returns the token of its next heartbeat. Nothing when it, or the token, is not known.
    pub(in crate::registry) fn renew(
        &mut self,
        id: &ServiceId,
        token: &Uuid,
        whose: Owner,
        uptime: i64,
    ) -> Option<Uuid> {
        let now = self.time.at(uptime);
        let lease = self.by_id.get_mut(id)?;
        let next = lease.renew(token, whose)?;
        lease.deadline = now + millis(lease.timeout.as_duration());
        lease.last_seen = Some(Timestamp::now());
        if lease.due_at > lease.deadline {
            // Its timeout was made shorter.
            lease.due_at = lease.deadline;
            self.due.push(Reverse((lease.due_at, id.clone())));
        }
        if std::mem::take(&mut lease.is_written) {
            self.unwritten.push(id.clone());
        }
        Some(next)
    }

    /// Another host has had a heartbeat.
    pub(in crate::registry) fn hear(&mut self, id: &ServiceId, uptime: i64) {
        let now = self.time.at(uptime);
        if let Some(lease) = self.by_id.get_mut(id) {
            lease.deadline = now + millis(lease.timeout.as_duration());
            lease.last_seen = Some(Timestamp::now());
        }
    }

    /// Those that were heard within the last `span`.
    pub(in crate::registry) fn heard_within(
        &mut self,
        span: Duration,
        uptime: i64,
    ) -> impl Iterator<Item = &ServiceId> {
        let since = self.time.at(uptime) - millis(span);
        let is_recent = move |lease: &Lease| {
            lease.last_seen.is_some() && lease.deadline - millis(lease.timeout.as_duration()) >= since
        };
        self.by_id.iter().filter(move |(_, lease)| is_recent(lease)).map(|(id, _)| id)
    }

    /// What the tokens of a service are made with.
    pub(in crate::registry) fn seed_of(&self, id: &ServiceId) -> Option<Seed> {
        self.by_id.get(id).map(|lease| lease.seed)
    }

    /// Nobody may be dead by what we know: each has its full timeout from now on.
    pub(in crate::registry) fn spare_all(&mut self, uptime: i64) {
        let now = self.time.at(uptime);
        for lease in self.by_id.values_mut() {
            lease.deadline = lease.deadline.max(now + millis(lease.timeout.as_duration()));
        }
    }

    /// Those whose deadline has passed. They are told again after `again` milliseconds, until they are renewed or
    /// forgotten.
    pub(in crate::registry) fn overdue(&mut self, uptime: i64, again: i64) -> Vec<ServiceId> {
        let now = self.time.at(uptime);
        let mut overdue = Vec::new();
        while let Some(Reverse((due_at, _))) = self.due.peek()
            && *due_at <= now
        {
            let Some(Reverse((due_at, id))) = self.due.pop() else { break };
            let Some(lease) = self.by_id.get_mut(&id).filter(|lease| lease.due_at == due_at) else {
                // Of an earlier life, or an earlier deadline.
                continue;
            };
            if lease.deadline <= now {
                overdue.push(id.clone());
                lease.due_at = now + again.max(1);
            } else {
                lease.due_at = lease.deadline;
            }
            self.due.push(Reverse((lease.due_at, id)));
        }
        overdue
    }

    /// Whether its deadline has passed.
    pub(in crate::registry) fn is_overdue(&mut self, id: &ServiceId, uptime: i64) -> bool {
        let now = self.time.at(uptime);
        self.by_id.get(id).is_some_and(|lease| lease.deadline <= now)
    }

    pub(in crate::registry) fn forget(&mut self, id: &ServiceId) {
        self.by_id.remove(id);
    }

    /// From its next heartbeat on.
    pub(in crate::registry) fn retime(&mut self, id: &ServiceId, timeout: HeartbeatTimeout) {
        if let Some(lease) = self.by_id.get_mut(id) {
            lease.timeout = timeout;
        }
    }

    pub(in crate::registry) fn contains(&self, id: &ServiceId) -> bool {
        self.by_id.contains_key(id)
    }

    /// How long a service lives unless it is renewed.
    pub(in crate::registry) fn time_left(&mut self, id: &ServiceId, uptime: i64) -> Option<Duration> {
        let now = self.time.at(uptime);
        let left = self.by_id.get(id)?.deadline - now;
        Some(Duration::from_millis(u64::try_from(left).unwrap_or_default()))
    }

    /// When a service was last seen since the host started.
    pub(in crate::registry) fn last_seen(&self, id: &ServiceId) -> Option<Timestamp> {
        self.by_id.get(id)?.last_seen
    }

    /// Whether somebody is dead and still in the file.
    pub(in crate::registry) fn anyone_died(&mut self, uptime: i64) -> bool {
        self.bring_out_the_dead(uptime);
        !self.dying.is_empty()
    }

    /// The dead that are to be taken out of the file. They are [`buried`](Self::bury) when they are, or
    /// [`revived`](Self::revive) when that failed.
    pub(in crate::registry) fn the_dead(&mut self, uptime: i64) -> Vec<(ServiceId, Seed)> {
        self.bring_out_the_dead(uptime);
        self.dying.iter().map(|(id, lease)| (id.clone(), lease.seed)).collect()
    }

    pub(in crate::registry) fn bury(&mut self, dead: &[(ServiceId, Seed)]) {
        self.dying.drain(..dead.len());
    }

    /// Those that could not be buried go on living until somebody looks again.
    pub(in crate::registry) fn revive(&mut self) {
        for (id, lease) in std::mem::take(&mut self.dying) {
            self.due.push(Reverse((lease.due_at, id.clone())));
            self.by_id.insert(id, lease);
        }
    }

    fn bring_out_the_dead(&mut self, uptime: i64) {
        let now = self.time.at(uptime);
        while let Some(Reverse((deadline, _))) = self.due.peek()
            && *deadline <= now
        {
            let Some(Reverse((deadline, id))) = self.due.pop() else { break };
            let Entry::Occupied(mut entry) = self.by_id.entry(id) else { continue };
            let lease = entry.get_mut();
            if lease.due_at != deadline {
                // Of an earlier life, or an earlier deadline.
                continue;
            }
            if lease.deadline <= now {
                self.dying.push(entry.remove_entry());
            } else {
                lease.due_at = lease.deadline;
                self.due.push(Reverse((lease.due_at, entry.key().clone())));
            }
        }
    }

    /// Takes over what the file says: who is new has its full timeout, who is not there is forgotten.
    pub(in crate::registry) fn agree_with(&mut self, file: Vec<(ServiceId, Lease)>, uptime: i64) {
        let mut before = std::mem::take(&mut self.by_id);
        self.by_id.reserve(file.len());
        let dying: HashMap<_, _> = self.dying.iter().map(|(id, lease)| (id.clone(), lease.seed)).collect();
        for (id, lease) in file {
            if dying.get(&id) == Some(&lease.seed) {
                continue;
            }
            match before.remove(&id).filter(|known| known.seed == lease.seed) {
                Some(known) => {
                    self.by_id.insert(id, Lease { timeout: lease.timeout, ..known });
                }
                None => self.keep(id, lease, uptime),
            }
        }
    }

    /// Some of those that were seen since they were last written down, with when.
    pub(in crate::registry) fn take_unwritten(&mut self, most: usize) -> Vec<(ServiceId, Timestamp)> {
        let from = self.unwritten.len().saturating_sub(most);
        let mut seen = Vec::new();
        for id in self.unwritten.drain(from..) {
            if let Some(lease) = self.by_id.get_mut(&id) {
                lease.is_written = true;
                seen.extend(lease.last_seen.map(|time| (id, time)));
            }
        }
        seen
    }
}

/// Time as it passes for us: it stands still while we do not run, so that nobody is dead because we were away.
#[derive(Default)]
struct OwnTime {
    last: Option<i64>,
    away: i64,
}

impl OwnTime {
    fn at(&mut self, uptime: i64) -> i64 {
        let last = self.last.replace(uptime).unwrap_or(uptime);
        if uptime - last > PAUSE {
            self.away += uptime - last;
        }
        uptime - self.away
    }
}

#[cfg(test)]
mod tests;
