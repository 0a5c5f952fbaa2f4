//! Budgets: what one more wrapper may cost. (Times are in `benches/`.)

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Place, wait_until};

#[test]
fn a_wrapper_is_one_thread_and_under_a_mebibyte_and_stays_so() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=small", "--interval=3"]).start(&["sleep", "600"]);
    let private = || {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", wrapper.pid())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let beats = |number| {
        let mut seen = std::collections::BTreeSet::new();
        wait_until("the heartbeats", || {
            let service = place.raxsr_json(&["services", "list"])["values"][0].clone();
            seen.extend(service["last_seen"].as_u64());
            seen.len() >= number
        });
    };
    beats(3);
    let early = private();
    beats(6);
    assert!(early <= 1024 && private() <= 1024, "{early} KiB, then {} KiB", private());
    let threads = || fs::read_dir(format!("/proc/{}/task", wrapper.pid())).unwrap().count();
    wait_until("one thread", || threads() == 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}
