//! The rules of the lease, a few lines each.

mod drained;
mod suspension;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_secs(10);

pub(super) fn policy() -> Policy {
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
        Self { lease: Lease::new(policy, Rng::with_seed(1)), now: Instant::now() }
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

pub(super) fn sent(action: &Action) -> &Request {
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
        let mut lease = Lease::new(policy(), Rng::with_seed(seed));
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
fn a_late_answer_does_not_put_off_the_next_heartbeat() {
    let mut scene = Scene::held();
    for late in [Duration::from_secs(3), PERIOD, 2 * TIMEOUT] {
        scene.beats();
        let sent_at = scene.now;
        scene.now += late;
        scene.on(Event::HeartbeatAccepted(Token::new("2")));
        let next = scene.lease.deadline().unwrap();
        assert!(next <= scene.now.max(sent_at + PERIOD), "{late:?}: {:?}", next - scene.now);
    }
}

#[test]
fn a_failed_heartbeat_is_sent_again_at_once_then_within_a_period() {
    let mut scene = Scene::held();
    scene.beats();
    assert!(is_heartbeat(&scene.fails(Recourse::Retry)));
    assert_eq!(scene.lease.standing(), Standing::Held);
    assert_eq!(scene.fails(Recourse::Retry), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Failing);
    let (wait, action) = scene.at_deadline();
    assert!(is_heartbeat(&action) && (PERIOD / 2..=PERIOD).contains(&wait));
    scene.on(Event::HeartbeatAccepted(Token::new("2")));
    assert_eq!(scene.lease.standing(), Standing::Held);
}

#[test]
fn who_was_held_up_together_does_not_beat_together_ever_after() {
    let next = |seed: u64, held_up: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::held();
        scene.lease.rng = Rng::with_seed(seed);
        held_up(&mut scene);
        scene.on(Event::HeartbeatAccepted(Token::new("2")));
        scene.lease.deadline().unwrap() - scene.now
    };
    let in_an_outage = |scene: &mut Scene| {
        scene.beats();
        scene.fails(Recourse::Retry);
    };
    let in_a_pause = |scene: &mut Scene| {
        scene.now += 2 * PERIOD;
        assert!(is_heartbeat(&scene.on(Event::DeadlineReached)));
    };
    let held_up: [&dyn Fn(&mut Scene); 2] = [&in_an_outage, &in_a_pause];
    for held_up in held_up {
        let waits: Vec<_> = (0..200).map(|seed| next(seed, held_up)).collect();
        assert!(waits.iter().all(|wait| *wait <= PERIOD));
        assert!(waits.iter().any(|wait| *wait < PERIOD / 4));
    }
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
fn until_the_lease_has_run_out_the_last_tries_to_register_again_are_made_just_before() {
    for recourse in [Recourse::Register, Recourse::None, Recourse::Retry] {
        let mut scene = Scene::held();
        let expires_at = scene.now + TIMEOUT;
        scene.beats();
        scene.fails(Recourse::Register);
        let mut last = scene.now;
        while scene.now < expires_at {
            last = scene.now;
            assert_eq!(scene.fails(recourse), Action::Wait);
            let (_, action) = scene.at_deadline();
            assert!(is_registration(&action));
            let left = expires_at.saturating_duration_since(scene.now);
            assert!(left < Lease::SHORTEST_ATTEMPT || sent(&action).timeout < left);
        }
        assert!(expires_at - last < TIMEOUT / 100, "{recourse:?}: {:?} before", expires_at - last);
    }
}

#[test]
fn who_is_refused_while_listed_is_back_before_the_lease_runs_out() {
    let mut scene = Scene::held();
    let expires_at = scene.now + TIMEOUT;
    scene.beats();
    let mut action = scene.fails(Recourse::None);
    let mut last_try = scene.now;
    while scene.now < expires_at {
        last_try = scene.now;
        assert!(is_registration(&action), "{action:?}");
        if expires_at - scene.now > 2 * Lease::SHORTEST_ATTEMPT {
            assert!(sent(&action).timeout < expires_at - scene.now);
        }
        scene.fails(Recourse::None);
        action = scene.at_deadline().1;
    }
    assert!(expires_at - last_try < Duration::from_millis(200), "{:?}", expires_at - last_try);
}

#[test]
fn who_is_refused_while_listed_has_something_to_withdraw() {
    let mut scene = Scene::held();
    scene.beats();
    scene.fails(Recourse::None);
    scene.fails(Recourse::None);
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
}

#[test]
fn what_a_failed_withdrawal_left_behind_is_withdrawn_by_the_next() {
    let mut scene = Scene::held();
    scene.on(Event::Withdraw);
    scene.fails(Recourse::None);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
    scene.on(Event::Enlist);
    scene.fails(Recourse::None);
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
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
        assert!(is_registration(&action) && wait + sent(&action).timeout < TIMEOUT);
    }
    for _ in 0..1000 {
        assert_eq!(scene.fails(Recourse::None), Action::Wait);
        let (wait, action) = scene.at_deadline();
        assert!(is_registration(&action) && wait >= PERIOD && wait <= PERIOD.mul_f64(1.6));
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
}

#[test]
fn who_was_refused_is_tried_on_until_registered_or_withdrawn() {
    let must_succeed = Policy { give_up_after: NonZeroU32::new(1), ..policy() };
    let mut scene = Scene::new(must_succeed);
    scene.on(Event::Enlist);
    for recourse in [Recourse::None, Recourse::Retry, Recourse::Authenticate, Recourse::Authenticate] {
        scene.fails(recourse);
        if scene.lease.deadline().is_some() {
            assert!(is_registration(&scene.at_deadline().1), "{recourse:?}");
        }
        assert_eq!(scene.lease.standing(), Standing::Refused);
    }
    scene.on(Event::Registered(Token::new("1")));
    assert_eq!(scene.lease.standing(), Standing::Held);

    let mut scene = Scene::new(Policy { give_up_after: NonZeroU32::new(1), ..policy() });
    scene.on(Event::Enlist);
    scene.fails(Recourse::None);
    assert_eq!(scene.on(Event::Withdraw), Action::Wait);
    assert_eq!((scene.lease.standing(), scene.lease.deadline()), (Standing::Withdrawn, None));
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

#[test]
fn who_is_wanted_back_waits_for_the_deregistration_under_way() {
    for outcome in [Event::Deregistered, Event::Failed(Recourse::Retry), Event::Failed(Recourse::Register)] {
        let mut scene = Scene::held();
        scene.on(Event::Withdraw);
        assert_eq!(scene.on(Event::Enlist), Action::Wait);
        assert!(is_registration(&scene.on(outcome)));
    }
    let mut scene = Scene::held();
    scene.on(Event::Withdraw);
    scene.on(Event::Enlist);
    scene.on(Event::Withdraw);
    scene.on(Event::Deregistered);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
}

#[test]
fn who_is_wanted_back_keeps_a_registration_under_way() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    scene.on(Event::Withdraw);
    scene.on(Event::Enlist);
    assert_eq!(scene.on(Event::Registered(Token::new("1"))), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Held);
    scene.beats();
}
