//! Collects the exited: our child, and as pid 1 or subreaper whoever was orphaned. Nothing else in this process
//! may wait for children.
//!
//! Statuses are read raw: nix knows no real-time signals, and would lose the status of a child killed by one.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::ending::Ending;

/// What happened to the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A signal stopped it; it is still alive.
    Stopped(i32),
    /// It goes on.
    Continued,
    /// It has ended.
    Ended(Ending),
}

/// Collects everyone who has exited by now, and returns what happened to `child`. One SIGCHLD can stand for any
/// number of them.
pub(super) fn reap(child: Pid) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some((pid, status)) = wait() {
        if pid == child {
            changes.extend(change(status));
        }
    }
    changes
}

fn wait() -> Option<(Pid, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let found =
            unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) };
        match found {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 | 0 => return None,
            found => return Some((Pid::from_raw(found), status)),
        }
    }
}

fn change(status: i32) -> Option<Change> {
    if libc::WIFEXITED(status) {
        Some(Change::Ended(Ending::Code(libc::WEXITSTATUS(status))))
    } else if libc::WIFSIGNALED(status) {
        Some(Change::Ended(Ending::Signal(libc::WTERMSIG(status))))
    } else if libc::WIFSTOPPED(status) {
        Some(Change::Stopped(libc::WSTOPSIG(status)))
    } else if libc::WIFCONTINUED(status) {
        Some(Change::Continued)
    } else {
        None
    }
}
