//! Very many leases at one registry: together they ask little more of it after an outage than on a quiet day.

use std::ops::Range;

use proptest::prelude::{ProptestConfig, prop, prop_assert, proptest};

use super::tests::policy;
use super::*;

const CROWD: u32 = 500;
const PERIOD: Duration = Duration::from_secs(10);
/// How finely the requests are counted.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOWS: u32 = 40;
/// How many requests come in each on a quiet day: a heartbeat in 0.85 of a period from everyone.
const STEADY: f64 = 500.0 / 8.5;

/// A registry that answers at once, but for an outage.
struct Registry {
    outage: Range<Instant>,
    /// What it knows when it is back.
    comes_back: ComesBack,
    /// How many requests came in each window since.
    load: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ComesBack {
    WithData,
    Empty,
}

/// One of the crowd, and when it last registered.
struct Member {
    lease: Lease,
    registered_at: Instant,
}

impl Registry {
    /// When nobody counts any more.
    fn end(&self) -> Instant {
        self.outage.end + WINDOWS * WINDOW
    }

    fn answer(&mut self, member: &mut Member, call: &Call, now: Instant) -> Event {
        if self.outage.contains(&now) {
            return Event::Failed(Recourse::Retry);
        }
        if let Some(since) = now.checked_duration_since(self.outage.end) {
            self.load[usize::try_from(since.as_nanos() / WINDOW.as_nanos()).unwrap()] += 1;
        }
        let was_forgotten = self.comes_back == ComesBack::Empty
            && now >= self.outage.end
            && member.registered_at < self.outage.end;
        match call {
            Call::Register(_) => {
                member.registered_at = now;
                Event::Registered(Token::new("0"))
            }
            Call::Heartbeat(_) if was_forgotten => Event::Failed(Recourse::Register),
            Call::Heartbeat(_) => Event::HeartbeatAccepted(Token::new("0")),
            Call::Deregister => Event::Deregistered,
        }
    }
}

impl Member {
    /// Does what comes of this event, until there is something to wait for.
    fn advance(&mut self, event: Event, now: Instant, registry: &mut Registry) {
        let mut action = self.lease.on(event, now);
        while let Action::Send(request) = action {
            let answer = registry.answer(self, &request.call, now);
            action = self.lease.on(answer, now);
        }
    }
}

/// How many requests came in each window from the end of the outage on.
fn load_after(outage: Duration, comes_back: ComesBack, seed: u64) -> Vec<u32> {
    let start = Instant::now();
    let outage_begins = start + 3 * PERIOD;
    let outage = outage_begins..outage_begins + outage;
    let mut registry = Registry { outage: outage.clone(), comes_back, load: vec![0; WINDOWS as usize] };
    let mut seeds = Rng::with_seed(seed);
    for _ in 0..CROWD {
        let lease = Lease::new(policy(), Rng::with_seed(seeds.u64(..)));
        let mut member = Member { lease, registered_at: start };
        member.advance(Event::Enlist, start, &mut registry);
        while let Some(deadline) = member.lease.deadline().filter(|deadline| *deadline < registry.end()) {
            member.advance(Event::DeadlineReached, deadline, &mut registry);
        }
    }
    registry.load
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn there_is_no_stampede_after_an_outage(
        seconds in 0.0_f64..60.0,
        comes_back in prop::sample::select(vec![ComesBack::WithData, ComesBack::Empty]),
        seed: u64,
    ) {
        let load = load_after(Duration::from_secs_f64(seconds), comes_back, seed);
        let most = load.iter().copied().max().map(f64::from).unwrap();
        // What an outage has held up is made up for in a period, beside what comes anyway; but by the end of the timeout
        // every lease has to be renewed that is to be kept.
        let factor = if (17.0..31.0).contains(&seconds) { 5.0 } else { 3.0 };
        // Whoever is told that it is forgotten registers.
        let requests = if comes_back == ComesBack::Empty { 2.0 } else { 1.0 };
        prop_assert!(most < factor * requests * STEADY, "{most} in a second: {load:?}");
        let late = load.iter().skip(15).copied().max().map(f64::from).unwrap();
        prop_assert!(late < 2.5 * STEADY, "{late} in a second, long after it: {load:?}");
    }
}
