//! Heartbeats: tokens, and what happens when none comes.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Api, at_once, open, service, token};
use crate::support::server::Connection;
use crate::support::{holds_for, wait_for, wait_until};

/// Registers a service for the shortest time, and returns its token.
#[track_caller]
fn create_short(api: &Api, id: &str) -> String {
    api.create(id, 3)
}

#[track_caller]
fn wait_until_gone(api: &Api, id: &str) {
    wait_until("the end of a service", || api.get(&format!("/services/{id}")).status == 404);
}

#[test]
fn each_heartbeat_answers_with_another_token_and_is_seen() {
    let (_server, api) = open();
    let mut current = api.create("web1", 30);
    let mut seen = HashSet::from([current.clone()]);
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let before = now();
    for _ in 0..5 {
        let response = api.heartbeat("web1", &current).is(200);
        assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
        assert!(
            response.header("content-length").is_some() && response.header("transfer-encoding").is_none()
        );
        current = token(&response);
        assert!(seen.insert(current.clone()));
    }
    let last_seen = wait_for("last_seen", || api.get("/services/web1").is(200).json()["last_seen"].as_u64());
    assert!((before..=now()).contains(&last_seen), "{last_seen}");
    // It is in every kind of list, but in no later life.
    assert_eq!(api.get("/services").json()["values"][0]["last_seen"], last_seen);
    api.delete("/services/web1").is(204);
    api.create("web1", 30);
    assert_eq!(api.get("/services/web1").is(200).json()["last_seen"], Value::Null);
    assert_eq!(api.events(), ["service.join web1", "service.remove web1", "service.join web1"]);
}

#[test]
fn a_list_by_tag_tells_when_a_service_was_seen() {
    let (_server, api) = open();
    let body = json!({"id": "web1", "heartbeat_timeout": 30, "tags": ["www"]});
    let first = token(&api.post("/services", &body).is(201));
    api.heartbeat("web1", &first).is(200);
    wait_until("last_seen", || api.get("/services?tag=www").json()["values"][0]["last_seen"].is_u64());
}

#[test]
fn a_token_is_good_for_one_heartbeat_of_one_life_of_one_service() {
    let (_server, api) = open();
    let used = api.create("web1", 30);
    let current = token(&api.heartbeat("web1", &used).is(200));
    let other = api.create("web2", 30);
    let former = api.create("web3", 30);
    api.delete("/services/web3").is(204);
    let latter = api.create("web3", 30);
    for (id, token, object) in [
        ("web1", &used, "HeartbeatMarker"),
        ("web1", &other, "HeartbeatMarker"),
        ("web2", &current, "HeartbeatMarker"),
        ("web3", &former, "HeartbeatMarker"),
        ("web1", &"a3d7ce10-9b52-11e2-9b60-8b1a2c9a0001".to_owned(), "HeartbeatMarker"),
        ("none", &current, "Service"),
    ] {
        let fault = api.heartbeat(id, token).fault(404, "notFoundError").message("object does not exist");
        fault.says(&format!("Object \"{object}\" with key \""));
    }
    // None of this did harm.
    for (id, token) in [("web1", current), ("web2", other), ("web3", latter)] {
        api.heartbeat(id, &token).is(200);
    }
}

#[test]
fn what_cannot_be_a_token_is_refused() {
    let (_server, api) = open();
    let first = api.create("web1", 30);
    for (body, details) in [
        (json!({}), "Missing required key (token)"),
        (json!({"token": null}), ""),
        (json!({"token": 5}), ""),
        (json!({"token": [first]}), ""),
        (json!({"token": ""}), ""),
        (json!({"token": "nonsense"}), "Invalid UUID"),
        (json!({"token": format!("{first}0")}), "Invalid UUID"),
        (json!({"token": "a3d7ce10-9b52-41e2-9b60-8b1a2c9a0001"}), "UUID is not version 1"),
        (json!({"token": "a3d7ce10-9b52-11e2-cb60-8b1a2c9a0001"}), "Unsupported UUID variant"),
    ] {
        let fault = api.post("/services/web1/heartbeat", &body).fault(400, "badRequest");
        let fault = fault.message("Validation error for key 'token'");
        assert!(fault.details.as_str().unwrap().starts_with(details), "{body}: {fault:?}");
    }
    api.heartbeat("web1", &first).is(200);
}

#[test]
fn an_instance_may_repeat_the_heartbeat_whose_answer_was_lost() {
    let (_server, api) = open();
    let ours = api.with("X-Service-Instance", &Uuid::new_v4().to_string());
    let other = api.with("X-Service-Instance", &Uuid::new_v4().to_string());
    let first = ours.create("web1", 30);
    let lost = token(&ours.heartbeat("web1", &first).is(200));
    for _ in 0..3 {
        assert_eq!(token(&ours.heartbeat("web1", &first).is(200)), lost);
    }
    for stranger in [&api, &other] {
        stranger.heartbeat("web1", &first).fault(404, "notFoundError").says("HeartbeatMarker");
    }
    let next = token(&ours.heartbeat("web1", &lost).is(200));
    ours.heartbeat("web1", &first).fault(404, "notFoundError");
    ours.heartbeat("web1", &next).is(200);
}

#[test]
fn a_service_whose_timeout_passed_is_gone_for_every_reader_and_has_timed_out_once() {
    const READERS: usize = 60;
    let (_server, api) = open();
    let payload = json!({"id": "dead", "heartbeat_timeout": 3, "tags": ["www"], "metadata": {"a": "1"}});
    let created = Instant::now();
    let last_token = token(&api.post("/services", &payload).is(201));
    api.create("alive", 120);
    at_once(READERS, |number| {
        let mut connection = Connection::open(api.address);
        let mut get = |path: &str| connection.exchange(&api.request("GET", path)).has_one_of(&[200, 404]);
        wait_until("the end of a service", || match number % 4 {
            0 => get("/services/dead").status == 404,
            1 => get("/services").json()["metadata"]["count"] == 1,
            2 => get("/services?tag=www").json()["metadata"]["count"] == 0,
            _ => get("/events?type=service.timeout").json()["metadata"]["count"] != 0,
        });
        assert!(created.elapsed() > Duration::from_millis(2900), "gone after {:?}", created.elapsed());
        // Whoever sees one of these sees all of them.
        assert_eq!(get("/services/dead").status, 404);
        assert_eq!(super::ids(&get("/services").json()), ["alive"]);
        assert_eq!(get("/events?type=service.timeout").json()["metadata"]["count"], 1);
    });
    api.heartbeat("dead", &last_token).fault(404, "notFoundError");
    api.put("/services/dead", &json!({})).fault(404, "notFoundError");
    api.delete("/services/dead").fault(404, "notFoundError");
    assert_eq!(api.events(), ["service.join dead", "service.join alive", "service.timeout dead"]);
    assert_eq!(api.get("/events").json()["values"][2]["payload"], payload);
}

#[test]
fn a_dead_service_makes_way_for_its_successor() {
    let (_server, api) = open();
    let first = create_short(&api, "web1");
    api.heartbeat("web1", &first).is(200);
    wait_until("the successor", || {
        api.post("/services", &service("web1", 120)).has_one_of(&[201, 400]).status == 201
    });
    assert_eq!(api.events(), ["service.join web1", "service.timeout web1", "service.join web1"]);
    assert_eq!(api.get("/services/web1").is(200).json()["last_seen"], Value::Null);
}

#[test]
fn a_service_lives_as_long_as_its_heart_beats() {
    let (_server, api) = open();
    let mut current = api.create("web1", 5);
    let mut connection = Connection::open(api.address);
    holds_for(Duration::from_secs(7), "the heartbeat", || {
        let request = api.request("POST", "/services/web1/heartbeat").json(&json!({"token": current}));
        current = token(&connection.exchange(&request).is(200));
        true
    });
    assert_eq!(api.events(), ["service.join web1"]);
}

#[test]
fn a_late_heartbeat_revives_a_service_or_finds_it_gone_never_both() {
    let (_server, api) = open();
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut tokens: Vec<_> =
        (0..10).map(|n| (format!("late{n}"), create_short(&api, &format!("late{n}")))).collect();
    // Nobody read meanwhile: some of these come before their deadline, some after.
    wait_until("the deadline", || Instant::now() > deadline);
    for (id, last) in &mut tokens {
        let status = api.heartbeat(id, last).has_one_of(&[200, 404]).status;
        let path = format!("/services/{id}");
        assert_eq!(api.get(&path).status, status, "{id}");
        let timeouts = api.events().iter().filter(|event| **event == format!("service.timeout {id}")).count();
        assert_eq!(timeouts, usize::from(status == 404), "{id}");
    }
}

#[test]
fn a_changed_timeout_applies_from_the_next_heartbeat() {
    let (_server, api) = open();
    create_short(&api, "longer");
    api.put("/services/longer", &json!({"heartbeat_timeout": 120})).is(204);
    let first = api.create("shorter", 120);
    let second = api.create("later", 120);
    for id in ["shorter", "later"] {
        api.put(&format!("/services/{id}"), &json!({"heartbeat_timeout": 3})).is(204);
    }
    api.heartbeat("shorter", &first).is(200);
    wait_until_gone(&api, "longer");
    wait_until_gone(&api, "shorter");
    api.heartbeat("later", &second).is(200);
    wait_until_gone(&api, "later");
}

#[test]
fn a_deadline_is_that_of_one_life() {
    let (_server, api) = open();
    create_short(&api, "web1");
    api.delete("/services/web1").is(204);
    api.create("web1", 120);
    // This one's deadline comes after that of the removed.
    create_short(&api, "canary");
    wait_until_gone(&api, "canary");
    api.get("/services/web1").is(200);
    let events = api.events();
    assert!(!events.contains(&"service.timeout web1".to_owned()), "{events:?}");
}

#[test]
fn of_many_that_create_one_id_at_once_one_succeeds() {
    let (_server, api) = open();
    let responses = at_once(30, |_| api.post("/services", &service("web1", 30)));
    let (winners, losers): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.status == 201);
    assert_eq!(winners.len(), 1);
    for loser in losers {
        loser.fault(400, "serviceWithThisIdExists");
    }
    assert_eq!(api.events(), ["service.join web1"]);
    api.heartbeat("web1", &token(winners[0])).is(200);
}

#[test]
fn of_many_that_present_one_token_at_once_one_succeeds() {
    let (_server, api) = open();
    let first = api.create("web1", 30);
    let responses = at_once(30, |_| api.heartbeat("web1", &first).has_one_of(&[200, 404]));
    let winners: Vec<_> = responses.iter().filter(|response| response.status == 200).collect();
    assert_eq!(winners.len(), 1);
    api.heartbeat("web1", &token(winners[0])).is(200);
}

#[test]
fn services_outlive_the_server_with_their_full_timeout_and_their_last_token() {
    let (mut server, api) = open();
    let first = api.create("web1", 5);
    let last = token(&api.heartbeat("web1", &first).is(200));
    api.create("web2", 5);
    server.kill();
    // Longer than their timeout there is nobody to send heartbeats to.
    holds_for(Duration::from_millis(5100), "the server's absence", || server.has_ended());
    server.restart();
    assert_eq!(api.ids("/services"), ["web1", "web2"]);
    api.put("/services/web1", &json!({"heartbeat_timeout": 120})).is(204);
    token(&api.heartbeat("web1", &last).is(200));
    wait_until_gone(&api, "web2");
    assert_eq!(api.events(), ["service.join web1", "service.join web2", "service.timeout web2"]);
}
