//! Many leases against one registry: after it was away they do not come back together.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::Play;
use super::mutation::Mutation;
use super::plan::{Data, Fault, Kind, Plan, Style};
use super::world::Note;
use crate::lease::driver::Wish;
use crate::lease::{OnConflict, Policy};
use crate::model::HeartbeatTimeout;

const CLIENTS: usize = 300;
const TIMEOUT: Duration = Duration::from_secs(30);
/// When the registry goes away, when it is back, and when everything has been seen.
const AWAY: Duration = Duration::from_secs(90);
const BACK: Duration = Duration::from_secs(150);
const END: Duration = Duration::from_secs(180);
/// How many times as many requests as ever there may be in a second. A lease whose heartbeat finds it gone sends two,
/// and while they fail the leases try about twice as often as they beat.
const PEAK: usize = 4;

/// How many requests arrive in a second: before the registry goes away, and at most once it is back.
fn arrivals(kind: Kind, seed: u64, mutation: Option<Mutation>) -> (usize, usize) {
    let timeout = HeartbeatTimeout::from_secs(TIMEOUT.as_secs()).unwrap();
    let history = Plan {
        policy: Policy { timeout, on_conflict: OnConflict::Wait, give_up_after: None },
        style: Style::OneTimeTokens,
        latency: Duration::from_millis(5),
        faults: vec![Fault { kind, from: AWAY, until: BACK }],
        wishes: vec![(Duration::ZERO, Wish::Listed)],
        end: END,
    };
    let mut play = Play::of(history, Rng::with_seed(seed), mutation, CLIENTS);
    let violation = play.run();
    assert!(violation.is_none(), "seed {seed}: {violation:?}");
    let world = play.world.lock().unwrap();
    let arrivals = world.trace.iter().filter(|(_, note)| matches!(note, Note::Arrives(_)));
    let mut by_second = BTreeMap::<u64, usize>::new();
    for (at, _) in arrivals {
        *by_second.entry(at.as_secs()).or_default() += 1;
    }
    let (away, timeout) = (AWAY.as_secs(), TIMEOUT.as_secs());
    let before: usize = by_second.range(away - timeout..away).map(|(_, arrivals)| arrivals).sum();
    let after = by_second.range(BACK.as_secs()..).map(|(_, arrivals)| *arrivals).max();
    (before / 30, after.unwrap_or_default())
}

#[test]
fn leases_do_not_come_back_together() {
    for kind in [Kind::Restart(Data::Lost), Kind::Restart(Data::Kept), Kind::Refusing, Kind::BlackHole] {
        for seed in 0..2 {
            let (before, after) = arrivals(kind, seed, None);
            println!("{kind:?}: {before} requests a second before, {after} at most after");
            assert!(after <= PEAK * before, "{kind:?}, seed {seed}: {after} in a second, {before} before");
        }
    }
}

#[test]
fn without_jitter_they_would() {
    let (before, after) = arrivals(Kind::Restart(Data::Lost), 0, Some(Mutation::NoJitter));
    assert!(after > PEAK * before, "{after} in a second, {before} before");
}
