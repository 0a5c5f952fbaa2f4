//! The machine's clock is set forward and back by an hour: nobody dies of it, and nobody lives on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::server::Server;
use crate::support::{Place, Running, children_of, holds_for, is_there, wait_until};

const HOUR: i64 = 3600;
/// Longer than the timeout, 3 s, that the wrappers give their registry.
const LONGER: Duration = Duration::from_secs(4);

/// The wall clock of everything that runs in a place. It is that of the machine, and an offset.
struct WallClock {
    offset: PathBuf,
}

impl WallClock {
    /// A place with a clock of its own, or none where the test is skipped.
    fn of_a_place(test: &str) -> Option<(Place, Self)> {
        if !is_there("faketime", test) {
            return None;
        }
        let place = Place::new();
        let clock = Self { offset: place.path().join("offset") };
        clock.set(0);
        let environment = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", clock.offset.display().to_string()),
            // It is read at every look at the clock.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Nobody can set these.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Some((place.with_environment(&environment), clock))
    }

    /// Sets it so many seconds ahead of the machine's.
    fn set(&self, ahead: i64) {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{ahead:+}")).unwrap();
        fs::rename(new, &self.offset).unwrap();
    }
}

/// What to preload, as the program does it that the library comes with.
fn library() -> String {
    let output =
        Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether a time is about so many seconds ahead of the machine's.
fn is_ahead(time: &str, seconds: i64) -> bool {
    let Ok(time) = humantime::parse_rfc3339(time) else { return false };
    let since =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    (since(time) - since(SystemTime::now()) - seconds).abs() < HOUR / 6
}

/// Whether the registry saw a service at a time so many seconds ahead.
fn was_seen_ahead(place: &Place, registry: &str, id: &str, seconds: i64) -> bool {
    let service = place.raxsr_json(&["--registry", registry, "services", "get", id]);
    service["last_seen"].as_str().is_some_and(|time| is_ahead(time, seconds))
}

fn lists(place: &Place, registry: &str, id: &str) -> bool {
    let list = place.raxsr_json(&["--registry", registry, "services", "list"]);
    list["values"].as_array().unwrap().iter().any(|service| service["id"] == id)
}

/// Starts a wrapper in `place`, and waits until it is registered.
fn start(place: &Place, registry: &str, id: &str, level: &str) -> (Running, PathBuf) {
    let log = place.path().join(format!("{id}.log"));
    let options = ["--registry", registry, "--interval=3", "--log-level", level, "--id", id];
    let wrapper = place.wrapper(&options).start_with_log(&log, &["sleep", "600"]);
    wait_until("the registration", || lists(place, registry, id));
    (wrapper, log)
}

/// Asserts that whoever is killed now dies, and nobody of those who live, for longer than a timeout.
#[track_caller]
fn only_the_dead_die(place: &Place, registry: &str, living: &[&str]) {
    let (victim, _) = start(place, registry, "victim", "warn");
    let start = Instant::now();
    drop(victim);
    let are_listed = || living.iter().all(|id| lists(place, registry, id));
    wait_until("the victim's death", || {
        assert!(are_listed(), "somebody else died");
        !lists(place, registry, "victim")
    });
    holds_for(LONGER.saturating_sub(start.elapsed()), "being listed", are_listed);
    let events = place.raxsr_json(&["--registry", registry, "events", "list", "--limit=1000"]);
    let latest = &events["values"][0];
    assert_eq!((&latest["type"], &latest["payload"]["id"]), (&"service.timeout".into(), &"victim".into()));
}

/// Asserts that a wrapper has had nothing to say that an operator should look at.
#[track_caller]
fn says_nothing(log: &Path) {
    let said = fs::read_to_string(log).unwrap();
    assert!(!said.lines().any(|line| line.contains("WARN") || line.contains("ERROR")), "{said}");
}

/// Asserts that its child is there, and that it ends as that does.
#[track_caller]
fn ends_as_it_should(mut wrapper: Running) {
    assert_eq!(children_of(wrapper.pid()).len(), 1);
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn over_a_file() {
    let Some((place, clock)) = WallClock::of_a_place("the clock, over a file") else { return };
    let (wrapper, log) = start(&place, &place.url(), "web1", "warn");
    for ahead in [HOUR, -HOUR] {
        clock.set(ahead);
        wait_until("a heartbeat at the new time", || was_seen_ahead(&place, &place.url(), "web1", ahead));
        only_the_dead_die(&place, &place.url(), &["web1"]);
    }
    says_nothing(&log);
    ends_as_it_should(wrapper);
    let joins = place.events().into_iter().filter(|event| event == "join web1").count();
    assert_eq!(joins, 1);
}

#[test]
fn over_a_server_with_the_same_clock_and_with_another() {
    let Some((place, clock)) = WallClock::of_a_place("the clock, over a server") else { return };
    let Some((elsewhere, other_clock)) = WallClock::of_a_place("the clock, over a server") else { return };
    let mut server = Server::start(place, &[]);
    let registry = format!("{}/v1.0", server.url());
    let beside = start(&server.place, &registry, "beside", "warn");
    let afar = start(&elsewhere, &registry, "afar", "debug");
    for ahead in [HOUR, -HOUR] {
        clock.set(ahead);
        for id in ["beside", "afar"] {
            let is_seen = || was_seen_ahead(&server.place, &registry, id, ahead);
            wait_until("a heartbeat at the new time", is_seen);
        }
        only_the_dead_die(&server.place, &registry, &["beside", "afar"]);
        other_clock.set(ahead);
        wait_until("a heartbeat at the new time", || {
            let said = fs::read_to_string(&afar.1).unwrap();
            let latest = said.lines().rfind(|line| line.contains("request succeeded")).unwrap();
            is_ahead(latest.split(' ').next().unwrap(), ahead)
        });
        only_the_dead_die(&elsewhere, &registry, &["beside", "afar"]);
    }
    says_nothing(&beside.1);
    says_nothing(&afar.1);
    // What the hour ahead has left behind does not come up after a restart.
    server.kill();
    server.restart();
    let are_listed = || ["beside", "afar"].iter().all(|id| lists(&server.place, &registry, id));
    holds_for(LONGER, "being listed after a restart", are_listed);
    let events = server.place.raxsr_json(&["--registry", &registry, "events", "list", "--limit=1000"]);
    let joins = events["values"].as_array().unwrap().iter().filter(|event| event["type"] == "service.join");
    assert_eq!(joins.count(), 2 + 4, "beside, afar, and four victims");
    ends_as_it_should(beside.0);
    ends_as_it_should(afar.0);
}
