//! What we were started with, and Rust's runtime changes before `main`: it ignores SIGPIPE, and opens
//! `/dev/null` where one of the three standard streams was closed. The child is to have it as it was.

use std::sync::atomic::{AtomicU8, Ordering};

const PIPE_IGNORED: u8 = 1 << 7;

static AT_START: AtomicU8 = AtomicU8::new(0);

/// Runs before `main`, and so before the runtime's own initialisation.
extern "C" fn observe() {
    let mut seen = 0;
    for fd in 0..3 {
        // SAFETY: F_GETFD reads a descriptor's flags; a closed descriptor is an error, not undefined.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            seen |= 1 << fd;
        }
    }
    if is_ignored(libc::SIGPIPE) {
        seen |= PIPE_IGNORED;
    }
    AT_START.store(seen, Ordering::Relaxed);
}

#[used]
// SAFETY: the loader calls each function in this section once, with arguments that `observe` does not read.
#[unsafe(link_section = ".init_array")]
static OBSERVE: extern "C" fn() = observe;

/// Whether SIGPIPE was ignored.
pub(super) fn pipe_was_ignored() -> bool {
    AT_START.load(Ordering::Relaxed) & PIPE_IGNORED != 0
}

/// Which of the standard streams were closed.
pub(super) fn closed_streams() -> impl Iterator<Item = i32> {
    let seen = AT_START.load(Ordering::Relaxed);
    (0..3).filter(move |fd| seen & (1 << fd) != 0)
}

/// Whether this process ignores `signal`.
pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeroes is a legal sigaction, and a null new action only reads the present one.
    let (code, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let code = libc::sigaction(signal, std::ptr::null(), &raw mut action);
        (code, action)
    };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}
