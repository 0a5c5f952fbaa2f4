//! Heartbeats. Most are one request that writes nothing: the renewal of a lease. Every tenth also looks whether the keys
//! are still there, since a lease says nothing about them.

use tracing::info;

use super::Etcd;
use super::kv::Txn;
use super::layout::{self, Entry};
use super::lease::LeaseId;
use super::record::{Found, Holding, Record};
use super::registering::TRIES;
use crate::model::ServiceId;
use crate::registry::{Object, Result};

/// After how many heartbeats the keys are looked at.
const BEATS: u32 = 10;

/// What this process has registered.
pub(super) struct Held {
    lease: LeaseId,
    entries: Vec<Entry>,
    /// Heartbeats until the next look.
    beats: u32,
}

impl Etcd {
    /// Remembers what has been written, to look after it.
    pub(super) fn hold(&self, record: &Record, lease: LeaseId) {
        // Those that were started together look apart.
        let beats = fastrand::u32(1..=BEATS);
        let held = Held { lease, entries: layout::entries(&self.url, record), beats };
        self.held().insert(record.id.clone(), held);
    }

    pub(super) async fn renew(&self, id: &ServiceId, holding: Holding) -> Result<Holding> {
        if !self.client.keep_alive(holding.lease).await? {
            return self.revive(id, holding).await;
        }
        match self.due(id, holding.lease) {
            Some(entries) => self.look_after(id, holding, entries).await,
            None => Ok(holding),
        }
    }

    /// The keys that are to be looked at, if it is time to.
    fn due(&self, id: &ServiceId, lease: LeaseId) -> Option<Vec<Entry>> {
        let mut held = self.held();
        let held = held.get_mut(id).filter(|held| held.lease == lease)?;
        held.beats -= 1;
        if held.beats > 0 {
            return None;
        }
        held.beats = BEATS;
        Some(held.entries.clone())
    }

    /// The lease is gone. The service may be on another one since: a change of its timeout takes that.
    async fn revive(&self, id: &ServiceId, holding: Holding) -> Result<Holding> {
        let key = layout::key(&self.url, id);
        for _ in 0..TRIES {
            let found = self.client.get(&key).await?.map(|found| Found::read(&found));
            let Some(found) = found.filter(|found| found.of(holding.instance).is_some()) else { break };
            let (Some(record), Some(lease)) = (found.listed(), found.lease) else { break };
            let timeout = record.heartbeat_timeout.as_duration();
            let remaining = self.client.time_to_live(lease).await?;
            // Just after a start, etcd may not know a lease yet that it has keys on.
            let serves = lease == holding.lease || remaining.is_some_and(|found| found.granted == timeout);
            if serves && self.client.keep_alive(lease).await? {
                self.hold(record, lease);
                return Ok(Holding { lease, ..holding });
            }
            let fresh = self.client.grant(timeout).await?;
            if self.client.commit(self.writing(record, fresh, Some(&found))).await?.is_done {
                self.hold(record, fresh);
                self.end_lease_of(Some(&found), fresh).await;
                return Ok(Holding { lease: fresh, ..holding });
            }
            let _ = self.client.revoke(fresh).await;
        }
        self.held().remove(id);
        Err(self.not_found(Object::Service, id.as_str()))
    }

    /// Writes again what somebody has deleted.
    async fn look_after(&self, id: &ServiceId, holding: Holding, entries: Vec<Entry>) -> Result<Holding> {
        let lease = holding.lease;
        let Some(keys) = self.client.keys_on(lease).await? else {
            return self.revive(id, holding).await;
        };
        let is_there = |entry: &Entry| keys.iter().any(|key| key == entry.key.as_bytes());
        if entries.iter().all(is_there) {
            return Ok(holding);
        }
        let key = layout::key(&self.url, id);
        let found = self.client.get(&key).await?.map(|found| Found::read(&found));
        let (mut txn, entries) = match &found {
            None => (Txn::default().if_absent(&key), entries),
            // Somebody may have changed it through another client: what it is now counts.
            Some(found) if found.lease == Some(lease) && found.of(holding.instance).is_some() => {
                let Some(record) = found.listed() else {
                    return Err(self.not_found(Object::Service, id.as_str()));
                };
                self.hold(record, lease);
                let unchanged = Txn::default().if_unchanged(&key, found.revision).if_on_lease(&key, lease);
                (unchanged, layout::entries(&self.url, record))
            }
            Some(_) => return self.revive(id, holding).await,
        };
        let mut is_needed = false;
        for entry in entries.iter().filter(|entry| !is_there(entry)) {
            // One that is on another lease is another's: two services may share an address.
            if self.client.get(&entry.key).await?.is_none() {
                txn = txn.put(&entry.key, &entry.value, Some(lease));
                is_needed = true;
            }
        }
        if is_needed && self.client.commit(txn).await?.is_done {
            info!(service = %id, "wrote keys again that somebody had deleted");
        }
        Ok(holding)
    }
}
