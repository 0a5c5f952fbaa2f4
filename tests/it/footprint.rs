//! Budgets: what one more wrapper may cost. (Times are in `benches/`.)

use std::fs;

use nix::sys::signal::Signal;

use crate::support::peer::{Asked, Peer, agree};
use crate::support::{Place, Running, private_memory, wait_until};

#[test]
fn a_wrapper_is_one_thread_and_under_a_mebibyte_and_stays_so() {
    let place = Place::new();
    let wrapper = place.wrapper(&["--id=small", "--interval=3"]).start(&["sleep", "600"]);
    let mut seen = std::collections::BTreeSet::new();
    stays_small(wrapper, |number| {
        let service = place.raxsr_json(&["services", "list"])["values"][0].clone();
        seen.extend(service["last_seen"].as_str().map(str::to_owned));
        seen.len() >= number
    });
}

#[test]
fn over_http_too() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let options = ["--id=small", "--interval=3", "--username=me", "--api-key=k", "--registry", &peer.url()];
    let wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    stays_small(wrapper, |number| peer.count(Asked::is_heartbeat) >= number);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn with_several_registries_too() {
    let (place, one, other) = (Place::new(), Peer::start(agree), Peer::start(agree));
    let registries = [one.url(), other.url(), place.url()].map(|url| format!("--registry={url}"));
    let [first, second, third] = &registries;
    let options = ["--id=small", "--interval=3", "--username=me", "--api-key=k", first, second, third];
    let wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    stays_small(wrapper, |number| {
        [&one, &other].iter().all(|peer| peer.count(Asked::is_heartbeat) >= number)
    });
    assert_eq!((one.connections(), other.connections()), (1, 1));
}

/// `has_beaten` says whether there were so many heartbeats.
#[track_caller]
pub(crate) fn stays_small(mut wrapper: Running, mut has_beaten: impl FnMut(usize) -> bool) {
    let private = || private_memory(wrapper.pid());
    wait_until("the heartbeats", || has_beaten(3));
    let early = private();
    wait_until("the heartbeats", || has_beaten(6));
    assert!(early <= 1024 && private() <= 1024, "{early} KiB, then {} KiB", private());
    let threads = || fs::read_dir(format!("/proc/{}/task", wrapper.pid())).unwrap().count();
    wait_until("one thread", || threads() == 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}
