//! A service is listed for as long as it is well.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::footprint::stays_small;
use crate::support::{Place, Running, holds_for, is_there, says, wait_for, wait_until};

const OFTEN: [&str; 4] = ["--id=web1", "--check-interval=100ms", "--check-fall=2", "--log-level=warn"];

fn start(place: &Place, options: &[&str], words: &[&str]) -> Running {
    place.wrapper(&[&OFTEN, options].concat()).start_with_log(&place.path().join("log"), words)
}

fn log(place: &Place) -> String {
    fs::read_to_string(place.path().join("log")).unwrap()
}

#[test]
fn an_unhealthy_service_leaves_and_comes_back_and_its_command_goes_on() {
    let place = Place::new();
    let ok = place.path().join("ok");
    let mut wrapper = start(&place, &["--check=exec:test -e ok"], &["sleep", "600"]);
    holds_for(Duration::from_millis(600), "not being listed", || !place.lists("web1"));
    fs::write(&ok, "").unwrap();
    wait_until("the registration", || place.lists("web1"));
    let child = wrapper.child();
    fs::remove_file(&ok).unwrap();
    wait_until("the withdrawal", || !place.lists("web1"));
    fs::write(&ok, "").unwrap();
    wait_until("its return", || place.lists("web1"));
    assert_eq!(place.events(), ["join web1", "remove web1", "join web1"]);
    assert_eq!(wrapper.child(), child);
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
    let said = log(&place);
    let why = "exec:test -e ok: its check exits with 1";
    assert_eq!(said.matches("is not healthy: not listed until it is").count(), 2, "{said}");
    assert_eq!(said.matches(why).count(), 2, "{said}");
    assert_eq!(said.matches("is healthy again after=").count(), 2, "{said}");
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn a_stopped_command_is_not_healthy_whatever_still_accepts_connections() {
    let place = Place::new();
    let script =
        "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); time.sleep(600)";
    let wrapper = start(&place, &["--check=listening"], &["python3", "-c", script]);
    wait_until("the registration", || place.lists("web1"));
    kill(wrapper.child(), Signal::SIGSTOP).unwrap();
    wait_until("the withdrawal", || !place.lists("web1"));
    assert!(log(&place).contains("the command is stopped"));
    kill(wrapper.child(), Signal::SIGCONT).unwrap();
    wait_until("its return", || place.lists("web1"));
}

#[test]
fn a_command_that_does_not_listen_any_more_is_not_healthy() {
    let place = Place::new();
    let script = "
import signal, socket, time
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
signal.signal(signal.SIGUSR1, lambda *_: s.close())
while True: time.sleep(1)";
    let wrapper = start(&place, &["--check=listening"], &["python3", "-c", script]);
    wait_until("the registration", || place.lists("web1"));
    kill(wrapper.child(), Signal::SIGUSR1).unwrap();
    wait_until("the withdrawal", || !place.lists("web1"));
    assert!(log(&place).contains("listening: it listens on no TCP port"), "{}", log(&place));
}

#[test]
fn a_check_that_hangs_is_cut_off_with_all_that_it_has_started() {
    let place = Place::new();
    let check = "--check=exec:echo $$ >>pids; sleep 600 & sleep 600; echo";
    let wrapper = start(&place, &[check, "--check-timeout=100ms"], &["sleep", "600"]);
    wait_until("the verdict", || says(&place.path().join("log"), "no answer within 100ms"));
    let pids = fs::read_to_string(place.path().join("pids")).unwrap();
    for pid in pids.lines().map(|pid| Pid::from_raw(pid.parse().unwrap())).take(2) {
        wait_until("the end of its group", || nix::sys::signal::killpg(pid, None).is_err());
    }
    assert!(kill(wrapper.child(), None).is_ok() && !place.lists("web1"));
}

#[test]
fn a_check_that_hangs_delays_neither_heartbeats_nor_the_end() {
    let place = Place::new();
    let check = "--check=exec:test -e hangs || exit 0; echo $$ >pid; sleep 600; echo";
    let options = ["--id=web1", "--interval=3", "--check-interval=1m", "--check-timeout=1m", check];
    fs::write(place.path().join("hangs"), "").unwrap();
    let mut wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    let pid =
        wait_for("the check", || fs::read_to_string(place.path().join("pid")).ok()?.trim().parse().ok());
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
    wait_until("the end of the check", || nix::sys::signal::killpg(Pid::from_raw(pid), None).is_err());

    fs::remove_file(place.path().join("hangs")).unwrap();
    fs::remove_file(place.path().join("pid")).unwrap();
    let options = ["--id=web1", "--interval=3", "--check-interval=10s", "--check-timeout=10s", check];
    let _wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("web1"));
    fs::write(place.path().join("hangs"), "").unwrap();
    wait_until("a check that hangs", || place.path().join("pid").exists());
    holds_for(Duration::from_secs(7), "being listed", || place.lists("web1"));
}

#[test]
fn an_unhealthy_command_is_stopped_where_that_is_wanted() {
    let place = Place::new();
    let script = "trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done";
    let options = [&OFTEN[..], &["--check=exec:test ! -e bad", "--on-unhealthy=stop"]].concat();
    let mut wrapper = place.wrapper(&options).start(&["sh", "-c", script]);
    wait_until("the registration", || place.lists("web1"));
    fs::write(place.path().join("bad"), "").unwrap();
    assert_eq!(wrapper.wait().code(), Some(100));
    assert_eq!(place.events(), ["join web1", "remove web1"]);
    assert!(wrapper.stderr().contains("is not healthy: stopping the child"));
}

#[test]
fn the_commands_status_is_not_lost_among_those_of_checks() {
    let place = Place::new();
    let options = ["--id=web1", "--check-interval=100ms", "--check=exec:true,exec:exit 0"];
    for _ in 0..3 {
        let output = place.wrapper(&options).output(&["sh", "-c", "sleep 0.5; exit 7"]);
        assert_eq!(output.status.code(), Some(7));
    }
}

#[test]
fn nginx_is_listed_while_its_page_is_there() {
    if !is_there("nginx", "nginx_is_listed_while_its_page_is_there") {
        return;
    }
    let place = Place::new();
    let directory = place.path().display();
    let configuration = format!(
        "pid {directory}/pid; error_log {directory}/error.log; daemon off; events {{}}
         http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
         fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
         server {{ listen 127.0.0.1:PORT; location / {{ return 200; }}
                  location /up {{ if (-f {directory}/down) {{ return 503; }} return 204; }} }} }}"
    );
    fs::write(place.path().join("template"), configuration).unwrap();
    let script = "sed s/PORT/$PORT/ template >conf; exec nginx -c $PWD/conf -e $PWD/error.log";
    // A port of the test's own, as the check has to name it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, check) = (format!("--port={port}"), format!("--check=http://127.0.0.1:{port}/up"));
    let options = [&port, &check, "--port-env=PORT", "--ready-when=listening"];
    let mut wrapper = start(&place, &options, &["sh", "-c", script]);
    wait_until("the registration", || place.lists("web1"));
    fs::write(place.path().join("down"), "").unwrap();
    wait_until("the withdrawal", || !place.lists("web1"));
    assert!(log(&place).contains("/up answers with 503"), "{}", log(&place));
    fs::remove_file(place.path().join("down")).unwrap();
    wait_until("its return", || place.lists("web1"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(!place.lists("web1"));
}

#[test]
fn with_checks_too_a_wrapper_is_one_thread_and_under_a_mebibyte() {
    let place = Place::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, checks) =
        (port.to_string(), format!("--check=listening,tcp:{port},http://127.0.0.1:{port}/,exec:true"));
    let options = ["--id=small", "--interval=3", "--check-interval=100ms", &checks];
    let server = ["python3", "-m", "http.server", "--bind", "127.0.0.1", &port];
    let wrapper = place.wrapper(&options).start_with_log(&place.path().join("log"), &server);
    let mut seen = std::collections::BTreeSet::new();
    wait_until("the registration", || place.lists("small"));
    stays_small(wrapper, |number| {
        let service = place.raxsr_json(&["services", "list"])["values"][0].clone();
        seen.extend(service["last_seen"].as_str().map(str::to_owned));
        seen.len() >= number
    });
}
