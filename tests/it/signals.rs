//! Every signal that can be caught reaches the command, once; a stop leaves the registry first.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdout, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Place, Running, children_of, holds_for, is_root, status_of, wait_for, wait_until};

/// Says `ready`, then the number of each signal it gets; ends with 42 at signal 40.
const LISTENER: &str = r"
import os, signal, sys
special = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
r, w = os.pipe()
os.set_blocking(w, False)
signal.set_wakeup_fd(w)
for number in signal.valid_signals() - special:
    signal.signal(number, lambda *_: None)
print('ready', flush=True)
while True:
    for number in os.read(r, 1):
        print(number, flush=True)
        if number == 40: sys.exit(42)
";

struct Listener {
    wrapper: Running,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Listener {
    fn start(place: &Place, options: &[&str]) -> Self {
        let mut wrapper = place.wrapper(options).start(&["python3", "-c", LISTENER]);
        let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        Self { wrapper, lines }
    }

    fn send(&self, signal: i32) {
        // SAFETY: kill reads its arguments.
        assert_eq!(unsafe { libc::kill(self.wrapper.pid().as_raw(), signal) }, 0);
    }

    fn heard(&mut self) -> i32 {
        self.lines.next().unwrap().unwrap().parse().unwrap()
    }
}

#[test]
fn every_signal_reaches_the_command_once() {
    let place = Place::new();
    let mut listener = Listener::start(&place, &["--id=listener"]);
    let ours =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];
    let uncatchable = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, 32, 33];
    let sent: Vec<i32> =
        (1..=64).filter(|n| !ours.contains(n) && !uncatchable.contains(n) && *n != 40).collect();
    for signal in &sent {
        listener.send(*signal);
        assert_eq!(listener.heard(), *signal);
    }
    listener.send(40);
    assert_eq!(listener.heard(), 40, "something came twice");
    assert_eq!(listener.wrapper.wait().code(), Some(42));
}

#[test]
fn a_real_time_signal_is_queued_as_often_as_it_was_sent() {
    let place = Place::new();
    let mut listener = Listener::start(&place, &["--id=queue"]);
    for _ in 0..20 {
        listener.send(50);
    }
    for _ in 0..20 {
        assert_eq!(listener.heard(), 50);
    }
}

#[test]
fn the_value_that_sigqueue_sent_arrives() {
    let place = Place::new();
    let script = "import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print('ready', flush=True)
info = signal.sigwaitinfo({signal.SIGUSR1})
print(info.si_code, flush=True)";
    let mut wrapper = place.wrapper(&["--id=value"]).start(&["python3", "-c", script]);
    let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(4711) };
    // SAFETY: sigqueue reads its arguments.
    assert_eq!(unsafe { libc::sigqueue(wrapper.pid().as_raw(), libc::SIGUSR1, value) }, 0);
    assert_eq!(lines.next().unwrap().unwrap(), libc::SI_QUEUE.to_string());
    assert!(wrapper.wait().success());
}

#[test]
fn a_signal_before_the_command_runs_is_delivered_to_it() {
    let place = Place::new();
    for _ in 0..20 {
        let mut wrapper = place.wrapper(&["--id=early"]).start(&["sleep", "600"]);
        wrapper.signal(Signal::SIGUSR1);
        // Default action: it kills, whether it arrives before or after exec; before our own blocking, it kills us.
        assert_eq!(wrapper.wait().signal(), Some(libc::SIGUSR1));
    }
}

#[test]
fn a_stop_leaves_the_registry_before_the_command_hears_of_it() {
    let place = Place::new();
    for stop in ["TERM", "INT", "QUIT"] {
        let id = format!("stop-{stop}");
        let look = format!("{} services get {id} >/dev/null 2>&1; echo $?; exit 3", crate::support::RAXSR);
        let script = format!("trap '{look}' {stop}; echo ready; while :; do sleep 0.05; done");
        let mut wrapper = place.wrapper(&["--id", &id]).start(&["bash", "-c", &script]);
        wait_until("the registration", || place.lists(&id));
        let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        wrapper.signal(format!("SIG{stop}").parse().unwrap());
        assert_eq!(lines.next().unwrap().unwrap(), "3", "it was still listed when SIG{stop} arrived");
        assert_eq!(wrapper.wait().code(), Some(3));
        assert_eq!(place.events(), [format!("join {id}"), format!("remove {id}")]);
        std::fs::remove_dir_all(place.path().join("state")).unwrap();
    }
}

#[test]
fn a_locked_registry_holds_up_a_stop_for_no_longer_than_its_budget() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=locked"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("locked"));
    let lock = rusqlite::Connection::open(place.registry_file()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked_at = tokio::time::Instant::now();
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    // The budget is a second; what a busy machine adds is not ours.
    assert!(asked_at.elapsed() < std::time::Duration::from_secs(30));
    drop(lock);
}

#[test]
fn after_an_interrupt_that_it_survives_the_command_is_listed_again() {
    let place = Place::new();
    let script = "trap 'echo heard' INT; echo ready; while :; do sleep 0.1; done";
    let mut wrapper = place.wrapper(&["--id=deaf", "--interval=3"]).start(&["bash", "-c", script]);
    let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    wait_until("the registration", || place.lists("deaf"));
    wrapper.signal(Signal::SIGINT);
    assert_eq!(lines.next().unwrap().unwrap(), "heard");
    assert!(!place.lists("deaf"));
    wait_until("the registration", || place.lists("deaf"));
    assert_eq!(place.events(), ["join deaf", "remove deaf", "join deaf"]);
}

#[test]
fn an_interrupt_that_was_ignored_at_the_start_is_no_request_to_stop() {
    let place = Place::new();
    let mut command = place.program("sh");
    // As a shell's `&` does it.
    let script = format!("trap '' INT; exec {} --id=background sleep 600", crate::support::WRAPPER);
    let mut wrapper = Running::start(command.args(["-c", &script]));
    wait_until("the registration", || place.lists("background"));
    wrapper.signal(Signal::SIGINT);
    holds_for(std::time::Duration::from_millis(500), "being listed", || place.lists("background"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

#[test]
fn a_command_that_is_stopped_has_not_ended() {
    let place = Place::new();
    let wrapper = place.wrapper(&["--id=stopped", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("stopped"));
    let child = wrapper.child();
    kill(child, Signal::SIGSTOP).unwrap();
    wait_until("the stop", || status_of(child, "State").unwrap().starts_with('T'));
    holds_for(std::time::Duration::from_secs(4), "being listed", || place.lists("stopped"));
    kill(child, Signal::SIGCONT).unwrap();
    wait_until("the continuation", || status_of(child, "State").unwrap().starts_with('S'));
}

#[test]
fn without_descriptors_the_command_is_supervised_all_the_same() {
    let place = Place::new();
    let start = |command: &str| {
        let script = format!("ulimit -n 5; exec {} --id=poor {command}", crate::support::WRAPPER);
        Running::start(place.program("sh").args(["-c", &script]).stderr(Stdio::piped()).stdin(Stdio::null()))
    };
    let mut wrapper = start("sh -c 'exit 7'");
    assert_eq!(wrapper.wait().code(), Some(7));
    let log = wrapper.stderr();
    assert!(log.contains("running the command unregistered") && log.contains("os error 24"), "{log}");
    let mut wrapper = start("sleep 600");
    let child = wrapper.child();
    wait_until("exec", || status_of(child, "Name").as_deref() == Some("sleep"));
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_command_that_is_traced_has_not_ended() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=traced"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("traced"));
    let child = wrapper.child();
    nix::sys::ptrace::attach(child).unwrap();
    wait_until("the tracing", || status_of(child, "State").unwrap().starts_with('t'));
    holds_for(std::time::Duration::from_millis(300), "being listed", || place.lists("traced"));
    assert!(!wrapper.has_ended());
    nix::sys::ptrace::detach(child, None).unwrap();
    wait_until("the end of the tracing", || status_of(child, "TracerPid").as_deref() == Some("0"));
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_stop_is_put_as_the_command_wants_it() {
    let place = Place::new();
    let mut listener = Listener::start(&place, &["--id=nginx", "--stop-signal=WINCH"]);
    listener.send(libc::SIGTERM);
    assert_eq!(listener.heard(), libc::SIGWINCH);
    listener.send(libc::SIGINT);
    assert_eq!(listener.heard(), libc::SIGINT);
}

#[test]
fn a_command_that_takes_too_long_to_stop_is_killed() {
    let place = Place::new();
    let mut listener = Listener::start(&place, &["--id=slow", "--stop-timeout=500ms"]);
    listener.send(libc::SIGTERM);
    assert_eq!(listener.heard(), libc::SIGTERM);
    assert_eq!(listener.wrapper.wait().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_group_gets_every_signal() {
    let place = Place::new();
    let script = "sleep 600 & sleep 600 & echo ready; wait; echo never";
    let mut wrapper = place.wrapper(&["--id=shell", "--signal-group"]).start(&["sh", "-c", script]);
    let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let child = wrapper.child();
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
    wait_until("the end of the group", || nix::sys::signal::killpg(child, None).is_err());
    assert!(lines.next().is_none());
}

#[test]
fn a_group_that_takes_too_long_to_stop_is_killed_whole() {
    let place = Place::new();
    let script = "trap '' TERM; sleep 600 & echo ready; wait";
    let options = ["--id=deaf", "--signal-group", "--stop-timeout=300ms"];
    let mut wrapper = place.wrapper(&options).start(&["sh", "-c", script]);
    let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let child = wrapper.child();
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGKILL));
    wait_until("the end of the group", || nix::sys::signal::killpg(child, None).is_err());
}

#[test]
fn a_wrapper_that_is_killed_takes_the_command_along_if_so_asked() {
    let place = Place::new();
    for (option, lives_on) in [("keep", true), ("stop", false)] {
        let option = format!("--on-wrapper-death={option}");
        let mut wrapper = place.wrapper(&["--id=orphan", &option]).start(&["sleep", "600"]);
        let child = wrapper.child();
        wait_until("exec", || status_of(child, "Name").as_deref() == Some("sleep"));
        wrapper.signal(Signal::SIGKILL);
        wrapper.wait();
        if lives_on {
            holds_for(std::time::Duration::from_millis(300), "being alive", || {
                status_of(child, "Pid").is_some()
            });
        } else {
            wait_until("the command's end", || status_of(child, "State").is_none_or(|s| s.starts_with('Z')));
        }
    }
}

#[test]
fn a_subreaper_reaps_thousands_of_orphans_and_keeps_the_status() {
    let place = Place::new();
    // Each is orphaned at once; the last to end closes the pipe that the command waits for.
    let script = "i=0; { while [ $i -lt 2000 ]; do (sleep 0.1 &) ; i=$((i+1)); done; } | cat
        echo all ended; read line; exit 7";
    let mut wrapper = place.wrapper(&["--id=reaper"]);
    let command = wrapper.command.args(["sh", "-c", script]);
    let mut wrapper = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut lines = BufReader::new(wrapper.process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "all ended");
    wait_until("the reaping", || children_of(wrapper.pid()).len() == 1);
    drop(wrapper.process.stdin.take());
    assert_eq!(wrapper.wait().code(), Some(7));
}

#[test]
fn as_pid_1_a_stop_reaches_the_command() {
    if !is_root("as_pid_1_a_stop_reaches_the_command") {
        return;
    }
    let place = Place::new();
    let mut command = place.program("unshare");
    command.args(["--pid", "--fork", "--kill-child", crate::support::WRAPPER, "--id=one", "--interval=5"]);
    let mut unshare = Running::start(command.args(["sh", "-c", "trap 'exit 6' TERM; sleep 600 & wait"]));
    wait_until("the registration", || place.lists("one"));
    let wrapper: Pid = wait_for("pid 1", || Some(unshare.child()));
    kill(wrapper, Signal::SIGTERM).unwrap();
    assert_eq!(unshare.wait().code(), Some(6));
    assert_eq!(place.events(), ["join one", "remove one"]);
}
