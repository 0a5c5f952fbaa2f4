//! What to do about the child, the signals and the lease: a pure state machine, told what happened and when.
//!
//! ```text
//!   Running ── asked to stop ──▶ Withdrawing ── deregistered, or 1 s ──▶ Stopping ── timeout ──▶ SIGKILL
//!      │                              │     └──▶ Draining ── time is up, ──▲
//!      │                              │               or unlisted, or asked again
//!      │                              │ child ends
//!      │ registration refused         ▼
//!      ▼                           Leaving ── deregistered, or 1 s ──▶ (we end)
//!   Recalling ── deregistered where it had been registered, or 1 s ──▶ Aborting ── 10 s ──▶ SIGKILL
//! ```
//!
//! A child that ends by itself may have word left of it: then we are in Leaving until that is written, or [`BUDGET`] is over.
//!
//! The service may be in several registries; what counts here is how all its leases stand together.

mod policy;

use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::policy::{Deregister, Drain, Ends, Legacy, Policy};
use super::child::Group;
use super::ending::{Ending, NOT_REGISTERED};
use super::fitness::Fitness;
use super::signal_number::SignalNumber;
use super::signals::{Delivery, Origin, Purpose};
use super::tombstone::BUDGET;
use crate::lease::Standing;
use crate::lease::driver::Wish;
use crate::lease::fleet::{Overview, Require};

/// How long a planned deregistration may hold up the signal that asked for it, and our end.
const WITHDRAWAL_BUDGET: Duration = Duration::from_secs(1);
/// How long a child has to end when we stop it because it could not be registered, or a manager would not wait any longer,
/// unless it was given a time.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// How long a child that has a time to end in still has after a second request.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Why a drain was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// It has taken as long as it may.
    AtLimit,
    /// No registry shows the service any more.
    Unlisted,
    /// We were asked to stop once more.
    AskedAgain,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Started,
    Signal(Delivery),
    ChildStopped(i32),
    ChildContinued,
    ChildEnded(Ending),
    Lease(Overview),
    /// No registry shows the service any more.
    Unlisted,
    /// The tombstone is written.
    Entombed,
    Fit(Fitness),
    DeadlineReached,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Wish(Wish),
    /// Be shown to nobody until it can serve again: nobody stops.
    Suspend,
    /// Leave the registry, to come back as another: nobody stops.
    Move,
    /// Keep no lease any more: what is listed expires.
    Abandon,
    Pass(Delivery),
    Kill,
    StopOurselves(i32),
    /// The child is to serve on, at the longest until then.
    Drain {
        until: Instant,
        ends: Ends,
    },
    Drained(Drained),
    /// Have the entry say how the child has ended.
    Entomb(Ending),
    End(Ending),
}

pub(super) struct Supervision {
    policy: Policy,
    phase: Phase,
    lease: Overview,
    /// Whether the service was ever listed: if not, nobody can have looked it up.
    was_listed: bool,
    /// Since when nobody is shown it.
    out_since: Option<Instant>,
    /// Whether the service can serve, for all that is asked of it: otherwise it is not listed.
    fitness: Fitness,
    job: Job,
}

/// Where we are in a stop by job control: the child was stopped, and we with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Running,
    Stopped,
    /// Both have been continued, and the SIGCONT that did it is still to be read: the child has had it.
    Continued,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The signals that ask for the end wait for the deregistration.
    Withdrawing {
        held: Vec<Delivery>,
        until: Instant,
    },
    /// They wait for those who may still send requests.
    Draining {
        held: Vec<Delivery>,
        until: Instant,
    },
    /// The child has been asked to end.
    Stopping {
        leave_by: Instant,
        reinstate_at: Option<Instant>,
        kill_at: Option<Instant>,
    },
    /// The child has to end because it could not be registered everywhere, and leaves where it was.
    Recalling {
        until: Instant,
    },
    /// The child has to end because it could not be registered.
    Aborting {
        kill_at: Option<Instant>,
    },
    /// The child has ended, and the deregistration is outstanding, or the tombstone.
    Leaving {
        ending: Ending,
        until: Instant,
    },
}

impl Supervision {
    pub(super) fn new(policy: Policy, fitness: Fitness) -> Self {
        let lease = Overview::of(&[Standing::Idle], Require::All);
        Self {
            policy,
            phase: Phase::Running,
            lease,
            was_listed: false,
            out_since: None,
            fitness,
            job: Job::Running,
        }
    }

    /// Until when a drain may hold back what asked for the end, while it is held back: that takes longer than whoever
    /// asked may have reckoned with.
    pub(super) fn holds_until(&self) -> Option<Instant> {
        let drain = self.policy.drain?;
        match &self.phase {
            Phase::Withdrawing { until, .. } if self.was_listed => Some(*until + drain.limit),
            Phase::Draining { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// When to come back with [`Event::DeadlineReached`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running => None,
            Phase::Withdrawing { until, .. }
            | Phase::Draining { until, .. }
            | Phase::Recalling { until }
            | Phase::Leaving { until, .. } => Some(*until),
            Phase::Stopping { reinstate_at, kill_at, .. } => kill_at.or(*reinstate_at),
            Phase::Aborting { kill_at } => *kill_at,
        }
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Started => self.list(),
            Event::Signal(signal) => self.signalled(signal, now),
            Event::ChildStopped(signal) if is_job_control(signal) => {
                self.job = Job::Stopped;
                vec![Effect::StopOurselves(signal)]
            }
            Event::ChildStopped(_) => vec![],
            Event::ChildContinued => {
                let was_stopped = self.job == Job::Stopped;
                self.job = if was_stopped { Job::Continued } else { Job::Running };
                vec![]
            }
            Event::ChildEnded(ending) => self.child_ended(ending, now),
            Event::Lease(lease) => self.lease_is(lease, now),
            Event::Unlisted => self.unlisted(now),
            Event::Entombed => match self.phase {
                Phase::Leaving { ending, .. } => vec![Effect::End(ending)],
                _ => vec![],
            },
            Event::Fit(fitness) => self.fitness_is(fitness, now),
            Event::DeadlineReached => self.due(now),
        }
    }

    /// Lists the service, if it can serve.
    fn list(&self) -> Vec<Effect> {
        if self.fitness == Fitness::Fit { vec![Effect::Wish(Wish::Listed)] } else { vec![] }
    }

    fn fitness_is(&mut self, fitness: Fitness, now: Instant) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.fitness, fitness);
        if before == fitness || !matches!(self.phase, Phase::Running) {
            return vec![];
        }
        match fitness {
            Fitness::Fit => self.list(),
            Fitness::Unfit => vec![Effect::Suspend],
            Fitness::Moved => vec![Effect::Move],
            Fitness::Hopeless => self.refused(now),
        }
    }

    fn signalled(&mut self, mut signal: Delivery, now: Instant) -> Vec<Effect> {
        if self.policy.group == Group::Own {
            // What was typed while our group was the terminal's foreground has not reached the child's.
            signal.origin = Origin::Process;
        }
        if matches!(self.phase, Phase::Leaving { .. }) && signal.purpose != Purpose::Stop {
            // Its pid may be somebody else's by now.
            return vec![];
        }
        if signal.number == SignalNumber::CONT {
            let job = std::mem::replace(&mut self.job, Job::Running);
            return if job == Job::Continued { vec![] } else { pass(signal) };
        }
        if signal.purpose != Purpose::Stop {
            return pass(signal);
        }
        let signal = self.translated(signal);
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => self.asked_to_stop(signal, now),
            // Asked twice: no more waiting.
            Phase::Withdrawing { mut held, until } => {
                held.push(signal);
                self.stopping(held, until, now)
            }
            Phase::Draining { mut held, .. } => {
                held.push(signal);
                self.drained(Drained::AskedAgain, held, now)
            }
            Phase::Stopping { leave_by, reinstate_at, kill_at } => {
                let kill_at = kill_at.map(|kill_at| kill_at.min(now + IMPATIENCE));
                self.phase = Phase::Stopping { leave_by, reinstate_at, kill_at };
                pass(signal)
            }
            Phase::Leaving { ending, .. } => vec![Effect::End(ending)],
            Phase::Recalling { .. } => {
                let mut effects = self.abort(now);
                effects.extend(pass(signal));
                effects
            }
            Phase::Aborting { kill_at } => {
                self.phase = Phase::Aborting { kill_at };
                pass(signal)
            }
        }
    }

    /// The usual request to stop, as this child wants to be asked. One that was typed has reached it as it is.
    fn translated(&self, mut signal: Delivery) -> Delivery {
        if signal.number == SignalNumber::TERM && signal.origin == Origin::Process {
            signal.number = self.policy.stop_signal;
        }
        signal
    }

    fn asked_to_stop(&mut self, signal: Delivery, now: Instant) -> Vec<Effect> {
        if self.policy.deregister == Deregister::Never {
            return self.stopping(vec![signal], now, now);
        }
        let until = now + WITHDRAWAL_BUDGET;
        let mut effects = vec![Effect::Wish(Wish::Unlisted)];
        if signal.origin == Origin::Process && self.lease.answers {
            self.phase = Phase::Withdrawing { held: vec![signal], until };
        } else {
            let leave_by = if self.lease.answers { until } else { now };
            effects.extend(self.withdrawn(vec![signal], leave_by, now));
        }
        effects
    }

    /// The deregistration is over, or takes too long. A registry that is failing is no reason not to drain: those who
    /// have looked the service up go on sending requests all the same.
    fn withdrawn(&mut self, held: Vec<Delivery>, leave_by: Instant, now: Instant) -> Vec<Effect> {
        // What was typed has reached the child already.
        let can_wait = self.was_listed && held.iter().all(|signal| signal.origin == Origin::Process);
        let drain = self.policy.drain.filter(|_| can_wait);
        let drain = drain.map(|drain| (drain.ends, self.out_since.unwrap_or(now) + drain.limit));
        match drain {
            Some((ends, until)) if until > now => {
                self.phase = Phase::Draining { held, until };
                vec![Effect::Drain { until, ends }]
            }
            _ => self.stopping(held, leave_by, now),
        }
    }

    fn unlisted(&mut self, now: Instant) -> Vec<Effect> {
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Draining { held, .. } => self.drained(Drained::Unlisted, held, now),
            phase => {
                self.phase = phase;
                vec![]
            }
        }
    }

    fn drained(&mut self, why: Drained, held: Vec<Delivery>, now: Instant) -> Vec<Effect> {
        let mut effects = vec![Effect::Drained(why)];
        effects.extend(self.stopping(held, now, now));
        effects
    }

    fn stopping(&mut self, held: Vec<Delivery>, leave_by: Instant, now: Instant) -> Vec<Effect> {
        let kill_at = self.policy.stop_timeout.map(|span| now + span);
        // An interrupt is the one request that programs go on living after.
        let is_interrupt = held.iter().all(|signal| signal.number == SignalNumber::INT);
        let may_live_on = is_interrupt && kill_at.is_none() && self.policy.deregister != Deregister::Never;
        let reinstate_at = may_live_on.then(|| now + self.policy.reinstate_after);
        self.phase = Phase::Stopping { leave_by, reinstate_at, kill_at };
        held.into_iter().flat_map(pass).collect()
    }

    fn child_ended(&mut self, mut ending: Ending, now: Instant) -> Vec<Effect> {
        let until = match self.phase {
            Phase::Running if self.is_planned(ending) && self.lease.answers => {
                self.phase = Phase::Leaving { ending, until: now + WITHDRAWAL_BUDGET };
                return vec![Effect::Wish(Wish::Unlisted)];
            }
            Phase::Running if self.policy.legacy == Legacy::Tombstone && self.lease.answers => {
                self.phase = Phase::Leaving { ending, until: now + BUDGET };
                return vec![Effect::Entomb(ending)];
            }
            Phase::Running | Phase::Draining { .. } => now,
            Phase::Withdrawing { until, .. }
            | Phase::Stopping { leave_by: until, .. }
            | Phase::Leaving { until, .. } => until,
            Phase::Recalling { until } => {
                ending = Ending::Code(NOT_REGISTERED);
                until
            }
            Phase::Aborting { .. } => return vec![Effect::End(Ending::Code(NOT_REGISTERED))],
        };
        if until <= now || self.is_out() {
            return vec![Effect::End(ending)];
        }
        self.phase = Phase::Leaving { ending, until };
        vec![]
    }

    /// Whether a child that ended without our having been asked to stop is to be taken out of the registry.
    fn is_planned(&self, ending: Ending) -> bool {
        match self.policy.deregister {
            Deregister::Always => true,
            Deregister::Never => false,
            // In a group of its own, the child alone gets what is typed: its end has to tell us.
            Deregister::OnStop => self.policy.group == Group::Own && ending.is_typed(),
        }
    }

    /// Whether the deregistration is over, however it went.
    fn is_out(&self) -> bool {
        self.lease.standing == Standing::Withdrawn
    }

    fn lease_is(&mut self, lease: Overview, now: Instant) -> Vec<Effect> {
        self.lease = lease;
        self.was_listed |= lease.holds;
        self.out_since = match lease.standing {
            Standing::Suspended | Standing::Withdrawn => self.out_since.or(Some(now)),
            // One that was suspended has been out for longer than it takes to leave.
            Standing::Withdrawing => self.out_since,
            _ => None,
        };
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running if lease.standing == Standing::Refused => self.refused(now),
            Phase::Recalling { .. } if self.is_out() => self.abort(now),
            Phase::Withdrawing { held, until } if self.is_out() => self.withdrawn(held, until, now),
            Phase::Leaving { ending, .. } if self.is_out() => vec![Effect::End(ending)],
            phase => {
                self.phase = phase;
                vec![]
            }
        }
    }

    /// It could not be registered, or cannot serve, and has to: wherever it is, it leaves, and the child ends.
    fn refused(&mut self, now: Instant) -> Vec<Effect> {
        let is_never = self.policy.deregister == Deregister::Never;
        let mut effects = vec![if is_never { Effect::Abandon } else { Effect::Wish(Wish::Unlisted) }];
        if self.lease.answers && !is_never {
            self.phase = Phase::Recalling { until: now + WITHDRAWAL_BUDGET };
        } else {
            effects.extend(self.abort(now));
        }
        effects
    }

    fn abort(&mut self, now: Instant) -> Vec<Effect> {
        let grace = self.policy.stop_timeout.unwrap_or(GRACE);
        self.phase = Phase::Aborting { kill_at: Some(now + grace) };
        // A stopped child would not see the end coming.
        let signals = [self.policy.stop_signal, SignalNumber::CONT];
        signals.map(|signal| Effect::Pass(Delivery::of(signal))).to_vec()
    }

    fn due(&mut self, now: Instant) -> Vec<Effect> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return vec![];
        }
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => vec![],
            Phase::Withdrawing { held, until } => self.withdrawn(held, until, now),
            Phase::Draining { held, .. } => self.drained(Drained::AtLimit, held, now),
            Phase::Recalling { .. } => self.abort(now),
            Phase::Stopping { leave_by, kill_at: Some(_), .. } => {
                self.phase = Phase::Stopping { leave_by, reinstate_at: None, kill_at: None };
                vec![Effect::Kill]
            }
            // It was interrupted, and did not mind: it is as alive as before.
            Phase::Stopping { .. } => self.list(),
            Phase::Aborting { .. } => {
                self.phase = Phase::Aborting { kill_at: None };
                vec![Effect::Kill]
            }
            Phase::Leaving { ending, .. } => vec![Effect::End(ending)],
        }
    }
}

/// Whether a child that was stopped by this is to take us with it. Whoever stops the child alone, by SIGSTOP, will
/// continue it alone.
pub(super) fn is_job_control(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// What the terminal sent, the child has got.
fn pass(signal: Delivery) -> Vec<Effect> {
    match signal.origin {
        Origin::Process => vec![Effect::Pass(signal)],
        Origin::Terminal => vec![],
    }
}

#[cfg(test)]
mod tests;
