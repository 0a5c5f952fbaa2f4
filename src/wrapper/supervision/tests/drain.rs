//! A child that serves on for a while when the service has left the registry.

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn draining(ends: Ends) -> Scene {
    Scene::with(Policy { drain: Some(Drain { limit: LIMIT, ends }), ..policy() })
}

impl Scene {
    fn drain(&self, ends: Ends) -> Effect {
        Effect::Drain { until: self.now + LIMIT, ends }
    }

    /// A child that was asked to stop, has left the registry half a second later, and drains.
    fn drains(ends: Ends) -> Self {
        let mut scene = draining(ends);
        assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
        assert_eq!(scene.supervision.holds_until(), Some(scene.now + WITHDRAWAL_BUDGET + LIMIT));
        scene.now += Duration::from_millis(500);
        assert_eq!(scene.lease(Standing::Withdrawn), [scene.drain(ends)]);
        assert_eq!(scene.supervision.holds_until(), Some(scene.now + LIMIT));
        scene
    }
}

#[test]
fn a_drain_counts_from_the_deregistration_and_the_time_to_end_in_from_the_signal() {
    let mut scene = Scene::drains(Ends::AtLimit);
    let left_at = scene.now;
    scene.supervision.policy.stop_timeout = Some(Duration::from_secs(20));
    assert_eq!(scene.at_deadline(), [Effect::Drained(Drained::AtLimit), passed(Signal::SIGTERM)]);
    assert_eq!((scene.now - left_at, scene.supervision.holds_until()), (LIMIT, None));
    let told_at = scene.now;
    assert_eq!(scene.at_deadline(), [Effect::Kill]);
    assert_eq!(scene.now - told_at, Duration::from_secs(20));
}

#[test]
fn a_drain_can_end_as_soon_as_nobody_is_shown_the_service() {
    let mut scene = Scene::drains(Ends::WhenUnlisted);
    assert_eq!(scene.on(Event::Unlisted), [Effect::Drained(Drained::Unlisted), passed(Signal::SIGTERM)]);
    assert_eq!(scene.on(Event::Unlisted), []);
    let mut scene = Scene::drains(Ends::WhenUnlisted);
    assert_eq!(scene.at_deadline(), [Effect::Drained(Drained::AtLimit), passed(Signal::SIGTERM)]);
}

#[test]
fn asked_again_a_child_does_not_drain_any_longer() {
    let mut scene = Scene::drains(Ends::AtLimit);
    let effects = scene.sent(Signal::SIGINT);
    let skipped = Effect::Drained(Drained::AskedAgain);
    assert_eq!(effects, [skipped.clone(), passed(Signal::SIGTERM), passed(Signal::SIGINT)]);
    // Nor does one that has not begun to.
    let mut scene = draining(Ends::AtLimit);
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.sent(Signal::SIGTERM), [passed(Signal::SIGTERM), passed(Signal::SIGTERM)]);
    // What was typed has reached the child.
    let mut scene = Scene::drains(Ends::AtLimit);
    assert_eq!(scene.typed(Signal::SIGINT), [skipped, passed(Signal::SIGTERM)]);
}

#[test]
fn a_child_that_ends_while_it_drains_ends_us() {
    let mut scene = Scene::drains(Ends::AtLimit);
    assert_eq!(scene.sent(Signal::SIGHUP), [passed(Signal::SIGHUP)]);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn a_registry_that_does_not_answer_is_no_reason_not_to_drain() {
    let mut scene = draining(Ends::AtLimit);
    scene.sent(Signal::SIGTERM);
    let effects = scene.at_deadline();
    assert_eq!(effects, [scene.drain(Ends::AtLimit)]);
    // That it answers in the end does not begin it anew.
    assert_eq!(scene.lease(Standing::Withdrawn), []);
    let mut scene = draining(Ends::AtLimit);
    scene.lease(Standing::Failing);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, scene.drain(Ends::AtLimit)]);
}

#[test]
fn nobody_drains_whom_nobody_can_know() {
    let drain = Some(Drain { limit: LIMIT, ends: Ends::AtLimit });
    let new = || {
        let supervision = Supervision::new(Policy { drain, ..policy() }, Fitness::Fit);
        Scene { supervision, now: Instant::now() }
    };
    for standing in [Standing::Idle, Standing::Failing, Standing::Waiting] {
        let mut scene = new();
        scene.lease(standing);
        assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, passed(Signal::SIGTERM)]);
    }
    let mut scene = new();
    scene.lease(Standing::Registering);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
    assert_eq!(scene.supervision.holds_until(), None);
    assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGTERM)]);
}

#[test]
fn in_one_of_several_registries_it_can_be_known() {
    let mut scene = draining(Ends::AtLimit);
    scene.supervision.was_listed = false;
    scene.leases(&[Standing::Held, Standing::Failing]);
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.lease(Standing::Withdrawn), [scene.drain(Ends::AtLimit)]);
}

#[test]
fn what_the_terminal_sent_cannot_wait_but_for_a_group_of_its_own() {
    let mut scene = draining(Ends::AtLimit);
    assert_eq!(scene.typed(Signal::SIGINT), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawn), []);
    let mut scene = draining(Ends::AtLimit);
    scene.supervision.policy.group = Group::Own;
    assert_eq!(scene.typed(Signal::SIGINT), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawn), [scene.drain(Ends::AtLimit)]);
}

#[test]
fn a_child_that_must_be_registered_and_cannot_be_is_not_drained() {
    let mut scene = draining(Ends::AtLimit);
    assert_eq!(scene.leases(&[Standing::Held, Standing::Refused]), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
}

#[test]
fn a_child_that_is_out_already_has_drained_for_as_long() {
    let mut scene = draining(Ends::AtLimit);
    scene.lease(Standing::Withdrawn);
    let until = scene.now + LIMIT;
    scene.now += Duration::from_secs(3);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, Effect::Drain { until, ends: Ends::AtLimit }]);
    let mut scene = draining(Ends::AtLimit);
    scene.lease(Standing::Withdrawn);
    scene.now += LIMIT;
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, passed(Signal::SIGTERM)]);
}

#[test]
fn a_child_that_is_suspended_still_has_to_leave_and_has_drained_for_as_long() {
    let mut scene = draining(Ends::AtLimit);
    scene.lease(Standing::Suspended);
    let until = scene.now + LIMIT;
    scene.now += Duration::from_secs(3);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawing), []);
    assert_eq!(scene.lease(Standing::Withdrawn), [Effect::Drain { until, ends: Ends::AtLimit }]);
}
