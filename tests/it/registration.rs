//! A service is listed for exactly as long as its command lives.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::support::{Place, holds_for, wait_until};

#[test]
fn a_service_is_listed_while_its_command_lives() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=web1", "--tags=web", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("web1"));
    // Longer than its timeout twice over.
    holds_for(Duration::from_secs(7), "being listed", || place.lists("web1"));
    assert_eq!(place.events(), ["join web1"]);
    let service = place.raxsr_json(&["services", "get", "web1"]);
    assert!(service["last_seen"].is_string(), "{service}");
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
    assert!(!place.lists("web1"));
    assert_eq!(place.events(), ["join web1", "remove web1"]);
    assert_eq!(wrapper.stderr(), "");
}

#[test]
fn a_crash_ends_in_one_timeout_however_many_look() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=crash", "--tags=a,b", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("crash"));
    kill(wrapper.child(), Signal::SIGKILL).unwrap();
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGKILL));
    assert!(place.lists("crash"), "it is left to expire");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| wait_until("the timeout", || !place.lists("crash")));
        }
    });
    assert_eq!(place.events(), ["join crash", "timeout crash"]);
    let events = place.raxsr_json(&["events", "list", "--type=service.timeout"]);
    let expected = json!({"id": "crash", "heartbeat_timeout": 3, "tags": ["a", "b"], "metadata": {}});
    assert_eq!(events["values"][0]["payload"], expected);
}

#[test]
fn a_command_that_ends_by_itself_is_left_to_expire_unless_told_otherwise() {
    let place = Place::new();
    let once_listed =
        |id: &str| format!("until {} services get {id} >/dev/null 2>&1; do :; done", crate::support::RAXSR);
    let output = place.wrapper(&["--id=leaves"]).output(&["sh", "-c", &once_listed("leaves")]);
    assert!(output.status.success());
    assert!(place.lists("leaves"));
    let output =
        place.wrapper(&["--id=goes", "--deregister=always"]).output(&["sh", "-c", &once_listed("goes")]);
    assert!(output.status.success());
    assert_eq!(place.services(), ["leaves"]);
}

#[test]
fn a_service_that_was_removed_by_hand_comes_back_at_its_next_heartbeat() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=phoenix", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("phoenix"));
    assert!(place.raxsr(&["services", "remove", "phoenix"]).status.success());
    wait_until("the registration", || place.lists("phoenix"));
    assert_eq!(place.events(), ["join phoenix", "remove phoenix", "join phoenix"]);
    wrapper.signal(Signal::SIGTERM);
    assert!(wrapper.stderr().contains("registered again"));
}

#[test]
fn after_a_pause_longer_than_the_timeout_the_service_is_registered_again() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=sleepy", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("sleepy"));
    wrapper.signal(Signal::SIGSTOP);
    wait_until("the timeout", || !place.lists("sleepy"));
    wrapper.signal(Signal::SIGCONT);
    wait_until("the registration", || place.lists("sleepy"));
    assert_eq!(place.events(), ["join sleepy", "timeout sleepy", "join sleepy"]);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

#[test]
fn an_id_that_is_taken_is_waited_for_and_its_holder_named_once() {
    let place = Place::new();
    let mut first = place.wrapper(&["--id=twin", "--tags=first", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("twin"));
    let second = place.wrapper(&["--id=twin", "--tags=second", "--interval=3"]);
    let mut second = second.start(&["sleep", "600"]);
    let tags = || place.raxsr_json(&["services", "list"])["values"][0]["tags"].clone();
    holds_for(Duration::from_secs(4), "the first one's place", || tags() == json!(["first"]));
    first.signal(Signal::SIGTERM);
    first.wait();
    wait_until("the second one's turn", || tags() == json!(["second"]));
    second.signal(Signal::SIGTERM);
    let log = second.stderr();
    assert_eq!(
        log.matches(&format!("held by pid {}", first.pid())).count(),
        2,
        "when it began, when it ended: {log}"
    );
}

#[test]
fn a_restarted_service_gets_its_id_when_its_previous_life_has_expired() {
    let place = Place::new();
    let mut first = place.wrapper(&["--id=again", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("again"));
    first.signal(Signal::SIGKILL);
    first.wait();
    let _second = place.wrapper(&["--id=again", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("both lives", || place.events() == ["join again", "timeout again", "join again"]);
}

#[test]
fn an_id_that_is_taken_can_be_taken_over() {
    let place = Place::new();
    let _first = place.wrapper(&["--id=twin", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("twin"));
    let _second = place
        .wrapper(&["--id=twin", "--on-conflict=replace", "--interval=3", "--tags=new"])
        .start(&["sleep", "600"]);
    wait_until("the takeover", || place.events() == ["join twin", "remove twin", "join twin"]);
    // The first one waits its turn: nobody is thrown out a second time.
    holds_for(Duration::from_secs(4), "the second one's place", || place.events().len() == 3);
}

#[test]
fn an_id_that_is_taken_can_be_a_failure() {
    let place = Place::new();
    let _first = place.wrapper(&["--id=twin"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("twin"));
    let mut second =
        place.wrapper(&["--id=twin", "--on-conflict=fail", "--abort-on-failure"]).start(&["sleep", "600"]);
    assert_eq!(second.wait().code(), Some(100));
    assert!(second.stderr().contains("is held by pid"));
}
