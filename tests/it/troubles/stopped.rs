//! The wrapper does not run for longer than its timeout: stopped, or frozen with its command.

use nix::sys::signal::Signal;
use std::time::Duration;

use tokio::time::Instant;

use super::cgroup::{Cgroup, Controller};
use crate::faults::all;
use crate::support::lab::{Kind, Laboratory, Patient};
use crate::support::wait_until;

/// More than a timeout, 6 s, after whatever would have been next.
const LONGER: Duration = Duration::from_secs(9);

/// Starts a wrapper, and waits until it is registered.
#[track_caller]
fn start(registry: &Laboratory) -> Patient {
    let patient = Patient::start(registry.url(), "stopped", &["--interval=6"]);
    wait_until("the registration", || registry.lists("stopped"));
    patient.wait_until_it_says("registered");
    patient
}

/// Waits until the registry has given a service up, and the service a heartbeat later at the least.
#[track_caller]
fn wait_until_it_is_gone(registry: &Laboratory) {
    let since = Instant::now();
    let is_gone = || registry.listed().is_some_and(|listed| !listed.contains("stopped"));
    wait_until("the entry's expiry", || since.elapsed() > LONGER && is_gone());
}

/// Asserts that it is back, has said so once, and ends as it should.
#[track_caller]
fn is_back(registry: &Laboratory, mut patient: Patient) {
    wait_until("the registration", || registry.lists("stopped"));
    patient.wait_until_it_says("was not running for longer than");
    // Consul lists nobody whose time is up, and has them back at their next heartbeat.
    if registry.kind != Kind::Consul {
        patient.wait_until_it_says("registered again");
        assert_eq!(patient.count("after="), 1, "{:#?}", patient.said());
    }
    assert_eq!(patient.count("was not running for longer than"), 1, "{:#?}", patient.said());
    assert!(patient.count("trying on") <= 1, "{:#?}", patient.said());
    patient.has_untouched_child();
    patient.stop();
    wait_until("the withdrawal", || !registry.lists("stopped"));
}

#[test]
fn a_wrapper_that_was_stopped_is_back_when_it_is_continued() {
    all(&Kind::ALL, |&kind| {
        let Some(registry) = Laboratory::start(kind, "a stopped wrapper") else { return };
        let patient = start(&registry);
        patient.process.signal(Signal::SIGSTOP);
        wait_until_it_is_gone(&registry);
        patient.has_untouched_child();
        patient.process.signal(Signal::SIGCONT);
        is_back(&registry, patient);
    });
}

#[test]
fn a_wrapper_that_was_frozen_with_its_command_is_back_when_it_is_thawed() {
    const TEST: &str = "a frozen wrapper";
    all(&[Kind::File, Kind::Server], |&kind| {
        let Some(registry) = Laboratory::start(kind, TEST) else { return };
        let patient = start(&registry);
        let Some(group) = Cgroup::new(Controller::Freezer, TEST) else { return };
        group.add(patient.process.pid());
        group.add(patient.process.child());
        group.freeze();
        wait_until_it_is_gone(&registry);
        group.thaw();
        is_back(&registry, patient);
    });
}
