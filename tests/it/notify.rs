//! What a service manager hears: a real socket, and children that speak and do not.

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::signal::Signal;

use crate::support::{Place, Running, WRAPPER, wait_for};

/// A service manager's end, and a command that is told of it.
struct Manager {
    place: Place,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let place = Place::new();
        let socket = UnixDatagram::bind(place.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { place, socket }
    }

    fn start(&self, options: &[&str], words: &[&str]) -> Running {
        let mut wrapper = self.place.wrapper(options);
        wrapper.command.env("NOTIFY_SOCKET", self.place.path().join("notify"));
        wrapper.start(words)
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = wait_for("a message", || self.socket.recv(&mut buffer).ok());
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn hears_until(&self, last: &str) -> Vec<String> {
        let mut heard = vec![self.hears()];
        while !heard.last().unwrap().contains(last) {
            heard.push(self.hears());
        }
        heard
    }
}

/// A Python program that can say things to its service manager.
fn speaker(script: &str) -> String {
    format!(
        "import os, socket, sys, time, signal, array
def say(text, *fds):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = os.environ['NOTIFY_SOCKET']
    s.connect('\\0' + name[1:] if name[0] == '@' else name)
    s.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else [])
{script}"
    )
}

#[test]
fn what_the_command_says_is_passed_on_as_ours() {
    let manager = Manager::new();
    let script = speaker("say('READY=1\\nMAINPID=%d\\nSTATUS=at work' % os.getpid()); time.sleep(600)");
    let mut wrapper = manager.start(&["--id=speaker"], &["python3", "-c", &script]);
    let mut heard = String::new();
    while !["READY=1\n", "STATUS=at work", "registered\n"].iter().all(|text| heard.contains(text)) {
        heard += &manager.hears();
    }
    assert!(!heard.contains("MAINPID"), "{heard}");
    wrapper.signal(Signal::SIGTERM);
    manager.hears_until("STOPPING=1");
    wrapper.wait();
}

#[test]
fn descriptors_are_passed_on_and_not_kept() {
    let manager = Manager::new();
    let script = speaker(
        "import select
r, w = os.pipe(); say('FDSTORE=1\\nFDNAME=pipe', w); os.close(w)
print('gone' if select.select([r], [], [], 60)[0] else 'kept')",
    );
    let mut wrapper = manager.start(&["--id=store"], &["python3", "-c", &script]);
    // Received without room for them, descriptors are closed: it was the last copy, unless the wrapper kept one.
    manager.hears_until("FDNAME=pipe");
    let mut said = String::new();
    wrapper.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "gone\n");
}

#[test]
fn for_a_command_that_says_nothing_we_say_that_it_is_ready() {
    let manager = Manager::new();
    let _wrapper = manager.start(&["--id=silent", "--notify=started"], &["sleep", "600"]);
    assert_eq!(manager.hears(), "READY=1\n");
    assert_eq!(manager.hears_until("registered").last().unwrap(), "STATUS=registered\n");
}

#[test]
fn ready_can_mean_registered() {
    let manager = Manager::new();
    let blocker = manager.place.path().join("state");
    std::fs::write(&blocker, "").unwrap();
    let script = speaker("say('READY=1'); print('said', flush=True); time.sleep(600)");
    let options = ["--id=held", "--notify=registered", "--interval=3"];
    let mut wrapper = manager.start(&options, &["python3", "-c", &script]);
    let mut said = [0; 5];
    wrapper.process.stdout.take().unwrap().read_exact(&mut said).unwrap();
    let heard = manager.hears_until("registry is not available").concat();
    assert!(!heard.contains("READY"), "{heard}");
    std::fs::remove_file(&blocker).unwrap();
    let heard = manager.hears_until("READY=1");
    assert_eq!(heard.last().unwrap(), "STATUS=registered\nREADY=1\n");
    assert!(manager.place.lists("held"));
}

#[test]
fn of_several_registries_registered_means_in_all_or_in_any() {
    for (require, is_ready_early) in [("--require=all", false), ("--require=any", true)] {
        let (manager, other) = (Manager::new(), Place::new());
        let blocker = other.path().join("state");
        std::fs::write(&blocker, "").unwrap();
        let registries = [manager.place.url(), other.url()].map(|url| format!("--registry={url}"));
        let options =
            ["--id=held", "--notify=registered", "--interval=3", require, &registries[0], &registries[1]];
        let _wrapper = manager.start(&options, &["sleep", "600"]);
        let trouble = format!("STATUS=registered in 1 of 2 registries, {} is not available\n", other.url());
        let early = manager.hears_until(&trouble).concat();
        assert_eq!(early.contains("READY=1"), is_ready_early, "{require}: {early}");
        std::fs::remove_file(&blocker).unwrap();
        let late = manager.hears_until("STATUS=registered\n").concat();
        assert_eq!(late.contains("READY=1"), !is_ready_early, "{require}: {late}");
        assert!(manager.place.lists("held") && other.lists("held"));
    }
}

#[test]
fn a_reload_is_answered_for_a_command_that_says_nothing() {
    let manager = Manager::new();
    let script = "trap : HUP; while :; do sleep 0.1; done";
    let wrapper = manager.start(&["--id=reload", "--notify=registered"], &["sh", "-c", script]);
    manager.hears_until("READY=1");
    wrapper.signal(Signal::SIGHUP);
    let heard = manager.hears();
    assert!(heard.starts_with("RELOADING=1\nMONOTONIC_USEC=") && heard.ends_with("READY=1\n"), "{heard}");
}

#[test]
fn while_a_command_drains_its_manager_is_asked_to_wait_and_then_for_the_commands_own_time() {
    let manager = Manager::new();
    let script = "trap 'exit 4' TERM; while :; do sleep 0.05; done";
    let options = ["--id=drains", "--notify=registered", "--drain=4s", "--stop-timeout=20"];
    let mut wrapper = manager.start(&options, &["sh", "-c", script]);
    manager.hears_until("READY=1");
    wrapper.signal(Signal::SIGTERM);
    let heard = manager.hears_until("EXTEND_TIMEOUT_USEC=22000000").concat();
    assert_eq!(wrapper.wait().code(), Some(4));
    let (before, after) = heard.split_once("STOPPING=1\n").unwrap();
    assert!(!before.contains("EXTEND"), "{heard}");
    // Once for the deregistration, and again before the time that was asked for is over.
    assert!(after.matches("EXTEND_TIMEOUT_USEC=10000000\n").count() > 1, "{heard}");
    assert!(after.contains("STATUS=draining, to be stopped in 4s at most\n"), "{heard}");
    let heard = manager.hears();
    assert!(heard.contains("STATUS=not registered"), "{heard}");
}

#[test]
fn strangers_are_not_heard() {
    if !crate::support::is_root("strangers_are_not_heard") {
        return;
    }
    let manager = Manager::new();
    let script = "echo $NOTIFY_SOCKET; exec sleep 600";
    let mut wrapper = manager.start(&["--id=guarded"], &["sh", "-c", script]);
    let mut name = [0; 6];
    wrapper.process.stdout.take().unwrap().read_exact(&mut name).unwrap();
    let name = std::str::from_utf8(&name).unwrap();
    manager.hears_until("registered");
    let stranger = "import socket, sys, os; os.setuid(4711)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('\\0' + sys.argv[1][1:]); s.send(b'STATUS=forged')";
    let output = manager.place.program("python3").args(["-c", stranger, name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let friend = UnixDatagram::unbound().unwrap();
    let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
    friend.send_to_addr(b"STATUS=genuine", &address).unwrap();
    assert_eq!(manager.hears(), "STATUS=genuine; registered\n");
}

#[test]
fn without_a_service_manager_there_is_no_socket() {
    let place = Place::new();
    let script = format!("env -u NOTIFY_SOCKET {WRAPPER} --id=alone sh -c 'echo \"[$NOTIFY_SOCKET]\"'");
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n");
}

#[test]
fn a_manager_is_told_why_a_service_is_not_listed() {
    let manager = Manager::new();
    let options = ["--id=web1", "--check=exec:test -e well", "--check-interval=100ms", "--check-fall=1"];
    let _wrapper = manager.start(&options, &["sleep", "600"]);
    manager.hears_until("STATUS=not listed: not ready yet");
    let file = manager.place.path().join("well");
    std::fs::write(&file, "").unwrap();
    manager.hears_until("STATUS=registered");
    std::fs::remove_file(&file).unwrap();
    manager.hears_until("STATUS=not listed: exec: its check exits with 1");
    std::fs::write(&file, "").unwrap();
    manager.hears_until("STATUS=registered");
}

#[test]
fn who_is_drained_is_ready_and_says_why_it_is_not_registered() {
    let manager = Manager::new();
    assert!(manager.place.raxsr(&["services", "drain", "web1"]).status.success());
    let _wrapper = manager.start(&["--id=web1", "--interval=3", "--notify=registered"], &["sleep", "600"]);
    let heard = manager.hears_until("READY=1");
    assert_eq!(heard.last().unwrap(), "STATUS=not registered: drained by hand\nREADY=1\n", "{heard:?}");
    assert!(manager.place.raxsr(&["services", "undrain", "web1"]).status.success());
    let heard = manager.hears_until("STATUS=registered");
    assert_eq!(heard.last().unwrap(), "STATUS=registered\n", "{heard:?}");
}
