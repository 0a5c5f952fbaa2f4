//! Budgets: what one more wrapper may cost. (Times are in `benches/`.)

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::{Place, wait_until};

#[test]
fn a_wrapper_is_one_thread_and_under_a_mebibyte_and_stays_so() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=small", "--interval=3"]).start(&["sleep", "600"]);
    let private = || private_memory(wrapper.pid());
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

/// Memory of its own, in KiB: heap, stacks, mappings of no file. (What relocation does to the pages of the program
/// itself is left out: it grows with debug information. `benches/` has the whole of a release build.)
fn private_memory(pid: Pid) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut total, mut of_a_file) = (0, false);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].contains('-') {
            of_a_file = words.get(5).is_some_and(|name| name.starts_with('/'));
        } else if words[0] == "Anonymous:" && !of_a_file {
            total += words[1].parse::<u64>().unwrap();
        }
    }
    total
}
