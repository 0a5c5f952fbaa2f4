//! An etcd cluster as servers keep a registry in it: any number of them, each for many clients, most of what they send
//! being heartbeats. None of them has anything that the others lack: whichever is killed, its clients go on at another.
//!
//! What is registered is in the store, and every server has all of it in its memory, too ([`state`]). Who is alive is in
//! their memory alone: heartbeats reach the store only as the servers' reports to one another ([`council`]), a few writes
//! a second for any number of services. Every change is written together with its event ([`writer`], [`log`]), so that
//! the log has each once, in order. What goes on all the time is in [`keeping`].
//!
//! Wrappers and `raxsr` that use the cluster directly are in the same registry: their services, each on a lease of its
//! own, are listed here, ours are listed there, and what they change is in the log, too.

mod council;
mod foreign;
mod keeping;
mod keys;
mod log;
mod secret;
mod state;
mod values;
mod writer;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tracing::warn;
use uuid::Uuid;

use self::council::{Fingerprint, Member};
use self::keys::Keys;
pub(in crate::registry) use self::secret::shared_secret;
use self::state::{Known, State};
use self::writer::{Change, Expected, Order, Outcome};
use super::client::Client;
use super::layout;
use super::record::{Found, Record};
use super::wire::KeyValue;
use crate::message::{Hint, chain};
use crate::model::{EventBody, Page, Registration, Service, ServiceId, ServiceUpdate, Timestamp, Token};
use crate::registry::hosted::leases::Lease;
use crate::registry::hosted::token::Seed;
use crate::registry::{
    Access, Cause, Claim, ConfigurationStore, Error, EtcdUrl, EventLog, IfTaken, Limits, Object, Owner,
    Recourse, Registry, Result, ServiceQuery, Statistics, clock,
};

/// How long a call waits for the server to be one of the servers.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long opening waits for the cluster.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How often a change is tried again that somebody else came before.
const MOST_TRIES: usize = 50;

/// A registry in an etcd cluster, that this process hosts with any number of others.
pub(in crate::registry) struct Hosted {
    core: Arc<Core>,
    limits: Mutex<Limits>,
    tasks: Vec<AbortHandle>,
}

/// What the tasks and the calls have in common.
struct Core {
    client: Client,
    url: EtcdUrl,
    keys: Keys,
    state: Mutex<State>,
    orders: mpsc::UnboundedSender<Order>,
    /// Whenever we may have become one of the servers.
    seated: Notify,
    /// Whenever the watch has told of something.
    advanced: Notify,
    turns: Turns,
    /// Whose turn it is to add something where there is little room.
    last_room: tokio::sync::Mutex<()>,
}

/// How long the machine has been running, in milliseconds.
fn uptime() -> i64 {
    // The clock is there on every Linux that Rust runs on.
    clock::uptime_millis().unwrap_or_default()
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what we say is true: until we know what is there, and the others count us in.
    async fn ready(&self) -> Result<()> {
        let seated = self.until(&self.seated, |state| state.is_seated(uptime()));
        if tokio::time::timeout(PATIENCE, seated).await.is_ok() {
            return Ok(());
        }
        // The store itself tells best what is wrong.
        self.client.get(&self.keys.clock()).await?;
        let registry = self.url.as_str().to_owned();
        Err(Error::Unavailable { registry, source: Cause::TimedOut(PATIENCE) })
    }

    /// Waits until it is so: it may have become so whenever `changed` says.
    async fn until(&self, changed: &Notify, is_so: impl Fn(&State) -> bool) {
        loop {
            let next = changed.notified();
            if is_so(&self.state()) {
                return;
            }
            next.await;
        }
    }

    /// Waits until the dead are out, where we may decide that alone.
    async fn settle(&self) -> Result<()> {
        let dead = {
            let mut state = self.state();
            if state.council.is_alone() { state.judge(uptime(), 0).0 } else { Vec::new() }
        };
        if dead.is_empty() { Ok(()) } else { self.bury(dead).await }
    }

    /// Waits until the watch has told of everything up to `revision`, or a second.
    async fn catch_up(&self, revision: i64) {
        let caught_up = self.until(&self.advanced, |state| state.revision >= revision);
        drop(tokio::time::timeout(Duration::from_secs(1), caught_up).await);
    }

    /// Takes a heartbeat, which the others will be told of; none where the service or the token is not known.
    fn renew(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Option<Token>> {
        let uptime = uptime();
        let mut state = self.state();
        if !state.is_seated(uptime) {
            let registry = self.url.as_str().to_owned();
            return Err(Error::Unavailable { registry, source: Cause::TimedOut(PATIENCE) });
        }
        let presented = Uuid::parse_str(token.as_str()).ok();
        let next = presented.and_then(|token| state.leases.renew(id, &token, whose, uptime));
        if next.is_some() {
            state.heard.insert(Fingerprint::of(id));
        }
        Ok(next.map(|next| Token::new(next.to_string())))
    }

    /// Takes note of what a server has put under an id. (What others have is noted with its events, by the watch.)
    async fn look_up(&self, id: &ServiceId) -> Result<()> {
        let found = self.client.get(&layout::key(&self.url, id)).await?;
        let is_served =
            |found: &KeyValue| Found::read(found).record.is_some_and(|record| record.seed.is_some());
        if let Some(found) = found.filter(is_served) {
            self.state().put(&found, uptime());
        }
        Ok(())
    }

    fn not_found(&self, object: Object, id: &str) -> Error {
        Error::NotFound { registry: self.url.as_str().to_owned(), object, id: id.to_owned() }
    }

    /// Makes the change of `key` that `plan` finds fit for what is there, again while somebody else comes first. No
    /// change, no writing.
    async fn change_as(
        &self,
        key: &str,
        plan: impl Fn(&mut State) -> Result<Option<Change>> + Send,
    ) -> Result<()> {
        let _turn = self.turns.of(key).lock().await;
        for _ in 0..MOST_TRIES {
            let change = plan(&mut self.state())?;
            let Some(change) = change else { return Ok(()) };
            match self.change(change).await? {
                Outcome::Done => return Ok(()),
                Outcome::Raced(revision) => self.catch_up(revision).await,
            }
        }
        let registry = self.url.as_str().to_owned();
        let source = Cause::Internal("others keep changing the same".to_owned());
        Err(Error::Unavailable { registry, source })
    }

    /// Where there is little room, only one at a time adds something: held until that is done.
    async fn adding(
        &self,
        room: Option<Room>,
        count: impl Fn(&State) -> usize,
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let room = room?;
        let is_scarce = room.is_scarce(count(&self.state()));
        if is_scarce { Some(self.last_room.lock().await) } else { None }
    }

    /// A change of a service's entry, in every layout.
    fn entry_change(
        &self,
        known: Option<&Known<Record>>,
        record: Option<&Record>,
        bodies: Vec<EventBody>,
    ) -> Option<Change> {
        let id = &record.or(known.map(|known| &known.value))?.id;
        let key = layout::key(&self.url, id);
        let before = known.map(|known| layout::entries(&self.url, &known.value)).unwrap_or_default();
        let mut others: Vec<_> = before.into_iter().map(|entry| (entry.key, None)).collect();
        for entry in record.map(|record| layout::entries(&self.url, record)).unwrap_or_default() {
            others.retain(|(key, _)| *key != entry.key);
            others.push((entry.key, Some(entry.value)));
        }
        others.retain(|(other, _)| *other != key);
        Some(Change {
            key,
            expected: known.map_or(Expected::Absent, |known| Expected::Unchanged(known.revision)),
            value: record.map(|record| json!(record).to_string()),
            others,
            bodies,
            unless_new: None,
        })
    }
}

/// Those of our clients who want to change the same take turns: one comes first, and the others see what it did.
struct Turns([tokio::sync::Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    fn of(&self, key: &str) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.0[usize::try_from(hasher.finish() % 64).unwrap_or_default()]
    }
}

/// How many things of a kind there may be.
#[derive(Clone, Copy)]
struct Room {
    limit: u64,
    object: Object,
}

impl Room {
    /// When fewer than this are left, they are added one by one: servers that add in the same instant count the same.
    const MARGIN: u64 = 500;

    fn is_scarce(self, count: usize) -> bool {
        count as u64 + Self::MARGIN > self.limit
    }

    /// # Errors
    /// When there is none left.
    fn check(self, count: usize, url: &EtcdUrl) -> Result<()> {
        let Self { limit, object } = self;
        if (count as u64) < limit {
            return Ok(());
        }
        Err(Error::LimitReached { registry: url.as_str().to_owned(), object, limit })
    }
}

impl Hosted {
    /// Begins to host. Blocks until it is known what is there; a cluster that is away is waited for in the background.
    ///
    /// # Errors
    /// When the cluster refuses us.
    pub(in crate::registry) fn open(url: &EtcdUrl, access: &Access, limits: Limits) -> Result<Self> {
        let keys = Keys::new(url.prefix());
        let (orders, queue) = mpsc::unbounded_channel();
        let core = Arc::new(Core {
            client: Client::new(url, access),
            url: url.clone(),
            state: Mutex::new(State::new(keys.clone(), Member::unique())),
            keys,
            orders,
            seated: Notify::new(),
            advanced: Notify::new(),
            turns: Turns::default(),
            last_room: tokio::sync::Mutex::default(),
        });
        let runtime = Handle::current();
        let loaded = runtime.block_on(tokio::time::timeout(START_PATIENCE, core.load()));
        match loaded {
            Ok(Err(error)) if error.recourse() != Recourse::Retry => return Err(error),
            Ok(Err(error)) => {
                warn!(error = chain(&error), hint = error.hint(), "waiting for the registry");
            }
            Ok(Ok(())) | Err(_) => {}
        }
        let tasks = [
            runtime.spawn(keeping::follow(Arc::clone(&core))),
            runtime.spawn(keeping::keep(Arc::clone(&core))),
            runtime.spawn(writer::run(Arc::clone(&core), queue)),
        ];
        let tasks = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        Ok(Self { core, limits: Mutex::new(limits), tasks })
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn at_hand(&self) -> Result<()> {
        self.core.ready().await?;
        self.core.settle().await
    }

    fn listed(state: &State, known: &Known<Record>) -> Service {
        let registration = known.value.registration();
        let last_seen = state.leases.last_seen(&registration.id);
        Service { registration, last_seen }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Registry for Hosted {
    fn url(&self) -> &str {
        self.core.url.as_str()
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        self.at_hand().await?;
        let core = &*self.core;
        let room = self.limits().services.map(|limit| Room { limit, object: Object::Service });
        let _adding = core.adding(room, |state| state.services.len()).await;
        let seed = Seed::random();
        let record = Record { seed: Some(seed.key()), ..Record::new(registration, claim) };
        let key = layout::key(&core.url, &registration.id);
        core.change_as(&key, |state| {
            let known = state.services.get(&registration.id).cloned();
            let holder =
                known.as_ref().map(|known| &known.value).filter(|held| held.instance != claim.instance);
            let mut bodies = Vec::new();
            match holder {
                Some(held) if claim.if_taken == IfTaken::Refuse => {
                    return Err(Error::Conflict {
                        id: registration.id.clone(),
                        holder: held.holder.clone(),
                        frees_in: state.leases.time_left(&registration.id, uptime()),
                    });
                }
                Some(held) => bodies.push(EventBody::ServiceRemove(held.registration())),
                None => {}
            }
            let mut unless_new = None;
            if let Some(room) = room.filter(|_| known.is_none()) {
                let count = state.services.len();
                room.check(count, &core.url)?;
                unless_new = room.is_scarce(count).then(|| (core.keys.services(), state.revision));
            }
            if holder.is_some() || known.is_none() {
                bodies.push(EventBody::ServiceJoin(registration.clone()));
            }
            let change = core.entry_change(known.as_ref(), Some(&record), bodies);
            Ok(change.map(|change| Change { unless_new, ..change }))
        })
        .await?;
        let mut lease = Lease::new(seed, registration.heartbeat_timeout, Some(claim.instance));
        let token = lease.issue();
        core.state().leases.keep(registration.id.clone(), lease, uptime());
        Ok(Token::new(token.to_string()))
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token> {
        self.core.ready().await?;
        if let Some(next) = self.core.renew(id, token, whose)? {
            return Ok(next);
        }
        // It may have registered at another server just now: the store knows before the watch tells.
        self.core.look_up(id).await?;
        if let Some(next) = self.core.renew(id, token, whose)? {
            return Ok(next);
        }
        let is_listed = self.core.state().services.contains_key(id);
        let object = if is_listed { Object::HeartbeatToken } else { Object::Service };
        Err(self.core.not_found(object, id.as_str()))
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        self.at_hand().await?;
        let core = &*self.core;
        core.change_as(&layout::key(&core.url, id), |state| {
            let known = state.services.get(id).filter(|known| match whose {
                Owner::Anyone => true,
                Owner::Instance(instance) => known.value.instance == instance,
            });
            let known = known.ok_or_else(|| core.not_found(Object::Service, id.as_str()))?;
            let body = EventBody::ServiceRemove(known.value.registration());
            Ok(core.entry_change(Some(known), None, vec![body]))
        })
        .await
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        self.at_hand().await?;
        let core = &*self.core;
        core.change_as(&layout::key(&core.url, id), |state| {
            let known = state.services.get(id).ok_or_else(|| core.not_found(Object::Service, id.as_str()))?;
            if known.value.seed.is_none() {
                return Err(Error::Unsupported {
                    operation: "changing what was registered at the cluster directly",
                    kind: "etcd",
                    supported_by: "the cluster itself: --registry etcd://host",
                });
            }
            let mut registration = known.value.registration();
            registration.heartbeat_timeout =
                update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
            registration.tags = update.tags.clone().unwrap_or(registration.tags);
            registration.metadata = update.metadata.clone().unwrap_or(registration.metadata);
            let record = known.value.clone().with(&registration);
            if record == known.value {
                return Ok(None);
            }
            Ok(core.entry_change(Some(known), Some(&record), Vec::new()))
        })
        .await
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        self.at_hand().await?;
        let state = self.core.state();
        let known =
            state.services.get(id).ok_or_else(|| self.core.not_found(Object::Service, id.as_str()))?;
        Ok(Self::listed(&state, known))
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        self.at_hand().await?;
        let state = self.core.state();
        let marker = query.page.marker.as_ref().map_or("", |marker| marker.as_str());
        let wanted = state.services.iter().filter(|(id, known)| {
            id.as_str() >= marker && query.tag.as_ref().is_none_or(|tag| known.value.has_tag(tag))
        });
        let values = wanted.map(|(_, known)| Self::listed(&state, known)).take(query.page.limit.get() + 1);
        Ok(Page::from_lookahead(values.collect(), query.page.limit, |service| {
            service.registration.id.clone()
        }))
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Ok(self)
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    fn statistics(&self) -> Option<Statistics> {
        let state = self.core.state();
        Some(Statistics { services: state.services.len() as u64, timeouts: state.timeouts })
    }

    fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    async fn close(&self) {
        self.core.leave().await;
    }

    async fn renew_credentials(&self) -> Result<()> {
        self.core.client.renew_credentials();
        Ok(())
    }
}
