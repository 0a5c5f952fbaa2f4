//! The embedded registry: one SQLite file, shared by every wrapper and `raxsr` on a machine.
//!
//! Nobody runs: there is no server that could expire the dead. Instead whoever reads or writes next settles it,
//! in one transaction with what it came for: each service whose deadline has passed leaves the table and enters
//! the event log as one `service.timeout` ([`Store::write`], [`Store::read`]).
//!
//! Deadlines are of the machine's own clock ([`clock`]), which nobody can set. The file is in WAL mode, so that
//! a crash at any point leaves it consistent. What is acknowledged outlives any crash of a process; configuration
//! outlives a power failure, too. Services need not: they do not outlive it themselves.

mod configuration;
mod events;
mod fault;
mod format;
#[cfg(feature = "server")]
mod hosted;
mod services;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use uuid::Uuid;

use self::fault::Fault;
#[cfg(feature = "server")]
pub(super) use self::hosted::Hosted;
use self::services::Keeping;
use self::store::{Durability, Store};
use super::url::sqlite_shown as url_of;
use super::{
    Claim, ConfigurationQuery, ConfigurationStore, EventLog, EventQuery, Owner, Registry, Rehearsal, Result,
    ServiceQuery,
};
use crate::model::{
    ConfigurationId, ConfigurationValue, Event, Page, Registration, Service, ServiceId, ServiceUpdate, Token,
};

/// An embedded registry. The file is opened, and made where it is missing, at the first call.
pub(super) struct Sqlite {
    path: PathBuf,
    url: String,
    /// Locked for as long as a call uses the file: a call whose caller has gone finishes before the next begins,
    /// and one that hangs holds up the next without taking another thread.
    store: Arc<Mutex<Option<Store>>>,
}

impl Sqlite {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { url: url_of(&path), path, store: Arc::default() }
    }

    /// Runs `job` on the open file, off the runtime's thread: signals must not wait for a disk.
    async fn with_store<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let mut slot = Arc::clone(&self.store).lock_owned().await;
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || {
            let outcome = store::usable(&mut slot, &path).and_then(job);
            if matches!(&outcome, Err(fault) if fault.calls_for_reopening()) {
                *slot = None;
            }
            outcome
        });
        let outcome = work.await.unwrap_or_else(|error| Err(Fault::internal(&error)));
        outcome.map_err(|fault| fault.at(&self.path, &self.url))
    }

    async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        job: impl FnOnce(&rusqlite::Connection) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.with_store(move |store| store.write(durability, job)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl Fn(&rusqlite::Connection) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.with_store(move |store| store.read(job)).await
    }
}

#[async_trait]
impl Registry for Sqlite {
    fn url(&self) -> &str {
        &self.url
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        let (registration, claim) = (registration.clone(), claim.clone());
        let job = move |file: &rusqlite::Connection| {
            let keeping = Keeping::in_file(registration.heartbeat_timeout)?;
            services::register(file, &registration, &claim, &keeping)?;
            Ok(keeping.token)
        };
        self.write(Durability::Process, job).await
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token> {
        let (id, token) = (id.clone(), token.clone());
        self.write(Durability::Process, move |file| services::heartbeat(file, &id, &token, whose)).await
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        let id = id.clone();
        self.write(Durability::Process, move |file| services::deregister(file, &id, whose)).await
    }

    async fn rehearse(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        Ok(services::rehearsal(&self.path.to_string_lossy(), registration, claim))
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        let (id, update) = (id.clone(), update.clone());
        self.write(Durability::Process, move |file| services::update(file, &id, update)).await
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        let id = id.clone();
        self.read(move |file| services::get(file, &id)).await
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        let query = query.clone();
        self.read(move |file| services::list(file, &query)).await
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Ok(self)
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }
}

#[async_trait]
impl EventLog for Sqlite {
    async fn events(&self, query: &EventQuery) -> Result<Page<Event, Uuid>> {
        let query = query.clone();
        self.read(move |file| events::list(file, &query)).await
    }
}

#[async_trait]
impl ConfigurationStore for Sqlite {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        let id = id.clone();
        self.read(move |file| configuration::get(file, &id)).await
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        let query = query.clone();
        self.read(move |file| configuration::list(file, &query)).await
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        let value = value.clone();
        self.write(Durability::Full, move |file| configuration::set(file, &value, None)).await
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        let id = id.clone();
        self.write(Durability::Full, move |file| configuration::remove(file, &id)).await
    }
}

/// How long the machine has been running.
fn uptime_millis() -> std::result::Result<i64, Fault> {
    super::clock::uptime_millis().map_err(|source| Fault::file("CLOCK_BOOTTIME", source))
}
