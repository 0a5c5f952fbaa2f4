//! Collects the exited: our child, and as pid 1 or subreaper whoever was orphaned. Nothing else in this process
//! may wait for children.
//!
//! Statuses are read raw: nix knows no real-time signals, and would lose the status of a child killed by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

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

/// Who else we have started, and who waits for the end of each. Each leads a process group.
#[derive(Debug, Clone, Default)]
pub(super) struct Wards(Arc<Mutex<Vec<Ward>>>);

type Ward = (Pid, oneshot::Sender<Ending>);

impl Wards {
    /// How `pid` is going to end. It has just been started: nobody has been reaped since.
    pub(super) fn expect(&self, pid: Pid) -> oneshot::Receiver<Ending> {
        let (tell, ending) = oneshot::channel();
        self.all().push((pid, tell));
        ending
    }

    /// Those that have not been reaped.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.all().iter().map(|(pid, _)| *pid).collect()
    }

    /// Kills them all, and who they have started: nobody is going to wait for them.
    pub(super) fn kill(&self) {
        for pid in self.pids() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }

    fn has_ended(&self, pid: Pid, ending: Ending) {
        let mut all = self.all();
        if let Some(index) = all.iter().position(|(ward, _)| *ward == pid) {
            let (_, tell) = all.swap_remove(index);
            let _ = tell.send(ending);
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Ward>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects everyone who has exited by now, and returns what happened to `child`. One SIGCHLD can stand for any
/// number of them. The endings of `wards` go to who waits for them.
pub(super) fn reap(child: Pid, wards: &Wards) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some((pid, status)) = wait() {
        if pid == child {
            changes.extend(change(status));
        } else if let Some(Change::Ended(ending)) = change(status) {
            wards.has_ended(pid, ending);
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
