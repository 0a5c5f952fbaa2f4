//! Clients that are slow, broken, hostile or many: they harm nobody but themselves.

use std::io::ErrorKind;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::{ACCOUNTS, Api, ids, is_well, login, open, service};
use crate::support::server::{Connection, Request, Response, Server};

/// The answer to these bytes, or none where the server closes instead. Never nothing at all.
#[track_caller]
fn say(server: &Server, bytes: &[u8]) -> Option<Response> {
    let mut connection = server.connect();
    // The server may have heard enough before all is said.
    let _ = connection.send(bytes);
    match connection.receive("GET") {
        Ok(response) => Some(response),
        Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => None,
        Err(error) => panic!("{}: {error}", String::from_utf8_lossy(bytes)),
    }
}

/// Asserts that what was said is the client's own fault, or was not worth an answer.
#[track_caller]
fn is_refused(server: &Server, bytes: &[u8]) {
    if let Some(response) = say(server, bytes) {
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        assert!((400..500).contains(&response.status), "{said}: {response:?}");
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_holds_up_nobody() {
    let (server, api) = open();
    let mut others = server.connect();
    for (request, method, status) in [
        (api.request("GET", "/services"), "GET", 200),
        (api.request("POST", "/services").json(&service("web1", 120)), "POST", 201),
    ] {
        let mut slow = server.connect();
        for byte in request.bytes(api.address) {
            slow.send(&[byte]).unwrap();
            others.exchange(&api.request("GET", "/limits")).is(200);
        }
        slow.receive(method).unwrap().is(status);
    }
    assert_eq!(api.ids("/services"), ["web1"]);
}

#[test]
fn a_body_that_was_announced_is_not_waited_for_for_ever() {
    let (server, api) = open();
    let announced = |request: Request| request.header("Content-Length", "100").bytes(api.address);
    let chunked = api.request("POST", "/services").header("Transfer-Encoding", "chunked").bytes(api.address);
    let mut waiting: Vec<Connection> = [
        (announced(api.request("POST", "/services")), &b""[..]),
        (announced(api.request("PUT", "/configuration/key")), b"{\"value\": "),
        (announced(Request::new("POST", "/v2.0/tokens")), b"{"),
        (chunked.clone(), b"5\r\n{\"id\""),
        (chunked, b""),
    ]
    .into_iter()
    .map(|(head, part)| {
        let mut connection = server.connect();
        connection.send(&[&head, part].concat()).unwrap();
        connection
    })
    .collect();
    api.create("web1", 120);
    for connection in &mut waiting {
        connection.receive("POST").unwrap().is(408);
        assert!(connection.rest().is_empty());
    }
    assert_eq!((api.ids("/services"), api.ids("/configuration").len()), (vec!["web1".to_owned()], 0));
}

#[test]
fn a_client_that_has_said_all_it_will_say_gets_its_answer() {
    let (server, api) = open();
    for (request, method, status) in [
        (api.request("GET", "/services"), "GET", 200),
        (api.request("POST", "/services").json(&service("web1", 120)), "POST", 201),
        (api.request("GET", "/services/web1"), "GET", 200),
    ] {
        let mut connection = server.connect();
        connection.send(&request.bytes(api.address)).unwrap();
        connection.finish();
        connection.receive(method).unwrap().is(status);
        assert!(connection.rest().is_empty());
    }
    // Who leaves in the middle of a sentence has not said anything.
    let announced = api.request("POST", "/services").header("Content-Length", "100").bytes(api.address);
    for bytes in [&b""[..], b"GET /v1.0/serv", &announced, &[&announced, &b"{"[..]].concat()] {
        let mut connection = server.connect();
        connection.send(bytes).unwrap();
        connection.finish();
        let rest = connection.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(api.ids("/services"), ["web1"]);
    is_well(&server);
}

#[test]
fn a_thousand_idle_connections_are_kept_and_disturb_nobody() {
    const COUNT: usize = 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > 2000, "{COUNT} connections need more descriptors than {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(16_384)), hard).unwrap();
    let (server, api) = open();
    let ask = |connection: &mut Connection| connection.exchange(&api.request("GET", "/limits")).is(200);
    let mut idle: Vec<Connection> = (0..COUNT).map(|_| server.connect()).collect();
    // Some have been of use before.
    for connection in idle.iter_mut().step_by(2) {
        ask(connection);
    }
    let current = api.create("web1", 120);
    api.heartbeat("web1", &current).is(200);
    for connection in &mut idle {
        ask(connection);
    }
    assert_eq!(api.ids("/services"), ["web1"]);
}

#[test]
fn requests_that_do_not_wait_for_answers_are_answered_in_order() {
    const COUNT: usize = 40;
    let (server, api) = open();
    for number in 0..COUNT {
        api.set(&format!("key{number}"), &number.to_string());
    }
    let bytes: Vec<u8> = (0..COUNT)
        .flat_map(|number| {
            [
                api.request("GET", &format!("/configuration/key{number}")),
                api.request("POST", "/services").json(&service(&format!("web{number}"), 120)),
                api.request("GET", &format!("/services/web{number}")),
                // An answer that needs no body, to a request that has one.
                api.request("POST", &format!("/nonsense{number}")).json(&json!({})),
                api.request("DELETE", &format!("/configuration/key{number}")),
            ]
        })
        .flat_map(|request| request.bytes(api.address))
        .collect();
    let mut connection = server.connect();
    connection.send(&bytes).unwrap();
    for number in 0..COUNT {
        let value = connection.receive("GET").unwrap().is(200).json();
        assert_eq!(value, json!({"id": format!("key{number}"), "value": number.to_string()}));
        connection.receive("POST").unwrap().is(201);
        assert_eq!(connection.receive("GET").unwrap().is(200).json()["id"], format!("web{number}"));
        let fault = connection.receive("POST").unwrap().fault(404, "notFoundError");
        assert_eq!(fault.details, json!({"requested_path": format!("/v1.0/7777/nonsense{number}")}));
        connection.receive("DELETE").unwrap().is(204);
    }
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (server, api) = open();
    let request = || api.request("GET", "/services");
    let headers = |count: usize, value: &str| {
        (0..count).fold(request(), |request, number| request.header(&format!("X-{number}"), value))
    };
    let long = "x".repeat(256 * 1024);
    for request in [
        request().header("X-Long", &long),
        headers(200, "x"),
        headers(60, &"x".repeat(4096)),
        api.request("GET", &format!("/services/{long}")),
        api.request("GET", &format!("/services?marker={long}")),
    ] {
        let response = say(&server, &request.bytes(api.address)).expect("an answer");
        response.has_one_of(&[400, 414, 431]);
        is_well(&server);
    }
    // One that never comes to its end.
    let mut endless = server.connect();
    while endless.send(format!("GET / HTTP/1.1\r\nX: {long}").as_bytes()).is_ok() {}
    endless.receive("GET").unwrap().has_one_of(&[400, 431]);
    // More than any client says.
    headers(60, &"x".repeat(300)).send(api.address).is(200);
}

/// Targets of requests that lead nowhere.
const ASTRAY: &[&str] = &[
    "/v1.0/../services",
    "/health/../v1.0/7777/services",
    "/v1.0/%2e%2e/services",
    "/v1.0%2fservices",
    "/%761.0/services",
    "/V1.0/services",
    "/v1.0/7777/SERVICES",
    "//v1.0/services",
    "///v1.0/7777/services",
    "/v1.0//services",
    "/v1.0/7777//services",
    "/v1.0/7777/8888/services",
    "/v1.0/services/",
    "/v1.0/services//",
    "/v1.0/services/%00",
    "/v1.0/services/..%2f",
    "/v1.0/services/hidden%00",
    "/v1.0/services/%2e%2e%2fhidden",
    "/v1.0/services/hidden/",
    "/v1.0/services/*",
    "/v1.0/services/{id}",
    "/v1.0/services/\u{e9}",
    "/v1.0/{tenant}/services",
    "/v1.0/configuration/..",
    "/v1.0/configuration//..//..",
    "/v1.0/configuration/%2F",
    "/v1.0/configuration///",
    "/v1.0?services",
    "/v1.0",
    "/v1.0/7777",
    "/v1.0/7777?limit=1",
    "/v2.0/tokens/../../v1.0/services",
    "/metrics/../v1.0/services",
    "http://[::1",
    "http:///v1.0/services",
    "://",
    "*",
    "?",
    "v1.0/services",
    "",
    "/v1.0/services HTTP/1.1 /v1.0/services",
];

/// What is no request.
const GARBAGE: &[&[u8]] = &[
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT /v1.0/services HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"G{T /v1.0/services HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET\t/v1.0/services HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1.0/services\r\n\r\n",
    b"GET /v1.0/services HTTP/0.9\r\n\r\n",
    b"GET /v1.0/services HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET /v1.0/services HTTP/1.1\r\nHost x\r\n\r\n",
    b"GET /v1.0/services HTTP/1.1\r\nX y: z\r\n\r\n",
    b"GET /v1.0/services HTTP/1.1\r\nX: \0\r\n\r\n",
    b"GET /v1.0/services/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
    b"POST /v1.0/services HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{\r\n",
    b"POST /v1.0/services HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{\r\n",
    b"\0\x01\x02\xff\0\x01\x02\xff\r\n\r\n",
    b"\xff\xfe\xfd\r\n\r\n",
    b"SSH-2.0-x\r\n\r\n",
    b"{\"id\": \"web1\"}\r\n\r\n",
    // How TLS begins.
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\x00\x00\x02\x13\x01\x01\x00\x00\x00",
];

#[test]
fn what_leads_nowhere_or_makes_no_sense_is_the_clients_fault() {
    let closed = Server::with_accounts(ACCOUNTS, &[]);
    let alice = login(&closed, "alice");
    alice.create("hidden", 120);
    let (open, api) = open();
    for server in [&open, &closed] {
        for target in ASTRAY {
            for method in ["GET", "PUT", "DELETE"] {
                is_refused(server, format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            }
        }
        for bytes in GARBAGE {
            is_refused(server, bytes);
        }
        is_well(server);
    }
    assert!(api.events().is_empty());
    assert_eq!(alice.events(), ["service.join hidden"]);
}

#[test]
fn old_and_unusual_ways_of_asking_are_understood() {
    let (server, api) = open();
    api.create("web1", 120);
    for asked in [
        "GET /v1.0/services HTTP/1.0\r\n\r\n",
        "GET /v1.0/services HTTP/1.1\r\n\r\n",
        "\r\n\r\nGET /v1.0/services HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://elsewhere/v1.0/7777/services HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "GET /v1.0/services HTTP/1.1\r\nhOST:x\r\nX-Folded: \t a \t\r\n\r\n",
        "GET /v1.0/services? HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1.0/services?&&=&unknown=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let response = say(&server, asked.as_bytes()).unwrap_or_else(|| panic!("no answer: {asked}"));
        assert_eq!(ids(&response.is(200).json()), ["web1"], "{asked}");
    }
    let mut old = server.connect();
    old.send(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    old.receive("GET").unwrap().is(200);
    assert!(old.rest().is_empty(), "who does not ask for more wants the end");
}

/// A body in chunks of this length, without the last.
fn chunks(body: &str, length: usize) -> String {
    let chunks = body.as_bytes().chunks(length).map(String::from_utf8_lossy);
    let chunks = chunks.map(|chunk| format!("{:X};x=y\r\n{chunk}\r\n", chunk.len()));
    chunks.collect::<Vec<_>>().concat()
}

#[test]
fn a_body_may_come_in_chunks_but_not_without_end() {
    let (server, api) = open();
    let head = api.request("POST", "/services").header("Transfer-Encoding", "chunked").bytes(api.address);
    for (number, length) in [1, 7, 10_000].into_iter().enumerate() {
        let mut connection = server.connect();
        connection.send(&head).unwrap();
        let body = service(&format!("web{number}"), 120).to_string();
        connection.send(chunks(&body, length).as_bytes()).unwrap();
        connection.send(b"0\r\nX-Trailer: x\r\n\r\n").unwrap();
        connection.receive("POST").unwrap().is(201);
        connection.exchange(&api.request("GET", "/services")).is(200);
    }
    let mut endless = server.connect();
    endless.send(&head).unwrap();
    while endless.send(chunks(&" ".repeat(1000), 1000).as_bytes()).is_ok() {}
    endless.receive("POST").unwrap().is(413);
    assert_eq!(api.ids("/services"), ["web0", "web1", "web2"]);
}

#[test]
fn who_asks_first_is_told_whether_to_send_its_body() {
    let closed = Server::with_accounts(ACCOUNTS, &[]);
    let alice = login(&closed, "alice");
    let body = service("web1", 120).to_string();
    let head = |api: &Api, length: usize| {
        let request = api.request("POST", "/services").header("Expect", "100-continue");
        request.header("Content-Length", &length.to_string()).bytes(api.address)
    };
    let mut connection = closed.connect();
    connection.send(&head(&alice, body.len())).unwrap();
    connection.receive("POST").unwrap().is(100);
    connection.send(body.as_bytes()).unwrap();
    connection.receive("POST").unwrap().is(201);
    connection.send(&head(&alice, 5000)).unwrap();
    connection.receive("POST").unwrap().is(413);
    let mut stranger = closed.connect();
    stranger.send(&head(&Api::new(&closed, "/v1.0/7777"), body.len())).unwrap();
    stranger.receive("POST").unwrap().is(401);
    assert_eq!(alice.ids("/services"), ["web1"]);
}

#[test]
fn no_body_is_too_deep_or_too_strange_to_be_refused() {
    let (server, api) = open();
    let current = api.create("web1", 120);
    let mut connection = server.connect();
    for (method, path) in [
        ("POST", "/v1.0/services"),
        ("PUT", "/v1.0/services/web1"),
        ("POST", "/v1.0/services/web1/heartbeat"),
        ("PUT", "/v1.0/configuration/key"),
        ("POST", "/v2.0/tokens"),
    ] {
        for body in [
            "[".repeat(4999).into_bytes(),
            r#"{"id":"#.repeat(800).into_bytes(),
            format!("{{\"value\": {}1{}}}", "[".repeat(2000), "]".repeat(2000)).into_bytes(),
            b"{\"value\": \"\xff\", \"token\": \"\xff\", \"tags\": [\"\xff\"], \"auth\": \"\xff\"}".to_vec(),
            b"\xef\xbb\xbf{\"value\": \"v\"}".to_vec(),
            b"{\"value\": \"\xed\xa0\x80\"}".to_vec(),
            b"{\"value\": 1e999999}".to_vec(),
        ] {
            connection.exchange(&Request::new(method, path).body(body)).is(400);
        }
        // Longer than any request may be.
        Request::new(method, path).body("[".repeat(100_000)).send(api.address).is(413);
    }
    api.heartbeat("web1", &current).is(200);
    assert_eq!(api.events(), ["service.join web1"]);
}
