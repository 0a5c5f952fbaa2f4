//! Keeping one service registered: a state machine that decides, and a driver that does.
//!
//! [`Lease`] is pure: it is told what happened and when, and answers with the one thing to do now. It awaits
//! nothing, logs nothing and reads no clock, so that each of its rules is a few lines of test. [`driver`] runs
//! it against a [`Registry`](crate::registry::Registry), one request at a time.
//!
//! ```text
//!            enlist                registered
//!   Idle ───────────▶ Registering ────────────▶ Held ◀─┐ heartbeat accepted, or failed and sent again
//!                       ▲      ▲                │ │ └──┘
//!                enlist │      └────── lost ────┘ │ withdraw
//!                       │                         ▼
//!                       │                   Withdrawing ──▶ Withdrawn
//!                       └──────────────────────────────────────┘
//! ```
//!
//! The rules, and where they come from:
//! * A heartbeat goes out a little before each third of the timeout, so that two may fail and an outage of two
//!   thirds of it still leaves time for one more try. An answer that comes late does not put off the next.
//! * One that fails is sent again at once, then after half a period to a whole one: in a hurry to make up for what an outage has
//!   cost, a fleet would ask its registry for many times of what it is used to. Whatever that says, the last tries are
//!   made just before the lease runs out. Each try is given less time than is left.
//! * After a start, an outage or a pause, the next heartbeat comes anywhere in the period: whoever was held up together
//!   does not beat together ever after.
//! * "Not found" means that the registry forgot us: register again in the same tick. The same goes for a token
//!   that the registry cannot read, and for an id that somebody else has taken over. What may still be listed is
//!   tried for before it runs out.
//! * No wait, with the try before it, is longer than the timeout: so soon are we back when the registry is.
//! * "Unauthorized" is answered with new credentials, once; then it is an outage like any other.
//! * An id that another instance holds is waited for, taken over, or a failure, as [`OnConflict`] says.
//! * A service that is suspended is held as any other, by heartbeats that say so. But one that the registry has forgotten
//!   is not registered again for that.
//! * A service that somebody has [drained](crate::model::Drained) is not registered; it is looked again as often as a heartbeat
//!   would be sent. That is no failure.
//! * One request at a time. Neither a registration nor a deregistration is dropped for the other: it would arrive
//!   all the same, and perhaps later.
//! * Nothing ends the loop but a withdrawal. Where registration [must succeed](Policy::give_up_after), its failure
//!   before the first success shows, for the owner to draw the consequences; until then it is tried on.
//!
//! What follows from them, such as that no outage of less than two thirds of the timeout costs a lease, and that it is
//! back within a timeout of the registry's return, is put to the test in `simulation`: driver and lease live through
//! thousands of histories drawn from seeds, in which messages are lost, late, doubled and overtaken, registries
//! restart, forget and refuse, rivals come, and the wrapper is stopped. Each rule, broken, breaks an invariant there.
//!
//! A service can be in several registries: a [`fleet`] is a lease for each, and how they stand together. A
//! [`view`] is what their readers see of it.

mod backoff;
mod clock;
pub mod driver;
mod exchange;
pub mod fleet;
mod journal;
mod state;
pub mod view;

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

pub use self::backoff::Backoff;
pub use self::clock::{BootClock, Clock, TokioClock};
pub use self::exchange::{Action, Call, Credentials, Event, Request, Standing};
use self::state::{Held, Registering, State, Vitality, Withdrawing};
use crate::model::{HeartbeatTimeout, Token};
use crate::registry::{IfTaken, Recourse};

/// What the lease is to obey.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long the registry keeps us without a heartbeat.
    pub timeout: HeartbeatTimeout,
    /// What to do about another live instance under our id.
    pub on_conflict: OnConflict,
    /// Count as [refused](Standing::Refused) when registration failed so many times before it ever succeeded, or
    /// failed in a way that will not pass by itself. `None`: never.
    pub give_up_after: Option<NonZeroU32>,
}

/// What to do about another live instance under our id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Wait until it is gone: it is most often our own previous life, which expires within its timeout.
    Wait,
    /// Take its place, at the first registration. Taken over in turn, we wait: two that replace each other would
    /// do so for ever.
    Replace,
    /// Registration has failed.
    Fail,
}

/// The state machine. See the module's documentation.
#[derive(Debug)]
pub struct Lease {
    policy: Policy,
    state: State,
    /// When the request was sent whose answer is outstanding.
    under_way: Option<Instant>,
    deadline: Option<Instant>,
    has_been_registered: bool,
    /// For all that the registry said: a registration or deregistration may have taken effect or not.
    may_be_listed: bool,
    /// What we began with, or what held us up, may have been the same for others: their periods would be ours.
    may_be_in_step: bool,
    rng: Rng,
}

impl Lease {
    /// How often a deregistration is tried.
    const WITHDRAWAL_TRIES: u32 = 2;
    /// The least time that a request is given.
    const SHORTEST_ATTEMPT: Duration = Duration::from_millis(50);

    /// A lease that waits for [`Event::Enlist`]. `rng` is where its jitter comes from.
    #[must_use]
    pub fn new(policy: Policy, rng: Rng) -> Self {
        Self {
            policy,
            state: State::Idle,
            under_way: None,
            deadline: None,
            has_been_registered: false,
            may_be_listed: false,
            may_be_in_step: true,
            rng,
        }
    }

    /// When to come back with [`Event::DeadlineReached`], if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Where the lease stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match &self.state {
            State::Idle => Standing::Idle,
            State::Registering(state) if state.is_refused => Standing::Refused,
            State::Registering(state) if state.is_drained => Standing::Drained,
            State::Registering(state) if state.taken_since.is_some() => Standing::Waiting,
            State::Registering(state) if state.failures > 0 => Standing::Failing,
            State::Registering(_) => Standing::Registering,
            State::Held(state) => state.standing(),
            State::Withdrawing(_) => Standing::Withdrawing,
            State::Withdrawn => Standing::Withdrawn,
        }
    }

    /// Takes note of what happened at `now`, and says what to do.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        let sent_at = match event {
            Event::Registered(_)
            | Event::HeartbeatAccepted(_)
            | Event::Deregistered
            | Event::Drained(_)
            | Event::Failed(_) => self.under_way.take().unwrap_or(now),
            Event::Enlist | Event::Suspend | Event::Withdraw | Event::DeadlineReached => now,
        };
        match event {
            Event::Enlist => self.enlist(now),
            Event::Suspend => self.suspend(now),
            Event::Withdraw => self.withdraw(now),
            Event::Registered(token) => self.registered(token, sent_at, now),
            Event::HeartbeatAccepted(token) => self.renewed(token, sent_at, now),
            Event::Deregistered => {
                self.may_be_listed = false;
                self.end_withdrawal(now)
            }
            Event::Drained(_) => self.drained(now),
            Event::Failed(recourse) => self.failed(recourse, now),
            Event::DeadlineReached if self.deadline.is_some_and(|deadline| deadline <= now) => self.due(now),
            Event::DeadlineReached => Action::Wait,
        }
    }

    fn enlist(&mut self, now: Instant) -> Action {
        match &mut self.state {
            State::Idle | State::Withdrawn => self.start_registering(None, now),
            // Dropped, a deregistration could still arrive, after the registration: its answer has to be waited for.
            State::Withdrawing(state) => {
                state.is_wanted_back = true;
                Action::Wait
            }
            State::Held(_) => self.want(Vitality::Healthy, now),
            State::Registering(_) => Action::Wait,
        }
    }

    fn start_registering(&mut self, listed_until: Option<Instant>, now: Instant) -> Action {
        self.state = State::Registering(Registering { listed_until, ..Registering::new(self.period()) });
        self.register(Credentials::Current, now)
    }

    fn register(&mut self, credentials: Credentials, now: Instant) -> Action {
        let takes_over = self.policy.on_conflict == OnConflict::Replace && !self.has_been_registered;
        let if_taken = if takes_over { IfTaken::TakeOver } else { IfTaken::Refuse };
        let listed_until = match &self.state {
            State::Registering(state) => state.listed_until,
            _ => None,
        };
        let longest = self.period().min(Duration::from_secs(5));
        let timeout = listed_until.map_or(longest, |end| less_than_is_left(longest, end, now));
        self.send(Call::Register(if_taken), timeout, credentials, now)
    }

    fn registered(&mut self, token: Token, sent_at: Instant, now: Instant) -> Action {
        self.has_been_registered = true;
        self.may_be_listed = true;
        if let State::Withdrawing(state) = &self.state {
            if !state.is_wanted_back {
                return self.deregister(Credentials::Current, now);
            }
        } else if !matches!(self.state, State::Registering(_)) {
            return Action::Wait;
        }
        self.hold(token, sent_at, now)
    }

    fn renewed(&mut self, token: Token, sent_at: Instant, now: Instant) -> Action {
        let expires_at = sent_at + self.timeout();
        let State::Held(state) = &mut self.state else { return Action::Wait };
        let (wanted, sent) = (state.wanted, state.sent);
        *state = Held { wanted, sent, told: sent, ..Held::new(token, expires_at) };
        if sent != wanted {
            return self.heartbeat(Credentials::Current, now);
        }
        self.await_next(sent_at, now)
    }

    fn hold(&mut self, token: Token, sent_at: Instant, now: Instant) -> Action {
        // From when it was sent: the registry cannot have counted from any earlier.
        self.state = State::Held(Held::new(token, sent_at + self.timeout()));
        self.await_next(sent_at, now)
    }

    fn await_next(&mut self, sent_at: Instant, now: Instant) -> Action {
        // However long the answer took, or we did not run: two thirds of the timeout are left at the next heartbeat.
        let next = now + self.time_between_heartbeats();
        self.deadline = Some(next.min(sent_at + self.period()).max(now));
        Action::Wait
    }

    fn time_between_heartbeats(&mut self) -> Duration {
        let (least, spread) = if std::mem::take(&mut self.may_be_in_step) { (0.0, 0.9) } else { (0.8, 0.1) };
        self.period().mul_f64(least + spread * self.rng.f64())
    }

    fn failed(&mut self, recourse: Recourse, now: Instant) -> Action {
        match &mut self.state {
            State::Registering(_) => self.registration_failed(recourse, now),
            State::Held(_) => self.heartbeat_failed(recourse, now),
            State::Withdrawing(_) => self.withdrawal_failed(recourse, now),
            State::Idle | State::Withdrawn => Action::Wait,
        }
    }

    fn registration_failed(&mut self, recourse: Recourse, now: Instant) -> Action {
        let must_succeed = self.policy.give_up_after.filter(|_| !self.has_been_registered);
        let period = self.period();
        let State::Registering(state) = &mut self.state else { return Action::Wait };
        state.is_drained = false;
        if recourse == Recourse::Authenticate && !state.credentials_renewed {
            state.credentials_renewed = true;
            return self.register(Credentials::Renewed, now);
        }
        let mut will_not_pass = matches!(recourse, Recourse::None | Recourse::Authenticate);
        let wait = match recourse {
            Recourse::AwaitRelease { frees_in } if self.policy.on_conflict != OnConflict::Fail => {
                self.may_be_listed = false;
                state.listed_until = None;
                let taken_since = *state.taken_since.get_or_insert(now);
                // Whoever lives longer than the longest timeout is no previous life of ours.
                if now - taken_since > HeartbeatTimeout::MAX.as_duration() {
                    state.failures += 1;
                }
                let poll = period.mul_f64(0.5 + 0.5 * self.rng.f64());
                frees_in.map_or(poll, |span| span.min(poll)).max(Self::SHORTEST_ATTEMPT)
            }
            Recourse::AwaitRelease { .. } | Recourse::None => {
                will_not_pass = true;
                state.failures += 1;
                // Sent unchanged it will fail again, until somebody has changed something over there.
                period.mul_f64(1.0 + 0.6 * self.rng.f64())
            }
            Recourse::Retry | Recourse::Register | Recourse::Authenticate => {
                state.taken_since = None;
                self.may_be_in_step = true;
                state.failures += 1;
                // Whoever is not let in has registered nothing.
                self.may_be_listed |= recourse != Recourse::Authenticate;
                state.credentials_renewed = false;
                state.backoff.next(&mut self.rng)
            }
        };
        state.is_refused |= must_succeed.is_some_and(|limit| will_not_pass || state.failures >= limit.get());
        let wait = state.listed_until.map_or(wait, |end| before_it_runs_out(wait, end, now));
        self.deadline = Some(now + wait);
        Action::Wait
    }

    /// What is still listed of us, from a registration whose answer was lost, expires.
    fn drained(&mut self, now: Instant) -> Action {
        let period = self.period();
        match &mut self.state {
            State::Registering(state) => {
                let is_refused = state.is_refused;
                *state = Registering { is_refused, is_drained: true, ..Registering::new(period) };
                self.deadline = Some(now + period.mul_f64(0.8 + 0.2 * self.rng.f64()));
                Action::Wait
            }
            State::Withdrawing(state) if self.may_be_listed && !state.is_wanted_back => {
                self.deregister(Credentials::Current, now)
            }
            State::Withdrawing(_) => self.end_withdrawal(now),
            State::Idle | State::Held(_) | State::Withdrawn => Action::Wait,
        }
    }

    fn heartbeat_failed(&mut self, recourse: Recourse, now: Instant) -> Action {
        let period = self.period();
        let State::Held(state) = &mut self.state else { return Action::Wait };
        match recourse {
            Recourse::AwaitRelease { .. } | Recourse::Register | Recourse::None
                if state.wanted == Vitality::Unhealthy =>
            {
                self.withdraw(now)
            }
            Recourse::AwaitRelease { .. } => {
                self.may_be_listed = false;
                self.start_registering(None, now)
            }
            Recourse::Register | Recourse::None => {
                let listed_until = state.expires_at;
                self.start_registering(Some(listed_until), now)
            }
            Recourse::Authenticate if !state.credentials_renewed => {
                state.credentials_renewed = true;
                self.heartbeat(Credentials::Renewed, now)
            }
            Recourse::Retry | Recourse::Authenticate => {
                self.may_be_in_step = true;
                state.failures += 1;
                state.credentials_renewed = false;
                if state.failures == 1 || state.sent != state.wanted {
                    return self.heartbeat(Credentials::Current, now);
                }
                let wait = period.mul_f64(0.5 + 0.5 * self.rng.f64());
                self.deadline = Some(now + before_it_runs_out(wait, state.expires_at, now));
                Action::Wait
            }
        }
    }

    fn heartbeat(&mut self, credentials: Credentials, now: Instant) -> Action {
        let longest = (self.period() / 2).min(Duration::from_secs(2));
        let State::Held(state) = &mut self.state else { return Action::Wait };
        state.sent = state.wanted;
        let call = match state.wanted {
            Vitality::Healthy => Call::Heartbeat(state.token.clone()),
            Vitality::Unhealthy => Call::Suspend(state.token.clone()),
        };
        let timeout = less_than_is_left(longest, state.expires_at, now);
        self.send(call, timeout, credentials, now)
    }

    /// Only what is listed can stay as what is not to be used.
    fn suspend(&mut self, now: Instant) -> Action {
        if matches!(self.state, State::Held(_)) {
            return self.want(Vitality::Unhealthy, now);
        }
        self.withdraw(now)
    }

    /// Dropped, a heartbeat that says otherwise could still arrive, and later: its answer has to be waited for.
    fn want(&mut self, wanted: Vitality, now: Instant) -> Action {
        let State::Held(state) = &mut self.state else { return Action::Wait };
        let is_news = std::mem::replace(&mut state.wanted, wanted) != wanted;
        self.may_be_in_step |= is_news;
        if is_news && self.under_way.is_none() {
            self.heartbeat(Credentials::Current, now)
        } else {
            Action::Wait
        }
    }

    fn withdraw(&mut self, now: Instant) -> Action {
        match &mut self.state {
            State::Idle => self.end_withdrawal(now),
            // Dropped, it could still arrive, after the deregistration: its answer has to be waited for.
            State::Registering(_) if self.under_way.is_some() => {
                self.state = State::Withdrawing(Withdrawing::default());
                self.deadline = None;
                Action::Wait
            }
            State::Registering(_) if !self.may_be_listed => self.end_withdrawal(now),
            State::Registering(_) | State::Held(_) => {
                self.state = State::Withdrawing(Withdrawing::default());
                self.deregister(Credentials::Current, now)
            }
            State::Withdrawing(state) => {
                state.is_wanted_back = false;
                Action::Wait
            }
            State::Withdrawn => Action::Wait,
        }
    }

    fn deregister(&mut self, credentials: Credentials, now: Instant) -> Action {
        let State::Withdrawing(state) = &mut self.state else { return Action::Wait };
        state.tries += 1;
        let timeout = (self.period() / 2).min(Duration::from_secs(1));
        self.send(Call::Deregister, timeout, credentials, now)
    }

    fn withdrawal_failed(&mut self, recourse: Recourse, now: Instant) -> Action {
        let State::Withdrawing(state) = &self.state else { return Action::Wait };
        self.may_be_listed &= !matches!(recourse, Recourse::Register | Recourse::AwaitRelease { .. });
        let may_try = state.tries < Self::WITHDRAWAL_TRIES && !state.is_wanted_back;
        match recourse {
            // What failed may have been a registration that took effect all the same.
            Recourse::Retry if may_try => self.deregister(Credentials::Current, now),
            Recourse::Authenticate if may_try => self.deregister(Credentials::Renewed, now),
            _ => self.end_withdrawal(now),
        }
    }

    fn end_withdrawal(&mut self, now: Instant) -> Action {
        if let State::Withdrawing(Withdrawing { is_wanted_back: true, .. }) = self.state {
            return self.start_registering(None, now);
        }
        self.state = State::Withdrawn;
        self.deadline = None;
        Action::Wait
    }

    fn due(&mut self, now: Instant) -> Action {
        let late = self.deadline.take().map(|deadline| now.saturating_duration_since(deadline));
        self.may_be_in_step |= late.is_some_and(|late| late > self.period() / 10);
        match self.state {
            State::Registering(_) => self.register(Credentials::Current, now),
            State::Held(_) => self.heartbeat(Credentials::Current, now),
            State::Idle | State::Withdrawing(_) | State::Withdrawn => Action::Wait,
        }
    }

    fn send(&mut self, call: Call, timeout: Duration, credentials: Credentials, now: Instant) -> Action {
        self.under_way = Some(now);
        self.deadline = None;
        Action::Send(Request { call, timeout, credentials })
    }

    fn timeout(&self) -> Duration {
        self.policy.timeout.as_duration()
    }

    /// A third of the timeout.
    fn period(&self) -> Duration {
        self.timeout() / 3
    }
}

/// How long to give a try, while there is something left.
fn less_than_is_left(longest: Duration, expires_at: Instant, now: Instant) -> Duration {
    let left = expires_at.saturating_duration_since(now);
    if left.is_zero() { longest } else { longest.min(left / 2).max(Lease::SHORTEST_ATTEMPT) }
}

/// `wait`, cut short so that a try is still made when most of what is left has passed.
fn before_it_runs_out(wait: Duration, expires_at: Instant, now: Instant) -> Duration {
    let left = expires_at.saturating_duration_since(now);
    let last_chance = left.mul_f64(0.75);
    if last_chance < Lease::SHORTEST_ATTEMPT {
        wait.max(Lease::SHORTEST_ATTEMPT)
    } else {
        wait.min(last_chance)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
