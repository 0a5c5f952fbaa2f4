//! `raxsr serve --chaos`: what goes wrong on purpose does, nothing else does, and wrappers get over it.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::Instant;

use super::operations::Metrics;
use super::{ACCOUNTS, Api, is_well, log_in, login, service};
use crate::support::server::{Connection, Request, Response, Server};
use crate::support::{Place, Running, holds_for, wait_for, wait_until};

fn chaotic(spec: &str) -> (Server, Api) {
    let server = Server::start(Place::new(), &["--chaos", spec]);
    let api = Api::new(&server, "/v1.0");
    (server, api)
}

/// How often this went wrong on purpose, by the server's own count.
fn count(server: &Server, kind: &str) -> u64 {
    Metrics::of(server).count("chaos_total", &[&format!("kind=\"{kind}\"")])
}

/// The answer, unless the connection is closed without one.
fn ask(api: &Api, request: &Request) -> Option<Response> {
    match Connection::open(api.address).try_exchange(request) {
        Ok(response) => Some(response),
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                "no end, but {error}"
            );
            None
        }
    }
}

/// The ids of the services, from the first answer that is one.
#[track_caller]
fn listed(api: &Api) -> Vec<String> {
    let list = || ask(api, &api.request("GET", "/services")).filter(|response| response.status == 200);
    super::ids(&wait_for("an answer", list).json())
}

/// What happened to services, likewise.
#[track_caller]
fn happened(api: &Api) -> Vec<String> {
    let list =
        || ask(api, &api.request("GET", "/events?limit=1000")).filter(|response| response.status == 200);
    let list = wait_for("an answer", list).json();
    list["values"].as_array().unwrap().iter().map(super::event).collect()
}

#[test]
fn a_failure_has_the_form_of_its_status_and_says_that_it_is_on_purpose() {
    for (status, kind) in [
        (400, "badRequest"),
        (401, "unauthorizedError"),
        (404, "notFoundError"),
        (429, "rateLimitReached"),
        (500, "internalError"),
        (502, "internalError"),
        (503, "systemFailureError"),
    ] {
        let (_server, api) = chaotic(&format!("fail={status}"));
        let answer = api.post("/services", &service("web1", 30));
        answer.fault(status, kind).message("Failed on purpose").says(&format!("--chaos fail={status}"));
        assert_eq!(answer.header("x-chaos"), Some("fail"));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
}

#[test]
fn the_api_alone_is_concerned() {
    let (server, api) = chaotic("fail");
    for path in ["/v1.0", "/v1.0/7777/services", "/v1.0/nothing", "/http_sd", "/v2.0/tokens"] {
        let answer = Api::new(&server, "").get(path).is(503);
        assert_eq!(answer.header("x-chaos"), Some("fail"), "{path}");
    }
    log_in(&server, "alice", "alice-key").is(503);
    for (path, status) in
        [("/", 200), ("/health", 200), ("/metrics", 200), ("/v1.0x", 404), ("/nothing", 404)]
    {
        let answer = Api::new(&server, "").get(path).is(status);
        assert_eq!(answer.header("x-chaos"), None, "{path}");
    }
    api.get("/services").is(503);
    assert_eq!(count(&server, "fail"), 7);
    let warning = "answers are made to fail on purpose chaos=fail=503";
    assert_eq!(server.log().matches(warning).count(), 1, "{}", server.log());
    assert_eq!(server.log().lines().count(), 2, "no line for a request: {}", server.log());
}

#[test]
fn without_it_nothing_of_it_shows() {
    let (server, api) = super::open();
    assert_eq!(api.get("/services").is(200).header("x-chaos"), None);
    assert!(Metrics::of(&server).samples("chaos_total", &[]).is_empty());
    assert!(!server.log().contains("chaos"));
}

#[test]
fn a_seed_brings_the_same_troubles_again_and_what_failed_was_not_done() {
    let run = |spec: &str| {
        let (server, api) = chaotic(spec);
        let register = |number: usize| {
            let status = api.post("/services", &service(&format!("web{number:02}"), 120)).status;
            assert!(matches!(status, 201 | 503), "{status}");
            status == 201
        };
        let done: Vec<bool> = (0..40).map(register).collect();
        let expected: Vec<String> =
            (0..40).filter(|&number| done[number]).map(|number| format!("web{number:02}")).collect();
        assert_eq!(count(&server, "fail"), 40 - u64::try_from(expected.len()).unwrap());
        assert_eq!(listed(&api), expected);
        done
    };
    let first = run("fail:50%,seed=1");
    assert!((8..=32).contains(&first.iter().filter(|&&done| done).count()), "{first:?}");
    assert_eq!(run("fail:50%,seed=1"), first);
    // Another trouble on the way takes nothing from it.
    assert_eq!(run("fail:50%,hang:50%@1h,seed=1"), first);
    assert_ne!(run("fail:50%,seed=2"), first);
}

#[test]
fn without_a_seed_the_log_tells_the_one_that_was_drawn() {
    let (server, api) = chaotic("fail:50%");
    let statuses = |api: &Api| -> Vec<u16> { (0..40).map(|_| api.get("/services").status).collect() };
    let first = statuses(&api);
    let log = server.log();
    let seed = log.lines().find_map(|line| line.split_once(" seed=")).unwrap().1;
    let (_again, api) = chaotic(&format!("fail:50%,seed={seed}"));
    assert_eq!(statuses(&api), first);
}

#[test]
fn what_is_delayed_is_done_later() {
    let (server, api) = chaotic("delay=200ms..300ms,delay=100ms,fail=500:50%,seed=1");
    let statuses = (0..6).map(|_| {
        let start = Instant::now();
        let answer = api.get("/services").has_one_of(&[200, 500]);
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        let told = if answer.status == 200 { "delay, delay" } else { "delay, delay, fail" };
        assert_eq!(answer.header("x-chaos"), Some(told));
        answer.status
    });
    assert_eq!(statuses.collect::<std::collections::BTreeSet<_>>().len(), 2, "some fail, some do not");
    assert_eq!(count(&server, "delay"), 12);
}

#[test]
fn whoever_is_left_hanging_and_goes_leaves_nothing_behind() {
    let (server, api) = chaotic("hang");
    let whole = api.request("POST", "/services").json(&service("web1", 30)).bytes(api.address);
    let half = &whole[..whole.len() - 5];
    let connections: Vec<_> = (0..40)
        .map(|number| {
            let mut connection = server.connect();
            connection.send(if number % 2 == 0 { &whole } else { half }).unwrap();
            connection
        })
        .collect();
    wait_until("all to hang", || count(&server, "hang") == 40);
    let open = || Metrics::of(&server).count("connections", &[]);
    holds_for(Duration::from_millis(500), "hanging", || open() >= 41);
    drop(connections);
    wait_until("all to be gone", || open() == 1);
    is_well(&server);
}

#[test]
fn a_server_whose_requests_hang_ends_at_once() {
    let (mut server, api) = chaotic("hang:50%,delay=1h,seed=1");
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&api.request("GET", "/services").bytes(api.address)).unwrap();
    }
    wait_until("all to wait", || count(&server, "hang") + count(&server, "delay") == 8);
    server.signal(Signal::SIGTERM);
    let answers = connections.iter_mut().filter_map(|connection| connection.receive("GET").ok());
    let answered = answers.filter(|answer| answer.status == 200).count();
    assert!((1..8).contains(&answered), "{answered}: those that were only late are answered");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.log().contains("did not finish in time"), "{}", server.log());
}

#[test]
fn a_trouble_that_has_its_time_begins_and_ends_and_says_so() {
    let (server, api) = chaotic("hang@1s+1s/2s");
    let request = api.request("GET", "/services");
    for _ in 0..2 {
        wait_until("an answer", || ask(&api, &request).is_some_and(|answer| answer.status == 200));
        // Closed at the end of its time.
        wait_until("none", || ask(&api, &request).is_none());
    }
    let told = |text: &str| server.log().matches(text).count();
    wait_until("two ends", || told("the trouble on purpose is over chaos=hang@1s+1s/2s") >= 2);
    let (begun, over) =
        (told("the trouble on purpose begins chaos=hang@1s+1s/2s"), told("the trouble on purpose is over"));
    assert!(begun >= over, "{}", server.log());
}

#[test]
fn what_is_lost_was_done() {
    let (server, api) = chaotic("lose:50%,seed=1");
    let mut expected = Vec::new();
    let lost = (0..20).filter(|number| {
        let id = format!("web{number:02}");
        let answer = ask(&api, &api.request("POST", "/services").json(&service(&id, 120)));
        expected.push(id);
        answer.map(|answer| answer.is(201)).is_none()
    });
    let lost = lost.count();
    assert!((2..=18).contains(&lost), "{lost}");
    assert_eq!(count(&server, "lose"), u64::try_from(lost).unwrap());
    assert_eq!(listed(&api), expected);
}

#[test]
fn a_heartbeat_of_a_forgotten_service_is_unknown() {
    let (server, api) = chaotic("forget");
    let (token, _) = (api.create("web1", 120), api.create("web2", 120));
    assert_eq!(api.get("/services").is(200).header("x-chaos"), None);
    let answer = api.heartbeat("web1", &token);
    answer.fault(404, "notFoundError").says("Object \"Service\" with key \"web1\" does not exist");
    assert_eq!(answer.header("x-chaos"), Some("forget"));
    // No such service, no such page.
    api.heartbeat("web1", &token).fault(404, "notFoundError");
    api.get("/services/web2/heartbeat").is(404);
    assert_eq!(api.ids("/services"), ["web2"]);
    assert_eq!(api.events(), ["service.join web1", "service.join web2", "service.remove web1"]);
    assert_eq!(count(&server, "forget"), 1);
}

#[test]
fn only_who_may_take_a_service_out_has_it_forgotten() {
    let server = Server::with_accounts(ACCOUNTS, &["--chaos", "forget"]);
    let alice = login(&server, "alice");
    let token = alice.create("web1", 120);
    Api::new(&server, "/v1.0/7777").heartbeat("web1", &token).is(401);
    let bob = log_in(&server, "bob", "bob-key").is(200).json();
    let bob = bob["access"]["token"]["id"].as_str().unwrap();
    Api::new(&server, "/v1.0/8888").with("X-Auth-Token", bob).heartbeat("web1", &token).is(404);
    assert_eq!(alice.ids("/services"), ["web1"]);
    assert_eq!(count(&server, "forget"), 0);
}

#[test]
fn at_a_moment_every_tenant_is_forgotten() {
    let server = Server::with_accounts(ACCOUNTS, &["--chaos", "forget@2s/2s"]);
    let alice = login(&server, "alice");
    let bob = log_in(&server, "bob", "bob-key").is(200).json();
    let bob =
        Api::new(&server, "/v1.0/8888").with("X-Auth-Token", bob["access"]["token"]["id"].as_str().unwrap());
    for api in [&alice, &bob] {
        api.create("web1", 120);
        api.create("web2", 120);
    }
    for api in [&alice, &bob] {
        wait_until("oblivion", || api.ids("/services").is_empty());
        let mut events = api.events();
        events.sort_unstable();
        let each = |kind: &str| ["web1", "web2"].map(|id| format!("service.{kind} {id}"));
        assert_eq!(events, [each("join"), each("remove")].concat());
    }
    assert_eq!(count(&server, "forget"), 4);
    wait_until("a line", || server.log().contains("services are forgotten on purpose chaos=forget@2s/2s"));
}

/// A wrapper of a command that lives for long.
struct Wrapped {
    process: Running,
    child: Pid,
}

impl Wrapped {
    fn start(server: &Server) -> Self {
        let registry = format!("--registry={}/v1.0", server.url());
        let log = server.place.path().join("wrapper.log");
        let wrapper = server.place.wrapper(&["--id=web1", "--interval=3", &registry]);
        let process = wrapper.start_with_log(&log, &["sleep", "600"]);
        let child = process.child();
        Self { process, child }
    }

    /// Stopped, its command ends by the signal, whatever the server does.
    #[track_caller]
    fn stop(mut self) {
        assert_eq!(self.process.child(), self.child, "the command did not notice");
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().signal(), Some(Signal::SIGTERM as i32));
    }
}

fn accepted(server: &Server) -> u64 {
    Metrics::of(server).count("heartbeats_total", &["outcome=\"accepted\""])
}

#[test]
fn a_wrapper_lives_with_a_server_that_fails_loses_and_is_slow() {
    let (server, api) = chaotic("fail:30%,lose:20%,delay=1s:30%");
    let wrapped = Wrapped::start(&server);
    wait_until("the registration", || listed(&api) == ["web1"]);
    wait_until("heartbeats", || accepted(&server) >= 6);
    wait_until("being listed", || listed(&api) == ["web1"]);
    wrapped.stop();
}

#[test]
fn a_wrapper_outlasts_hanging_and_is_listed_again() {
    // For longer than its timeout, and for longer than one attempt lasts.
    let (server, api) = chaotic("hang@3s+6s/20s");
    let wrapped = Wrapped::start(&server);
    wait_until("hanging", || count(&server, "hang") > 0);
    let before = accepted(&server);
    wait_until("heartbeats", || accepted(&server) >= before + 2);
    wait_until("being listed", || listed(&api) == ["web1"]);
    wrapped.stop();
}

#[test]
fn a_wrapper_that_is_forgotten_is_listed_again() {
    let (server, api) = chaotic("forget@4s/8s,forget:20%");
    let wrapped = Wrapped::start(&server);
    let happened = |what: &str| happened(&api).iter().filter(|event| *event == what).count();
    wait_until("two returns", || happened("service.remove web1") >= 2 && happened("service.join web1") >= 3);
    wait_until("being listed", || listed(&api) == ["web1"]);
    wrapped.stop();
}

#[test]
fn a_stop_waits_for_no_server_that_hangs() {
    let (server, _) = chaotic("hang");
    let wrapped = Wrapped::start(&server);
    wait_until("an attempt", || count(&server, "hang") > 0);
    wrapped.stop();
    let (server, api) = chaotic("fail=404");
    let wrapped = Wrapped::start(&server);
    wait_until("an attempt", || count(&server, "fail") > 0);
    wrapped.stop();
    api.post("/services", &json!({})).is(404);
}
