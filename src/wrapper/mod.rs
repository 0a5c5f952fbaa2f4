//! One child: started, registered, signalled, reaped, and its end made ours.
//!
//! The order of a life: [`args`] reads the command line, and every mistake in it is told before anything is
//! started; signals are blocked (`signals`); the child is started (`child`); only then come the runtime, the
//! registry and everything else that takes time. From there on `supervision` decides, and one loop (`supervisor`) does
//! what it says, until the child has ended (`reaper`) and we end the same way ([`Ending`]).

pub mod args;
mod child;
mod daemon;
mod descriptor;
mod ending;
mod environment;
mod fitness;
mod inherited;
mod notify;
mod probe;
mod reaper;
mod rehearsal;
mod signal_number;
mod signals;
mod stop;
mod supervision;
mod supervisor;
mod tombstone;

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use self::args::{Orphans, Settings};
use self::child::Child;
use self::descriptor::{Line, LinePipe};
pub use self::ending::Ending;
use self::ending::OWN_FAILURE;
use self::notify::{Ears, Notifier, Offer, Receiver};
use self::reaper::{Change, Wards};
use self::signals::{Blocked, Notice};
use self::supervisor::Supervisor;
use crate::message::{complain, report};

/// The name in our messages.
pub const PROGRAM: &str = "service-registry-wrapper";

/// Runs the command until it ends, and says how we are to end.
#[must_use]
pub fn run(settings: &Settings) -> Ending {
    if let Some(rendering) = settings.dry_run {
        return rehearsal::perform(settings, rendering);
    }
    let blocked = Blocked::new();
    if settings.orphans == Orphans::Adopt {
        child::adopt_orphans();
    }
    let offer = Offer::new(if settings.fitness.wants_notify() { Ears::Ours } else { Ears::Managers });
    let line = match settings.fitness.descriptor().map(LinePipe::new).transpose() {
        Ok(line) => line,
        Err(error) => {
            complain(&format!("{PROGRAM}: --ready-when: {error}\n"));
            return Ending::Code(OWN_FAILURE);
        }
    };
    let child = match Child::start(&settings.launch, &blocked, offer.as_ref(), line.as_ref()) {
        Ok(child) => child,
        Err(error) => {
            complain(&report(PROGRAM, &error));
            return Ending::Code(error.exit_status());
        }
    };
    share_one_heap();
    let ending = match runtime(settings) {
        Ok(runtime) => {
            let ending = runtime.block_on(supervise(settings, &child, &blocked, offer, line));
            // To drop it would close every registry, which takes time: a process's end closes them as well.
            std::mem::forget(runtime);
            ending
        }
        Err(error) => supervise_unregistered(&child, &blocked, &error),
    };
    child.take_terminal_back();
    info!(?ending, "child has ended");
    ending
}

/// Has all threads allocate from one heap. There is hardly ever more than one of them, and the GNU C library would give
/// each that comes and goes a heap of its own, which it keeps.
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number, while there is one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// One thread for everything; the file of an embedded registry gets another while it is being used, and so does the
/// look-up of a name. One name, of a registry or a check, that is looked up in vain leaves enough of them to the others.
fn runtime(settings: &Settings) -> io::Result<Runtime> {
    // It panics where it does not get the descriptors that it needs, which are fewer than these.
    let spare: Vec<_> = (0..4).map(|_| io::pipe()).collect::<io::Result<_>>()?;
    drop(spare);
    let may_wait_for_names = settings.registries.len() > 1 || settings.fitness.names_a_host();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(if may_wait_for_names { 64 } else { 4 })
        .thread_keep_alive(Duration::from_millis(1))
        .build()
}

async fn supervise(
    settings: &Settings,
    child: &Child,
    blocked: &Blocked,
    offer: Option<Offer>,
    line: Option<LinePipe>,
) -> Ending {
    let signals = match blocked.listen() {
        Ok(signals) => signals,
        Err(error) => return supervise_unregistered(child, blocked, &error),
    };
    settings.tell_warnings();
    info!(pid = child.pid.as_raw(), command = ?settings.launch.command[0], "started");
    let (manager, receiver) = match offer.map(Offer::accept).transpose() {
        Ok(Some((manager, receiver))) => (manager, receiver),
        Ok(None) => (None, Receiver::default()),
        Err(error) => {
            warn!(error = %error, "cannot listen to what the command tells the service manager");
            (None, Receiver::default())
        }
    };
    let notifier = Notifier::new(manager, settings.ready_when);
    Supervisor::new(settings, child, signals, notifier, receiver, accepted(line)).run().await
}

/// Where the command writes that it is ready.
fn accepted(line: Option<LinePipe>) -> Option<Line> {
    line.map(LinePipe::accept).transpose().unwrap_or_else(|error| {
        warn!(error = %error, "cannot listen to what the command writes to its descriptor");
        None
    })
}

/// What is left to do when there are no descriptors to be had: the child lives, so signals and its end are passed
/// on as ever.
fn supervise_unregistered(child: &Child, blocked: &Blocked, error: &io::Error) -> Ending {
    error!(error = %error, "cannot talk to a registry: running the command unregistered");
    loop {
        match blocked.wait() {
            Notice::Signal(signal) if child.has_got(&signal) => {}
            Notice::Signal(signal) => child.signal(&signal),
            Notice::Children => {
                for change in reaper::reap(child.pid, &Wards::default()) {
                    match change {
                        Change::Ended(ending) => return ending,
                        Change::Stopped(signal) if supervision::is_job_control(signal) => {
                            signals::stop_ourselves(signal);
                        }
                        Change::Stopped(_) | Change::Continued => {}
                    }
                }
            }
        }
    }
}

/// Who has an id, for others that would like it.
fn holder(pid: &dyn std::fmt::Display) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("pid {pid} on {}", host.to_string_lossy())
}
