//! The child's companion from its start to its end: hears of everything that happens, and does what `supervision`
//! decides.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::Instant;
use tracing::{error, warn};

use super::args::{Destination, Late, Settings};
use super::child::Child;
use super::descriptor::Line;
use super::ending::Ending;
use super::fitness::{Fitness, News, Observer};
use super::notify::{Notifier, Receiver};
use super::probe::Surroundings;
use super::reaper::{self, Change, Wards};
use super::signal_number::SignalNumber;
use super::signals::{self, Delivery, Notice, Purpose, Signals};
use super::stop::Stop;
use super::supervision::{Effect, Event, Supervision};
use super::{daemon, holder, tombstone};
use crate::lease::driver::{Keeper, Task, Wish, keep, or_never};
use crate::lease::fleet::{Fleet, Member};
use crate::lease::{BootClock, Standing};
use crate::message::{Hint, chain};
use crate::model::InstanceId;
use crate::registry;

/// For how long at a time the service manager is asked to wait.
const EXTENSION: Duration = Duration::from_secs(10);

/// What is known of the command now that it runs.
fn late(child: &Child, port: Option<u16>) -> Late {
    Late { pid: child.pid.as_raw().unsigned_abs(), port }
}

/// What is to be kept in each registry.
fn tasks(settings: &Settings, late: Late) -> Vec<Task> {
    let holder = holder(&std::process::id());
    let task = |destination: &Destination| Task {
        registry: registry::connect(&destination.url, &destination.access),
        registration: settings.registration(destination, late),
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

pub(super) struct Supervisor<'a> {
    settings: &'a Settings,
    child: Child,
    began: Instant,
    /// Where the daemon is named that the child leaves behind.
    pid_file: Option<PathBuf>,
    /// The search for it, once the child has ended.
    following: Option<Following>,
    signals: Signals,
    /// Who else we have started.
    wards: Wards,
    observer: Option<Observer>,
    port: Port,
    /// As it was said last.
    unfit_because: Arc<str>,
    tasks: Vec<Task>,
    lease: Fleet,
    supervision: Supervision,
    stop: Stop,
    /// When the service manager has to be asked again to wait, while a drain goes on.
    extend_at: Option<Instant>,
    /// What the child says to the service manager.
    words: Receiver,
    notifier: Notifier,
    /// The word of the child's end, on its way.
    writing: Option<tombstone::Writing>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        child: &Child,
        signals: Signals,
        notifier: Notifier,
        receiver: Receiver,
        line: Option<Line>,
    ) -> Self {
        let tasks = tasks(settings, late(child, None));
        let wards = Wards::default();
        let environment = settings.launch.environment.clone();
        let surroundings = Surroundings { wards: wards.clone(), environment };
        let observer = Observer::start(&settings.fitness, surroundings, line, child.pid);
        let fitness = if observer.is_some() { Fitness::Unfit } else { Fitness::Fit };
        Self {
            settings,
            child: child.clone(),
            began: Instant::now(),
            pid_file: settings.pid_file.clone(),
            following: None,
            signals,
            wards,
            observer,
            port: Port::default(),
            unfit_because: Arc::default(),
            lease: Fleet::new(leases(settings, &tasks), settings.require),
            tasks,
            supervision: Supervision::new(settings.stop_policy(), fitness),
            stop: Stop::default(),
            extend_at: None,
            words: receiver,
            notifier,
            writing: None,
        }
    }

    pub(super) async fn run(mut self) -> Ending {
        self.notifier.started();
        if self.observer.is_some() {
            self.notifier.unfit(Some("not ready yet"));
        }
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
            () = or_never(self.writing.as_mut()) => {
                self.writing = None;
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
        self.unfit_because = Arc::clone(&news.reason);
        match news.fitness {
            Fitness::Fit => self.notifier.unfit(None),
            Fitness::Unfit if !news.reason.is_empty() => self.notifier.unfit(Some(&news.reason)),
            // Not ready yet, or what the command is stopped for.
            Fitness::Unfit | Fitness::Moved | Fitness::Hopeless => {}
        }
        if news.port == self.port.registered || news.fitness == Fitness::Hopeless {
            self.port.coming = None;
            return Event::Fit(news.fitness);
        }
        let fitness = news.fitness;
        self.port.coming = Some(news);
        if self.port.is_in {
            return Event::Fit(Fitness::Moved);
        }
        self.port_arrives().unwrap_or(Event::Fit(fitness))
    }

    fn port_arrives(&mut self) -> Option<Event> {
        let News { fitness, port, .. } = self.port.coming.take()?;
        if let Some(port) = port {
            let late = late(&self.child, Some(port));
            for (task, destination) in self.tasks.iter_mut().zip(&self.settings.registries) {
                task.registration = self.settings.registration(destination, late);
            }
            self.lease.amend(self.tasks.iter().map(|task| task.registration.clone()));
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
                self.notifier.extend(self.settings.stop_grace());
                self.notifier.drains_for(None);
            }
            Some(_) | None => {}
        }
    }

    /// Leaves word of the end where the service is listed.
    fn entomb(&mut self, ending: Ending) {
        let (_, leases) = self.lease.status();
        let held = leases.iter().zip(&self.tasks).filter(|(lease, _)| lease.standing == Standing::Held);
        let held = held.map(|(_, task)| (Arc::clone(&task.registry), task.registration.id.clone()));
        self.writing = Some(tombstone::write(ending, self.began, held));
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
            Effect::Suspend => self.lease.wish(Wish::Suspended(Arc::clone(&self.unfit_because))),
            Effect::Move => self.lease.wish(Wish::Unlisted),
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
                if self.writing.is_some() {
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
