//! An etcd cluster, over the JSON gateway of its servers.
//!
//! A registration is a lease whose time to live is the heartbeat timeout, and a key under `/<prefix>/services/` that
//! guards the id, with everything about the service as JSON. What other programs read is on the same lease. A heartbeat
//! renews the lease, which writes nothing. Who falls silent is taken out by etcd itself, within a second or two of its
//! timeout. On the way out, the key is first marked as leaving, so that a watcher can tell that from a death.

mod changes;
mod client;
mod configuration;
mod fault;
#[cfg(feature = "server")]
mod hosted;
mod kv;
mod layout;
mod lease;
mod login;
mod record;
mod registering;
mod rehearsing;
mod renewing;
mod servers;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::json;

use self::client::Client;
pub use self::fault::EtcdCause;
#[cfg(feature = "server")]
pub(super) use self::hosted::{Hosted, shared_secret};
use self::kv::{Range, Txn};
use self::lease::LeaseId;
use self::record::{Found, Holding, Record};
use self::registering::TRIES;
use self::renewing::Held;
use self::wire::KeyValue;
use super::{
    Access, Claim, ConfigurationStore, Error, EtcdUrl, EventLog, Object, Owner, Registry, Rehearsal, Result,
    ServiceQuery, Watch,
};
use crate::model::{Page, Registration, Service, ServiceId, ServiceUpdate, Timestamp, Token};

const KIND: &str = "etcd";

/// An etcd cluster. It is connected to at the first call.
pub(super) struct Etcd {
    client: Client,
    url: EtcdUrl,
    held: Mutex<BTreeMap<ServiceId, Held>>,
}

impl Etcd {
    pub(super) fn new(url: &EtcdUrl, access: &Access) -> Self {
        Self { client: Client::new(url, access), url: url.clone(), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn found(&self, id: &ServiceId) -> Result<Found> {
        let found = self.client.get(&layout::key(&self.url, id)).await?;
        found.map(|found| Found::read(&found)).ok_or_else(|| self.not_found(Object::Service, id.as_str()))
    }

    /// Takes out what was found under the key of an id. False where it has changed since.
    async fn take_out(&self, id: &ServiceId, found: &Found) -> Result<bool> {
        let key = layout::key(&self.url, id);
        let (Some(record), Some(lease)) = (&found.record, found.lease) else {
            // There may be anything on the lease of another program.
            let unchanged = Txn::default().if_unchanged(&key, found.revision);
            return Ok(self.client.commit(unchanged.delete(&key)).await?.is_done);
        };
        if !record.leaving {
            match self.client.commit(self.leaving(&key, record, lease, found.revision)).await {
                Ok(outcome) if !outcome.is_done => return Ok(false),
                // With no space for the mark, there is still none needed to go.
                Err(error) if !fault::is_full(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if self.client.revoke(lease).await? || !record.leaving {
            return Ok(true);
        }
        Err(self.not_found(Object::Service, id.as_str()))
    }

    /// Marks it as leaving, and removes what others see of it.
    fn leaving(&self, key: &str, record: &Record, lease: LeaseId, revision: i64) -> Txn {
        let leaving = json!(Record { leaving: true, ..record.clone() }).to_string();
        let others = layout::entries(&self.url, record).into_iter().filter(|entry| entry.key != key);
        let txn = Txn::default().if_unchanged(key, revision);
        let txn = others.fold(txn, |txn, entry| txn.delete(&entry.key));
        txn.put(key, leaving, Some(lease))
    }

    /// Changes what was found under the key of an id. False where it has changed since.
    async fn change(&self, id: &ServiceId, found: &Found, update: &ServiceUpdate) -> Result<bool> {
        let not_found = || self.not_found(Object::Service, id.as_str());
        let (Some(record), Some(lease)) = (found.listed(), found.lease) else {
            if found.record.is_some() {
                return Err(not_found());
            }
            return Err(Error::Unsupported {
                operation: "changing what another program registered",
                kind: KIND,
                supported_by: "services that service-registry-wrapper or raxsr registered",
            });
        };
        let mut registration = record.registration();
        registration.heartbeat_timeout = update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
        registration.tags = update.tags.clone().unwrap_or(registration.tags);
        registration.metadata = update.metadata.clone().unwrap_or(registration.metadata);
        let changed = record.clone().with(&registration);
        if changed.heartbeat_timeout == record.heartbeat_timeout {
            return Ok(self.client.commit(self.writing(&changed, lease, Some(found))).await?.is_done);
        }
        // The deadline stays: the next heartbeat finds the lease gone, and takes one of the new length.
        let remaining = self.client.time_to_live(lease).await?.ok_or_else(not_found)?;
        let until = self.client.grant(remaining.left).await?;
        let outcome = self.client.commit(self.writing(&changed, until, Some(found))).await?;
        let ended = if outcome.is_done { lease } else { until };
        self.client.revoke(ended).await?;
        Ok(outcome.is_done)
    }

    /// As everybody else knows it; none where it is leaving, or not one of ours.
    fn read(found: &KeyValue) -> Option<Registration> {
        Found::read(found).listed().map(Record::registration)
    }

    fn not_found(&self, object: Object, id: &str) -> Error {
        Error::NotFound { registry: self.url.as_str().to_owned(), object, id: id.to_owned() }
    }
}

#[async_trait]
impl Registry for Etcd {
    fn url(&self) -> &str {
        self.url.as_str()
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        Ok(self.enter(registration, claim).await?.token(&registration.id))
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token> {
        let holding = Holding::of_token(token, id).filter(|holding| match whose {
            Owner::Anyone => true,
            Owner::Instance(instance) => holding.instance == instance,
        });
        let holding = holding.ok_or_else(|| self.not_found(Object::HeartbeatToken, id.as_str()))?;
        Ok(self.renew(id, holding).await?.token(id))
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        self.held().remove(id);
        for _ in 0..TRIES {
            let found = self.found(id).await?;
            let is_meant = match whose {
                Owner::Anyone => true,
                Owner::Instance(instance) => found.of(instance).is_some(),
            };
            if !is_meant {
                return Err(self.not_found(Object::Service, id.as_str()));
            }
            if self.take_out(id, &found).await? {
                return Ok(());
            }
        }
        Err(self.too_busy(&layout::key(&self.url, id)))
    }

    async fn rehearse(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        self.rehearsal(registration, claim)
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        for _ in 0..TRIES {
            if self.change(id, &self.found(id).await?, update).await? {
                return Ok(());
            }
        }
        Err(self.too_busy(&layout::key(&self.url, id)))
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        let found = self.client.get(&layout::key(&self.url, id)).await?;
        let registration = found.as_ref().and_then(Self::read);
        let registration = registration.ok_or_else(|| self.not_found(Object::Service, id.as_str()))?;
        Ok(Service { registration, last_seen: None })
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        let prefix = layout::services(&self.url);
        let marker = query.page.marker.as_ref().map_or("", |marker| marker.as_str());
        let range = Range::prefix(&prefix).from(&format!("{prefix}{marker}"));
        let wanted = |found: &KeyValue| {
            Self::read(found).filter(|registration| {
                query.tag.as_ref().is_none_or(|wanted| registration.tags.iter().any(|tag| tag == wanted))
            })
        };
        let most = query.page.limit.get() + 1;
        let is_short = |found: &[KeyValue]| found.iter().filter_map(wanted).take(most).count() < most;
        let found = self.client.list_while(range, &is_short).await?.kvs;
        let values = found.iter().filter_map(wanted).take(most);
        let values = values.map(|registration| Service { registration, last_seen: None }).collect();
        Ok(Page::from_lookahead(values, query.page.limit, |service| service.registration.id.clone()))
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Err(Error::Unsupported { operation: "the event log", kind: KIND, supported_by: super::KEEP_A_LOG })
    }

    async fn watch(&self) -> Result<Box<dyn Watch + '_>> {
        Ok(Box::new(watch::Following::begin(self).await?))
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        self.client.clock(&layout::services(&self.url)).await
    }

    async fn renew_credentials(&self) -> Result<()> {
        self.client.renew_credentials();
        Ok(())
    }
}
