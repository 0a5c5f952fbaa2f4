//! A registry that is a ZooKeeper ensemble: what the suite over every backend does not ask.

mod consumers;
mod tls;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use service_registry_wrapper::model::{
    EventBody, HeartbeatTimeout, InstanceId, Limit, Metadata, PageRequest, Registration, ServiceUpdate, Tags,
};
use service_registry_wrapper::registry::{
    Access, Claim, Error, IfTaken, Owner, Registry, ServiceQuery, connect,
};
use tokio::time::Instant;

use crate::support::zookeeper::Zookeeper;
use crate::support::{Place, RAXSR, Running, WRAPPER, holds_for, says, wait_for, wait_until};

const INTERVAL: Duration = Duration::from_secs(3);
/// Where `web1` is.
const ID: &str = "/apps/service-registry/services/web1";
const ENTRY: &str = "/apps/services/web1/web1";

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
    assert!(start.elapsed() <= 2 * INTERVAL, "{:?}", start.elapsed());
    wait_until("a word about it", || says(&log, "registered again"));
}

#[tokio::test]
async fn a_service_is_listed_for_its_timeout_although_the_server_agrees_to_less() {
    let test = "a_service_is_listed_for_its_timeout_although_the_server_agrees_to_less";
    let Some(zookeeper) = Zookeeper::with(test, &["maxSessionTimeout=1500"]) else { return };
    let (owner, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    let heartbeat_timeout = HeartbeatTimeout::from_secs(6).unwrap();
    let service = Registration { heartbeat_timeout, ..registration("web1", &[]) };
    let token = owner.register(&service, &claim()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    other.service(&service.id).await.unwrap();
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    other.service(&service.id).await.unwrap();
    // Whoever falls silent is gone, and whoever is gone altogether is gone even sooner.
    let start = Instant::now();
    while other.service(&service.id).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    owner.register(&service, &claim()).await.unwrap();
    drop(owner);
    let start = Instant::now();
    while other.service(&service.id).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
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

#[tokio::test]
async fn what_is_registered_with_a_password_is_changed_with_it() {
    let Some(zookeeper) = Zookeeper::start("what_is_registered_with_a_password") else { return };
    let with = |login: &str| at(&format!("zk://{login}{}/apps", zookeeper.address()));
    let (ours, theirs, nobodys) = (with("me:sesame@"), with("me:other@"), with(""));
    let service = registration("web1", &[("name", "shop")]);
    let token = ours.register(&service, &claim()).await.unwrap();
    let update = ServiceUpdate { tags: Some(Tags::default()), ..ServiceUpdate::default() };
    for registry in [theirs, nobodys] {
        let error = registry.update(&service.id, &update).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert_eq!(registry.service(&service.id).await.unwrap().registration, service);
    }
    with("me:sesame@").update(&service.id, &update).await.unwrap();
    ours.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
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

#[tokio::test]
async fn metadata_of_any_characters_comes_back() {
    let Some(zookeeper) = Zookeeper::start("metadata_of_any_characters_comes_back") else { return };
    let registry = at(&zookeeper.url());
    let long = "ä€".repeat(127);
    for pairs in [
        &[("name", "shop"), ("port", "80"), ("host", "web1.example")][..],
        &[("a.b", "1"), ("a b", "3"), ("ключ", "значение"), ("name", "a/b\u{0}𝄞")],
        &[("k", "\u{0}\n\t\u{1b}[2J\"\\"), ("long", &long), (&*long, "v"), ("name", "..")],
    ] {
        let expected = registration("web1", pairs);
        registry.register(&expected, &Claim { if_taken: IfTaken::TakeOver, ..claim() }).await.unwrap();
        assert_eq!(registry.service(&expected.id).await.unwrap().registration, expected);
    }
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/%2E%2E"), ["web1"]);
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
}

#[tokio::test]
async fn a_thousand_services_are_listed_by_page() {
    let Some(zookeeper) = Zookeeper::start("a_thousand_services_are_listed_by_page") else { return };
    let registry = at(&zookeeper.url());
    let names: BTreeSet<_> = (0..1000).map(|number| format!("web{number}")).collect();
    let mut registering = tokio::task::JoinSet::new();
    for name in &names {
        let (registry, name) = (Arc::clone(&registry), name.clone());
        registering.spawn(async move {
            let heartbeat_timeout = HeartbeatTimeout::MAX;
            let service = Registration { heartbeat_timeout, ..registration(&name, &[("name", "shop")]) };
            registry.register(&service, &claim()).await.unwrap();
        });
        if registering.len() >= 30 {
            registering.join_next().await.unwrap().unwrap();
        }
    }
    registering.join_all().await;
    let limit = Limit::new(300).unwrap();
    let (mut marker, mut listed) = (None, Vec::new());
    loop {
        let page = PageRequest { marker, limit };
        let page = registry.services(&ServiceQuery { tag: None, page }).await.unwrap();
        listed.extend(page.values.into_iter().map(|service| service.registration.id.to_string()));
        marker = page.next_marker.map(Into::into);
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(listed, names.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn an_id_is_unique_whatever_the_services_name_is() {
    let Some(zookeeper) = Zookeeper::start("an_id_is_unique_whatever_the_name") else { return };
    let (one, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    one.register(&registration("web1", &[("name", "shop")]), &claim()).await.unwrap();
    let again = registration("web1", &[("name", "blog")]);
    let error = other.register(&again, &claim()).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { holder, .. } if holder == "the test"), "{error}");
    other.register(&again, &Claim { if_taken: IfTaken::TakeOver, ..claim() }).await.unwrap();
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
    assert_eq!(client.children("/apps/services/blog"), ["web1"]);
}

#[tokio::test]
async fn a_service_of_another_name_moves_with_its_next_heartbeat() {
    let Some(zookeeper) = Zookeeper::start("a_service_of_another_name_moves") else { return };
    let (owner, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    let service = registration("web1", &[("name", "shop")]);
    let token = owner.register(&service, &claim()).await.unwrap();
    let metadata = Some(registration("web1", &[("name", "blog")]).metadata);
    other.update(&service.id, &ServiceUpdate { metadata, ..ServiceUpdate::default() }).await.unwrap();
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
    let entry: Value = serde_json::from_str(&client.node("/apps/services/blog/web1").unwrap().data).unwrap();
    assert_eq!(entry["name"], "blog");
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    owner.deregister(&service.id, Owner::Anyone).await.unwrap();
    assert_eq!(client.children("/apps/services/blog"), Vec::<String>::new());
}

#[tokio::test]
async fn consumers_see_a_service_for_as_long_as_it_has_an_address() {
    let test = "consumers_see_a_service_for_as_long_as_it_has_an_address";
    let Some(zookeeper) = Zookeeper::start(test) else { return };
    let mut client = zookeeper.client();
    for query in ["", "?layout=nerve&path=/services/web1", "?layout=serverset&path=/services/web1"] {
        let url = zookeeper.url() + query;
        let (owner, other) = (at(&url), at(&url));
        let service = Registration { metadata: Metadata::default(), ..registration("web1", &[]) };
        let token = owner.register(&service, &claim()).await.unwrap();
        assert_eq!(client.children("/apps/services/web1"), Vec::<String>::new());
        for pairs in [&[("host", "a"), ("port", "1")][..], &[("host", "b"), ("port", "1")], &[]] {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let metadata = Metadata::new(pairs).unwrap();
            let update = ServiceUpdate { metadata: Some(metadata.clone()), ..ServiceUpdate::default() };
            other.update(&service.id, &update).await.unwrap();
            owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
            let shown = client.children("/apps/services/web1");
            assert_eq!(shown.len(), usize::from(metadata.get("host").is_some()), "{url} {shown:?}");
            for name in shown {
                let node = client.node(&format!("/apps/services/web1/{name}")).unwrap();
                let host = format!("\"{}\"", metadata.get("host").unwrap());
                assert!(node.data.contains(&host), "{node:?}");
            }
        }
        owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
        owner.deregister(&service.id, Owner::Anyone).await.unwrap();
    }
}

#[tokio::test]
async fn who_watches_is_told_how_a_service_left() {
    let Some(mut zookeeper) = Zookeeper::start("who_watches_is_told_how_a_service_left") else { return };
    let (owner, other, watcher) = (at(&zookeeper.url()), at(&zookeeper.url()), at(&zookeeper.url()));
    let mut watch = watcher.watch().await.unwrap();
    owner.register(&registration("before", &[]), &claim()).await.unwrap();
    // The first look tells of nothing.
    let first = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
    assert!(first.is_err(), "{first:?}");
    let takes_over = || Claim { if_taken: IfTaken::TakeOver, ..claim() };
    let mut told = Vec::new();
    let mut expect = async |expected: &[&str]| {
        while told.len() < expected.len() {
            let events = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
            for event in events {
                assert!(matches!(
                    event.body,
                    EventBody::ServiceJoin(_) | EventBody::ServiceRemove(_) | EventBody::ServiceTimeout(_)
                ));
                told.push(format!("{} {}", event.body.kind().as_str(), event.body.subject()));
            }
        }
        assert_eq!(told, expected);
        told.clear();
    };
    expect(&["service.timeout before"]).await;
    owner.register(&registration("web1", &[]), &claim()).await.unwrap();
    expect(&["service.join web1"]).await;
    other.register(&registration("web1", &[]), &takes_over()).await.unwrap();
    expect(&["service.remove web1", "service.join web1"]).await;
    watcher.deregister(&"web1".parse().unwrap(), Owner::Anyone).await.unwrap();
    expect(&["service.remove web1"]).await;
    owner.register(&registration("web2", &[]), &claim()).await.unwrap();
    expect(&["service.join web2"]).await;
    zookeeper.kill();
    zookeeper.restart();
    while watch.next().await.is_err() {}
    owner.register(&registration("web3", &[]), &claim()).await.unwrap();
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
    let before = zookeeper.client().node(ENTRY).unwrap();
    holds_for(2 * INTERVAL, "the session", || zookeeper.client().node(ENTRY).as_ref() == Some(&before));
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
