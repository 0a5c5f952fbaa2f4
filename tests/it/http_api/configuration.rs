//! Configuration values and the namespaces they are in.

use serde_json::{Value, json};

use super::{at_once, open, path_of};

#[test]
fn a_value_is_set_read_and_removed_and_each_change_is_an_event() {
    let (server, api) = open();
    for (value, _) in [("one", "creates"), ("one", "changes nothing"), ("two", "replaces")] {
        let response = api.put("/configuration/key", &json!({"value": value, "unknown": 1})).is(204);
        assert!(response.body.is_empty());
        assert_eq!(path_of(&server, response.header("location").unwrap()), "/v1.0/7777/configuration/key");
        assert_eq!(api.get("/configuration/key").is(200).json(), json!({"id": "key", "value": value}));
    }
    assert!(api.delete("/configuration/key").is(204).body.is_empty());
    for response in [api.get("/configuration/key"), api.delete("/configuration/key")] {
        let fault = response.fault(404, "notFoundError").message("object does not exist");
        fault.details(r#"Object "ConfigurationValue" with key "key" does not exist"#);
    }
    let events = api.get("/events").is(200).json();
    let changes: Vec<_> = events["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (&event["type"], &event["payload"]))
        .collect();
    let (update, remove) = (json!("configuration_value.update"), json!("configuration_value.remove"));
    let created = json!({"old_value": null, "new_value": "one", "configuration_value_id": "key"});
    let replaced = json!({"old_value": "one", "new_value": "two", "configuration_value_id": "key"});
    let removed = json!({"old_value": "two", "configuration_value_id": "key"});
    assert_eq!(changes, [(&update, &created), (&update, &replaced), (&remove, &removed)]);
}

#[test]
fn a_value_is_found_by_each_way_to_write_its_id() {
    let (server, api) = open();
    let deep = format!("{}/key", (0..10).map(|n| format!("/name{n}")).collect::<Vec<_>>().concat());
    let ways = [
        ("key", "key", true),
        ("a.b-c_D", "a.b-c_D", true),
        ("%6Bey", "key", true),
        ("/prod/key", "/prod/key", true),
        ("%2Fprod%2Fkey", "/prod/key", true),
        ("%2Fprod/key", "/prod/key", true),
        ("/prod%2fkey", "/prod/key", true),
        ("prod/key", "/prod/key", false),
        (&*deep, &*deep, true),
    ];
    for (written, id, must_work) in ways {
        let path = format!("/configuration/{written}");
        let response = api.put(&path, &json!({"value": written}));
        if !must_work && response.status == 400 {
            continue;
        }
        let response = response.is(204);
        // As the id is appended, a namespaced one has a double slash, and can be followed.
        let location = path_of(&server, response.header("location").unwrap());
        assert_eq!(location, format!("/v1.0/7777/configuration/{id}"));
        let expected = json!({"id": id, "value": written});
        let followed = location.trim_start_matches("/v1.0/7777");
        for path in [&*path, followed] {
            assert_eq!(api.get(path).is(200).json(), expected, "{path}");
        }
    }
    let mut expected = [&*deep, "/prod/key", "a.b-c_D", "key"];
    expected.sort_unstable();
    assert_eq!(api.ids("/configuration"), expected);
    assert_eq!(api.ids("/configuration/"), expected);
    api.delete("/configuration/%2Fprod%2Fkey").is(204);
    api.get("/configuration//prod/key").fault(404, "notFoundError");
}

#[test]
fn a_namespace_is_what_is_in_it_and_below_it_and_the_value_of_its_name() {
    let (_server, api) = open();
    for id in
        ["/prod/key", "/prod/eu-1/key", "/prod", "/production/key", "/prod-2/key", "/Prod/key", "prod", "key"]
    {
        api.set(id, "v");
    }
    for (path, expected) in [
        ("/prod/", &["/prod", "/prod/eu-1/key", "/prod/key"][..]),
        ("prod/", &["/prod", "/prod/eu-1/key", "/prod/key"]),
        ("/prod/eu-1/", &["/prod/eu-1/key"]),
        ("prod/eu-1/", &["/prod/eu-1/key"]),
        ("/none/", &[]),
        ("none/", &[]),
        (
            "",
            &[
                "/Prod/key",
                "/prod",
                "/prod-2/key",
                "/prod/eu-1/key",
                "/prod/key",
                "/production/key",
                "key",
                "prod",
            ],
        ),
    ] {
        let list = api.get(&format!("/configuration/{path}")).is(200).json();
        assert_eq!(super::ids(&list), expected, "{path}");
        assert_eq!(list["metadata"]["count"], expected.len(), "{path}");
    }
    // The listing is of values, whole; a namespace without a value of its name is none.
    assert_eq!(api.get("/configuration/prod/").json()["values"][0], json!({"id": "/prod", "value": "v"}));
    for response in [api.get("/configuration//prod/eu-1"), api.delete("/configuration//prod/eu-1")] {
        response.fault(404, "notFoundError").says("ConfigurationValue");
    }
    // A namespace ends with its last value.
    api.delete("/configuration//prod/eu-1/key").is(204);
    assert!(api.ids("/configuration/prod/eu-1/").is_empty());
}

#[test]
fn an_id_that_breaks_the_rules_is_refused_by_every_method() {
    let (_server, api) = open();
    let plain = "x".repeat(171);
    let namespace = format!("/{}/key", "x".repeat(51));
    let last = format!("/prod/{}", "x".repeat(230));
    let deep = format!("{}/key", (0..11).map(|n| format!("/name{n}")).collect::<Vec<_>>().concat());
    let long = format!("/{}", "x".repeat(50)).repeat(10) + "/key";
    for id in [
        "ab",
        &plain,
        "a%20b",
        "a'bc",
        "k%C3%A9y",
        "key%00",
        "key%0A",
        "/pr.od/key",
        "/ab/key",
        &namespace,
        &last,
        &deep,
        &long,
    ] {
        let path = format!("/configuration/{id}");
        for response in [api.get(&path), api.put(&path, &json!({"value": "v"})), api.delete(&path)] {
            let fault = response.fault(400, "badRequest");
            fault.message("Invalid value for 'configurationId' query string parameter");
        }
    }
    for id in ["key/", "/prod/key/"] {
        api.put(&format!("/configuration/{id}"), &json!({"value": "v"})).fault(400, "badRequest");
    }
    let fault = api.put("/configuration", &json!({"value": "v"})).fault(404, "notFoundError");
    assert_eq!(fault.details, json!({"requested_path": "/v1.0/7777/configuration"}));
    assert!(api.ids("/configuration").is_empty());
    assert!(api.events().is_empty());
}

#[test]
fn a_value_is_text_of_1_to_1024_characters() {
    let (_server, api) = open();
    for value in ["x", " ", "\"\\\u{0}\n", &"x".repeat(1024), &"é".repeat(1024), &"🦀".repeat(1024)] {
        api.set("key", value);
        assert_eq!(api.get("/configuration/key").is(200).json()["value"], *value);
    }
    let range = "String is not in range (1..1024)";
    for (body, details) in [
        (json!({}), "Missing required key (value)"),
        (json!({"value": 5}), "Not a string"),
        (json!({"value": null}), ""),
        (json!({"value": ["x"]}), ""),
        (json!({"value": ""}), range),
        (json!({"value": "x".repeat(1025)}), range),
        (json!({"value": "é".repeat(1025)}), range),
    ] {
        let fault = api.put("/configuration/key", &body).fault(400, "badRequest");
        let fault = fault.message("Validation error for key 'value'");
        assert!(fault.details.as_str().unwrap().starts_with(details), "{body}: {fault:?}");
    }
    assert_eq!(api.get("/configuration/key").is(200).json()["value"], "🦀".repeat(1024));
}

#[test]
fn old_and_new_values_of_parallel_changes_are_a_chain() {
    let (_server, api) = open();
    at_once(8, |thread| {
        for step in 0..5 {
            api.set("/prod/key", &format!("{thread}-{step}"));
        }
    });
    let list = api.get("/events?limit=1000").is(200).json();
    let events = list["values"].as_array().unwrap();
    assert_eq!(events.len(), 40);
    let mut current = Value::Null;
    for event in events {
        assert_eq!(event["payload"]["old_value"], current);
        current = event["payload"]["new_value"].clone();
    }
    assert_eq!(api.get("/configuration//prod/key").is(200).json()["value"], current);
}
