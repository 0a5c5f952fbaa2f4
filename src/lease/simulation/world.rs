//! One history: the time, what happens next, and everything that happens outside of the drivers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::invariants::Watcher;
use super::plan::{Fault, Kind, Plan, Time};
use super::registry::{Ask, Holder, Registry, Reply};
use crate::lease::driver::Wish;
use crate::lease::{Action, Event, OnConflict, Standing};

pub(super) struct World {
    /// What the drivers' clock showed at the start. Nothing depends on it.
    start: Instant,
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    /// By time, and in the order of their making where that is the same.
    queue: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    made: u64,
    pub(super) registry: Registry,
    pub(super) desks: Vec<Desk>,
    pub(super) watcher: Watcher,
    pub(super) trace: Vec<(Time, Note)>,
    requests: u64,
}

/// What a driver has to do with the world.
#[derive(Default)]
pub(super) struct Desk {
    /// When it wants to be woken.
    pub(super) timer: Option<Time>,
    pub(super) is_woken: bool,
    pub(super) login: u32,
    /// The requests that it waits for, with the answer once it is here. More than one breaks a rule.
    pub(super) waits_for: Vec<(u64, Option<Reply>)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Message {
    pub(super) client: usize,
    pub(super) number: u64,
    pub(super) ask: Ask,
    pub(super) login: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    Begins(usize),
    Ends(usize),
    Wished(usize, Wish),
    Arrives(Message),
    Answered(Message, Reply),
    Rings(usize),
    Expires(usize),
    RivalBeats(usize),
}

// The order of what happens is given by the numbers before it.
impl Eq for Happening {}
impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Happening {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// A line of the trace.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Note {
    Begins(Fault),
    Ends(Kind),
    Wished(usize, Wish),
    Sent(Message),
    Lost(Message),
    Arrives(Message),
    AnswerLost(Message, Reply),
    TooLate(Message, Reply),
    Heard(u64, Reply),
    Abandoned(u64),
    Decided(usize, Happened, Option<Duration>),
    Stands(usize, Standing),
    Expired(usize, Holder),
}

/// An event without its token, which is not to be shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Happened {
    Enlist,
    Suspend,
    Withdraw,
    Deadline,
    Succeeded,
    Failed(crate::registry::Recourse),
}

impl World {
    pub(super) fn new(plan: Plan, rng: Rng, clients: usize) -> Self {
        let mut world = Self {
            start: Instant::now(),
            now: Time::ZERO,
            rng,
            queue: BinaryHeap::new(),
            made: 0,
            registry: Registry::new(plan.style, plan.timeout(), clients),
            desks: (0..clients).map(|_| Desk { is_woken: true, ..Desk::default() }).collect(),
            watcher: Watcher::new(&plan.policy, plan.latency),
            trace: Vec::new(),
            requests: 0,
            plan,
        };
        for index in 0..world.plan.faults.len() {
            world.at(world.plan.faults[index].from, Happening::Begins(index));
            world.at(world.plan.faults[index].until, Happening::Ends(index));
        }
        for client in 0..clients {
            for (at, wish) in world.plan.wishes.clone() {
                world.at(at, Happening::Wished(client, wish));
            }
        }
        world
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + self.now
    }

    pub(super) fn time(&self, at: Instant) -> Time {
        at.saturating_duration_since(self.start)
    }

    pub(super) fn at(&mut self, at: Time, happening: Happening) {
        self.made += 1;
        self.queue.push(Reverse((at, self.made, happening)));
    }

    pub(super) fn note(&mut self, note: Note) {
        self.trace.push((self.now, note));
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Which fault of this kind there is now.
    pub(super) fn has(&self, matches: impl Fn(Kind) -> bool) -> Option<Kind> {
        let now = self.now;
        let is_now = |fault: &&Fault| fault.from <= now && now < fault.until && matches(fault.kind);
        self.plan.faults.iter().find(is_now).map(|fault| fault.kind)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.has(|kind| kind == Kind::Paused).is_some()
    }

    pub(super) fn is_down(&self) -> bool {
        self.has(|kind| matches!(kind, Kind::Restart(_))).is_some()
    }

    fn is_listed(&self) -> bool {
        self.registry.is_held_by(0, Holder::Ours)
    }

    /// A client with cause to act, and the leave to.
    pub(super) fn next_to_act(&mut self) -> Option<usize> {
        let is_paused = self.is_paused();
        let client = self.desks.iter().position(|desk| desk.is_woken && !is_paused)?;
        let desk = &mut self.desks[client];
        desk.is_woken = false;
        desk.timer = None;
        Some(client)
    }

    /// Moves on to what happens next. Nothing any more at the end of the history.
    pub(super) fn advance(&mut self) -> Option<Happening> {
        let next = self.queue.pop().map(|Reverse((at, _, happening))| (at, happening));
        let next = next.filter(|(at, _)| *at <= self.plan.end);
        let at = next.as_ref().map_or(self.plan.end, |(at, _)| *at);
        if self.is_paused() {
            self.watcher.paused(at.saturating_sub(self.now), at);
        } else {
            let is_listed = self.is_listed();
            self.watcher.passed(is_listed, at);
        }
        self.now = at;
        next.map(|(_, happening)| happening)
    }

    pub(super) fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Begins(index) => self.begins(index),
            Happening::Ends(index) => self.ends(index),
            Happening::Wished(client, wish) => {
                if client == 0 {
                    self.watcher.wished(wish == Wish::Listed, self.now);
                }
                self.note(Note::Wished(client, wish));
                self.desks[client].is_woken = true;
            }
            Happening::Arrives(message) => self.arrives(message),
            Happening::Answered(message, reply) => self.answered(message, reply),
            Happening::Rings(client) => {
                let desk = &mut self.desks[client];
                desk.is_woken |= desk.timer.is_some_and(|timer| timer <= self.now);
            }
            Happening::Expires(id) if !self.is_down() => {
                if let Some(holder) = self.registry.expire(id, self.now) {
                    self.note(Note::Expired(id, holder));
                    if id == 0 && holder == Holder::Ours {
                        self.watcher.expired(self.now);
                    }
                }
            }
            Happening::Expires(_) => {}
            Happening::RivalBeats(index) => self.rival_beats(index),
        }
    }

    fn begins(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        self.note(Note::Begins(fault));
        self.watcher.trouble(fault.from, fault.until);
        match fault.kind {
            Kind::Forgotten => drop(self.registry.forget(0)),
            Kind::LoginExpired => self.registry.login += 1,
            Kind::Rival(arrival, _) => {
                if !self.is_down() {
                    self.registry.rival_comes(arrival, self.now);
                }
                self.rival_beats(index);
            }
            _ => {}
        }
    }

    fn ends(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        self.note(Note::Ends(fault.kind));
        match fault.kind {
            Kind::Restart(data) => {
                self.registry.restart(data, self.now);
                for id in 0..self.desks.len() {
                    self.expect_expiry(id);
                }
            }
            Kind::Paused => self.desks[0].is_woken = true,
            Kind::Rival(_, departure) if self.has(|kind| matches!(kind, Kind::Rival(..))).is_none() => {
                self.registry.rival_goes(departure);
            }
            _ => {}
        }
    }

    fn rival_beats(&mut self, index: usize) {
        let fault = self.plan.faults[index];
        if self.now >= fault.until {
            return;
        }
        if !self.is_down() {
            self.registry.rival_comes(super::plan::Arrival::IfFree, self.now);
            self.expect_expiry(0);
        }
        self.at(self.now + self.plan.timeout() / 3, Happening::RivalBeats(index));
    }

    /// Whoever holds the id has a new deadline.
    pub(super) fn expect_expiry(&mut self, id: usize) {
        let Some(entry) = self.registry.entry(id) else { return };
        let (deadline, holder) = (entry.deadline, entry.holder);
        if holder == Holder::Rival {
            self.watcher.trouble(self.now, deadline);
        }
        self.at(deadline, Happening::Expires(id));
    }

    /// What our requests may not do, as the registry sees it.
    pub(super) fn asked(&mut self, message: Message) -> Reply {
        let was_rival = self.registry.is_held_by(message.client, Holder::Rival);
        let reply = self.registry.answer(message.client, message.ask, message.login, self.now);
        if was_rival && self.registry.is_held_by(message.client, Holder::Ours) {
            self.watcher.displaced_a_rival();
        }
        if matches!(reply, Reply::Token(_)) {
            let is_waited_for = |waiting: &(u64, Option<Reply>)| *waiting == (message.number, None);
            if !self.desks[message.client].waits_for.iter().any(is_waited_for) {
                self.watcher.straggled(self.now);
            }
            self.expect_expiry(message.client);
        }
        reply
    }

    /// A lease was told of an event.
    pub(super) fn decided(
        &mut self,
        client: usize,
        event: &Event,
        action: &Action,
        deadline: Option<Instant>,
    ) {
        let happened = match event {
            Event::Enlist => Happened::Enlist,
            Event::Suspend => Happened::Suspend,
            Event::Withdraw => Happened::Withdraw,
            Event::DeadlineReached => Happened::Deadline,
            Event::Registered(_) | Event::HeartbeatAccepted(_) | Event::Deregistered | Event::Drained(_) => {
                Happened::Succeeded
            }
            Event::Failed(recourse) => Happened::Failed(*recourse),
        };
        let timeout = match action {
            Action::Send(request) => Some(request.timeout),
            Action::Wait => None,
        };
        self.note(Note::Decided(client, happened, timeout));
        if client == 0 {
            let deadline = deadline.map(|deadline| self.time(deadline));
            self.watcher.decided(event, action, deadline, self.now);
        }
    }

    /// A driver has said where its lease stands.
    pub(super) fn stands(&mut self, client: usize, standing: Standing) {
        self.note(Note::Stands(client, standing));
        if client == 0 {
            let is_listed = self.is_listed();
            self.watcher.stands(standing, is_listed);
        }
    }
}

/// The conditions of a history, and what happened in it.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { policy, style, latency, .. } = &self.plan;
        let conflict: OnConflict = policy.on_conflict;
        writeln!(f, "timeout {:?}, {conflict:?}, {style:?}, latency {latency:?}", self.plan.timeout())?;
        for (at, note) in &self.trace {
            writeln!(f, "{:>12.6} {note:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
