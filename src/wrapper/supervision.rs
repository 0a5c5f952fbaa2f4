//! What to do about the child, the signals and the lease: a pure state machine, told what happened and when.
//!
//! ```text
//!   Running ── asked to stop ──▶ Withdrawing ── deregistered, or 1 s ──▶ Stopping ──▶ (child ends)
//!      │                              │ child ends
//!      │ registration refused         ▼
//!      ▼                           Leaving ── deregistered, or 1 s ──▶ (we end)
//!   Aborting ── 10 s ──▶ SIGKILL
//! ```

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::ending::{Ending, NOT_REGISTERED};
use super::signals::{Delivery, Origin};
use crate::lease::Standing;
use crate::lease::driver::Wish;

/// How long a planned deregistration may hold up the signal that asked for it, and our end.
const WITHDRAWAL_BUDGET: Duration = Duration::from_secs(1);
/// How long a child has to end when we stop it because it could not be registered.
const GRACE: Duration = Duration::from_secs(10);

/// When to take the service out of the registry, rather than let it expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Deregister {
    /// Whenever the child ends.
    Always,
    /// When we are asked to stop; a child that ends by itself is left to expire, so that whoever watches for
    /// crashes sees one.
    OnStop,
    /// Never: the entry always expires.
    Never,
}

/// What the supervision is to obey.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) deregister: Deregister,
    /// When a child that was interrupted but goes on is listed again.
    pub(super) reinstate_after: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Signal(Delivery),
    ChildStopped(i32),
    ChildEnded(Ending),
    Lease(Standing),
    DeadlineReached,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Wish(Wish),
    Pass(Delivery),
    Kill,
    StopOurselves(i32),
    End(Ending),
}

pub(super) struct Supervision {
    policy: Policy,
    phase: Phase,
    lease: Standing,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The signals that ask for the end wait for the deregistration.
    Withdrawing { held: Vec<Delivery>, until: Instant },
    /// The child has been asked to end.
    Stopping { leave_by: Instant, reinstate_at: Option<Instant> },
    /// The child has to end because it could not be registered.
    Aborting { kill_at: Option<Instant> },
    /// The child has ended, and the deregistration is outstanding.
    Leaving { ending: Ending, until: Instant },
}

impl Supervision {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Running, lease: Standing::Idle }
    }

    /// What to do first.
    pub(super) fn begin(&mut self) -> Vec<Effect> {
        vec![Effect::Wish(Wish::Listed)]
    }

    /// When to come back with [`Event::DeadlineReached`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running => None,
            Phase::Withdrawing { until, .. } | Phase::Leaving { until, .. } => Some(*until),
            Phase::Stopping { reinstate_at, .. } => *reinstate_at,
            Phase::Aborting { kill_at } => *kill_at,
        }
    }

    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Signal(signal) => self.signalled(signal, now),
            // Job control only: whoever stops the child alone will continue it alone.
            Event::ChildStopped(signal @ (libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)) => {
                vec![Effect::StopOurselves(signal)]
            }
            Event::ChildStopped(_) => vec![],
            Event::ChildEnded(ending) => self.child_ended(ending, now),
            Event::Lease(standing) => self.lease_is(standing, now),
            Event::DeadlineReached => self.due(now),
        }
    }

    fn signalled(&mut self, signal: Delivery, now: Instant) -> Vec<Effect> {
        if !signal.asks_to_stop() || self.policy.deregister == Deregister::Never {
            return pass(signal);
        }
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => self.asked_to_stop(signal, now),
            // Asked twice: no more waiting.
            Phase::Withdrawing { mut held, until } => {
                held.push(signal);
                self.stopping(held, until, now)
            }
            Phase::Leaving { ending, .. } => vec![Effect::End(ending)],
            phase @ (Phase::Stopping { .. } | Phase::Aborting { .. }) => {
                self.phase = phase;
                pass(signal)
            }
        }
    }

    fn asked_to_stop(&mut self, signal: Delivery, now: Instant) -> Vec<Effect> {
        let until = now + WITHDRAWAL_BUDGET;
        let mut effects = vec![Effect::Wish(Wish::Unlisted)];
        if signal.origin == Origin::Process && self.answers() {
            self.phase = Phase::Withdrawing { held: vec![signal], until };
        } else {
            let leave_by = if self.answers() { until } else { now };
            effects.extend(self.stopping(vec![signal], leave_by, now));
        }
        effects
    }

    /// Whether the registry was all right when last heard of, so that a deregistration is worth waiting for.
    fn answers(&self) -> bool {
        matches!(self.lease, Standing::Held | Standing::Registering | Standing::Withdrawing)
    }

    fn stopping(&mut self, held: Vec<Delivery>, leave_by: Instant, now: Instant) -> Vec<Effect> {
        // An interrupt is the one request that programs go on living after.
        let is_interrupt = held.iter().all(|signal| signal.number == libc::SIGINT);
        let reinstate_at = is_interrupt.then(|| now + self.policy.reinstate_after);
        self.phase = Phase::Stopping { leave_by, reinstate_at };
        held.into_iter().flat_map(pass).collect()
    }

    fn child_ended(&mut self, ending: Ending, now: Instant) -> Vec<Effect> {
        let until = match self.phase {
            Phase::Running if self.policy.deregister == Deregister::Always && self.answers() => {
                self.phase = Phase::Leaving { ending, until: now + WITHDRAWAL_BUDGET };
                return vec![Effect::Wish(Wish::Unlisted)];
            }
            Phase::Running => now,
            Phase::Withdrawing { until, .. } | Phase::Stopping { leave_by: until, .. } => until,
            Phase::Aborting { .. } => return vec![Effect::End(Ending::Code(NOT_REGISTERED))],
            Phase::Leaving { until, .. } => until,
        };
        if until <= now || self.is_out() {
            return vec![Effect::End(ending)];
        }
        self.phase = Phase::Leaving { ending, until };
        vec![]
    }

    /// Whether the deregistration is over, however it went.
    fn is_out(&self) -> bool {
        matches!(self.lease, Standing::Withdrawn | Standing::Refused)
    }

    fn lease_is(&mut self, standing: Standing, now: Instant) -> Vec<Effect> {
        self.lease = standing;
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running if standing == Standing::Refused => {
                self.phase = Phase::Aborting { kill_at: Some(now + GRACE) };
                // A stopped child would not see the end coming.
                vec![
                    Effect::Pass(Delivery::of(Signal::SIGTERM)),
                    Effect::Pass(Delivery::of(Signal::SIGCONT)),
                ]
            }
            Phase::Withdrawing { held, until } if self.is_out() => self.stopping(held, until, now),
            Phase::Leaving { ending, .. } if self.is_out() => vec![Effect::End(ending)],
            phase => {
                self.phase = phase;
                vec![]
            }
        }
    }

    fn due(&mut self, now: Instant) -> Vec<Effect> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return vec![];
        }
        match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Running => vec![],
            Phase::Withdrawing { held, until } => self.stopping(held, until, now),
            // It was interrupted, and did not mind: it is as alive as before.
            Phase::Stopping { .. } => vec![Effect::Wish(Wish::Listed)],
            Phase::Aborting { .. } => {
                self.phase = Phase::Aborting { kill_at: None };
                vec![Effect::Kill]
            }
            Phase::Leaving { ending, .. } => vec![Effect::End(ending)],
        }
    }
}

/// What the terminal sent, the child has got.
fn pass(signal: Delivery) -> Vec<Effect> {
    match signal.origin {
        Origin::Process => vec![Effect::Pass(signal)],
        Origin::Terminal => vec![],
    }
}
