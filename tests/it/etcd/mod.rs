//! A registry that is an etcd cluster: what the suite over every backend does not ask.

mod cluster;
mod login;
mod watching;

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use service_registry_wrapper::model::{
    HeartbeatTimeout, InstanceId, Limit, Metadata, PageRequest, Registration, Tags,
};
use service_registry_wrapper::registry::{
    Access, Claim, Error, IfTaken, Owner, Registry, ServiceQuery, connect,
};

use crate::support::etcd::{Etcd, Release};
use crate::support::{Place, RAXSR, Running, holds_for, says, status_of, wait_until};

const INTERVAL: Duration = Duration::from_secs(3);
const KEY: &str = "/service-registry/services/web1";

/// A wrapper that registers `web1` at `url`, and what it says.
fn wrapper(place: &Place, url: &str, name: &str, options: &[&str]) -> (Running, PathBuf) {
    let log = place.path().join(name);
    let registry = format!("--registry={url}");
    let common = [&registry, "--id=web1", "--log-level=debug"];
    let interval = if options.iter().any(|option| option.starts_with("--interval")) {
        &[][..]
    } else {
        &["--interval=3"]
    };
    let options = [&common, interval, options].concat();
    (place.wrapper(&options).start_with_log(&log, &["sleep", "600"]), log)
}

fn raxsr(place: &Place, url: &str, words: &[&str]) -> Output {
    place.program(RAXSR).env("SERVICE_REGISTRY_URL", url).args(words).output().unwrap()
}

fn lists(place: &Place, url: &str) -> bool {
    let output = raxsr(place, url, &["--format=csv", "services", "list"]);
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web1")
}

/// The record of `web1`; null where there is none.
fn record(etcd: &Etcd) -> Value {
    let keys = etcd.keys(KEY);
    keys.first().map_or(Value::Null, |(_, value)| serde_json::from_str(value).unwrap())
}

/// How often a file says something.
fn count(log: &PathBuf, text: &str) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches(text).count()
}

fn registration(id: &str, pairs: &[(&str, &str)]) -> Registration {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Registration {
        id: id.parse().unwrap(),
        heartbeat_timeout: HeartbeatTimeout::from_secs(30).unwrap(),
        tags: Tags::default(),
        metadata: Metadata::new(pairs).unwrap(),
    }
}

fn claim() -> Claim {
    Claim { instance: InstanceId::unique(), holder: "the test".to_owned(), if_taken: IfTaken::Refuse }
}

fn at(url: &str, access: &Access) -> Arc<dyn Registry> {
    connect(&url.parse().unwrap(), access)
}

#[test]
fn a_wrapper_keeps_one_connection_and_one_thread_and_takes_its_service_out() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "a_wrapper_keeps_one_connection") else { continue };
        let place = Place::new();
        let (mut wrapper, log) = wrapper(&place, &etcd.url(), "log", &["--tags=www"]);
        wait_until("heartbeats", || count(&log, "request succeeded") >= 4);
        assert!(lists(&place, &etcd.url()));
        assert_eq!(status_of(wrapper.pid(), "Threads").unwrap(), "1");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", wrapper.pid())).unwrap();
        let sockets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let tcp = fs::read_to_string(format!("/proc/{}/net/tcp", wrapper.pid())).unwrap();
        let is_tcp = |link: &PathBuf| {
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|link| link.strip_suffix(']'));
            inode.is_some_and(|inode| tcp.contains(&format!(" {inode} ")))
        };
        assert_eq!(sockets.filter(is_tcp).count(), 1);
        wrapper.signal(Signal::SIGTERM);
        wrapper.wait();
        assert!(etcd.keys("/").is_empty() && etcd.leases().is_empty(), "{:?}", etcd.keys("/"));
    }
}

#[test]
fn a_lease_that_somebody_revoked_is_replaced_at_the_next_heartbeat() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "a_lease_that_somebody_revoked_is_replaced") else { continue };
        let place = Place::new();
        let (_wrapper, log) = wrapper(&place, &etcd.url(), "log", &[]);
        wait_until("the registration", || !record(&etcd).is_null());
        for lease in etcd.leases() {
            assert_eq!(etcd.ask("lease/revoke", &json!({"ID": lease})).0, 200);
        }
        assert!(record(&etcd).is_null());
        wait_until("the registration again", || !record(&etcd).is_null());
        wait_until("a word about it", || says(&log, "registered again"));
        assert_eq!(etcd.leases().len(), 1);
    }
}

#[test]
fn keys_that_somebody_deleted_are_written_again() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "keys_that_somebody_deleted_are_written_again") else {
            continue;
        };
        let place = Place::new();
        let url = etcd.url() + "/service-registry?layout=registrator";
        let (_wrapper, log) =
            wrapper(&place, &url, "log", &["--name=web", "--address=10.1.2.3", "--port=80"]);
        let keys = || etcd.keys("/service-registry/");
        wait_until("the registration", || keys().len() == 2);
        let before = keys();
        for lost in [&["/service-registry/web/web1"][..], &[KEY], &[KEY, "/service-registry/web/web1"]] {
            for key in lost {
                etcd.delete(key);
            }
            wait_until("the keys", || keys() == before);
        }
        wait_until("a word about it", || count(&log, "wrote keys again") == 3);
        assert!(!says(&log, "registered again"));
    }
}

#[test]
fn of_two_that_race_for_an_id_one_stays_and_the_other_follows() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "of_two_that_race_for_an_id_one_stays") else { continue };
        let (place, url) = (Place::new(), etcd.url());
        let (first, second) = (wrapper(&place, &url, "log1", &[]), wrapper(&place, &url, "log2", &[]));
        let waits = |log: &PathBuf| says(log, "waiting until the id is free");
        wait_until("the decision", || waits(&first.1) || waits(&second.1));
        let holder = record(&etcd);
        holds_for(2 * INTERVAL, "the holder", || record(&etcd) == holder);
        let (winner, loser) = if waits(&second.1) { (first, second) } else { (second, first) };
        assert!(!waits(&winner.1));
        assert!(
            says(&loser.1, &format!("pid {}", winner.0.pid())),
            "{}",
            fs::read_to_string(&loser.1).unwrap()
        );
        drop(winner);
        wait_until("the heir", || !record(&etcd).is_null() && record(&etcd) != holder);
        wait_until("the end of other leases", || etcd.leases().len() == 1);
    }
}

#[test]
fn every_layout_is_written_and_ends_with_the_service() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "every_layout_is_written") else { continue };
        let place = Place::new();
        let url = etcd.url() + "/shop?layout=native,registrator,skydns,grpc&domain=shop.example";
        let options = ["--name=web", "--address=10.1.2.3", "--port=8080", "--metadata=tier=1"];
        let (mut wrapper, _) = wrapper(&place, &url, "log", &options);
        wait_until("the registration", || etcd.keys("/shop/services/").len() == 1);
        assert_eq!(etcd.keys("/shop/web/"), [("/shop/web/web1".to_owned(), "10.1.2.3:8080".to_owned())]);
        let skydns = r#"{"host":"10.1.2.3","port":8080,"ttl":60}"#;
        assert_eq!(etcd.keys("/skydns/"), [("/skydns/example/shop/web/web1".to_owned(), skydns.to_owned())]);
        let grpc = etcd.keys("shop/web/");
        assert_eq!(grpc.len(), 1);
        assert_eq!(grpc[0].0, "shop/web/10.1.2.3:8080");
        assert!(grpc[0].1.starts_with(r#"{"Op":0,"Addr":"10.1.2.3:8080","Metadata":{"#), "{}", grpc[0].1);
        let native: Value = serde_json::from_str(&etcd.keys("/shop/services/")[0].1).unwrap();
        assert_eq!(
            (&native["name"], &native["port"], &native["metadata"]["tier"]),
            (&json!("web"), &json!(8080), &json!("1"))
        );
        wrapper.signal(Signal::SIGTERM);
        wrapper.wait();
        assert!(etcd.keys("/").is_empty() && etcd.keys("shop").is_empty());
    }
}

#[test]
fn a_layout_that_cannot_be_used_is_told_once() {
    let Some(etcd) = Etcd::single(Release::Bookworm, "a_layout_that_cannot_be_used") else { return };
    let place = Place::new();
    let (_wrapper, log) = wrapper(&place, &(etcd.url() + "/?layout=skydns,grpc"), "log", &["--name=not_dns"]);
    wait_until("heartbeats", || count(&log, "request succeeded") >= 2);
    assert_eq!(count(&log, "not written in this layout"), 2, "{}", fs::read_to_string(&log).unwrap());
    assert!(says(&log, "no label in DNS") && says(&log, "--address and --port"));
    assert!(lists(&place, &etcd.url()));
}

#[tokio::test]
async fn a_thousand_services_are_listed_page_by_page() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "a_thousand_services_are_listed") else { continue };
        let registry = at(&etcd.url(), &Access::default());
        let registering = (0..1050).map(|number| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                let registration = registration(&format!("web{number:04}"), &[]);
                registry.register(&registration, &claim()).await.unwrap();
            })
        });
        for registering in registering.collect::<Vec<_>>() {
            registering.await.unwrap();
        }
        let query = |marker| ServiceQuery { tag: None, page: PageRequest { marker, limit: Limit::MAX } };
        let page = registry.services(&query(None)).await.unwrap();
        assert_eq!(page.values.len(), 1000);
        let rest = registry.services(&query(page.next_marker.map(Into::into))).await.unwrap();
        assert_eq!((rest.values.len(), rest.next_marker), (50, None));
        assert_eq!(rest.values[0].registration.id.as_str(), "web1000");
    }
}

#[tokio::test]
async fn who_loses_leaves_no_lease_and_learns_who_holds_the_id_and_for_how_long() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::single(release, "who_loses_leaves_no_lease") else { continue };
        let registry = at(&etcd.url(), &Access::default());
        registry.register(&registration("web1", &[]), &claim()).await.unwrap();
        let error = registry.register(&registration("web1", &[]), &claim()).await.unwrap_err();
        let Error::Conflict { holder, frees_in, .. } = error else { panic!("{error}") };
        assert_eq!(holder, "the test");
        assert!(frees_in.unwrap() <= Duration::from_secs(30) && frees_in.unwrap() > Duration::ZERO);
        assert_eq!(etcd.leases().len(), 1);
        let taking = Claim { if_taken: IfTaken::TakeOver, ..claim() };
        registry.register(&registration("web1", &[]), &taking).await.unwrap();
        assert_eq!(etcd.leases().len(), 1);
    }
}

#[tokio::test]
async fn what_another_program_wrote_is_left_alone_until_it_is_taken_over() {
    let Some(etcd) = Etcd::single(Release::Trixie, "what_another_program_wrote") else { return };
    let registry = at(&etcd.url(), &Access::default());
    let body = json!({"key": base64(KEY), "value": base64("not ours")});
    assert_eq!(etcd.ask("kv/put", &body).0, 200);
    let web1 = registration("web1", &[]);
    let error = registry.register(&web1, &claim()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict { holder, frees_in: None, .. } if holder == "another program"),
        "{error}"
    );
    assert!(registry.services(&ServiceQuery::default()).await.unwrap().values.is_empty());
    let taking = Claim { if_taken: IfTaken::TakeOver, ..claim() };
    let token = registry.register(&web1, &taking).await.unwrap();
    registry.heartbeat(&web1.id, &token, Owner::Instance(taking.instance)).await.unwrap();
    registry.deregister(&web1.id, Owner::Anyone).await.unwrap();
    assert_eq!(etcd.ask("kv/put", &body).0, 200);
    registry.deregister(&web1.id, Owner::Anyone).await.unwrap();
    assert!(etcd.keys(KEY).is_empty());
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_gateway_that_is_off_is_told_as_such() {
    for release in Release::ALL {
        let options = ["--enable-grpc-gateway=false"];
        let Some(etcd) = Etcd::with(release, "a_gateway_that_is_off", &options) else { continue };
        let output = raxsr(&Place::new(), &etcd.url(), &["services", "list"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("but not its JSON gateway") && said.contains("enable-grpc-gateway"), "{said}");
    }
}

#[test]
fn etcds_own_variables_say_where_it_is() {
    let Some(etcd) = Etcd::single(Release::Bookworm, "etcds_own_variables_say_where_it_is") else { return };
    let place = Place::new();
    let list = |url: &str, endpoints: String| {
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", url).env("ETCDCTL_ENDPOINTS", endpoints);
        command.args(["services", "list"]).output().unwrap()
    };
    let address = etcd.members[0].address;
    for endpoints in [format!("{address}"), format!("http://127.0.0.1:1,http://{address}")] {
        assert!(list("etcd://", endpoints).status.success());
    }
    let bad = list("etcd://", "unix:///run/etcd".to_owned());
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("ETCDCTL_ENDPOINTS"), "{bad:?}");
}

#[test]
fn an_etcd_without_space_is_told_as_such_and_can_be_left() {
    for release in Release::ALL {
        let options = ["--quota-backend-bytes=100000"];
        let Some(etcd) = Etcd::with(release, "an_etcd_without_space", &options) else { continue };
        let (place, url) = (Place::new(), etcd.url());
        let (mut wrapper, log) = wrapper(&place, &url, "log", &[]);
        wait_until("the registration", || lists(&place, &url));
        let large = json!({"key": base64("large"), "value": base64(&"x".repeat(60_000))});
        wait_until("no space", || etcd.ask("kv/put", &large).0 != 200);
        let said = raxsr(&place, &url, &["configuration", "set", "key", "value"]);
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("space exceeded") && said.contains("alarm disarm"), "{said}");
        wrapper.signal(Signal::SIGTERM);
        wrapper.wait();
        assert!(etcd.keys(KEY).is_empty(), "{}", fs::read_to_string(&log).unwrap());
    }
}
