//! What happens to a wrapper when servers of the cluster do not work.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{INTERVAL, count, lists, record, wrapper};
use crate::support::etcd::{Etcd, Release};
use crate::support::{Place, children_of, says, wait_until};

const LONG: Duration = Duration::from_secs(9);

/// How long it took, from the fault on, until another heartbeat succeeded.
fn renewed_after(release: Release, test: &str, fault: impl Fn(&mut Etcd, usize)) {
    let Some(mut etcd) = Etcd::cluster(release, test) else { return };
    let place = Place::new();
    let leader = etcd.leader();
    // The one that it talks to is not always the one that fails: its list is only of two.
    let other = (leader + 1) % 3;
    let url = format!("etcd://{},{}", etcd.members[leader].address, etcd.members[other].address);
    let (mut wrapper, log) = wrapper(&place, &url, "log", &["--interval=9"]);
    wait_until("a heartbeat", || count(&log, "request succeeded") >= 2);
    let before = record(&etcd);
    fault(&mut etcd, leader);
    let (start, beats) = (Instant::now(), count(&log, "request succeeded"));
    wait_until("another heartbeat", || count(&log, "request succeeded") > beats);
    assert!(start.elapsed() < LONG, "{release:?}: {:?}", start.elapsed());
    let survivor = format!("etcd://{}", etcd.members[other].address);
    wait_until("the list", || lists(&place, &survivor));
    assert!(!says(&log, "registered again"));
    etcd.members.swap(0, other);
    assert_eq!(record(&etcd), before);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

#[test]
fn a_leader_that_is_killed_costs_no_registration() {
    for release in Release::ALL {
        renewed_after(release, "a_leader_that_is_killed", |etcd, leader| etcd.members[leader].kill());
    }
}

#[test]
fn a_leader_that_is_frozen_costs_no_registration() {
    for release in Release::ALL {
        renewed_after(release, "a_leader_that_is_frozen", |etcd, leader| {
            etcd.members[leader].signal(Signal::SIGSTOP);
        });
    }
}

#[test]
fn a_quorum_that_was_lost_has_the_service_again_within_an_interval() {
    for release in Release::ALL {
        let Some(mut etcd) = Etcd::cluster(release, "a_quorum_that_was_lost") else { continue };
        let (place, url) = (Place::new(), etcd.url());
        let (wrapper, log) = wrapper(&place, &url, "log", &[]);
        wait_until("the registration", || lists(&place, &url));
        let child = wrapper.child();
        etcd.members[0].kill();
        etcd.members[1].kill();
        wait_until("a word about it", || says(&log, "cannot renew the registration"));
        let failures = count(&log, "request failed");
        wait_until("more of it", || count(&log, "request failed") >= failures + 3);
        etcd.restart();
        let start = Instant::now();
        wait_until("the registration again", || lists(&place, &url));
        assert!(start.elapsed() <= 2 * INTERVAL, "{release:?}: {:?}", start.elapsed());
        assert_eq!(children_of(wrapper.pid()), [child]);
    }
}

#[test]
fn a_cluster_that_hangs_does_not_delay_the_end() {
    let Some(etcd) = Etcd::single(Release::Trixie, "a_cluster_that_hangs") else { return };
    let (place, url) = (Place::new(), etcd.url());
    let (mut wrapper, log) = wrapper(&place, &url, "log", &[]);
    wait_until("a heartbeat", || count(&log, "request succeeded") >= 2);
    etcd.members[0].signal(Signal::SIGSTOP);
    let start = Instant::now();
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(start.elapsed() < 2 * INTERVAL, "{:?}", start.elapsed());
    etcd.members[0].signal(Signal::SIGCONT);
}
