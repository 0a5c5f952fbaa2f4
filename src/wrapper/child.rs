use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use tracing::debug;

use super::ending::OWN_FAILURE;
use super::inherited;
use super::signals::{Blocked, Delivery};
use crate::message::Hint;
use crate::model::printable;

/// The command, running.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
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
    /// As a shell has it: 127 not found, 126 not executable; 125 when we had no process or descriptor
    /// left to try with.
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
    /// Starts the command with everything that we were started with, less `secrets`.
    ///
    /// # Errors
    /// When it does not exist, cannot be executed, or there can be no new process.
    pub(super) fn start(
        command: &[OsString],
        secrets: &[&str],
        blocked: &Blocked,
    ) -> Result<Self, StartError> {
        let failed = |source| {
            let command = command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
            StartError { command, source }
        };
        let [program, arguments @ ..] = command else { return Err(failed(ErrorKind::NotFound.into())) };
        let children_ignored = reset_sigchld();
        let mask = blocked.original_mask();
        let mut command = Command::new(program);
        command.args(arguments);
        for name in secrets {
            command.env_remove(name);
        }
        // SAFETY: between fork and exec, only async-signal-safe calls, and no memory is allocated.
        unsafe {
            command.pre_exec(move || {
                restore(&mask, children_ignored)?;
                Ok(())
            });
        }
        let child = command.spawn().map_err(failed)?;
        let pid = i32::try_from(child.id()).map_err(|_| failed(ErrorKind::Other.into()))?;
        Ok(Self { pid: Pid::from_raw(pid) })
    }

    /// Passes a signal on. That the child has ended in the meantime is no error: its status is on the way.
    pub(super) fn signal(&self, signal: &Delivery) {
        debug!(pid = self.pid.as_raw(), signal = signal.number, "passing a signal on");
        signal.pass_to(self.pid);
    }

    pub(super) fn kill(&self) {
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
    }
}

/// Runs in the child, between fork and exec, after the standard library has reset mask and SIGPIPE to defaults.
fn restore(mask: &SigSet, children_ignored: IgnoresChildren) -> io::Result<()> {
    for fd in inherited::closed_streams() {
        let _ = nix::unistd::close(fd);
    }
    if inherited::pipe_was_ignored() {
        set_action(Signal::SIGPIPE, SigHandler::SigIgn)?;
    }
    if children_ignored == IgnoresChildren::Yes {
        set_action(Signal::SIGCHLD, SigHandler::SigIgn)?;
    }
    Ok(mask.thread_set_mask()?)
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
