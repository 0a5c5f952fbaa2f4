//! Registries: what every one of them can do, and one file for each that we speak to.
//!
//! [`Registry`] is the only seam between the front ends (wrapper, command line, server) and the backends. A
//! front end never names a backend; a backend never knows who calls. To add one: a file here, an arm in
//! [`RegistryUrl`] and one in [`connect`].
//!
//! For programs that use this library, it is the way to any registry:
//!
//! ```no_run
//! use service_registry_wrapper::model::Tag;
//! use service_registry_wrapper::registry::{Access, ApiKey, Credentials, ServiceQuery, connect};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let api_key = ApiKey::File("/etc/my-app/key".into());
//! let credentials = Some(Credentials { username: "me".to_owned(), api_key });
//! let url = "https://registry.example/v1.0".parse()?;
//! let registry = connect(&url, &Access { credentials, ..Access::default() });
//! let query = ServiceQuery { tag: Some(Tag::new("api")?), ..ServiceQuery::default() };
//! for service in registry.services(&query).await?.values {
//!     println!("{} is alive", service.registration.id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! To be listed for as long as a program runs, leave the heartbeats to [`lease::driver`](crate::lease::driver):
//! `examples/register.rs` shows how.

#[cfg(not(any(feature = "sqlite", feature = "http", feature = "zookeeper")))]
compile_error!("choose at least one registry to build for: `--features sqlite`, `http` or `zookeeper`");

mod access;
mod clock;
#[cfg(feature = "http")]
mod consul;
mod drained;
#[cfg(any(feature = "http", feature = "zookeeper"))]
mod endpoints;
mod error;
#[cfg(feature = "http")]
mod etcd;
#[cfg(feature = "server")]
mod hosted;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod rackspace;
mod rehearsal;
#[cfg(feature = "sqlite")]
mod sqlite;
mod url;
mod watch;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::access::{Access, ApiKey, ClientCertificate, Credentials, Peer, Secret, Tls};
pub use self::drained::drained;
pub use self::error::{Cause, Error, Object, Recourse};
#[cfg(feature = "http")]
pub use self::etcd::EtcdCause;
#[cfg(feature = "http")]
pub use self::http::HttpCause;
#[cfg(feature = "http")]
pub(crate) use self::http::Visitor;
pub use self::rehearsal::{Rehearsal, Rehearsed, Step};
pub(crate) use self::url::Asks;
#[cfg(feature = "http")]
pub use self::url::{ApiUrl, ConsulUrl, EtcdLayout, EtcdUrl};
pub use self::url::{AuthUrl, RegistryUrl, UrlError};
#[cfg(feature = "zookeeper")]
pub use self::url::{ZookeeperLayout, ZookeeperUrl};
pub use self::watch::Watch;
#[cfg(feature = "zookeeper")]
pub use self::zookeeper::ZookeeperCause;
use crate::model::{
    ConfigurationId, ConfigurationValue, Drained, Event, EventKind, InstanceId, Marker, Namespace, Page,
    PageRequest, Registration, Service, ServiceId, ServiceUpdate, Tag, Timestamp, Token,
};

/// What to use where an event log is wanted of a registry that keeps none.
#[cfg(any(feature = "http", feature = "zookeeper"))]
const KEEP_A_LOG: &str = "embedded registries and servers of the Service Registry API; \
                          `raxsr events follow` shows what happens from now on";

/// What a call to a registry comes to.
pub type Result<T> = std::result::Result<T, Error>;

/// A service registry.
///
/// Making one is free of I/O: it connects at the first call, so that nothing slow stands before the child's
/// start. Every call can be dropped at any await without harm to the next, and may then have taken effect or
/// not; [`Claim`] and the rule for repeated heartbeats make it safe to send it again.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Its URL, without credentials.
    fn url(&self) -> &str;

    /// What kind of registry it is, for messages.
    fn kind(&self) -> &'static str {
        "embedded"
    }

    /// Enters a service, and returns the token of its first heartbeat.
    ///
    /// The service is listed until its heartbeat timeout has passed without a heartbeat. Registering again with
    /// the same claim succeeds and records no second `service.join`: an earlier answer was lost.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another instance holds the id and is alive, unless the claim takes it over;
    /// [`Error::LimitReached`] when the registry takes no more services.
    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token>;

    /// Renews the registration for another timeout, and returns the token of the next heartbeat.
    ///
    /// A token is good once; but the instance that registered may send a heartbeat again whose answer was lost: from
    /// it, the token before the current one is accepted too, and answered with the current one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the registry does not know the service or the token: it has to register again.
    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token>;

    /// Whether it can say of a service that it is there, and not to be used: see [`suspend`](Self::suspend).
    fn can_suspend(&self) -> bool {
        false
    }

    /// A [heartbeat](Self::heartbeat) of a service that is not healthy: nobody is shown it any more, but for those who want
    /// to know what is wrong, and they are told the `reason`. With the next heartbeat it is shown again.
    ///
    /// # Errors
    /// Those of a heartbeat; [`Error::Unsupported`] where the registry [cannot](Self::can_suspend).
    async fn suspend(&self, _id: &ServiceId, _token: &Token, _whose: Owner, _reason: &str) -> Result<Token> {
        Err(Error::Unsupported {
            operation: "marking a service as unhealthy",
            kind: self.kind(),
            supported_by: "Consul",
        })
    }

    /// Takes a service out on purpose.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such service, or the one there belongs to another instance.
    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()>;

    /// What would be asked to register it, keep it and take it out, where nothing is in the way; asks nobody.
    ///
    /// # Errors
    /// When there is nothing that could be asked; [`Error::Unsupported`] where it is hosted by this process.
    async fn rehearse(&self, _registration: &Registration, _claim: &Claim) -> Result<Rehearsal> {
        Err(Error::Unsupported { operation: "a rehearsal", kind: self.kind(), supported_by: "clients" })
    }

    /// Changes a listed service.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such service.
    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()>;

    /// One service.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such service.
    async fn service(&self, id: &ServiceId) -> Result<Service>;

    /// Whether those who look services up are still shown this one. Once `instance` has taken it out, that can lag behind.
    ///
    /// Another instance that has taken the id since may be taken for it.
    ///
    /// # Errors
    /// When that cannot be seen, which says nothing either way.
    async fn shows(&self, registration: &Registration, _instance: InstanceId) -> Result<bool> {
        match self.service(&registration.id).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The services alive, by id. Where the registry is out of reach, a backend may answer with what it last said,
    /// marked as [stale](Page::stale_since).
    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>>;

    /// The log of what happened.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when this kind of registry keeps none.
    fn events(&self) -> Result<&dyn EventLog>;

    /// What happens from now on, where no log of it is kept.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when this kind of registry keeps a [log](Self::events), or cannot tell.
    async fn watch(&self) -> Result<Box<dyn Watch + '_>> {
        Err(Error::Unsupported {
            operation: "watching without a log",
            kind: "such",
            supported_by: "Consul, etcd and ZooKeeper",
        })
    }

    /// The configuration values.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when this kind of registry keeps none.
    fn configuration(&self) -> Result<&dyn ConfigurationStore>;

    /// Whether somebody keeps the service out of the registry that `claim` is about to be registered for, and why. One
    /// request, over the connection that the registration will go over.
    ///
    /// # Errors
    /// When the registry cannot say: it keeps no configuration, we may not read it, or it does not answer.
    async fn drained(&self, registration: &Registration, _claim: &Claim) -> Result<Option<Drained>> {
        let service = &registration.id;
        drained::read(service, self.configuration()?.value(&Drained::key(service)).await)
    }

    /// How much we may have in it, and ask of it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when this kind of registry sets no limits.
    async fn quota(&self) -> Result<Quota> {
        Err(Error::Unsupported {
            operation: "telling an account's limits",
            kind: self.kind(),
            supported_by: "servers of the Service Registry API: --registry http(s)://host/v1.0",
        })
    }

    /// What its clock shows; none where that is the clock of this machine.
    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    /// What is to be known about the last [list](Self::services) that it gave.
    fn caveat(&self) -> Option<Caveat> {
        None
    }

    /// How it fares, where that is known without asking anybody.
    fn statistics(&self) -> Option<Statistics> {
        None
    }

    /// Takes no more than this from now on. What is there already stays.
    fn set_limits(&self, _limits: Limits) {}

    /// Writes down what is only in memory, before a planned end.
    async fn close(&self) {}

    /// Forgets what was learnt by the last login and reads credential files again, so that the next call logs in
    /// anew. Nothing to do where there is no login.
    async fn renew_credentials(&self) -> Result<()> {
        Ok(())
    }
}

/// A registry's log of events, oldest first.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// A page of events. Without a marker it begins an hour ago; a marker is any version 1 UUID, and the page
    /// begins at its time, inclusive.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the marker is no version 1 UUID or lies outside the log.
    async fn events(&self, query: &EventQuery) -> Result<Page<Event, Uuid>>;
}

/// A registry's configuration values.
#[async_trait]
pub trait ConfigurationStore: Send + Sync {
    /// One value.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none under this id.
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue>;

    /// The values by id: all of them, or those in one namespace and below, and the value of the same name.
    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>>;

    /// Creates or replaces a value. One that is there already, unchanged, is no event.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when the registry takes no more values.
    async fn set(&self, value: &ConfigurationValue) -> Result<()>;

    /// Removes a value.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none under this id.
    async fn remove(&self, id: &ConfigurationId) -> Result<()>;
}

/// Who registers, and by what right.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Which life of which wrapper this is.
    pub instance: InstanceId,
    /// The same in words, for whoever meets it as a conflict: `pid 4711 on web1`.
    pub holder: String,
    /// What to do when the id is taken.
    pub if_taken: IfTaken,
}

/// What a registration does about another live instance under its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// Leaves it alone: the registration is a conflict.
    Refuse,
    /// Takes it out and takes its place.
    TakeOver,
}

/// Whose registration is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever holds the id.
    Anyone,
    /// This instance's, and nobody else's.
    Instance(InstanceId),
}

/// Which services are wanted.
#[derive(Debug, Clone, Default)]
pub struct ServiceQuery {
    /// Only those with exactly this tag.
    pub tag: Option<Tag>,
    /// Which part of the list.
    pub page: PageRequest<Marker>,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only those of this kind.
    pub kind: Option<EventKind>,
    /// Which part of the log.
    pub page: PageRequest<Uuid>,
}

/// Which configuration values are wanted.
#[derive(Debug, Clone, Default)]
pub struct ConfigurationQuery {
    /// Only those in this namespace and below.
    pub namespace: Option<Namespace>,
    /// Which part of the list.
    pub page: PageRequest<Marker>,
}

/// What an account may have in a registry, and ask of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// How many there may be of each kind of thing.
    pub resource: BTreeMap<String, u64>,
    /// How many requests there may be, by a pattern of their paths.
    pub rate: BTreeMap<String, RateLimit>,
}

/// How many requests there may be, and were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// At most.
    pub limit: u64,
    /// So far.
    pub used: u64,
    /// In what time: `24.0 hours`.
    pub window: String,
}

/// How a registry fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// How many services are listed.
    pub services: u64,
    /// How many it has seen die since it was opened.
    pub timeouts: u64,
}

/// What is to be known about an answer that came, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// It came from another server than the one that was asked first: which one failed, and why.
    Down(String),
    /// There may be more than we got to see: why.
    Hidden(String),
}

impl std::fmt::Display for Caveat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Down(text) | Self::Hidden(text)) = self;
        f.write_str(text)
    }
}

/// How much a hosted registry takes; `None` is as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Services at a time.
    pub services: Option<u64>,
    /// Configuration values.
    pub configuration_values: Option<u64>,
}

/// Opens the registry at `url` for many clients, as a server does. One that is a file is [hosted](self): its
/// heartbeats stay in this process's memory, and no other process can host it. Blocks.
///
/// # Errors
/// When it is a file that cannot be used, or that another process hosts.
#[cfg(feature = "server")]
pub fn host(url: &RegistryUrl, access: &Access, limits: Limits) -> Result<Arc<dyn Registry>> {
    match url {
        RegistryUrl::Sqlite(path) => Ok(Arc::new(sqlite::Hosted::open(path, limits)?)),
        #[cfg(feature = "http")]
        RegistryUrl::Etcd(url) => Ok(Arc::new(etcd::Hosted::open(url, access, limits)?)),
        #[cfg(feature = "http")]
        RegistryUrl::Rackspace(_) | RegistryUrl::Consul(_) => Ok(connect(url, access)),
        #[cfg(feature = "zookeeper")]
        RegistryUrl::Zookeeper(_) => Ok(connect(url, access)),
    }
}

/// A secret that all servers of the registry at `url` have in common. Where there is only one, it is made up.
///
/// # Errors
/// When it is in the registry, and that is out of reach, or refuses us.
#[cfg(feature = "server")]
pub async fn shared_secret(url: &RegistryUrl, access: &Access) -> Result<Secret> {
    match url {
        RegistryUrl::Etcd(url) => etcd::shared_secret(url, access).await,
        _ => Ok(Secret::random()),
    }
}

/// The registry at `url`. No I/O happens before its first call.
#[must_use]
#[cfg_attr(
    not(any(feature = "http", feature = "zookeeper")),
    expect(unused_variables, reason = "an embedded registry asks for no login")
)]
pub fn connect(url: &RegistryUrl, access: &Access) -> Arc<dyn Registry> {
    match url {
        #[cfg(feature = "sqlite")]
        RegistryUrl::Sqlite(path) => Arc::new(sqlite::Sqlite::new(path.clone())),
        #[cfg(feature = "http")]
        RegistryUrl::Rackspace(url) => Arc::new(rackspace::Rackspace::new(url, access)),
        #[cfg(feature = "http")]
        RegistryUrl::Consul(url) => Arc::new(consul::Consul::new(url, access)),
        #[cfg(feature = "http")]
        RegistryUrl::Etcd(url) => Arc::new(etcd::Etcd::new(url, access)),
        #[cfg(feature = "zookeeper")]
        RegistryUrl::Zookeeper(url) => Arc::new(zookeeper::Zookeeper::new(url, access)),
    }
}

/// Where a login for the registry at `url` goes; none where it asks for none.
#[must_use]
#[cfg_attr(
    not(feature = "http"),
    expect(unused_variables, reason = "only the HTTP API has a login elsewhere")
)]
pub fn auth_url(url: &RegistryUrl, access: &Access) -> Option<AuthUrl> {
    match url {
        #[cfg(feature = "sqlite")]
        RegistryUrl::Sqlite(_) => None,
        #[cfg(feature = "http")]
        RegistryUrl::Consul(_) | RegistryUrl::Etcd(_) => None,
        #[cfg(feature = "zookeeper")]
        RegistryUrl::Zookeeper(_) => None,
        #[cfg(feature = "http")]
        RegistryUrl::Rackspace(url) => {
            Some(access.auth_url.clone().unwrap_or_else(|| rackspace::default_auth_url(url)))
        }
    }
}
