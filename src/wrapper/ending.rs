use std::process::exit;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// The status when the wrapper itself failed: bad usage, bad settings.
pub(super) const OWN_FAILURE: i32 = 125;
/// The status when registration failed under `--abort-on-failure`.
pub(super) const NOT_REGISTERED: i32 = 100;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

impl Ending {
    /// Whether it is how programs end that Ctrl-C or Ctrl-\\ was typed to.
    pub(super) fn is_typed(self) -> bool {
        let signal = match self {
            Self::Signal(signal) => signal,
            Self::Code(code) => code - 128,
        };
        matches!(signal, libc::SIGINT | libc::SIGQUIT)
    }

    /// Ends this process like that. A signal is raised on ourselves, without a second core dump; where it cannot
    /// kill us (pid 1), the exit code is 128 and its number.
    pub fn end(self) -> ! {
        match self {
            Self::Code(code) => exit(code),
            Self::Signal(signal) => {
                let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
                // A core pattern that is a pipe heeds no limit.
                let _ = prctl::set_dumpable(false);
                die_of(signal);
                exit(128 + signal)
            }
        }
    }
}

fn die_of(signal: i32) {
    // SAFETY: each call reads its arguments or writes to the set, which is ours. Real-time signals are why these
    // are not nix's.
    unsafe {
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
    }
}
