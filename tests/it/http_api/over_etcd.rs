//! `raxsr serve` over an etcd cluster: the same API, by any number of servers, whichever of them a client asks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::{ACCOUNTS, Api, at_once, ids, login, service};
use crate::support::etcd::{Etcd, Release};
use crate::support::server::{CLUSTER, Server, write_accounts};
use crate::support::{Place, RAXSR, Running, holds_for, wait_for, wait_until};

/// Between two heartbeats of a service that times out after 3 s.
const BETWEEN: Duration = Duration::from_millis(700);

/// Servers over one cluster, and a client of each.
struct Tier {
    servers: Vec<Server>,
    apis: Vec<Api>,
    etcd: Etcd,
}

impl Tier {
    #[track_caller]
    fn start(test: &str, count: usize, options: &[&str]) -> Option<Self> {
        Etcd::single(Release::Bookworm, test).map(|etcd| Self::over(etcd, count, options))
    }

    #[track_caller]
    fn over(etcd: Etcd, count: usize, options: &[&str]) -> Self {
        let servers: Vec<_> = (0..count).map(|_| Server::over(&etcd.url(), options)).collect();
        let apis: Vec<_> = servers.iter().map(|server| Api::new(server, "/v1.0/7777")).collect();
        let tier = Self { servers, apis, etcd };
        wait_until("the servers to know one another", || tier.members() == count);
        tier.apis.iter().for_each(|api| drop(api.get("/services").is(200)));
        tier
    }

    fn members(&self) -> usize {
        self.etcd.keys("/service-registry/servers/").len()
    }

    /// How often the store has been written.
    fn revision(&self) -> u64 {
        let answer = self.etcd.ask("kv/range", &json!({"key": "AA=="})).1;
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    fn lists(&self, number: usize, id: &str) -> bool {
        self.apis[number].ids("/services").iter().any(|listed| listed == id)
    }

    /// Waits until every server lists these services.
    #[track_caller]
    fn all_list(&self, expected: &[&str]) {
        wait_until("the list on every server", || {
            self.apis.iter().all(|api| api.ids("/services") == expected)
        });
    }

    /// Sends heartbeats, each to the next of these servers, and returns the token that is due.
    #[track_caller]
    fn beat(&self, id: &str, mut token: String, servers: &[usize], beats: usize) -> String {
        for number in servers.iter().cycle().take(beats) {
            token = super::token(&self.apis[*number].heartbeat(id, &token).is(200));
            holds_for(BETWEEN, "the service", || self.lists(*number, id));
        }
        token
    }
}

#[test]
fn the_contract_is_the_same_as_over_a_file() {
    const TESTS: [&str; 10] = [
        "chaos",
        "configuration",
        "events",
        "faults",
        "heartbeats",
        "identity",
        "limits",
        "pagination",
        "services",
        "wrapped",
    ];
    let Some(etcd) = Etcd::single(Release::Bookworm, "the_contract_is_the_same") else { return };
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(TESTS.map(|test| format!("http_api::{test}::"))).env(CLUSTER, etcd.url());
    let output = tests.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_one_server_is_told_all_servers_know() {
    let Some(tier) = Tier::start("what_one_server_is_told", 3, &[]) else { return };
    let token = tier.apis[0].create("web1", 120);
    tier.apis[1].create("web2", 120);
    tier.apis[2].set("key", "value");
    tier.all_list(&["web1", "web2"]);
    wait_until("the value everywhere", || {
        tier.apis.iter().all(|api| api.get("/configuration/key").status == 200)
    });
    // Its heartbeats may come in anywhere, and each token is good once.
    let second = super::token(&tier.apis[1].heartbeat("web1", &token).is(200));
    let third = super::token(&tier.apis[2].heartbeat("web1", &second).is(200));
    let fourth = super::token(&tier.apis[0].heartbeat("web1", &third).is(200));
    tier.apis[0].heartbeat("web1", &token).is(404);
    tier.apis[2].heartbeat("web1", &fourth).is(200);
    wait_until("when it was seen, everywhere", || {
        tier.apis.iter().all(|api| api.get("/services/web1").is(200).json()["last_seen"].is_u64())
    });
    tier.apis[2].delete("/services/web1").is(204);
    tier.all_list(&["web2"]);
    tier.apis[1].heartbeat("web1", &fourth).is(404);
    tier.apis[1].post("/services", &service("web2", 30)).is(400);
    let expected =
        ["service.join web1", "service.join web2", "configuration_value.update key", "service.remove web1"];
    assert!(tier.apis.iter().all(|api| api.events() == expected), "{:?}", tier.apis[0].events());
}

#[test]
fn whoever_is_alive_by_any_server_is_alive() {
    let Some(tier) = Tier::start("whoever_is_alive_by_any_server", 3, &[]) else { return };
    // By chance each server is the undertaker of some of them, and hears none, some, or all of their heartbeats.
    let services: Vec<_> = (0..6).map(|number| (format!("web{number}"), number)).collect();
    thread::scope(|scope| {
        for (id, number) in &services {
            let (tier, first) = (&tier, number % 3);
            scope.spawn(move || {
                let token = tier.apis[first].create(id, 3);
                let servers: &[usize] = if *number < 3 { &[0] } else { &[0, 1, 2] };
                tier.beat(id, token, servers, 15);
            });
        }
        tier.all_list(&["web0", "web1", "web2", "web3", "web4", "web5"]);
    });
    // Silent, they are gone, each once.
    tier.all_list(&[]);
    let mut events = tier.apis[1].events();
    events.sort();
    let expected: Vec<_> = ["service.join", "service.timeout"]
        .iter()
        .flat_map(|kind| services.iter().map(move |(id, _)| format!("{kind} {id}")))
        .collect();
    assert_eq!(events, expected);
}

#[test]
fn a_server_that_is_killed_is_missed_by_nobody() {
    let Some(mut tier) = Tier::start("a_server_that_is_killed", 3, &[]) else { return };
    let mut tokens: Vec<_> = (0..6).map(|number| tier.apis[0].create(&format!("web{number}"), 10)).collect();
    let everybody = ["web0", "web1", "web2", "web3", "web4", "web5"];
    tier.all_list(&everybody);
    for (number, token) in tokens.iter_mut().enumerate() {
        *token = super::token(&tier.apis[0].heartbeat(&format!("web{number}"), token).is(200));
    }
    tier.servers[0].kill();
    tier.apis.remove(0);
    wait_until("the others to miss it", || tier.members() == 2);
    // Its clients go on at another, with the tokens that they have.
    for (number, token) in tokens.iter_mut().enumerate() {
        *token = super::token(&tier.apis[number % 2].heartbeat(&format!("web{number}"), token).is(200));
    }
    assert_eq!(tier.apis[0].events().len(), 6, "nobody has timed out");
    // Who does not is gone, once.
    tier.all_list(&[]);
    assert_eq!(tier.apis[1].events().len(), 12, "{:?}", tier.apis[1].events());
}

#[test]
fn a_frozen_server_takes_nobody_out_when_it_goes_on() {
    let Some(tier) = Tier::start("a_frozen_server_takes_nobody_out", 2, &[]) else { return };
    let token = tier.apis[1].create("web1", 5);
    tier.all_list(&["web1"]);
    tier.servers[0].signal(Signal::SIGSTOP);
    let mut token = Some(tier.beat("web1", token, &[1], 1));
    wait_until("the other to miss it", || {
        token = token.take().map(|token| tier.beat("web1", token, &[1], 1));
        tier.members() == 1
    });
    tier.servers[0].signal(Signal::SIGCONT);
    let token = tier.beat("web1", token.unwrap(), &[1], 10);
    wait_until("its return", || tier.members() == 2);
    wait_until("its list", || tier.apis[0].get("/services").status == 200 && tier.lists(0, "web1"));
    tier.beat("web1", token, &[0, 1], 6);
    assert_eq!(tier.apis[0].events(), ["service.join web1"]);
}

#[test]
fn an_outage_of_the_store_kills_nobody() {
    let Some(mut tier) = Tier::start("an_outage_of_the_store", 2, &[]) else { return };
    let token = tier.apis[0].create("web1", 5);
    tier.all_list(&["web1"]);
    tier.etcd.members[0].kill();
    wait_until("the servers to notice", || tier.apis.iter().all(|api| api.get("/services").status == 503));
    // A heartbeat that nobody could tell the others is not taken.
    tier.apis[0].heartbeat("web1", &token).is(503);
    holds_for(Duration::from_secs(6), "the outage", || tier.apis[1].get("/services").status == 503);
    tier.etcd.restart();
    let again = wait_for("the heartbeat", || {
        let answer = tier.apis[1].heartbeat("web1", &token);
        (answer.status != 503).then_some(answer)
    });
    let token = super::token(&again.is(200));
    tier.beat("web1", token, &[0, 1], 8);
    assert_eq!(tier.apis[0].events(), ["service.join web1"]);
}

#[test]
fn heartbeats_cost_the_store_a_few_writes_a_second_whatever_their_number() {
    let Some(tier) = Tier::start("heartbeats_cost_the_store", 2, &["--max-services=2000"]) else { return };
    let tokens = at_once(4, |part| {
        let mut connection = tier.servers[part % 2].connect();
        let create = |number| {
            let body = service(&format!("web{part}-{number}"), 120);
            let request = tier.apis[part % 2].request("POST", "/services").json(&body);
            super::token(&connection.exchange(&request).is(201))
        };
        (0..100).map(create).collect::<Vec<_>>()
    });
    wait_until("all of them everywhere", || {
        tier.apis.iter().all(|api| ids(&api.get("/services?limit=1000").is(200).json()).len() == 400)
    });
    let (before, start) = (tier.revision(), Instant::now());
    let beats: usize = at_once(4, |part| {
        let mut connection = tier.servers[part % 2].connect();
        let mut tokens = tokens[part].clone();
        for _ in 0..10 {
            for (number, token) in tokens.iter_mut().enumerate() {
                let path = format!("/services/web{part}-{number}/heartbeat");
                let request = tier.apis[part % 2].request("POST", &path).json(&json!({"token": token}));
                *token = super::token(&connection.exchange(&request).is(200));
            }
        }
        1000
    })
    .into_iter()
    .sum();
    // Two servers, a report of each in half a second, and at most one more than that.
    let (writes, most) = (tier.revision() - before, 2 * (start.elapsed().as_millis() / 500 + 2));
    assert!(u128::from(writes) <= most, "{writes} writes for {beats} heartbeats in {:?}", start.elapsed());
}

#[test]
fn the_log_of_many_writers_is_in_order_and_complete() {
    let Some(tier) = Tier::start("the_log_of_many_writers", 3, &[]) else { return };
    let (mut seen, mut marker) = (Vec::new(), None);
    let mut read = |seen: &mut Vec<String>| loop {
        let query = marker.as_ref().map_or(String::new(), |marker| format!("&marker={marker}"));
        let page = tier.apis[2].get(&format!("/events?limit=1000{query}")).is(200).json();
        let events = page["values"].as_array().unwrap();
        let new = events.iter().skip(usize::from(marker.is_some()));
        seen.extend(new.map(|event| event["payload"]["new_value"].as_str().unwrap().to_owned()));
        if let Some(last) = events.last() {
            marker = Some(last["id"].as_str().unwrap().to_owned());
        }
        if events.len() < 1000 {
            return;
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let api = &tier.apis[writer % 3];
                scope.spawn(move || {
                    for number in 0..40 {
                        api.set(&format!("key{writer}"), &format!("{writer}-{number}"));
                    }
                })
            })
            .collect();
        // Whoever reads on behind the last that was there misses nothing.
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            read(&mut seen);
        }
    });
    read(&mut seen);
    assert_eq!(seen.len(), 240);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 240);
    for writer in 0..6 {
        let own = seen.iter().filter(|value| value.starts_with(&format!("{writer}-")));
        assert!(own.eq((0..40).map(|number| format!("{writer}-{number}")).collect::<Vec<_>>().iter()));
    }
}

#[test]
fn a_limit_holds_across_servers() {
    let Some(tier) = Tier::start("a_limit_holds_across_servers", 3, &["--max-services=5"]) else { return };
    let created = at_once(12, |number| {
        let answer = tier.apis[number % 3].post("/services", &service(&format!("web{number}"), 120));
        answer.has_one_of(&[201, 400]).status
    });
    assert_eq!(created.iter().filter(|status| **status == 201).count(), 5);
    wait_until("five everywhere", || tier.apis.iter().all(|api| api.ids("/services").len() == 5));
}

#[test]
fn who_uses_the_cluster_directly_is_in_the_same_registry_and_log() {
    let Some(tier) = Tier::start("who_uses_the_cluster_directly", 2, &[]) else { return };
    let (place, url) = (&tier.servers[0].place, tier.etcd.url());
    let followed = place.path().join("followed");
    let mut follow = place.program(RAXSR);
    follow.env("SERVICE_REGISTRY_URL", &url).args(["--format=json", "events", "follow"]);
    let follow = follow.stdout(File::create(&followed).unwrap()).stderr(Stdio::null());
    let _follow = Running::start(follow);
    let follows = || fs::metadata(&followed).is_ok_and(|file| file.len() > 0);
    // Until it follows, it misses what happens.
    let mut number = 0;
    wait_until("the follower", || {
        number += 1;
        let (key, value) = ("/service-registry/configuration/first", number.to_string());
        tier.etcd.ask("kv/put", &json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)}));
        follows()
    });
    let options = ["--registry", &url, "--id=direct1", "--interval=3"];
    let mut wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    tier.apis[0].create("served1", 120);
    tier.all_list(&["direct1", "served1"]);
    tier.apis[1].post("/services", &service("direct1", 30)).is(400);
    let raxsr = |words: &[&str]| {
        let output = place.program(RAXSR).env("SERVICE_REGISTRY_URL", &url).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = raxsr(&["--format=csv", "services", "list"]);
    assert!(list.contains("direct1") && list.contains("served1"), "{list}");
    raxsr(&["configuration", "set", "key", "value"]);
    wait_until("the value", || tier.apis[1].get("/configuration/key").status == 200);
    wrapper.signal(Signal::SIGKILL);
    wrapper.wait();
    tier.all_list(&["served1"]);
    raxsr(&["services", "remove", "served1"]);
    tier.all_list(&[]);
    let mut expected = [
        "service.join direct1",
        "service.join served1",
        "configuration_value.update key",
        "service.timeout direct1",
        "service.remove served1",
    ];
    let events = || {
        let mut events = tier.apis[0].events();
        events.retain(|event| event != "configuration_value.update first");
        events.sort();
        events
    };
    expected.sort_unstable();
    wait_until("the log", || events() == expected);
    holds_for(Duration::from_secs(2), "each event once", || events() == expected);
    let seen = fs::read_to_string(place.path().join("followed")).unwrap();
    for event in expected {
        let (kind, subject) = event.split_once(' ').unwrap();
        let is_told = |line: &&str| line.contains(kind) && line.contains(&format!("\"{subject}\""));
        assert_eq!(seen.lines().filter(is_told).count(), 1, "{event}: {seen}");
    }
}

#[test]
fn a_login_at_one_server_is_good_at_all_and_tenants_are_apart() {
    let Some(etcd) = Etcd::single(Release::Bookworm, "a_login_at_one_server_is_good_at_all") else { return };
    let place = Place::new();
    let file = write_accounts(&place, ACCOUNTS, 0o600);
    let mut servers = [0, 1].map(|_| Server::over(&etcd.url(), &["--accounts", &file]));
    let (alice, bob) = (login(&servers[0], "alice"), login(&servers[1], "bob"));
    let elsewhere = Api { address: servers[1].address(), ..alice.clone() };
    alice.create("web1", 120);
    wait_until("the service", || elsewhere.ids("/services") == ["web1"]);
    assert!(bob.ids("/services").is_empty());
    bob.create("web1", 120);
    // It outlives the server that gave it.
    servers[0].kill();
    assert_eq!(elsewhere.ids("/services"), ["web1"]);
    servers[0].restart();
    wait_until("the list", || alice.get("/services").status == 200);
    let tenant = place.raxsr_json(&[
        "--registry",
        &format!("{}/service-registry/tenants/7777", etcd.url()),
        "services",
        "list",
    ]);
    assert_eq!(tenant["values"][0]["id"], "web1");
}

#[test]
fn a_server_that_cannot_log_in_is_not_started() {
    let Some(etcd) = Etcd::with_login(Release::Bookworm, "a_server_that_cannot_log_in", &[]) else { return };
    let place = Place::new();
    let url = etcd.url_with("app:wrong@");
    let output =
        place.program(RAXSR).args(["serve", "--listen=127.0.0.1:0", "--registry", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("refuses") && !said.contains("wrong"), "{said}");
}
