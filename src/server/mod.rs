//! The Service Registry HTTP API over any [`Registry`](crate::registry::Registry).
//!
//! A request comes in over a connection (`listener`), is given a number (`app`), and has to show whose it is
//! (`request`, `sessions`, `tokens`, `accounts`). From there on it concerns one tenant and its registry (`tenants`): a handler
//! (`routes`) checks what it says (`rules`), asks the registry, and answers, with a page (`page`) or a refusal
//! (`fault`). What goes wrong on purpose comes first (`chaos`). Nothing here knows one registry from another.

mod accounts;
mod answer;
mod app;
mod chaos;
mod fault;
mod listener;
mod metrics;
mod page;
mod request;
mod routes;
mod rules;
mod sessions;
mod tenants;
mod tls;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tracing::{error, info};

pub use self::accounts::{AccountLimits, Accounts, AccountsError, NotATenant, TenantId};
use self::app::App;
use self::chaos::{Chaos, timetable};
pub use self::chaos::{Spec as ChaosSpec, SpecError as ChaosSpecError};
use self::metrics::Metrics;
use self::sessions::Sessions;
use self::tenants::{Tenant, Tenants};
pub use self::tls::{TlsError, TlsFiles};
use crate::message::{Hint, chain};
use crate::registry::{self, Limits, RegistryUrl};

/// What the original service let an account have.
pub const DEFAULT_LIMITS: AccountLimits = AccountLimits {
    resources: Limits { services: Some(200), configuration_values: Some(1000) },
    requests_per_day: None,
};

/// What a server is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The registry it serves; with accounts, where those of the tenants are.
    pub registry: RegistryUrl,
    /// What that registry has to be told.
    pub registry_access: registry::Access,
    /// Who may use it.
    pub access: Access,
    /// How much a tenant may have and do that has no limits of its own.
    pub limits: AccountLimits,
    /// The certificate that it shows, and its key.
    pub tls: Option<TlsFiles>,
    /// How long a login lasts.
    pub token_lifetime: Duration,
    /// What goes wrong on purpose.
    pub chaos: Option<ChaosSpec>,
}

/// Who may use a server.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody who can reach it, as one tenant.
    Open,
    /// The accounts in this file.
    Accounts(PathBuf),
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file of accounts is of no use.
    #[error("--accounts")]
    Accounts(#[from] AccountsError),
    /// The registry cannot be opened.
    #[error("cannot open the registry")]
    Registry(#[from] registry::Error),
    /// This kind of registry cannot keep several tenants apart.
    #[error("{0} cannot hold the tenants of --accounts apart")]
    OneTenant(RegistryUrl),
    /// The certificate or its key is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Our own code failed.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Accounts(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Tls(error) => error.hint(),
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some("another program listens there: stop it, or choose another --listen".to_owned())
            }
            Self::OneTenant(_) => Some("use --registry sqlite:///path or etcd://host".to_owned()),
            Self::Listen { .. } | Self::Internal(_) => None,
        }
    }
}

/// A server that is ready: it listens, and its registries are open.
pub struct Bound {
    server: Arc<Server>,
    listener: TcpListener,
}

/// What all requests have in common.
struct Server {
    settings: Settings,
    /// Where it listens, as a URL has it.
    address: String,
    members: RwLock<Arc<Members>>,
    tls: RwLock<Option<Arc<ServerConfig>>>,
    sessions: Sessions,
    metrics: Metrics,
    /// None on a server that is in earnest.
    chaos: Option<Chaos>,
}

/// Those whom the server serves.
#[derive(Default)]
struct Members {
    /// None for an open server.
    accounts: Option<Arc<Accounts>>,
    tenants: Arc<Tenants>,
}

impl Bound {
    /// Opens the registries and begins to listen.
    ///
    /// # Errors
    /// When the address is taken, or a file is of no use.
    pub async fn new(settings: Settings) -> Result<Self, Error> {
        let address = settings.listen;
        let cannot_listen = |source| Error::Listen { address, source };
        let tls = settings.tls.as_ref().map(TlsFiles::load).transpose()?;
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let members = load(&settings, Arc::default()).await?;
        let secret = registry::shared_secret(&settings.registry, &settings.registry_access).await?;
        let server = Arc::new(Server {
            address: listener.local_addr().map_err(cannot_listen)?.to_string(),
            sessions: Sessions::new(settings.token_lifetime, secret.expose().as_bytes()),
            members: RwLock::new(Arc::new(members)),
            tls: RwLock::new(tls),
            metrics: Metrics::new(),
            chaos: settings.chaos.as_ref().map(Chaos::new),
            settings,
        });
        Ok(Self { server, listener })
    }

    /// Where its API is.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.server.settings.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/v1.0", self.server.address)
    }

    /// A handle to reload it with.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.server))
    }

    /// Serves until `stop` comes to pass, then finishes what is under way.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let app = App::new(Arc::clone(&self.server));
        let timetable = timetable::start(&self.server);
        let stop = async {
            stop.await;
            self.server.chaos.iter().for_each(Chaos::end);
        };
        listener::serve(Arc::new(app), self.listener, stop).await;
        drop(timetable);
        for tenant in self.server.tenants().values() {
            tenant.registry.close().await;
        }
    }
}

/// Has a running server read its files again.
pub struct Reloader(Arc<Server>);

impl Reloader {
    /// Reads accounts, certificate and key again. What cannot be read leaves everything as it is; it is told in
    /// the log.
    pub async fn reload(&self) {
        match self.0.reload().await {
            Ok(()) => info!("read accounts and certificate again"),
            Err(error) => error!(error = chain(&error), hint = error.hint(), "everything stays as it is"),
        }
    }
}

impl Server {
    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn accounts(&self) -> Arc<Accounts> {
        self.members().accounts.clone().unwrap_or_default()
    }

    fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.members().tenants)
    }

    fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.members().tenants.get(id).cloned()
    }

    /// Whether everybody is let in.
    fn is_open(&self) -> bool {
        matches!(self.settings.access, Access::Open)
    }

    /// The one tenant of a server that lets everybody in.
    fn open_tenant(&self) -> Option<Arc<Tenant>> {
        if self.is_open() { self.members().tenants.values().next().cloned() } else { None }
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reload(&self) -> Result<(), Error> {
        let tls = self.settings.tls.as_ref().map(TlsFiles::load).transpose()?;
        let before = self.members();
        let now = Arc::new(load(&self.settings, Arc::clone(&before.tenants)).await?);
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }
}

/// Reads who is to be served, and opens the registries that are not open yet.
async fn load(settings: &Settings, known: Arc<Tenants>) -> Result<Members, Error> {
    let (url, access) = (settings.registry.clone(), settings.registry_access.clone());
    let (accounts, wanted) = match &settings.access {
        Access::Open => (None, BTreeMap::from([(TenantId::open(), settings.limits)])),
        Access::Accounts(path) => {
            let accounts = Accounts::read(path)?;
            let wanted = accounts.tenants(settings.limits);
            if url.for_tenant(TenantId::open().as_str()).is_none() {
                return Err(Error::OneTenant(url));
            }
            (Some(Arc::new(accounts)), wanted)
        }
    };
    let is_open = accounts.is_none();
    let tenants = tokio::task::spawn_blocking(move || {
        tenants::open(&known, &wanted, |id, limits| {
            let own = url.for_tenant(id.as_str()).filter(|_| !is_open);
            registry::host(own.as_ref().unwrap_or(&url), &access, limits)
        })
    });
    let tenants = tenants.await.map_err(|error| Error::Internal(error.to_string()))??;
    Ok(Members { accounts, tenants: Arc::new(tenants) })
}
