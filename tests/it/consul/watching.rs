//! What happens in a datacenter, as it happens.

use std::time::Duration;

use serde_json::json;
use service_registry_wrapper::model::{HeartbeatTimeout, Registration, ServiceId};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, Owner, Watch};

use super::{at, claim, registration};
use crate::support::consul::Consul;

/// The next events, of which there have to be some, as `type subject`. Asked again and again on the way: nothing is lost
/// by it.
async fn next(watch: &mut dyn Watch) -> Vec<String> {
    let mut tries = 0;
    let events = loop {
        tries += 1;
        let span = Duration::from_millis(300 * tries);
        match tokio::time::timeout(span, watch.next()).await {
            Ok(events) => break events.unwrap(),
            Err(_) => assert!(tries < 20, "nothing happens"),
        }
    };
    events.iter().map(|event| format!("{} {}", event.body.kind().as_str(), event.body.subject())).collect()
}

#[tokio::test]
async fn who_comes_who_leaves_and_who_falls_silent_is_told_once() {
    let Some(consul) = Consul::start("who_comes_who_leaves_and_who_falls_silent") else { return };
    let other = consul.joined_by("n2");
    let registry = at(&consul, &Access::default());
    let id: ServiceId = "web1".parse().unwrap();
    consul.tell("/v1/agent/service/register", &json!({"ID": "there", "Name": "there"}));
    let mut watch = registry.watch().await.unwrap();
    let first = claim();
    registry.register(&registration(&[]), &first).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
    registry.deregister(&id, Owner::Instance(first.instance)).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.remove web1"]);
    registry.register(&registration(&[]), &claim()).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
    assert_eq!(next(&mut *watch).await, ["service.timeout web1"]);
    registry.deregister(&id, Owner::Anyone).await.unwrap();
    // Somewhere else, and with the same id twice.
    let elsewhere = at(&other, &Access::default());
    elsewhere.register(&registration(&[]), &claim()).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
    let long = Registration { heartbeat_timeout: HeartbeatTimeout::MAX, ..registration(&[]) };
    let taken = Claim { if_taken: IfTaken::TakeOver, ..claim() };
    elsewhere.register(&long, &taken).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.remove web1", "service.join web1"]);
    registry.register(&long, &claim()).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
    elsewhere.deregister(&id, Owner::Anyone).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.remove web1"]);
    consul.ask("PUT", "/v1/agent/service/maintenance/web1?enable=true").is(200);
    assert_eq!(next(&mut *watch).await, ["service.remove web1"]);
    consul.ask("PUT", "/v1/agent/service/maintenance/web1?enable=false").is(200);
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
}

#[tokio::test]
async fn a_watch_goes_on_after_an_outage_and_a_consul_that_counts_anew() {
    let Some(mut consul) = Consul::start("a_watch_goes_on_after_an_outage") else { return };
    let registry = at(&consul, &Access::default());
    let long = Registration { heartbeat_timeout: HeartbeatTimeout::MAX, ..registration(&[]) };
    // So that its count is well ahead of that of a new one.
    for _ in 0..50 {
        consul.ask("PUT", "/v1/kv/key").is(200);
    }
    registry.register(&long, &claim()).await.unwrap();
    let mut watch = registry.watch().await.unwrap();
    let slow = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    assert!(slow.is_err(), "{slow:?}");
    consul.kill();
    let error = watch.next().await.unwrap_err();
    assert!(error.to_string().contains("is not available"), "{error}");
    consul.restart_empty();
    assert_eq!(next(&mut *watch).await, ["service.remove web1"]);
    registry.register(&long, &claim()).await.unwrap();
    assert_eq!(next(&mut *watch).await, ["service.join web1"]);
}
