//! One child: started, registered, signalled, reaped, and its end made ours.
//!
//! The order of a life: [`args`] reads the command line, and every mistake in it is told before anything is
//! started; signals are blocked (`signals`); the child is started (`child`); only then come the runtime, the
//! registry and everything else that takes time. From there on `supervision` decides, and one loop does what it
//! says, until the child has ended (`reaper`) and we end the same way ([`Ending`]).

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
mod signal_number;
mod signals;
mod stop;
mod supervision;
mod tombstone;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::args::{Destination, Orphans, Settings};
use self::child::Child;
use self::descriptor::{Line, LinePipe};
pub use self::ending::Ending;
use self::ending::OWN_FAILURE;
use self::fitness::{Fitness, News, Observer};
use self::notify::{Ears, Notifier, Offer, Receiver};
use self::probe::Surroundings;
use self::reaper::{Change, Wards};
use self::signal_number::SignalNumber;
use self::signals::{Blocked, Delivery, Notice, Purpose, Signals};
use self::stop::Stop;
use self::supervision::{Effect, Event, Supervision};
use crate::lease::driver::{Keeper, Task, Wish, keep, or_never};
use crate::lease::fleet::{Fleet, Member};
use crate::lease::{BootClock, Standing};
use crate::message::{Hint, chain, complain, report};
use crate::model::{InstanceId, ServiceId};
use crate::registry::{self, Registry};

/// For how long at a time the service manager is asked to wait.
const EXTENSION: Duration = Duration::from_secs(10);

/// The name in our messages.
pub const PROGRAM: &str = "service-registry-wrapper";

/// Runs the command until it ends, and says how we are to end.
#[must_use]
pub fn run(settings: &Settings) -> Ending {
    let blocked = Blocked::new();
    if settings.orphans == Orphans::Adopt {
        child::adopt_orphans();
    }
    let offer = Offer::new(if settings.fitness.wants_notify() { Ears::Ours } else { Ears::Managers });
    let line = match settings.fitness.descriptor().map(LinePipe::new).transpose() {
        Ok(line) => line,
        Err(error) => {
            complain(&format!("{PROGRAM}: cannot make a pipe for --ready-when: {error}\n"));
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
    let began = Instant::now();
    let tasks = tasks(settings);
    let lease = Fleet::new(leases(settings, &tasks), settings.require);
    let wards = Wards::default();
    let observer = observer(settings, child, line, &wards);
    let fitness = if observer.is_some() { Fitness::Unfit } else { Fitness::Fit };
    let supervision = Supervision::new(settings.stop_policy(), fitness);
    let (manager, receiver) = match offer.map(Offer::accept).transpose() {
        Ok(Some((manager, receiver))) => (manager, receiver),
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
    let registries = tasks.iter().map(|task| Arc::clone(&task.registry)).collect();
    let estate = Estate { service: settings.registration.id.clone(), began, registries, writing: None };
    let (stop, grace, extend_at) = (Stop::default(), settings.stop_grace(), None);
    let port = Port::default();
    let supervisor = Supervisor {
        child,
        pid_file,
        following,
        signals,
        wards,
        observer,
        port,
        tasks,
        lease,
        supervision,
        stop,
        grace,
        extend_at,
        words: receiver,
        notifier,
        estate,
    };
    supervisor.run().await
}

/// Who looks whether the service can serve, where that is asked for.
fn observer(settings: &Settings, child: &Child, line: Option<LinePipe>, wards: &Wards) -> Option<Observer> {
    let line: Option<Line> = match line.map(LinePipe::accept).transpose() {
        Ok(line) => line,
        Err(error) => {
            warn!(error = %error, "cannot listen to what the command writes to its descriptor");
            None
        }
    };
    let environment = settings.launch.environment.clone();
    let surroundings = Surroundings { wards: wards.clone(), environment };
    Observer::start(&settings.fitness, surroundings, line, child.pid)
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

/// What is to be kept in each registry.
fn tasks(settings: &Settings) -> Vec<Task> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let holder = format!("pid {} on {}", std::process::id(), host.to_string_lossy());
    let task = |destination: &Destination| Task {
        registry: registry::connect(&destination.url, &destination.access),
        registration: destination.registration.clone(),
        instance: InstanceId::unique(),
        holder: holder.clone(),
        policy: settings.lease_policy(),
    };
    settings.registries.iter().map(task).collect()
}

/// A lease for each registry, by its URL. To each other they are strangers: where two URLs lead to one registry after
/// all, that is a conflict, and told.
fn leases(settings: &Settings, tasks: &[Task]) -> Vec<(String, Keeper)> {
    let urls = settings.registries.iter().map(|destination| destination.url.to_string());
    let keepers = tasks.iter().map(|task| keep(task.clone(), BootClock::new()));
    urls.zip(keepers).collect()
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
    /// Who else we have started.
    wards: Wards,
    observer: Option<Observer>,
    port: Port,
    tasks: Vec<Task>,
    lease: Fleet,
    supervision: Supervision,
    stop: Stop,
    /// How long the child may take to end once it was told to, as far as we know.
    grace: Duration,
    /// When the service manager has to be asked again to wait, while a drain goes on.
    extend_at: Option<Instant>,
    /// What the child says to the service manager.
    words: Receiver,
    notifier: Notifier,
    estate: Estate,
}

/// What it takes to leave word of the child's end.
struct Estate {
    service: ServiceId,
    began: Instant,
    /// As the leases are ordered.
    registries: Vec<Arc<dyn Registry>>,
    writing: Option<tombstone::Writing>,
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
            self.keep_manager_waiting();
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
                    let changes = reaper::reap(self.child.pid, &self.wards);
                    changes.into_iter().filter_map(|change| self.child_event(change)).collect()
                }
            },
            daemon = or_never(self.following.as_mut().map(|following| &mut following.search)) => self.follow(daemon),
            words = self.words.next(self.child.pid) => {
                self.notifier.heard(&words);
                if let Some(observer) = self.observer.as_ref().filter(|_| words.says_ready()) {
                    observer.heard_ready();
                }
                vec![]
            }
            () = or_never(self.estate.writing.as_mut()) => {
                self.estate.writing = None;
                vec![Event::Entombed]
            }
            () = self.stop.unlisted() => vec![Event::Unlisted],
            () = or_never(self.extend_at.map(tokio::time::sleep_until)) => vec![],
            news = or_never(self.observer.as_mut().map(Observer::next)) => vec![self.fitness_event(news)],
            () = self.lease.changed() => self.lease_events(),
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
        if let Some(observer) = &self.observer {
            observer.follow(pid);
        }
        for signal in &held {
            self.child.signal(signal);
        }
        // It may have ended before it was known.
        let changes = reaper::reap(pid, &self.wards);
        changes.into_iter().filter_map(|change| self.child_event(change)).collect()
    }

    /// A port that has changed is registered once the old entry is gone: nobody is led to a port where nobody is.
    fn fitness_event(&mut self, news: News) -> Event {
        if news.port == self.port.registered || news.fitness == Fitness::Hopeless {
            self.port.coming = None;
            return Event::Fit(news.fitness);
        }
        self.port.coming = Some(news);
        if self.port.is_in {
            return Event::Fit(Fitness::Unfit);
        }
        self.port_arrives().unwrap_or(Event::Fit(news.fitness))
    }

    fn port_arrives(&mut self) -> Option<Event> {
        let News { fitness, port } = self.port.coming.take()?;
        if let Some(port) = port {
            self.lease.amend("port", &port.to_string());
        }
        self.port.registered = port;
        Some(Event::Fit(fitness))
    }

    fn lease_events(&mut self) -> Vec<Event> {
        let event = self.lease_event();
        let Event::Lease(overview) = &event else { return vec![event] };
        self.port.is_in &= overview.standing != Standing::Withdrawn;
        let arrival = if self.port.is_in { None } else { self.port_arrives() };
        [event].into_iter().chain(arrival).collect()
    }

    fn lease_event(&mut self) -> Event {
        let (overview, leases) = self.lease.status();
        for lease in &leases {
            tell_refusal(lease, overview.standing);
        }
        self.notifier.leases_are(overview.standing, &leases);
        Event::Lease(overview)
    }

    /// A service manager has a limit of its own for a stop, which knows nothing of a drain: it is asked to wait on, a little
    /// at a time, so that one that we do not come back to is killed all the same.
    fn keep_manager_waiting(&mut self) {
        let now = Instant::now();
        match self.supervision.holds_until() {
            Some(until) if self.extend_at.is_none_or(|at| at <= now) => {
                self.extend_at = Some(now + EXTENSION / 4);
                self.notifier.extend(EXTENSION);
                self.notifier.drains_for(Some(until.saturating_duration_since(now)));
            }
            // From now on it is the child's time.
            None if self.extend_at.take().is_some() => {
                self.notifier.extend(self.grace);
                self.notifier.drains_for(None);
            }
            Some(_) | None => {}
        }
    }

    /// Leaves word of the end where the service is listed.
    fn entomb(&mut self, ending: Ending) {
        let (_, leases) = self.lease.status();
        let Estate { service, began, registries, writing } = &mut self.estate;
        let held = leases.iter().zip(registries).filter(|(lease, _)| lease.standing == Standing::Held);
        let held = held.map(|(_, registry)| Arc::clone(registry));
        *writing = Some(tombstone::write(service, ending, *began, held));
    }

    /// Says where the service is left to expire because the registry has not answered in time.
    fn tell_of_those_left(&mut self) {
        let (_, leases) = self.lease.status();
        let is_left = |lease: &&Member| lease.has_been_held && lease.standing == Standing::Withdrawing;
        for lease in leases.iter().filter(is_left) {
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
                } else {
                    self.stop = Stop::default();
                }
                self.port.is_in |= wish == Wish::Listed;
                self.lease.wish(wish);
            }
            Effect::Suspend => self.lease.wish(Wish::Unlisted),
            Effect::Abandon => self.lease.abandon(),
            Effect::Pass(signal) => {
                if signal.purpose == Purpose::Stop {
                    self.stop.told(signal.number);
                }
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
            Effect::Kill => {
                self.stop.killed();
                self.child.kill();
            }
            Effect::StopOurselves(signal) => signals::stop_ourselves(signal),
            Effect::Entomb(ending) => self.entomb(ending),
            Effect::Drain { until, ends } => {
                self.stop.drain(until, ends, &self.tasks);
                // It is known now for how long.
                self.extend_at = None;
            }
            Effect::Drained(why) => self.stop.drained(why),
            Effect::End(ending) => {
                self.stop.ended();
                if self.estate.writing.is_some() {
                    warn!("no answer in time: the entry may not say how the command has ended");
                }
                self.tell_of_those_left();
                self.wards.kill();
                return Some(ending);
            }
        }
        None
    }
}

/// The port that was found and is registered, and another that is to be.
#[derive(Default)]
struct Port {
    registered: Option<u16>,
    /// Whether the service is in the registry, or on its way in or out.
    is_in: bool,
    coming: Option<News>,
}

/// The search for a daemon, and the signals that are to reach it.
struct Following {
    search: Pin<Box<dyn Future<Output = Option<Pid>>>>,
    held: Vec<Delivery>,
}
