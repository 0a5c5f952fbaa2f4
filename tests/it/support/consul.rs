//! A real Consul agent, of Debian 11: fetched once, kept outside the repository, run on ports of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::package::Packaged;
use super::server::{Connection, Request, Response};
use super::{Running, wait_until};

/// The token that may do everything, where not everybody may.
pub(crate) const MASTER: &str = "6a1f5e0c-5b8f-4a52-9c3c-0d5a9a6f0001";

/// An agent that runs. Dropped, it is killed.
pub(crate) struct Consul {
    directory: TempDir,
    address: SocketAddr,
    ports: Ports,
    node: String,
    process: Running,
}

/// What it listens at.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    http: u16,
    pub(crate) https: u16,
    serf_lan: u16,
    serf_wan: u16,
    server: u16,
}

impl Ports {
    /// Somebody else may get one between our look and its use.
    fn free() -> Self {
        let held: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |index: usize| held[index].local_addr().unwrap().port();
        Self { http: port(0), https: port(1), serf_lan: port(2), serf_wan: port(3), server: port(4) }
    }
}

impl Consul {
    /// One that lets everybody in; none where a test that needs it is skipped.
    #[track_caller]
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::with(test, &json!({}))
    }

    /// One that lets [`MASTER`] in and nobody else.
    #[track_caller]
    pub(crate) fn denying(test: &str) -> Option<Self> {
        let acl = json!({"enabled": true, "default_policy": "deny", "tokens": {"master": MASTER}});
        Self::with(test, &json!({ "acl": acl }))
    }

    /// One with these settings besides.
    #[track_caller]
    pub(crate) fn with(test: &str, settings: &Value) -> Option<Self> {
        program(test).map(|_| Self::launch("n1", settings))
    }

    /// Another agent of the same datacenter, which is no server.
    #[track_caller]
    pub(crate) fn joined_by(&self, node: &str) -> Self {
        let server = format!("127.0.0.1:{}", self.ports.serf_lan);
        Self::launch(node, &json!({"server": false, "bootstrap_expect": 0, "retry_join": [server]}))
    }

    /// The server of another datacenter, which this one knows.
    #[track_caller]
    pub(crate) fn beside(&self, datacenter: &str) -> Self {
        let server = format!("127.0.0.1:{}", self.ports.serf_wan);
        Self::launch("n1", &json!({"datacenter": datacenter, "retry_join_wan": [server]}))
    }

    #[track_caller]
    fn launch(node: &str, settings: &Value) -> Self {
        (0..5).find_map(|_| Self::try_launch(node, settings)).unwrap()
    }

    fn try_launch(node: &str, settings: &Value) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let ports = Ports::free();
        let https = if settings.get("key_file").is_some() { json!(ports.https) } else { json!(-1) };
        let mut all = json!({
            "data_dir": directory.path().join("data"), "server": true, "bootstrap_expect": 1,
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "node_name": node,
            "disable_update_check": true, "performance": {"raft_multiplier": 1},
            "ports": {
                "http": ports.http, "https": https, "serf_lan": ports.serf_lan, "server": ports.server,
                "serf_wan": ports.serf_wan, "dns": -1, "grpc": -1,
            },
        });
        for (key, value) in settings.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(directory.path().join("agent.json"), all.to_string()).unwrap();
        let process = run(directory.path());
        let address = ([127, 0, 0, 1], ports.http).into();
        let mut consul = Self { address, ports, node: node.to_owned(), directory, process };
        consul.is_up().then_some(consul)
    }

    /// Waits until it has a leader and knows itself, or has ended.
    fn is_up(&mut self) -> bool {
        let mut has_ended = false;
        wait_until("consul", || {
            has_ended = self.process.has_ended();
            has_ended || self.knows_itself().unwrap_or_default()
        });
        !has_ended
    }

    fn knows_itself(&self) -> std::io::Result<bool> {
        let mut connection = Connection::try_open(self.address)?;
        let leader = connection.try_exchange(&request("GET", "/v1/status/leader"))?;
        let nodes = connection.try_exchange(&request("GET", "/v1/catalog/nodes"))?;
        Ok(leader.status == 200
            && leader.text().len() > 4
            && nodes.text().contains(&format!("\"{}\"", self.node)))
    }

    pub(crate) fn url(&self) -> String {
        format!("consul://{}", self.address)
    }

    /// The same, with the token.
    pub(crate) fn url_with_token(&self, token: &str) -> String {
        format!("consul://{token}@{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it as a loss of power would.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// Starts it again after its end, with what it had on its disk.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process = run(self.directory.path());
        assert!(self.is_up(), "consul does not start again: {}", self.log());
    }

    /// Starts it again after its end, with nothing on its disk.
    #[track_caller]
    pub(crate) fn restart_empty(&mut self) {
        fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.restart();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Asks it directly, with every right.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str) -> Response {
        request(method, path).send(self.address)
    }

    /// Likewise, with a body.
    #[track_caller]
    pub(crate) fn tell(&self, path: &str, body: &Value) -> Response {
        request("PUT", path).json(body).send(self.address).is(200)
    }

    /// How many of this name consumers get to see.
    #[track_caller]
    pub(crate) fn passing(&self, name: &str) -> usize {
        let found = self.ask("GET", &format!("/v1/health/service/{name}?passing=true")).json();
        found.as_array().unwrap().len()
    }

    /// What it has under `Meta` of a service; `null` where there is no such service.
    #[track_caller]
    pub(crate) fn meta(&self, id: &str) -> Value {
        let response = self.ask("GET", &format!("/v1/agent/service/{id}"));
        if response.status == 404 { Value::Null } else { response.json()["Meta"].clone() }
    }
}

fn request(method: &str, path: &str) -> Request {
    Request::new(method, path).header("X-Consul-Token", MASTER)
}

fn run(directory: &Path) -> Running {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new(program("a restart").unwrap());
    command.arg("agent").arg("-config-file").arg(directory.join("agent.json"));
    Running::start(command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()))
}

#[track_caller]
fn program(test: &str) -> Option<PathBuf> {
    Packaged { package: "consul", release: "bullseye", path: "usr/bin/consul" }.program(test)
}
