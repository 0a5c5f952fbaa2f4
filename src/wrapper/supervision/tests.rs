//! What is done about the child, the signals and the lease, a few lines a rule.

mod drain;

use nix::sys::signal::Signal;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);
const EXITED: Ending = Ending::Code(7);

struct Scene {
    supervision: Supervision,
    now: Instant,
}

impl Scene {
    fn new(deregister: Deregister) -> Self {
        Self::with(Policy {
            deregister,
            reinstate_after: TIMEOUT,
            stop_signal: SignalNumber::TERM,
            stop_timeout: None,
            drain: None,
            legacy: Legacy::Entry,
            group: Group::Shared,
        })
    }

    fn with(policy: Policy) -> Self {
        let mut scene = Self { supervision: Supervision::new(policy, Fitness::Fit), now: Instant::now() };
        assert_eq!(scene.on(Event::Started), [Effect::Wish(Wish::Listed)]);
        scene.lease(Standing::Held);
        scene
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.supervision.on(event, self.now)
    }

    fn lease(&mut self, standing: Standing) -> Vec<Effect> {
        self.leases(&[standing])
    }

    fn leases(&mut self, standings: &[Standing]) -> Vec<Effect> {
        self.on(Event::Lease(Overview::of(standings, Require::All)))
    }

    fn sent(&mut self, signal: Signal) -> Vec<Effect> {
        self.on(Event::Signal(delivery(signal)))
    }

    fn typed(&mut self, signal: Signal) -> Vec<Effect> {
        let mut signal = delivery(signal);
        signal.origin = Origin::Terminal;
        self.on(Event::Signal(signal))
    }

    fn at_deadline(&mut self) -> Vec<Effect> {
        self.now = self.supervision.deadline().expect("nothing is due");
        self.on(Event::DeadlineReached)
    }
}

fn delivery(signal: Signal) -> Delivery {
    Delivery::of(SignalNumber::new(signal as i32).unwrap())
}

fn passed(signal: Signal) -> Effect {
    Effect::Pass(delivery(signal))
}

const UNLISTED: Effect = Effect::Wish(Wish::Unlisted);

#[test]
fn a_child_that_ends_by_itself_ends_us_and_is_left_to_expire() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn a_stop_leaves_the_registry_first() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawing), []);
    assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGTERM)]);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn a_stop_waits_no_longer_than_its_budget() {
    let mut scene = Scene::new(Deregister::OnStop);
    let asked_at = scene.now;
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.at_deadline(), [passed(Signal::SIGTERM)]);
    assert_eq!(scene.now - asked_at, WITHDRAWAL_BUDGET);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn a_stop_does_not_wait_for_a_registry_that_is_failing() {
    for standing in [Standing::Failing, Standing::Waiting] {
        let mut scene = Scene::new(Deregister::OnStop);
        scene.lease(standing);
        assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, passed(Signal::SIGTERM)]);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    }
}

#[test]
fn a_second_stop_skips_the_wait() {
    let mut scene = Scene::new(Deregister::OnStop);
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.sent(Signal::SIGINT), [passed(Signal::SIGTERM), passed(Signal::SIGINT)]);
}

#[test]
fn other_signals_do_not_wait() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.sent(Signal::SIGHUP), [passed(Signal::SIGHUP)]);
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.sent(Signal::SIGUSR1), [passed(Signal::SIGUSR1)]);
}

#[test]
fn what_the_terminal_sent_is_not_sent_twice_and_our_end_waits_for_the_deregistration() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.typed(Signal::SIGINT), [UNLISTED]);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), []);
    assert_eq!(scene.lease(Standing::Withdrawn), [Effect::End(EXITED)]);
    assert_eq!(scene.typed(Signal::SIGWINCH), []);
}

#[test]
fn nobody_is_signalled_once_the_child_has_ended() {
    let mut scene = Scene::new(Deregister::OnStop);
    scene.typed(Signal::SIGINT);
    scene.on(Event::ChildEnded(EXITED));
    assert_eq!(scene.sent(Signal::SIGHUP), []);
    assert_eq!(scene.sent(Signal::SIGCONT), []);
    // Who asks again is not kept waiting.
    assert_eq!(scene.sent(Signal::SIGTERM), [Effect::End(EXITED)]);
}

#[test]
fn an_end_that_waits_for_the_deregistration_waits_no_longer_than_the_budget() {
    let mut scene = Scene::new(Deregister::OnStop);
    scene.typed(Signal::SIGQUIT);
    scene.on(Event::ChildEnded(EXITED));
    assert_eq!(scene.at_deadline(), [Effect::End(EXITED)]);
}

#[test]
fn a_child_that_survives_an_interrupt_is_listed_again() {
    let mut scene = Scene::new(Deregister::OnStop);
    let asked_at = scene.now;
    scene.typed(Signal::SIGINT);
    scene.lease(Standing::Withdrawn);
    assert_eq!(scene.at_deadline(), [Effect::Wish(Wish::Listed)]);
    assert_eq!(scene.now - asked_at, TIMEOUT);
    // And can be stopped like any other.
    scene.lease(Standing::Held);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
}

#[test]
fn a_child_that_was_told_to_end_is_not_listed_again_however_long_it_takes() {
    let mut scene = Scene::new(Deregister::OnStop);
    scene.sent(Signal::SIGTERM);
    scene.lease(Standing::Withdrawn);
    assert_eq!(scene.supervision.deadline(), None);
}

#[test]
fn never_means_that_no_stop_waits_for_the_registry() {
    let mut scene = Scene::new(Deregister::Never);
    assert_eq!(scene.sent(Signal::SIGTERM), [passed(Signal::SIGTERM)]);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn always_means_that_a_child_that_ends_by_itself_is_taken_out_too() {
    let mut scene = Scene::new(Deregister::Always);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawing), []);
    assert_eq!(scene.lease(Standing::Withdrawn), [Effect::End(EXITED)]);
    let mut scene = Scene::new(Deregister::Always);
    scene.lease(Standing::Failing);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn a_child_that_must_be_registered_and_cannot_be_is_stopped() {
    let mut scene = Scene::new(Deregister::OnStop);
    let effects = scene.lease(Standing::Refused);
    assert_eq!(effects, [UNLISTED, passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
    assert_eq!(scene.lease(Standing::Withdrawn), []);
    assert_eq!(scene.at_deadline(), [Effect::Kill]);
    assert_eq!(scene.supervision.deadline(), None);
    let ending = Effect::End(Ending::Code(NOT_REGISTERED));
    assert_eq!(scene.on(Event::ChildEnded(Ending::Signal(9))), [ending]);
}

/// One that is in a registry, while another refuses it.
fn recalled(deregister: Deregister) -> (Scene, Vec<Effect>) {
    let mut scene = Scene::new(deregister);
    let effects = scene.leases(&[Standing::Held, Standing::Refused]);
    (scene, effects)
}

#[test]
fn a_child_that_is_refused_somewhere_leaves_first_where_it_was_registered() {
    let (mut scene, effects) = recalled(Deregister::OnStop);
    assert_eq!(effects, [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawing), []);
    assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
    let ending = Effect::End(Ending::Code(NOT_REGISTERED));
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [ending]);
}

#[test]
fn to_leave_elsewhere_takes_a_refused_child_no_longer_than_a_stop() {
    let (mut scene, _) = recalled(Deregister::OnStop);
    let refused_at = scene.now;
    assert_eq!(scene.at_deadline(), [passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
    assert_eq!(scene.now - refused_at, WITHDRAWAL_BUDGET);

    let (mut scene, _) = recalled(Deregister::OnStop);
    let effects = scene.sent(Signal::SIGINT);
    assert_eq!(effects, [passed(Signal::SIGTERM), passed(Signal::SIGCONT), passed(Signal::SIGINT)]);

    let (mut scene, _) = recalled(Deregister::OnStop);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), []);
    let ending = Effect::End(Ending::Code(NOT_REGISTERED));
    assert_eq!(scene.lease(Standing::Withdrawn), [ending]);
}

#[test]
fn never_holds_for_a_refused_child_as_well() {
    let (_, effects) = recalled(Deregister::Never);
    assert_eq!(effects, [Effect::Abandon, passed(Signal::SIGTERM), passed(Signal::SIGCONT)]);
}

#[test]
fn a_stop_waits_for_the_registries_that_answer() {
    let mut scene = Scene::new(Deregister::OnStop);
    scene.leases(&[Standing::Failing, Standing::Held]);
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED]);
}

#[test]
fn a_child_that_must_be_registered_has_the_time_that_it_was_given() {
    let stop_timeout = Some(Duration::from_secs(3));
    let mut scene = Scene::with(Policy { stop_timeout, ..policy() });
    let refused_at = scene.now;
    scene.lease(Standing::Refused);
    assert_eq!(scene.at_deadline(), [Effect::Kill]);
    assert_eq!(scene.now - refused_at, Duration::from_secs(3));
}

#[test]
fn job_control_stops_us_with_the_child_and_a_stop_of_the_child_alone_does_not() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.on(Event::ChildStopped(libc::SIGTSTP)), [Effect::StopOurselves(libc::SIGTSTP)]);
    assert_eq!(scene.on(Event::ChildStopped(libc::SIGSTOP)), []);
}

fn policy() -> Policy {
    Scene::new(Deregister::OnStop).supervision.policy
}

#[test]
fn the_usual_request_is_put_as_the_child_wants_it() {
    let stop_signal = "QUIT".parse().unwrap();
    let mut scene = Scene::with(Policy { stop_signal, deregister: Deregister::Never, ..policy() });
    let mut quit = delivery(Signal::SIGTERM);
    quit.number = stop_signal;
    assert_eq!(scene.sent(Signal::SIGTERM), [Effect::Pass(quit)]);
    assert_eq!(scene.sent(Signal::SIGINT), [passed(Signal::SIGINT)]);
    assert_eq!(scene.sent(Signal::SIGHUP), [passed(Signal::SIGHUP)]);
}

#[test]
fn a_child_that_takes_too_long_is_killed() {
    for deregister in [Deregister::OnStop, Deregister::Never] {
        let stop_timeout = Some(Duration::from_secs(20));
        let mut scene = Scene::with(Policy { deregister, stop_timeout, ..policy() });
        scene.sent(Signal::SIGTERM);
        scene.lease(Standing::Withdrawn);
        let asked_at = scene.now;
        assert_eq!(scene.at_deadline(), [Effect::Kill]);
        assert_eq!(scene.now - asked_at, Duration::from_secs(20));
        assert_eq!(scene.supervision.deadline(), None);
        let ending = Ending::Signal(9);
        assert_eq!(scene.on(Event::ChildEnded(ending)), [Effect::End(ending)]);
    }
}

#[test]
fn asked_again_a_child_has_little_time_left() {
    let stop_timeout = Some(Duration::from_secs(20));
    let mut scene = Scene::with(Policy { stop_timeout, ..policy() });
    scene.typed(Signal::SIGINT);
    let asked_at = scene.now;
    assert_eq!(scene.sent(Signal::SIGTERM), [passed(Signal::SIGTERM)]);
    assert_eq!(scene.at_deadline(), [Effect::Kill]);
    assert_eq!(scene.now - asked_at, IMPATIENCE);
}

#[test]
fn in_a_group_of_its_own_a_childs_end_tells_what_was_typed() {
    for ending in [Ending::Signal(libc::SIGINT), Ending::Code(130)] {
        let mut scene = Scene::with(Policy { group: Group::Own, ..policy() });
        assert_eq!(scene.on(Event::ChildEnded(ending)), [UNLISTED]);
        assert_eq!(scene.lease(Standing::Withdrawn), [Effect::End(ending)]);
    }
    let mut scene = Scene::with(Policy { group: Group::Own, ..policy() });
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn what_is_typed_to_us_has_not_reached_a_child_in_a_group_of_its_own() {
    let mut scene = Scene::with(Policy { group: Group::Own, ..policy() });
    assert_eq!(scene.typed(Signal::SIGTSTP), [passed(Signal::SIGTSTP)]);
    assert_eq!(scene.typed(Signal::SIGINT), [UNLISTED]);
    assert_eq!(scene.lease(Standing::Withdrawn), [passed(Signal::SIGINT)]);
}

#[test]
fn what_continued_both_of_us_is_not_sent_again() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.sent(Signal::SIGCONT), [passed(Signal::SIGCONT)]);
    scene.on(Event::ChildStopped(libc::SIGTSTP));
    scene.on(Event::ChildContinued);
    assert_eq!(scene.sent(Signal::SIGCONT), []);
    // Sent to us alone, it has still to reach the child.
    scene.on(Event::ChildStopped(libc::SIGTSTP));
    assert_eq!(scene.sent(Signal::SIGCONT), [passed(Signal::SIGCONT)]);
    scene.on(Event::ChildContinued);
    assert_eq!(scene.sent(Signal::SIGCONT), [passed(Signal::SIGCONT)]);
}

#[test]
fn a_child_that_ends_by_itself_has_word_left_of_it() {
    for deregister in [Deregister::OnStop, Deregister::Never] {
        let mut scene = entombing(deregister);
        assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::Entomb(EXITED)]);
        assert_eq!(scene.on(Event::Entombed), [Effect::End(EXITED)]);
    }
}

#[test]
fn word_of_an_end_waits_for_no_registry() {
    let mut scene = entombing(Deregister::OnStop);
    let ended_at = scene.now;
    scene.on(Event::ChildEnded(EXITED));
    assert_eq!(scene.at_deadline(), [Effect::End(EXITED)]);
    assert_eq!(scene.now - ended_at, BUDGET);
    let mut scene = entombing(Deregister::OnStop);
    scene.on(Event::ChildEnded(EXITED));
    assert_eq!(scene.sent(Signal::SIGTERM), [Effect::End(EXITED)]);
    let mut scene = entombing(Deregister::OnStop);
    scene.lease(Standing::Failing);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn no_word_is_left_of_a_planned_end() {
    let mut scene = entombing(Deregister::Never);
    scene.sent(Signal::SIGTERM);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
    let mut scene = entombing(Deregister::Always);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [UNLISTED]);
}

fn entombing(deregister: Deregister) -> Scene {
    let mut policy = Scene::new(deregister).supervision.policy;
    policy.legacy = Legacy::Tombstone;
    Scene::with(policy)
}

impl Scene {
    /// A service that has not been fit yet.
    fn unfit() -> Self {
        let scene = Self::new(Deregister::OnStop);
        let policy = scene.supervision.policy;
        let mut scene = Self { supervision: Supervision::new(policy, Fitness::Unfit), now: scene.now };
        assert_eq!(scene.on(Event::Started), []);
        scene
    }
}

#[test]
fn a_service_is_listed_when_it_is_fit_and_left_out_when_it_is_not() {
    let mut scene = Scene::unfit();
    assert_eq!(scene.on(Event::Fit(Fitness::Unfit)), []);
    assert_eq!(scene.on(Event::Fit(Fitness::Fit)), [Effect::Wish(Wish::Listed)]);
    scene.lease(Standing::Held);
    assert_eq!(scene.on(Event::Fit(Fitness::Fit)), []);
    assert_eq!(scene.on(Event::Fit(Fitness::Unfit)), [Effect::Suspend]);
    scene.lease(Standing::Withdrawn);
    assert_eq!(scene.on(Event::Fit(Fitness::Fit)), [Effect::Wish(Wish::Listed)]);
}

#[test]
fn one_that_moves_leaves_even_if_it_is_suspended() {
    let mut scene = Scene::new(Deregister::OnStop);
    for fitness in [Fitness::Fit, Fitness::Unfit] {
        scene.on(Event::Fit(fitness));
        assert_eq!(scene.on(Event::Fit(Fitness::Moved)), [Effect::Move]);
    }
}

#[test]
fn a_stop_of_a_service_that_is_not_listed_is_passed_on_at_once() {
    let mut scene = Scene::unfit();
    assert_eq!(scene.sent(Signal::SIGTERM), [UNLISTED, passed(Signal::SIGTERM)]);
    assert_eq!(scene.on(Event::Fit(Fitness::Fit)), []);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(EXITED)]);
}

#[test]
fn one_that_survives_an_interrupt_is_listed_again_only_if_it_is_fit() {
    for (fitness, expected) in [(Fitness::Fit, vec![Effect::Wish(Wish::Listed)]), (Fitness::Unfit, vec![])] {
        let mut scene = Scene::new(Deregister::OnStop);
        scene.typed(Signal::SIGINT);
        assert_eq!(scene.on(Event::Fit(fitness)), []);
        assert_eq!(scene.at_deadline(), expected);
    }
}

#[test]
fn a_hopeless_one_leaves_and_is_stopped() {
    let mut scene = Scene::new(Deregister::OnStop);
    assert_eq!(scene.on(Event::Fit(Fitness::Hopeless)), [UNLISTED]);
    let stop = [passed(Signal::SIGTERM), passed(Signal::SIGCONT)];
    assert_eq!(scene.lease(Standing::Withdrawn), stop);
    assert_eq!(scene.on(Event::ChildEnded(EXITED)), [Effect::End(Ending::Code(NOT_REGISTERED))]);
}
