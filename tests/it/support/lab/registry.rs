//! A registry of each kind, seen from outside and shaken from inside.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use service_registry_wrapper::model::{Limit, PageRequest};
use service_registry_wrapper::registry::{Access, Registry, ServiceQuery, connect};
use tokio::runtime::Runtime;

use super::{Lock, Proxy, SmallDisk};
use crate::support::Place;
use crate::support::consul::Consul;
use crate::support::etcd::{Etcd, Release};
use crate::support::server::Server;
use crate::support::zookeeper::Zookeeper;

/// Which registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Server,
    Consul,
    Etcd,
    Zookeeper,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::File, Self::Server, Self::Consul, Self::Etcd, Self::Zookeeper];

    /// Those there is a way to that can break.
    pub(crate) const REMOTE: [Self; 4] = [Self::Server, Self::Consul, Self::Etcd, Self::Zookeeper];

    /// Whether it speaks HTTP.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Server | Self::Consul | Self::Etcd)
    }
}

/// A registry that runs, and a view of it that no proxy stands before.
pub(crate) struct Laboratory {
    pub(crate) kind: Kind,
    pub(super) lock: Mutex<Option<Lock>>,
    pub(super) disk: Option<SmallDisk>,
    host: Mutex<Host>,
    url: String,
    address: Option<SocketAddr>,
    runtime: Runtime,
    view: Mutex<Arc<dyn Registry>>,
}

enum Host {
    File(Place),
    Server(Server),
    Consul(Consul),
    Etcd(Etcd),
    Zookeeper(Zookeeper),
}

impl Laboratory {
    /// Starts one; none where a test that needs it is skipped.
    #[track_caller]
    pub(crate) fn start(kind: Kind, test: &str) -> Option<Self> {
        Self::start_in(Place::new(), kind, test)
    }

    /// The same, for one that keeps a file on a disk which can be filled. It takes root.
    #[track_caller]
    pub(crate) fn on_small_disk(kind: Kind, test: &str) -> Option<Self> {
        let place = Place::new();
        let disk = SmallDisk::mount(&place.path().join("state"));
        Some(Self { disk: Some(disk), ..Self::start_in(place, kind, test)? })
    }

    fn start_in(place: Place, kind: Kind, test: &str) -> Option<Self> {
        let host = match kind {
            Kind::File => Host::File(place),
            Kind::Server => Host::Server(Server::start(place, &["--max-services=5000"])),
            Kind::Consul => Host::Consul(Consul::start(test)?),
            Kind::Etcd => Host::Etcd(Etcd::single(Release::Bookworm, test)?),
            Kind::Zookeeper => Host::Zookeeper(Zookeeper::start(test)?),
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (url, address) = (host.url(), host.address());
        let (view, lock) = (Mutex::new(view(&url)), Mutex::new(None));
        Some(Self { kind, lock, disk: None, host: Mutex::new(host), url, address, runtime, view })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it is for whoever goes through `proxy`.
    #[track_caller]
    pub(crate) fn url_through(&self, proxy: &Proxy) -> String {
        self.url.replace(&self.address().to_string(), &proxy.address().to_string())
    }

    /// Where it listens. A file does not.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// The ids of the services alive; none while the registry does not say.
    pub(crate) fn listed(&self) -> Option<BTreeSet<String>> {
        let page = PageRequest { limit: Limit::MAX, ..PageRequest::default() };
        let query = ServiceQuery { page, ..ServiceQuery::default() };
        let registry = Arc::clone(&self.view.lock().unwrap());
        let answer = async { tokio::time::timeout(Duration::from_secs(2), registry.services(&query)).await };
        let Ok(Ok(page)) = self.runtime.block_on(answer) else {
            // Nothing that it still knows of the registry is to stand between us.
            *self.view.lock().unwrap() = view(&self.url);
            return None;
        };
        assert!(page.next_marker.is_none(), "more services than a page holds");
        Some(page.values.into_iter().map(|service| service.registration.id.to_string()).collect())
    }

    pub(crate) fn lists(&self, id: &str) -> bool {
        self.listed().is_some_and(|listed| listed.contains(id))
    }

    /// Where it keeps what it has, if that is a file of ours.
    #[track_caller]
    pub(crate) fn file(&self) -> PathBuf {
        match &*self.host.lock().unwrap() {
            Host::File(place) => place.registry_file(),
            Host::Server(server) => server.place.registry_file(),
            _ => panic!("{:?} is no file of ours", self.kind),
        }
    }

    /// Sends a signal to its process.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        match &*self.host.lock().unwrap() {
            Host::File(_) => panic!("a file has no process"),
            Host::Server(server) => server.signal(signal),
            Host::Consul(consul) => consul.signal(signal),
            Host::Etcd(etcd) => etcd.members[0].signal(signal),
            Host::Zookeeper(zookeeper) => zookeeper.signal(signal),
        }
    }

    /// Stops it, as a machine does that is suspended: nothing is refused, nothing is answered.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Goes on as though nothing had been.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it as a loss of power would.
    #[track_caller]
    pub(crate) fn kill(&self) {
        match &mut *self.host.lock().unwrap() {
            Host::File(_) => panic!("a file has no process"),
            Host::Server(server) => server.kill(),
            Host::Consul(consul) => consul.kill(),
            Host::Etcd(etcd) => etcd.members[0].kill(),
            Host::Zookeeper(zookeeper) => zookeeper.kill(),
        }
    }

    /// Starts it again after its end, with what it had.
    #[track_caller]
    pub(crate) fn restart(&self) {
        match &mut *self.host.lock().unwrap() {
            Host::File(_) => panic!("a file has no process"),
            Host::Server(server) => server.restart(),
            Host::Consul(consul) => consul.restart(),
            Host::Etcd(etcd) => etcd.restart(),
            Host::Zookeeper(zookeeper) => zookeeper.restart(),
        }
    }

    /// Starts it again after its end, with nothing.
    #[track_caller]
    pub(crate) fn restart_empty(&self) {
        match &mut *self.host.lock().unwrap() {
            Host::File(_) => panic!("a file has no process"),
            Host::Server(server) => {
                fs::remove_dir_all(server.place.path().join("state")).unwrap();
                server.restart();
            }
            Host::Consul(consul) => consul.restart_empty(),
            Host::Etcd(etcd) => etcd.restart_empty(),
            Host::Zookeeper(zookeeper) => zookeeper.restart_empty(),
        }
    }
}

fn view(url: &str) -> Arc<dyn Registry> {
    connect(&url.parse().unwrap(), &Access::default())
}

impl Host {
    fn address(&self) -> Option<SocketAddr> {
        Some(match self {
            Self::File(_) => return None,
            Self::Server(server) => server.address(),
            Self::Consul(consul) => consul.address(),
            Self::Etcd(etcd) => etcd.members[0].address,
            Self::Zookeeper(zookeeper) => zookeeper.address(),
        })
    }

    fn url(&self) -> String {
        match self {
            Self::File(place) => place.url(),
            Self::Server(server) => format!("{}/v1.0", server.url()),
            Self::Consul(consul) => consul.url(),
            Self::Etcd(etcd) => etcd.url(),
            Self::Zookeeper(zookeeper) => zookeeper.url(),
        }
    }
}
