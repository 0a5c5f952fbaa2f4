//! The feed of events.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use uuid::{Timestamp, Uuid};

use super::{Api, at_once, event, ids, open};
use crate::support::server::Connection;
use crate::support::wait_until;

/// A time-based UUID, so many units of 100 ns off the one given.
fn shifted(id: &str, ticks: i64) -> Uuid {
    let (time, sequence) = Uuid::parse_str(id).unwrap().get_timestamp().unwrap().to_gregorian();
    let time = time.checked_add_signed(ticks).unwrap();
    Uuid::new_v1(Timestamp::from_gregorian_time(time, sequence), &[1, 2, 3, 4, 5, 6])
}

/// A time-based UUID of so many seconds since 1970.
fn at(seconds: u64) -> String {
    Uuid::new_v1(Timestamp::from_unix(uuid::NoContext, seconds, 0), &[1, 2, 3, 4, 5, 6]).to_string()
}

/// The hundreds of nanoseconds of an event's id.
fn ticks(event: &Value) -> u64 {
    let id = Uuid::parse_str(event["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 1, "{event}");
    id.get_timestamp().unwrap().to_gregorian().0
}

#[test]
fn the_feed_has_what_happened_in_its_order_and_nothing_else() {
    let (_server, api) = open();
    let web1 = json!({"id": "web1", "heartbeat_timeout": 30, "tags": ["www"], "metadata": {"a": "1"}});
    let token = super::token(&api.post("/services", &web1).is(201));
    let dead = json!({"id": "dead", "heartbeat_timeout": 3, "tags": [], "metadata": {}});
    api.post("/services", &dead).is(201);
    api.set("/prod/key", "v");
    api.delete("/configuration//prod/key").is(204);
    // None of these is an event.
    api.heartbeat("web1", &token).is(200);
    api.put("/services/web1", &json!({"heartbeat_timeout": "30"})).is(204);
    api.post("/services", &web1).is(400);
    api.delete("/services/none").is(404);
    wait_until("the timeout", || api.get("/services/dead").status == 404);
    api.delete("/services/web1").is(204);

    let list = api.get("/events").is(200).json();
    let expected = [
        ("service.join", web1.clone()),
        ("service.join", dead.clone()),
        (
            "configuration_value.update",
            json!({"old_value": null, "new_value": "v", "configuration_value_id": "/prod/key"}),
        ),
        ("configuration_value.remove", json!({"old_value": "v", "configuration_value_id": "/prod/key"})),
        ("service.timeout", dead),
        ("service.remove", web1),
    ];
    let events = list["values"].as_array().unwrap();
    assert_eq!(events.len(), expected.len(), "{list}");
    for (event, (kind, payload)) in events.iter().zip(&expected) {
        assert_eq!(event.as_object().unwrap().len(), 4, "{event}");
        assert_eq!((&event["type"], &event["payload"]), (&json!(kind), payload));
        let id_millis = (ticks(event) - 0x01b2_1dd2_1381_4000) / 10_000;
        assert!(event["timestamp"].as_u64().unwrap().abs_diff(id_millis) < 1000, "{event}");
    }
    assert!(events.is_sorted_by(|a, b| ticks(a) < ticks(b)), "{list}");

    for kind in ["service.join", "service.timeout", "service.remove", "configuration_value.update"] {
        let filtered = api.get(&format!("/events?type={kind}")).is(200).json();
        let expected: Vec<_> = events.iter().filter(|event| event["type"] == kind).collect();
        assert_eq!(filtered["values"].as_array().unwrap().iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_marker_is_any_time_since_the_account_began() {
    let (_server, api) = open();
    for id in ["web1", "web2", "web3"] {
        api.create(id, 120);
    }
    let all = api.ids("/events");
    for (marker, expected) in [
        (all[0].clone(), &all[..]),
        (all[1].clone(), &all[1..]),
        (shifted(&all[1], -1).to_string(), &all[1..]),
        (shifted(&all[1], 1).to_string(), &all[2..]),
        (shifted(&all[2], 1).to_string(), &[]),
        (all[1].to_uppercase(), &all[1..]),
    ] {
        let list = api.get(&format!("/events?marker={marker}")).is(200).json();
        assert_eq!(ids(&list), expected, "{marker}");
        assert_eq!(list["metadata"]["marker"], Value::Null);
    }
}

#[test]
fn a_marker_that_is_no_time_of_the_feed_is_refused() {
    let (_server, api) = open();
    api.create("web1", 120);
    let first = api.ids("/events").remove(0);
    let variant = format!("{}c{}", &first[..19], &first[20..]);
    for (marker, expected) in [
        ("web1", "Invalid UUID"),
        ("a3d7ce10-9b52-41e2-9b60-8b1a2c9a0001", "UUID is not version 1"),
        (&variant, "Unsupported UUID variant"),
        (&at(4_000_000_000), "from parameter must be smaller than the current time"),
        (&at(1_400_000_000), "from parameter must be greater than or equal to the account creation date"),
    ] {
        api.get(&format!("/events?marker={marker}")).fault(400, "badRequest").says(expected);
    }
}

#[test]
fn a_type_has_one_of_five_or_refused() {
    let (_server, api) = open();
    let kinds = [
        "service.join",
        "service.remove",
        "service.timeout",
        "configuration_value.update",
        "configuration_value.remove",
    ];
    for kind in kinds {
        assert!(api.ids(&format!("/events?type={kind}")).is_empty());
    }
    for (query, named) in [
        ("type=nonsense", "nonsense"),
        ("type=service", "service"),
        ("type=Service.join", "Service.join"),
        ("type=service.join%20", "service.join "),
        ("type=service.join&type=nonsense", ""),
        ("type=nonsense&type=service.join", ""),
        ("type=service.join&type=service.join", ""),
    ] {
        let fault = api.get(&format!("/events?{query}")).fault(400, "badRequest");
        let mut fault = fault.says(&format!("Invalid type: {named}")).says("Valid types are: ");
        for kind in kinds {
            fault = fault.says(kind);
        }
    }
}

#[test]
fn a_filtered_page_is_full() {
    let (_server, api) = open();
    for number in 0..5 {
        api.create(&format!("web{number}"), 120);
        api.set(&format!("key{number}"), "v");
    }
    let page = api.get("/events?type=configuration_value.update&limit=3").is(200).json();
    let events: Vec<_> = page["values"].as_array().unwrap().iter().map(event).collect();
    let expected = ["key0", "key1", "key2"].map(|key| format!("configuration_value.update {key}"));
    assert_eq!(events, expected);
    let href = page["metadata"]["next_href"].as_str().unwrap();
    assert!(href.contains("type=configuration_value.update") && href.contains("limit=3"), "{href}");
}

#[test]
fn a_reader_that_follows_by_marker_misses_nothing() {
    const WRITERS: usize = 6;
    let (_server, api) = open();
    api.create("first", 120);
    let is_over = AtomicBool::new(false);
    let followed = std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&api, &is_over));
        at_once(WRITERS, |writer| {
            // Some die while others are born.
            for number in 0..30 {
                let timeout = if number == 0 { 3 } else { 120 };
                api.create(&format!("web-{writer}-{number}"), timeout);
                api.set(&format!("key-{writer}-{number}"), "v");
            }
        });
        let timeouts = || api.ids("/events?type=service.timeout").len();
        wait_until("the timeouts", || timeouts() == WRITERS);
        is_over.store(true, Ordering::SeqCst);
        follower.join().unwrap()
    });
    let all = api.ids("/events?limit=1000");
    assert_eq!(all.len(), 1 + WRITERS * 61);
    assert_eq!(followed, all);
}

/// Reads the feed in small pages, each from the last event seen, until there is nothing new after the end.
fn follow(api: &Api, is_over: &AtomicBool) -> Vec<String> {
    let mut connection = Connection::open(api.address);
    let mut seen = connection.exchange(&api.request("GET", "/events?limit=1")).is(200);
    let mut followed = ids(&seen.json());
    loop {
        let last_look = is_over.load(Ordering::SeqCst);
        let marker = followed.last().unwrap().clone();
        seen = connection.exchange(&api.request("GET", &format!("/events?limit=7&marker={marker}"))).is(200);
        let page = ids(&seen.json());
        assert_eq!(page.first(), Some(&marker));
        if page.len() == 1 && last_look {
            return followed;
        }
        followed.extend(page.into_iter().skip(1));
    }
}
