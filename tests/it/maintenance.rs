//! Maintenance by hand: a service that is drained is out of every registry, whoever registers it, and its command runs on.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::faults::all;
use crate::support::consul::Consul;
use crate::support::lab::{Kind, Laboratory, Observer, Patient};
use crate::support::peer::{Asked, Peer, Reply, agree, fault};
use crate::support::server::Server;
use crate::support::{Place, holds_for, wait_until};

const INTERVAL: Duration = Duration::from_secs(6);
/// Long enough for two heartbeats, and for a registration after an outage.
const A_WHILE: Duration = Duration::from_secs(8);

/// An operator's desk, at a registry.
struct Desk {
    place: Place,
    url: String,
}

impl Desk {
    fn at(url: &str) -> Self {
        Self { place: Place::new(), url: url.to_owned() }
    }

    fn asks(&self, words: &[&str]) -> Output {
        self.place.raxsr(&[&["--registry", &self.url], words].concat())
    }

    /// What `raxsr` says when it does it.
    #[track_caller]
    fn does(&self, words: &[&str]) -> String {
        let output = self.asks(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn drained(&self) -> Value {
        self.place.raxsr_json(&["--registry", &self.url, "services", "drained"])
    }
}

#[test]
fn who_is_drained_stays_out_of_every_registry_until_it_is_undrained() {
    all(&Kind::ALL, |&kind| {
        let test = "who_is_drained_stays_out_of_every_registry_until_it_is_undrained";
        let Some(laboratory) = Laboratory::start(kind, test).map(Arc::new) else { return };
        let observer = Observer::of(Arc::clone(&laboratory));
        let desk = Desk::at(laboratory.url());
        let start = |options: &[&str]| {
            let options = [&["--interval=6", "--abort-on-failure", "--retries=1"], options].concat();
            Patient::start(laboratory.url(), "web1", &options)
        };
        let stays_out = |patient: &Patient| {
            patient.wait_until_it_says("drained by hand");
            let since = Instant::now();
            wait_until("a look", || observer.misses("web1", since));
            holds_for(A_WHILE, "its absence", || observer.misses("web1", since));
            assert_eq!(patient.count("drained by hand"), 1, "{:#?}", patient.said());
            patient.has_untouched_child();
        };

        let mut patient = start(&[]);
        wait_until("the registration", || laboratory.lists("web1"));
        patient.wait_until_it_says("registered");
        let said = desk.does(&["services", "drain", "web1", "--reason", "new disk"]);
        assert_eq!(said, "Service \"web1\" is drained, and out of the registry\n");
        assert!(!laboratory.lists("web1"));
        stays_out(&patient);
        assert_eq!(patient.count(r#"reason="new disk""#), 1, "{:#?}", patient.said());
        assert_eq!(desk.drained()[0]["reason"], "new disk");

        // Stopped and started again, it is still drained: nothing in it knows of the first life.
        patient.stop();
        let patient = start(&[]);
        stays_out(&patient);

        desk.does(&["services", "undrain", "web1"]);
        let undrained = Instant::now();
        wait_until("its return", || observer.lists("web1", undrained));
        assert!(undrained.elapsed() <= INTERVAL, "{:?}", undrained.elapsed());
        patient.wait_until_it_says("it is not drained any more");
        assert_eq!(desk.drained(), json!([]));
        patient.has_untouched_child();
    });
}

#[test]
fn a_service_can_be_drained_before_it_is_there() {
    let place = Place::new();
    let desk = Desk::at(&place.url());
    let said = desk.does(&["services", "drain", "--id=web1"]);
    assert_eq!(said, "Service \"web1\" is drained; it was not registered\n");
    let patient = Patient::start(&place.url(), "web1", &["--interval=3"]);
    patient.wait_until_it_says("drained by hand");
    assert!(place.services().is_empty());
    desk.does(&["services", "undrain", "--id=web1"]);
    wait_until("the registration", || place.lists("web1"));
    let events: Vec<Value> = place.raxsr_json(&["events", "list"])["values"].as_array().unwrap().clone();
    let kinds: Vec<&str> = events.iter().rev().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["configuration_value.update", "configuration_value.remove", "service.join"]);
}

#[test]
fn who_is_drained_can_be_found_with_all_that_was_said() {
    let place = Place::new();
    let desk = Desk::at(&place.url());
    assert_eq!(desk.drained(), json!([]));
    desk.does(&["services", "drain", "web1", "--reason", "a \"new\"\n=disk()"]);
    let first = desk.drained();
    desk.does(&["services", "drain", "web1", "--reason", "other"]);
    desk.does(&["configuration", "set", "/service-registry/drained/web2", "by the API"]);
    desk.does(&["configuration", "set", "/service-registry/drained", "no service"]);
    let drained = desk.drained();
    assert_eq!((&first[0]["id"], &first[0]["reason"]), (&json!("web1"), &json!("a \"new\"\n=disk()")));
    let [one, other] = &drained.as_array().unwrap()[..] else { panic!("{drained}") };
    // Drained again, it has been drained for as long as before.
    assert_eq!((&one["since"], &one["reason"]), (&first[0]["since"], &json!("other")));
    assert!(one["by"].as_str().unwrap().contains('@'), "{one}");
    assert_eq!(*other, json!({"id": "web2", "since": null, "by": null, "reason": "by the API"}));
    let table = desk.does(&["services", "drained"]);
    assert!(table.starts_with('+') && table.contains("| web2"), "{table}");
    let csv = desk.does(&["--format=csv", "services", "drained"]);
    assert!(csv.ends_with("\nweb2,,,by the API\n"), "{csv}");

    let output = desk.asks(&["services", "get", "web2"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("raxsr: web2 is drained: by the API\nraxsr: no service `web2`"), "{said}");
}

#[test]
fn what_cannot_be_drained_or_undrained_is_told() {
    let place = Place::new();
    let desk = Desk::at(&place.url());
    let long = "x".repeat(256);
    for (words, code, expected) in [
        (&["services", "undrain", "web1"][..], 3, "raxsr: service `web1` is not drained\n"),
        (&["services", "drain", "web1", "--reason", &long], 2, "it needs 1 to 255"),
        (&["services", "drain", "a b"], 2, "service id `a b` may only have"),
        (&["services", "drain"], 2, "<ID>"),
        (&["--registry=http://127.0.0.1:9/v1.0", "services", "drain", "web1"], 1, "is not available"),
    ] {
        let output = place.raxsr(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    assert_eq!(desk.drained(), json!([]));
}

#[test]
fn a_service_is_drained_in_the_registry_that_was_meant() {
    let (here, there) = (Place::new(), Place::new());
    Desk::at(&here.url()).does(&["services", "drain", "web1"]);
    let other = format!("--registry={}", there.url());
    let patient = Patient::start(&here.url(), "web1", &["--interval=3", &other]);
    wait_until("the registration", || there.lists("web1"));
    patient.wait_until_it_says("drained by hand");
    holds_for(Duration::from_secs(2), "its place", || there.lists("web1") && !here.lists("web1"));
}

#[test]
fn who_is_drained_in_the_cluster_is_drained_at_its_server() {
    let test = "who_is_drained_in_the_cluster_is_drained_at_its_server";
    let Some(cluster) = Laboratory::start(Kind::Etcd, test) else { return };
    let server = Server::over(cluster.url(), &[]);
    let patient = Patient::start(&format!("{}/v1.0", server.url()), "web1", &["--interval=6"]);
    wait_until("the registration", || cluster.lists("web1"));
    patient.wait_until_it_says("registered");
    let desk = Desk::at(cluster.url());
    desk.does(&["services", "drain", "web1"]);
    patient.wait_until_it_says("drained by hand");
    assert!(!cluster.lists("web1"));
    assert_eq!(Desk::at(&format!("{}/v1.0", server.url())).drained()[0]["id"], "web1");
    desk.does(&["services", "undrain", "web1"]);
    wait_until("its return", || cluster.lists("web1"));
}

#[test]
fn a_registry_that_does_not_say_who_is_drained_keeps_nobody_out() {
    let answers: [fn() -> Reply; 6] = [
        || fault(403, "forbidden", "no"),
        || fault(404, "notFound", "no"),
        || fault(500, "internalServerError", "no"),
        || Reply::Json(200, json!(["nonsense"])),
        || Reply::Hang,
        || Reply::Close,
    ];
    all(&[0, 1, 2, 3, 4, 5], |&number: &usize| {
        let answer = answers[number];
        let peer = Peer::start(
            move |asked| {
                if asked.path.contains("/configuration/") { answer() } else { agree(asked) }
            },
        );
        let place = Place::new();
        let options = ["--id=web1", "--interval=6", "--abort-on-failure", "--retries=1"];
        let mut wrapper = place.wrapper(&options);
        wrapper.command.args(["--registry", &peer.url()]);
        let running = wrapper.start_with_log(&place.path().join("log"), &["sleep", "600"]);
        wait_until("a heartbeat", || peer.asked().iter().any(Asked::is_heartbeat));
        let looks = peer.asked().iter().filter(|asked| asked.path.contains("/drained/web1")).count();
        assert_eq!(looks, 1);
        drop(running);
    });
}

#[test]
fn a_token_that_may_not_read_consuls_values_registers_all_the_same() {
    let test = "a_token_that_may_not_read_consuls_values_registers_all_the_same";
    let Some(consul) = Consul::denying(test) else { return };
    let rules = r#"service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }"#;
    let policy = consul.tell("/v1/acl/policy", &json!({"Name": "wrapper", "Rules": rules})).json();
    let token = json!({"Policies": [{"ID": policy["ID"]}]});
    let token = consul.tell("/v1/acl/token", &token).json()["SecretID"].as_str().unwrap().to_owned();
    let patient = Patient::start(&consul.url_with_token(&token), "web1", &["--interval=6"]);
    patient.wait_until_it_says("registered");
    wait_until("the registration", || consul.passing("sleep") == 1);
}
