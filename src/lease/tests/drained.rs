//! A service that somebody keeps out.

use super::*;

fn drained() -> Event {
    let service = "web1".parse().unwrap();
    Event::Drained(crate::model::Drained { service, reason: None, since: None, by: None })
}

#[test]
fn who_is_drained_looks_again_as_often_as_it_would_beat() {
    let policy = Policy { give_up_after: NonZeroU32::new(1), on_conflict: OnConflict::Fail, ..policy() };
    for mut scene in [Scene::new(policy), Scene::held()] {
        if scene.lease.standing() == Standing::Idle {
            assert!(is_registration(&scene.on(Event::Enlist)));
        } else {
            scene.beats();
            assert!(is_registration(&scene.fails(Recourse::Register)));
        }
        for _ in 0..100 {
            assert_eq!(scene.on(drained()), Action::Wait);
            assert_eq!(scene.lease.standing(), Standing::Drained);
            let (wait, action) = scene.at_deadline();
            assert!(wait >= PERIOD.mul_f64(0.8) && wait <= PERIOD, "{wait:?}");
            assert!(is_registration(&action) && sent(&action).timeout >= Duration::from_secs(5));
        }
        scene.on(Event::Registered(Token::new("2")));
        assert_eq!(scene.lease.standing(), Standing::Held);
        scene.beats();
    }
}

#[test]
fn failures_count_anew_once_who_was_drained_is_not() {
    let mut scene = Scene::new(Policy { give_up_after: NonZeroU32::new(2), ..policy() });
    scene.on(Event::Enlist);
    scene.fails(Recourse::Retry);
    scene.at_deadline();
    scene.on(drained());
    scene.at_deadline();
    scene.fails(Recourse::Retry);
    assert_eq!(scene.lease.standing(), Standing::Failing);
    scene.at_deadline();
    scene.fails(Recourse::Retry);
    assert_eq!(scene.lease.standing(), Standing::Refused);
}

#[test]
fn who_is_drained_leaves_at_once() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    scene.on(drained());
    assert_eq!(scene.on(Event::Withdraw), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    scene.on(Event::Withdraw);
    scene.on(drained());
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
    // A heartbeat was refused, which may have been a mistake.
    let mut scene = Scene::held();
    scene.beats();
    scene.fails(Recourse::Register);
    scene.on(drained());
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
}

#[test]
fn who_was_not_let_in_has_nothing_to_take_out() {
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    assert!(is_registration(&scene.fails(Recourse::Authenticate)));
    assert_eq!(scene.fails(Recourse::Authenticate), Action::Wait);
    assert_eq!(scene.on(Event::Withdraw), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
}
