//! The wrapper ends as its command ended, or says why there was none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Place, Running, WRAPPER, is_root, wait_until};

#[test]
fn every_exit_code_is_the_commands_own() {
    let place = Place::new();
    for code in 0..=255 {
        let output =
            place.wrapper(&[&format!("--id=code{code}")]).output(&["sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_fatal_signal_is_the_commands_own_and_dumps_core_once() {
    let place = Place::new();
    let not_fatal = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stopping = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    // Two are the C library's own.
    let fatal = (1..=64).filter(|signal| !not_fatal.contains(signal) && !stopping.contains(signal));
    for signal in fatal.filter(|signal| !matches!(signal, 32 | 33)) {
        let output = place.wrapper(&[&format!("--id=signal{signal}")]).output(&[
            "sh",
            "-c",
            &format!("kill -{signal} $$"),
        ]);
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
        assert!(!output.status.core_dumped(), "{output:?}");
    }
}

#[test]
fn as_pid_1_a_fatal_signal_is_128_and_its_number() {
    if !is_root("as_pid_1_a_fatal_signal_is_128_and_its_number") {
        return;
    }
    let place = Place::new();
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("64", 192)] {
        let mut command = place.program("unshare");
        command.args(["--pid", "--fork", WRAPPER, "--id=one", "sh", "-c"]);
        let output = command.arg(format!("kill -{signal} $$")).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn as_pid_1_orphans_are_reaped_and_the_commands_status_is_kept() {
    if !is_root("as_pid_1_orphans_are_reaped_and_the_commands_status_is_kept") {
        return;
    }
    let place = Place::new();
    let mut command = place.program("timeout");
    command.args([
        "60",
        "unshare",
        "--kill-child",
        "--pid",
        "--fork",
        "--mount-proc",
        WRAPPER,
        "--id=one",
        "sh",
        "-c",
    ]);
    // Two hundred grandchildren, orphaned and gone, before the command looks for what is left of them.
    let script = "i=0; while [ $i -lt 200 ]; do (true &) ; i=$((i+1)); done
        until [ $(ls -d /proc/[0-9]* | wc -l) -le 4 ]; do :; done
        grep -l '^State:.*zombie' /proc/[0-9]*/status; exit 7";
    let output = command.arg(script).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    let place = Place::new();
    for command in ["no-such-command", "/no/such/command", "/etc/passwd/x"] {
        let output = place.wrapper(&[]).output(&[command]);
        assert_eq!(output.status.code(), Some(127), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(&format!("service-registry-wrapper: cannot run `{command}`: ")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert!(!place.registry_file().exists(), "something was registered");
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let place = Place::new();
    let file = place.path().join("plain");
    fs::write(&file, "text").unwrap();
    for command in [file.to_str().unwrap(), "/etc"] {
        let output = place.wrapper(&[]).output(&[command]);
        assert_eq!(output.status.code(), Some(126), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("hint: check that it is a file, and that this user may execute it\n"),
            "{text}"
        );
    }
}

#[test]
fn a_script_without_its_interpreter_is_127_and_the_hint_says_so() {
    let place = Place::new();
    let file = place.path().join("script");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let output = place.wrapper(&[]).output(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interpreter"), "{output:?}");
}

#[test]
fn a_script_without_a_first_line_is_the_shells() {
    let place = Place::new();
    let file = place.path().join("script");
    fs::write(&file, "exit 5\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(place.wrapper(&[]).output(&[file.to_str().unwrap()]).status.code(), Some(5));
}

#[test]
fn a_registration_that_must_succeed_and_cannot_is_100_and_stops_the_command() {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    fs::write(place.registry_file(), "no database at all, but long enough to be taken for one".repeat(20))
        .unwrap();
    let mut wrapper = place.wrapper(&["--abort-on-failure", "--id=must"]).start(&["sleep", "600"]);
    assert_eq!(wrapper.wait().code(), Some(100));
    assert!(wrapper.has_left_nobody(), "the command is still there");
    let text = wrapper.stderr();
    assert!(text.contains("cannot register: stopping the child"), "{text}");
    assert!(text.contains("file is not a database") && text.contains("hint=\"move the file away"), "{text}");
}

#[test]
fn an_outage_counts_as_failure_after_so_many_tries() {
    let place = Place::new();
    // No directory can be made where a file is.
    fs::write(place.path().join("state"), "").unwrap();
    let mut wrapper = place
        .wrapper(&["--abort-on-failure", "--retries=2", "--interval=3", "--log-level=debug"])
        .start(&["sleep", "600"]);
    assert_eq!(wrapper.wait().code(), Some(100));
    let text = wrapper.stderr();
    let (before, _) = text.split_once("stopping the child").unwrap();
    assert_eq!(before.matches("request failed").count(), 2, "{text}");
}

#[test]
fn without_it_no_registry_failure_touches_the_command() {
    let place = Place::new();
    fs::write(place.path().join("state"), "").unwrap();
    let log = place.path().join("log");
    let options = ["--retries=1", "--interval=3", "--log-level=debug"];
    let script = "until [ -e told ]; do sleep 0.05; done; exit 9";
    let mut wrapper = place.wrapper(&options).start_with_log(&log, &["sh", "-c", script]);
    let said = || fs::read_to_string(&log).unwrap();
    wait_until("some failures", || said().matches("request failed").count() >= 4);
    fs::write(place.path().join("told"), "").unwrap();
    assert_eq!(wrapper.wait().code(), Some(9));
    assert_eq!(said().matches("WARN").count(), 1, "told once, not once a try: {}", said());
}

#[test]
fn a_command_that_ignores_its_end_is_killed_in_the_end() {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    fs::write(place.registry_file(), "not a database".repeat(99)).unwrap();
    let script = format!("trap '' TERM; exec {WRAPPER} --abort-on-failure sleep 600");
    let mut wrapper = Running::start(place.program("sh").args(["-c", &script]));
    assert_eq!(wrapper.wait().code(), Some(100));
    assert!(wrapper.has_left_nobody(), "the command is still there");
}

#[test]
fn nohup_is_respected() {
    let place = Place::new();
    let mut command = place.program("nohup");
    command.args([WRAPPER, "--id=nohup", "sh", "-c", "echo here; exec sleep 600"]);
    let mut wrapper = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    wait_until("the registration", || place.lists("nohup"));
    let child = wrapper.child();
    wrapper.signal(Signal::SIGHUP);
    nix::sys::signal::kill(child, Signal::SIGHUP).unwrap();
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
}
