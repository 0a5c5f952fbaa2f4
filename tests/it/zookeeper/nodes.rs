//! What becomes of nodes, as seen by other sessions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use service_registry_wrapper::model::{
    EventBody, HeartbeatTimeout, Limit, Metadata, PageRequest, Registration, ServiceUpdate, Tags,
};
use service_registry_wrapper::registry::{Claim, Error, IfTaken, Owner, ServiceQuery};
use tokio::time::Instant;

use super::{at, claim, registration};
use crate::support::zookeeper::Zookeeper;

#[tokio::test]
async fn a_service_is_listed_for_its_timeout_although_the_server_agrees_to_less() {
    let test = "a_service_is_listed_for_its_timeout_although_the_server_agrees_to_less";
    let Some(zookeeper) = Zookeeper::with(test, &["maxSessionTimeout=1500"]) else { return };
    let (owner, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    let heartbeat_timeout = HeartbeatTimeout::from_secs(6).unwrap();
    let service = Registration { heartbeat_timeout, ..registration("web1", &[]) };
    let token = owner.register(&service, &claim()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    other.service(&service.id).await.unwrap();
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    other.service(&service.id).await.unwrap();
    // Whoever falls silent is gone, and whoever is gone altogether is gone even sooner.
    let start = Instant::now();
    while other.service(&service.id).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    owner.register(&service, &claim()).await.unwrap();
    drop(owner);
    let start = Instant::now();
    while other.service(&service.id).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_is_registered_with_a_password_is_changed_with_it() {
    let Some(zookeeper) = Zookeeper::start("what_is_registered_with_a_password") else { return };
    let with = |login: &str| at(&format!("zk://{login}{}/apps", zookeeper.address()));
    let (ours, theirs, nobodys) = (with("me:sesame@"), with("me:other@"), with(""));
    let service = registration("web1", &[("name", "shop")]);
    let token = ours.register(&service, &claim()).await.unwrap();
    let update = ServiceUpdate { tags: Some(Tags::default()), ..ServiceUpdate::default() };
    for registry in [theirs, nobodys] {
        let error = registry.update(&service.id, &update).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert_eq!(registry.service(&service.id).await.unwrap().registration, service);
    }
    with("me:sesame@").update(&service.id, &update).await.unwrap();
    ours.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
}

#[tokio::test]
async fn metadata_of_any_characters_comes_back() {
    let Some(zookeeper) = Zookeeper::start("metadata_of_any_characters_comes_back") else { return };
    let registry = at(&zookeeper.url());
    let long = "ä€".repeat(127);
    for pairs in [
        &[("name", "shop"), ("port", "80"), ("host", "web1.example")][..],
        &[("a.b", "1"), ("a b", "3"), ("ключ", "значение"), ("name", "a/b\u{0}𝄞")],
        &[("k", "\u{0}\n\t\u{1b}[2J\"\\"), ("long", &long), (&*long, "v"), ("name", "..")],
    ] {
        let expected = registration("web1", pairs);
        registry.register(&expected, &Claim { if_taken: IfTaken::TakeOver, ..claim() }).await.unwrap();
        assert_eq!(registry.service(&expected.id).await.unwrap().registration, expected);
    }
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/%2E%2E"), ["web1"]);
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
}

#[tokio::test]
async fn a_thousand_services_are_listed_by_page() {
    let Some(zookeeper) = Zookeeper::start("a_thousand_services_are_listed_by_page") else { return };
    let registry = at(&zookeeper.url());
    let names: BTreeSet<_> = (0..1000).map(|number| format!("web{number}")).collect();
    let mut registering = tokio::task::JoinSet::new();
    for name in &names {
        let (registry, name) = (Arc::clone(&registry), name.clone());
        registering.spawn(async move {
            let heartbeat_timeout = HeartbeatTimeout::MAX;
            let service = Registration { heartbeat_timeout, ..registration(&name, &[("name", "shop")]) };
            registry.register(&service, &claim()).await.unwrap();
        });
        if registering.len() >= 30 {
            registering.join_next().await.unwrap().unwrap();
        }
    }
    registering.join_all().await;
    let limit = Limit::new(300).unwrap();
    let (mut marker, mut listed) = (None, Vec::new());
    loop {
        let page = PageRequest { marker, limit };
        let page = registry.services(&ServiceQuery { tag: None, page }).await.unwrap();
        listed.extend(page.values.into_iter().map(|service| service.registration.id.to_string()));
        marker = page.next_marker.map(Into::into);
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(listed, names.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn an_id_is_unique_whatever_the_services_name_is() {
    let Some(zookeeper) = Zookeeper::start("an_id_is_unique_whatever_the_name") else { return };
    let (one, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    one.register(&registration("web1", &[("name", "shop")]), &claim()).await.unwrap();
    let again = registration("web1", &[("name", "blog")]);
    let error = other.register(&again, &claim()).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { holder, .. } if holder == "the test"), "{error}");
    other.register(&again, &Claim { if_taken: IfTaken::TakeOver, ..claim() }).await.unwrap();
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
    assert_eq!(client.children("/apps/services/blog"), ["web1"]);
}

#[tokio::test]
async fn a_service_of_another_name_moves_with_its_next_heartbeat() {
    let Some(zookeeper) = Zookeeper::start("a_service_of_another_name_moves") else { return };
    let (owner, other) = (at(&zookeeper.url()), at(&zookeeper.url()));
    let service = registration("web1", &[("name", "shop")]);
    let token = owner.register(&service, &claim()).await.unwrap();
    let metadata = Some(registration("web1", &[("name", "blog")]).metadata);
    other.update(&service.id, &ServiceUpdate { metadata, ..ServiceUpdate::default() }).await.unwrap();
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    let mut client = zookeeper.client();
    assert_eq!(client.children("/apps/services/shop"), Vec::<String>::new());
    let entry: Value = serde_json::from_str(&client.node("/apps/services/blog/web1").unwrap().data).unwrap();
    assert_eq!(entry["name"], "blog");
    owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
    owner.deregister(&service.id, Owner::Anyone).await.unwrap();
    assert_eq!(client.children("/apps/services/blog"), Vec::<String>::new());
}

#[tokio::test]
async fn consumers_see_a_service_for_as_long_as_it_has_an_address() {
    let test = "consumers_see_a_service_for_as_long_as_it_has_an_address";
    let Some(zookeeper) = Zookeeper::start(test) else { return };
    let mut client = zookeeper.client();
    for query in ["", "?layout=nerve&path=/services/web1", "?layout=serverset&path=/services/web1"] {
        let url = zookeeper.url() + query;
        let (owner, other) = (at(&url), at(&url));
        let service = Registration { metadata: Metadata::default(), ..registration("web1", &[]) };
        let token = owner.register(&service, &claim()).await.unwrap();
        assert_eq!(client.children("/apps/services/web1"), Vec::<String>::new());
        for pairs in [&[("host", "a"), ("port", "1")][..], &[("host", "b"), ("port", "1")], &[]] {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let metadata = Metadata::new(pairs).unwrap();
            let update = ServiceUpdate { metadata: Some(metadata.clone()), ..ServiceUpdate::default() };
            other.update(&service.id, &update).await.unwrap();
            owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
            let shown = client.children("/apps/services/web1");
            assert_eq!(shown.len(), usize::from(metadata.get("host").is_some()), "{url} {shown:?}");
            for name in shown {
                let node = client.node(&format!("/apps/services/web1/{name}")).unwrap();
                let host = format!("\"{}\"", metadata.get("host").unwrap());
                assert!(node.data.contains(&host), "{node:?}");
            }
        }
        owner.heartbeat(&service.id, &token, Owner::Anyone).await.unwrap();
        owner.deregister(&service.id, Owner::Anyone).await.unwrap();
    }
}

#[tokio::test]
async fn who_watches_is_told_how_a_service_left() {
    let Some(mut zookeeper) = Zookeeper::start("who_watches_is_told_how_a_service_left") else { return };
    let (owner, other, watcher) = (at(&zookeeper.url()), at(&zookeeper.url()), at(&zookeeper.url()));
    let mut watch = watcher.watch().await.unwrap();
    owner.register(&registration("before", &[]), &claim()).await.unwrap();
    // The first look tells of nothing.
    let first = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
    assert!(first.is_err(), "{first:?}");
    let takes_over = || Claim { if_taken: IfTaken::TakeOver, ..claim() };
    let mut told = Vec::new();
    let mut expect = async |expected: &[&str]| {
        while told.len() < expected.len() {
            let events = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap().unwrap();
            for event in events {
                assert!(matches!(
                    event.body,
                    EventBody::ServiceJoin(_) | EventBody::ServiceRemove(_) | EventBody::ServiceTimeout(_)
                ));
                told.push(format!("{} {}", event.body.kind().as_str(), event.body.subject()));
            }
        }
        assert_eq!(told, expected);
        told.clear();
    };
    expect(&["service.timeout before"]).await;
    owner.register(&registration("web1", &[]), &claim()).await.unwrap();
    expect(&["service.join web1"]).await;
    other.register(&registration("web1", &[]), &takes_over()).await.unwrap();
    expect(&["service.remove web1", "service.join web1"]).await;
    watcher.deregister(&"web1".parse().unwrap(), Owner::Anyone).await.unwrap();
    expect(&["service.remove web1"]).await;
    owner.register(&registration("web2", &[]), &claim()).await.unwrap();
    expect(&["service.join web2"]).await;
    zookeeper.kill();
    zookeeper.restart();
    while watch.next().await.is_err() {}
    owner.register(&registration("web3", &[]), &claim()).await.unwrap();
}
