//! The lease, proven in many short histories.
//!
//! Each history is drawn from one seed: a policy, a registry, what goes wrong and when, what the owner wishes. The
//! driver that the wrapper runs, with the lease that it runs, plays it on a time that costs nothing to pass, while a
//! watcher looks whether the [invariants](invariants::Invariant) hold. The same seed makes the same history to the
//! byte. That the watcher would notice is shown by [mutations](mutation::Mutation): each breaks one rule.
//!
//! `LEASE_SIMULATION_SEED=123` plays that one history and prints it, `LEASE_SIMULATION_COUNT=1000000` so many more from
//! there.

mod invariants;
mod mutation;
mod network;
mod plan;
mod registry;
mod stampede;
mod world;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use fastrand::Rng;
use tokio::sync::watch;

use self::invariants::Violation;
use self::mutation::{Mutation, Subject};
use self::network::{Line, Shared, VirtualClock};
use self::plan::Plan;
use self::world::{Happening, World};
use super::driver::{Driver, Status, Task, Wish};
use super::{Lease, Standing};
use crate::model::{Metadata, Registration, Tags};

/// How many histories a run of the tests plays.
const HISTORIES: u64 = 20_000;
/// How many it takes at most to catch a broken rule.
const CAUGHT_WITHIN: u64 = 2_000;

/// The drivers of a history, and the world around them.
struct Play {
    world: Shared,
    cast: Vec<Actor>,
}

struct Actor {
    driver: Pin<Box<dyn Future<Output = ()>>>,
    wish: watch::Sender<Wish>,
    status: watch::Receiver<Status>,
    standing: Standing,
}

impl Play {
    fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        Self::of(plan, rng, mutation, 1)
    }

    fn of(plan: Plan, mut rng: Rng, mutation: Option<Mutation>, clients: usize) -> Self {
        let policy = plan.policy.clone();
        let seeds: Vec<u64> = (0..clients).map(|_| rng.u64(..)).collect();
        let registration = Registration {
            id: "service".parse().unwrap(),
            heartbeat_timeout: policy.timeout,
            tags: Tags::default(),
            metadata: Metadata::default(),
        };
        let world = Arc::new(Mutex::new(World::new(plan, rng, clients)));
        let actor = |(client, seed)| {
            let seed = if mutation == Some(Mutation::NoJitter) { 0 } else { seed };
            let lease = Lease::new(policy.clone(), Rng::with_seed(seed));
            let subject = Subject::new(lease, policy.clone(), mutation, Arc::clone(&world), client);
            let task = Task {
                registry: Arc::new(Line { world: Arc::clone(&world), client }),
                registration: registration.clone(),
                instance: "00000000-0000-1000-8000-000000000000".parse().unwrap(),
                holder: String::new(),
                policy: policy.clone(),
            };
            let (wish, wishes) = watch::channel(Wish::Idle);
            let (statuses, status) = watch::channel(Status { standing: Standing::Idle, failure: None });
            let clock = Arc::new(VirtualClock { world: Arc::clone(&world), client });
            let driver = Box::pin(Driver::new(task, clock, wishes, statuses, subject).run());
            Actor { driver, wish, status, standing: Standing::Idle }
        };
        let cast = seeds.into_iter().enumerate().map(actor).collect();
        Self { world, cast }
    }

    /// Plays the history to its end, or until an invariant is broken.
    fn run(&mut self) -> Option<Violation> {
        loop {
            self.act();
            let mut world = self.world.lock().unwrap();
            if let Some(violation) = world.watcher.violation.take() {
                return Some(violation);
            }
            let Some(happening) = world.advance() else { return world.watcher.violation.take() };
            world.happens(happening.clone());
            if let Happening::Wished(client, wish) = happening {
                self.cast[client].wish.send_replace(wish);
            }
        }
    }

    /// Lets everybody act who has cause to.
    fn act(&mut self) {
        loop {
            let mut world = self.world.lock().unwrap();
            let Some(client) = world.next_to_act() else { return };
            drop(world);
            let actor = &mut self.cast[client];
            let ended = actor.driver.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            assert!(!ended, "the driver has ended");
            let standing = actor.status.borrow().standing;
            if std::mem::replace(&mut actor.standing, standing) != standing {
                self.world.lock().unwrap().stands(client, standing);
            }
        }
    }

    fn trace(&self) -> String {
        self.world.lock().unwrap().to_string()
    }
}

/// What to tell of a history that broke an invariant.
fn told(seed: u64, violation: &Violation, play: &Play) -> String {
    const LAST: usize = 60;
    let trace = play.trace();
    let lines: Vec<_> = trace.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST)..].join("\n");
    let Violation { invariant, what } = violation;
    format!(
        "{}\n...\n{last}\n{invariant:?} is broken: {what}\nseed {seed}; to repeat it: {}",
        lines[0],
        command(seed)
    )
}

/// What plays one history again.
fn command(seed: u64) -> String {
    format!("LEASE_SIMULATION_SEED={seed} cargo test --lib lease::simulation::the_invariants -- --nocapture")
}

/// Names the history in which something panicked.
struct Playing(u64);

impl Drop for Playing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in history {}; to repeat it: {}", self.0, command(self.0));
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

#[test]
fn the_invariants_hold_whatever_happens() {
    let seed = from_environment("LEASE_SIMULATION_SEED");
    let count = from_environment("LEASE_SIMULATION_COUNT");
    if let (Some(seed), None) = (seed, count) {
        let mut play = Play::new(seed, None);
        let violation = play.run();
        println!("{}", play.trace());
        let broken = violation.map(|violation| told(seed, &violation, &play)).unwrap_or_default();
        assert!(broken.is_empty(), "{broken}");
        return;
    }
    let first = seed.unwrap_or_default();
    let count = count.unwrap_or(HISTORIES);
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failures.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let _playing = Playing(seed);
                    let mut play = Play::new(seed, None);
                    if let Some(violation) = play.run() {
                        failures.lock().unwrap().push(told(seed, &violation, &play));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_broken_rule_is_caught() {
    for (mutation, expected) in Mutation::OF_ONE {
        let broken = |seed| Play::new(seed, Some(*mutation)).run().map(|violation| (seed, violation));
        let Some((seed, violation)) = (0..CAUGHT_WITHIN).find_map(broken) else {
            panic!("{mutation:?} breaks nothing in {CAUGHT_WITHIN} histories");
        };
        println!("{mutation:?} breaks {:?} in history {seed}: {}", violation.invariant, violation.what);
        assert!(expected.contains(&violation.invariant), "{mutation:?} should break one of {expected:?}");
    }
}

#[test]
fn a_seed_is_a_history_to_the_byte() {
    for seed in 0..20 {
        let trace = |()| {
            let mut play = Play::new(seed, None);
            play.run();
            play.trace()
        };
        assert_eq!(trace(()), trace(()), "seed {seed}");
    }
}
