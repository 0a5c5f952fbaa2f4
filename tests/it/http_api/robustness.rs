//! Clients that are slow, many, wrong or hostile, and the end of a server at the worst time.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{ACCOUNTS, Api, at_once, is_well, login, open, service};
use crate::support::server::{Connection, Request, Server};
use crate::support::{Place, wait_until};

/// Asserts that the server refuses these bytes or just closes, and goes on.
#[track_caller]
fn is_refused(server: &Server, bytes: &[u8]) {
    let mut connection = server.connect();
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    // It may have seen enough before all is sent.
    let _ = connection.send(bytes);
    match connection.receive("GET") {
        Ok(response) => assert!((400..500).contains(&response.status), "{start:?}: {response:?}"),
        Err(error) => {
            let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(closed.contains(&error.kind()), "{start:?}: {error}");
        }
    }
    is_well(server);
}

#[test]
fn who_never_finishes_a_request_holds_up_nobody_neither_the_others_nor_the_end() {
    let (mut server, api) = open();
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send(b"GET /v1.0/services HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    }
    let mut bodiless = server.connect();
    let head = "POST /v1.0/services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    bodiless.send(head.as_bytes()).unwrap();
    for number in 0..20 {
        api.create(&format!("web{number}"), 120);
        for connection in &mut slow {
            connection.send(b"x").unwrap();
        }
    }
    // A body is not waited for without end.
    let text = String::from_utf8(bodiless.rest()).unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    assert_eq!(api.ids("/services").len(), 20);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(slow.iter_mut().all(|connection| !connection.rest().starts_with(b"HTTP/1.1 2")));
}

#[test]
fn who_has_said_all_it_wanted_still_hears_the_answer() {
    let (server, api) = open();
    let mut connection = server.connect();
    connection.send(&api.request("GET", "/services").bytes(server.address())).unwrap();
    connection.finish();
    connection.receive("GET").unwrap().is(200);
    assert!(connection.rest().is_empty());
}

#[test]
fn who_is_gone_is_forgotten() {
    let (server, api) = open();
    let body = service("web1", 120).to_string();
    let cut =
        api.request("POST", "/services").header("Content-Length", &body.len().to_string()).bytes(api.address);
    for bytes in [&b""[..], b"GET /v1.0", &cut, &[&cut, &body.as_bytes()[1..]].concat()] {
        server.connect().send(bytes).unwrap();
    }
    // Asked, but never listened to.
    for _ in 0..50 {
        server.connect().send(&api.request("GET", "/events").bytes(api.address)).unwrap();
    }
    let mut operator = server.connect();
    let metrics = Request::new("GET", "/metrics");
    wait_until("the end of the others' connections", || {
        operator.exchange(&metrics).has_one_of(&[200]).text().contains("_connections 1\n")
    });
    // What did not come whole did not happen.
    assert!(api.ids("/services").is_empty());
}

#[test]
fn idle_connections_leave_room_for_others() {
    let (server, api) = open();
    let idle: Vec<Connection> = (0..300)
        .map(|_| {
            let mut connection = server.connect();
            connection.exchange(&api.request("GET", "/limits")).is(200);
            connection
        })
        .collect();
    at_once(10, |number| api.create(&format!("web{number}"), 120));
    assert_eq!(api.ids("/services").len(), 10);
    drop(idle);
    is_well(&server);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (server, api) = open();
    let mut connection = server.connect();
    let mut bytes = Vec::new();
    for number in 0..10 {
        let id = format!("web{number}");
        bytes.extend(api.request("POST", "/services").json(&service(&id, 120)).bytes(api.address));
        bytes.extend(api.request("GET", &format!("/services/{id}")).bytes(api.address));
        bytes.extend(api.request("GET", &format!("/none{number}")).bytes(api.address));
    }
    connection.send(&bytes).unwrap();
    for number in 0..10 {
        connection.receive("POST").unwrap().is(201);
        assert_eq!(connection.receive("GET").unwrap().is(200).json()["id"], format!("web{number}"));
        let fault = connection.receive("GET").unwrap().fault(404, "notFoundError");
        assert_eq!(fault.details["requested_path"], format!("/v1.0/7777/none{number}"));
    }
}

#[test]
fn what_is_too_large_or_is_not_http_is_refused() {
    let server = Server::open();
    let get = "GET /v1.0/services HTTP/1.1\r\nHost: x\r\n";
    let post = "POST /v1.0/services HTTP/1.1\r\nHost: x\r\n";
    let body = service("web1", 120).to_string();
    let length = body.len();
    let many = "X-Many: x\r\n".repeat(500);
    for request in [
        format!("{get}X-Large: {}\r\n\r\n", "x".repeat(1_000_000)),
        format!("{get}{many}\r\n"),
        format!("GET /v1.0/services/{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1_000_000)),
        format!("GET /v1.0/services?tag={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(10_000)),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /v1.0/services HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
        "GET /v1.0/ser vices HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("{get}No colon\r\n\r\n"),
        format!("{get}X-Nul: \0\r\n\r\n"),
        format!("{post}Content-Length: -1\r\n\r\n{body}"),
        format!("{post}Content-Length: x\r\n\r\n{body}"),
        format!("{post}Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{body}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nnonsense\r\n{body}\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: nonsense\r\n\r\n{body}"),
    ] {
        is_refused(&server, request.as_bytes());
    }
    assert!(Api::new(&server, "/v1.0").ids("/services").is_empty());
}

#[test]
fn no_way_to_write_a_path_leads_past_the_login_or_out_of_the_tenant() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    bob.create("bobs", 120);
    let absolute = format!("{}/v1.0/8888/services", server.url());
    for path in [
        "/v1.0/../v1.0/8888/services",
        "/v1.0/7777/../8888/services",
        "/v1.0/%2e%2e/v1.0/8888/services",
        "/v1.0/7777/%2e%2e/8888/services",
        "/v1.0/7777/..%2f8888/services",
        "/health/../v1.0/8888/services",
        "//v1.0/8888/services",
        "/v1.0//8888/services",
        "/v1.0/8888//services",
        "/v1.0%2f8888/services",
        "/V1.0/8888/services",
        "/./v1.0/8888/services",
        "/v1.0/7777/services/../../8888/services/bobs",
        "/v1.0/8888/services;x",
        "/v1.0/8888/services%00",
        "/v1.0/8888/services%3f",
        "/v1.0/7777%00/8888/services",
        "/v1.0/8888/services/%2e%2e",
        "/v1.0/8888/configuration/%2e%2e%2f%2e%2e%2fkey",
        &absolute,
    ] {
        let headers = alice.headers.iter();
        let request =
            headers.fold(Request::new("GET", path), |request, (name, value)| request.header(name, value));
        for request in [Request::new("GET", path), request] {
            let response = request.send(server.address());
            assert!((400..500).contains(&response.status), "{path}: {response:?}");
            assert!(!response.text().contains("bobs\",\"tags"), "{path}: {response:?}");
        }
    }
    for path in [
        "/services/%00",
        "/services/web%00",
        "/services/..",
        "/services/..%2fhealth",
        "/configuration/..%2fkey",
    ] {
        let response = alice.get(path);
        assert!((400..500).contains(&response.status), "{path}: {response:?}");
    }
    assert!(alice.ids("/services").is_empty());
}

#[test]
fn a_body_may_come_in_pieces_or_be_asked_for() {
    let (server, api) = open();
    let mut connection = server.connect();
    let chunked = api.request("POST", "/services").header("Transfer-Encoding", "chunked").bytes(api.address);
    connection.send(&chunked).unwrap();
    for byte in service("web1", 120).to_string().chars() {
        connection.send(format!("1\r\n{byte}\r\n").as_bytes()).unwrap();
    }
    connection.send(b"0\r\n\r\n").unwrap();
    connection.receive("POST").unwrap().is(201);

    let expecting = |body: &str| {
        let request = api.request("POST", "/services").header("Expect", "100-continue");
        request.header("Content-Length", &body.len().to_string()).bytes(api.address)
    };
    let body = service("web2", 120).to_string();
    connection.send(&expecting(&body)).unwrap();
    connection.receive("POST").unwrap().is(100);
    connection.send(body.as_bytes()).unwrap();
    connection.receive("POST").unwrap().is(201);
    // The old protocol, which has no Host and closes.
    connection = server.connect();
    connection.send(b"GET /v1.0/services HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(super::ids(&connection.receive("GET").unwrap().is(200).json()), ["web1", "web2"]);
    assert!(connection.rest().is_empty());
}

#[test]
fn what_was_acknowledged_outlives_a_kill_under_load() {
    const WRITERS: usize = 4;
    let place = Place::new();
    let mut server =
        Server::start(place, &["--max-services", "10000", "--max-configuration-values", "10000"]);
    let api = Api::new(&server, "/v1.0/7777");
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let count = AtomicUsize::new(0);
        let address = api.address;
        let ids = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                wait_until("some work", || count.load(Ordering::SeqCst) >= 40);
                server.kill();
            });
            let ids = at_once(WRITERS, |writer| {
                let mut connection = Connection::open(address);
                let mut ids = Vec::new();
                // At most as many that all of them fit on a page.
                for number in 0..80 {
                    let id = format!("web-{round}-{writer}-{number}");
                    let create = api.request("POST", "/services").json(&service(&id, 120));
                    let Ok(response) = connection.try_exchange(&create) else { break };
                    response.is(201);
                    let path = format!("/configuration//prod/{id}");
                    let set = api.request("PUT", &path).json(&json!({"value": id}));
                    let Ok(response) = connection.try_exchange(&set) else { break };
                    response.is(204);
                    ids.push(id);
                    count.fetch_add(1, Ordering::SeqCst);
                }
                ids
            });
            killer.join().unwrap();
            ids
        });
        acknowledged.extend(ids.into_iter().flatten());
        server.restart();
        let list = |path: &str| api.ids(&format!("{path}limit=1000")).into_iter().collect::<BTreeSet<_>>();
        assert!(list("/services?").is_superset(&acknowledged));
        let values = acknowledged.iter().map(|id| format!("/prod/{id}")).collect();
        assert!(list("/configuration/prod/?").is_superset(&values));
        for (kind, key) in [("service.join", "id"), ("configuration_value.update", "new_value")] {
            let events = api.get(&format!("/events?type={kind}&limit=1000")).is(200).json();
            let mut subjects: Vec<_> = events["values"].as_array().unwrap().iter().collect();
            subjects.retain(|event| acknowledged.contains(event["payload"][key].as_str().unwrap()));
            assert_eq!(subjects.len(), acknowledged.len(), "{kind}, each once");
        }
    }
}
