//! What befalls a lease in one history, drawn from its seed.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;

use crate::lease::driver::Wish;
use crate::lease::{OnConflict, Policy};
use crate::model::HeartbeatTimeout;

/// A span of time since the start of the history.
pub(super) type Time = Duration;

pub(super) struct Plan {
    pub(super) policy: Policy,
    pub(super) style: Style,
    /// The longest that a message takes while nothing is wrong.
    pub(super) latency: Duration,
    pub(super) faults: Vec<Fault>,
    pub(super) wishes: Vec<(Time, Wish)>,
    pub(super) end: Time,
}

/// How a registry knows whose heartbeat it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Each answer brings the token of the next heartbeat: the API, the embedded registry.
    OneTimeTokens,
    /// The token stays: Consul, etcd, ZooKeeper.
    Sessions,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) from: Time,
    pub(super) until: Time,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// The network refuses every connection at once.
    Refusing,
    /// The network swallows every message.
    BlackHole,
    /// It loses one message in so many.
    Lossy(u32),
    /// One message in two takes up to twice the timeout.
    Slow,
    /// It delivers each message twice, the second time up to a timeout later.
    Duplicating,
    /// The registry is down, and back at the end of it.
    Restart(Data),
    /// The registry fails one request in so many, some of them after having done what they ask.
    Overloaded(u32),
    /// The registry takes every request for a mistake.
    Invalid,
    /// Requests for a registration or a heartbeat reach somebody else, who knows nothing of it.
    Astray,
    /// The wrapper does not run: SIGSTOP.
    Paused,
    /// Another instance holds the id for as long as this lasts, once it has it.
    Rival(Arrival, Departure),
    /// The registry forgets the service. Takes no time.
    Forgotten,
    /// The registry wants a new login. Takes no time.
    LoginExpired,
}

/// What becomes of a registry's data while it is down. What is kept has its full timeout afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Kept,
    Lost,
}

/// How another instance comes to hold the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It takes it over.
    ByForce,
    /// Only if nobody has it.
    IfFree,
}

/// How another instance gives up the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    Deregisters,
    Dies,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let seconds = *pick(rng, &[3, 3, 5, 10, 10, 20, 30, 60, 120]);
        let timeout = HeartbeatTimeout::from_secs(seconds).unwrap();
        let on_conflict =
            *pick(rng, &[OnConflict::Wait, OnConflict::Wait, OnConflict::Replace, OnConflict::Fail]);
        let policy = Policy { timeout, on_conflict, give_up_after: NonZeroU32::new(rng.u32(0..4)) };
        let span = timeout.as_duration();
        let troubled = span.mul_f64(2.0 + 6.0 * rng.f64());
        let faults: Vec<Fault> = (0..rng.u32(0..5)).map(|_| fault(rng, span, troubled)).collect();
        let latency = Duration::from_millis(rng.u64(1..=15));
        let wishes = wishes(rng, span, troubled, latency);
        let ends = faults.iter().map(|fault| fault.until).chain(wishes.iter().map(|(at, _)| *at));
        let end = ends.fold(troubled, Time::max);
        let style = *pick(rng, &[Style::OneTimeTokens, Style::OneTimeTokens, Style::Sessions]);
        Self { policy, style, latency, faults, wishes, end: end + span * 5 / 2 }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.policy.timeout.as_duration()
    }
}

fn fault(rng: &mut Rng, timeout: Duration, troubled: Duration) -> Fault {
    let kind = kind(rng);
    let from = troubled.mul_f64(rng.f64());
    let longest = timeout.mul_f64(*pick(rng, &[0.05, 0.66, 0.66, 0.66, 2.0, 2.0, 4.0]));
    let lasts = match kind {
        Kind::Forgotten | Kind::LoginExpired => Duration::ZERO,
        _ => longest.mul_f64(rng.f64()),
    };
    Fault { kind, from, until: from + lasts }
}

fn kind(rng: &mut Rng) -> Kind {
    match rng.u32(0..15) {
        0 => Kind::Refusing,
        1 | 2 => Kind::BlackHole,
        3 => Kind::Lossy(rng.u32(2..6)),
        4 => Kind::Slow,
        5 => Kind::Duplicating,
        6 => Kind::Restart(*pick(rng, &[Data::Kept, Data::Lost])),
        7 => Kind::Overloaded(rng.u32(1..4)),
        8 => Kind::Invalid,
        9 | 10 => Kind::Paused,
        11 => Kind::Rival(
            *pick(rng, &[Arrival::ByForce, Arrival::IfFree]),
            *pick(rng, &[Departure::Deregisters, Departure::Dies]),
        ),
        12 => Kind::Forgotten,
        13 => Kind::Astray,
        _ => Kind::LoginExpired,
    }
}

/// Listed from the start; now and then unlisted, and perhaps listed again, at once or later.
fn wishes(rng: &mut Rng, timeout: Duration, troubled: Duration, latency: Duration) -> Vec<(Time, Wish)> {
    let mut at = timeout.mul_f64(0.5 * rng.f64());
    let mut wishes = vec![(at, Wish::Listed)];
    while wishes.len() < 5 && rng.u32(0..3) == 0 {
        at += pick(rng, &[latency * 4, troubled, troubled]).mul_f64(rng.f64());
        wishes.push((at, Wish::Unlisted));
        if rng.u32(0..4) == 0 {
            break;
        }
        at += pick(rng, &[latency * 4, timeout]).mul_f64(rng.f64());
        wishes.push((at, Wish::Listed));
    }
    wishes
}

fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.usize(0..choices.len())]
}
