//! Being wrapped changes nothing for the command: each test runs the same thing bare and wrapped.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};

use crate::support::{Place, Running, WRAPPER, wait_until};

/// Runs `script` in a shell, bare and wrapped, each prepared by `prepare`; asserts that both say the same.
#[track_caller]
fn same(script: &str, prepare: impl Fn(&mut Command)) -> String {
    same_command(&["sh", "-c", script], prepare)
}

/// The same for any command: a shell changes its signals itself.
#[track_caller]
fn same_command(words: &[&str], prepare: impl Fn(&mut Command)) -> String {
    let place = Place::new();
    let run = |words: &[&str]| {
        let mut command = place.program(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        prepare(&mut command);
        command.output().unwrap()
    };
    let bare = run(words);
    let wrapped = run(&[&[WRAPPER, "--id=wrapped"], words].concat());
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said(&wrapped), said(&bare));
    assert_eq!((wrapped.status, &wrapped.stderr), (bare.status, &bare.stderr));
    said(&wrapped)
}

/// Has `child` do `what` between fork and exec.
fn before_exec(command: &mut Command, what: impl Fn() + Send + Sync + 'static) {
    // SAFETY: what the tests pass makes async-signal-safe calls only.
    unsafe {
        command.pre_exec(move || {
            what();
            Ok(())
        });
    }
}

const SIGNALS: [&str; 3] = ["grep", "^Sig[BI]", "/proc/self/status"];

#[test]
fn dispositions_and_mask_are_those_of_the_caller() {
    same_command(&SIGNALS, |_| {});
    let ignored = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1];
    let text = same_command(&SIGNALS, |command| {
        before_exec(command, move || {
            for signal_number in ignored {
                // SAFETY: ignoring a signal installs no handler.
                unsafe { signal(signal_number, SigHandler::SigIgn) }.unwrap();
            }
            let mut mask = SigSet::empty();
            mask.add(Signal::SIGUSR2);
            mask.add(Signal::SIGTERM);
            mask.add(Signal::SIGCHLD);
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).unwrap();
        });
    });
    assert!(text.contains("SigBlk:\t0000000000014800"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("SigIgn:") && line.ends_with("1207")), "{text}");
}

#[test]
fn a_caller_that_ignores_sigchld_still_gets_the_status() {
    same("grep SigIgn /proc/self/status; exit 7", |command| {
        before_exec(command, || {
            // SAFETY: ignoring a signal installs no handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        });
    });
}

#[test]
fn descriptors_are_those_of_the_caller() {
    let pipe = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let number = pipe.0.as_raw_fd();
    let list = "import os
for fd in sorted(map(int, os.listdir('/proc/self/fd'))):
    try: print(fd, os.readlink(f'/proc/self/fd/{fd}').split('[')[0])
    except OSError: pass";
    same_command(&["python3", "-c", list], move |command| {
        before_exec(command, move || {
            // SAFETY: plain system calls on a descriptor that is open.
            unsafe { libc::dup2(number, 77) };
        });
    });
}

#[test]
fn a_stream_that_was_closed_is_closed() {
    for closed in [0, 1, 2] {
        same("for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ]; printf $? >&3; done; exit 3", |command| {
            before_exec(command, move || {
                // SAFETY: plain system calls.
                unsafe {
                    libc::dup2(1, 3);
                    libc::close(closed);
                }
            });
        });
    }
}

#[test]
fn directory_umask_limits_and_niceness_are_those_of_the_caller() {
    same("pwd; umask; ulimit -a; cat /proc/$$/stat | cut -d' ' -f19", |command| {
        before_exec(command, || {
            // SAFETY: plain system calls.
            unsafe {
                libc::umask(0o027);
                libc::nice(3);
                let limit = libc::rlimit { rlim_cur: 99, rlim_max: 199 };
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            }
        });
    });
}

#[test]
fn the_environment_is_that_of_the_caller() {
    let name = OsStr::from_bytes(b"NOT_UTF8");
    same("env | sort", |command| {
        command.env(name, OsStr::from_bytes(b"\xff\xfe")).env("EMPTY", "").env("_", "");
    });
}

#[test]
fn arguments_are_bytes_and_may_be_long() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    let arguments = [OsStr::from_bytes(b"\xff\x80"), OsStr::new(""), OsStr::new("a\nb"), OsStr::new(&long)];
    let mut wrapper = place.wrapper(&["--id=bytes"]);
    wrapper.command.args(["printf", "%s|"]).args(arguments);
    let output = wrapper.output(&[]);
    let expected = [&b"\xff\x80||a\nb|"[..], long.as_bytes(), b"|"].concat();
    assert!(output.stdout == expected);
}

#[test]
fn input_and_output_are_the_commands_own() {
    let place = Place::new();
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut wrapper = place.wrapper(&["--id=cat"]);
    let command = wrapper.command.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    let copy = data.clone();
    let writer = std::thread::spawn(move || input.write_all(&copy).unwrap());
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == data, "the end of the input did not arrive, or not all of it");
}

#[test]
fn a_full_pipe_on_standard_error_does_not_hold_up_the_wrapper() {
    let place = Place::new();
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    // Nobody reads: the child fills the pipe and waits. The wrapper has much to tell, and must not.
    let mut wrapper = place.wrapper(&["--id=full", "--log-level=trace", "--interval=3"]);
    wrapper.command.stderr(writer);
    let mut wrapper = Running::start(wrapper.command.args(["sh", "-c", "yes >&2"]));
    wait_until("the registration", || place.lists("full"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(!place.lists("full"));
    drop(reader);
}

#[test]
fn a_variable_that_names_a_pid_names_the_commands() {
    let place = Place::new();
    let inner = "echo $LISTEN_PID $WATCHDOG_PID $$ $LISTEN_FDS; env | grep -c ^LISTEN";
    let script = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$ WATCHDOG_PID=$$; exec {WRAPPER} --id=sockets sh -c '{inner}'"
    );
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    let [listen, watchdog, child, "1", "2"] = words[..] else { panic!("{said}") };
    assert_eq!((listen, watchdog), (child, child));
    // Somebody else's is left alone.
    let script = format!("LISTEN_PID=1 exec {WRAPPER} --id=sockets sh -c 'echo $LISTEN_PID'");
    let output = place.program("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
}

#[test]
fn the_order_of_the_environment_is_kept_without_our_secrets() {
    let place = Place::new();
    let mut bare = place.program("env");
    bare.env("ZZZ", "1").env("AAA", "2");
    let mut wrapper = place.wrapper(&["--id=order"]);
    wrapper.command.env("ZZZ", "1").env("AAA", "2").env("SERVICE_REGISTRY_API_KEY", "sesame");
    let output = wrapper.output(&["env"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&bare.output().unwrap().stdout)
    );
}

#[test]
fn a_stream_that_the_command_closes_is_closed() {
    let place = Place::new();
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut wrapper = place.wrapper(&["--id=closes"]);
    let number = writer.as_raw_fd();
    before_exec(&mut wrapper.command, move || {
        // SAFETY: a plain system call on a descriptor that is open.
        unsafe { libc::dup2(number, 9) };
    });
    let mut wrapper = wrapper.start(&["sh", "-c", "echo out; echo nine >&9; exec sleep 600 >&- 9>&-"]);
    drop(writer);
    let mut said = String::new();
    // Both end although the command lives on.
    wrapper.process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    std::fs::File::from(reader).read_to_string(&mut said).unwrap();
    assert_eq!(said, "out\nnine\n");
    assert!(!wrapper.has_ended());
}
