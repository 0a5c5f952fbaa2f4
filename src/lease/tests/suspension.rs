//! A service that is not healthy, where the registry can say so.

use super::*;

fn is_suspension(action: &Action) -> bool {
    matches!(action, Action::Send(Request { call: Call::Suspend(_), .. }))
}

fn accepted(scene: &mut Scene) -> Action {
    scene.on(Event::HeartbeatAccepted(Token::new("2")))
}

fn suspended() -> Scene {
    let mut scene = Scene::held();
    assert!(is_suspension(&scene.on(Event::Suspend)));
    assert_eq!(scene.lease.standing(), Standing::Withdrawing);
    assert_eq!(accepted(&mut scene), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Suspended);
    scene
}

#[test]
fn it_is_held_by_heartbeats_that_say_so_until_it_is_listed_again_at_once() {
    let mut scene = suspended();
    for _ in 0..5 {
        let (wait, action) = scene.at_deadline();
        assert!(wait <= PERIOD && is_suspension(&action), "{wait:?} {action:?}");
        accepted(&mut scene);
    }
    assert!(is_heartbeat(&scene.on(Event::Enlist)));
    assert_eq!(scene.lease.standing(), Standing::Registering);
    accepted(&mut scene);
    assert_eq!(scene.lease.standing(), Standing::Held);
    scene.beats();
}

#[test]
fn a_heartbeat_under_way_is_waited_for_and_the_other_follows_at_once() {
    let mut scene = Scene::held();
    scene.beats();
    assert_eq!(scene.on(Event::Suspend), Action::Wait);
    assert!(is_suspension(&accepted(&mut scene)));
    assert_eq!(scene.on(Event::Enlist), Action::Wait);
    assert!(is_heartbeat(&accepted(&mut scene)));
    assert_eq!(scene.on(Event::Suspend), Action::Wait);
    // Back before it was said: what is under way says what is wanted.
    assert_eq!(scene.on(Event::Enlist), Action::Wait);
    assert_eq!(accepted(&mut scene), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Held);
}

#[test]
fn what_changes_during_an_outage_is_tried_at_once() {
    let mut scene = Scene::held();
    scene.beats();
    assert!(is_heartbeat(&scene.fails(Recourse::Retry)));
    assert_eq!(scene.on(Event::Suspend), Action::Wait);
    assert!(is_suspension(&scene.fails(Recourse::Retry)));
    assert_eq!(scene.fails(Recourse::Retry), Action::Wait);
    assert_eq!(scene.lease.standing(), Standing::Failing);
    assert!(is_suspension(&scene.at_deadline().1));
    accepted(&mut scene);
    assert_eq!(scene.lease.standing(), Standing::Suspended);
}

#[test]
fn one_that_was_forgotten_is_not_registered_before_it_is_to_be_listed() {
    for recourse in [Recourse::Register, Recourse::None, Recourse::AwaitRelease { frees_in: None }] {
        let mut scene = suspended();
        scene.at_deadline();
        // Whoever said so may not be the registry.
        assert!(is_deregistration(&scene.fails(recourse)));
        assert_eq!(scene.fails(Recourse::Register), Action::Wait);
        assert_eq!((scene.lease.standing(), scene.lease.deadline()), (Standing::Withdrawn, None));
        assert_eq!(scene.on(Event::Suspend), Action::Wait);
        assert!(is_registration(&scene.on(Event::Enlist)));
    }
}

#[test]
fn one_that_was_forgotten_and_is_wanted_back_is_registered_at_once() {
    let mut scene = suspended();
    scene.at_deadline();
    assert_eq!(scene.on(Event::Enlist), Action::Wait);
    assert!(is_registration(&scene.fails(Recourse::Register)));
}

#[test]
fn what_is_not_listed_yet_is_withdrawn() {
    assert_eq!(Scene::new(policy()).on(Event::Suspend), Action::Wait);
    let mut scene = Scene::new(policy());
    scene.on(Event::Enlist);
    assert_eq!(scene.on(Event::Suspend), Action::Wait);
    assert!(is_deregistration(&scene.on(Event::Registered(Token::new("1")))));
}

#[test]
fn a_withdrawal_takes_it_out() {
    let mut scene = suspended();
    assert!(is_deregistration(&scene.on(Event::Withdraw)));
    scene.on(Event::Deregistered);
    assert_eq!(scene.lease.standing(), Standing::Withdrawn);
}
