use proptest::prelude::*;

use super::*;

fn spec(text: &str) -> Spec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_spec_reads_as_it_is_written() {
    for (text, shown) in [
        ("fail", "fail=503"),
        ("fail:20%", "fail=503:20%"),
        ("fail=429:0.5", "fail=429:0.5%"),
        ("hang:100%", "hang"),
        ("lose:0.0001%", "lose:0.0001%"),
        ("delay=200ms", "delay=200ms"),
        ("delay=2", "delay=2s"),
        ("delay=100ms..2s:50%", "delay=100ms..2s:50%"),
        ("delay=1s..1s", "delay=1s"),
        ("delay=0..1", "delay=0s..1s"),
        ("hang@30+10", "hang@30s+10s"),
        ("hang@1m30s", "hang@1m30s"),
        ("hang@1m 30s+1h", "hang@1m30s+1h"),
        ("fail:10%@10s+5s/1m", "fail=503:10%@10s+5s/1m"),
        ("forget@30s", "forget@30s"),
        ("forget@0/1m", "forget@0s/1m"),
        (" fail , seed=42, hang:1%", "fail=503,hang:1%,seed=42"),
    ] {
        assert_eq!(spec(text).to_string(), shown, "{text}");
        assert_eq!(spec(shown), spec(text), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_what_there_is() {
    for (text, says, hints) in [
        ("", "``: there is no `` to rehearse", "say fail, delay, hang"),
        ("fial:20%", "`fial:20%`: there is no `fial` to rehearse", "say fail, delay, hang"),
        ("Fail", "there is no `Fail`", "say fail"),
        ("fail,", "``: there is no ``", "say fail"),
        ("fail\x1b[1m", "there is no `fail", "say fail"),
        ("seed=1", "`seed=1`: there is nothing to go wrong", "say fail"),
        ("fail=200", "`200` is no status of a failure", "400 to 599"),
        ("fail=600", "`600` is no status", "400 to 599"),
        ("fail=", "`` is no status", "400 to 599"),
        ("fail=busy", "`busy` is no status", "400 to 599"),
        ("hang=10s", "hang takes no `=`", "only fail and delay"),
        ("lose=1", "lose takes no `=`", "only fail and delay"),
        ("forget=web1", "forget takes no `=`", "only fail and delay"),
        ("delay", "it does not say how long", "delay=200ms"),
        ("delay=0", "it does not say how long", "delay=200ms"),
        ("delay=soon", "`soon` is no span of time", "30s"),
        ("delay=2s..1s", "ends before it begins", "delay=100ms..2s"),
        ("fail:", "`` is no percentage", "fail:20%"),
        ("fail:0%", "`0%` is no percentage", "0.0001 to 100"),
        ("fail:101%", "`101%` is no percentage", "0.0001 to 100"),
        ("fail:-1%", "`-1%` is no percentage", "0.0001 to 100"),
        ("fail:NaN%", "`NaN%` is no percentage", "0.0001 to 100"),
        ("fail:half", "`half` is no percentage", "0.0001 to 100"),
        ("fail@", "`` is no span of time", "30s"),
        ("fail@10s+", "`` is no span of time", "30s"),
        ("fail@10s+0s", "`0s` is no span of time", "30s"),
        ("fail@10s+1s/", "`` is no span of time", "30s"),
        ("fail@10s/1m", "for good cannot begin again", "@10s+5s/1m"),
        ("fail@10s+1m/1m", "before it has ended", "@10s+5s/1m"),
        ("fail@10s+1ms/10ms", "within a second", "@10s+5s/1m"),
        ("fail@10s:20%", "`10s:20%` is no span", "30s"),
        ("fail,seed=x", "`x` is no seed", "seed=42"),
        ("fail,seed=1,seed=2", "`seed=2`: there is a seed already", "seed=42"),
    ] {
        let error = text.parse::<Spec>().unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.hint().unwrap().contains(hints), "{text}: {:?}", error.hint());
        assert!(!error.to_string().contains('\x1b'), "{text}");
    }
}

#[test]
fn a_time_begins_ends_and_comes_again() {
    let left = |text: &str, elapsed| spec(text).rules[0].schedule.unwrap().left(seconds(elapsed));
    for (elapsed, expected) in [(0, None), (9, None), (10, Some(5)), (14, Some(1)), (15, None), (1000, None)]
    {
        assert_eq!(left("hang@10s+5s", elapsed), expected.map(seconds), "{elapsed}");
    }
    for (elapsed, expected) in [(9, None), (12, Some(3)), (15, None), (69, None), (70, Some(5)), (75, None)] {
        assert_eq!(left("hang@10s+5s/1m", elapsed), expected.map(seconds), "{elapsed}");
    }
    assert_eq!(left("hang@10s", 9), None);
    assert_eq!(left("hang@10s", 10), Some(Duration::MAX));
}

#[test]
fn a_share_is_that_share() {
    let mut dice = fastrand::Rng::with_seed(1);
    for (text, few, many) in [("hang", 10_000, 10_000), ("hang:50%", 4800, 5200), ("hang:1%", 50, 150)] {
        let share = spec(text).rules[0].share;
        let struck = (0..10_000).filter(|_| share.has_one_more(&mut dice)).count();
        assert!((few..=many).contains(&struck), "{text}: {struck}");
    }
}

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..100_000).prop_map(Duration::from_millis),
        (0_u64..=u64::from(u32::MAX), 0_u32..1_000_000_000)
            .prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn any_rule() -> impl Strategy<Value = String> {
    let told = || any_span().prop_map(|span| Told(span).to_string());
    let action = prop_oneof![
        Just("fail".to_owned()),
        (390_u16..610).prop_map(|status| format!("fail={status}")),
        told().prop_map(|span| format!("delay={span}")),
        (told(), told()).prop_map(|(least, most)| format!("delay={least}..{most}")),
        Just("hang".to_owned()),
        Just("lose".to_owned()),
        Just("forget".to_owned()),
    ];
    let share = prop_oneof![Just(String::new()), (0_f64..101.0).prop_map(|share| format!(":{share}%"))];
    let some =
        |sign: char| prop_oneof![Just(String::new()), told().prop_map(move |span| format!("{sign}{span}"))];
    (action, share, some('@'), some('+'), some('/'))
        .prop_map(|(action, share, start, length, every)| format!("{action}{share}{start}{length}{every}"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = text.parse::<Spec>();
    }

    #[test]
    fn nor_one_of_the_right_letters(text in "[a-z0-9=:%@+/.,]{0,40}") {
        let _ = text.parse::<Spec>();
    }

    #[test]
    fn what_it_shows_is_what_it_is(rules in prop::collection::vec(any_rule(), 1..4), seed: Option<u64>) {
        let text = seed.iter().fold(rules.join(","), |text, seed| format!("{text},seed={seed}"));
        if let Ok(spec) = text.parse::<Spec>() {
            prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
        }
    }

    #[test]
    fn it_never_holds_for_longer_than_it_says(text in any_rule(), elapsed in any_span()) {
        let Ok(Spec { rules, .. }) = text.parse() else { return Ok(()) };
        let Some(schedule) = rules[0].schedule else { return Ok(()) };
        if let Some(left) = schedule.left(elapsed) {
            prop_assert!(elapsed >= schedule.start && !left.is_zero());
            prop_assert!(schedule.length.is_none_or(|length| left <= length));
        }
    }
}
