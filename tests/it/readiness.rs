//! A service is listed when its command is ready, and not before.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::support::{Place, WRAPPER, holds_for, is_root, is_there, says, wait_for, wait_until};

/// Long enough for a mistake to show.
const A_WHILE: Duration = Duration::from_millis(700);

/// A Python program that listens on a port of its own, and writes it to the file `port`, when the file `go` is there;
/// and that listens on another instead when it gets SIGUSR1.
const LISTENER: &str = "
import os, signal, socket, time
def listen(*_):
    global listener
    listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen()
    open('new', 'w').write(str(listener.getsockname()[1])); os.rename('new', 'port')
signal.signal(signal.SIGUSR1, listen)
while not os.path.exists('go'): time.sleep(0.01)
listen()
while True: time.sleep(1)";

/// Asserts that `id` is not listed, and is when the file `go` has been made.
#[track_caller]
fn is_listed_at_go(place: &Place, id: &str) {
    holds_for(A_WHILE, "not being listed", || !place.lists(id));
    fs::write(place.path().join("go"), "").unwrap();
    wait_until("the registration", || place.lists(id));
}

fn port(place: &Place) -> String {
    wait_for("the port", || fs::read_to_string(place.path().join("port")).ok())
}

/// The port of a service, if it is listed.
fn registered_port(place: &Place, id: &str) -> Option<String> {
    let list = place.raxsr_json(&["services", "list"]);
    let service = list["values"].as_array()?.iter().find(|service| service["id"] == id)?;
    Some(service["metadata"]["port"].as_str()?.to_owned())
}

#[test]
fn listening_is_seen_without_being_told_where() {
    let place = Place::new();
    let _wrapper =
        place.wrapper(&["--id=web1", "--ready-when=listening"]).start(&["python3", "-c", LISTENER]);
    is_listed_at_go(&place, "web1");
}

#[test]
fn listening_is_seen_of_who_the_command_has_started_and_of_orphans() {
    let place = Place::new();
    fs::write(place.path().join("listener.py"), LISTENER).unwrap();
    let script = "sh -c 'python3 listener.py & exit' & sleep 600";
    let _wrapper = place.wrapper(&["--id=web1", "--ready-when=listening"]).start(&["sh", "-c", script]);
    is_listed_at_go(&place, "web1");
}

#[test]
fn listening_is_seen_in_another_network() {
    let test = "listening_is_seen_in_another_network";
    if !is_root(test) || !is_there("unshare", test) || !is_there("ip", test) {
        return;
    }
    let place = Place::new();
    fs::write(place.path().join("listener.py"), LISTENER).unwrap();
    let script = "ip link set lo up; exec python3 listener.py";
    let words = ["unshare", "--net", "sh", "-c", script];
    let _wrapper = place.wrapper(&["--id=web1", "--ready-when=listening"]).start(&words);
    is_listed_at_go(&place, "web1");
}

#[test]
fn a_port_can_be_named_and_one_that_is_never_opened_is_told_once() {
    let place = Place::new();
    fs::write(place.path().join("go"), "").unwrap();
    let log = place.path().join("log");
    let options = ["--id=web1", "--ready-when=listening:1", "--ready-timeout=500ms"];
    let wrapper = place.wrapper(&options).start_with_log(&log, &["python3", "-c", LISTENER]);
    let port = port(&place);
    wait_until("the message", || says(&log, "is not ready in time"));
    holds_for(A_WHILE, "not being listed", || !place.lists("web1"));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains(&format!("it listens not on port 1 but on {port}")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(kill(wrapper.child(), None).is_ok());
}

#[test]
fn one_that_is_never_ready_is_stopped_where_registration_must_succeed() {
    let place = Place::new();
    let options = ["--id=web1", "--ready-when=exec:false", "--ready-timeout=300ms", "--abort-on-failure"];
    let script = "trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done";
    let output = place.wrapper(&options).output(&["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(100), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "asked\n");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("exec:false: its check exits with 1"), "{told}");
    assert!(place.events().is_empty());
}

#[test]
fn a_command_of_the_users_says_when_in_the_environment_of_the_command() {
    let place = Place::new();
    let condition = r#"exec:test -e go && test "$MINE" = 1 && test -z "$SERVICE_REGISTRY_API_KEY""#;
    let options = ["--id=web1", "--ready-when", condition];
    let mut wrapper = place.wrapper(&options);
    wrapper.command.env("MINE", "1").env("SERVICE_REGISTRY_API_KEY", "sesame");
    wrapper.command.env("SERVICE_REGISTRY_USERNAME", "me");
    let _wrapper = wrapper.start(&["sleep", "600"]);
    is_listed_at_go(&place, "web1");
}

#[test]
fn a_connection_and_a_page_say_when() {
    let place = Place::new();
    let script =
        "while ! test -e go; do sleep 0.02; done; exec python3 -m http.server --bind 127.0.0.1 $PORT";
    let options = ["--id=web1", "--port-env=PORT", "--ready-when=exec:test -e go"];
    let mut first = place.wrapper(&options).start(&["sh", "-c", script]);
    is_listed_at_go(&place, "web1");
    let port = registered_port(&place, "web1").unwrap();
    for (id, condition) in [
        ("tcp1", format!("tcp:{port}")),
        ("tcp2", format!("tcp:localhost:{port}")),
        ("page", format!("http://127.0.0.1:{port}/go")),
    ] {
        let options = ["--id", id, "--ready-when", &condition];
        let _other = place.wrapper(&options).start(&["sleep", "600"]);
        wait_until("the registration", || place.lists(id));
    }
    let missing = format!("http://127.0.0.1:{port}/missing");
    let options = ["--id=missing", "--ready-when", &missing, "--ready-timeout=1", "--abort-on-failure"];
    let output = place.wrapper(&options).output(&["sleep", "600"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/missing answers with 404"), "{output:?}");
    first.signal(Signal::SIGTERM);
    first.wait();
}

#[test]
fn the_command_says_it_to_a_service_manager_that_is_not_there() {
    let place = Place::new();
    let script = "
import os, socket, time
while not os.path.exists('go'): time.sleep(0.01)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:]); s.send(b'STATUS=up\\nREADY=1'); time.sleep(600)";
    let _wrapper = place.wrapper(&["--id=web1", "--ready-when=notify"]).start(&["python3", "-c", script]);
    is_listed_at_go(&place, "web1");
    // Nobody else is offered one.
    let output = place.wrapper(&["--id=web2"]).output(&["sh", "-c", "echo $NOTIFY_SOCKET"]);
    assert_eq!(output.stdout, b"\n");
}

#[test]
fn the_command_says_it_on_a_descriptor() {
    for number in ["3", "9"] {
        let place = Place::new();
        let script = format!(
            "while ! test -e go; do sleep 0.02; done; echo >&{number}; echo more >&{number}; exec sleep 600"
        );
        let condition = format!("--ready-when=fd:{number}");
        let wrapper = place.wrapper(&["--id=web1", &condition]).start(&["sh", "-c", &script]);
        is_listed_at_go(&place, "web1");
        // It may go on writing, and nobody else has the descriptor.
        holds_for(A_WHILE, "being there", || kill(wrapper.child(), None).is_ok() && place.lists("web1"));
    }
    let output = Place::new().wrapper(&["--id=web1", "--ready-when=fd:3"]).output(&["/no/such/command"]);
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn a_descriptor_that_there_cannot_be_is_told_and_nothing_is_started() {
    let place = Place::new();
    let script = format!("ulimit -n 64; exec {WRAPPER} --id=web1 --ready-when=fd:64 touch started");
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(125), 1), "{text}");
    assert!(text.contains("--ready-when: descriptor 64 is above the limit of open files"), "{text}");
    assert!(!place.path().join("started").exists());
}

#[test]
fn all_conditions_have_to_hold() {
    let place = Place::new();
    let options = ["--id=web1", "--ready-when=after:100ms,exec:test -e go", "--ready-when=exec:test -e on"];
    let _wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    holds_for(A_WHILE, "not being listed", || !place.lists("web1"));
    fs::write(place.path().join("go"), "").unwrap();
    holds_for(A_WHILE, "not being listed", || !place.lists("web1"));
    fs::write(place.path().join("on"), "").unwrap();
    wait_until("the registration", || place.lists("web1"));
}

#[test]
fn a_stop_before_it_is_ready_is_passed_on_and_leaves_no_trace() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=web1", "--ready-when=exec:sleep 600"]).start(&["sleep", "600"]);
    wrapper.child();
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
    wait_until("nobody being left", || wrapper.has_left_nobody());
    assert!(place.events().is_empty());
    assert_eq!(wrapper.stderr(), "");
}

#[test]
fn a_port_that_is_found_is_registered_and_followed() {
    let place = Place::new();
    let options = ["--id=web1", "--port=auto", "--metadata=zone=a,at=x:{port}", "--tags={port}"];
    let wrapper = place.wrapper(&options).start(&["python3", "-c", LISTENER]);
    is_listed_at_go(&place, "web1");
    let before = port(&place);
    assert_eq!(registered_port(&place, "web1"), Some(before.clone()));
    kill(wrapper.child(), Signal::SIGUSR1).unwrap();
    let after = wait_for("another port", || Some(port(&place)).filter(|port| *port != before));
    wait_until("the other port", || registered_port(&place, "web1").as_ref() == Some(&after));
    assert_eq!(place.events(), ["join web1", "remove web1", "join web1"]);
    let service = place.raxsr_json(&["services", "get", "web1"]);
    assert_eq!(service["metadata"]["zone"], "a");
    assert_eq!(service["metadata"]["at"], format!("x:{after}"));
    assert_eq!(service["tags"], serde_json::json!([after]));
}

#[test]
fn a_free_port_is_told_the_command_and_registered() {
    let place = Place::new();
    let words = ["sh", "-c", "echo $PORT $OTHER; exec sleep 600"];
    let mut wrapper = place.wrapper(&["--id=web1", "--port-env=PORT"]);
    wrapper.command.env("PORT", "1").env("OTHER", "2");
    let mut wrapper = wrapper.start(&words);
    wait_until("the registration", || place.lists("web1"));
    let port = registered_port(&place, "web1").unwrap();
    assert!(port.parse::<u16>().unwrap() > 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut wrapper.process.stdout.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, format!("{port} 2\n"));
    let output = place.wrapper(&["--id=web2", "--port-env=NEW_ONE", "--port=8000"]).output(&["env"]);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("NEW_ONE=8000\n"), "{output:?}");
}

#[test]
fn a_crash_loop_leaves_no_trace_before_its_minimum_uptime() {
    let place = Place::new();
    for _ in 0..5 {
        let output =
            place.wrapper(&["--id=crash", "--min-uptime=30s"]).output(&["sh", "-c", "sleep 0.1; exit 7"]);
        assert_eq!(output.status.code(), Some(7));
        assert!(output.stderr.is_empty());
    }
    assert!(place.events().is_empty());
    let _wrapper = place.wrapper(&["--id=crash", "--min-uptime=1s"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("crash"));
}
