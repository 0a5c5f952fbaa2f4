//! Hardly any processor, hardly any memory: the lease is kept on what is left.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::cgroup::{Cgroup, Controller};
use crate::faults::all;
use crate::support::lab::{Kind, Laboratory, Patient};
use crate::support::{Running, holds_for, wait_until};

/// More than two timeouts, of 6 s.
const SPAN: Duration = Duration::from_secs(13);

/// Asserts that it has always been listed, and has had nothing to say about it.
#[track_caller]
fn is_held(registry: &Laboratory, patient: &Patient) {
    holds_for(SPAN, "being listed", || registry.listed().is_none_or(|listed| listed.contains("starved")));
    let said = patient.said();
    assert!(!said.iter().any(|line| line.contains("registered again")), "{said:#?}");
    patient.has_untouched_child();
}

#[test]
fn one_hundredth_of_a_processor_is_enough() {
    const TEST: &str = "a hundredth of a processor";
    all(&[Kind::File, Kind::Server, Kind::Zookeeper], |&kind| {
        let Some(registry) = Laboratory::start(kind, TEST) else { return };
        let Some(group) = Cgroup::new(Controller::Cpu, TEST) else { return };
        group.limit_processor(1);
        let enter = |command: &mut Command| group.take_in(command);
        let mut patient = Patient::start_as(registry.url(), "starved", &["--interval=6"], enter);
        wait_until("the registration", || registry.lists("starved"));
        is_held(&registry, &patient);
        assert!(group.throttled() > 0, "the group had what it wanted");
        patient.lose_child();
    });
}

#[test]
fn memory_that_others_want_as_well_is_enough() {
    const TEST: &str = "memory pressure";
    let Some(registry) = Laboratory::start(Kind::Server, TEST) else { return };
    let mut patient = Patient::start(registry.url(), "starved", &["--interval=6"]);
    wait_until("the registration", || registry.lists("starved"));
    let Some(group) = Cgroup::new(Controller::Memory, TEST) else { return };
    group.add(patient.process.pid());
    group.limit_memory(group.memory() + 8 * 1024 * 1024);
    // Reads a file of twice that for ever: what it leaves in the cache takes the place of everything else.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut reader = Command::new("sh");
    reader.args(["-c", "head -c 16M /dev/zero >\"$0\" && while cat \"$0\" >/dev/null; do :; done"]);
    reader.arg(directory.path().join("big")).stdin(Stdio::null()).stderr(Stdio::null());
    group.take_in(&mut reader);
    let reader = Running::start(&mut reader);
    is_held(&registry, &patient);
    assert!(group.reclaimed() > 100, "there was memory to spare");
    drop(reader);

    // Takes all there is of several times what the wrapper has, and is killed for it: the wrapper is the smaller.
    group.limit_memory(64 * 1024 * 1024);
    let mut hog = Command::new("tail");
    hog.arg("/dev/zero").stdout(Stdio::null()).stdin(Stdio::null());
    group.take_in(&mut hog);
    let start = Instant::now();
    assert_eq!(Running::start(&mut hog).wait().signal(), Some(libc::SIGKILL));
    wait_until("a heartbeat or two after it", || start.elapsed() > SPAN / 3);
    assert!(registry.lists("starved"));
    patient.has_untouched_child();
    drop(group);
    patient.stop();
}
