//! The lease is kept through whatever happens to the file.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Place, holds_for, says, wait_until};

#[test]
fn a_registry_that_was_deleted_is_made_again_with_everyone_in_it() {
    let place = Place::new();
    let _wrappers: Vec<_> = (0..3)
        .map(|number| place.wrapper(&[&format!("--id=web{number}"), "--interval=3"]).start(&["sleep", "600"]))
        .collect();
    wait_until("the registrations", || place.services().len() == 3);
    fs::remove_dir_all(place.path().join("state")).unwrap();
    wait_until("the registrations", || place.services().len() == 3);
}

#[test]
fn a_lock_for_two_thirds_of_the_timeout_costs_no_registration() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=patient", "--interval=12"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("patient"));
    let lock = rusqlite::Connection::open(place.registry_file()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Reading needs no lock as long as nobody has died.
    holds_for(Duration::from_secs(7), "being listed", || place.lists("patient"));
    lock.execute_batch("ROLLBACK").unwrap();
    let is_renewed = || {
        let log = place.raxsr_json(&["services", "get", "patient"]);
        log["last_seen"].is_string()
    };
    wait_until("a heartbeat", is_renewed);
    assert_eq!(place.events(), ["join patient"]);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

#[test]
fn a_broken_file_that_is_moved_away_is_replaced_by_the_wrappers() {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    fs::write(place.registry_file(), "not a database".repeat(99)).unwrap();
    let log = place.path().join("log");
    let mut wrapper =
        place.wrapper(&["--id=hopeful", "--interval=3"]).start_with_log(&log, &["sleep", "600"]);
    let child = wrapper.child();
    wait_until("the failure", || says(&log, "cannot register, trying on"));
    assert_eq!(place.raxsr(&["services", "list"]).status.code(), Some(1));
    fs::rename(place.registry_file(), place.path().join("broken")).unwrap();
    wait_until("the registration", || place.lists("hopeful"));
    assert_eq!(wrapper.child(), child, "the command did not notice");
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(says(&log, "registered at last"));
}

#[test]
fn many_wrappers_share_a_file() {
    let place = Place::new();
    let wrappers: Vec<_> = (0..25)
        .map(|number| {
            place.wrapper(&[&format!("--id=web{number}"), "--interval=10"]).start(&["sleep", "600"])
        })
        .collect();
    wait_until("the registrations", || place.services().len() == 25);
    for wrapper in &wrappers {
        wrapper.signal(Signal::SIGTERM);
    }
    for mut wrapper in wrappers {
        wrapper.wait();
    }
    assert!(place.services().is_empty());
    let events = place.events();
    assert_eq!(events.iter().filter(|event| event.starts_with("join")).count(), 25, "{events:?}");
    assert_eq!(events.iter().filter(|event| event.starts_with("remove")).count(), 25, "{events:?}");
}
