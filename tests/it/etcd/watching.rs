//! What happens in the registry, told from etcd's watch.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use service_registry_wrapper::model::{ConfigurationValue, EventBody, HeartbeatTimeout, Registration};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, Owner, Watch};

use super::{at, claim, registration};
use crate::support::etcd::{Etcd, Release};

/// The next `count` events, in words.
async fn told(watch: &mut dyn Watch, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let events = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        let events = events.unwrap_or_else(|_| panic!("waited in vain after {told:?}"));
        for event in events.unwrap() {
            assert_eq!(event.id.get_version_num(), 1);
            let subject = event.body.subject().to_owned();
            told.push(match &event.body {
                EventBody::ConfigurationUpdate { old_value, new_value, .. } => {
                    format!("{subject} {} -> {new_value}", old_value.as_deref().unwrap_or_default())
                }
                EventBody::ConfigurationRemove { old_value, .. } => format!("{subject} {old_value} ->"),
                body => format!("{} {subject}", body.kind().as_str()),
            });
        }
    }
    told
}

fn value(name: &str, text: &str) -> ConfigurationValue {
    ConfigurationValue::new(name.parse().unwrap(), text).unwrap()
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_how() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "a_watch_tells_what_happens_and_how") else { continue };
        let registry = at(&etcd.url(), &Access::default());
        let store = registry.configuration().unwrap();
        registry.register(&registration("old", &[]), &claim()).await.unwrap();
        store.set(&value("/prod/key", "one")).await.unwrap();
        let mut watch = registry.watch().await.unwrap();

        let short = Registration { heartbeat_timeout: HeartbeatTimeout::MIN, ..registration("short", &[]) };
        registry.register(&short, &claim()).await.unwrap();
        registry.register(&registration("web1", &[]), &claim()).await.unwrap();
        let heir = Claim { if_taken: IfTaken::TakeOver, ..claim() };
        registry.register(&registration("web1", &[]), &heir).await.unwrap();
        registry.register(&registration("web1", &[("port", "80")]), &heir).await.unwrap();
        registry.deregister(&"web1".parse().unwrap(), Owner::Instance(heir.instance)).await.unwrap();
        registry.deregister(&"old".parse().unwrap(), Owner::Anyone).await.unwrap();
        store.set(&value("/prod/key", "one")).await.unwrap();
        store.set(&value("/prod/key", "two")).await.unwrap();
        store.set(&value("key", "first")).await.unwrap();
        store.remove(&"/prod/key".parse().unwrap()).await.unwrap();
        let expected = [
            "service.join short",
            "service.join web1",
            "service.remove web1",
            "service.join web1",
            "service.remove web1",
            "service.remove old",
            "/prod/key one -> two",
            "key  -> first",
            "/prod/key two ->",
            "service.timeout short",
        ];
        assert_eq!(told(&mut *watch, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn a_watch_that_is_given_up_and_asked_again_misses_nothing() {
    let Some(etcd) = Etcd::single(Release::Trixie, "a_watch_that_is_given_up") else { return };
    let registry = at(&etcd.url(), &Access::default());
    let mut watch = registry.watch().await.unwrap();
    let mut names = Vec::new();
    let writing = async {
        for number in 0..50 {
            registry.configuration().unwrap().set(&value(&format!("key{number}"), "v")).await.unwrap();
        }
    };
    let listening = async {
        while names.len() < 50 {
            if let Ok(events) = tokio::time::timeout(Duration::from_millis(3), watch.next()).await {
                names.extend(events.unwrap().into_iter().map(|event| event.body.subject().to_owned()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(writing, listening) }).await.unwrap();
    assert_eq!(names, (0..50).map(|number| format!("key{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watch_goes_on_after_a_compaction_and_a_restart() {
    for release in Release::ALL {
        let Some(mut etcd) = Etcd::single(release, "a_watch_goes_on_after_a_compaction") else { continue };
        let registry = at(&etcd.url(), &Access::default());
        let store = registry.configuration().unwrap();
        let mut watch = registry.watch().await.unwrap();
        registry.register(&registration("web1", &[]), &claim()).await.unwrap();
        store.set(&value("key", "one")).await.unwrap();
        assert_eq!(told(&mut *watch, 2).await, ["service.join web1", "key  -> one"]);
        // While nobody listens, so that the connection breaks before it tells of anything.
        etcd.members[0].kill();
        etcd.restart();
        registry.register(&registration("web2", &[]), &claim()).await.unwrap();
        registry.deregister(&"web2".parse().unwrap(), Owner::Anyone).await.unwrap();
        registry.register(&registration("web3", &[]), &claim()).await.unwrap();
        store.set(&value("key", "two")).await.unwrap();
        store.set(&value("key", "three")).await.unwrap();
        etcd.compact();
        // What came and went in between is not known any more.
        assert_eq!(told(&mut *watch, 2).await, ["service.join web3", "key one -> three"]);
        store.remove(&"key".parse().unwrap()).await.unwrap();
        assert_eq!(told(&mut *watch, 1).await, ["key three ->"]);
    }
}

#[tokio::test]
async fn a_watch_moves_to_another_server_and_misses_nothing() {
    for release in Release::ALL {
        let Some(mut etcd) = Etcd::cluster(release, "a_watch_moves_to_another_server") else { continue };
        let url = etcd.url();
        let registry = at(&url, &Access::default());
        let mut watch = registry.watch().await.unwrap();
        registry.register(&registration("web0", &[]), &claim()).await.unwrap();
        assert_eq!(told(&mut *watch, 1).await, ["service.join web0"]);
        for number in 0..3 {
            etcd.members[number].kill();
            let name = format!("web-{number}");
            let registration = registration(&name, &[]);
            let again = claim();
            // Until there is a leader again.
            while registry.register(&registration, &again).await.is_err() {}
            let mut seen = Vec::new();
            while seen.is_empty() {
                seen = watch.next().await.unwrap_or_default();
            }
            assert_eq!(seen[0].body.subject(), name);
            etcd.restart();
        }
        assert_eq!(etcd.ask("kv/range", &json!({"key": "AA=="})).0, 200);
    }
}

#[tokio::test]
async fn a_watch_leaves_a_server_that_is_frozen() {
    let Some(etcd) = Etcd::cluster(Release::Trixie, "a_watch_leaves_a_server_that_is_frozen") else { return };
    let url = format!("etcd://{},{}", etcd.members[0].address, etcd.members[1].address);
    let registry = at(&url, &Access::default());
    let mut watch = registry.watch().await.unwrap();
    registry.register(&registration("web1", &[]), &claim()).await.unwrap();
    assert_eq!(told(&mut *watch, 1).await, ["service.join web1"]);
    // It listens to one of the two.
    for number in 0..2 {
        etcd.members[number].signal(Signal::SIGSTOP);
        let registration = registration(&format!("web-{number}"), &[]);
        let again = claim();
        while registry.register(&registration, &again).await.is_err() {}
        assert_eq!(told(&mut *watch, 1).await, [format!("service.join web-{number}")]);
        etcd.members[number].signal(Signal::SIGCONT);
    }
}
