//! A wrapper, its server, and what comes between them: the command never notices, and the lease is back.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{ACCOUNTS, Api, log_in, login};
use crate::support::peer::{Asked, Peer, Reply};
use crate::support::server::{Request, Server, write_accounts};
use crate::support::{Running, holds_for, says, wait_until};

/// A wrapper of a command that lives for long, logged in as Alice.
struct Wrapped {
    process: Running,
    child: Pid,
    log: PathBuf,
    key_file: PathBuf,
}

impl Wrapped {
    /// Registers at `url`, which leads to the server.
    fn start(server: &Server, url: &str) -> Self {
        let (log, key_file) = (server.place.path().join("log"), server.place.path().join("key"));
        fs::write(&key_file, "alice-key\n").unwrap();
        let registry = format!("--registry={url}");
        let key = format!("--api-key-file={}", key_file.display());
        let options = ["--id=web1", "--interval=3", "--username=alice", &key, &registry];
        let process = server.place.wrapper(&options).start_with_log(&log, &["sleep", "600"]);
        let child = process.child();
        Self { process, child, log, key_file }
    }

    fn is_as_before(&self) -> bool {
        self.process.child() == self.child
    }

    /// Stopped, it leaves the registry.
    fn stop(mut self, api: &Api) {
        assert!(self.is_as_before(), "the command did not notice");
        self.process.signal(Signal::SIGTERM);
        self.process.wait();
        assert!(api.ids("/services").is_empty());
    }
}

fn is_listed(api: &Api) -> bool {
    api.ids("/services") == ["web1"]
}

/// Waits for a heartbeat that was sent from now on.
fn wait_for_heartbeat(api: &Api) {
    let seen = || api.get("/services/web1").json()["last_seen"].clone();
    let before = seen();
    wait_until("a heartbeat", || seen() != before);
}

#[test]
fn a_restart_of_the_server_costs_a_login_and_nothing_else() {
    let mut server = Server::with_accounts(ACCOUNTS, &[]);
    let wrapped = Wrapped::start(&server, &format!("{}/v1.0", server.url()));
    let api = login(&server, "alice");
    wait_until("the registration", || is_listed(&api));
    server.kill();
    wait_until("the outage", || says(&wrapped.log, "cannot renew the registration, trying on"));
    server.restart();
    let api = login(&server, "alice");
    assert!(is_listed(&api));
    wait_for_heartbeat(&api);
    assert_eq!(api.events(), ["service.join web1"]);
    wrapped.stop(&api);
}

#[test]
fn tokens_that_die_young_are_not_missed() {
    let server = Server::with_accounts(ACCOUNTS, &["--token-lifetime=1s"]);
    let wrapped = Wrapped::start(&server, &format!("{}/v1.0", server.url()));
    wait_until("the registration", || is_listed(&login(&server, "alice")));
    // Longer than its timeout twice over.
    holds_for(Duration::from_secs(7), "being listed", || is_listed(&login(&server, "alice")));
    assert_eq!(login(&server, "alice").events(), ["service.join web1"]);
    assert_eq!(fs::read_to_string(&wrapped.log).unwrap(), "", "nothing to tell");
    wrapped.stop(&login(&server, "alice"));
}

#[test]
fn a_changed_key_is_picked_up_from_its_file() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let wrapped = Wrapped::start(&server, &format!("{}/v1.0", server.url()));
    wait_until("the registration", || is_listed(&login(&server, "alice")));
    write_accounts(&server.place, &ACCOUNTS.replace("alice-key", "new-key"), 0o600);
    server.signal(Signal::SIGHUP);
    wait_until("the refusal", || says(&wrapped.log, "refuses access"));
    assert!(wrapped.is_as_before());
    fs::write(&wrapped.key_file, "new-key\n").unwrap();
    let access = log_in(&server, "alice", "new-key").is(200).json();
    let token = access["access"]["token"]["id"].as_str().unwrap();
    let api = Api::new(&server, "/v1.0/7777").with("X-Auth-Token", token);
    wait_until("the registration", || is_listed(&api));
    wait_for_heartbeat(&api);
    wrapped.stop(&api);
}

#[test]
fn a_404_storm_that_passes_in_time_leaves_no_trace() {
    let (server, storm, proxy) = behind_a_proxy();
    let wrapped = Wrapped::start(&server, &proxy.url());
    let api = login(&server, "alice");
    wait_until("the registration", || is_listed(&api));
    wait_for_heartbeat(&api);
    storm.store(true, Ordering::SeqCst);
    let asked = proxy.asked().len();
    // A heartbeat, and the registration that follows it in the same tick.
    wait_until("the storm to be felt", || proxy.asked().len() > asked + 2);
    storm.store(false, Ordering::SeqCst);
    wait_for_heartbeat(&api);
    assert_eq!(api.events(), ["service.join web1"]);
    wrapped.stop(&api);
}

#[test]
fn after_a_404_storm_that_outlasts_the_lease_it_is_back() {
    let (server, storm, proxy) = behind_a_proxy();
    let wrapped = Wrapped::start(&server, &proxy.url());
    let api = login(&server, "alice");
    wait_until("the registration", || is_listed(&api));
    storm.store(true, Ordering::SeqCst);
    wait_until("the timeout", || !is_listed(&api));
    assert!(wrapped.is_as_before());
    storm.store(false, Ordering::SeqCst);
    wait_until("the registration", || is_listed(&api));
    wait_for_heartbeat(&api);
    assert_eq!(api.events(), ["service.join web1", "service.timeout web1", "service.join web1"]);
    wrapped.stop(&api);
}

#[test]
fn an_id_that_is_taken_is_waited_for_taken_over_or_a_failure() {
    let server = Server::open();
    let api = Api::new(&server, "/v1.0");
    let twin = |options: &[&str]| {
        let registry = format!("--registry={}/v1.0", server.url());
        server.place.wrapper(&[&["--id=twin", "--interval=3", &registry], options].concat())
    };
    let first = twin(&[]).start(&["sleep", "600"]);
    wait_until("the registration", || api.ids("/services") == ["twin"]);
    let mut failing = twin(&["--on-conflict=fail", "--abort-on-failure"]).start(&["sleep", "600"]);
    assert_eq!(failing.wait().code(), Some(100));
    let held = format!("is held by pid {} on", first.pid());
    assert!(failing.stderr().contains(&held));
    let log = server.place.path().join("waiting.log");
    let mut waiting = twin(&["--tags=waiting"]).start_with_log(&log, &["sleep", "600"]);
    wait_until("the conflict", || says(&log, &held));
    let _replacing = twin(&["--on-conflict=replace", "--tags=replacing"]).start(&["sleep", "600"]);
    wait_until("the takeover", || api.ids("/services?tag=replacing") == ["twin"]);
    holds_for(Duration::from_secs(4), "its place", || api.ids("/services?tag=replacing") == ["twin"]);
    assert_eq!(api.events(), ["service.join twin", "service.remove twin", "service.join twin"]);
    assert!(!waiting.has_ended());
}

#[test]
fn the_log_has_each_heartbeat_and_nothing_of_how_it_is_sent() {
    let server = Server::open();
    let log = server.place.path().join("debug.log");
    let registry = format!("--registry={}/v1.0", server.url());
    let wrapper = server.place.wrapper(&["--id=web1", "--interval=3", "--log-level=debug", &registry]);
    let _wrapper = wrapper.start_with_log(&log, &["sleep", "600"]);
    let said = || fs::read_to_string(&log).unwrap();
    wait_until("three answers", || said().matches("request succeeded").count() >= 3);
    assert!(said().lines().all(|line| line.contains("web1") || line.contains("started")), "{}", said());
}

/// A server, and a proxy before it that knows nothing while the flag is set.
fn behind_a_proxy() -> (Server, Arc<AtomicBool>, Peer) {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let storm = Arc::new(AtomicBool::new(false));
    let (address, is_raging) = (server.address(), Arc::clone(&storm));
    let proxy = Peer::start(move |asked: &Asked| {
        if is_raging.load(Ordering::SeqCst) {
            return Reply::Json(
                404,
                json!({"type": "notFoundError", "code": 404, "message": "no", "details": "no"}),
            );
        }
        let mut request = Request::new(&asked.method, &asked.path).body(asked.body.clone());
        for name in ["x-auth-token", "x-tenant-id", "x-service-instance", "x-service-holder", "content-type"]
        {
            if let Some(value) = asked.header(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.send(address);
        Reply::Json(answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
    });
    (server, storm, proxy)
}
