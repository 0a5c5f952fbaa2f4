//! The signals we get, as one stream.
//!
//! They are blocked before the child is started and read from a signalfd: no handler is installed, so that what
//! was ignored (by `nohup`, by a shell's `&`) stays ignored, for us and in the child, and none is lost before
//! we listen. The descriptor also tells what a handler could not do without: who sent it.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{Pid, getpid, getsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::inherited;
use super::signal_number::SignalNumber;

/// What these say is that our own code failed: they are ours, and not to be passed on.
const OURS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
];

/// What asks for an end.
const STOPS: [SignalNumber; 3] = [SignalNumber::TERM, SignalNumber::INT, SignalNumber::QUIT];

/// What the kernel sends itself, such as to a terminal's foreground processes.
const SI_KERNEL: i32 = 0x80;

/// Every signal that can be passed on, blocked.
#[derive(Debug)]
pub(super) struct Blocked {
    caught: SigSet,
    original: SigSet,
}

impl Blocked {
    /// Blocks them, for this thread and those that it will start.
    pub(super) fn new() -> Self {
        let mut caught = SigSet::all();
        for signal in OURS {
            caught.remove(signal);
        }
        let mut original = SigSet::empty();
        // With legal arguments it cannot fail.
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&caught), Some(&mut original));
        Self { caught, original }
    }

    /// What was blocked when we were started.
    pub(super) fn original_mask(&self) -> SigSet {
        self.original
    }

    /// The next one, waited for without a descriptor or a runtime.
    pub(super) fn wait(&self) -> Notice {
        loop {
            // SAFETY: all zeroes is a legal siginfo, sigwaitinfo writes one, and for the signals that are sent
            // rather than raised by a fault the fields read are the ones that it filled in.
            let info = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let number = libc::sigwaitinfo(self.caught.as_ref(), &raw mut info);
                (number > 0).then(|| Info {
                    number,
                    code: info.si_code,
                    sender: info.si_pid(),
                    value: info.si_value().sival_ptr.addr() as u64,
                })
            };
            if let Some(notice) = info.as_ref().and_then(notice) {
                return notice;
            }
        }
    }

    /// The stream of what arrives, and has arrived since.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(super) fn listen(&self) -> io::Result<Signals> {
        let fd = SignalFd::with_flags(&self.caught, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // SAFETY: the signalfd owns its descriptor, and closes it only when it is dropped.
        Ok(Signals { fd: unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }? })
    }
}

/// A signal that somebody sent us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) number: SignalNumber,
    pub(super) origin: Origin,
    pub(super) purpose: Purpose,
    /// What `sigqueue` sent along.
    value: Option<u64>,
}

/// Who a signal came from, and so who has got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A process sent it to us; the child has not got it.
    Process,
    /// The terminal sent it to all its foreground processes: the child among them, if it is one.
    Terminal,
}

/// What a signal is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It asks for an end.
    Stop,
    /// Anything else. That goes for a request to stop, too, if it was ignored when we were started: the child
    /// ignores it as well.
    Other,
}

impl Delivery {
    /// A signal of our own making.
    pub(super) fn of(number: SignalNumber) -> Self {
        let purpose = if STOPS.contains(&number) { Purpose::Stop } else { Purpose::Other };
        Self { number, origin: Origin::Process, purpose, value: None }
    }

    /// Sends it on as it came.
    pub(super) fn pass_to(&self, pid: Pid) {
        let number = self.number.get();
        match self.value {
            Some(value) => {
                let value = libc::sigval {
                    sival_ptr: std::ptr::without_provenance_mut(value.try_into().unwrap_or(0)),
                };
                // SAFETY: sigqueue reads its three arguments, and the pointer is a number to it.
                unsafe { libc::sigqueue(pid.as_raw(), number, value) };
            }
            None => {
                // SAFETY: kill reads its two arguments. (nix has no type for real-time signals.)
                unsafe { libc::kill(pid.as_raw(), number) };
            }
        }
    }

    /// Sends it on to everybody in a process group. (A value cannot be sent to several.)
    pub(super) fn pass_to_group(&self, group: Pid) {
        // SAFETY: kill reads its two arguments.
        unsafe { libc::kill(-group.as_raw(), self.number.get()) };
    }
}

/// What the stream yields.
#[derive(Debug)]
pub(super) enum Notice {
    /// A signal for the child.
    Signal(Delivery),
    /// Something happened to a child, or to several.
    Children,
}

/// The stream of signals.
#[derive(Debug)]
pub(super) struct Signals {
    fd: AsyncFd<SignalFd>,
}

impl Signals {
    /// The next one.
    pub(super) async fn next(&mut self) -> Notice {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|fd| fd.get_ref().read_signal()?.ok_or_else(|| Errno::EAGAIN.into()));
            if let Ok(Ok(info)) = read
                && let Some(notice) = notice(&Info::from(info))
            {
                return notice;
            }
        }
    }
}

/// Lets a job-control signal stop us as it stopped the child, so that the shell gets its terminal back. Returns
/// when we have been continued. Without job control (pid 1, an orphaned process group) the kernel discards it, as
/// it would the child's.
pub(super) fn stop_ourselves(signal: i32) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = kill(getpid(), signal);
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&only), None);
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&only), None);
}

/// What the kernel tells of a signal.
struct Info {
    number: i32,
    code: i32,
    sender: i32,
    value: u64,
}

impl From<siginfo> for Info {
    fn from(info: siginfo) -> Self {
        Self {
            // Signals are numbered from 1 to 64, pids are positive.
            number: info.ssi_signo.cast_signed(),
            code: info.ssi_code,
            sender: info.ssi_pid.cast_signed(),
            value: info.ssi_ptr,
        }
    }
}

fn notice(info: &Info) -> Option<Notice> {
    if info.number == libc::SIGCHLD {
        return Some(Notice::Children);
    }
    let number = SignalNumber::new(info.number)?;
    let is_ours = info.code == libc::SI_USER && info.sender == getpid().as_raw();
    if is_ours {
        // SIGPIPE and the like, of our own writing.
        return None;
    }
    let origin = if info.code == SI_KERNEL && !is_for_session_leader(number) {
        Origin::Terminal
    } else {
        Origin::Process
    };
    let value = (info.code == libc::SI_QUEUE).then_some(info.value);
    let asks_to_stop = STOPS.contains(&number) && !inherited::is_ignored(number.get());
    let purpose = if asks_to_stop { Purpose::Stop } else { Purpose::Other };
    Some(Notice::Signal(Delivery { number, origin, purpose, value }))
}

/// A terminal that hangs up tells the leader of its session alone (tty(4)). Bare, that would be the child.
fn is_for_session_leader(number: SignalNumber) -> bool {
    matches!(number.get(), libc::SIGHUP | libc::SIGCONT) && getsid(None) == Ok(getpid())
}
