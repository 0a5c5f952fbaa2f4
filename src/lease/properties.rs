//! What holds of a lease whatever happens.

use proptest::prelude::*;

use super::tests::{is_deregistration, is_registration, policy, sent};
use super::*;

#[derive(Debug, Clone)]
enum Outcome {
    Success,
    Failure(Recourse),
    /// No answer: the driver gives up after the request's timeout.
    Silence,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Success),
        2 => Just(Outcome::Silence),
        2 => Just(Outcome::Failure(Recourse::Retry)),
        1 => Just(Outcome::Failure(Recourse::Register)),
        1 => Just(Outcome::Failure(Recourse::Authenticate)),
        1 => Just(Outcome::Failure(Recourse::None)),
        1 => Just(Outcome::Failure(Recourse::AwaitRelease { frees_in: None })),
    ]
}

/// What may come between two answers.
#[derive(Debug, Clone)]
enum Interlude {
    Nothing,
    Pause(Duration),
    Withdraw,
    Enlist,
}

fn interlude() -> impl Strategy<Value = Interlude> {
    prop_oneof![
        12 => Just(Interlude::Nothing),
        1 => (0_u64..100_000).prop_map(|millis| Interlude::Pause(Duration::from_millis(millis))),
        1 => Just(Interlude::Withdraw),
        1 => Just(Interlude::Enlist),
    ]
}

fn success(call: &Call, number: usize) -> Event {
    match call {
        Call::Register(_) => Event::Registered(Token::new(format!("r{number}"))),
        Call::Heartbeat(_) => Event::HeartbeatAccepted(Token::new(format!("h{number}"))),
        Call::Deregister => Event::Deregistered,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens(
        seconds in 3_u64..=120,
        seed: u64,
        failures in 0_u32..4,
        history in prop::collection::vec((outcome(), 0_u64..3_000, interlude()), 1..60),
    ) {
        let timeout = HeartbeatTimeout::from_secs(seconds).unwrap();
        let policy = Policy { timeout, give_up_after: NonZeroU32::new(failures), ..policy() };
        let mut lease = Lease::new(policy, fastrand::Rng::with_seed(seed));
        let mut now = Instant::now();
        let mut action = lease.on(Event::Enlist, now);
        let mut wanted = true;
        let mut token = None;
        let mut was_forgotten = false;
        for (number, (outcome, millis, interlude)) in history.into_iter().enumerate() {
            // While the service is to be listed, there is always something that comes next.
            if action == Action::Wait && wanted {
                prop_assert!(lease.deadline().is_some(), "silence in {:?}", lease.standing());
            }
            if was_forgotten {
                prop_assert!(is_registration(&action), "forgotten, but {action:?}");
            }
            if let Action::Send(request) = &action {
                prop_assert!(request.timeout >= Lease::SHORTEST_ATTEMPT);
                match &request.call {
                    // A heartbeat presents the last token that the registry gave, and none before.
                    Call::Heartbeat(presented) => prop_assert_eq!(Some(presented), token.as_ref()),
                    Call::Register(_) => prop_assert!(wanted, "registers although withdrawn"),
                    Call::Deregister => prop_assert!(!wanted, "leaves without being asked"),
                }
                let delay = Duration::from_millis(millis);
                let event = match outcome {
                    _ if delay > request.timeout => Event::Failed(Recourse::Retry),
                    Outcome::Silence => Event::Failed(Recourse::Retry),
                    Outcome::Failure(recourse) => Event::Failed(recourse),
                    Outcome::Success => success(&request.call, number),
                };
                if let Event::Registered(new) | Event::HeartbeatAccepted(new) = &event {
                    token = Some(new.clone());
                }
                was_forgotten = wanted
                    && matches!(request.call, Call::Heartbeat(_))
                    && event == Event::Failed(Recourse::Register);
                now += delay.min(request.timeout);
                action = lease.on(event, now);
            } else if let Some(deadline) = lease.deadline() {
                now = now.max(deadline);
                action = lease.on(Event::DeadlineReached, now);
                prop_assert!(action != Action::Wait, "woke for nothing");
            }
            if was_forgotten {
                continue;
            }
            let answer_outstanding = action != Action::Wait;
            match interlude {
                Interlude::Nothing => {}
                Interlude::Pause(span) => now += span,
                // The driver goes on waiting for what is under way unless it is told to send something else.
                Interlude::Withdraw => {
                    wanted = false;
                    let next = lease.on(Event::Withdraw, now);
                    if !answer_outstanding || next != Action::Wait {
                        action = next;
                    } else if let Action::Send(Request { call: Call::Register(_), .. }) = action {
                        let event = Event::Registered(Token::new("late"));
                        token = Some(Token::new("late"));
                        action = lease.on(event, now);
                        prop_assert!(is_deregistration(&action));
                    }
                }
                Interlude::Enlist => {
                    wanted = true;
                    let next = lease.on(Event::Enlist, now);
                    if !answer_outstanding || next != Action::Wait {
                        action = next;
                    }
                }
            }
        }
    }

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

    /// An outage of two thirds of the timeout, whenever it begins, costs no registration.
    #[test]
    fn an_outage_of_two_thirds_of_the_timeout_is_survived(
        seconds in 3_u64..=120,
        seed: u64,
        begins in 0.0_f64..1.0,
        fails_slowly: bool,
    ) {
        let timeout = HeartbeatTimeout::from_secs(seconds).unwrap();
        let mut lease = Lease::new(Policy { timeout, ..policy() }, fastrand::Rng::with_seed(seed));
        let start = Instant::now();
        let span = timeout.as_duration();
        let outage = start + span.mul_f64(begins)..start + span.mul_f64(begins) + span * 2 / 3;
        lease.on(Event::Enlist, start);
        lease.on(Event::Registered(Token::new("0")), start);
        let (mut now, mut accepted_at) = (start, start);
        let mut action = Action::Wait;
        while now < outage.end + span {
            let Action::Send(request) = action else {
                now = lease.deadline().expect("nothing is due").max(now);
                action = lease.on(Event::DeadlineReached, now);
                continue;
            };
            if outage.contains(&now) {
                now += if fails_slowly { request.timeout } else { Duration::from_millis(1) };
                action = lease.on(Event::Failed(Recourse::Retry), now);
            } else {
                now += Duration::from_millis(1);
                prop_assert!(now - accepted_at <= span, "silent for {:?} of {span:?}", now - accepted_at);
                accepted_at = now;
                action = lease.on(success(&request.call, 0), now);
            }
        }
    }
}
