//! Entering a service: a lease, and in one transaction, guarded by the key of its id, everything that is written of it.

use std::time::Duration;

use tracing::warn;

use super::Etcd;
use super::kv::Txn;
use super::layout::{self, Entry};
use super::lease::LeaseId;
use super::record::{Found, Holding, Record};
use crate::model::{InstanceId, Registration, printable};
use crate::registry::http::HttpCause;
use crate::registry::{Claim, Error, IfTaken, Result};

/// How often somebody else may come between our look at a key and our writing.
pub(super) const TRIES: usize = 5;

impl Etcd {
    /// Enters it, or finds that an earlier try has.
    pub(super) async fn enter(&self, registration: &Registration, claim: &Claim) -> Result<Holding> {
        let mut fresh = None;
        let entered = self.try_to_enter(registration, claim, &mut fresh).await;
        let used = entered.as_ref().ok().map(|holding| holding.lease);
        if let Some(unused) = fresh.filter(|lease| used != Some(*lease)) {
            // It would end by itself.
            let _ = self.client.revoke(unused).await;
        }
        entered
    }

    async fn try_to_enter(
        &self,
        registration: &Registration,
        claim: &Claim,
        fresh: &mut Option<LeaseId>,
    ) -> Result<Holding> {
        let key = layout::key(&self.url, &registration.id);
        let mut found = self.client.get(&key).await?.map(|found| Found::read(&found));
        for _ in 0..TRIES {
            if let Some(found) = &found {
                if let (Some(record), Some(lease)) = (found.of(claim.instance), found.lease)
                    && *fresh == Some(lease)
                {
                    // It was us, by a request whose answer was lost.
                    self.hold(record, lease);
                    return Ok(Holding { lease, instance: claim.instance });
                }
                self.check_is_free(registration, found, claim).await?;
            }
            let lease = match self.lease_to_go_on_with(registration, found.as_ref(), claim.instance).await? {
                Some(lease) => lease,
                None => self.fresh_lease(registration, fresh).await?,
            };
            let record = match found.as_ref().and_then(|found| found.of(claim.instance)) {
                Some(record) => Record { leaving: false, ..record.clone().with(registration) },
                None => Record::new(registration, claim),
            };
            if found.is_none() {
                self.complain(&record);
            }
            let txn = self.writing(&record, lease, found.as_ref()).or_get(&key);
            let outcome = self.client.commit(txn).await?;
            if outcome.is_done {
                self.hold(&record, lease);
                self.end_lease_of(found.as_ref(), lease).await;
                return Ok(Holding { lease, instance: claim.instance });
            }
            found = outcome.found().map(|found| Found::read(&found));
        }
        Err(self.too_busy(&key))
    }

    /// Whether the key under which `found` stands may be written.
    async fn check_is_free(&self, registration: &Registration, found: &Found, claim: &Claim) -> Result<()> {
        let is_ours = found.of(claim.instance).is_some();
        if is_ours || found.is_leaving() || claim.if_taken == IfTaken::TakeOver {
            return Ok(());
        }
        let left = match found.lease {
            Some(lease) => {
                let remaining = self.client.time_to_live(lease).await?;
                Some(remaining.map_or(Duration::ZERO, |remaining| remaining.left))
            }
            None => None,
        };
        let holder = found.record.as_ref().map(|record| record.holder.as_str());
        let holder = holder.filter(|holder| !holder.is_empty()).unwrap_or("another program");
        let (id, holder) = (registration.id.clone(), printable(holder));
        Err(Error::Conflict { id, holder, frees_in: left })
    }

    /// The lease that an earlier registration of the same instance is on, if it still serves.
    async fn lease_to_go_on_with(
        &self,
        registration: &Registration,
        found: Option<&Found>,
        instance: InstanceId,
    ) -> Result<Option<LeaseId>> {
        let Some(found) = found else { return Ok(None) };
        let timeout = registration.heartbeat_timeout;
        let serves = |record: &&Record| record.heartbeat_timeout == timeout && !record.leaving;
        let Some(lease) = found.of(instance).filter(serves).and(found.lease) else { return Ok(None) };
        Ok(self.client.keep_alive(lease).await?.then_some(lease))
    }

    async fn fresh_lease(&self, registration: &Registration, fresh: &mut Option<LeaseId>) -> Result<LeaseId> {
        if let Some(lease) = *fresh {
            return Ok(lease);
        }
        let lease = self.client.grant(registration.heartbeat_timeout.as_duration()).await?;
        *fresh = Some(lease);
        Ok(lease)
    }

    /// Writes all there is of a service, if the key of its id is as it was `found`.
    pub(super) fn writing(&self, record: &Record, lease: LeaseId, found: Option<&Found>) -> Txn {
        let key = layout::key(&self.url, &record.id);
        let txn = match found {
            Some(found) => Txn::default().if_unchanged(&key, found.revision),
            None => Txn::default().if_absent(&key),
        };
        let entries = layout::entries(&self.url, record);
        let before = found.and_then(|found| found.record.as_ref());
        let before = before.map_or_else(Vec::new, |record| layout::entries(&self.url, record));
        let is_stale = |old: &&Entry| entries.iter().all(|entry| entry.key != old.key);
        let txn = before.iter().filter(is_stale).fold(txn, |txn, old| txn.delete(&old.key));
        entries.iter().fold(txn, |txn, entry| txn.put(&entry.key, &entry.value, Some(lease)))
    }

    /// Ends the lease that the record was on before it came to `lease`. Whoever held it learns by its next heartbeat.
    pub(super) async fn end_lease_of(&self, found: Option<&Found>, lease: LeaseId) {
        let before = found.filter(|found| found.record.is_some()).and_then(|found| found.lease);
        if let Some(before) = before.filter(|before| *before != lease)
            && let Err(error) = self.client.revoke(before).await
        {
            warn!(lease = %before, error = %error, "a lease is left to end by itself");
        }
    }

    fn complain(&self, record: &Record) {
        for (layout, reason) in layout::complaints(&self.url, record) {
            warn!(service = %record.id, layout = layout.as_str(), "not written in this layout: {reason}");
        }
    }

    pub(super) fn too_busy(&self, key: &str) -> Error {
        let cause = HttpCause::Nonsense(format!("somebody else keeps changing {}", printable(key)));
        Error::Unavailable { registry: self.url.as_str().to_owned(), source: cause.into() }
    }
}
