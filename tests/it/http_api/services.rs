//! Services: created, read, listed, changed, removed.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Api, event, open, path_of, service, token};
use crate::support::server::Server;

#[test]
fn a_created_service_is_answered_with_a_token_and_where_it_is() {
    let server = Server::open();
    for (base, id, tenant) in [("/v1.0/7777", "web1", "7777"), ("/v1.0", "web2", "0")] {
        let response = Api::new(&server, base).post("/services", &service(id, 30)).is(201);
        token(&response);
        assert!(response.header("content-length").is_some(), "{response:?}");
        assert_eq!(response.header("transfer-encoding"), None);
        let content_type = response.header("content-type").unwrap();
        assert!(content_type.eq_ignore_ascii_case("application/json; charset=UTF-8"), "{content_type}");
        let location = response.header("location").unwrap();
        assert_eq!(location.split('/').nth(6), Some(id));
        let path = path_of(&server, location);
        assert_eq!(path, format!("/v1.0/{tenant}/services/{id}"));
        assert_eq!(Api::new(&server, "").get(&path).is(200).json()["id"], id);
    }
}

#[test]
fn a_service_has_all_five_fields_and_only_those() {
    let (_server, api) = open();
    api.create("web1", 30);
    let expected =
        json!({"id": "web1", "tags": [], "metadata": {}, "heartbeat_timeout": 30, "last_seen": null});
    assert_eq!(api.get("/services/web1").is(200).json(), expected);

    let tags = json!(["a", "a", "two words", "é".repeat(55)]);
    let metadata = json!({"k": "v", "ключ": "é".repeat(255)});
    let body = json!({
        "id": "web2", "tags": tags, "metadata": metadata, "heartbeat_timeout": 120, "last_seen": 5, "unknown": {},
    });
    api.post("/services", &body).is(201);
    let expected = json!({"id": "web2", "tags": tags, "metadata": metadata, "heartbeat_timeout": 120, "last_seen": null});
    assert_eq!(api.get("/services/web2").is(200).json(), expected);
    assert_eq!(api.get("/services").is(200).json()["values"][1], expected);
}

#[test]
fn everything_within_the_rules_is_accepted() {
    let (_server, api) = open();
    for (index, (given, stored)) in
        [(json!(3), 3), (json!(120), 120), (json!("30"), 30), (json!(30.0), 30), (json!("120"), 120)]
            .into_iter()
            .enumerate()
    {
        let id = format!("timeout{index}");
        api.post("/services", &json!({"id": id, "heartbeat_timeout": given})).is(201);
        // With the shortest timeout it may be gone by now.
        if stored != 3 {
            let read = api.get(&format!("/services/{id}")).is(200).json();
            assert!(read["heartbeat_timeout"].is_u64() && read["heartbeat_timeout"] == stored, "{read}");
        }
    }
    for id in ["abc", "A.b-c_9", "...", &"x".repeat(65)] {
        api.create(id, 30);
    }
    let many: serde_json::Map<_, _> = (0..20).map(|n| (format!("k{n}"), json!("v"))).collect();
    let tags: Vec<_> = (0..10).map(|n| format!("t{n}")).collect();
    let body = json!({"id": "full", "heartbeat_timeout": 30, "tags": tags, "metadata": many});
    api.post("/services", &body).is(201);
    api.post("/services", &json!({"id": "null", "heartbeat_timeout": 30, "tags": null, "metadata": null}))
        .is(201);
    let read = api.get("/services/null").is(200).json();
    assert_eq!((&read["tags"], &read["metadata"]), (&json!([]), &json!({})));
}

/// A body that registers, but for one key.
fn but(key: &str, value: impl Into<Value>) -> Value {
    let mut body = json!({"id": "web1", "tags": [], "metadata": {}, "heartbeat_timeout": 30});
    body[key] = value.into();
    body
}

#[test]
fn a_service_that_breaks_a_rule_is_refused_by_the_name_of_the_key() {
    let (_server, api) = open();
    let too_many: serde_json::Map<_, _> = (0..21).map(|n| (format!("k{n}"), json!("v"))).collect();
    let range = "Value out of range (3..120)";
    for (body, key, details) in [
        (json!({}), "id", "Missing required key (id)"),
        (json!({"id": "web1"}), "heartbeat_timeout", "Missing required key (heartbeat_timeout)"),
        (but("id", 5), "id", "Not a string"),
        (but("id", Value::Null), "id", ""),
        (but("id", ""), "id", ""),
        (but("id", "ab"), "id", "String is not in range (3..65)"),
        (but("id", "x".repeat(66)), "id", "String is not in range (3..65)"),
        (but("id", "a b"), "id", "Invalid characters"),
        (but("id", "a/b"), "id", "Invalid characters"),
        (but("id", "wéb1"), "id", "Invalid characters"),
        (but("id", "web1\n"), "id", "Invalid characters"),
        (but("heartbeat_timeout", 2), "heartbeat_timeout", range),
        (but("heartbeat_timeout", 121), "heartbeat_timeout", range),
        (but("heartbeat_timeout", 0), "heartbeat_timeout", range),
        (but("heartbeat_timeout", -30), "heartbeat_timeout", ""),
        (but("heartbeat_timeout", 1e300), "heartbeat_timeout", ""),
        (but("heartbeat_timeout", 30.5), "heartbeat_timeout", "Invalid integer"),
        (but("heartbeat_timeout", "x"), "heartbeat_timeout", "Invalid integer"),
        (but("heartbeat_timeout", "30s"), "heartbeat_timeout", "Invalid integer"),
        (but("heartbeat_timeout", true), "heartbeat_timeout", ""),
        (but("heartbeat_timeout", Value::Null), "heartbeat_timeout", ""),
        (but("heartbeat_timeout", json!([30])), "heartbeat_timeout", ""),
        (but("tags", "www"), "tags", "Not an array"),
        (but("tags", json!(vec!["x"; 11])), "tags", "Object needs to have between 0 and 10 items"),
        (but("tags", json!([""])), "tags", ""),
        (but("tags", json!(["x".repeat(56)])), "tags", ""),
        (but("tags", json!(["x", 5])), "tags", ""),
        (but("metadata", json!([])), "metadata", "Not a hash"),
        (but("metadata", "x"), "metadata", "Not a hash"),
        (but("metadata", too_many), "metadata", "Object needs to have between 0 and 20 items"),
        (but("metadata", json!({"": "v"})), "metadata", ""),
        (but("metadata", json!({"k".repeat(256): "v"})), "metadata", "Key "),
        (but("metadata", json!({"k": ""})), "metadata", "Value for key 'k': "),
        (but("metadata", json!({"k": "v".repeat(256)})), "metadata", "Value for key 'k': "),
        (but("metadata", json!({"k": 5})), "metadata", "Value for key 'k': "),
        // The first key that fails is told.
        (json!({"heartbeat_timeout": 1, "metadata": 1, "tags": 1, "id": 1}), "id", ""),
        (json!({"heartbeat_timeout": 1, "metadata": 1, "tags": 1, "id": "web1"}), "tags", ""),
        (json!({"heartbeat_timeout": 1, "metadata": 1, "id": "web1"}), "metadata", ""),
    ] {
        let fault = api.post("/services", &body).fault(400, "badRequest");
        assert!(fault.message.starts_with(&format!("Validation error for key '{key}")), "{body}: {fault:?}");
        assert!(fault.details.as_str().unwrap().starts_with(details), "{body}: {fault:?}");
    }
    assert!(api.ids("/services").is_empty());
    assert!(api.events().is_empty());
}

#[test]
fn an_id_that_is_taken_is_a_fault_of_its_own_kind_that_names_the_holder() {
    let (_server, api) = open();
    let ours =
        api.with("X-Service-Instance", &Uuid::new_v4().to_string()).with("X-Service-Holder", "the test");
    ours.create("web1", 30);
    api.create("web2", 30);
    for other in [api.clone(), api.with("X-Service-Instance", &Uuid::new_v4().to_string())] {
        for (id, holder) in [("web1", Some("the test")), ("web2", None)] {
            let response = other.post("/services", &service(id, 30));
            let text = format!("Service with id {id} already exists.");
            let fault = response.fault(400, "serviceWithThisIdExists").message(&text).details(&text);
            let told = fault.json["holder"].as_str().unwrap();
            assert_eq!(holder.unwrap_or(told), told);
            let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!(retry_after <= 31, "{retry_after}");
        }
    }
    // A rule that is broken comes first.
    api.post("/services", &service("web1", 2)).fault(400, "badRequest");
    assert_eq!(api.events(), ["service.join web1", "service.join web2"]);
}

#[test]
fn an_instance_that_registers_again_is_let_in_and_joins_once() {
    let (_server, api) = open();
    let ours = api.with("X-Service-Instance", &Uuid::new_v4().to_string());
    let other = api.with("X-Service-Instance", &Uuid::new_v4().to_string());
    ours.create("web1", 30);
    let token = ours.create("web1", 30);
    ours.heartbeat("web1", &token).is(200);
    assert_eq!(api.events(), ["service.join web1"]);

    other.delete("/services/web1").fault(404, "notFoundError");
    api.get("/services/web1").is(200);
    ours.delete("/services/web1").is(204);
    // Who says no instance is a person, and may.
    ours.create("web1", 30);
    api.delete("/services/web1").is(204);
}

#[test]
fn an_update_replaces_what_it_names_and_nothing_else() {
    let (server, api) = open();
    let body =
        json!({"id": "web1", "heartbeat_timeout": 30, "tags": ["old"], "metadata": {"a": "1", "b": "2"}});
    api.post("/services", &body).is(201);
    let (mut tags, mut metadata, mut timeout) = (json!(["old"]), json!({"a": "1", "b": "2"}), json!(30));
    for update in [
        json!({}),
        json!({"unknown": 5}),
        json!({"tags": ["new"]}),
        json!({"metadata": {"a": "3"}}),
        json!({"heartbeat_timeout": "60"}),
        json!({"tags": null}),
        json!({"metadata": null}),
        json!({"tags": ["x", "y"], "metadata": {"c": "4"}, "heartbeat_timeout": 90}),
    ] {
        let response = api.put("/services/web1", &update).is(204);
        assert!(response.body.is_empty());
        assert_eq!(path_of(&server, response.header("location").unwrap()), "/v1.0/7777/services/web1");
        let replaced = |old: &Value, key: &str, default: Value| match update.get(key) {
            None => old.clone(),
            Some(Value::Null) => default,
            Some(new) => new.clone(),
        };
        tags = replaced(&tags, "tags", json!([]));
        metadata = replaced(&metadata, "metadata", json!({}));
        timeout = replaced(&timeout, "heartbeat_timeout", Value::Null);
        if timeout == "60" {
            timeout = json!(60);
        }
        let expected = json!({
            "id": "web1", "tags": tags, "metadata": metadata, "heartbeat_timeout": timeout, "last_seen": null,
        });
        assert_eq!(api.get("/services/web1").is(200).json(), expected, "{update}");
    }
    for (update, key) in [
        (json!({"tags": "x"}), "tags"),
        (json!({"metadata": {"k": 1}, "tags": ["lost"]}), "metadata"),
        (json!({"heartbeat_timeout": 2}), "heartbeat_timeout"),
    ] {
        let fault = api.put("/services/web1", &update).fault(400, "badRequest");
        assert!(fault.message.starts_with(&format!("Validation error for key '{key}")), "{fault:?}");
    }
    // An update cannot rename.
    let rename = api.put("/services/web1", &json!({"id": "web2"}));
    assert!([204, 400].contains(&rename.status), "{rename:?}");
    // The tags found are those of now, and an update is no event.
    assert_eq!(api.ids("/services"), ["web1"]);
    assert_eq!(api.ids("/services?tag=y"), ["web1"]);
    assert!(api.ids("/services?tag=old").is_empty() && api.ids("/services?tag=lost").is_empty());
    assert_eq!(api.events(), ["service.join web1"]);
}

#[test]
fn a_removed_service_is_gone_and_its_event_has_all_of_it() {
    let (_server, api) = open();
    let payload = json!({"id": "web1", "heartbeat_timeout": 30, "tags": ["www"], "metadata": {"a": "1"}});
    api.post("/services", &payload).is(201);
    let response = api.delete("/services/web1").is(204);
    assert_eq!((response.header("location"), response.body.len()), (None, 0));
    let events = api.get("/events").is(200).json();
    assert_eq!(event(&events["values"][1]), "service.remove web1");
    assert_eq!(events["values"][1]["payload"], payload);
    assert!(api.ids("/services").is_empty() && api.ids("/services?tag=www").is_empty());
    api.create("web1", 30);
}

#[test]
fn a_service_that_is_not_there_or_cannot_be_is_told_apart() {
    let (_server, api) = open();
    let token = json!({"token": "a3d7ce10-9b52-11e2-9b60-8b1a2c9a0001"});
    let too_long = "x".repeat(66);
    for (id, is_legal) in
        [("web1", true), ("ab", false), (&too_long, false), ("a%20b", false), ("a'bc", false)]
    {
        let path = format!("/services/{id}");
        for response in [
            api.get(&path),
            api.put(&path, &json!({"tags": []})),
            api.delete(&path),
            api.post(&format!("{path}/heartbeat"), &token),
        ] {
            if is_legal {
                let fault = response.fault(404, "notFoundError").message("object does not exist");
                fault.details(r#"Object "Service" with key "web1" does not exist"#);
            } else {
                let expected = "Invalid value for 'serviceId' query string parameter";
                response.fault(400, "badRequest").message(expected);
            }
        }
    }
}

#[test]
fn services_are_listed_byte_by_byte_and_by_tag() {
    let (_server, api) = open();
    for (id, tags) in [
        ("web2", json!(["www", "db", "two words", "www"])),
        ("Web1", json!(["www", "été"])),
        ("web1", json!(["wwww", "WWW"])),
        ("web10", json!(["www"])),
    ] {
        api.post("/services", &json!({"id": id, "heartbeat_timeout": 120, "tags": tags})).is(201);
    }
    for (query, expected) in [
        ("", &["Web1", "web1", "web10", "web2"][..]),
        ("?tag=www", &["Web1", "web10", "web2"]),
        ("?tag=wwww", &["web1"]),
        ("?tag=db", &["web2"]),
        ("?tag=two%20words", &["web2"]),
        ("?tag=two+words", &["web2"]),
        ("?tag=%C3%A9t%C3%A9", &["Web1"]),
        ("?tag=none", &[]),
        ("?unknown=5", &["Web1", "web1", "web10", "web2"]),
    ] {
        assert_eq!(api.ids(&format!("/services{query}")), expected, "{query}");
    }
    let too_long = "x".repeat(56);
    for tag in ["", "'", "a'b", "a%0Db", "a%0Ab", "%0D%0A", "%00", &too_long] {
        let fault = api.get(&format!("/services?tag={tag}")).fault(400, "badRequest");
        fault.message("Invalid value for 'tag' query string parameter");
    }
}
