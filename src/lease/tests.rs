//! The rules of the lease, a few lines each; and what holds whatever happens.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_secs(10);

fn policy() -> Policy {
    let timeout = HeartbeatTimeout::from_secs(TIMEOUT.as_secs()).unwrap();
    Policy { timeout, on_conflict: OnConflict::Wait, give_up_after: None }
}

/// A lease and its clock, which a test moves by hand.
struct Scene {
    lease: Lease,
    now: Instant,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        Self { lease: Lease::new(policy, fastrand::Rng::with_seed(1)), now: Instant::now() }
    }

    fn held() -> Self {
        let mut scene = Self::new(policy());
        scene.on(Event::Enlist);
        scene.on(Event::Registered(Token::new("1")));
        scene
    }

    fn on(&mut self, event: Event) -> Action {
        self.lease.on(event, self.now)
    }

    fn fails(&mut self, recourse: Recourse) -> Action {
        self.on(Event::Failed(recourse))
    }

    /// How long until the deadline, and what happens then.
    fn at_deadline(&mut self) -> (Duration, Action) {
        let deadline = self.lease.deadline().expect("nothing is due");
        let wait = deadline - self.now;
        self.now = deadline;
        (wait, self.on(Event::DeadlineReached))
    }

    fn beats(&mut self) {
        let (_, action) = self.at_deadline();
        assert!(is_heartbeat(&action), "{action:?}");
    }
}

fn sent(action: &Action) -> &Request {
    match action {
        Action::Send(request) => request,
        Action::Wait => panic!("nothing was sent"),
    }
}

fn is_heartbeat(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Heartbeat(_), .. }))
}

fn is_registration(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Register(_), .. }))
}

fn is_deregistration(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Deregister, .. }))
}

#[test]
fn nothing_is_sent_before_the_service_is_to_be_listed() {
    let mut scene = Scene::new(policy());
    assert_eq!(scene.lease.deadline(), None);
    assert_eq!(scene.on(Event::DeadlineReached), Action::Wait);
    assert!(is_registration(&scene.on(Event::Enlist)));
}

#[test]
fn the_first_heartbeat_comes_anywhere_in_the_first_period() {
    let first = |seed| {
        let mut lease = Lease::new(policy(), fastrand::Rng::with_seed(seed));
        let now = Instant::now();
        lease.on(Event::Enlist, now);
        lease.on(Event::Registered(Token::new("1")), now);
        lease.deadline().unwrap() - now
    };
    let waits: Vec<_> = (0..200).map(first).collect();
    assert!(waits.iter().all(|wait| *wait <= PERIOD));
    assert!(waits.iter().any(|wait| *wait < PERIOD / 4) && waits.iter().any(|wait| *wait > PERIOD * 3 / 4));
}

#[test]
fn heartbeats_carry_the_token_of_the_last_answer_a_little_before_each_third() {
    let mut scene = Scene::held();
    scene.beats();
    for number in 2..50 {
        scene.on(Event::HeartbeatAccepted(Token::new(number.to_string())));
        let (wait, action) = scene.at_deadline();
        assert!(wait >= PERIOD.mul_f64(0.8) && wait <= PERIOD.mul_f64(0.9), "{wait:?}");
        assert_eq!(sent(&action).call, Call::Heartbeat(Token::new(number.to_string())));
    }
}

#[test]
fn a_failed_heartbeat_is_sent_again_at_once_then_with_backoff() {
    let mut scene = Scene::held();
    scene.beats();
    assert!(is_heartbeat(&scene.fails(Recourse::Retry)));
    assert_eq!(scene.lease.standing(), Standing::Held);
    assert_eq!(scene.fails(Recourse::Retry), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Failing);
    let (wait, action) = scene.at_deadline();
    assert!(is_heartbeat(&action) && wait <= Backoff::FIRST);
    scene.on(Event::HeartbeatAccepted(Token::new("2")));
    assert_eq!(scene.lease.standing(), Standing::Held);
}

#[test]
fn the_last_tries_are_made_just_before_the_lease_runs_out() {
    let mut scene = Scene::held();
    let expires_at = scene.now + TIMEOUT;
    scene.beats();
    scene.fails(Recourse::Retry);
    let mut last_try = scene.now;
    while scene.now < expires_at {
        last_try = scene.now;
        scene.fails(Recourse::Retry);
        scene.at_deadline();
    }
    assert!(expires_at - last_try < Duration::from_millis(200), "{:?}", expires_at - last_try);
}

#[test]
fn a_try_is_given_less_time_than_is_left() {
    let mut scene = Scene::held();
    let expires_at = scene.now + TIMEOUT;
    let (_, mut action) = scene.at_deadline();
    while expires_at - scene.now > 2 * Lease::SHORTEST_ATTEMPT {
        let timeout = sent(&action).timeout;
        assert!(timeout < expires_at - scene.now && timeout <= Duration::from_secs(2));
        action = scene.fails(Recourse::Retry);
        if action == Action::Wait {
            action = scene.at_deadline().1;
        }
    }
}

#[test]
fn a_registry_that_forgot_us_is_told_in_the_same_tick() {
    for forgotten in [Recourse::Register, Recourse::None, Recourse::AwaitRelease { frees_in: None }] {
        let mut scene = Scene::held();
        scene.beats();
        assert!(is_registration(&scene.fails(forgotten)), "{forgotten:?}");
    }
}

#[test]
fn new_credentials_are_tried_once_then_it_is_an_outage() {
    let mut scene = Scene::held();
    scene.beats();
    let again = scene.fails(Recourse::Authenticate);
    assert!(is_heartbeat(&again));
    assert_eq!(sent(&again).credentials, Credentials::Renewed);
    let again = scene.fails(Recourse::Authenticate);
    assert_eq!(sent(&again).credentials, Credentials::Current);
    // Each try of the outage may log in once.
    assert_eq!(sent(&scene.fails(Recourse::Authenticate)).credentials, Credentials::Renewed);
    assert_eq!(scene.fails(Recourse::Authenticate), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Failing);
}

#[test]
fn registering_goes_on_for_ever_unless_it_must_succeed() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    for _ in 0..1000 {
        assert_eq!(scene.fails(Recourse::Retry), Action::Wait);
        let (wait, action) = scene.at_deadline();
        assert!(is_registration(&action) && wait <= 2 * PERIOD);
    }
    for _ in 0..1000 {
        assert_eq!(scene.fails(Recourse::None), Action::Wait);
        let (wait, action) = scene.at_deadline();
        assert!(is_registration(&action) && wait >= TIMEOUT / 2 && wait <= TIMEOUT);
    }
}

#[test]
fn where_it_must_succeed_so_many_failures_are_enough() {
    let must_succeed = Policy { give_up_after: NonZeroU32::new(3), ..policy() };
    let mut scene = Scene::new(must_succeed);
    scene.on(Event::Enlist);
    for _ in 0..2 {
        scene.fails(Recourse::Retry);
        assert_eq!(scene.lease.standing(), Standing::Failing);
        scene.at_deadline();
    }
    scene.fails(Recourse::Retry);
    assert_eq!(scene.lease.standing(), Standing::Refused);
    assert_eq!(scene.lease.deadline(), None);
}

#[test]
fn where_it_must_succeed_a_lasting_failure_is_enough() {
    let must_succeed = Policy { give_up_after: NonZeroU32::new(3), ..policy() };
    let mut scene = Scene::new(must_succeed.clone());
    scene.on(Event::Enlist);
    scene.fails(Recourse::None);
    assert_eq!(scene.lease.standing(), Standing::Refused);

    let mut scene = Scene::new(must_succeed);
    scene.on(Event::Enlist);
    assert!(is_registration(&scene.fails(Recourse::Authenticate)));
    scene.fails(Recourse::Authenticate);
    assert_eq!(scene.lease.standing(), Standing::Refused);
}

#[test]
fn once_registered_no_failure_is_final() {
    let mut scene = Scene::new(Policy { give_up_after: NonZeroU32::new(1), ..policy() });
    scene.on(Event::Enlist);
    scene.on(Event::Registered(Token::new("1")));
    scene.beats();
    assert!(is_registration(&scene.fails(Recourse::Register)));
    for recourse in [Recourse::Retry, Recourse::None, Recourse::AwaitRelease { frees_in: None }] {
        scene.fails(recourse);
        assert!(is_registration(&scene.at_deadline().1));
    }
}

#[test]
fn a_taken_id_is_waited_for() {
    let mut scene = Scene::new(Policy { give_up_after: NonZeroU32::new(1), ..policy() });
    scene.on(Event::Enlist);
    let frees_in = Some(Duration::from_secs(2));
    assert_eq!(scene.fails(Recourse::AwaitRelease { frees_in }), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Waiting);
    let (wait, action) = scene.at_deadline();
    assert!(is_registration(&action));
    assert_eq!(wait, Duration::from_secs(2));
    // Its holder renewed it, and goes on doing so for longer than any previous life of ours could last.
    let start = scene.now;
    while scene.lease.standing() == Standing::Waiting {
        scene.fails(Recourse::AwaitRelease { frees_in: Some(TIMEOUT) });
        if scene.lease.deadline().is_some() {
            assert!(scene.at_deadline().0 <= PERIOD);
        }
    }
    assert_eq!(scene.lease.standing(), Standing::Refused);
    assert!(scene.now - start >= Duration::from_secs(110));
}

#[test]
fn a_taken_id_is_a_failure_if_so_asked() {
    let fail = Policy { on_conflict: OnConflict::Fail, give_up_after: NonZeroU32::new(9), ..policy() };
    let mut scene = Scene::new(fail);
    scene.on(Event::Enlist);
    scene.fails(Recourse::AwaitRelease { frees_in: None });
    assert_eq!(scene.lease.standing(), Standing::Refused);
}

#[test]
fn a_taken_id_is_taken_over_once_if_so_asked() {
    let mut scene = Scene::new(Policy { on_conflict: OnConflict::Replace, ..policy() });
    let first = scene.on(Event::Enlist);
    assert_eq!(sent(&first).call, Call::Register(IfTaken::TakeOver));
    scene.on(Event::Registered(Token::new("1")));
    scene.beats();
    let again = scene.fails(Recourse::Register);
    assert_eq!(sent(&again).call, Call::Register(IfTaken::Refuse));
}

#[test]
fn a_withdrawal_is_sent_at_once_even_while_a_heartbeat_hangs() {
    let mut scene = Scene::held();
    scene.beats();
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
    scene.on(Event::Deregistered);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
    assert_eq!(scene.lease.deadline(), None);
}

#[test]
fn a_withdrawal_waits_for_a_registration_under_way() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    assert_eq!(scene.on(Event::Withdraw), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Withdrawing);
    assert!(is_deregistration(&scene.on(Event::Registered(Token::new("1")))));
}

#[test]
fn a_withdrawal_follows_a_registration_of_unknown_outcome() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    scene.fails(Recourse::Retry);
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
}

#[test]
fn there_is_nothing_to_withdraw_while_somebody_else_has_the_id() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    scene.fails(Recourse::AwaitRelease { frees_in: None });
    assert_eq!(scene.on(Event::Withdraw), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
}

#[test]
fn a_withdrawal_is_tried_twice_and_no_more() {
    let mut scene = Scene::held();
    scene.on(Event::Withdraw);
    assert!(is_deregistration(&scene.fails(Recourse::Retry)));
    assert_eq!(scene.fails(Recourse::Retry), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
}

#[test]
fn who_was_withdrawn_can_be_back() {
    let mut scene = Scene::held();
    scene.on(Event::Withdraw);
    scene.on(Event::Deregistered);
    assert!(is_registration(&scene.on(Event::Enlist)));
}

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
        history in prop::collection::vec((outcome(), 0_u64..3_000, interlude()), 1..60),
    ) {
        let timeout = HeartbeatTimeout::from_secs(seconds).unwrap();
        let mut lease = Lease::new(Policy { timeout, ..policy() }, fastrand::Rng::with_seed(seed));
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
