//! What holds of a lease while some of its requests fail, however many: the [simulation](super::simulation) looks at
//! one trouble at a time.

use proptest::prelude::*;

use super::tests::{policy, sent};
use super::*;

fn success(call: &Call, number: usize) -> Event {
    match call {
        Call::Register(_) => Event::Registered(Token::new(format!("r{number}"))),
        Call::Heartbeat(_) | Call::Suspend(_) => Event::HeartbeatAccepted(Token::new(format!("h{number}"))),
        Call::Deregister => Event::Deregistered,
    }
}

proptest! {
    /// A registry that answers, even if some answers are lost or late, never has cause to count us as dead.
    #[test]
    fn never_silent_for_the_timeout_while_the_registry_answers(
        seconds in 3_u64..=120,
        seed: u64,
        // One try in three may fail, of each three.
        losses in prop::collection::vec(prop::option::of(0_usize..3), 40),
        latency in 0_u64..100,
    ) {
        let timeout = HeartbeatTimeout::from_secs(seconds).unwrap();
        let mut lease = Lease::new(Policy { timeout, ..policy() }, fastrand::Rng::with_seed(seed));
        let mut now = Instant::now();
        lease.on(Event::Enlist, now);
        lease.on(Event::Registered(Token::new("0")), now);
        let mut accepted_at = now;
        for lost in losses {
            for number in 0..3 {
                now = lease.deadline().map_or(now, |deadline| deadline.max(now));
                let mut action = lease.on(Event::DeadlineReached, now);
                if lost == Some(number) {
                    now += sent(&action).timeout;
                    action = lease.on(Event::Failed(Recourse::Retry), now);
                }
                let Action::Send(request) = action else { panic!("not sent again at once") };
                now += Duration::from_millis(latency).min(request.timeout);
                prop_assert!(now - accepted_at < timeout.as_duration());
                accepted_at = now;
                lease.on(success(&request.call, number), now);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Told(Wanted),
    Accepted,
    Refused(Recourse),
    Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Listed,
    Suspended,
    Unlisted,
}

fn any_step() -> impl Strategy<Value = Step> {
    let wanted = prop::sample::select(&[Wanted::Listed, Wanted::Suspended, Wanted::Unlisted][..]);
    let refusal = prop::sample::select(
        &[Recourse::Retry, Recourse::Register, Recourse::None, Recourse::Authenticate][..],
    );
    prop_oneof![
        2 => wanted.prop_map(Step::Told),
        4 => Just(Step::Accepted),
        2 => refusal.prop_map(Step::Refused),
        2 => Just(Step::Due),
    ]
}

/// A lease, what is wanted of it, and the request under way.
struct Told {
    lease: Lease,
    wanted: Wanted,
    under_way: Option<Call>,
    now: Instant,
}

impl Told {
    fn on(&mut self, event: Event) {
        if let Action::Send(request) = self.lease.on(event, self.now) {
            let fits = match request.call {
                Call::Register(_) | Call::Heartbeat(_) => self.wanted == Wanted::Listed,
                Call::Suspend(_) => self.wanted == Wanted::Suspended,
                Call::Deregister => self.wanted != Wanted::Listed,
            };
            assert!(fits, "{:?} was sent while it is to be {:?}", request.call, self.wanted);
            self.under_way = Some(request.call);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Told(wanted) => {
                self.wanted = wanted;
                self.on(match wanted {
                    Wanted::Listed => Event::Enlist,
                    Wanted::Suspended => Event::Suspend,
                    Wanted::Unlisted => Event::Withdraw,
                });
            }
            Step::Accepted => {
                if let Some(call) = self.under_way.take() {
                    self.on(success(&call, 0));
                }
            }
            Step::Refused(recourse) => {
                if self.under_way.take().is_some() {
                    self.on(Event::Failed(recourse));
                }
            }
            Step::Due => {
                if let (None, Some(deadline)) = (&self.under_way, self.lease.deadline()) {
                    self.now = deadline.max(self.now);
                    self.on(Event::DeadlineReached);
                }
            }
        }
    }
}

proptest! {
    /// Nothing is said of a service that is not wanted, and when the registry answers again, it has what is.
    #[test]
    fn what_is_said_is_what_is_wanted(steps in prop::collection::vec(any_step(), 0..60)) {
        let lease = Lease::new(policy(), fastrand::Rng::with_seed(1));
        let mut told = Told { lease, wanted: Wanted::Unlisted, under_way: None, now: Instant::now() };
        for step in steps {
            told.step(step);
        }
        for _ in 0..6 {
            told.step(Step::Due);
            told.step(Step::Accepted);
        }
        let standing = told.lease.standing();
        let fits = match told.wanted {
            Wanted::Listed => standing == Standing::Held,
            Wanted::Suspended => matches!(standing, Standing::Suspended | Standing::Withdrawn),
            Wanted::Unlisted => matches!(standing, Standing::Idle | Standing::Withdrawn),
        };
        prop_assert!(fits, "{standing:?} when it is to be {:?}", told.wanted);
    }
}
