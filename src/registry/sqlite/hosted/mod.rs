//! The embedded registry as a server keeps it: for many clients, most of what they send being heartbeats.
//!
//! The file stays the truth about who is registered, and can be shared as ever: wrappers and `raxsr` on the same
//! machine read and change it beside us. But the services that come in through us have their deadlines in our
//! memory ([`leases`](crate::registry::hosted::leases)), where a heartbeat is a few microseconds, and their tokens can be checked without having
//! been written down ([`token`](crate::registry::hosted::token)). Everything else is written by one thread ([`worker`]), and is on the disk when
//! it is answered.
//!
//! Killed at any point, we lose nothing that was acknowledged: who was alive is in the file, and has its full
//! timeout from our next start. While we are away, nobody else settles our services, for an hour.

mod file;
mod worker;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::Connection;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::worker::{Effect, Job, Order, Worker};
use super::fault::Fault;
use super::services::{self, Keeping};
use super::uptime_millis;
use super::url_of;
use super::{Sqlite, configuration};
use crate::model::{
    ConfigurationId, ConfigurationValue, Event, Page, Registration, Service, ServiceId, ServiceUpdate, Token,
};
use crate::registry::hosted::leases::{Lease, Leases};
use crate::registry::hosted::token::Seed;
use crate::registry::{
    Cause, Claim, ConfigurationQuery, ConfigurationStore, EventLog, EventQuery, Limits, Object, Owner,
    Registry, Result, ServiceQuery, Statistics,
};

/// A registry that this process, and no other, hosts.
pub(crate) struct Hosted {
    path: PathBuf,
    /// For all that only reads.
    reads: Sqlite,
    orders: mpsc::Sender<Order>,
    shared: Shared,
    limits: Mutex<Limits>,
    /// Held for as long as we host.
    _lock: Flock<File>,
}

/// What the thread that writes and everybody else have in common.
#[derive(Clone)]
struct Shared {
    url: Arc<str>,
    leases: Arc<Mutex<Leases>>,
    timeouts: Arc<AtomicU64>,
    services: Arc<AtomicU64>,
}

impl Shared {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self, timeouts: usize, services: u64) {
        self.timeouts.fetch_add(timeouts as u64, Ordering::Relaxed);
        self.services.store(services, Ordering::Relaxed);
    }
}

impl Hosted {
    /// Opens the file, and begins to host it. Blocks while it reads who is registered.
    ///
    /// # Errors
    /// When the file cannot be used, or another process hosts it.
    pub(crate) fn open(path: &Path, limits: Limits) -> Result<Self> {
        let url = url_of(path);
        Self::open_inner(path, &url, limits).map_err(|fault| fault.at(path, &url))
    }

    fn open_inner(path: &Path, url: &str, limits: Limits) -> std::result::Result<Self, Fault> {
        let shared = Shared {
            url: url.into(),
            leases: Arc::default(),
            timeouts: Arc::default(),
            services: Arc::default(),
        };
        // Makes the directory, too.
        super::store::prepare(path)?;
        let lock = lock(path)?;
        let worker = Worker::new(path.to_owned(), shared.clone())?;
        let (orders, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || worker.run(&queue))
            .map_err(|source| Fault::file("a thread of our own", source))?;
        let reads = Sqlite::new(path.to_owned());
        Ok(Self { path: path.to_owned(), reads, orders, shared, limits: Mutex::new(limits), _lock: lock })
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl Fn(&Connection) -> std::result::Result<(T, Effect), Fault> + Send + 'static,
    ) -> std::result::Result<T, Fault> {
        let (caller, answer) = oneshot::channel();
        let job = Box::new(Job { write, outcome: None, caller });
        self.orders.send(Order::Write(job)).map_err(|_| worker::gone())?;
        answer.await.unwrap_or_else(|_| Err(worker::gone()))
    }

    /// Waits until the dead are out of the file, if there are any.
    async fn settle(&self) -> Result<()> {
        let uptime = uptime_millis().map_err(|fault| self.told(fault))?;
        if self.shared.leases().anyone_died(uptime) {
            self.write(|_| Ok(((), Effect::Nothing))).await.map_err(|fault| self.told(fault))?;
        }
        Ok(())
    }

    fn told(&self, fault: Fault) -> crate::registry::Error {
        fault.at(&self.path, &self.shared.url)
    }

    /// What we know better than the file.
    fn update_seen(&self, services: &mut [Service]) {
        let leases = self.shared.leases();
        for service in services {
            service.last_seen = leases.last_seen(&service.registration.id).or(service.last_seen);
        }
    }

    /// Why there was nothing to renew.
    async fn unknown(&self, id: &ServiceId) -> Result<Token> {
        let is_listed = self.shared.leases().contains(id) || self.service(id).await.is_ok();
        let object = if is_listed { Object::HeartbeatToken } else { Object::Service };
        Err(self.told(Fault::NotFound { object, id: id.to_string() }))
    }
}

#[async_trait]
impl Registry for Hosted {
    fn url(&self) -> &str {
        &self.shared.url
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        let (registration, claim, limit) = (registration.clone(), claim.clone(), self.limits().services);
        let outcome = self.write(move |file| {
            let seed = Seed::random();
            let keeping = Keeping { token: seed.written(), deadline: None, limit };
            services::register(file, &registration, &claim, &keeping)?;
            let mut lease = Lease::new(seed, registration.heartbeat_timeout, Some(claim.instance));
            let token = Token::new(lease.issue().to_string());
            Ok((token, Effect::Keep(registration.id.clone(), lease)))
        });
        outcome.await.map_err(|fault| match fault {
            Fault::Conflict { id, holder, frees_in: None } => {
                let left = |uptime| self.shared.leases().time_left(&id, uptime);
                let frees_in = uptime_millis().ok().and_then(left);
                self.told(Fault::Conflict { id, holder, frees_in })
            }
            fault => self.told(fault),
        })
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token> {
        let uptime = uptime_millis().map_err(|fault| self.told(fault))?;
        let presented = Uuid::parse_str(token.as_str()).ok();
        let next = presented.and_then(|token| self.shared.leases().renew(id, &token, whose, uptime));
        match next {
            Some(next) => Ok(Token::new(next.to_string())),
            None => self.unknown(id).await,
        }
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        let id = id.clone();
        let outcome = self.write(move |file| {
            services::deregister(file, &id, whose)?;
            Ok(((), Effect::Forget(id.clone())))
        });
        outcome.await.map_err(|fault| self.told(fault))
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        let (id, update) = (id.clone(), update.clone());
        let outcome = self.write(move |file| {
            services::update(file, &id, update.clone())?;
            let effect = match update.heartbeat_timeout {
                Some(timeout) => Effect::Retime(id.clone(), timeout),
                None => Effect::Nothing,
            };
            Ok(((), effect))
        });
        outcome.await.map_err(|fault| self.told(fault))
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        self.settle().await?;
        let mut service = [self.reads.service(id).await?];
        self.update_seen(&mut service);
        let [service] = service;
        Ok(service)
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        self.settle().await?;
        let mut page = self.reads.services(query).await?;
        self.update_seen(&mut page.values);
        Ok(page)
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Ok(self)
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(Statistics {
            services: self.shared.services.load(Ordering::Relaxed),
            timeouts: self.shared.timeouts.load(Ordering::Relaxed),
        })
    }

    fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    async fn close(&self) {
        let (caller, closed) = oneshot::channel();
        if self.orders.send(Order::Close(caller)).is_ok() {
            let _ = closed.await;
        }
    }
}

#[async_trait]
impl EventLog for Hosted {
    async fn events(&self, query: &EventQuery) -> Result<Page<Event, Uuid>> {
        self.settle().await?;
        EventLog::events(&self.reads, query).await
    }
}

#[async_trait]
impl ConfigurationStore for Hosted {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        self.reads.value(id).await
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        self.reads.values(query).await
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        let (value, limit) = (value.clone(), self.limits().configuration_values);
        let outcome = self.write(move |file| Ok((configuration::set(file, &value, limit)?, Effect::Nothing)));
        outcome.await.map_err(|fault| self.told(fault))
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        let id = id.clone();
        let outcome = self.write(move |file| Ok((configuration::remove(file, &id)?, Effect::Nothing)));
        outcome.await.map_err(|fault| self.told(fault))
    }
}

/// One host for each file: two would have each its own deadlines. The lock is on a file of its own, as SQLite's
/// own locks are lost when anybody in the process closes the database.
fn lock(path: &Path) -> std::result::Result<Flock<File>, Fault> {
    let mut name = path.as_os_str().to_owned();
    name.push("-host");
    let told = |source| Fault::file(Path::new(&name).display().to_string(), source);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    match Flock::lock(file.map_err(told)?, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(told)?;
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(told)?;
            Err(Fault::Because(Cause::Hosted { pid }))
        }
    }
}
