//! Agents that fail: one of several, or the only one.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::{INTERVAL, lists, raxsr, wrapper, wrapper_at};
use crate::support::consul::Consul;
use crate::support::server::{Connection, Request};
use crate::support::{Place, holds_for, says, wait_until};

#[test]
fn when_its_agent_fails_a_service_is_registered_at_the_next_and_later_leaves_the_first() {
    let Some(server) = Consul::start("when_its_agent_fails_a_service_is_registered_at_the_next") else {
        return;
    };
    let (first, second) = (server.joined_by("n2"), server.joined_by("n3"));
    let place = Place::new();
    let url = format!("consul://{},{}", first.address(), second.address());
    let (mut wrapper, log) = wrapper_at(&place, &url, "log", &["--port=80"]);
    wait_until("the registration", || says(&log, "registered"));
    assert!(second.meta("web1").is_null());
    first.signal(Signal::SIGSTOP);
    wait_until("the registration at the next", || !second.meta("web1").is_null());
    wait_until("the catalog", || lists(&place, &server));
    wait_until("a word about it", || says(&log, "registered at another agent"));
    holds_for(2 * INTERVAL, "the registration at the next", || !second.meta("web1").is_null());
    first.signal(Signal::SIGCONT);
    wait_until("the first to be told", || first.meta("web1").is_null());
    assert!(!second.meta("web1").is_null());
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(second.meta("web1").is_null());
    wait_until("the catalog", || !lists(&place, &server));
}

#[test]
fn a_service_that_ends_leaves_the_agent_that_failed_too() {
    let Some(server) = Consul::start("a_service_that_ends_leaves_the_agent_that_failed_too") else { return };
    let other = server.joined_by("n2");
    let place = Place::new();
    let url = format!("consul://{},{}", other.address(), server.address());
    let (mut wrapper, log) = wrapper_at(&place, &url, "log", &["--port=80"]);
    wait_until("the registration", || says(&log, "registered"));
    other.signal(Signal::SIGSTOP);
    wait_until("the registration at the next", || !server.meta("web1").is_null());
    other.signal(Signal::SIGCONT);
    wait_until("its answers", || other.ask("GET", "/v1/agent/services").status == 200);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(server.meta("web1").is_null());
    wait_until("the first to be told", || other.meta("web1").is_null());
}

#[test]
fn a_command_asks_the_next_agent_where_one_is_not_there() {
    let Some(consul) = Consul::start("a_command_asks_the_next_agent") else { return };
    let place = Place::new();
    let url = format!("consul://127.0.0.1:1,{}", consul.address());
    for words in [&["services", "list"][..], &["configuration", "set", "key", "value"], &["doctor"]] {
        let output = raxsr(&place, &url, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    let doctor = raxsr(&place, &url, &["doctor"]);
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(
        told.contains("warn  reach") && told.contains("agent 127.0.0.1:1 is not available: cannot connect"),
        "{told}"
    );
    let output = raxsr(&place, "consul://127.0.0.1:1,127.0.0.1:2", &["services", "list"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("consul://127.0.0.1:1,127.0.0.1:2 is not available: cannot connect"), "{said}");
}

#[test]
fn an_agent_that_hangs_does_not_delay_the_end() {
    let Some(consul) = Consul::start("an_agent_that_hangs_does_not_delay_the_end") else { return };
    let place = Place::new();
    let (mut wrapper, log) = wrapper(&place, &consul, "log");
    wait_until("the registration", || says(&log, "registered"));
    consul.signal(Signal::SIGSTOP);
    let start = Instant::now();
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    // Two tries of half a second, and a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    consul.signal(Signal::SIGCONT);
}

#[test]
fn an_agent_with_too_many_connections_is_an_outage_that_ends_when_there_is_room() {
    let limits = json!({"limits": {"http_max_conns_per_client": 4}});
    let Some(consul) = Consul::with("an_agent_with_too_many_connections_is_an_outage", &limits) else {
        return;
    };
    let place = Place::new();
    let (mut wrapper, log) = wrapper_at(&place, &consul.url(), "log", &["--interval=15"]);
    wait_until("the registration", || says(&log, "registered"));
    // The wrapper gives its own up between two heartbeats: others may need it.
    let mut connections = Vec::new();
    wait_until("as many connections as it takes", || {
        let connection = Connection::try_open(consul.address());
        let leader = Request::new("GET", "/v1/status/leader");
        connections.extend(connection.ok().and_then(|mut connection| {
            let is_taken = connection.try_exchange(&leader).is_ok();
            is_taken.then_some(connection)
        }));
        says(&log, "cannot renew the registration")
    });
    assert!(!wrapper.has_ended());
    drop(connections);
    wait_until("the registration", || says(&log, "renewed the registration again"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
}
