//! No descriptors are left: for a wrapper that starts, or for one that runs and loses its connection.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Pid, SysconfVar, sysconf};
use tokio::time::Instant;

use crate::faults::all;
use crate::support::lab::{Kind, Laboratory, Patient};
use crate::support::{Place, WRAPPER, is_there, wait_for, wait_until};

/// Lets a process open nothing that would have this number or a higher one. What is open stays open.
fn limit(pid: Pid, most: &str) {
    let limit = format!("--nofile={most}:");
    let output = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// How many seconds of a processor a process has used.
fn processor_time(pid: Pid) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks = |field: usize| after_name.split(' ').nth(field).unwrap().parse::<f64>().unwrap();
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    (ticks(11) + ticks(12)) / f64::from(u32::try_from(per_second).unwrap())
}

#[test]
fn a_connection_that_cannot_be_made_again_for_want_of_descriptors_is_made_when_there_are_some() {
    const TEST: &str = "a running wrapper without descriptors";
    if !is_there("prlimit", TEST) {
        return;
    }
    all(&Kind::REMOTE, |&kind| {
        let Some(registry) = Laboratory::start(kind, TEST) else { return };
        let mut patient = Patient::start(registry.url(), "few", &["--interval=6", "--log-level=debug"]);
        let wrapper = patient.process.pid();
        wait_until("the registration", || registry.lists("few"));
        patient.wait_until_it_says("registered");
        let soft_limit = limit_of(wrapper);
        limit(wrapper, "3");
        let (start, used) = (Instant::now(), processor_time(wrapper));
        registry.kill();
        registry.restart();
        wait_until("the entry's expiry", || registry.listed().is_some_and(|listed| listed.is_empty()));
        patient.wait_until_it_says("Too many open files");
        let (took, tries) = (start.elapsed().as_secs_f64(), patient.count("request failed"));
        assert!(processor_time(wrapper) - used < 1.0 + took / 10.0, "it spins");
        assert!(f64::from(u32::try_from(tries).unwrap()) < 10.0 + 5.0 * took, "{tries} tries in {took:.1} s");
        patient.has_untouched_child();
        limit(wrapper, &soft_limit);
        wait_until("the registration", || registry.lists("few"));
        // Again, or still, where it was only out of sight.
        patient.wait_until_it_says("after=");
        assert_eq!((patient.count("trying on"), patient.count("after=")), (1, 1), "{:#?}", patient.said());
        patient.has_untouched_child();
        patient.stop();
        wait_until("the withdrawal", || !registry.lists("few"));
    });
}

/// How many descriptors a process may have, as `prlimit` takes it.
fn limit_of(pid: Pid) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// Runs a command that ends with 7 under a wrapper that may have so many descriptors: how that ended, and what was
/// said. The command ends when `may_end` is there.
fn run(place: &Place, registry: &str, descriptors: u32, may_end: &Path) -> (Option<i32>, String) {
    let log = place.path().join(format!("log{descriptors}"));
    let mut command = place.program("bash");
    let script = format!(
        "ulimit -Sn {descriptors}; exec {WRAPPER} --registry={registry} --id=few{descriptors} --log-level=info \
         sh -c 'until [ -e {} ]; do sleep 0.1; done; exit 7'",
        may_end.display()
    );
    command.args(["-c", &script]).stderr(fs::File::create(&log).unwrap());
    let mut process = crate::support::Running::start(&mut command);
    let said = || fs::read_to_string(&log).unwrap();
    // Each of these is a state in which it stays.
    let outcomes = [" registered ", "cannot register, trying on", "unregistered", "cannot run"];
    let is_settled = |said: &str| outcomes.iter().any(|outcome| said.contains(outcome));
    wait_for("what it makes of it", || (is_settled(&said()) || process.has_ended()).then_some(()));
    fs::write(may_end, "").unwrap();
    let status = process.wait();
    assert_eq!(status.signal(), None, "{}", said());
    (status.code(), said())
}

#[test]
fn whoever_starts_with_too_few_says_so_and_runs_the_command_all_the_same() {
    all(&[Kind::File, Kind::Server], |&kind| {
        let Some(registry) = Laboratory::start(kind, "a wrapper that starts without descriptors") else {
            return;
        };
        let place = Place::new();
        // With fewer, the dynamic loader does not get as far as us.
        for descriptors in 4..=20 {
            let may_end = place.path().join(format!("end{descriptors}"));
            let (status, said) = run(&place, registry.url(), descriptors, &may_end);
            assert!(!said.contains("panicked"), "{descriptors}: {said}");
            if said.contains(" registered ") {
                assert_eq!(status, Some(7), "{descriptors}: {said}");
                continue;
            }
            assert!(said.contains("Too many open files") || said.contains("unable to open"), "{said}");
            // Where there is no command, that is our failure.
            let expected = if said.contains("cannot run") { 125 } else { 7 };
            assert_eq!(status, Some(expected), "{descriptors}: {said}");
            assert!(descriptors < 18, "{descriptors} are enough: {said}");
        }
    });
}
