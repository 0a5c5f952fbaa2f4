//! One child: started, registered, signalled, reaped, and its end made ours.
//!
//! The order of a life: [`args`] reads the command line, and every mistake in it is told before anything is
//! started; signals are blocked (`signals`); the child is started (`child`); only then come the runtime, the
//! registry and everything else that takes time. From there on `supervision` decides, and one loop does what it
//! says, until the child has ended (`reaper`) and we end the same way ([`Ending`]).

pub mod args;
mod child;
mod daemon;
mod ending;
mod environment;
mod inherited;
mod notify;
mod reaper;
mod rehearsal;
mod signal_number;
mod signals;
mod supervision;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::args::{Destination, Late, Orphans, Settings};
use self::child::Child;
pub use self::ending::Ending;
use self::notify::{Notifier, Offer, Receiver};
use self::reaper::Change;
use self::signal_number::SignalNumber;
use self::signals::{Blocked, Delivery, Notice, Signals};
use self::supervision::{Effect, Event, Supervision};
use crate::lease::driver::{Keeper, Task, Wish, keep, or_never};
use crate::lease::fleet::{Fleet, Member};
use crate::lease::{BootClock, Standing};
use crate::message::{Hint, chain, complain, report};
use crate::model::InstanceId;
use crate::registry;

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
    let offer = Offer::new();
    let child = match Child::start(&settings.launch, &blocked, offer.as_ref()) {
        Ok(child) => child,
        Err(error) => {
            complain(&report(PROGRAM, &error));
            return Ending::Code(error.exit_status());
        }
    };
    share_one_heap();
    let ending = match runtime(settings) {
        Ok(runtime) => {
            let ending = runtime.block_on(supervise(settings, &child, &blocked, offer));
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
/// look-up of a name. One registry whose name is looked up in vain leaves enough of them to the others.
fn runtime(settings: &Settings) -> io::Result<Runtime> {
    // It panics where it does not get the descriptors that it needs, which are fewer than these.
    let spare: Vec<_> = (0..4).map(|_| io::pipe()).collect::<io::Result<_>>()?;
    drop(spare);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(if settings.registries.len() > 1 { 64 } else { 4 })
        .thread_keep_alive(std::time::Duration::from_millis(1))
        .build()
}

async fn supervise(settings: &Settings, child: &Child, blocked: &Blocked, offer: Option<Offer>) -> Ending {
    let signals = match blocked.listen() {
        Ok(signals) => signals,
        Err(error) => return supervise_unregistered(child, blocked, &error),
    };
    settings.tell_warnings();
    info!(pid = child.pid.as_raw(), command = ?settings.launch.command[0], "started");
    let lease = Fleet::new(leases(settings, child), settings.require);
    let supervision = Supervision::new(settings.stop_policy());
    let (manager, words) = match offer.map(Offer::accept).transpose() {
        Ok(Some((manager, words))) => (Some(manager), words),
        Ok(None) => (None, Receiver::default()),
        Err(error) => {
            warn!(error = %error, "cannot listen to what the command tells the service manager");
            (None, Receiver::default())
        }
    };
    let notifier = Notifier::new(manager, settings.ready_when);
    let pid_file = settings.pid_file.clone();
    let following = None;
    let child = child.clone();
    Supervisor { child, pid_file, following, signals, lease, supervision, words, notifier }.run().await
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
                for change in reaper::reap(child.pid) {
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

/// A lease for each registry, by its URL. To each other they are strangers: where two URLs lead to one registry after
/// all, that is a conflict, and told.
fn leases(settings: &Settings, child: &Child) -> Vec<(String, Keeper)> {
    let late = Late { pid: child.pid.as_raw().unsigned_abs(), port: None };
    let holder = holder(&std::process::id());
    let lease = |destination: &Destination| {
        let task = Task {
            registry: registry::connect(&destination.url, &destination.access),
            registration: settings.registration(destination, late),
            instance: InstanceId::unique(),
            holder: holder.clone(),
            policy: settings.lease_policy(),
        };
        (destination.url.to_string(), keep(task, BootClock::new()))
    };
    settings.registries.iter().map(lease).collect()
}

/// Who has an id, for others that would like it.
fn holder(pid: &dyn std::fmt::Display) -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("pid {pid} on {}", host.to_string_lossy())
}

/// Says that a registration has just been refused, and what that means.
fn tell_refusal(lease: &Member, overall: Standing) {
    let (Standing::Refused, Some(failure)) = (lease.standing, &lease.failure) else { return };
    let (registry, error, hint) = (&lease.registry, chain(&**failure), failure.hint());
    match lease.before {
        Standing::Refused => {}
        _ if overall == Standing::Refused => {
            error!(registry, error, hint = hint.as_deref(), "cannot register: stopping the child");
        }
        // The lease has told that it is in trouble.
        Standing::Failing | Standing::Waiting => {}
        _ => warn!(registry, error, hint = hint.as_deref(), "cannot register, trying on"),
    }
}

struct Supervisor {
    child: Child,
    /// Where the daemon is named that the child leaves behind.
    pid_file: Option<PathBuf>,
    /// The search for it, once the child has ended.
    following: Option<Following>,
    signals: Signals,
    lease: Fleet,
    supervision: Supervision,
    /// What the child says to the service manager.
    words: Receiver,
    notifier: Notifier,
}

impl Supervisor {
    async fn run(mut self) -> Ending {
        self.notifier.started();
        let mut effects = self.supervision.on(Event::Started, Instant::now());
        loop {
            for effect in effects.drain(..) {
                if let Some(ending) = self.carry_out(effect) {
                    return ending;
                }
            }
            let events = self.next().await;
            for event in events {
                effects.extend(self.supervision.on(event, Instant::now()));
            }
        }
    }

    /// What happens next.
    async fn next(&mut self) -> Vec<Event> {
        let deadline = self.supervision.deadline();
        tokio::select! {
            biased;
            notice = self.signals.next() => match notice {
                Notice::Signal(signal) => vec![Event::Signal(signal)],
                Notice::Children => {
                    let changes = reaper::reap(self.child.pid);
                    changes.into_iter().filter_map(|change| self.child_event(change)).collect()
                }
            },
            daemon = or_never(self.following.as_mut().map(|following| &mut following.search)) => self.follow(daemon),
            words = self.words.next(self.child.pid) => {
                self.notifier.heard(&words);
                vec![]
            }
            () = self.lease.changed() => vec![self.lease_event()],
            () = or_never(deadline.map(tokio::time::sleep_until)) => vec![Event::DeadlineReached],
        }
    }

    fn child_event(&mut self, change: Change) -> Option<Event> {
        match (change, self.pid_file.take()) {
            // What it was to run may be what it leaves behind.
            (Change::Ended(Ending::Code(0)), Some(file)) => {
                let search = Box::pin(async move { daemon::follow(&file).await });
                self.following = Some(Following { search, held: Vec::new() });
                return None;
            }
            (_, file) => self.pid_file = file,
        }
        Some(match change {
            Change::Stopped(signal) => Event::ChildStopped(signal),
            Change::Continued => Event::ChildContinued,
            Change::Ended(ending) => {
                if ending == Ending::Code(0) {
                    daemon::tell_of_survivors();
                }
                Event::ChildEnded(ending)
            }
        })
    }

    /// The daemon takes the child's place, and gets the signals that came in between.
    fn follow(&mut self, daemon: Option<Pid>) -> Vec<Event> {
        let held = self.following.take().map(|following| following.held).unwrap_or_default();
        let Some(pid) = daemon else { return vec![Event::ChildEnded(Ending::Code(0))] };
        self.child = Child::following(pid);
        for signal in &held {
            self.child.signal(signal);
        }
        // It may have ended before it was known.
        let changes = reaper::reap(pid);
        changes.into_iter().filter_map(|change| self.child_event(change)).collect()
    }

    fn lease_event(&mut self) -> Event {
        let (overview, leases) = self.lease.status();
        for lease in &leases {
            tell_refusal(lease, overview.standing);
        }
        self.notifier.leases_are(overview.standing, &leases);
        Event::Lease(overview)
    }

    /// Says where the service is left to expire because the registry has not answered in time.
    fn tell_of_those_left(&mut self) {
        let (_, leases) = self.lease.status();
        for lease in leases.iter().filter(|lease| lease.standing == Standing::Withdrawing) {
            warn!(
                registry = lease.registry,
                "no answer to the deregistration in time: leaving the entry to expire"
            );
        }
    }

    /// How we end, if that is the effect.
    fn carry_out(&mut self, effect: Effect) -> Option<Ending> {
        match effect {
            Effect::Wish(wish) => {
                if wish == Wish::Unlisted {
                    self.notifier.stopping();
                }
                self.lease.wish(wish);
            }
            Effect::Abandon => self.lease.abandon(),
            Effect::Pass(signal) => {
                match &mut self.following {
                    Some(following) => following.held.push(signal.clone()),
                    None => self.child.signal(&signal),
                }
                if signal.number == SignalNumber::HUP {
                    self.notifier.reloaded();
                }
            }
            // While a daemon is searched for, there is nobody by that pid.
            Effect::Kill if self.following.is_some() => {}
            Effect::Kill => self.child.kill(),
            Effect::StopOurselves(signal) => signals::stop_ourselves(signal),
            Effect::End(ending) => {
                self.tell_of_those_left();
                return Some(ending);
            }
        }
        None
    }
}

/// The search for a daemon, and the signals that are to reach it.
struct Following {
    search: Pin<Box<dyn Future<Output = Option<Pid>>>>,
    held: Vec<Delivery>,
}
