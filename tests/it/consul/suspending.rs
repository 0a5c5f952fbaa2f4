//! A service that is not healthy stays at its agent, which says so, and why.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::{INTERVAL, lists, wrapper_at};
use crate::support::consul::Consul;
use crate::support::{Place, Running, holds_for, says, wait_until};

const OFTEN: [&str; 3] = ["--name=web1", "--check-interval=100ms", "--check-fall=2"];
const WHILE_OK: &str = "--check=exec:test -e ok";

fn start(place: &Place, consul: &Consul, name: &str, more: &[&str]) -> (Running, PathBuf) {
    wrapper_at(place, &consul.url(), name, &[&OFTEN[..], more].concat())
}

/// One that is healthy for as long as the returned file is there, and listed.
fn healthy(place: &Place, consul: &Consul) -> (Running, PathBuf) {
    let ok = place.path().join("ok");
    fs::write(&ok, "").unwrap();
    let (wrapper, _) = start(place, consul, "log", &[WHILE_OK]);
    wait_until("the registration", || consul.passing("web1") == 1);
    (wrapper, ok)
}

/// The one check of the service, as its agent has it.
fn check(consul: &Consul) -> Value {
    let checks = consul.ask("GET", "/v1/agent/checks").json();
    let mut of_it = checks.as_object().unwrap().values().filter(|check| check["ServiceID"] == "web1");
    let first = of_it.next().cloned().unwrap_or_default();
    assert!(of_it.next().is_none(), "{checks}");
    first
}

fn is_critical(consul: &Consul, why: &str) -> bool {
    let check = check(consul);
    check["Status"] == "critical" && check["Output"].as_str().unwrap().starts_with(why)
}

fn become_unhealthy(consul: &Consul, ok: &Path) {
    fs::remove_file(ok).unwrap();
    wait_until("the verdict", || is_critical(consul, "unhealthy: "));
}

#[test]
fn an_unhealthy_service_stays_and_is_critical_and_says_why() {
    let Some(consul) = Consul::start("an_unhealthy_service_stays_and_is_critical") else { return };
    let place = Place::new();
    let (mut wrapper, log) = start(&place, &consul, "log", &[WHILE_OK]);
    let ok = place.path().join("ok");
    holds_for(INTERVAL / 3, "not being registered", || consul.meta("web1").is_null());
    fs::write(&ok, "").unwrap();
    wait_until("the registration", || consul.passing("web1") == 1);
    let (child, before) = (wrapper.child(), consul.meta("web1"));
    become_unhealthy(&consul, &ok);
    assert_eq!(check(&consul)["Output"], "unhealthy: exec: its check exits with 1");
    wait_until("the catalog", || consul.passing("web1") == 0);
    holds_for(2 * INTERVAL, "being there, and not listed", || {
        consul.meta("web1") == before
            && is_critical(&consul, "unhealthy: ")
            && consul.passing("web1") == 0
            && !lists(&place, &consul)
    });
    fs::write(&ok, "").unwrap();
    wait_until("its return", || consul.passing("web1") == 1 && lists(&place, &consul));
    assert_eq!((consul.meta("web1"), wrapper.child()), (before, child));
    assert_eq!(check(&consul)["Output"], "");
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
    let said = fs::read_to_string(&log).unwrap();
    for message in [" registered", " marked as unhealthy", " listed again", " deregistered"] {
        assert_eq!(said.matches(message).count(), 1, "{message}: {said}");
    }
}

#[test]
fn a_stopped_command_is_critical_and_its_id_is_not_free_before_its_wrapper_is_dead() {
    let Some(consul) = Consul::start("a_stopped_command_is_critical") else { return };
    let place = Place::new();
    let (mut first, _) = start(&place, &consul, "log1", &["--check=exec:true"]);
    wait_until("the registration", || consul.passing("web1") == 1);
    let before = consul.meta("web1");
    kill(first.child(), Signal::SIGSTOP).unwrap();
    wait_until("the verdict", || is_critical(&consul, "unhealthy: the command is stopped"));
    let (_second, log) = start(&place, &consul, "log2", &["--check=exec:true"]);
    wait_until("the second", || says(&log, "waiting until the id is free"));
    holds_for(2 * INTERVAL, "the first's entry", || consul.meta("web1") == before);
    kill(first.child(), Signal::SIGCONT).unwrap();
    wait_until("its return", || consul.passing("web1") == 1);
    kill(first.child(), Signal::SIGSTOP).unwrap();
    wait_until("the verdict", || is_critical(&consul, "unhealthy: the command is stopped"));
    first.signal(Signal::SIGKILL);
    first.wait();
    wait_until("the heir", || consul.meta("web1") != before && consul.passing("web1") == 1);
}

#[test]
fn one_whose_wrapper_is_killed_is_critical_by_consuls_own_rule() {
    let Some(consul) = Consul::start("one_whose_wrapper_is_killed_is_critical") else { return };
    let place = Place::new();
    let (mut wrapper, ok) = healthy(&place, &consul);
    become_unhealthy(&consul, &ok);
    wrapper.signal(Signal::SIGKILL);
    wrapper.wait();
    wait_until("Consul's verdict", || {
        check(&consul)["Output"].as_str().is_some_and(|output| output.starts_with("TTL expired"))
    });
    assert!(is_critical(&consul, "TTL expired"), "{}", check(&consul));
}

#[test]
fn a_stop_takes_out_one_that_is_critical() {
    let Some(consul) = Consul::start("a_stop_takes_out_one_that_is_critical") else { return };
    let place = Place::new();
    let (mut wrapper, ok) = healthy(&place, &consul);
    become_unhealthy(&consul, &ok);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
}

#[test]
fn an_agent_that_forgot_an_unhealthy_service_is_told_of_it_when_it_is_healthy() {
    let Some(mut consul) = Consul::start("an_agent_that_forgot_an_unhealthy_service") else { return };
    let place = Place::new();
    let (_wrapper, ok) = healthy(&place, &consul);
    become_unhealthy(&consul, &ok);
    consul.kill();
    consul.restart();
    wait_until("word of it again", || is_critical(&consul, "unhealthy: "));
    assert_eq!(consul.passing("web1"), 0);
    consul.kill();
    consul.restart_empty();
    holds_for(2 * INTERVAL, "not being registered", || consul.meta("web1").is_null());
    fs::write(&ok, "").unwrap();
    wait_until("the registration", || consul.passing("web1") == 1);
}

#[test]
fn one_that_moves_to_another_port_while_it_is_critical_comes_back_with_that() {
    let Some(consul) = Consul::start("one_that_moves_to_another_port_while_it_is_critical") else { return };
    let place = Place::new();
    let script = "
import signal, socket, time
sockets = []
def move(*_):
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); sockets.append(s)
    if len(sockets) > 1: sockets.pop(0).close()
move()
signal.signal(signal.SIGUSR1, move)
while True: time.sleep(1)";
    fs::write(place.path().join("ok"), "").unwrap();
    let url = consul.url();
    let options = [&["--registry", &url, "--id=web1", "--interval=3", "--port=auto", WHILE_OK], &OFTEN[..]];
    let log = place.path().join("log");
    let wrapper = place.wrapper(&options.concat()).start_with_log(&log, &["python3", "-c", script]);
    wait_until("the registration", || consul.passing("web1") == 1);
    let before = consul.meta("web1")["port"].clone();
    become_unhealthy(&consul, &place.path().join("ok"));
    kill(wrapper.child(), Signal::SIGUSR1).unwrap();
    wait_until("the end of the old entry", || consul.meta("web1").is_null());
    fs::write(place.path().join("ok"), "").unwrap();
    wait_until("its return", || consul.passing("web1") == 1);
    assert_ne!(consul.meta("web1")["port"], before);
}

#[test]
fn beside_a_registry_that_cannot_say_so_it_leaves_that_and_returns_to_both() {
    let Some(consul) = Consul::start("beside_a_registry_that_cannot_say_so") else { return };
    let place = Place::new();
    let ok = place.path().join("ok");
    fs::write(&ok, "").unwrap();
    let file = place.url();
    let (mut wrapper, _) = start(&place, &consul, "log", &[WHILE_OK, "--registry", &file]);
    let is_in = |count| consul.passing("web1") == count && place.services().len() == count;
    wait_until("the registrations", || is_in(1));
    become_unhealthy(&consul, &ok);
    wait_until("the withdrawal", || is_in(0));
    holds_for(INTERVAL, "being there at Consul only", || {
        is_in(0) && is_critical(&consul, "unhealthy: ") && !consul.meta("web1").is_null()
    });
    fs::write(&ok, "").unwrap();
    wait_until("its return", || is_in(1));
    become_unhealthy(&consul, &ok);
    wait_until("the withdrawal", || is_in(0));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
    assert_eq!(place.events(), ["join web1", "remove web1", "join web1", "remove web1"]);
}
