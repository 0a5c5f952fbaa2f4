use super::*;
use proptest::prelude::*;

const START: i64 = 1_000_000;

fn id(number: usize) -> ServiceId {
    ServiceId::new(format!("web{number}")).unwrap()
}

fn lease(seconds: u64) -> (Lease, Uuid) {
    let mut lease = Lease::new(Seed::random(), HeartbeatTimeout::from_secs(seconds).unwrap(), None);
    let token = lease.issue();
    (lease, token)
}

/// Time passes, and somebody looks all the while.
fn pass(leases: &mut Leases, from: i64, to: i64) {
    for uptime in (from..=to).step_by(500) {
        leases.anyone_died(uptime);
    }
    leases.anyone_died(to);
}

fn dead(leases: &mut Leases, uptime: i64) -> Vec<ServiceId> {
    let dead = leases.the_dead(uptime);
    leases.bury(&dead);
    dead.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_service_is_dead_to_the_millisecond() {
    let mut leases = Leases::default();
    leases.keep(id(1), lease(3).0, START);
    pass(&mut leases, START, START + 2_999);
    assert!(!leases.anyone_died(START + 2_999));
    assert!(leases.anyone_died(START + 3_000));
    assert_eq!(dead(&mut leases, START + 3_000), [id(1)]);
    assert!(!leases.anyone_died(START + 3_000) && !leases.contains(&id(1)));
}

#[test]
fn a_heartbeat_gives_another_timeout_and_a_token_that_is_good_once() {
    let mut leases = Leases::default();
    let (lease, first) = lease(3);
    leases.keep(id(1), lease, START);
    pass(&mut leases, START, START + 2_000);
    let second = leases.renew(&id(1), &first, Owner::Anyone, START + 2_000).unwrap();
    assert_ne!(second, first);
    assert_eq!(leases.renew(&id(1), &first, Owner::Anyone, START + 2_000), None);
    pass(&mut leases, START + 2_000, START + 4_999);
    assert!(leases.contains(&id(1)));
    assert_eq!(dead(&mut leases, START + 5_000), [id(1)]);
    assert_eq!(leases.renew(&id(1), &second, Owner::Anyone, START + 5_000), None);
}

#[test]
fn nobody_dies_while_we_are_away() {
    let mut leases = Leases::default();
    leases.keep(id(1), lease(3).0, START);
    leases.anyone_died(START + 1_000);
    let back = START + 3_600_000;
    assert!(!leases.anyone_died(back));
    pass(&mut leases, back, back + 1_999);
    assert!(leases.contains(&id(1)));
    assert!(leases.anyone_died(back + 2_000));
}

#[test]
fn a_shorter_timeout_counts_from_the_next_heartbeat() {
    let mut leases = Leases::default();
    let (lease, token) = lease(120);
    leases.keep(id(1), lease, START);
    leases.retime(&id(1), HeartbeatTimeout::MIN);
    pass(&mut leases, START, START + 10_000);
    leases.renew(&id(1), &token, Owner::Anyone, START + 10_000).unwrap();
    pass(&mut leases, START + 10_000, START + 12_999);
    assert!(leases.contains(&id(1)));
    assert_eq!(dead(&mut leases, START + 13_000), [id(1)]);
}

#[test]
fn a_later_life_does_not_die_of_an_earlier_deadline() {
    let mut leases = Leases::default();
    leases.keep(id(1), lease(3).0, START);
    leases.forget(&id(1));
    leases.keep(id(1), lease(3).0, START + 1_000);
    pass(&mut leases, START + 1_000, START + 3_999);
    assert!(leases.contains(&id(1)));
    assert_eq!(dead(&mut leases, START + 4_000), [id(1)]);
}

#[test]
fn who_could_not_be_buried_is_dead_at_the_next_look() {
    let mut leases = Leases::default();
    leases.keep(id(1), lease(3).0, START);
    pass(&mut leases, START, START + 3_000);
    leases.revive();
    assert!(leases.contains(&id(1)));
    assert_eq!(dead(&mut leases, START + 3_000), [id(1)]);
}

#[test]
fn what_the_file_says_counts() {
    let mut leases = Leases::default();
    let (known, token) = lease(30);
    leases.keep(id(1), known.clone(), START);
    leases.keep(id(2), lease(30).0, START);
    let stranger = lease(30).0;
    leases.agree_with(vec![(id(1), known), (id(3), stranger)], START);
    assert!(!leases.contains(&id(2)) && leases.contains(&id(3)));
    assert!(leases.renew(&id(1), &token, Owner::Anyone, START).is_some(), "its token is still good");
}

#[test]
fn after_a_start_any_token_of_the_seed_is_good() {
    let (before, token) = lease(30);
    let mut leases = Leases::default();
    let restarted = Lease::new(before.seed(), HeartbeatTimeout::MIN, None);
    leases.agree_with(vec![(id(1), restarted)], START);
    assert_eq!(leases.renew(&id(1), &Uuid::new_v4(), Owner::Anyone, START), None);
    assert!(leases.renew(&id(1), &token, Owner::Anyone, START).is_some());
}

#[test]
fn who_was_seen_is_written_down_once() {
    let mut leases = Leases::default();
    let mut token = {
        let (lease, token) = lease(30);
        leases.keep(id(1), lease, START);
        token
    };
    assert!(leases.take_unwritten(9).is_empty());
    for _ in 0..3 {
        token = leases.renew(&id(1), &token, Owner::Anyone, START).unwrap();
    }
    assert_eq!(leases.take_unwritten(9).len(), 1);
    assert!(leases.take_unwritten(9).is_empty());
}

proptest! {
    /// Whatever happens in whatever order: who is renewed lives, who is silent for its timeout dies once.
    #[test]
    fn the_living_live_and_the_dead_die(steps in prop::collection::vec((0_usize..4, 0_i64..1500), 1..200)) {
        let mut leases = Leases::default();
        let mut expected: HashMap<ServiceId, (i64, Uuid)> = HashMap::new();
        let mut now = START;
        for (number, span) in steps {
            now += span;
            let died = dead(&mut leases, now);
            for gone in &died {
                let (deadline, _) = expected.remove(gone).unwrap();
                prop_assert!(deadline <= now);
            }
            prop_assert!(expected.values().all(|(deadline, _)| *deadline > now));
            let service = id(number);
            let token = if let Some((_, token)) = expected.get(&service) {
                leases.renew(&service, token, Owner::Anyone, now).unwrap()
            } else {
                let (lease, token) = lease(3);
                leases.keep(service.clone(), lease, now);
                token
            };
            expected.insert(service, (now + 3_000, token));
        }
    }
}

#[test]
fn the_overdue_are_told_until_they_are_renewed() {
    let mut leases = Leases::default();
    let (lease, token) = lease(3);
    leases.keep(id(1), lease, START);
    for uptime in (START..START + 3_000).step_by(500) {
        assert!(leases.overdue(uptime, 500).is_empty());
    }
    assert_eq!(leases.overdue(START + 3_000, 500), [id(1)]);
    assert!(leases.overdue(START + 3_100, 500).is_empty() && leases.is_overdue(&id(1), START + 3_100));
    assert_eq!(leases.overdue(START + 3_500, 500), [id(1)]);
    assert!(leases.renew(&id(1), &token, Owner::Anyone, START + 3_600).is_some());
    assert!(!leases.is_overdue(&id(1), START + 3_600) && leases.overdue(START + 4_000, 500).is_empty());
    leases.hear(&id(1), START + 5_000);
    for uptime in (START + 5_000..START + 8_000).step_by(500) {
        assert!(leases.overdue(uptime, 500).is_empty());
    }
    leases.spare_all(START + 8_000);
    assert!(leases.overdue(START + 8_000, 500).is_empty());
}

#[test]
fn a_token_that_another_host_made_since_is_good_and_one_of_before_is_not() {
    let (lease, token) = lease(3);
    let mut hosts = [Leases::default(), Leases::default()];
    for host in &mut hosts {
        host.keep(id(1), lease.clone(), START);
    }
    let [one, other] = &mut hosts;
    let second = one.renew(&id(1), &token, Owner::Anyone, START).unwrap();
    let third = other.renew(&id(1), &second, Owner::Anyone, START).unwrap();
    let fourth = one.renew(&id(1), &third, Owner::Anyone, START).unwrap();
    for used in [token, second, third] {
        assert_eq!(one.renew(&id(1), &used, Owner::Anyone, START), None);
    }
    assert!(one.renew(&id(1), &fourth, Owner::Anyone, START).is_some());
}
