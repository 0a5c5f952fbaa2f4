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
    /// It has ended.
    Ended(Ending),
}

/// Collects everyone who has exited by now, and returns what happened to `child`. One SIGCHLD can stand for any
/// number of them.
pub(super) fn reap(child: Pid) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some((pid, status)) = wait(Pid::from_raw(-1), libc::WNOHANG | libc::WUNTRACED) {
        if pid == child {
            changes.extend(change(status));
        }
    }
    changes
}

/// Waits for `child` and for nothing else: for when we can do nothing better.
pub(super) fn wait_for(child: Pid) -> Ending {
    loop {
        match wait(child, 0).and_then(|(_, status)| change(status)) {
            Some(Change::Ended(ending)) => return ending,
            Some(Change::Stopped(_)) => {}
            None => return Ending::Code(super::ending::OWN_FAILURE),
        }
    }
}

fn wait(pid: Pid, flags: i32) -> Option<(Pid, i32)> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let found = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags) };
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
    } else {
        None
    }
}
