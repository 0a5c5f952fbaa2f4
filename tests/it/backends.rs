//! What every registry promises: one suite, over the trait. A new backend joins by a line in [`backends`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use service_registry_wrapper::model::{
    ConfigurationId, ConfigurationValue, EventBody, EventKind, HeartbeatTimeout, InstanceId, Limit, Marker,
    Metadata, Namespace, PageRequest, Registration, ServiceId, ServiceUpdate, Tag, Tags, Token,
};
use service_registry_wrapper::registry::{
    Access, Cause, Claim, ConfigurationQuery, Error, EventQuery, IfTaken, Limits, Object, Owner, Registry,
    ServiceQuery, connect, host,
};
use uuid::Uuid;

use crate::support::Place;
use crate::support::consul::Consul;
use crate::support::etcd::{Etcd, Release};
use crate::support::server::Server;
use crate::support::zookeeper::Zookeeper;

/// With what has to stay for as long as it is used.
type Backend = (Box<dyn Any>, Arc<dyn Registry>);

/// Runs a check against a fresh registry of each kind.
async fn each<F: Future<Output = ()>>(check: impl Fn(Arc<dyn Registry>) -> F) {
    for (place, registry) in backends().await {
        check(registry).await;
        drop(place);
    }
}

/// Likewise, of those kinds that log what happens and issue a token for each heartbeat.
async fn each_of_ours<F: Future<Output = ()>>(check: impl Fn(Arc<dyn Registry>) -> F) {
    for (place, registry) in ours().await {
        check(registry).await;
        drop(place);
    }
}

async fn backends() -> Vec<Backend> {
    let consul = Consul::start("the suite over every registry").map(|consul| {
        let registry = connect(&consul.url().parse().unwrap(), &Access::default());
        (Box::new(consul) as Box<dyn Any>, registry)
    });
    let etcd = Release::ALL.into_iter().filter_map(|release| {
        let etcd = Etcd::single(release, "the suite over every registry")?;
        let registry = connect(&etcd.url().parse().unwrap(), &Access::default());
        Some((Box::new(etcd) as Box<dyn Any>, registry))
    });
    let zookeeper = Zookeeper::start("the suite over every registry").map(|zookeeper| {
        let registry = connect(&zookeeper.url().parse().unwrap(), &Access::default());
        (Box::new(zookeeper) as Box<dyn Any>, registry)
    });
    ours().await.into_iter().chain(consul).chain(etcd).chain(zookeeper).collect()
}

async fn ours() -> Vec<Backend> {
    let (file, hosted) = (Place::new(), Place::new());
    let server = Server::start(Place::new(), &["--max-services=5000"]);
    let access = Access::default();
    let of_file = connect(&file.url().parse().unwrap(), &access);
    let of_host = hosted_at(&hosted.url()).await;
    let of_api = connect(&format!("{}/v1.0", server.url()).parse().unwrap(), &access);
    let mut ours: Vec<Backend> =
        vec![(Box::new(file), of_file), (Box::new(hosted), of_host), (Box::new(server), of_api)];
    if let Some(etcd) = Etcd::single(Release::Bookworm, "the suite over every registry") {
        let over_etcd = hosted_at(&etcd.url()).await;
        ours.push((Box::new(etcd), over_etcd));
    }
    ours
}

/// As a server opens it: on a thread that may wait.
async fn hosted_at(url: &str) -> Arc<dyn Registry> {
    let url = url.parse().unwrap();
    let open = move || host(&url, &Access::default(), Limits::default()).unwrap();
    tokio::task::spawn_blocking(open).await.unwrap()
}

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn marker(text: &str) -> Marker {
    text.parse().unwrap()
}

fn registration(name: &str, tags: &[&str]) -> Registration {
    Registration {
        id: id(name),
        heartbeat_timeout: HeartbeatTimeout::from_secs(30).unwrap(),
        tags: Tags::new(tags.iter().map(|tag| Tag::new(*tag).unwrap()).collect()).unwrap(),
        metadata: Metadata::new([("port".to_owned(), "80".to_owned())]).unwrap(),
    }
}

fn claim() -> Claim {
    Claim { instance: InstanceId::unique(), holder: "the test".to_owned(), if_taken: IfTaken::Refuse }
}

async fn register(registry: &dyn Registry, name: &str, tags: &[&str]) -> Token {
    registry.register(&registration(name, tags), &claim()).await.unwrap()
}

fn short(name: &str) -> Registration {
    Registration { heartbeat_timeout: HeartbeatTimeout::MIN, ..registration(name, &[]) }
}

async fn names(registry: &dyn Registry, query: ServiceQuery) -> Vec<String> {
    registry
        .services(&query)
        .await
        .unwrap()
        .values
        .into_iter()
        .map(|s| s.registration.id.to_string())
        .collect()
}

async fn events(registry: &dyn Registry, kind: Option<EventKind>) -> Vec<String> {
    let query = EventQuery { kind, ..EventQuery::default() };
    let page = registry.events().unwrap().events(&query).await.unwrap();
    page.values.iter().map(|e| format!("{} {}", e.body.kind().as_str(), e.body.subject())).collect()
}

/// Asserts that this has happened and nothing else, where that is logged.
async fn happened(registry: &dyn Registry, expected: &[&str]) {
    match registry.events() {
        Ok(_) => assert_eq!(events(registry, None).await, expected),
        Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    }
}

/// A little longer than the shortest timeout.
async fn outlast() {
    tokio::time::sleep(HeartbeatTimeout::MIN.as_duration() + Duration::from_millis(50)).await;
}

/// Waits until a service is not there any more. Some registries take a second or two longer than its timeout.
async fn until_gone(registry: &dyn Registry, name: &str) {
    let start = tokio::time::Instant::now();
    while registry.service(&id(name)).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "{name} stays at {}", registry.url());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_service_is_what_it_registered_as() {
    each(|registry| async move {
        let expected = registration("web1", &["www", "api", "www"]);
        registry.register(&expected, &claim()).await.unwrap();
        let service = registry.service(&id("web1")).await.unwrap();
        assert_eq!((service.registration, service.last_seen), (expected, None));
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_returns_another_token_and_is_seen() {
    each_of_ours(|registry| async move {
        let first = register(&*registry, "web1", &[]).await;
        let second = registry.heartbeat(&id("web1"), &first, Owner::Anyone).await.unwrap();
        assert!(second != first);
        let third = registry.heartbeat(&id("web1"), &second, Owner::Anyone).await.unwrap();
        assert!(third != second);
        assert!(registry.service(&id("web1")).await.unwrap().last_seen.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_repeated_because_its_answer_was_lost_succeeds() {
    each_of_ours(|registry| async move {
        let claim = claim();
        let ours = Owner::Instance(claim.instance);
        let first = registry.register(&registration("web1", &[]), &claim).await.unwrap();
        let lost = registry.heartbeat(&id("web1"), &first, ours).await.unwrap();
        for _ in 0..3 {
            assert!(registry.heartbeat(&id("web1"), &first, ours).await.unwrap() == lost);
        }
        registry.heartbeat(&id("web1"), &lost, ours).await.unwrap();
        let error = registry.heartbeat(&id("web1"), &first, ours).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { object: Object::HeartbeatToken, .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_token_is_good_once_for_whoever_did_not_register_it() {
    each_of_ours(|registry| async move {
        let used = register(&*registry, "web1", &[]).await;
        let current = registry.heartbeat(&id("web1"), &used, Owner::Anyone).await.unwrap();
        for whose in [Owner::Anyone, Owner::Instance(InstanceId::unique())] {
            let error = registry.heartbeat(&id("web1"), &used, whose).await.unwrap_err();
            assert!(matches!(error, Error::NotFound { object: Object::HeartbeatToken, .. }), "{error}");
        }
        registry.heartbeat(&id("web1"), &current, Owner::Anyone).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_for_what_is_not_there_is_not_found() {
    each(|registry| async move {
        let token = register(&*registry, "web1", &[]).await;
        let other = register(&*registry, "web2", &[]).await;
        for (service, token) in [("web3", &token), ("web1", &other), ("web1", &Token::new("x"))] {
            let error = registry.heartbeat(&id(service), token, Owner::Anyone).await.unwrap_err();
            assert!(matches!(error, Error::NotFound { .. }), "{error}");
        }
        registry.heartbeat(&id("web1"), &token, Owner::Anyone).await.unwrap();
        registry.heartbeat(&id("web2"), &other, Owner::Anyone).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_token_of_an_earlier_life_is_not_found() {
    each(|registry| async move {
        let token = register(&*registry, "web1", &[]).await;
        registry.deregister(&id("web1"), Owner::Anyone).await.unwrap();
        register(&*registry, "web1", &[]).await;
        assert!(matches!(
            registry.heartbeat(&id("web1"), &token, Owner::Anyone).await,
            Err(Error::NotFound { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn of_many_that_register_one_id_one_succeeds() {
    each(|registry| async move {
        let attempts = (0..20).map(|_| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move { registry.register(&registration("web1", &[]), &claim()).await })
        });
        let mut winners = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                Ok(_) => winners += 1,
                Err(Error::Conflict { holder, .. }) => assert_eq!(holder, "the test"),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners, 1);
        happened(&*registry, &["service.join web1"]).await;
    })
    .await;
}

#[tokio::test]
async fn registering_again_with_the_same_claim_succeeds_and_joins_once() {
    each(|registry| async move {
        let claim = claim();
        registry.register(&registration("web1", &["old"]), &claim).await.unwrap();
        let token = registry.register(&registration("web1", &["new"]), &claim).await.unwrap();
        registry.heartbeat(&id("web1"), &token, Owner::Anyone).await.unwrap();
        assert_eq!(registry.service(&id("web1")).await.unwrap().registration, registration("web1", &["new"]));
        happened(&*registry, &["service.join web1"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_takeover_removes_the_holder() {
    each(|registry| async move {
        let token = register(&*registry, "web1", &["old"]).await;
        let claim = Claim { if_taken: IfTaken::TakeOver, ..claim() };
        registry.register(&registration("web1", &["new"]), &claim).await.unwrap();
        assert!(matches!(
            registry.heartbeat(&id("web1"), &token, Owner::Anyone).await,
            Err(Error::NotFound { .. })
        ));
        let expected = ["service.join web1", "service.remove web1", "service.join web1"];
        happened(&*registry, &expected).await;
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_or_a_person_takes_a_service_out() {
    each(|registry| async move {
        let claim = claim();
        registry.register(&registration("web1", &[]), &claim).await.unwrap();
        let stranger = Owner::Instance(InstanceId::unique());
        assert!(matches!(registry.deregister(&id("web1"), stranger).await, Err(Error::NotFound { .. })));
        registry.deregister(&id("web1"), Owner::Instance(claim.instance)).await.unwrap();
        assert!(matches!(registry.service(&id("web1")).await, Err(Error::NotFound { .. })));
        assert!(matches!(registry.deregister(&id("web1"), Owner::Anyone).await, Err(Error::NotFound { .. })));
        happened(&*registry, &["service.join web1", "service.remove web1"]).await;
    })
    .await;
}

#[tokio::test]
async fn an_update_replaces_what_it_names_and_is_no_event() {
    each(|registry| async move {
        let token = register(&*registry, "web1", &["old"]).await;
        let tags = registration("x-x", &["new"]).tags;
        let update = ServiceUpdate { tags: Some(tags.clone()), ..ServiceUpdate::default() };
        registry.update(&id("web1"), &update).await.unwrap();
        let expected = Registration { tags, ..registration("web1", &[]) };
        assert_eq!(registry.service(&id("web1")).await.unwrap().registration, expected);
        let by = |tag: &str| ServiceQuery { tag: Some(Tag::new(tag).unwrap()), ..ServiceQuery::default() };
        assert_eq!(names(&*registry, by("new")).await, ["web1"]);
        assert!(names(&*registry, by("old")).await.is_empty());
        registry.heartbeat(&id("web1"), &token, Owner::Anyone).await.unwrap();
        happened(&*registry, &["service.join web1"]).await;
        assert!(matches!(registry.update(&id("web2"), &update).await, Err(Error::NotFound { .. })));
    })
    .await;
}

#[tokio::test]
async fn services_are_listed_by_id_by_tag_and_by_page() {
    each(|registry| async move {
        for name in ["web2", "Web1", "db1", "web10"] {
            register(&*registry, name, if name == "db1" { &["db", "x"] } else { &["www", "x"] }).await;
        }
        // Byte by byte.
        assert_eq!(names(&*registry, ServiceQuery::default()).await, ["Web1", "db1", "web10", "web2"]);
        let tag = Some(Tag::new("www").unwrap());
        let by_tag = ServiceQuery { tag: tag.clone(), ..ServiceQuery::default() };
        assert_eq!(names(&*registry, by_tag).await, ["Web1", "web10", "web2"]);

        let limit = Limit::new(2).unwrap();
        let query = |marker| ServiceQuery { tag: tag.clone(), page: PageRequest { marker, limit } };
        let page = registry.services(&query(None)).await.unwrap();
        assert_eq!((page.values.len(), page.next_marker.clone()), (2, Some(id("web2"))));
        assert_eq!(names(&*registry, query(page.next_marker.map(Marker::from))).await, ["web2"]);
        // A marker that is gone begins at the next.
        assert_eq!(names(&*registry, query(Some(marker("a")))).await, ["web10", "web2"]);
    })
    .await;
}

#[tokio::test]
async fn the_dead_are_gone_for_whoever_looks_and_have_timed_out_once() {
    each_of_ours(|registry| async move {
        let token = registry.register(&short("dead"), &claim()).await.unwrap();
        registry.register(&short("other"), &claim()).await.unwrap();
        register(&*registry, "alive", &[]).await;
        outlast().await;
        let looks = (0..30).map(|number| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                match number % 3 {
                    0 => assert_eq!(names(&*registry, ServiceQuery::default()).await, ["alive"]),
                    1 => assert!(matches!(registry.service(&id("dead")).await, Err(Error::NotFound { .. }))),
                    _ => drop(events(&*registry, None).await),
                }
            })
        });
        for look in looks.collect::<Vec<_>>() {
            look.await.unwrap();
        }
        let late = registry.heartbeat(&id("dead"), &token, Owner::Anyone).await;
        assert!(matches!(late, Err(Error::NotFound { .. })), "{late:?}");
        let mut timeouts = events(&*registry, Some(EventKind::ServiceTimeout)).await;
        timeouts.sort();
        assert_eq!(timeouts, ["service.timeout dead", "service.timeout other"]);
        register(&*registry, "dead", &[]).await;
    })
    .await;
}

#[tokio::test]
async fn the_id_of_the_dead_is_free() {
    each(|registry| async move {
        let token = registry.register(&short("dead"), &claim()).await.unwrap();
        register(&*registry, "alive", &[]).await;
        outlast().await;
        until_gone(&*registry, "dead").await;
        assert_eq!(names(&*registry, ServiceQuery::default()).await, ["alive"]);
        assert!(matches!(registry.service(&id("dead")).await, Err(Error::NotFound { .. })));
        let heir = register(&*registry, "dead", &[]).await;
        let late = registry.heartbeat(&id("dead"), &token, Owner::Anyone).await;
        assert!(matches!(late, Err(Error::NotFound { .. })), "{late:?}");
        registry.heartbeat(&id("dead"), &heir, Owner::Anyone).await.unwrap();
        assert_eq!(names(&*registry, ServiceQuery::default()).await, ["alive", "dead"]);
    })
    .await;
}

#[tokio::test]
async fn a_shorter_timeout_applies_from_the_next_heartbeat() {
    each(|registry| async move {
        let longest = Registration { heartbeat_timeout: HeartbeatTimeout::MAX, ..registration("web1", &[]) };
        let token = registry.register(&longest, &claim()).await.unwrap();
        let update =
            ServiceUpdate { heartbeat_timeout: Some(HeartbeatTimeout::MIN), ..ServiceUpdate::default() };
        registry.update(&id("web1"), &update).await.unwrap();
        outlast().await;
        registry.heartbeat(&id("web1"), &token, Owner::Anyone).await.unwrap();
        outlast().await;
        until_gone(&*registry, "web1").await;
        assert!(matches!(registry.service(&id("web1")).await, Err(Error::NotFound { .. })));
    })
    .await;
}

#[tokio::test]
async fn events_are_in_order_and_followed_by_marker() {
    each_of_ours(|registry| async move {
        for number in 0..7 {
            register(&*registry, &format!("web{number}"), &[]).await;
        }
        let log = registry.events().unwrap();
        let limit = Limit::new(3).unwrap();
        let (mut marker, mut seen) = (None, Vec::new());
        loop {
            let page =
                log.events(&EventQuery { kind: None, page: PageRequest { marker, limit } }).await.unwrap();
            assert!(page.values.iter().all(|event| event.id.get_version_num() == 1));
            seen.extend(page.values.into_iter().map(|event| event.body));
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        let expected =
            (0..7).map(|number| EventBody::ServiceJoin(registration(&format!("web{number}"), &[])));
        assert_eq!(seen, expected.collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_marker_must_be_a_time_within_the_log() {
    each_of_ours(|registry| async move {
        register(&*registry, "web1", &[]).await;
        let day = |days: u64| {
            let seconds = 1_700_000_000 + days * 86_400;
            let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
            Uuid::new_v1(time, &[1, 2, 3, 4, 5, 6])
        };
        for marker in [Uuid::new_v4(), Uuid::nil(), day(0), day(100_000)] {
            let query = EventQuery {
                kind: None,
                page: PageRequest { marker: Some(marker), limit: Limit::default() },
            };
            let error = registry.events().unwrap().events(&query).await.unwrap_err();
            assert!(matches!(error, Error::Invalid { source: Cause::Rule(_), .. }), "{marker}: {error:?}");
        }
    })
    .await;
}

fn value(name: &str, text: &str) -> ConfigurationValue {
    ConfigurationValue::new(name.parse::<ConfigurationId>().unwrap(), text).unwrap()
}

#[tokio::test]
async fn configuration_is_set_read_and_removed_and_each_change_is_an_event() {
    each(|registry| async move {
        let store = registry.configuration().unwrap();
        let key: ConfigurationId = "/prod/key".parse().unwrap();
        assert!(matches!(
            store.value(&key).await,
            Err(Error::NotFound { object: Object::ConfigurationValue, .. })
        ));
        store.set(&value("/prod/key", "one")).await.unwrap();
        store.set(&value("/prod/key", "one")).await.unwrap();
        store.set(&value("/prod/key", "two")).await.unwrap();
        assert_eq!(store.value(&key).await.unwrap().value(), "two");
        store.remove(&key).await.unwrap();
        assert!(matches!(store.remove(&key).await, Err(Error::NotFound { .. })));
        let Ok(log) = registry.events() else { return };
        let page = log.events(&EventQuery::default()).await.unwrap();
        let bodies: Vec<_> = page.values.into_iter().map(|event| event.body).collect();
        let configuration_value_id = key;
        let update = |old_value: Option<&str>, new_value: &str| EventBody::ConfigurationUpdate {
            old_value: old_value.map(str::to_owned),
            new_value: new_value.to_owned(),
            configuration_value_id: configuration_value_id.clone(),
        };
        let removed = EventBody::ConfigurationRemove {
            old_value: "two".to_owned(),
            configuration_value_id: configuration_value_id.clone(),
        };
        assert_eq!(bodies, [update(None, "one"), update(Some("one"), "two"), removed]);
    })
    .await;
}

#[tokio::test]
async fn a_namespace_is_what_is_in_it_and_below_and_the_value_of_its_name() {
    each(|registry| async move {
        let store = registry.configuration().unwrap();
        for name in ["/prod/key", "/prod/eu-1/key", "/prod", "/production/key", "/prod-2/key", "key"] {
            store.set(&value(name, "v")).await.unwrap();
        }
        let namespace = Some(Namespace::new("/prod/").unwrap());
        let list = |namespace: Option<Namespace>, page| async move {
            let page = store.values(&ConfigurationQuery { namespace, page }).await.unwrap();
            page.values.into_iter().map(|value| value.id.to_string()).collect::<Vec<_>>()
        };
        let all = PageRequest::default();
        assert_eq!(list(namespace.clone(), all.clone()).await, ["/prod", "/prod/eu-1/key", "/prod/key"]);
        assert_eq!(list(None, all.clone()).await.len(), 6);
        assert!(list(Some(Namespace::new("/none").unwrap()), all).await.is_empty());
        let rest = PageRequest { marker: Some(marker("/prod/foo")), limit: Limit::default() };
        assert_eq!(list(namespace, rest).await, ["/prod/key"]);
    })
    .await;
}

#[tokio::test]
async fn what_a_service_says_of_itself_comes_back_byte_for_byte() {
    each(|registry| async move {
        let odd = [
            ("k.e y", "v"),
            ("=", ",=;\"'\\/"),
            ("Ключ", "значение 𝄞"),
            ("lines", "one\ntwo\r\n\tthree"),
            ("srw_instance", "not ours"),
            ("<b>&amp;", "%00%2F${HOME}`id`"),
        ];
        let pairs = odd.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let expected = Registration {
            metadata: Metadata::new(pairs).unwrap(),
            ..registration("Odd_1.x-y", &["a b", "ta,g", "𝄞", "\"quoted\""])
        };
        registry.register(&expected, &claim()).await.unwrap();
        assert_eq!(
            registry.service(&expected.id).await.unwrap().registration,
            expected,
            "{}",
            registry.url()
        );
        let by_tag = ServiceQuery { tag: Some(Tag::new("ta,g").unwrap()), ..ServiceQuery::default() };
        assert_eq!(names(&*registry, by_tag).await, ["Odd_1.x-y"], "{}", registry.url());
    })
    .await;
}

#[tokio::test]
async fn a_thousand_services_are_listed_page_by_page() {
    const COUNT: usize = 1_050;
    each(|registry| async move {
        let numbers = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let registering = (0..20).map(|_| {
            let (registry, numbers) = (Arc::clone(&registry), Arc::clone(&numbers));
            tokio::spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= COUNT {
                        return;
                    }
                    let tags: &[&str] = if number % 2 == 0 { &["even"] } else { &["odd"] };
                    register(&*registry, &format!("web{number:04}"), tags).await;
                }
            })
        });
        for registering in registering.collect::<Vec<_>>() {
            registering.await.unwrap();
        }
        let (mut found, mut pages, mut marker) = (Vec::new(), 0, None);
        loop {
            let query =
                ServiceQuery { page: PageRequest { marker, limit: Limit::MAX }, ..ServiceQuery::default() };
            let page = registry.services(&query).await.unwrap();
            found.extend(page.values.into_iter().map(|service| service.registration.id.to_string()));
            pages += 1;
            marker = page.next_marker.map(Marker::from);
            if marker.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (0..COUNT).map(|number| format!("web{number:04}")).collect();
        assert_eq!((found, pages), (expected, 2), "{}", registry.url());
        let even = ServiceQuery { tag: Some(Tag::new("even").unwrap()), ..ServiceQuery::default() };
        assert_eq!(names(&*registry, even).await.len(), 100, "{}", registry.url());
    })
    .await;
}
