//! Lists in pages.

use serde_json::json;

use super::{Api, ids, open, path_of};
use crate::support::server::Server;

/// A server with a few of everything.
fn filled() -> (Server, Api) {
    let (server, api) = open();
    for number in 0..5 {
        let body = json!({"id": format!("web{number}"), "heartbeat_timeout": 120, "tags": ["www"]});
        api.post("/services", &body).is(201);
        api.set(&format!("/prod/key{number}"), "v");
    }
    (server, api)
}

#[test]
fn a_walk_by_marker_or_by_link_meets_every_item_once_and_in_order() {
    let (server, api) = filled();
    for list in [
        "/services?",
        "/services?tag=www&",
        "/configuration?",
        "/configuration/prod/?",
        "/configuration//prod/?",
        "/events?",
        "/events?type=service.join&",
    ] {
        let all = ids(&api.get(list).is(200).json());
        assert!(all.len() >= 5, "{list}: {all:?}");
        for limit in [1, 2, 5, 1000] {
            let (mut path, mut linked) = (format!("{list}limit={limit}"), String::new());
            let (mut walked, mut pages) = (Vec::new(), 0);
            loop {
                let page = api.get(&path).is(200).json();
                if !linked.is_empty() {
                    let same = Api::new(&server, "").get(&linked).is(200).json();
                    assert_eq!(
                        (&same["values"], &same["metadata"]["limit"]),
                        (&page["values"], &json!(limit))
                    );
                }
                let metadata = &page["metadata"];
                assert_eq!(metadata.as_object().unwrap().len(), 5, "{metadata}");
                assert_eq!(metadata["limit"], limit, "{path}");
                assert_eq!(metadata["count"], page["values"].as_array().unwrap().len(), "{path}");
                assert!(ids(&page).len() == limit || metadata["next_marker"].is_null(), "{path}: {page}");
                walked.extend(ids(&page));
                pages += 1;
                let Some(marker) = metadata["next_marker"].as_str() else {
                    assert!(metadata["next_href"].is_null() && metadata["next_marker"].is_null());
                    break;
                };
                assert_eq!(marker, all[walked.len()], "{path}");
                linked = path_of(&server, metadata["next_href"].as_str().unwrap());
                assert!(
                    linked.starts_with(&format!("/v1.0/7777{}", &list[..list.find('?').unwrap()])),
                    "{linked}"
                );
                path = format!("{list}limit={limit}&marker={marker}");
            }
            assert_eq!(walked, all, "{list}");
            assert_eq!(pages, all.len().div_ceil(limit), "{list}");
        }
    }
}

#[test]
fn a_marker_is_the_first_of_its_page_or_before_it() {
    let (_server, api) = filled();
    for (path, expected) in [
        ("/services?marker=web3", &["web3", "web4"][..]),
        ("/services?marker=web21&limit=2", &["web3", "web4"]),
        ("/services?marker=WEB", &["web0", "web1", "web2", "web3", "web4"]),
        ("/services?tag=www&marker=web4", &["web4"]),
        ("/services?marker=zzz", &[]),
        ("/configuration?marker=/prod/key3", &["/prod/key3", "/prod/key4"]),
        ("/configuration/prod/?marker=%2Fprod%2Fkey33", &["/prod/key4"]),
        ("/configuration/prod/?marker=/zzz", &[]),
    ] {
        assert_eq!(api.ids(path), expected, "{path}");
    }
    let page = api.get("/services?marker=web3&limit=1").is(200).json();
    assert_eq!(page["metadata"]["marker"], "web3");
    assert_eq!(page["metadata"]["next_marker"], "web4");
    assert_eq!(api.get("/events").is(200).json()["metadata"]["marker"], json!(null));
}

#[test]
fn a_marker_that_no_id_could_have_is_refused() {
    let (_server, api) = filled();
    // An id of a configuration value has up to 500, and any of them may begin the next page.
    for (list, longest) in
        [("/services", 255), ("/configuration", 500), ("/configuration/prod/", 500), ("/events", 255)]
    {
        let too_long = "x".repeat(longest + 1);
        for marker in ["it's", "a%20b", "a%0Ab", "%00", "%C3%A9t%C3%A9", &too_long] {
            let fault = api.get(&format!("{list}?marker={marker}")).fault(400, "badRequest");
            fault.message("Invalid value for 'marker' query string parameter");
        }
    }
}

#[test]
fn a_page_has_1_to_1000_items_and_100_unless_told() {
    let (_server, api) = filled();
    let (_fresh_server, fresh) = open();
    for list in ["/services", "/services?tag=www", "/configuration", "/configuration/prod/", "/events"] {
        let query = if list.contains('?') { '&' } else { '?' };
        for limit in ["", "-1", "x", "1.5", "1e2", "%2B5", "0x10", "%201"] {
            let fault = api.get(&format!("{list}{query}limit={limit}")).fault(400, "invalidLimit");
            fault.message("Invalid limit").details("Limit must be a number");
        }
        for limit in ["0", "1001", "99999999999999999999999"] {
            let fault = api.get(&format!("{list}{query}limit={limit}")).fault(400, "invalidLimit");
            fault.message("Invalid limit").says("Minimum limit is 1 and maximum limit is 1000.");
        }
        let fault = api.get(&format!("{list}{query}limit=1001")).fault(400, "invalidLimit");
        fault.details("Invalid limit 1001. Minimum limit is 1 and maximum limit is 1000.");
        assert_eq!(api.get(list).is(200).json()["metadata"]["limit"], 100, "{list}");
        let empty =
            json!({"count": 0, "limit": 1000, "marker": null, "next_marker": null, "next_href": null});
        assert_eq!(
            fresh.get(&format!("{list}{query}limit=1000")).is(200).json()["metadata"],
            empty,
            "{list}"
        );
    }
    for number in 5..101 {
        api.set(&format!("/prod/key{number}"), "v");
    }
    let page = api.get("/configuration").is(200).json();
    assert_eq!((ids(&page).len(), &page["metadata"]["count"]), (100, &json!(100)));
    assert!(page["metadata"]["next_href"].is_string() && page["metadata"]["next_marker"].is_string());
}
