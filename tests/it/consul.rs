//! A registry that is Consul: what the suite over every backend does not ask.

mod access;
mod agents;
mod datacenter;
mod suspending;
mod tokens;
mod watching;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use service_registry_wrapper::model::{HeartbeatTimeout, InstanceId, Metadata, Registration, Tags};
use service_registry_wrapper::registry::{Access, ApiKey, Claim, Error, IfTaken, Owner, Registry, connect};
use tokio::time::Instant;

use crate::support::consul::{Consul, MASTER};
use crate::support::server::{Request, Server};
use crate::support::{Place, RAXSR, Running, WRAPPER, holds_for, says, wait_until};

const INTERVAL: Duration = Duration::from_secs(3);

/// A wrapper that registers `web1` at the agent, and what it says.
fn wrapper(place: &Place, consul: &Consul, name: &str) -> (Running, PathBuf) {
    wrapper_at(place, &consul.url(), name, &[])
}

fn wrapper_at(place: &Place, url: &str, name: &str, more: &[&str]) -> (Running, PathBuf) {
    let log = place.path().join(name);
    let mut options = vec!["--registry", url, "--id=web1", "--log-level=info", "--tags=www"];
    if !more.iter().any(|option| option.starts_with("--interval")) {
        options.push("--interval=3");
    }
    (place.wrapper(&[&options, more].concat()).start_with_log(&log, &["sleep", "600"]), log)
}

fn raxsr(place: &Place, url: &str, words: &[&str]) -> Output {
    place.program(RAXSR).env("SERVICE_REGISTRY_URL", url).args(words).output().unwrap()
}

fn lists(place: &Place, consul: &Consul) -> bool {
    let output = raxsr(place, &consul.url(), &["--format=csv", "services", "list"]);
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web1")
}

fn registration(pairs: &[(&str, &str)]) -> Registration {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Registration {
        id: "web1".parse().unwrap(),
        heartbeat_timeout: HeartbeatTimeout::MIN,
        tags: Tags::default(),
        metadata: Metadata::new(pairs).unwrap(),
    }
}

fn claim() -> Claim {
    Claim { instance: InstanceId::unique(), holder: "the test".to_owned(), if_taken: IfTaken::Refuse }
}

fn at(consul: &Consul, access: &Access) -> std::sync::Arc<dyn Registry> {
    connect(&consul.url().parse().unwrap(), access)
}

#[test]
fn a_registration_outlives_the_agents_restart() {
    let Some(mut consul) = Consul::start("a_registration_outlives_the_agents_restart") else { return };
    let place = Place::new();
    let (mut wrapper, log) = wrapper(&place, &consul, "log");
    // The agent lists it before it has written it down.
    wait_until("the registration", || says(&log, "registered"));
    let before = consul.meta("web1");
    wrapper.signal(Signal::SIGSTOP);
    consul.kill();
    consul.restart();
    assert_eq!(consul.meta("web1"), before);
    wrapper.signal(Signal::SIGCONT);
    wait_until("a heartbeat", || lists(&place, &consul));
    holds_for(INTERVAL, "the registration", || lists(&place, &consul));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
}

#[test]
fn an_agent_that_forgot_the_service_is_told_again_within_an_interval() {
    let Some(mut consul) = Consul::start("an_agent_that_forgot_the_service_is_told_again") else { return };
    let place = Place::new();
    let (_wrapper, log) = wrapper(&place, &consul, "log");
    wait_until("the registration", || says(&log, "registered"));
    consul.kill();
    consul.restart_empty();
    let start = Instant::now();
    wait_until("the registration again", || lists(&place, &consul));
    assert!(start.elapsed() <= INTERVAL, "{:?}", start.elapsed());
    wait_until("a word about it", || says(&log, "registered again"));
}

#[test]
fn of_two_that_race_for_an_id_one_stays_and_the_other_follows() {
    let Some(consul) = Consul::start("of_two_that_race_for_an_id_one_stays") else { return };
    let place = Place::new();
    let (first, second) = (wrapper(&place, &consul, "log1"), wrapper(&place, &consul, "log2"));
    let waits = |log: &PathBuf| says(log, "waiting until the id is free");
    wait_until("the decision", || waits(&first.1) || waits(&second.1));
    let holder = consul.meta("web1");
    holds_for(2 * INTERVAL, "the holder", || consul.meta("web1") == holder && lists(&place, &consul));
    let (winner, loser) = if waits(&second.1) { (first, second) } else { (second, first) };
    assert!(!waits(&winner.1));
    assert!(says(&loser.1, &format!("pid {}", winner.0.pid())), "{}", fs::read_to_string(&loser.1).unwrap());
    drop(winner);
    wait_until("the heir", || consul.meta("web1") != holder && lists(&place, &consul));
}

#[test]
fn a_denied_registration_is_one_clear_line() {
    let Some(consul) = Consul::denying("a_denied_registration_is_one_clear_line") else { return };
    let place = Place::new();
    let url = consul.url_with_token("0a1f5e0c-5b8f-4a52-9c3c-0d5a9a6f0002");
    for url in [consul.url(), url] {
        let mut command = place.program(WRAPPER);
        command.env("SERVICE_REGISTRY_URL", url).args(["--abort-on-failure", "--id=web1", "sleep", "600"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(100), "{said}");
        let lines: Vec<_> = said.lines().filter(|line| line.contains("403 Forbidden")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains("refuses access") && lines[0].contains("CONSUL_HTTP_TOKEN"), "{said}");
        assert!(!said.contains("0a1f5e0c"), "{said}");
    }
}

#[test]
fn a_token_may_come_from_the_url_a_file_or_consuls_own_variables() {
    let Some(consul) = Consul::denying("a_token_may_come_from_the_url_a_file_or_a_variable") else { return };
    let place = Place::new();
    let file = place.path().join("token");
    fs::write(&file, format!("{MASTER}\n")).unwrap();
    let file = file.to_str().unwrap();
    let address = consul.address().to_string();
    let set = ["configuration", "set", "key", "value"];
    assert_eq!(raxsr(&place, &consul.url(), &set).status.code(), Some(1));
    let (open, closed) = (consul.url_with_token(MASTER), consul.url());
    for (url, variables, words) in [
        (&*open, vec![], vec![]),
        (&*closed, vec![("CONSUL_HTTP_TOKEN", MASTER)], vec![]),
        (&*closed, vec![("CONSUL_HTTP_TOKEN_FILE", file)], vec![]),
        (&*closed, vec![], vec!["--api-key-file", file]),
        ("consul://", vec![("CONSUL_HTTP_ADDR", &*address), ("CONSUL_HTTP_TOKEN", MASTER)], vec![]),
    ] {
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", url).envs(variables.clone()).args(&words).args(set);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{url} {variables:?} {words:?}: {output:?}");
        assert!(!format!("{output:?}").contains(MASTER), "{output:?}");
    }
}

#[tokio::test]
async fn a_new_token_in_the_file_is_picked_up() {
    let Some(consul) = Consul::denying("a_new_token_in_the_file_is_picked_up") else { return };
    let place = Place::new();
    let file = place.path().join("token");
    fs::write(&file, "0a1f5e0c-5b8f-4a52-9c3c-0d5a9a6f0002\n").unwrap();
    let token = Some(ApiKey::File(file.clone()));
    let registry = at(&consul, &Access { token, ..Access::default() });
    let (registration, claim) = (registration(&[]), claim());
    let error = registry.register(&registration, &claim).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    fs::write(&file, MASTER).unwrap();
    registry.register(&registration, &claim).await.unwrap();
}

#[tokio::test]
async fn of_many_that_register_an_id_from_many_places_one_can_renew_it() {
    let Some(consul) = Consul::start("of_many_that_register_an_id_one_can_renew_it") else { return };
    let attempts = (0..10).map(|_| {
        let registry = at(&consul, &Access::default());
        tokio::spawn(async move { (registry.register(&registration(&[]), &claim()).await, registry) })
    });
    let mut registered = Vec::new();
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            (Ok(token), registry) => registered.push((token, registry)),
            (Err(error), _) => assert!(matches!(error, Error::Conflict { .. }), "{error}"),
        }
    }
    let mut winners = 0;
    for (token, registry) in registered {
        match registry.heartbeat(&"web1".parse().unwrap(), &token, Owner::Anyone).await {
            Ok(_) => winners += 1,
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn metadata_of_any_characters_comes_back_and_consul_has_what_it_can_hold() {
    let Some(consul) = Consul::start("metadata_of_any_characters_comes_back") else { return };
    let registry = at(&consul, &Access::default());
    let long = "ä€".repeat(127);
    for pairs in [
        &[("name", "shop"), ("port", "80"), ("host", "web1.example")][..],
        &[("a.b", "1"), ("a_b", "2"), ("a b", "3"), ("ключ", "значение"), ("srw_instance", "x")],
        &[("consul-x", "\u{0}\n\t\u{1b}[2J\"\\"), ("long", &long), (&*long, "v"), ("address", "0.0.0.0")],
    ] {
        let expected = registration(pairs);
        registry.register(&expected, &Claim { if_taken: IfTaken::TakeOver, ..claim() }).await.unwrap();
        assert_eq!(registry.service(&expected.id).await.unwrap().registration, expected);
    }
    assert_eq!(consul.meta("web1")["address"], "0.0.0.0");
}

#[tokio::test]
async fn consuls_own_consumers_find_a_service_by_name_tag_and_address() {
    let Some(consul) = Consul::start("consuls_own_consumers_find_a_service") else { return };
    let registry = at(&consul, &Access::default());
    let shop = registration(&[("name", "shop"), ("port", "80"), ("host", "192.0.2.1")]);
    registry.register(&shop, &claim()).await.unwrap();
    wait_until("the catalog", || {
        let found = consul.ask("GET", "/v1/health/service/shop?passing=true").json();
        let service = &found[0]["Service"];
        service["Address"] == "192.0.2.1" && service["Port"] == 80 && service["ID"] == "web1"
    });
}

#[test]
fn events_are_said_to_be_elsewhere() {
    let Some(consul) = Consul::start("events_are_said_to_be_elsewhere") else { return };
    let output = raxsr(&Place::new(), &consul.url(), &["events", "list"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the event log is not supported by consul registries"), "{said}");
    assert!(
        said.contains("supported by embedded registries and servers of the Service Registry API"),
        "{said}"
    );
}

#[test]
fn a_server_of_the_api_can_keep_its_services_at_an_agent() {
    let Some(consul) = Consul::start("a_server_of_the_api_can_keep_its_services_at_an_agent") else { return };
    let server = Server::over(&consul.url(), &[]);
    let mut connection = server.connect();
    let mut ask = |method: &str, path: &str, body: Value| {
        connection.exchange(&Request::new(method, &format!("/v1.0{path}")).json(&body))
    };
    let created = ask("POST", "/services", json!({"id": "web1", "heartbeat_timeout": 30})).is(201).json();
    let beaten = ask("POST", "/services/web1/heartbeat", json!({"token": created["token"]})).is(200).json();
    ask("POST", "/services/web1/heartbeat", json!({"token": beaten["token"]})).is(200);
    assert_eq!(ask("GET", "/services/web1", json!({})).is(200).json()["id"], "web1");
    ask("DELETE", "/services/web1", json!({})).is(204);
    assert!(consul.meta("web1").is_null());
}
