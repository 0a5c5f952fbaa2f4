//! A registry that is a ZooKeeper ensemble: what the suite over every backend does not ask.

mod consumers;
mod nodes;
mod tls;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use service_registry_wrapper::model::{HeartbeatTimeout, InstanceId, Metadata, Registration, Tags};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, Registry, connect};
use tokio::time::Instant;

use crate::support::zookeeper::Zookeeper;
use crate::support::{Place, RAXSR, Running, WRAPPER, holds_for, says, wait_for, wait_until};

const INTERVAL: Duration = Duration::from_secs(3);
/// Where `web1` is.
const ID: &str = "/apps/service-registry/services/web1";
/// Called as its first tag.
const ENTRY: &str = "/apps/services/www/web1";

/// A wrapper that registers `web1`, and what it says.
fn wrapper(place: &Place, url: &str, name: &str) -> (Running, PathBuf) {
    let log = place.path().join(name);
    let address = ["--address=10.1.2.3", "--port=8080"];
    let options = ["--registry", url, "--id=web1", "--interval=3", "--log-level=info", "--tags=www"];
    let options = [&options[..], &address].concat();
    (place.wrapper(&options).start_with_log(&log, &["sleep", "600"]), log)
}

fn raxsr(place: &Place, url: &str, words: &[&str]) -> Output {
    place.program(RAXSR).env("SERVICE_REGISTRY_URL", url).args(words).output().unwrap()
}

fn lists(place: &Place, url: &str) -> bool {
    let output = raxsr(place, url, &["--format=csv", "services", "list"]);
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web1")
}

fn registration(id: &str, pairs: &[(&str, &str)]) -> Registration {
    let address = [("host", "10.1.2.3"), ("port", "8080")];
    let pairs = address.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Registration {
        id: id.parse().unwrap(),
        heartbeat_timeout: HeartbeatTimeout::MIN,
        tags: Tags::default(),
        metadata: Metadata::new(pairs).unwrap(),
    }
}

fn claim() -> Claim {
    Claim { instance: InstanceId::unique(), holder: "the test".to_owned(), if_taken: IfTaken::Refuse }
}

fn at(url: &str) -> Arc<dyn Registry> {
    connect(&url.parse().unwrap(), &Access::default())
}

#[test]
fn a_registration_outlives_its_servers_restart() {
    let Some(mut zookeeper) = Zookeeper::start("a_registration_outlives_its_servers_restart") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (mut wrapper, log) = wrapper(&place, &url, "log");
    wait_until("the registration", || lists(&place, &url));
    let before = zookeeper.client().node(ID).unwrap();
    zookeeper.kill();
    wait_until("a word about it", || says(&log, "cannot renew the registration"));
    zookeeper.restart();
    assert_eq!(zookeeper.client().node(ID).as_ref(), Some(&before));
    holds_for(2 * INTERVAL, "the session", || zookeeper.client().node(ID).as_ref() == Some(&before));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    let mut client = zookeeper.client();
    assert_eq!((client.node(ID), client.node(ENTRY)), (None, None));
}

#[test]
fn a_server_that_forgot_everything_is_told_again() {
    let Some(mut zookeeper) = Zookeeper::start("a_server_that_forgot_everything_is_told_again") else {
        return;
    };
    let (place, url) = (Place::new(), zookeeper.url());
    let (_wrapper, log) = wrapper(&place, &url, "log");
    // What the session has seen is more than an empty server has: it is not even told that it has expired.
    wait_until("the registration", || lists(&place, &url));
    drop((0..50).map(|_| zookeeper.client()).collect::<Vec<_>>());
    let beats = || zookeeper.say("dump").unwrap().contains(ENTRY);
    holds_for(INTERVAL / 2, "the registration", beats);
    zookeeper.kill();
    zookeeper.restart_empty();
    let start = Instant::now();
    // Without a session of ours, which would be something to see.
    wait_until("the registration again", || zookeeper.say("dump").unwrap().contains(ENTRY));
    assert!(start.elapsed() <= INTERVAL, "{:?}", start.elapsed());
    wait_until("a word about it", || says(&log, "registered again"));
}

#[test]
fn a_wrapper_that_stood_still_for_longer_than_its_session_registers_again() {
    let Some(zookeeper) = Zookeeper::start("a_wrapper_that_stood_still_registers_again") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (wrapper, log) = wrapper(&place, &url, "log");
    wait_until("the registration", || lists(&place, &url));
    wrapper.signal(Signal::SIGSTOP);
    wait_until("the session's end", || zookeeper.client().node(ID).is_none());
    wrapper.signal(Signal::SIGCONT);
    let start = Instant::now();
    wait_until("the registration again", || zookeeper.client().node(ENTRY).is_some());
    assert!(start.elapsed() <= INTERVAL, "{:?}", start.elapsed());
    wait_until("a word about it", || says(&log, "registered again"));
}

#[test]
fn what_somebody_deleted_is_there_again_within_an_interval() {
    let Some(zookeeper) = Zookeeper::start("what_somebody_deleted_is_there_again") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let _wrapper = wrapper(&place, &url, "log");
    for path in [ID, ENTRY] {
        wait_until("the registration", || zookeeper.client().node(path).is_some());
        zookeeper.client().delete(path);
        let start = Instant::now();
        wait_until("both nodes", || [ID, ENTRY].iter().all(|path| zookeeper.client().node(path).is_some()));
        assert!(start.elapsed() <= INTERVAL, "{path}: {:?}", start.elapsed());
    }
}

#[test]
fn the_next_life_waits_for_the_end_of_the_last_ones_session() {
    let Some(zookeeper) = Zookeeper::start("the_next_life_waits_for_the_last_ones_session") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (first, _) = wrapper(&place, &url, "log1");
    wait_until("the registration", || lists(&place, &url));
    let before = zookeeper.client().node(ID).unwrap();
    let pid = first.pid();
    drop(first);
    let (_second, log) = wrapper(&place, &url, "log2");
    wait_until("a word about it", || says(&log, "waiting until the id is free"));
    assert!(says(&log, &format!("pid {pid} on ")), "{}", fs::read_to_string(&log).unwrap());
    wait_until("the next registration", || {
        zookeeper.client().node(ID).is_some_and(|node| node.owner != before.owner)
    });
    holds_for(INTERVAL, "the registration", || zookeeper.client().node(ENTRY).is_some());
}

#[test]
fn the_next_life_can_take_the_place_of_the_last() {
    let Some(zookeeper) = Zookeeper::start("the_next_life_can_take_the_place_of_the_last") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (first, _) = wrapper(&place, &url, "log");
    wait_until("the registration", || lists(&place, &url));
    let before = zookeeper.client().node(ID).unwrap();
    drop(first);
    let options = [
        "--registry",
        &url,
        "--id=web1",
        "--interval=3",
        "--on-conflict=replace",
        "--tags=www",
        "--address=10.1.2.3",
        "--port=80",
    ];
    let _second = place.wrapper(&options).start(&["sleep", "600"]);
    let taken = wait_for("the next registration", || {
        zookeeper.client().node(ID).filter(|node| node.owner != before.owner)
    });
    holds_for(2 * INTERVAL, "the registration", || zookeeper.client().node(ID).as_ref() == Some(&taken));
    assert_eq!(zookeeper.client().node(ENTRY).unwrap().owner, taken.owner);
}

#[test]
fn of_two_that_race_for_an_id_one_stays_and_the_other_follows() {
    let Some(zookeeper) = Zookeeper::start("of_two_that_race_for_an_id_one_stays") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (first, second) = (wrapper(&place, &url, "log1"), wrapper(&place, &url, "log2"));
    let waits = |log: &PathBuf| says(log, "waiting until the id is free");
    wait_until("the decision", || waits(&first.1) || waits(&second.1));
    let holder = zookeeper.client().node(ID).unwrap();
    holds_for(2 * INTERVAL, "the holder", || zookeeper.client().node(ID).as_ref() == Some(&holder));
    let (winner, loser) = if waits(&second.1) { (first, second) } else { (second, first) };
    assert!(!waits(&winner.1));
    assert!(says(&loser.1, &format!("pid {}", winner.0.pid())), "{}", fs::read_to_string(&loser.1).unwrap());
    // Both have used one session each all the time.
    assert_eq!(fs::read_to_string(&loser.1).unwrap().matches("new session").count(), 1);
    drop(winner);
    wait_until("the heir", || zookeeper.client().node(ID).is_some_and(|node| node.owner != holder.owner));
}

#[test]
fn a_server_that_stands_still_does_not_delay_the_childs_end() {
    let Some(zookeeper) = Zookeeper::start("a_server_that_stands_still_does_not_delay_the_end") else {
        return;
    };
    let (place, url) = (Place::new(), zookeeper.url());
    let (mut wrapper, log) = wrapper(&place, &url, "log");
    wait_until("the registration", || lists(&place, &url));
    zookeeper.signal(Signal::SIGSTOP);
    wait_until("a word about it", || says(&log, "cannot renew the registration"));
    nix::sys::signal::kill(wrapper.child(), Signal::SIGKILL).unwrap();
    let start = Instant::now();
    wrapper.wait();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    zookeeper.signal(Signal::SIGCONT);
    wait_until("the session's end", || zookeeper.client().node(ID).is_none());
}

#[test]
fn a_server_that_has_as_many_connections_as_it_takes_is_an_outage() {
    let settings = ["maxClientCnxns=2"];
    let Some(zookeeper) = Zookeeper::with("a_server_that_takes_no_more_connections", &settings) else {
        return;
    };
    let (place, url) = (Place::new(), zookeeper.url());
    let others = [zookeeper.client(), zookeeper.client()];
    let output = raxsr(&place, &url, &["services", "list"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hangs up at once") && said.contains("maxClientCnxns"), "{said}");
    let (_wrapper, log) = wrapper(&place, &url, "log");
    wait_until("a word about it", || says(&log, "cannot register, trying on"));
    drop(others);
    wait_until("the registration", || says(&log, "registered at last"));
}

#[test]
fn with_a_password_nobody_else_can_change_what_is_ours() {
    let Some(zookeeper) = Zookeeper::start("with_a_password_nobody_else_can_change_what_is_ours") else {
        return;
    };
    let place = Place::new();
    let (open, address) = (zookeeper.url(), zookeeper.address());
    let (ours, theirs) = (format!("zk://me:sesame@{address}/apps"), format!("zk://me:other@{address}/apps"));
    let file = place.path().join("password");
    fs::write(&file, "sesame\n").unwrap();
    let file = file.to_str().unwrap();
    let set = ["configuration", "set", "key", "value"];
    for (url, variables, words) in [
        (&ours, vec![], vec![]),
        (&open, vec![("ZK_AUTH", "digest:me:sesame")], vec![]),
        (&open, vec![], vec!["--username=me", "--api-key-file", file]),
    ] {
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", url).envs(variables).args(words).args(set);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{url}: {output:?}");
        assert!(!format!("{output:?}").contains("sesame"), "{output:?}");
    }
    for url in [&open, &theirs] {
        let output = raxsr(&place, url, &set);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("refuses access") && said.contains("NoAuth"), "{said}");
        assert!(said.contains("ZK_AUTH") && !said.contains("other@"), "{said}");
        assert_eq!(raxsr(&place, url, &["configuration", "get", "key"]).status.code(), Some(0));
    }
    let (mut wrapper, _) = wrapper(&place, &ours, "log");
    wait_until("the registration", || lists(&place, &open));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(!lists(&place, &open));
}

#[test]
fn a_denied_registration_is_one_clear_line() {
    let Some(zookeeper) = Zookeeper::start("a_denied_registration_is_one_clear_line") else { return };
    let place = Place::new();
    zookeeper.client().create_readable("/closed");
    let url = format!("zk://me:sesame@{}/closed", zookeeper.address());
    let mut command = place.program(WRAPPER);
    command.env("SERVICE_REGISTRY_URL", url).args(["--abort-on-failure", "--id=web1", "sleep", "600"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("-102 (NoAuth)")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("refuses access") && lines[0].contains("ZK_AUTH"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn a_session_goes_on_at_the_next_server() {
    let Some(mut servers) = Zookeeper::ensemble("a_session_goes_on_at_the_next_server") else { return };
    let (place, url) = (Place::new(), Zookeeper::url_of(&servers));
    let log = place.path().join("log");
    let options = ["--registry", &url, "--id=web1", "--interval=20", "--log-level=debug"];
    let _wrapper = place.wrapper(&options).start_with_log(&log, &["sleep", "600"]);
    wait_until("the registration", || says(&log, "registered"));
    let before = wait_for("its node everywhere", || {
        let nodes: Vec<_> = servers.iter().map(|server| server.client().node(ID)).collect();
        nodes.iter().all(Option::is_some).then(|| nodes[0].clone().unwrap())
    });
    let session = format!("sid=0x{:x}", before.owner);
    let has_it =
        |server: &Zookeeper| server.say("cons").is_ok_and(|connections| connections.contains(&session));
    let connected = servers.iter().position(has_it).unwrap();
    servers.remove(connected).kill();
    wait_until("the session at another", || servers.iter().any(has_it));
    wait_until("a quorum", || servers.iter().all(|server| server.say("srvr").unwrap().contains("Mode:")));
    assert_eq!(servers[0].client().node(ID), Some(before));
    assert!(!says(&log, "registered again"), "{}", fs::read_to_string(&log).unwrap());
    assert_eq!(fs::read_to_string(&log).unwrap().matches("new session").count(), 1);
    assert!(lists(&place, &url));
}

#[test]
fn a_server_of_the_api_can_have_its_services_there() {
    let Some(zookeeper) = Zookeeper::start("a_server_of_the_api_can_have_its_services_there") else { return };
    let place = Place::new();
    let said = place.path().join("server.log");
    let mut serve = place.program(RAXSR);
    serve.args(["serve", "--listen=127.0.0.1:0", "--registry", &zookeeper.url()]);
    let _server = Running::start(serve.stderr(fs::File::create(&said).unwrap()));
    let url = wait_for("the server", || {
        let said = fs::read_to_string(&said).unwrap();
        Some(said.split_once("serving ")?.1.split_once(' ')?.0.to_owned())
    });
    let (mut wrapper, log) = wrapper(&place, &url, "log");
    wait_until("the registration", || lists(&place, &zookeeper.url()) && lists(&place, &url));
    // The server knows no command: the service is called as its id.
    let entry = || zookeeper.client().node("/apps/services/web1/web1");
    let before = entry().unwrap();
    holds_for(2 * INTERVAL, "the session", || entry().as_ref() == Some(&before));
    assert!(!says(&log, "registered again"), "{}", fs::read_to_string(&log).unwrap());
    wrapper.signal(Signal::SIGKILL);
    wait_until("its end", || !lists(&place, &zookeeper.url()));
    wrapper.wait();
}

#[test]
fn events_are_said_to_be_elsewhere() {
    let Some(zookeeper) = Zookeeper::start("events_are_said_to_be_elsewhere") else { return };
    let output = raxsr(&Place::new(), &zookeeper.url(), &["events", "list"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the event log is not supported by zookeeper registries"), "{said}");
}

#[test]
fn a_wrapper_is_one_thread_one_connection_and_under_a_mebibyte() {
    let Some(zookeeper) = Zookeeper::start("a_wrapper_is_one_thread_and_one_connection") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let (wrapper, log) = wrapper(&place, &url, "log");
    wait_until("the registration", || says(&log, "registered"));
    let connections = zookeeper.say("cons").unwrap().lines().filter(|line| line.contains("sid=0x")).count();
    assert_eq!(connections, 1);
    crate::footprint::stays_small(wrapper, |number| {
        let sent = zookeeper.say("cons").unwrap();
        let received = sent.split("recved=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        received.is_some_and(|received: usize| received >= 4 + 2 * number)
    });
}
