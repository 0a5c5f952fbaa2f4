//! Running a server: what it tells of itself, how it ends, and how it takes new files.

use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::startup::make_certificate;
use super::{ACCOUNTS, Api, log_in, login, open, service, token};
use crate::support::server::{Connection, Request, Server, write_accounts};
use crate::support::{Place, is_there, wait_for, wait_until};

/// What the server tells Prometheus about itself.
pub(super) struct Metrics {
    text: String,
}

impl Metrics {
    #[track_caller]
    pub(super) fn of(server: &Server) -> Self {
        let answer = Api::new(server, "").get("/metrics").is(200);
        assert!(
            answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1")
        );
        assert!(answer.text().ends_with("\n# EOF\n"), "{}", answer.text());
        Self { text: answer.text() }
    }

    /// The samples of this name that have all of these labels, in order: the labels and the value.
    pub(super) fn samples(&self, name: &str, labels: &[&str]) -> Vec<(&str, u64)> {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix("service_registry_")?.strip_prefix(name)?;
            let given = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
            let is_whole = rest.is_empty() || rest.starts_with('{');
            let has = |label: &&str| given.split(',').any(|given| given == *label);
            (is_whole && labels.iter().all(has)).then(|| (given, value.parse().unwrap()))
        });
        samples.collect()
    }

    /// How many services each tenant has.
    fn tenants(&self) -> Vec<(&str, u64)> {
        let mut tenants = self.samples("services", &[]);
        tenants.sort_unstable();
        tenants
    }

    /// Their sum.
    pub(super) fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.samples(name, labels).iter().map(|(_, value)| value).sum()
    }
}

#[test]
fn what_was_asked_is_counted() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    log_in(&server, "alice", "wrong-key").is(401);
    let mut current = alice.create("web1", 120);
    for id in ["web2", "web3"] {
        alice.create(id, 120);
    }
    bob.create("web1", 120);
    for _ in 0..3 {
        current = token(&alice.heartbeat("web1", &current).is(200));
    }
    bob.heartbeat("web1", &current).is(404);
    bob.heartbeat("web1", "nonsense").is(400);
    alice.delete("/services/web3").is(204);
    alice.get("/services").is(200);
    alice.get("/services/none").is(404);
    alice.set("key", "v");
    alice.get("/events").is(200);
    alice.request("INVENTED", "/services").send(alice.address).is(404);
    let metrics = Metrics::of(&server);
    for (resource, method, status, count) in [
        ("heartbeats", "POST", 200, 3),
        ("heartbeats", "POST", 404, 1),
        ("heartbeats", "POST", 400, 1),
        ("services", "POST", 201, 4),
        ("services", "GET", 200, 1),
        ("services", "GET", 404, 1),
        ("services", "DELETE", 204, 1),
        ("services", "other", 404, 1),
        ("configuration", "PUT", 204, 1),
        ("events", "GET", 200, 1),
        ("tokens", "POST", 200, 2),
        ("tokens", "POST", 401, 1),
    ] {
        let labels = [("resource", resource), ("method", method), ("status", &status.to_string())]
            .map(|(name, value)| format!("{name}=\"{value}\""));
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(metrics.count("requests_total", &labels), count, "{labels:?}: {}", metrics.text);
    }
    for (name, accepted, refused) in [("heartbeats_total", 3, 2), ("logins_total", 2, 1)] {
        assert_eq!(metrics.count(name, &["outcome=\"accepted\""]), accepted, "{}", metrics.text);
        assert_eq!(metrics.count(name, &["outcome=\"refused\""]), refused, "{}", metrics.text);
    }
    assert_eq!(metrics.tenants(), [("tenant=\"7777\"", 2), ("tenant=\"8888\"", 1)]);
    assert_eq!(metrics.count("timeouts_total", &[]), 0);
    for secret in ["alice", "bob", &current, "web1"] {
        assert!(!metrics.text.contains(secret), "{}", metrics.text);
    }
}

#[test]
fn how_long_answers_took_is_a_histogram() {
    let (server, api) = open();
    let mut current = api.create("web1", 120);
    for _ in 0..5 {
        current = token(&api.heartbeat("web1", &current).is(200));
    }
    let metrics = Metrics::of(&server);
    for (resource, count) in [("resource=\"heartbeats\"", 5), ("resource=\"services\"", 1)] {
        let buckets = metrics.samples("request_duration_seconds_bucket", &[resource]);
        let bounds: Vec<f64> = buckets
            .iter()
            .map(|(labels, _)| {
                let bound =
                    labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'));
                bound.unwrap().parse().unwrap()
            })
            .collect();
        assert!(bounds.len() > 5 && bounds.is_sorted(), "{bounds:?}");
        assert!(bounds[0] > 0.0 && bounds.last().unwrap().is_infinite(), "{bounds:?}");
        assert!(buckets.iter().map(|(_, count)| count).is_sorted(), "{buckets:?}");
        assert_eq!(buckets.last().unwrap().1, count);
        assert_eq!(metrics.count("request_duration_seconds_count", &[resource]), count);
    }
}

#[test]
fn who_lives_who_died_and_who_is_connected_is_counted() {
    let (mut server, api) = open();
    api.create("web1", 120);
    api.create("dead", 3);
    assert_eq!(Metrics::of(&server).samples("services", &[]), [("tenant=\"0\"", 2)]);
    // Nobody asks for it.
    let metrics = wait_for("the timeout", || {
        Some(Metrics::of(&server)).filter(|metrics| metrics.count("timeouts_total", &[]) > 0)
    });
    assert_eq!(metrics.samples("timeouts_total", &[]), [("tenant=\"0\"", 1)]);
    assert_eq!(metrics.samples("services", &[]), [("tenant=\"0\"", 1)]);
    let connections = || Metrics::of(&server).count("connections", &[]);
    let open: Vec<Connection> = (0..7).map(|_| server.connect()).collect();
    wait_until("seven connections and that of the question", || connections() == 8);
    drop(open);
    wait_until("their end", || connections() == 1);
    server.kill();
    server.restart();
    assert_eq!(Metrics::of(&server).samples("services", &[]), [("tenant=\"0\"", 1)]);
}

#[track_caller]
fn register(api: &Api, id: &str, tags: &[&str], metadata: &Value) {
    let body = json!({"id": id, "heartbeat_timeout": 120, "tags": tags, "metadata": metadata});
    api.post("/services", &body).is(201);
}

#[test]
fn prometheus_is_told_where_to_scrape() {
    let (server, api) = open();
    let everything = json!({"address": "10.0.0.1", "host": "10.0.0.2", "hostname": "c", "ip": "10.0.0.4",
                            "port": "80", "metrics_port": "9100"});
    register(&api, "all-of-it", &["blue", "a b"], &everything);
    register(&api, "host-first", &[], &json!({"ip": "10.0.0.4", "hostname": "c", "host": "b", "port": "80"}));
    register(&api, "hostname-next", &[], &json!({"ip": "10.0.0.4", "hostname": "c", "port": "80"}));
    register(&api, "ip-last", &["blue"], &json!({"ip": "10.0.0.4", "metrics_port": "9100"}));
    register(&api, "ip-v6", &["bluegreen"], &json!({"address": "2001:db8::1", "port": "80"}));
    let labelled =
        json!({"host": "d", "port": "1", "metrics_path": "/m", "metrics_scheme": "https", "a-b.c": "x"});
    register(&api, "labelled", &[], &labelled);
    register(&api, "no-address", &["blue"], &json!({"port": "80"}));
    register(&api, "no-port", &["blue"], &json!({"address": "10.0.0.1"}));
    api.create("nothing", 120);
    let answer = Api::new(&server, "").get("/http_sd").is(200);
    assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{answer:?}");
    let groups = answer.json();
    let groups = groups.as_array().unwrap();
    let label = |group: &Value, name: &str| {
        group["labels"].get(name).map(|value| value.as_str().unwrap().to_owned()).unwrap_or_default()
    };
    let told: Vec<(String, &Value, String)> = groups
        .iter()
        .map(|group| {
            let id = label(group, "__meta_service_registry_id");
            (id, &group["targets"], label(group, "__meta_service_registry_tags"))
        })
        .collect();
    let expected = [
        ("all-of-it", json!(["10.0.0.1:9100"]), ",blue,a b,"),
        ("host-first", json!(["b:80"]), ","),
        ("hostname-next", json!(["c:80"]), ","),
        ("ip-last", json!(["10.0.0.4:9100"]), ",blue,"),
        ("ip-v6", json!(["[2001:db8::1]:80"]), ",bluegreen,"),
        ("labelled", json!(["d:1"]), ","),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(id, targets, tags)| ((*id).to_owned(), targets, (*tags).to_owned())).collect();
    assert_eq!(told, expected);
    assert_eq!(
        groups[5]["labels"],
        json!({
            "__meta_service_registry_id": "labelled",
            "__meta_service_registry_tags": ",",
            "__meta_service_registry_metadata_host": "d",
            "__meta_service_registry_metadata_port": "1",
            "__meta_service_registry_metadata_metrics_path": "/m",
            "__meta_service_registry_metadata_metrics_scheme": "https",
            "__meta_service_registry_metadata_a_b_c": "x",
            "__metrics_path__": "/m",
            "__scheme__": "https",
        })
    );
    for (query, count) in
        [("?tag=blue", 2), ("?tag=a%20b", 1), ("?tag=a+b", 1), ("?tag=none", 0), ("?x=y", 6)]
    {
        let groups = Api::new(&server, "").get(&format!("/http_sd{query}")).is(200).json();
        assert_eq!(groups.as_array().unwrap().len(), count, "{query}: {groups}");
    }
}

#[test]
fn prometheus_is_told_of_its_own_tenant_only() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    register(&alice, "hers", &[], &json!({"host": "alice", "port": "80"}));
    register(&bob, "his", &[], &json!({"host": "bob", "port": "80"}));
    let anybody = Api::new(&server, "");
    let bearer = |api: &Api| format!("Bearer {}", api.headers[0].1);
    for (authorization, target) in [
        ("Basic YWxpY2U6YWxpY2Uta2V5".to_owned(), "alice:80"),
        (bearer(&alice), "alice:80"),
        (bearer(&bob), "bob:80"),
    ] {
        let groups = anybody.with("Authorization", &authorization).get("/http_sd").is(200).json();
        assert_eq!((groups.as_array().unwrap().len(), &groups[0]["targets"][0]), (1, &json!(target)));
    }
    for api in [anybody.clone(), anybody.with("Authorization", "Basic YWxpY2U6Ym9iLWtleQ==")] {
        let answer = api.get("/http_sd");
        answer.fault(401, "unauthorizedError");
        assert!(answer.header("www-authenticate").is_some() && !answer.text().contains(":80"), "{answer:?}");
    }
}

#[test]
fn a_request_under_way_is_finished_before_the_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut server, api) = open();
        let mut idle = server.connect();
        idle.exchange(&api.request("GET", "/services")).is(200);
        let mut silent = server.connect();
        let mut busy = server.connect();
        let body = service("web1", 120).to_string();
        let head = api.request("POST", "/services").header("Expect", "100-continue");
        let head = head.header("Content-Length", &body.len().to_string());
        busy.send(&head.bytes(api.address)).unwrap();
        busy.receive("POST").unwrap().is(100);
        let (first, second) = body.split_at(body.len() / 2);
        busy.send(first.as_bytes()).unwrap();
        server.signal(signal);
        assert!(idle.rest().is_empty() && silent.rest().is_empty());
        wait_until("the end of listening", || Connection::try_open(api.address).is_err());
        assert!(!server.has_ended());
        busy.send(second.as_bytes()).unwrap();
        busy.receive("POST").unwrap().is(201);
        assert!(busy.rest().is_empty());
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        assert_eq!(server.place.services(), ["web1"]);
    }
}

#[test]
fn the_log_tells_every_request_and_no_secret() {
    for level in ["debug", "trace"] {
        let server = Server::with_accounts(ACCOUNTS, &["--log-level", level]);
        let alice = login(&server, "alice");
        let login_token = alice.headers[0].1.clone();
        log_in(&server, "alice", "wrong-key").is(401);
        let first = alice.create("web1", 120);
        let second = token(&alice.heartbeat("web1", &first).is(200));
        alice.heartbeat("web1", "bad-token").is(400);
        alice.set("key", "secret-value");
        let anybody = Api::new(&server, "/v1.0/7777");
        anybody.get(&format!("/services?x-auth-token={login_token}&tag=queried")).is(200);
        anybody.with("Authorization", "Basic YWxpY2U6YWxpY2Uta2V5").get("/events").is(200);
        anybody.with("Authorization", &format!("Bearer {login_token}")).get("/limits").is(200);
        anybody.with("X-Auth-Token", "bad-token").get("/services").is(401);
        let log = server.log();
        for (method, path, status) in [
            ("POST", "/v2.0/tokens", 200),
            ("POST", "/v2.0/tokens", 401),
            ("POST", "/v1.0/7777/services", 201),
            ("POST", "/v1.0/7777/services/web1/heartbeat", 200),
            ("POST", "/v1.0/7777/services/web1/heartbeat", 400),
            ("PUT", "/v1.0/7777/configuration/key", 204),
            ("GET", "/v1.0/7777/services", 200),
            ("GET", "/v1.0/7777/services", 401),
        ] {
            let line = format!("method={method} path=\"{path}\" status={status} ");
            assert!(log.contains(&line), "{line}: {log}");
        }
        for secret in [
            &*login_token,
            &first,
            &second,
            "alice-key",
            "wrong-key",
            "bad-token",
            "YWxpY2U6YWxpY2Uta2V5",
            "x-auth-token",
            "queried",
            "secret-value",
        ] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

/// Has a server read its files again, and waits until it has said this so many times.
#[track_caller]
fn reload(server: &Server, says: &str, times: usize) {
    server.signal(Signal::SIGHUP);
    wait_until(says, || server.log().matches(says).count() == times);
}

const RELOADED: &str = "read accounts and certificate again";
const STAYS: &str = "everything stays as it is";

#[test]
fn new_accounts_are_let_in_and_former_ones_locked_out_at_once() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    alice.create("web1", 120);
    let mut connection = server.connect();
    connection.exchange(&alice.request("GET", "/services")).is(200);
    log_in(&server, "carol", "carol-key").is(401);

    let carol = "[[account]]\nusername = \"carol\"\napi_key = \"carol-key\"\ntenant = \"9999\"\n";
    write_accounts(&server.place, &format!("{ACCOUNTS}{carol}"), 0o600);
    reload(&server, RELOADED, 1);
    let carol_api = login(&server, "carol");
    carol_api.create("hers", 120);
    // Whoever is still there has noticed nothing.
    assert_eq!(alice.ids("/services"), ["web1"]);
    let tenants = [("tenant=\"7777\"", 1), ("tenant=\"8888\"", 0), ("tenant=\"9999\"", 1)];
    assert_eq!(Metrics::of(&server).tenants(), tenants);

    let (_, bobs) = ACCOUNTS.rsplit_once("[[account]]").unwrap();
    write_accounts(&server.place, &format!("[[account]]{bobs}{carol}"), 0o600);
    reload(&server, RELOADED, 2);
    connection.exchange(&alice.request("GET", "/services")).fault(401, "unauthorizedError");
    alice.get("/services/web1").is(401);
    log_in(&server, "alice", "alice-key").is(401);
    let basic = Api::new(&server, "/v1.0/7777").with("Authorization", "Basic YWxpY2U6YWxpY2Uta2V5");
    basic.get("/services").is(401);
    bob.create("web1", 120);
    assert_eq!(carol_api.ids("/services"), ["hers"]);
    assert_eq!(Metrics::of(&server).tenants(), [("tenant=\"8888\"", 1), ("tenant=\"9999\"", 1)]);

    // Back again with the same key, she finds what is hers; with another, she has to log in again.
    write_accounts(&server.place, ACCOUNTS, 0o600);
    reload(&server, RELOADED, 3);
    assert_eq!(alice.ids("/services"), ["web1"]);
    carol_api.get("/services").is(401);
    write_accounts(&server.place, &ACCOUNTS.replace("alice-key", "another-key"), 0o600);
    reload(&server, RELOADED, 4);
    alice.get("/services").is(401);
}

#[test]
fn a_file_that_is_broken_leaves_everything_as_it_is() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let alice = login(&server, "alice");
    for (number, (text, mode, says)) in [
        ("[[account]]\nusername = \"carol\"\napi_key = carol-key\n", 0o600, ", line 3: "),
        ("", 0o600, "has no account"),
        (ACCOUNTS, 0o644, "(mode 644)"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = write_accounts(&server.place, text, mode);
        reload(&server, STAYS, number + 1);
        let log = server.log();
        let line = log.lines().rfind(|line| line.contains(STAYS)).unwrap();
        assert!(line.contains("ERROR") && line.contains(&file) && line.contains(says), "{line}");
        assert!(!log.contains("carol-key") && !log.contains("alice-key"), "{log}");
        alice.get("/services").is(200);
        log_in(&server, "alice", "alice-key").is(200);
    }
    write_accounts(&server.place, ACCOUNTS, 0o600);
    reload(&server, RELOADED, 1);
    alice.get("/services").is(200);
}

fn curl(server: &Server, authority: &Path, words: &[&str]) -> Output {
    let mut curl = server.place.program("curl");
    curl.args(["--silent", "--show-error", "--include", "--max-time", "60", "--cacert"]).arg(authority);
    curl.args(words).output().unwrap()
}

#[test]
fn over_tls_all_is_the_same_and_a_new_certificate_is_shown_after_a_reload() {
    let test = "over_tls_all_is_the_same_and_a_new_certificate_is_shown_after_a_reload";
    if !is_there("openssl", test) || !is_there("curl", test) {
        return;
    }
    let place = Place::new();
    make_certificate(place.path(), "first");
    make_certificate(place.path(), "second");
    let file = |name: &str| place.path().join(name);
    let (first, second) = (file("first.pem"), file("second.pem"));
    let (cert, key) = (file("shown.pem"), file("shown.key"));
    std::fs::copy(&first, &cert).unwrap();
    std::fs::copy(file("first.key"), &key).unwrap();
    let new_key = file("second.key");
    let accounts = write_accounts(&place, ACCOUNTS, 0o600);
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let options = ["--accounts", &accounts, "--tls-cert", &cert_text, "--tls-key", &key_text];
    let server = Server::start_at(place, "127.0.0.1:0", &options);
    assert!(server.url().starts_with("https://127.0.0.1:"), "{}", server.url());

    let services = format!("{}/v1.0/7777/services", server.url());
    let post = ["--user", "alice:alice-key", "--header", "Content-Type: application/json", "--data"];
    let output =
        curl(&server, &first, &[&post[..], &[&service("web1", 120).to_string(), &services]].concat());
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let location =
        answer.lines().find_map(|line| line.to_lowercase().strip_prefix("location: ").map(str::to_owned));
    assert_eq!(location.unwrap(), format!("{services}/web1"));
    let get = ["--user", "alice:alice-key", &services];
    let output = curl(&server, &first, &get);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"web1\""),
        "{output:?}"
    );
    assert!(!curl(&server, &second, &get).status.success(), "not the certificate that it shows");

    // Whoever does not speak TLS hears nothing of use, and holds up nobody.
    let mut plain = server.connect();
    plain.send(&Request::new("GET", "/health").bytes(server.address())).unwrap();
    assert!(!String::from_utf8_lossy(&plain.rest()).contains("HTTP/1.1 200"));
    let _silent = server.connect();

    std::fs::copy(&second, &cert).unwrap();
    reload(&server, STAYS, 1);
    assert!(curl(&server, &first, &get).status.success(), "a certificate without its key is not shown");
    std::fs::copy(new_key, &key).unwrap();
    reload(&server, RELOADED, 1);
    assert!(curl(&server, &second, &get).status.success(), "the new certificate");
    assert!(!curl(&server, &first, &get).status.success(), "the old one");
}
