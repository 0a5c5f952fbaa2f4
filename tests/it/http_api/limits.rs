//! How much of everything a tenant may have.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Api, at_once, login, open, service};
use crate::support::server::{Response, Server, write_accounts};
use crate::support::{Place, wait_until};

#[track_caller]
fn is_reached(response: &Response, resource: &str, limit: usize) {
    let fault = response.fault(400, "limitReached").message("Resource limit has been reached");
    fault.details(&format!(
        "Limit for resource {resource} has been reached. Maximum allowed objects: {limit}"
    ));
}

#[test]
fn the_limits_are_told_as_they_are() {
    let defaults = json!({"service": 200, "configuration_value": 1000});
    let few = ["--max-services", "2", "--max-configuration-values", "3"];
    for (options, expected) in [(&[][..], defaults), (&few, json!({"service": 2, "configuration_value": 3}))]
    {
        let server = Server::start(Place::new(), options);
        for base in ["/v1.0", "/v1.0/7777"] {
            let limits = Api::new(&server, base).get("/limits").is(200).json();
            assert_eq!(limits["resource"], expected);
            let rates = limits["rate"].as_object().unwrap();
            assert!(!rates.is_empty());
            for rate in rates.values() {
                assert!(rate["limit"].as_u64().unwrap() > 0 && rate["used"].is_u64(), "{rate}");
                assert!(rate["window"].as_str().is_some_and(|window| !window.is_empty()), "{rate}");
            }
        }
    }
}

#[test]
fn what_is_removed_makes_room_and_what_is_changed_takes_none() {
    let server = Server::start(Place::new(), &["--max-services", "2", "--max-configuration-values", "2"]);
    let api = Api::new(&server, "/v1.0/7777");
    api.create("web1", 120);
    api.create("web2", 120);
    is_reached(&api.post("/services", &service("web3", 120)), "service", 2);
    // That an id is taken, and that a rule is broken, is told before.
    api.post("/services", &service("web1", 120)).fault(400, "serviceWithThisIdExists");
    api.post("/services", &service("web3", 1)).fault(400, "badRequest");
    api.put("/services/web1", &json!({"tags": ["x"]})).is(204);
    api.delete("/services/web1").is(204);
    api.create("web3", 120);

    api.set("one", "v");
    api.set("two", "v");
    let third = || api.put("/configuration/three", &json!({"value": "v"}));
    is_reached(&third(), "configuration_value", 2);
    api.set("one", "w");
    api.delete("/configuration/one").is(204);
    third().is(204);
    assert_eq!(api.ids("/configuration"), ["three", "two"]);
    assert_eq!(api.ids("/services"), ["web2", "web3"]);
}

#[test]
fn a_timeout_makes_room() {
    let server = Server::start(Place::new(), &["--max-services", "1"]);
    let api = Api::new(&server, "/v1.0/7777");
    api.create("dead", 3);
    is_reached(&api.post("/services", &service("web1", 120)), "service", 1);
    wait_until("room", || api.post("/services", &service("web1", 120)).has_one_of(&[201, 400]).status == 201);
    assert_eq!(api.events(), ["service.join dead", "service.timeout dead", "service.join web1"]);
}

#[test]
fn many_at_once_do_not_exceed_a_limit() {
    let server = Server::start(Place::new(), &["--max-services", "3", "--max-configuration-values", "3"]);
    let api = Api::new(&server, "/v1.0/7777");
    let statuses = at_once(20, |number| {
        let created = api.post("/services", &service(&format!("web{number}"), 120));
        let set = api.put(&format!("/configuration/key{number}"), &json!({"value": "v"}));
        (created.has_one_of(&[201, 400]).status, set.has_one_of(&[204, 400]).status)
    });
    assert_eq!(statuses.iter().filter(|(created, _)| *created == 201).count(), 3);
    assert_eq!(statuses.iter().filter(|(_, set)| *set == 204).count(), 3);
    assert_eq!((api.ids("/services").len(), api.ids("/configuration").len()), (3, 3));
}

#[test]
fn by_default_a_tenant_has_200_services() {
    let (server, api) = open();
    let mut connection = server.connect();
    for number in 0..200 {
        let body = service(&format!("web{number}"), 120);
        connection.exchange(&api.request("POST", "/services").json(&body)).is(201);
    }
    is_reached(&api.post("/services", &service("one-more", 120)), "service", 200);
}

#[test]
fn an_account_has_limits_of_its_own() {
    let accounts = super::ACCOUNTS.replacen(
        "tenant = \"7777\"",
        "tenant = \"7777\"\nlimits = { services = 1, configuration_values = 2, requests_per_day = 8 }",
        1,
    );
    let server = Server::with_accounts(&accounts, &["--max-services", "5"]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    let resource = |api: &Api| -> Value { api.get("/limits").is(200).json()["resource"].clone() };
    assert_eq!(resource(&alice), json!({"service": 1, "configuration_value": 2}));
    assert_eq!(resource(&bob), json!({"service": 5, "configuration_value": 1000}));
    alice.create("web1", 120);
    is_reached(&alice.post("/services", &service("web2", 120)), "service", 1);
    for id in ["web1", "web2"] {
        bob.create(id, 120);
    }
    // Of her eight requests a day, three are used.
    for _ in 0..5 {
        alice.get("/services").is(200);
    }
    let fault = alice.get("/services").fault(400, "rateLimitReached");
    fault.message("Rate limit has been reached.");
    for _ in 0..10 {
        bob.get("/services").is(200);
    }
}

#[test]
fn limits_change_while_the_server_runs() {
    let one = |limit: &str| super::ACCOUNTS.replacen("\"7777\"", &format!("\"7777\"\nlimits = {limit}"), 1);
    let server = Server::with_accounts(&one("{ services = 1 }"), &[]);
    let alice = login(&server, "alice");
    alice.create("web1", 120);
    is_reached(&alice.post("/services", &service("web2", 120)), "service", 1);
    write_accounts(&server.place, &one("{ services = 2 }"), 0o600);
    server.signal(Signal::SIGHUP);
    wait_until("the limits", || alice.get("/limits").json()["resource"]["service"] == 2);
    alice.create("web2", 120);
    is_reached(&alice.post("/services", &service("web3", 120)), "service", 2);
}
