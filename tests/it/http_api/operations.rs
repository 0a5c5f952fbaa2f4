//! The server as its operator meets it: how it starts and ends, what it refuses, what it shows.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{ACCOUNTS, Api, login, open, service, token};
use crate::support::server::{Connection, Request, Server, write_accounts};
use crate::support::{Place, is_there, wait_until};

/// Asserts that the server does not start, and says why in a line, and perhaps what to do in another.
#[track_caller]
fn is_refused(place: &Place, listen: &str, options: &[&str], expected: &str) -> String {
    let (status, text) = Server::refusal(place, listen, options);
    assert!([Some(1), Some(2)].contains(&status.code()), "{options:?}: {status}: {text}");
    assert!(text.starts_with("raxsr: ") && text.contains(expected), "{listen} {options:?}: {text}");
    let (message, hint) = text.split_once('\n').unwrap();
    assert!(!message.ends_with('.'), "{message}");
    assert!(hint.is_empty() || hint.starts_with("hint: ") && hint.matches('\n').count() == 1, "{text}");
    assert!(!text.contains("sesame"), "{text}");
    text
}

#[test]
fn mistakes_are_told_in_a_line_and_nothing_is_served() {
    let place = Place::new();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    is_refused(&place, &address, &[], &address);
    for listen in ["nonsense", "127.0.0.1", "127.0.0.1:99999", "nowhere:8000x"] {
        is_refused(&place, listen, &[], "--listen");
    }
    for options in [["--token-lifetime", "soon"], ["--max-services", "x"], ["--log-level", "loud"]] {
        is_refused(&place, "127.0.0.1:0", &options, options[0]);
    }
    is_refused(&place, "127.0.0.1:0", &["--accounts", "/no/such/file"], "/no/such/file");
    let file = place.path().join("not.pem");
    fs::write(&file, "nonsense").unwrap();
    let file = file.display().to_string();
    for options in [
        &["--tls-cert", &file][..],
        &["--tls-key", &file],
        &["--tls-cert", &file, "--tls-key", "/no/such/key"],
        &["--tls-cert", "/no/such/cert", "--tls-key", &file],
        &["--tls-cert", &file, "--tls-key", &file],
    ] {
        is_refused(&place, "127.0.0.1:0", options, "");
    }
}

#[test]
fn a_bad_accounts_file_is_refused_without_its_secrets() {
    let place = Place::new();
    let key = "api_key = \"sesame\"";
    for text in [
        "nonsense".to_owned(),
        format!("[[account]]\nusername = \"alice\"\n{key}\n"),
        format!("[[account]]\n{key}\ntenant = \"7777\"\n"),
        "[[account]]\nusername = \"alice\"\ntenant = \"7777\"\n".to_owned(),
        format!("[[account]]\nusername = \"alice\"\n{key}\ntenant = \"abc\"\n"),
        "[[account]]\nusername = \"alice\"\napi_key_sha256 = \"sesame\"\ntenant = \"7777\"\n".to_owned(),
        format!(
            "[[account]]\nusername = \"alice\"\n{key}\ntenant = \"7777\"\nlimits = {{ services = \"x\" }}\n"
        ),
        format!("[[account]]\nusername = \"alice\"\n{key}\ntenant = \"7777\"\n").repeat(2),
        format!("[[account]]\nusername = \"alice\"\n{key} sesame\ntenant = \"7777\"\n"),
    ] {
        let file = write_accounts(&place, &text, 0o600);
        is_refused(&place, "127.0.0.1:0", &["--accounts", &file], &file);
    }
}

#[test]
fn an_accounts_file_that_others_can_read_may_only_have_hashes() {
    for mode in [0o644, 0o640, 0o604] {
        let place = Place::new();
        let file = write_accounts(&place, ACCOUNTS, mode);
        let text = is_refused(&place, "127.0.0.1:0", &["--accounts", &file], &file);
        assert!(text.contains("hint: ") && text.contains("chmod 600"), "{text}");
    }
    let place = Place::new();
    let hashes = format!("[[account]]\n{}", ACCOUNTS.rsplit_once("[[account]]").unwrap().1);
    let file = write_accounts(&place, &hashes, 0o644);
    let server = Server::start(place, &["--accounts", &file]);
    login(&server, "bob").get("/services").is(200);
}

#[test]
fn a_public_address_needs_accounts_and_tls_or_to_be_told() {
    let place = Place::new();
    let file = write_accounts(&place, ACCOUNTS, 0o600);
    for options in [&[][..], &["--accounts", &file]] {
        for listen in ["0.0.0.0:0", "[::]:0"] {
            let (status, _) = Server::refusal(&place, listen, options);
            assert_eq!(status.code(), Some(2), "{listen} {options:?}");
            let text = is_refused(&place, listen, options, "");
            assert!(text.contains("hint: ") && text.contains("--insecure"), "{text}");
        }
    }
    let server = Server::start_at(place, "0.0.0.0:0", &["--insecure"]);
    Api::new(&server, "/v1.0").get("/services").is(200);
}

/// The sum of all samples whose name fits.
fn metric(text: &str, fits: impl Fn(&str) -> bool) -> f64 {
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let fitting = samples.filter(|line| fits(line.split(['{', ' ']).next().unwrap()));
    fitting.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[test]
fn health_and_metrics_tell_how_it_goes_and_timeouts_need_no_reader() {
    let (server, api) = open();
    let operator = Api::new(&server, "");
    assert_eq!(operator.get("/health").is(200).json(), json!({"status": "ok"}));
    let first = api.create("still-here", 120);
    let second = token(&api.heartbeat("still-here", &first).is(200));
    api.heartbeat("still-here", &second).is(200);
    api.create("dead", 3);
    let read = || operator.get("/metrics").is(200).text();
    let is_counter = |name: &str, of: &str| name.contains(of) && name.ends_with("_total");
    let services = |text: &str| metric(text, |name| name.contains("services") && !name.ends_with("_total"));
    let timeouts = |text: &str| metric(text, |name| is_counter(name, "timeout"));
    // Nobody but the metrics is read.
    wait_until("the timeout", || timeouts(&read()) >= 1.0);
    wait_until("one service less", || services(&read()).to_string() == "1");
    let text = read();
    assert_eq!(timeouts(&text).to_string(), "1", "{text}");
    assert_eq!(metric(&text, |name| is_counter(name, "heartbeat")).to_string(), "2", "{text}");
    assert!(metric(&text, |name| is_counter(name, "request")) >= 4.0, "{text}");
    assert!(metric(&text, |name| name.ends_with("_bucket")) >= 4.0 && text.contains("le=\"+Inf\""), "{text}");
    // Ids are the clients' to choose, and would be series without end.
    assert!(!text.contains("still-here"), "{text}");
    assert_eq!(api.ids("/services"), ["still-here"]);
}

#[test]
fn services_with_an_address_are_targets() {
    let (server, api) = open();
    for (id, tags, metadata) in [
        (
            "web1",
            json!(["a", "b"]),
            json!({"address": "10.0.0.1", "host": "lost", "port": "80", "my-key.x": "v"}),
        ),
        (
            "web2",
            json!(["a"]),
            json!({"host": "web2", "hostname": "lost", "port": "80", "metrics_port": "9100"}),
        ),
        ("web3", json!(["b"]), json!({"hostname": "web3", "ip": "10.0.0.3", "port": "80"})),
        (
            "web4",
            json!(["c"]),
            json!({"ip": "10.0.0.4", "port": "80", "metrics_path": "/m", "metrics_scheme": "https"}),
        ),
        ("web5", json!(["a"]), json!({"host": "no-port"})),
        ("web6", json!(["a"]), json!({"port": "80"})),
    ] {
        let body = json!({"id": id, "heartbeat_timeout": 120, "tags": tags, "metadata": metadata});
        api.post("/services", &body).is(201);
    }
    let operator = Api::new(&server, "");
    let groups = |query: &str| operator.get(&format!("/http_sd{query}")).is(200).json();
    let all = groups("");
    let targets: Vec<_> = all.as_array().unwrap().iter().map(|group| &group["targets"]).collect();
    assert_eq!(json!(targets), json!([["10.0.0.1:80"], ["web2:9100"], ["web3:80"], ["10.0.0.4:80"]]));
    let labels = |index: usize| &all[index]["labels"];
    assert_eq!(labels(0)["__meta_service_registry_id"], "web1");
    assert_eq!(labels(0)["__meta_service_registry_tags"], ",a,b,");
    assert_eq!(labels(0)["__meta_service_registry_metadata_my_key_x"], "v");
    assert_eq!(labels(1)["__meta_service_registry_tags"], ",a,");
    assert_eq!(labels(0).get("__metrics_path__"), None);
    assert_eq!((&labels(3)["__metrics_path__"], &labels(3)["__scheme__"]), (&json!("/m"), &json!("https")));
    assert_eq!(groups("?tag=b").as_array().unwrap().len(), 2);
    assert_eq!(groups("?tag=none"), json!([]));
    let content_type = operator.get("/http_sd").header("content-type").unwrap().to_owned();
    assert!(content_type.starts_with("application/json"), "{content_type}");
}

#[test]
fn targets_are_those_of_the_login() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let alice = login(&server, "alice");
    let body = json!({"id": "web1", "heartbeat_timeout": 120, "metadata": {"host": "web1", "port": "80"}});
    alice.post("/services", &body).is(201);
    let operator = Api::new(&server, "");
    operator.get("/http_sd").is(401);
    operator.with("Authorization", "Basic YWxpY2U6Ym9iLWtleQ==").get("/http_sd").is(401);
    let bearer = format!("Bearer {}", alice.headers[0].1);
    for (authorization, count) in
        [("Basic YWxpY2U6YWxpY2Uta2V5", 1), (&bearer, 1), ("Basic Ym9iOmJvYi1rZXk=", 0)]
    {
        let groups = operator.with("Authorization", authorization).get("/http_sd").is(200).json();
        assert_eq!(groups.as_array().unwrap().len(), count, "{authorization}");
    }
}

#[test]
fn a_stop_signal_lets_requests_finish_and_idle_clients_go() {
    let (mut server, api) = open();
    let mut idle = server.connect();
    idle.exchange(&api.request("GET", "/services")).is(200);
    let mut busy = server.connect();
    let body = service("web1", 120).to_string();
    let request = api.request("POST", "/services").header("Expect", "100-continue");
    busy.send(&request.header("Content-Length", &body.len().to_string()).bytes(api.address)).unwrap();
    // From now on the request is the server's.
    busy.receive("POST").unwrap().is(100);
    server.signal(Signal::SIGTERM);
    wait_until("the end of the listening", || Connection::try_open(api.address).is_err());
    assert!(!server.has_ended());
    busy.send(body.as_bytes()).unwrap();
    busy.receive("POST").unwrap().is(201);
    assert_eq!(server.wait().code(), Some(0));
    assert!(idle.rest().is_empty());
    server.restart();
    assert_eq!(api.ids("/services"), ["web1"]);
}

#[test]
fn the_log_of_requests_has_no_secrets() {
    let server = Server::with_accounts(ACCOUNTS, &["--log-level", "debug"]);
    let alice = login(&server, "alice");
    let login_token = alice.headers[0].1.clone();
    let anonymous = Api::new(&server, "/v1.0/7777");
    anonymous.get(&format!("/services?x-auth-token={login_token}")).is(200);
    anonymous.with("Authorization", &format!("Bearer {login_token}")).get("/events").is(200);
    anonymous.with("Authorization", "Basic YWxpY2U6YWxpY2Uta2V5").get("/limits").is(200);
    let first = alice.create("web1", 120);
    let second = token(&alice.heartbeat("web1", &first).is(200));
    alice.heartbeat("web1", &first).is(404);
    super::log_in(&server, "alice", "wrong-key").is(401);
    alice.set("/prod/key", "open-value");
    wait_until("the log", || server.log().contains("/v1.0/7777/services/web1/heartbeat"));
    let log = server.log();
    for secret in [&*login_token, &first, &second, "alice-key", "wrong-key", "YWxpY2U6YWxpY2Uta2V5"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn tls_serves_who_trusts_the_certificate() {
    let test = "tls_serves_who_trusts_the_certificate";
    if !is_there("openssl", test) || !is_there("curl", test) {
        return;
    }
    let place = Place::new();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", &key, "-out", &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let accounts = write_accounts(&place, ACCOUNTS, 0o600);
    // With accounts and TLS, a public address is no matter.
    let options = ["--tls-cert", &cert, "--tls-key", &key, "--accounts", &accounts];
    let server = Server::start_at(place, "0.0.0.0:0", &options);
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let url = format!("{}/v1.0/7777/services", server.url());
    let curl = |options: &[&str]| {
        let mut curl = Command::new("curl");
        // Of this machine's settings, none.
        curl.args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "60"]);
        curl.args(options).output().unwrap()
    };
    let basic = ["--cacert", &cert, "--user", "alice:alice-key"];
    let body = service("web1", 120).to_string();
    let created = curl(
        &[&basic[..], &["--include", "--data", &body, "--header", "Content-Type: application/json", &url]]
            .concat(),
    );
    let answer = String::from_utf8_lossy(&created.stdout).to_ascii_lowercase();
    assert!(created.status.success() && answer.contains(&format!("location: {url}/web1")), "{created:?}");
    let listed = curl(&[&basic[..], &[&url]].concat());
    assert_eq!(super::ids(&serde_json::from_slice(&listed.stdout).unwrap()), ["web1"]);
    // Nobody who does not trust it, and nobody without TLS.
    assert_eq!(curl(&[&url]).status.code(), Some(60));
    let mut plain = server.connect();
    plain.send(&Request::new("GET", "/v1.0/services").bytes(server.address())).unwrap();
    assert!(plain.receive("GET").map_or(true, |response| response.status >= 400));
    assert!(curl(&[&basic[..], &[&url]].concat()).status.success());
}
