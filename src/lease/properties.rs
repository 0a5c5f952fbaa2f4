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
