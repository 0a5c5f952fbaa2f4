//! ZooKeeper, over a client of our own: each service is tied to a session, which is kept alive for it.
//!
//! A registration is two nodes that end with its session: one under the service's id, with all that is to be known of it,
//! and one where the consumers of a [layout](crate::registry::ZookeeperLayout) look. Between two heartbeats the session is kept alive
//! in the background, by pings; when no heartbeat has come for the heartbeat timeout, it is closed. So a wrapper that
//! ends is gone when its session expires, within the time that the server has agreed to, which may be less than the
//! heartbeat timeout; and one that hangs, after the heartbeat timeout. What one connection is for is over when it breaks;
//! a session goes on over the next.
//!
//! Who took a service out is told by a node that lives for another while: see `tree`. A service that is gone without it
//! has fallen silent.

mod cause;
mod configuration;
mod connection;
mod enter;
mod foreign;
mod layout;
mod login;
mod operation;
mod record;
mod registered;
mod rehearsing;
mod session;
mod tls;
mod tree;
mod watching;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use tracing::warn;
use uuid::Uuid;

pub use self::cause::ZookeeperCause;
use self::connection::{Ensemble, Shared};
use self::login::Login;
use self::operation::{ANY_VERSION, Acl, Code, Lasting, Request};
use self::record::Record;
use self::registered::{Check, Registered};
use self::session::{Fault, Outcome, Session, if_there};
use self::tls::Tls;
use self::tree::Tree;
use self::watching::Watching;
use self::wire::{Flag, Garbled, Stat};
use super::endpoints::Endpoints;
use super::url::Transport;
use super::watch::Watch;
use super::{
    Access, Claim, ConfigurationStore, Error, EventLog, Object, Owner, Registry, Rehearsal, Result,
    ServiceQuery, ZookeeperUrl,
};
use crate::model::{
    ConfigurationValue, Drained, InstanceId, Page, Registration, Service, ServiceId, ServiceUpdate, Token,
};

const KIND: &str = "zookeeper";
/// How long a session that nothing is tied to is kept, and outlives its connections.
const SPARE: Duration = Duration::from_secs(30);
/// How many nodes are asked for at a time.
const BATCH: usize = 256;
/// How often a change is tried that others get in between.
const TRIES: usize = 5;
/// How long it takes at most to close the sessions of the dead.
const BURIAL: Duration = Duration::from_secs(1);

/// An ensemble of ZooKeeper servers. It is connected to at the first call.
pub(super) struct Zookeeper {
    url: ZookeeperUrl,
    ensemble: Shared,
    tree: Tree,
    /// A session that nothing is tied to: whoever reads uses it, and the next registration has it for its own.
    spare: Mutex<Option<Session>>,
    /// The services that we keep.
    registered: Mutex<HashMap<ServiceId, Arc<Registered>>>,
    /// Those whose registration was given up half way: it is tried again over the same session.
    entering: Mutex<HashMap<(ServiceId, InstanceId), Session>>,
}

/// Where a service is.
enum Place {
    /// One that came by us or our like.
    Ours(String),
    /// One that another program has registered.
    Foreign(String),
}

impl Place {
    fn data(&self) -> Request {
        let (Self::Ours(path) | Self::Foreign(path)) = self;
        Request::data(path, Flag::No)
    }

    fn read(&self, data: &[u8]) -> Option<Registration> {
        match self {
            Self::Ours(_) => Record::read(data).map(|record| record.registration),
            Self::Foreign(_) => foreign::read(data),
        }
    }
}

/// What stands under an id.
struct Found {
    /// None where somebody else has written it.
    record: Option<Record>,
    stat: Stat,
}

impl Zookeeper {
    pub(super) fn new(url: &ZookeeperUrl, access: &Access) -> Self {
        let credentials = url.credentials().or(access.credentials.as_ref());
        let ensemble = Ensemble {
            servers: Endpoints::shuffled(url.servers().to_vec()),
            login: credentials.cloned().map(Login::new),
            tls: (url.transport() == Transport::Tls).then(|| Tls::new(&access.tls)),
        };
        Self {
            ensemble: Arc::new(ensemble),
            tree: Tree::new(url.chroot()),
            url: url.clone(),
            spare: Mutex::default(),
            registered: Mutex::default(),
            entering: Mutex::default(),
        }
    }

    /// Who may do what with our own nodes.
    fn acl(&self) -> Acl {
        if self.ensemble.login.is_some() { Acl::Owned } else { Acl::Open }
    }

    /// A session to read with, for a while.
    fn spare(&self) -> Session {
        let mut spare = locked(&self.spare);
        let until = Instant::now() + SPARE;
        match &*spare {
            Some(session) if session.is_usable() => {
                session.lives_until(Some(until));
                session.clone()
            }
            _ => spare.insert(Session::start(&self.ensemble, SPARE, Some(until))).clone(),
        }
    }

    /// Asks over the spare session; another, where that one has expired.
    async fn ask_all(&self, requests: &[Request]) -> Result<Vec<Outcome>> {
        let outcomes = match self.spare().ask_all(requests.iter().cloned()).await {
            Err(Fault::Expired) => self.spare().ask_all(requests.iter().cloned()).await,
            outcomes => outcomes,
        };
        outcomes.map_err(|fault| self.failure(fault))
    }

    async fn ask(&self, request: Request) -> Result<Outcome> {
        let outcome = self.ask_all(&[request]).await?.pop();
        outcome.ok_or_else(|| self.failure(Fault::Expired))
    }

    /// The session of a service that we keep, otherwise a spare one.
    fn session_for(&self, id: &ServiceId) -> Session {
        let registered = locked(&self.registered).get(id).map(|registered| registered.session.clone());
        registered.filter(Session::is_usable).unwrap_or_else(|| self.spare())
    }

    /// Waits until those of our services are gone whose time has come.
    async fn bury(&self) {
        locked(&self.entering).retain(|_, session| !session.is_over());
        let dead: Vec<_> = {
            let mut registered = locked(&self.registered);
            registered.retain(|_, registered| !registered.session.is_over());
            registered.values().map(|registered| registered.session.clone()).collect()
        };
        for session in dead.into_iter().filter(Session::is_overdue) {
            // One that cannot say farewell is not pinged any more, and expires.
            let _ = timeout(BURIAL, session.ended()).await;
        }
    }

    async fn find(&self, session: &Session, id: &ServiceId) -> std::result::Result<Option<Found>, Fault> {
        let found = session.data(&self.tree.service(id.as_str())).await?;
        Ok(found.map(|(data, stat)| Found { record: Record::read(&data), stat }))
    }

    /// What is registered at these paths, if anything.
    async fn registrations(&self, places: &[Place]) -> Result<Vec<Registration>> {
        let requests: Vec<_> = places.iter().map(Place::data).collect();
        let mut registrations = Vec::new();
        for (place, outcome) in places.iter().zip(self.ask_all(&requests).await?) {
            let Some(body) = if_there(outcome).map_err(|fault| self.failure(fault))? else { continue };
            let (data, _) = operation::read_data(&body).map_err(|garbled| self.garbled(garbled))?;
            registrations.extend(place.read(&data));
        }
        Ok(registrations)
    }

    /// Where all services are, by id.
    async fn places(&self) -> Result<BTreeMap<String, Place>> {
        let listed = self.listed().await?;
        let ours = self.children(&self.tree.services()).await?;
        let foreign = listed.into_iter().map(|(id, path)| (id.into(), Place::Foreign(path)));
        let mut places: BTreeMap<String, Place> = foreign.collect();
        places.extend(ours.into_iter().map(|id| {
            let path = self.tree.service(&id);
            (id, Place::Ours(path))
        }));
        Ok(places)
    }

    /// The names of a node's children, sorted; none where there is no such node.
    async fn children(&self, path: &str) -> Result<Vec<String>> {
        let outcome = self.ask(Request::children(path, Flag::No)).await?;
        let Some(body) = if_there(outcome).map_err(|fault| self.failure(fault))? else {
            return Ok(Vec::new());
        };
        let mut names = operation::read_children(&body).map_err(|garbled| self.garbled(garbled))?;
        names.sort_unstable();
        Ok(names)
    }

    fn failure(&self, fault: Fault) -> Error {
        let registry = self.url().to_owned();
        match fault {
            Fault::Expired => Error::Unavailable { registry, source: ZookeeperCause::Expired.into() },
            Fault::Broken(cause) => Error::Unavailable { registry, source: cause.into() },
            Fault::Denied(cause) => Error::Unauthorized { registry, source: cause.into() },
            Fault::Refused(code) => {
                let source = ZookeeperCause::refused(code).into();
                match code {
                    Code::NO_AUTH | Code::AUTH_FAILED | Code::INVALID_ACL | Code::AUTH_REQUIRED => {
                        Error::Unauthorized { registry, source }
                    }
                    Code::BAD_ARGUMENTS | Code::QUOTA_EXCEEDED => Error::Invalid { registry, source },
                    _ => Error::Unavailable { registry, source },
                }
            }
        }
    }

    fn garbled(&self, garbled: Garbled) -> Error {
        self.failure(garbled.into())
    }

    fn contended(&self) -> Error {
        self.failure(Fault::Broken(ZookeeperCause::Contended))
    }

    fn not_found(&self, object: Object, id: &str) -> Error {
        Error::NotFound { registry: self.url().to_owned(), object, id: id.to_owned() }
    }

    fn no_service(&self, id: &ServiceId) -> Error {
        self.not_found(Object::Service, id.as_str())
    }

    /// A session to register with: where it has been tried before, the same.
    fn session_of(&self, id: &ServiceId, claim: &Claim, timeout: Duration) -> Session {
        let is_fit = |session: &Session| session.is_usable() && session.timeout() == timeout;
        let before = locked(&self.registered).get(id).cloned();
        let before = before.filter(|before| before.instance == claim.instance);
        let session = before.map(|before| before.session.clone()).filter(is_fit);
        let tried = || locked(&self.entering).get(&(id.clone(), claim.instance)).cloned().filter(is_fit);
        let session = session.or_else(tried);
        let session = session.or_else(|| locked(&self.spare).take_if(|session| is_fit(session)));
        session.unwrap_or_else(|| Session::start(&self.ensemble, timeout, None))
    }

    /// Takes a service out over `session`, with the word that it did not fall silent.
    async fn take_out(
        &self,
        session: &Session,
        id: &ServiceId,
        whose: Owner,
    ) -> std::result::Result<Removal, Fault> {
        for _ in 0..TRIES {
            let Some(found) = self.find(session, id).await? else { return Ok(Removal::NotThere) };
            let is_meant = match whose {
                Owner::Anyone => true,
                Owner::Instance(instance) => {
                    found.record.as_ref().is_some_and(|record| record.instance == instance)
                }
            };
            if !is_meant {
                return Ok(Removal::NotThere);
            }
            let requests = if let Some(record) = found.record {
                let mut seen = record.entry.as_ref().map(|entry| self.tree.rooted(entry));
                if let Some(entry) = &seen
                    && session.stat(entry).await?.is_none_or(|stat| stat.owner != found.stat.owner)
                {
                    seen = None;
                }
                self.leaving(&record, found.stat.version, seen.as_deref())
            } else {
                vec![Request::delete(&self.tree.service(id.as_str()), found.stat.version)]
            };
            match session.multi(&requests).await? {
                Ok(_) => return Ok(Removal::Done),
                Err((_, Code::NO_NODE)) => {
                    self.tree.make(session, &self.tree.removed(), Lasting::Persistent).await?;
                }
                Err((_, Code::BAD_VERSION)) => {}
                Err((_, code)) => return Err(Fault::Refused(code)),
            }
        }
        Ok(Removal::Contended)
    }
}

/// What came of taking a service out.
enum Removal {
    Done,
    NotThere,
    Contended,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At random, but of version 1, as the HTTP API has its tokens.
fn issue_token() -> Token {
    let random = Uuid::new_v4().into_bytes();
    Token::new(uuid::Builder::from_bytes(random).with_version(uuid::Version::Mac).into_uuid().to_string())
}

fn unsupported(operation: &'static str, supported_by: &'static str) -> Error {
    Error::Unsupported { operation, kind: KIND, supported_by }
}

#[async_trait]
impl Registry for Zookeeper {
    fn url(&self) -> &str {
        self.url.as_str()
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn drained(&self, registration: &Registration, claim: &Claim) -> Result<Option<Drained>> {
        self.bury().await;
        let id = &registration.id;
        let timeout = registration.heartbeat_timeout.as_duration();
        let session = self.session_of(id, claim, timeout);
        locked(&self.entering).insert((id.clone(), claim.instance), session.clone());
        session.lives_until(Some(Instant::now() + SPARE.max(timeout)));
        let key = Drained::key(id);
        let found = session.data(&self.tree.value(&key)).await.map_err(|fault| self.failure(fault))?;
        let text = found.and_then(|(data, _)| String::from_utf8(data).ok());
        let value = text.and_then(|text| ConfigurationValue::new(key, text).ok());
        Ok(value.as_ref().and_then(Drained::read))
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        self.bury().await;
        let id = &registration.id;
        let timeout = registration.heartbeat_timeout.as_duration();
        let session = self.session_of(id, claim, timeout);
        let key = (id.clone(), claim.instance);
        locked(&self.entering).insert(key.clone(), session.clone());
        // However long this takes, and until it is tried again.
        session.lives_until(Some(Instant::now() + SPARE.max(timeout)));
        let entered = self.enter(&session, registration, claim).await;
        match entered {
            Ok(entered) => {
                if entered.record.entry.is_none() {
                    warn!(service = %id, registry = self.url(), "consumers do not see a service without an address and a port");
                }
                session.lives_until(Some(Instant::now() + timeout));
                locked(&self.entering).remove(&key);
                let token = issue_token();
                let registered = Registered::new(session, token.clone(), entered);
                locked(&self.registered).insert(id.clone(), Arc::new(registered));
                Ok(token)
            }
            Err(error) => {
                if matches!(error, Error::Conflict { .. }) {
                    locked(&self.entering).remove(&key);
                    let mut registered = locked(&self.registered);
                    let is_ours = |before: &Arc<Registered>| before.instance == claim.instance;
                    if registered.get(id).is_some_and(is_ours) {
                        registered.remove(id);
                    } else {
                        // Nothing is tied to it: it will do for the next try.
                        locked(&self.spare).get_or_insert(session);
                    }
                }
                Err(error)
            }
        }
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, _whose: Owner) -> Result<Token> {
        let registered = locked(&self.registered).get(id).cloned();
        let registered = registered.filter(|registered| registered.token == *token);
        let Some(registered) = registered else {
            return Err(self.not_found(Object::HeartbeatToken, id.as_str()));
        };
        if !registered.session.is_usable() {
            return Err(self.no_service(id));
        }
        registered.renew();
        match self.check(&registered).await {
            Ok(Check::Listed) => Ok(token.clone()),
            Ok(Check::Gone) | Err(Fault::Expired) => Err(self.no_service(id)),
            Err(fault) => Err(self.failure(fault)),
        }
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        self.bury().await;
        let removal = match self.take_out(&self.session_for(id), id, whose).await {
            Err(Fault::Expired) => self.take_out(&self.spare(), id, whose).await,
            removal => removal,
        };
        match removal.map_err(|fault| self.failure(fault))? {
            Removal::Done => {
                // Its connection is closed, but not the session: the word that it left is tied to it.
                locked(&self.registered).remove(id);
                Ok(())
            }
            Removal::NotThere if whose == Owner::Anyone => self.take_out_foreign(id).await,
            Removal::NotThere => Err(self.no_service(id)),
            Removal::Contended => Err(self.contended()),
        }
    }

    async fn rehearse(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        self.rehearsal(registration, claim)
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        self.bury().await;
        self.change(id, update).await
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        self.bury().await;
        let place = Place::Ours(self.tree.service(id.as_str()));
        let mut found = self.registrations(&[place]).await?;
        if found.is_empty()
            && let Some(path) = self.foreign_path(id).await?
        {
            found = self.registrations(&[Place::Foreign(path)]).await?;
        }
        let registration = found.pop().ok_or_else(|| self.no_service(id))?;
        Ok(Service { registration, last_seen: None })
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        self.bury().await;
        let marker = query.page.marker.as_ref();
        let places = self.places().await?.into_iter();
        let places = places.filter(|(id, _)| marker.is_none_or(|marker| id.as_str() >= marker.as_str()));
        let places: Vec<_> = places.map(|(_, place)| place).collect();
        let has_tag = |registration: &Registration| {
            query.tag.as_ref().is_none_or(|tag| registration.tags.iter().any(|its| its == tag))
        };
        let (mut values, wanted) = (Vec::new(), query.page.limit.get() + 1);
        for batch in places.chunks(BATCH.min(wanted)) {
            let registrations = self.registrations(batch).await?.into_iter().filter(has_tag);
            values.extend(registrations.map(|registration| Service { registration, last_seen: None }));
            if values.len() >= wanted {
                break;
            }
        }
        values.truncate(wanted);
        Ok(Page::from_lookahead(values, query.page.limit, |service| service.registration.id.clone()))
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Err(unsupported("the event log", super::KEEP_A_LOG))
    }

    async fn watch(&self) -> Result<Box<dyn Watch + '_>> {
        Ok(Box::new(Watching::new(&self.ensemble, &self.tree, self.url())))
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn renew_credentials(&self) -> Result<()> {
        // The next session reads them again.
        *locked(&self.spare) = None;
        Ok(())
    }
}
