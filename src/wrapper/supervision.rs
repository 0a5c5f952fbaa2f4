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
use super::signals::{Delivery, Origin, Purpose};
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
    Started,
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
    Withdrawing {
        held: Vec<Delivery>,
        until: Instant,
    },
    /// The child has been asked to end.
    Stopping {
        leave_by: Instant,
        reinstate_at: Option<Instant>,
    },
    /// The child has to end because it could not be registered.
    Aborting {
        kill_at: Option<Instant>,
    },
    /// The child has ended, and the deregistration is outstanding.
    Leaving {
        ending: Ending,
        until: Instant,
    },
}

impl Supervision {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, phase: Phase::Running, lease: Standing::Idle }
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
            Event::Started => vec![Effect::Wish(Wish::Listed)],
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
        if signal.purpose != Purpose::Stop || self.policy.deregister == Deregister::Never {
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
            Phase::Withdrawing { until, .. }
            | Phase::Stopping { leave_by: until, .. }
            | Phase::Leaving { until, .. } => until,
            Phase::Aborting { .. } => return vec![Effect::End(Ending::Code(NOT_REGISTERED))],
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
                vec![Effect::Pass(Delivery::of(Signal::SIGTERM)), Effect::Pass(Delivery::of(Signal::SIGCONT))]
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

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const EXITED: Ending = Ending::Code(7);

    struct Scene {
        supervision: Supervision,
        now: Instant,
    }

    impl Scene {
        fn new(deregister: Deregister) -> Self {
            let policy = Policy { deregister, reinstate_after: TIMEOUT };
            let mut scene = Self { supervision: Supervision::new(policy), now: Instant::now() };
            assert_eq!(scene.on(Event::Started), [Effect::Wish(Wish::Listed)]);
            scene.lease(Standing::Held);
            scene
        }

        fn on(&mut self, event: Event) -> Vec<Effect> {
            self.supervision.on(event, self.now)
        }

        fn lease(&mut self, standing: Standing) -> Vec<Effect> {
            self.on(Event::Lease(standing))
        }

        fn sent(&mut self, signal: Signal) -> Vec<Effect> {
            self.on(Event::Signal(Delivery::of(signal)))
        }

        fn typed(&mut self, signal: Signal) -> Vec<Effect> {
            let mut signal = Delivery::of(signal);
            signal.origin = Origin::Terminal;
            self.on(Event::Signal(signal))
        }

        fn at_deadline(&mut self) -> Vec<Effect> {
            self.now = self.supervision.deadline().expect("nothing is due");
            self.on(Event::DeadlineReached)
        }
    }

    fn passed(signal: Signal) -> Effect {
        Effect::Pass(Delivery::of(signal))
    }

    const UNLISTED: Effect = Effect::Wish(Wish::Unlisted);

    #[test]
    fn a_child_that_ends_by_itself_ends_us_and_is_left_to_expire() {
        let mut scene = Scene::new(Deregister::OnStop);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }

    #[test]
    fn a_stop_leaves_the_registry_first() {
        let mut scene = Scene::new(Deregister::OnStop);
        assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
        assert_eq!(scene.lease(Standing::Withdrawing), []);
        assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGTERM)]);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }

    #[test]
    fn a_stop_waits_no_longer_than_its_budget() {
        let mut scene = Scene::new(Deregister::OnStop);
        let asked_at = scene.now;
        scene.sent(Signal::SIGTERM);
        assert_eq!(scene.at_deadline(), [passed(Signal::SIGTERM)]);
        assert_eq!(scene.now - asked_at, WITHDRAWAL_BUDGET);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }

    #[test]
    fn a_stop_does_not_wait_for_a_registry_that_is_failing() {
        for standing in [Standing::Failing, Standing::Waiting] {
            let mut scene = Scene::new(Deregister::OnStop);
            scene.lease(standing);
            assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, passed(Signal::SIGTERM)]);
            assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
        }
    }

    #[test]
    fn a_second_stop_skips_the_wait() {
        let mut scene = Scene::new(Deregister::OnStop);
        scene.sent(Signal::SIGTERM);
        assert_eq!(scene.sent(Signal::SIGINT), [passed(Signal::SIGTERM), passed(Signal::SIGINT)]);
    }

    #[test]
    fn other_signals_do_not_wait() {
        let mut scene = Scene::new(Deregister::OnStop);
        assert_eq!(scene.sent(Signal::SIGHUP), [passed(Signal::SIGHUP)]);
        scene.sent(Signal::SIGTERM);
        assert_eq!(scene.sent(Signal::SIGUSR1), [passed(Signal::SIGUSR1)]);
    }

    #[test]
    fn what_the_terminal_sent_is_not_sent_twice_and_our_end_waits_for_the_deregistration() {
        let mut scene = Scene::new(Deregister::OnStop);
        assert_eq!(scene.typed(Signal::SIGINT), [UNLISTED]);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), []);
        assert_eq!(scene.lease(Standing::Withdrawn), [Effect::End(EXITED)]);
        assert_eq!(scene.typed(Signal::SIGWINCH), []);
    }

    #[test]
    fn an_end_that_waits_for_the_deregistration_waits_no_longer_than_the_budget() {
        let mut scene = Scene::new(Deregister::OnStop);
        scene.typed(Signal::SIGQUIT);
        scene.on(Event::ChildEnded(EXITED));
        assert_eq!(scene.at_deadline(), [Effect::End(EXITED)]);
    }

    #[test]
    fn a_child_that_survives_an_interrupt_is_listed_again() {
        let mut scene = Scene::new(Deregister::OnStop);
        let asked_at = scene.now;
        scene.typed(Signal::SIGINT);
        scene.lease(Standing::Withdrawn);
        assert_eq!(scene.at_deadline(), [Effect::Wish(Wish::Listed)]);
        assert_eq!(scene.now - asked_at, TIMEOUT);
        // And can be stopped like any other.
        scene.lease(Standing::Held);
        assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
    }

    #[test]
    fn a_child_that_was_told_to_end_is_not_listed_again_however_long_it_takes() {
        let mut scene = Scene::new(Deregister::OnStop);
        scene.sent(Signal::SIGTERM);
        scene.lease(Standing::Withdrawn);
        assert_eq!(scene.supervision.deadline(), None);
    }

    #[test]
    fn never_means_that_no_stop_waits_for_the_registry() {
        let mut scene = Scene::new(Deregister::Never);
        assert_eq!(scene.sent(Signal::SIGTERM), [passed(Signal::SIGTERM)]);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }

    #[test]
    fn always_means_that_a_child_that_ends_by_itself_is_taken_out_too() {
        let mut scene = Scene::new(Deregister::Always);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [UNLISTED]);
        assert_eq!(scene.lease(Standing::Withdrawing), []);
        assert_eq!(scene.lease(Standing::Withdrawn), [Effect::End(EXITED)]);
        let mut scene = Scene::new(Deregister::Always);
        scene.lease(Standing::Failing);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }

    #[test]
    fn a_child_that_must_be_registered_and_cannot_be_is_stopped() {
        let mut scene = Scene::new(Deregister::OnStop);
        let effects = scene.lease(Standing::Refused);
        assert_eq!(effects, [passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
        assert_eq!(scene.at_deadline(), [Effect::Kill]);
        assert_eq!(scene.supervision.deadline(), None);
        let ending = Effect::End(Ending::Code(NOT_REGISTERED));
        assert_eq!(scene.on(Event::ChildEnded(Ending::Signal(9))), [ending]);
    }

    #[test]
    fn job_control_stops_us_with_the_child_and_a_stop_of_the_child_alone_does_not() {
        let mut scene = Scene::new(Deregister::OnStop);
        assert_eq!(scene.on(Event::ChildStopped(libc::SIGTSTP)), [Effect::StopOurselves(libc::SIGTSTP)]);
        assert_eq!(scene.on(Event::ChildStopped(libc::SIGSTOP)), []);
    }
}
