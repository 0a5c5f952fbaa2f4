//! `raxsr events follow`: each event once, in order, whatever happens to the registry.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use service_registry_wrapper::model::{ConfigurationValue, EventKind, Limit, PageRequest};
use service_registry_wrapper::registry::{Access, EventQuery, Registry, connect};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::support::peer::{Asked, Peer, Reply, fault};
use crate::support::server::Server;
use crate::support::{Place, RAXSR, Running, says, wait_for, wait_until};

/// A registry in which things happen.
struct Log {
    runtime: Runtime,
    registry: Arc<dyn Registry>,
}

impl Log {
    fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, registry: connect(&url.parse().unwrap(), &Access::default()) }
    }

    /// Makes an event: the value of `key` becomes one that it never had.
    fn change(&self, key: &str) {
        let value = ConfigurationValue::new(key.parse().unwrap(), Uuid::new_v4().to_string()).unwrap();
        let set = || self.runtime.block_on(self.registry.configuration().unwrap().set(&value));
        // A connection to a server that was killed fails once. The same value again is no event.
        wait_until("the change", || set().is_ok());
    }

    fn remove(&self, key: &str) {
        let id = key.parse().unwrap();
        self.runtime.block_on(self.registry.configuration().unwrap().remove(&id)).unwrap();
    }

    /// The ids of all events, the oldest first.
    fn ids(&self, kind: Option<EventKind>) -> Vec<String> {
        let (mut ids, mut marker) = (Vec::new(), None);
        loop {
            let query = EventQuery { kind, page: PageRequest { marker, limit: Limit::MAX } };
            let page = self.runtime.block_on(self.registry.events().unwrap().events(&query)).unwrap();
            ids.extend(page.values.iter().map(|event| event.id.to_string()));
            marker = page.next_marker;
            if marker.is_none() {
                return ids;
            }
        }
    }
}

/// A `raxsr events follow` that runs.
struct Follower {
    process: Running,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Follower {
    fn start(place: &Place, options: &[&str]) -> Self {
        let (stdout, stderr) = (place.path().join("followed"), place.path().join("said"));
        let mut command = place.program(RAXSR);
        command.args(["events", "follow", "--interval=20ms"]).args(options).stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        command.env("SERVICE_REGISTRY_USERNAME", "").env("TZ", "UTC");
        Self { process: Running::start(&mut command), stdout, stderr }
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The ids of the events shown, of JSON lines.
    fn ids(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.stdout).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        whole.map(|line| event(line)["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it shows what happens.
    fn wait_until_it_follows(&self, log: &Log) {
        wait_until("the following", || {
            log.change("seed");
            !self.lines().is_empty()
        });
    }

    /// Waits until it has shown the newest event, and asserts that it has shown all since its first.
    #[track_caller]
    fn has_shown_each_once(&self, log: &Log, kind: Option<EventKind>) -> usize {
        let all = log.ids(kind);
        wait_until("the newest event", || self.ids().last() == all.last());
        let shown = self.ids();
        let first = all.iter().position(|id| *id == shown[0]).unwrap();
        assert_eq!(shown, all[first..]);
        first
    }

    fn has_said(&self, text: &str) -> bool {
        says(&self.stderr, text)
    }

    #[track_caller]
    fn stop(mut self, signal: Signal) {
        self.process.signal(signal);
        let status = self.process.wait();
        assert_eq!(status.code(), Some(0), "{}", fs::read_to_string(&self.stderr).unwrap());
        assert!(self.process.has_left_nobody());
    }
}

#[test]
fn what_happens_in_a_file_is_shown_in_order_and_once() {
    let place = Place::new();
    let log = Log::new(&place.url());
    log.change("old");
    let follower = Follower::start(&place, &["-f", "json"]);
    follower.wait_until_it_follows(&log);
    (0..30).for_each(|number| log.change(&format!("key-{number}")));
    assert!(follower.has_shown_each_once(&log, None) >= 1, "what was before is not shown");
    let line = follower.lines().pop().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["payload"]["configuration_value_id"], "key-29");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    follower.stop(Signal::SIGINT);
}

#[test]
fn a_server_that_dies_again_and_again_hides_and_repeats_nothing() {
    let mut server = Server::open();
    let url = format!("{}/v1.0", server.url());
    let (remote, file) = (Log::new(&url), Log::new(&server.place.url()));
    let follower = Follower::start(&server.place, &["--registry", &url, "-f", "json"]);
    follower.wait_until_it_follows(&remote);
    for round in 1..=3 {
        remote.change("before");
        server.kill();
        file.change("meanwhile");
        let outages = || fs::read_to_string(&follower.stderr).unwrap().matches("; trying on\n").count();
        wait_until("the outage", || outages() == round);
        file.change("meanwhile");
        server.restart();
        remote.change("after");
        follower.has_shown_each_once(&file, None);
        let said = || fs::read_to_string(&follower.stderr).unwrap();
        wait_until("the end of the outage", || said().matches("answers again\n").count() == round);
        assert_eq!(outages(), round, "{}", said());
    }
    follower.stop(Signal::SIGTERM);
}

#[test]
fn what_happens_before_the_first_answer_is_shown() {
    let mut server = Server::open();
    let url = format!("{}/v1.0", server.url());
    let file = Log::new(&server.place.url());
    server.kill();
    let follower = Follower::start(&server.place, &["--registry", &url, "-f", "json"]);
    wait_until("the outage", || follower.has_said("; trying on"));
    file.change("early");
    server.restart();
    wait_until("the event", || follower.ids() == file.ids(None));
    file.change("late");
    follower.has_shown_each_once(&file, None);
    follower.stop(Signal::SIGTERM);
}

#[test]
fn a_key_that_is_refused_is_read_again() {
    let accounts = "[[account]]\nusername = \"alice\"\napi_key = \"alice-key\"\ntenant = \"7777\"\n";
    let server = Server::with_accounts(accounts, &[]);
    let key_file = server.place.path().join("key");
    fs::write(&key_file, "wrong\n").unwrap();
    let (url, key) = (format!("{}/v1.0", server.url()), format!("--api-key-file={}", key_file.display()));
    let options = ["--registry", &*url, "--username=alice", &*key, "-f", "json"];
    let follower = Follower::start(&server.place, &options);
    wait_until("the refusal", || follower.has_said("refuses access"));
    let tenant = Log::new(&server.place.url().replace("registry.db", "registry-7777.db"));
    tenant.change("early");
    fs::write(&key_file, "alice-key\n").unwrap();
    wait_until("the event", || follower.ids() == tenant.ids(None));
    wait_until("the answer", || follower.has_said("answers again\n"));
    assert_eq!(fs::read_to_string(&follower.stderr).unwrap().matches("; trying on\n").count(), 1);
    follower.stop(Signal::SIGTERM);
}

#[test]
fn only_events_of_one_type_are_shown_if_wanted() {
    let place = Place::new();
    let log = Log::new(&place.url());
    let options = ["--type=configuration_value.remove", "-f", "json"];
    let follower = Follower::start(&place, &options);
    wait_until("the following", || {
        log.change("seed");
        log.remove("seed");
        !follower.ids().is_empty()
    });
    for _ in 0..10 {
        log.change("seed");
        log.remove("seed");
        log.change("other");
    }
    follower.has_shown_each_once(&log, Some(EventKind::ConfigurationRemove));
    follower.stop(Signal::SIGTERM);
}

#[test]
fn a_log_of_many_pages_is_shown_from_the_marker_on() {
    let place = Place::new();
    let log = Log::new(&place.url());
    (0..1_100).for_each(|_| log.change("key"));
    let ids = log.ids(None);
    let marker = format!("--marker={}", ids[1]);
    let follower = Follower::start(&place, &[&marker, "-f", "json"]);
    log.change("key");
    assert_eq!(follower.has_shown_each_once(&log, None), 1);
    let server = Server::start(place, &[]);
    let options = ["--registry", &format!("{}/v1.0", server.url()), &marker, "-f", "json"];
    let follower = Follower::start(&server.place, &options);
    assert_eq!(follower.has_shown_each_once(&log, None), 1);
}

#[test]
fn a_server_that_fails_and_repeats_itself_shows_each_event_once() {
    let events: Vec<Value> = (1..=9).map(scripted_event).collect();
    let ids: Vec<String> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let (count, shown) = (AtomicUsize::new(0), ids.clone());
    let peer = Peer::start(move |asked: &Asked| match count.fetch_add(1, Ordering::SeqCst) % 5 {
        0 => page(&events, asked),
        1 => fault(503, "serviceUnavailable", "later"),
        2 => Reply::Close,
        3 => Reply::Json(200, listing(&events[..2], &events[2]["id"])),
        _ => Reply::Json(200, json!({"values": "nonsense"})),
    });
    let place = Place::new();
    let marker = format!("--marker={}", ids[0]);
    let follower = Follower::start(&place, &["--registry", &peer.url(), &marker, "-f", "json"]);
    wait_until("the last event", || follower.ids().len() >= shown.len());
    let asked = peer.asked().len();
    wait_until("more answers", || peer.asked().len() > asked + 10);
    assert_eq!(follower.ids(), shown);
    follower.stop(Signal::SIGTERM);
}

#[test]
fn a_registry_that_refuses_every_marker_is_asked_without_one() {
    let future = "from parameter must be smaller than the current time";
    let past = "from parameter must be greater than or equal to the account creation date";
    // The second one does not even know the page whose answers tell its time.
    for (details, limits) in [(future, 200), (past, 404)] {
        let happened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&happened);
        let peer = Peer::start(move |asked: &Asked| match (&*asked.path, asked.path.contains("marker=")) {
            (_, true) => fault(400, "validationError", details),
            ("/v1.0/limits", _) => Reply::Json(limits, json!({"resource": {}, "rate": {}})),
            _ => {
                let events: Vec<Value> = (1..=count.load(Ordering::SeqCst)).map(scripted_event).collect();
                Reply::Json(200, listing(&events, &Value::Null))
            }
        });
        let place = Place::new();
        let follower = Follower::start(&place, &["--registry", &peer.url(), "-f", "json"]);
        wait_until("the following", || peer.count(|asked| asked.path.contains("marker=")) > 0);
        for number in 1..=3 {
            happened.store(number, Ordering::SeqCst);
            wait_until("the event", || follower.ids().len() >= number);
        }
        let asked = peer.asked().len();
        wait_until("more answers", || peer.asked().len() > asked + 4);
        let expected = (1..=3).map(|number| scripted_event(number)["id"].as_str().unwrap().to_owned());
        assert_eq!(follower.ids(), expected.collect::<Vec<_>>());
        follower.stop(Signal::SIGTERM);
    }
}

/// Of the 9 events, those with a later time have an id that is smaller as text.
fn scripted_event(number: usize) -> Value {
    let id = format!("{:08x}-{number:04x}-11ee-8000-000000000000", 1_000 - number);
    let payload =
        json!({"old_value": null, "new_value": "v", "configuration_value_id": format!("key-{number}")});
    json!({"id": id, "timestamp": 1_700_000_000_000_u64, "type": "configuration_value.update", "payload": payload})
}

/// Two events from the marker on.
fn page(events: &[Value], asked: &Asked) -> Reply {
    let begins = |event: &Value| asked.path.contains(event["id"].as_str().unwrap());
    let from = events.iter().position(begins).unwrap_or(0);
    let to = events.len().min(from + 2);
    let next = events.get(to).map_or(Value::Null, |event| event["id"].clone());
    Reply::Json(200, listing(&events[from..to], &next))
}

fn listing(values: &[Value], next: &Value) -> Value {
    let metadata = json!({"count": values.len(), "limit": 2, "marker": null, "next_marker": next});
    json!({"values": values, "metadata": metadata})
}

#[test]
fn a_command_gets_each_event_in_order_and_may_fail() {
    let place = Place::new();
    let log = Log::new(&place.url());
    let script = "cat >> got; echo \"$EVENT_ID $EVENT_TYPE $EVENT_SUBJECT\" >> told; exit 3";
    assert!(script.len() < 80, "it stays whole in messages");
    let follower = Follower::start(&place, &["--exec", script]);
    let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap_or_default();
    wait_until("the following", || {
        log.change("seed");
        !read("told").is_empty()
    });
    log.change("web1");
    wait_until("the last event", || read("told").ends_with(" configuration_value.update web1\n"));
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    let told: Vec<String> = read("told").lines().map(id).collect();
    let got = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(read("got").lines().map(got).collect::<Vec<_>>(), told);
    assert!(log.ids(None).ends_with(&told));
    wait_until("the warning", || {
        let id = told.last().unwrap();
        follower.has_said(&format!("raxsr: warning: `{script}` failed at event {id}: exit status: 3\n"))
    });
    assert!(follower.lines().is_empty(), "nothing is printed");
    follower.stop(Signal::SIGTERM);
}

#[test]
fn a_command_does_not_see_the_key_and_is_finished_before_the_end() {
    let place = Place::new();
    let log = Log::new(&place.url());
    log.change("key");
    let marker = format!("--marker={}", log.ids(None)[0]);
    let mut command = place.program(RAXSR);
    command.env("SERVICE_REGISTRY_USERNAME", "me").env("SERVICE_REGISTRY_API_KEY", "secret");
    let script = "env > told; until [ -e go ]; do sleep 0.01; done; echo done > ended";
    command.args(["events", "follow", "-f", "csv", &marker, "--", "sh", "-c", script]);
    let mut follower = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let told = place.path().join("told");
    wait_until("the command", || says(&told, "EVENT_SUBJECT=key\n"));
    follower.signal(Signal::SIGTERM);
    assert!(!says(&told, "secret"));
    fs::write(place.path().join("go"), "").unwrap();
    assert_eq!(follower.wait().code(), Some(0));
    assert!(says(&place.path().join("ended"), "done"));
    let stdout = BufReader::new(follower.process.stdout.take().unwrap());
    let lines: Vec<String> = stdout.lines().map(Result::unwrap).collect();
    assert_eq!(lines[0], "Event ID,Timestamp,Event Type,Payload");
    assert!(lines[1].contains("configuration_value.update"), "{lines:?}");
}

#[test]
fn a_command_that_cannot_be_started_at_all_is_a_failure() {
    let place = Place::new();
    let log = Log::new(&place.url());
    log.change("key");
    let marker = format!("--marker={}", log.ids(None)[0]);
    let output = place.raxsr(&["events", "follow", &marker, "--", "./missing"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "raxsr: cannot run `./missing`: No such file or directory (os error 2)\n");
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let place = Place::new();
    let log = Log::new(&place.url());
    log.change("key");
    let marker = format!("--marker={}", log.ids(None)[0]);
    let mut command = place.program(RAXSR);
    command.args(["events", "follow", "--interval=20ms", &marker]).stdin(Stdio::null());
    let mut follower = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(follower.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("  configuration_value.update  key  new_value: "), "{line}");
    assert_eq!(follower.wait().code(), Some(0));
    assert_eq!(follower.stderr(), "");
}

#[test]
fn a_reader_that_does_not_read_does_not_keep_it_from_ending() {
    let place = Place::new();
    let log = Log::new(&place.url());
    (0..600).for_each(|_| log.change("key"));
    let marker = format!("--marker={}", log.ids(None)[0]);
    let mut command = place.program(RAXSR);
    command.args(["events", "follow", "-f", "yaml", &marker]).stdin(Stdio::null());
    let mut follower = Running::start(command.stdout(Stdio::piped()));
    let name = format!("/proc/{}/task", follower.pid());
    let is_writing = |thread: fs::DirEntry| says(&thread.path().join("wchan"), "pipe");
    wait_for("a full pipe", || {
        fs::read_dir(&name).unwrap().any(|thread| is_writing(thread.unwrap())).then_some(())
    });
    follower.signal(Signal::SIGTERM);
    assert_eq!(follower.wait().code(), Some(0));
}

#[test]
fn what_cannot_be_followed_is_told() {
    let place = Place::new();
    let refusal = |words: &[&str]| {
        let output = place.raxsr(&[&["events", "follow"], words].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = refusal(&["-f", "html"]);
    assert_eq!(code, Some(2));
    assert!(said.starts_with("raxsr: events cannot be followed as html\nhint: "), "{said}");
    assert_eq!(refusal(&["--interval=0"]).0, Some(2));
    let (code, said) = refusal(&["--marker=ffffffff-ffff-1fff-8000-000000000000"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is of a time that has not come yet"), "{said}");
    assert_eq!(refusal(&["--marker=00000000-0000-4000-8000-000000000000"]).0, Some(1));
}
