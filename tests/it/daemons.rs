//! Commands that put what they run into the background.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::support::{Place, children_of, holds_for, is_there, status_of, wait_for, wait_until};

/// Forks a daemon away, as `apachectl start` does, and ends with 0. The daemon ends with 5 when asked to.
const FORKS_AWAY: &str = "setsid sh -c 'trap \"exit 5\" TERM; echo $$ >pid; while :; do sleep 0.1; done' &
    until [ -s pid ]; do sleep 0.01; done";

/// The daemon, which is killed at the end of a test.
struct Daemon(Pid);

impl Daemon {
    fn of(place: &Place) -> Self {
        let file = place.path().join("pid");
        let text = wait_for("the pid file", || {
            std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        });
        Self(Pid::from_raw(text.trim().parse().unwrap()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

#[test]
fn a_command_that_leaves_a_daemon_behind_is_told_what_to_do_instead() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=forker"]);
    // A file for what is said: the daemon keeps a pipe open.
    let log = place.path().join("log");
    wrapper.command.stderr(std::fs::File::create(&log).unwrap());
    let status = wrapper.command.args(["sh", "-c", FORKS_AWAY]).stdin(Stdio::null()).status().unwrap();
    let daemon = Daemon::of(&place);
    assert!(status.success());
    assert!(status_of(daemon.0, "Pid").is_some(), "it has to live on");
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(&format!("pid={} name=\"sh\"", daemon.0)) && log.contains("foreground"), "{log}");
}

#[test]
fn a_command_that_leaves_nobody_behind_is_told_nothing() {
    let place = Place::new();
    let output = place.wrapper(&["--id=plain"]).output(&["sh", "-c", "true & wait"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_daemon_is_followed_by_its_pid_file() {
    let place = Place::new();
    let options = ["--id=followed", "--pid-file=pid", "--interval=3"];
    let mut wrapper = place.wrapper(&options).start(&["sh", "-c", FORKS_AWAY]);
    let daemon = Daemon::of(&place);
    wait_until("the adoption", || children_of(wrapper.pid()) == [daemon.0]);
    holds_for(std::time::Duration::from_secs(4), "being listed", || place.lists("followed"));
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().code(), Some(5));
    assert_eq!(place.events(), ["join followed", "remove followed"]);
}

#[test]
fn the_end_of_a_followed_daemon_is_ours() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=followed", "--pid-file=pid"]).start(&["sh", "-c", FORKS_AWAY]);
    let daemon = Daemon::of(&place);
    wait_until("the adoption", || children_of(wrapper.pid()) == [daemon.0]);
    // From here on it is known to be followed.
    wait_until("the registration", || place.lists("followed"));
    kill(daemon.0, Signal::SIGKILL).unwrap();
    let status = wrapper.wait();
    assert!(status.signal() == Some(libc::SIGKILL) || status.success(), "{status:?}");
}

#[test]
fn a_pid_file_that_names_a_stranger_is_not_believed() {
    let place = Place::new();
    std::fs::write(place.path().join("pid"), "1\n").unwrap();
    let output = place.wrapper(&["--id=stale", "--pid-file=pid"]).output(&["sh", "-c", "exit 0"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("names no process that it left"), "{output:?}");
}

#[test]
fn a_real_nginx_is_followed_and_stops_gracefully() {
    if !is_there("nginx", "a_real_nginx_is_followed_and_stops_gracefully") {
        return;
    }
    let place = Place::new();
    let root = place.path().display();
    let config = format!(
        "pid {root}/nginx.pid; error_log {root}/error.log; events {{}}
        http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
               uwsgi_temp_path {root}/d; scgi_temp_path {root}/e; server {{ listen unix:{root}/socket; }} }}"
    );
    let file = place.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let pid_file = format!("--pid-file={root}/nginx.pid");
    let nginx = ["nginx", "-e", "stderr", "-c", file.to_str().unwrap()];
    for (options, words) in [
        (&["--id=nginx", "--stop-signal=QUIT", &pid_file][..], nginx.to_vec()),
        (&["--id=nginx", "--stop-signal=QUIT"], [&nginx[..], &["-g", "daemon off;"]].concat()),
    ] {
        let mut wrapper = place.wrapper(options).start(&words);
        wait_until("nginx and its registration", || {
            place.lists("nginx") && place.path().join("socket").exists()
        });
        wait_until("nginx itself", || {
            let name = children_of(wrapper.pid()).first().and_then(|pid| status_of(*pid, "Name"));
            name.as_deref() == Some("nginx")
        });
        wrapper.signal(Signal::SIGTERM);
        assert_eq!(wrapper.wait().code(), Some(0));
        assert!(!place.lists("nginx"));
    }
}
