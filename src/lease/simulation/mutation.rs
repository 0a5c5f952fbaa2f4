//! Leases with one rule broken, to show that the invariants would notice.

use std::time::Duration;

use tokio::time::Instant;

use super::invariants::Invariant;
use super::network::Shared;
use crate::lease::driver::Decide;
use crate::lease::{Action, Backoff, Call, Credentials, Event, Lease, OnConflict, Policy, Request, Standing};
use crate::model::Token;
use crate::registry::{IfTaken, Recourse};

/// A rule that is broken, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    TakesNotFoundForAnOutage,
    DoesNotRetryAtOnce,
    FirstBeatAfterTheTimeout,
    BeatsAtTwoThirds,
    CountsFromTheAnswer,
    BackoffWithoutACap,
    NoLastTries,
    HotLoop,
    TriesAsLongAsTheLease,
    GivesUpAfterFourFailures,
    KeepsItsFirstToken,
    IgnoresNewCredentials,
    WaitsATimeoutAfterAMistake,
    PollsARivalTooRarely,
    TakesOverTheLiving,
    TakesOverAgain,
    DoesNotCheckAfterAPause,
    RegistersAfterItsWithdrawal,
    LeavesItsEntryBehind,
    WithdrawsForEver,
    AbandonsARegistration,
    AbandonsADeregistration,
    /// Each lease draws the same random numbers. Only several of them show it.
    NoJitter,
}

impl Mutation {
    /// All that one lease alone can show, and the invariants that it breaks: which of them first is up to the seed.
    pub(super) const OF_ONE: &[(Self, &[Invariant])] = &[
        (Self::TakesNotFoundForAnOutage, &[Invariant::ForgottenRegistersAtOnce]),
        (Self::DoesNotRetryAtOnce, &[Invariant::RetriedAtOnce]),
        (Self::FirstBeatAfterTheTimeout, &[Invariant::SentWhenDue]),
        (Self::BeatsAtTwoThirds, &[Invariant::SentWhenDue]),
        (Self::CountsFromTheAnswer, &[Invariant::SentWhenDue, Invariant::DeadlineWithinTheLease]),
        (Self::BackoffWithoutACap, &[Invariant::NeverSilent, Invariant::BackWithinATimeout]),
        (Self::NoLastTries, &[Invariant::HeldThroughAnOutage]),
        (Self::HotLoop, &[Invariant::NoHotLoop]),
        (Self::TriesAsLongAsTheLease, &[Invariant::DeadlineWithinTheLease]),
        (Self::GivesUpAfterFourFailures, &[Invariant::NeverSilent, Invariant::BackWithinATimeout]),
        (Self::KeepsItsFirstToken, &[Invariant::LastToken]),
        (Self::IgnoresNewCredentials, &[Invariant::BackWithinATimeout, Invariant::HeldThroughAnOutage]),
        (Self::WaitsATimeoutAfterAMistake, &[Invariant::HeldThroughAnOutage, Invariant::BackWithinATimeout]),
        (Self::PollsARivalTooRarely, &[Invariant::NeverSilent, Invariant::BackWithinATimeout]),
        (Self::TakesOverTheLiving, &[Invariant::RivalsAreLeftAlone]),
        (Self::TakesOverAgain, &[Invariant::RivalsAreLeftAlone]),
        (Self::DoesNotCheckAfterAPause, &[Invariant::SentWhenDue]),
        (Self::RegistersAfterItsWithdrawal, &[Invariant::WithdrawnForGood]),
        (Self::LeavesItsEntryBehind, &[Invariant::WithdrawnForGood]),
        (Self::WithdrawsForEver, &[Invariant::WithdrawalIsBounded, Invariant::NoHotLoop]),
        (Self::AbandonsARegistration, &[Invariant::OneAtATime]),
        (Self::AbandonsADeregistration, &[Invariant::OneAtATime]),
    ];
}

/// A lease that is watched, and may have one rule broken.
pub(super) struct Subject {
    lease: Lease,
    policy: Policy,
    mutation: Option<Mutation>,
    world: Shared,
    client: usize,
    /// Where the mutation has it instead of the lease.
    deadline: Option<Due>,
    standing: Option<Standing>,
    /// Where the lease stood before what it was told last.
    before: Standing,
    failures: u32,
    first_token: Option<Token>,
}

enum Due {
    At(Instant),
    Never,
}

impl Subject {
    pub(super) fn new(
        lease: Lease,
        policy: Policy,
        mutation: Option<Mutation>,
        world: Shared,
        client: usize,
    ) -> Self {
        Self {
            before: lease.standing(),
            lease,
            policy,
            mutation,
            world,
            client,
            deadline: None,
            standing: None,
            failures: 0,
            first_token: None,
        }
    }

    /// What the lease is told in place of `event`.
    fn told(&self, event: Event) -> Event {
        match (self.mutation, &event) {
            (Some(Mutation::TakesNotFoundForAnOutage), Event::Failed(Recourse::Register)) => {
                Event::Failed(Recourse::Retry)
            }
            (Some(Mutation::RegistersAfterItsWithdrawal), Event::DeadlineReached)
                if self.lease.standing() == Standing::Withdrawn =>
            {
                Event::Enlist
            }
            _ => event,
        }
    }

    /// What is done in place of `action`.
    fn spoilt(&mut self, mutation: Mutation, event: &Event, action: Action, now: Instant) -> Action {
        let timeout = self.policy.timeout.as_duration();
        let has_failed = matches!(event, Event::Failed(_));
        let waits_after_a_failure = has_failed && action == Action::Wait && self.lease.deadline().is_some();
        match mutation {
            Mutation::FirstBeatAfterTheTimeout if matches!(event, Event::Registered(_)) => {
                self.wait(action, now + timeout)
            }
            Mutation::BeatsAtTwoThirds if matches!(event, Event::HeartbeatAccepted(_)) => {
                self.wait(action, now + timeout * 2 / 3)
            }
            Mutation::CountsFromTheAnswer if matches!(event, Event::HeartbeatAccepted(_)) => {
                self.wait(action, now + timeout.mul_f64(0.85 / 3.0))
            }
            Mutation::DoesNotRetryAtOnce if has_failed && is_heartbeat(&action) => {
                self.wait(Action::Wait, now + timeout / 6)
            }
            Mutation::BackoffWithoutACap if waits_after_a_failure => {
                self.wait(action, now + Backoff::FIRST * 2_u32.pow(self.failures.min(20)))
            }
            Mutation::NoLastTries if waits_after_a_failure && self.failures > 1 => {
                self.wait(action, now + timeout / 2)
            }
            Mutation::HotLoop if waits_after_a_failure => self.wait(action, now + Duration::from_millis(1)),
            Mutation::WaitsATimeoutAfterAMistake if *event == Event::Failed(Recourse::None) => {
                self.wait(action, now + timeout)
            }
            Mutation::PollsARivalTooRarely
                if matches!(event, Event::Failed(Recourse::AwaitRelease { .. })) && waits_after_a_failure =>
            {
                self.wait(action, now + timeout * 2)
            }
            Mutation::GivesUpAfterFourFailures if waits_after_a_failure && self.failures > 3 => {
                self.deadline = Some(Due::Never);
                action
            }
            Mutation::RegistersAfterItsWithdrawal if self.lease.standing() == Standing::Withdrawn => {
                self.wait(action, now + timeout / 3)
            }
            Mutation::LeavesItsEntryBehind if is_deregistration(&action) => {
                self.lease.on(Event::Deregistered, now)
            }
            Mutation::WithdrawsForEver
                if *event == Event::Failed(Recourse::Retry)
                    && self.lease.standing() == Standing::Withdrawn =>
            {
                self.standing = Some(Standing::Withdrawing);
                let timeout = timeout / 6;
                Action::Send(Request { call: Call::Deregister, timeout, credentials: Credentials::Current })
            }
            Mutation::AbandonsARegistration | Mutation::AbandonsADeregistration => {
                self.abandon(mutation, event, action, now)
            }
            _ => action,
        }
    }

    fn wait(&mut self, action: Action, until: Instant) -> Action {
        self.deadline = Some(Due::At(until));
        action
    }

    /// The lease waits for an answer before it does what it was told to: it does not get it.
    fn abandon(&mut self, mutation: Mutation, event: &Event, action: Action, now: Instant) -> Action {
        let abandons = match mutation {
            Mutation::AbandonsARegistration => {
                *event == Event::Withdraw && self.before != Standing::Withdrawing
            }
            _ => *event == Event::Enlist && self.before == Standing::Withdrawing,
        };
        if abandons && action == Action::Wait && self.lease.standing() == Standing::Withdrawing {
            return self.lease.on(Event::Failed(Recourse::Retry), now);
        }
        action
    }

    fn spoil_request(&mut self, mutation: Mutation, request: &mut Request) {
        match (mutation, &mut request.call) {
            (Mutation::TriesAsLongAsTheLease, _) => request.timeout = self.policy.timeout.as_duration(),
            (Mutation::IgnoresNewCredentials, _) => request.credentials = Credentials::Current,
            (Mutation::TakesOverTheLiving, Call::Register(if_taken)) => *if_taken = IfTaken::TakeOver,
            (Mutation::TakesOverAgain, Call::Register(if_taken))
                if self.policy.on_conflict == OnConflict::Replace =>
            {
                *if_taken = IfTaken::TakeOver;
            }
            (Mutation::KeepsItsFirstToken, Call::Heartbeat(token)) => {
                token.clone_from(self.first_token.get_or_insert_with(|| token.clone()));
            }
            _ => {}
        }
    }

    fn decide(&mut self, event: &Event, now: Instant) -> Action {
        self.failures = match event {
            Event::Failed(_) => self.failures + 1,
            Event::Registered(_) | Event::HeartbeatAccepted(_) => 0,
            _ => self.failures,
        };
        let Some(mutation) = self.mutation else { return self.lease.on(event.clone(), now) };
        let due = self.lease.deadline();
        if mutation == Mutation::DoesNotCheckAfterAPause
            && *event == Event::DeadlineReached
            && due.is_some_and(|due| now - due > Duration::from_secs(1))
        {
            return self.wait(Action::Wait, now + self.policy.timeout.as_duration() / 3);
        }
        // Woken before its time, a lease would do nothing.
        let told_at =
            if *event == Event::DeadlineReached { due.map_or(now, |due| due.max(now)) } else { now };
        self.before = self.lease.standing();
        let action = self.lease.on(self.told(event.clone()), told_at);
        if *event == Event::DeadlineReached || self.lease.deadline() != due {
            self.deadline = None;
        }
        self.standing = None;
        let mut action = self.spoilt(mutation, event, action, now);
        if let Action::Send(request) = &mut action {
            self.deadline = None;
            self.spoil_request(mutation, request);
        }
        action
    }
}

impl Decide for Subject {
    fn deadline(&self) -> Option<Instant> {
        match self.deadline {
            None => self.lease.deadline(),
            Some(Due::At(at)) => Some(at),
            Some(Due::Never) => None,
        }
    }

    fn standing(&self) -> Standing {
        self.standing.unwrap_or(self.lease.standing())
    }

    fn on(&mut self, event: Event, now: Instant) -> Action {
        let action = self.decide(&event, now);
        let deadline = self.deadline();
        self.world.lock().unwrap().decided(self.client, &event, &action, deadline);
        action
    }
}

fn is_heartbeat(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Heartbeat(_), .. }))
}

fn is_deregistration(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Deregister, .. }))
}
