//! `--name`, `--address` and `--port`: what kind of service it is, and where it can be reached.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::peer::{Asked, Peer, agree};
use crate::support::{Place, WRAPPER, Wrapper, is_root, is_there, wait_until};

/// The metadata of a service that was started with these options.
#[track_caller]
fn metadata(options: &[&str]) -> Value {
    let place = Place::new();
    let _wrapper = place.wrapper(&[&["--id=web1"], options].concat()).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("web1"));
    place.raxsr_json(&["services", "get", "web1"])["metadata"].clone()
}

/// The `host` that a registry over HTTP is told.
#[track_caller]
fn host_told(address: &str, url: impl Fn(&Peer) -> String) -> Value {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let mut wrapper = place.wrapper(&["--id=web1", address]);
    wrapper.command.env("SERVICE_REGISTRY_URL", url(&peer)).env("HOME", place.path());
    let _wrapper = wrapper.start(&["sleep", "600"]);
    wait_until("the registration", || peer.count(Asked::is_registration) > 0);
    let asked = peer.asked().into_iter().find(Asked::is_registration).unwrap();
    asked.json()["metadata"]["host"].clone()
}

/// Asserts that this was refused in a line and a hint, before anything was started.
#[track_caller]
fn was_refused(place: &Place, output: &Output, message: &str, hint: &str) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(125), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0], format!("service-registry-wrapper: {message}"));
    assert!(lines[1].starts_with("hint: ") && lines[1].contains(hint), "{text}");
    assert!(!place.path().join("started").exists(), "{text}: something was started");
}

#[test]
fn an_address_is_given_or_taken_from_an_interface_or_a_network() {
    for (address, expected) in [
        ("--address=lo", "127.0.0.1"),
        ("--address=127.0.0.0/8", "127.0.0.1"),
        ("--address=127.9.9.9/8", "127.0.0.1"),
        ("--address=::1", "::1"),
        ("--address=FD00:0::7", "fd00::7"),
        ("--address=192.0.2.77", "192.0.2.77"),
        ("--address=web1.example", "web1.example"),
    ] {
        assert_eq!(metadata(&[address]), json!({"host": expected}), "{address}");
    }
}

#[test]
fn the_route_is_the_one_to_the_registry() {
    assert_eq!(host_told("--address=route", Peer::url), "127.0.0.1");
    let by_name = |peer: &Peer| peer.url().replace("127.0.0.1", "localhost");
    assert_eq!(host_told("--address=route", by_name), "127.0.0.1");
    assert_eq!(host_told("--address=lo", Peer::url), "127.0.0.1");
}

#[test]
fn who_looks_a_service_up_gets_its_address_and_port() {
    let place = Place::new();
    let options =
        ["--id=web1", "--name=api", "--address=::1", "--port=8000", "--metadata=address=old,ip=old"];
    let _wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("web1"));
    let found = place.raxsr(&["services", "resolve", "web1", "-f", "nginx"]);
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "server [::1]:8000;\n");
    let service = place.raxsr_json(&["services", "get", "web1"]);
    let expected = json!({"name": "api", "host": "::1", "address": "::1", "port": "8000", "ip": "old"});
    assert_eq!(service["metadata"], expected);
}

#[test]
fn an_option_beats_the_metadata() {
    let options =
        ["--name=api", "--address=lo", "--port=1", "--metadata=name=x,host=x,port=2", "-m", "port=3,rack=r1"];
    let expected = json!({"name": "api", "host": "127.0.0.1", "port": "1", "rack": "r1"});
    assert_eq!(metadata(&options), expected);
}

#[test]
fn without_the_options_there_is_nothing_in_the_metadata() {
    assert_eq!(metadata(&[]), json!({}));
}

#[test]
fn each_has_its_variable_and_what_kubernetes_sets_is_no_port() {
    for (port, expected) in [
        ("8000", json!({"name": "api", "host": "127.0.0.1", "port": "8000"})),
        ("tcp://10.0.0.1:80", json!({"name": "api", "host": "127.0.0.1"})),
    ] {
        let place = Place::new();
        let mut wrapper = place.wrapper(&["--id=web1"]);
        wrapper
            .command
            .env("SERVICE_REGISTRY_NAME", "api")
            .env("SERVICE_REGISTRY_ADDRESS", "lo")
            .env("SERVICE_REGISTRY_PORT", port);
        let _wrapper = wrapper.start(&["sleep", "600"]);
        wait_until("the registration", || place.lists("web1"));
        assert_eq!(place.raxsr_json(&["services", "get", "web1"])["metadata"], expected);
    }
}

#[test]
fn what_is_no_address_is_told_and_nothing_is_started() {
    let place = Place::new();
    for (address, message, hint) in [
        ("203.0.113.0/24", "no address of this machine is in `203.0.113.0/24`", "127.0.0.1 (lo)"),
        ("10.0.0.0/33", "`10.0.0.0/33` is not a network", "10.0.0.0/8"),
        (
            "10.0.0.256",
            "`10.0.0.256` is not an address, nor an interface of this machine, nor a host name",
            "host names have",
        ),
        ("", "`` is not an address, nor an interface of this machine, nor a host name", "host names have"),
        ("0.0.0.0", "nobody can connect to `0.0.0.0`", "--address=eth0"),
    ] {
        let output = place.wrapper(&[&format!("--address={address}")]).output(&["touch", "started"]);
        was_refused(&place, &output, &format!("--address: {message}"), hint);
    }
    assert!(!place.registry_file().exists());
}

#[test]
fn a_route_needs_a_registry_with_an_address() {
    let place = Place::new();
    let file = format!("--registry={}", place.url());
    let no_host = format!("--address: `route` leads to the registry's host, and {} has none", place.url());
    for (registry, message) in [
        (&*file, &*no_host),
        (
            "--registry=http://me:sesame@registry.example/v1.0",
            "--address: `route` needs the registry's IP address, and `registry.example` is a name",
        ),
    ] {
        let output = place.wrapper(&[registry, "--address=route"]).output(&["touch", "started"]);
        was_refused(&place, &output, message, "name the interface or the network instead");
    }
}

#[test]
fn an_interface_without_an_address_is_told_and_nothing_is_started() {
    const TEST: &str = "an_interface_without_an_address_is_told_and_nothing_is_started";
    if !is_root(TEST) || !is_there("unshare", TEST) {
        return;
    }
    let place = Place::new();
    let mut command = place.program("unshare");
    // The loopback interface of a new network is down.
    command.args(["--net", WRAPPER, "--address=lo"]);
    let output = Wrapper { command }.output(&["touch", "started"]);
    let message = "--address: interface `lo` has no address to be reached at";
    was_refused(&place, &output, message, "this machine has no addresses");
}

#[test]
fn ports_names_and_limits_are_checked() {
    let place = Place::new();
    let pairs = (0..20).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let too_long = format!("--name={}", "x".repeat(256));
    for (options, expected) in [
        (&["--port=0"][..], "it has to be 1 to 65535, or `auto`"),
        (&["--port=65536"], "it has to be 1 to 65535, or `auto`"),
        (&["--port=http"], "--port"),
        (&["--name="], "--name"),
        (&[&too_long], "1 to 255"),
        (&["--name=api", "--metadata", &pairs], "--metadata: 21 metadata pairs"),
    ] {
        let output = place.wrapper(options).output(&["touch", "started"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{options:?}: {text}");
        assert!(text.contains(expected) && text.lines().count() <= 2, "{options:?}: {text}");
        assert!(!place.path().join("started").exists(), "{options:?}: something was started");
    }
}
