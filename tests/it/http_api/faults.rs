//! Faults, and what all requests and responses have in common.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{Api, ids, is_well, open, service};
use crate::support::server::{Request, Response, Server};

fn send(api: &Api, content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Response {
    let request = api.request("POST", "/services").body(body);
    let request =
        content_type.into_iter().fold(request, |request, value| request.header("Content-Type", value));
    request.send(api.address)
}

#[test]
fn a_body_is_json_whether_it_says_so_or_nothing() {
    let (_server, api) = open();
    for (number, content_type) in
        [None, Some("application/json"), Some("application/json; charset=utf-8"), Some("Application/JSON ;x")]
            .into_iter()
            .enumerate()
    {
        send(&api, content_type, service(&format!("web{number}"), 30).to_string()).is(201);
    }
    for content_type in ["foo/bar", "text/plain", "application/jsonx", "application/x-www-form-urlencoded"] {
        for (method, path) in [
            ("GET", "/services"),
            ("GET", "/limits"),
            ("GET", "/events"),
            ("POST", "/services"),
            ("PUT", "/services/web1"),
            ("DELETE", "/services/web1"),
            ("PUT", "/configuration/key"),
        ] {
            let request = api.request(method, path).header("Content-Type", content_type);
            let request = if method == "GET" { request } else { request.body("{}") };
            let fault = request.send(api.address).fault(400, "badRequest");
            fault.says(&format!("Unsupported content type: {content_type}"));
        }
    }
    assert_eq!(api.ids("/services"), ["web0", "web1", "web2", "web3"]);
}

#[test]
fn what_is_not_json_is_refused() {
    let (server, api) = open();
    for body in [
        &b"{"[..],
        b"{\"id\":}",
        b"{'id': 'web1'}",
        b"nonsense",
        b"{\"id\": \"web1\", \"heartbeat_timeout\": 30} x",
        b"{\"id\": \"web1\", \"heartbeat_timeout\": NaN}",
        b"{\"id\": \"web\xff\xfe\", \"heartbeat_timeout\": 30}",
        b"{\"id\": \"web1\", \"heartbeat_timeout\": 30, \"metadata\": {\"k\": \"\xc3\"}}",
        b"{\"id\": \"web1\", \"heartbeat_timeout\": 30",
        b"\x00",
        b" ",
    ] {
        let fault = send(&api, None, body).fault(400, "badRequest");
        fault.says("Failed to parse request body: ");
    }
    // Whether these are read or not, they register nothing and do no harm.
    let nested = format!("{}{}", "[".repeat(2400), "]".repeat(2400));
    let deep = format!(r#"{{"id": "web1", "heartbeat_timeout": 30, "tags": {nested}}}"#);
    for body in [
        nested,
        deep,
        "[".repeat(4900),
        r#"{"a":"#.repeat(900),
        r#"{"id": "\ud800web", "heartbeat_timeout": 30}"#.into(),
    ] {
        send(&api, None, body).fault(400, "badRequest");
    }
    assert!(api.ids("/services").is_empty());
    is_well(&server);
}

#[test]
fn an_empty_body_an_empty_value_and_a_wrong_value_are_told_apart() {
    let (_server, api) = open();
    for body in ["null", "0", "false", "\"\"", " null "] {
        send(&api, None, body).fault(400, "badRequest").says("Empty Request Body");
    }
    for body in ["", "{}", "[]", "[1]", "\"x\"", "5", "true"] {
        let fault = send(&api, None, body).fault(400, "badRequest");
        fault.message("Validation error for key 'id'").details("Missing required key (id)");
    }
    // No body is an empty one.
    api.request("POST", "/services").header("Content-Length", "0").send(api.address).fault(400, "badRequest");
    api.create("web1", 30);
    api.request("PUT", "/services/web1").header("Content-Length", "0").send(api.address).is(204);
}

/// A request to register `id` that is so many bytes long.
fn padded(id: &str, length: usize) -> String {
    let body = service(id, 30).to_string();
    " ".repeat(length - body.len()) + &body
}

#[test]
fn a_body_of_5000_bytes_is_too_large() {
    let (server, api) = open();
    send(&api, None, padded("web1", 4999)).is(201);
    for length in [5000, 5001, 20_000] {
        for is_chunked in [false, true] {
            let mut connection = server.connect();
            if is_chunked {
                let head = api.request("POST", "/services").header("Transfer-Encoding", "chunked");
                connection.send(&head.bytes(api.address)).unwrap();
                let body = padded("web2", length);
                for chunk in body.as_bytes().chunks(1000) {
                    let text = String::from_utf8_lossy(chunk);
                    // The server may have stopped listening.
                    let _ = connection.send(format!("{:x}\r\n{text}\r\n", chunk.len()).as_bytes());
                }
                let _ = connection.send(b"0\r\n\r\n");
            } else {
                connection
                    .send(&api.request("POST", "/services").body(padded("web2", length)).bytes(api.address))
                    .unwrap();
            }
            let response = connection.receive("POST").unwrap().is(413);
            assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
            if !response.body.is_empty() {
                response.fault(413, "requestTooLargeError");
            }
            assert!(connection.rest().is_empty());
        }
    }
    assert_eq!(api.ids("/services"), ["web1"]);
}

#[test]
fn a_path_that_cannot_be_decoded_is_malformed() {
    let (_server, api) = open();
    for path in
        ["/services/%", "/services/%zz", "/services/%E0%A4%A", "/services/web%ff", "/configuration/%C3"]
    {
        for method in ["GET", "DELETE"] {
            api.request(method, path).send(api.address).fault(400, "badRequest").says("URI malformed");
        }
    }
}

#[test]
fn a_page_or_a_method_that_is_not_there_is_not_found() {
    let (server, api) = open();
    for (method, path) in [
        ("GET", "/v1.0/nonsense"),
        ("GET", "/v1.0/7777/nonsense"),
        ("GET", "/v1.0/7777/services/web1/nonsense"),
        ("GET", "/v1.0/7777/services/web1/heartbeat"),
        ("GET", "/v1.0/abc/services"),
        ("GET", "/v1.1/services"),
        ("GET", "/nonsense"),
        ("GET", "/services"),
        ("GET", "/v2.0/tokens"),
        ("POST", "/v2.0/nonsense"),
        ("DELETE", "/v1.0/services"),
        ("DELETE", "/v1.0/limits"),
        ("PUT", "/v1.0/7777/events"),
        ("PUT", "/v1.0/7777/services"),
        ("PUT", "/v1.0/configuration"),
        ("POST", "/v1.0/services/web1"),
        ("POST", "/v1.0/configuration/key"),
        ("PATCH", "/v1.0/services/web1"),
        ("NONSENSE", "/v1.0/services"),
        ("OPTIONS", "/v1.0/services"),
    ] {
        let mut connection = server.connect();
        let fault = connection.exchange(&Request::new(method, path)).fault(404, "notFoundError");
        let fault = fault.message("The page cannot be found.");
        assert_eq!(fault.details, json!({"requested_path": path}), "{method}");
    }
    api.create("web1", 30);
    api.get("/services/web1").is(200);
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let (server, api) = open();
    let mut connection = server.connect();
    connection.exchange(&api.request("HEAD", "/services")).has_one_of(&[200, 404]);
    connection.exchange(&api.request("HEAD", "/nonsense")).is(404);
    // What comes next is the next answer, not the body of the last.
    assert!(ids(&connection.exchange(&api.request("GET", "/services")).is(200).json()).is_empty());
}

#[test]
fn one_connection_serves_many_requests_and_each_response_is_whole() {
    let (server, api) = open();
    let mut connection = server.connect();
    let mut response_ids = HashSet::new();
    let requests = [
        (api.request("POST", "/services").json(&service("web1", 30)), 201),
        (api.request("POST", "/services").json(&service("web1", 30)), 400),
        (api.request("POST", "/services").body("{"), 400),
        (api.request("PUT", "/services/web1").json(&json!({"tags": ["x"]})), 204),
        (api.request("PUT", "/configuration/key").json(&json!({"value": "v"})), 204),
        (api.request("GET", "/services/web1"), 200),
        (api.request("GET", "/services/none"), 404),
        (api.request("GET", "/services?limit=0"), 400),
        (api.request("GET", "/configuration/"), 200),
        (api.request("GET", "/events"), 200),
        (api.request("GET", "/limits"), 200),
        (api.request("GET", "/nonsense"), 404),
        (api.request("DELETE", "/services/web1"), 204),
    ];
    for _ in 0..5 {
        connection.exchange(&api.request("DELETE", "/configuration/key")).has_one_of(&[204, 404]);
        for (request, status) in &requests {
            let response = connection.exchange(request).is(*status);
            let response_id = response.header("x-response-id").unwrap().to_owned();
            assert!(response_ids.insert(response_id), "{response:?}");
            assert_eq!(response.header("transfer-encoding"), None, "{response:?}");
            assert_ne!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
            if *status == 204 {
                assert!([None, Some("0")].contains(&response.header("content-length")), "{response:?}");
                continue;
            }
            assert!(response.header("content-length").is_some(), "{response:?}");
            let content_type = response.header("content-type").unwrap();
            assert!(content_type.eq_ignore_ascii_case("application/json; charset=UTF-8"), "{content_type}");
            if *status >= 400 {
                let fault = response.json();
                for key in ["type", "message", "txnId"] {
                    assert!(fault[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {fault}");
                }
                assert_eq!(fault["code"], *status, "{fault}");
                assert_ne!(fault["details"], Value::Null, "{fault}");
            }
        }
    }
}

#[test]
fn the_root_is_a_page_for_people() {
    for server in [Server::open(), Server::with_accounts(super::ACCOUNTS, &[])] {
        let response = Api::new(&server, "").get("/").is(200);
        assert!(response.header("content-type").unwrap().starts_with("text/html"), "{response:?}");
    }
}
