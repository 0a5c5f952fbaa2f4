use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, getpid, getppid, setpgid, tcgetpgrp, tcsetpgrp};
use tracing::debug;

use super::descriptor::{Ends, LinePipe};
use super::ending::OWN_FAILURE;
use super::environment::Changes;
use super::inherited;
use super::notify::Offer;
use super::signal_number::SignalNumber;
use super::signals::{Blocked, Delivery, Origin};
use crate::message::Hint;
use crate::model::printable;

/// What to start, and how it is tied to us.
#[derive(Debug)]
pub struct Launch {
    /// The command and its arguments: at least one word.
    pub command: Vec<OsString>,
    pub(super) environment: Changes,
    pub(super) group: Group,
    /// What the kernel sends the child when we die without having passed anything on.
    pub(super) death_signal: Option<SignalNumber>,
}

/// Which process group the child is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Ours: signals go to the child alone.
    Shared,
    /// One of its own, in the terminal's foreground if we are: signals go to all of it.
    Own,
}

/// The command, running.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) pid: Pid,
    group: Group,
}

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{}`", printable(.command))]
pub(super) struct StartError {
    command: String,
    #[source]
    source: io::Error,
}

impl StartError {
    /// As a shell has it: 127 not found, 126 not executable; 125 when we had no process or descriptor left to try
    /// with.
    pub(super) fn exit_status(&self) -> i32 {
        match self.source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => 127,
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory => OWN_FAILURE,
            _ if matches!(self.source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => OWN_FAILURE,
            _ => 126,
        }
    }
}

impl Hint for StartError {
    fn hint(&self) -> Option<String> {
        let exists = std::path::Path::new(&self.command).exists();
        match self.source.kind() {
            ErrorKind::NotFound if exists => {
                Some("the file is there: check the interpreter that its first line names".to_owned())
            }
            ErrorKind::PermissionDenied if exists => {
                Some("check that it is a file, and that this user may execute it".to_owned())
            }
            _ => None,
        }
    }
}

impl Child {
    /// Starts the command with everything that we were started with, less what `launch` changes.
    ///
    /// # Errors
    /// When it does not exist, cannot be executed, or there can be no new process.
    pub(super) fn start(
        launch: &Launch,
        blocked: &Blocked,
        notify: Option<&Offer>,
        line: Option<&LinePipe>,
    ) -> Result<Self, StartError> {
        let failed = |source| {
            let command = launch.command.first();
            let command = command.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            StartError { command, source }
        };
        let [program, arguments @ ..] = &*launch.command else {
            return Err(failed(ErrorKind::NotFound.into()));
        };
        let mut birth = Birth {
            mask: blocked.original_mask(),
            children_ignored: reset_sigchld(),
            environment: match notify {
                Some(offer) => launch.environment.with_notify_socket(&offer.name),
                None => launch.environment.clone(),
            },
            group: launch.group,
            line: line.map(LinePipe::ends),
            death_signal: launch.death_signal,
            parent: getpid(),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: between fork and exec, only async-signal-safe calls, and no memory is allocated.
        unsafe {
            command.pre_exec(move || birth.give());
        }
        let child = command.spawn().map_err(failed)?;
        let pid = i32::try_from(child.id()).map_err(|_| failed(ErrorKind::Other.into()))?;
        let_go_of_streams(notify, line);
        Ok(Self { pid: Pid::from_raw(pid), group: launch.group })
    }

    /// A daemon that it left behind, in its place: it has a session of its own, and with that a group.
    pub(super) fn following(pid: Pid) -> Self {
        Self { pid, group: Group::Shared }
    }

    /// Whether the terminal that sent a signal to us has sent it to the child as well.
    pub(super) fn has_got(&self, signal: &Delivery) -> bool {
        signal.origin == Origin::Terminal && self.group == Group::Shared
    }

    /// Passes a signal on. That the child has ended in the meantime is no error: its status is on the way.
    pub(super) fn signal(&self, signal: &Delivery) {
        debug!(pid = self.pid.as_raw(), signal = %signal.number, "passing a signal on");
        if signal.number == SignalNumber::CONT {
            self.bring_to_foreground();
        }
        match self.group {
            Group::Shared => signal.pass_to(self.pid),
            Group::Own => signal.pass_to_group(self.pid),
        }
    }

    /// Kills it, with its group if it has one of its own.
    pub(super) fn kill(&self) {
        let _ = match self.group {
            Group::Shared => nix::sys::signal::kill(self.pid, Signal::SIGKILL),
            Group::Own => nix::sys::signal::killpg(self.pid, Signal::SIGKILL),
        };
    }

    /// A shell that continues us makes our group the foreground one: a child in another has to get it from us.
    fn bring_to_foreground(&self) {
        if self.group == Group::Own {
            hand_over_terminal(getpgrp(), self.pid);
        }
    }

    /// Takes the terminal back from a child that had a group of its own: whoever started us expects it here.
    pub(super) fn take_terminal_back(&self) {
        if self.group == Group::Own {
            hand_over_terminal(self.pid, getpgrp());
        }
    }
}

/// Makes `to` the foreground group of our terminal, if we have one and `from` is it. With SIGTTOU blocked, as it is
/// here and in the child before exec, that is allowed to a background process, too (tcsetpgrp(3)).
fn hand_over_terminal(from: Pid, to: Pid) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(terminal) = open("/dev/tty", flags, Mode::empty()) else { return };
    if tcgetpgrp(&terminal) == Ok(from) {
        let _ = tcsetpgrp(&terminal, to);
    }
}

/// What the child has to do for itself, between fork and exec, after the standard library has reset signal mask
/// and SIGPIPE to defaults.
struct Birth {
    mask: SigSet,
    children_ignored: IgnoresChildren,
    environment: Changes,
    group: Group,
    line: Option<Ends>,
    death_signal: Option<SignalNumber>,
    parent: Pid,
}

impl Birth {
    fn give(&mut self) -> io::Result<()> {
        // SAFETY: the child has one thread, and this value lives in the closure until exec.
        unsafe { self.environment.make(self.parent.as_raw().cast_unsigned()) };
        if self.group == Group::Own {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            let mut ttou = SigSet::empty();
            ttou.add(Signal::SIGTTOU);
            ttou.thread_block()?;
            let ours = getpid();
            let theirs = nix::unistd::getpgid(Some(self.parent)).unwrap_or(ours);
            hand_over_terminal(theirs, ours);
        }
        if let Some(signal) = self.death_signal {
            // SAFETY: this option reads one number. (nix has no type for real-time signals.)
            Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.get()) })?;
            // It may have died before that.
            if getppid() != self.parent {
                return Err(ErrorKind::BrokenPipe.into());
            }
        }
        if inherited::pipe_was_ignored() {
            set_action(Signal::SIGPIPE, SigHandler::SigIgn)?;
        }
        if self.children_ignored == IgnoresChildren::Yes {
            set_action(Signal::SIGCHLD, SigHandler::SigIgn)?;
        }
        if let Some(line) = self.line {
            line.give()?;
        }
        for fd in inherited::closed_streams() {
            let _ = nix::unistd::close(fd);
        }
        Ok(self.mask.thread_set_mask()?)
    }
}

/// Closes what is the child's alone. Held here as well, a pipe would not end when the child closes it, and a
/// listening socket would go on accepting. Standard error stays: we write to it, too.
fn let_go_of_streams(notify: Option<&Offer>, line: Option<&LinePipe>) {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in 0..=1 {
        // SAFETY: both are open descriptors, and nothing in this process reads or writes these streams.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
    drop(null);
    let of_offer = notify.iter().flat_map(|offer| offer.descriptors());
    let mut ours: Vec<u32> = of_offer.chain(line.map(LinePipe::descriptor)).map(i32::cast_unsigned).collect();
    ours.sort_unstable();
    let mut first = 3;
    for keep in ours.into_iter().chain([u32::MAX]) {
        if first < keep {
            // SAFETY: apart from these, no value in this process owns a descriptor yet: runtime and registry are
            // made later.
            unsafe { libc::close_range(first, keep - 1, 0) };
        }
        first = keep.saturating_add(1);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IgnoresChildren {
    Yes,
    No,
}

/// Who ignores SIGCHLD never learns how a child ended: whoever started us like that meant the child, not us.
fn reset_sigchld() -> IgnoresChildren {
    if !inherited::is_ignored(libc::SIGCHLD) {
        return IgnoresChildren::No;
    }
    let _ = set_action(Signal::SIGCHLD, SigHandler::SigDfl);
    IgnoresChildren::Yes
}

fn set_action(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither of the handlers used here is a function of ours.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Makes us the parent of orphans below us, as if we were pid 1 (`PR_SET_CHILD_SUBREAPER`).
pub(super) fn adopt_orphans() {
    // It cannot fail with this argument.
    let _ = prctl::set_child_subreaper(true);
}
