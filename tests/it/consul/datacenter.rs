//! What those see who only look: the services of a datacenter, as Consul's own consumers see them.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{INTERVAL, lists, raxsr, wrapper_at};
use crate::support::consul::{Consul, MASTER};
use crate::support::peer::{Peer, Reply};
use crate::support::{Place, holds_for, says, wait_until};

/// What `raxsr services` lists, as `id tags`.
fn listed(place: &Place, url: &str, options: &[&str]) -> Vec<String> {
    let output = raxsr(place, url, &[&["-f", "json", "services", "list"], options].concat());
    assert!(output.status.success(), "{output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let service = |service: &Value| {
        let tags: Vec<_> =
            service["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        format!("{} {}", service["id"].as_str().unwrap(), tags.join(","))
    };
    list["values"].as_array().unwrap().iter().map(service).collect()
}

#[test]
fn a_list_has_the_services_of_all_agents_and_our_own_agents_first() {
    let Some(server) = Consul::start("a_list_has_the_services_of_all_agents") else { return };
    let (second, mut third) = (server.joined_by("n2"), server.joined_by("n 3/ü"));
    let place = Place::new();
    let register = |consul: &Consul, id: &str, name: &str, tag: &str| {
        consul.tell("/v1/agent/service/register", &json!({"ID": id, "Name": name, "Tags": [tag]}));
    };
    register(&second, "web1", "web", "second");
    register(&third, "web1", "web", "third");
    register(&third, "odd", "ä b/c?d", "third");
    register(&third, "not an id", "e", "third");
    wait_until("the catalog", || {
        listed(&place, &server.url(), &[]) == ["odd third", "web1 third", "web1 second"]
            || listed(&place, &server.url(), &[]) == ["odd third", "web1 second", "web1 third"]
    });
    register(&server, "web1", "web", "first");
    let all = listed(&place, &server.url(), &[]);
    assert_eq!((all.len(), &*all[0], &*all[1]), (4, "odd third", "web1 first"), "{all:?}");
    // By name, of which there are fewer than nodes.
    assert_eq!(listed(&place, &server.url(), &["--tag=third"]), ["odd third", "web1 third"]);
    assert_eq!(listed(&place, &second.url(), &["--limit=1"]), ["odd third"]);
    let get = raxsr(&place, &second.url(), &["-f", "json", "services", "get", "web1"]);
    assert!(String::from_utf8_lossy(&get.stdout).contains("second"), "{get:?}");
    assert!(raxsr(&place, &second.url(), &["services", "get", "odd"]).status.success());
    let remove = raxsr(&place, &second.url(), &["services", "remove", "odd"]);
    let said = String::from_utf8_lossy(&remove.stderr);
    assert!(said.contains("changing what is registered at another agent is not supported"), "{said}");
    assert!(raxsr(&place, &third.url(), &["services", "remove", "odd"]).status.success());
    third.kill();
    wait_until("the death of a node", || listed(&place, &server.url(), &[]) == ["web1 first", "web1 second"]);
}

#[test]
fn a_thousand_services_are_listed_page_by_page_with_few_requests() {
    let settings = json!({"log_level": "DEBUG"});
    let Some(consul) = Consul::with("a_thousand_services_are_listed_page_by_page", &settings) else { return };
    let other = consul.joined_by("n2");
    for number in 0..1000 {
        let consul = if number % 2 == 0 { &consul } else { &other };
        let service = json!({
            "ID": format!("web{number:04}"), "Name": format!("web{number:04}"), "Meta": {"number": number.to_string()},
        });
        consul.tell("/v1/agent/service/register", &service);
    }
    let place = Place::new();
    let requests = || consul.log().matches("Request finished: method=GET").count();
    wait_until("the catalog", || listed(&place, &consul.url(), &["--all"]).len() == 1000);
    let before = requests();
    let pages = ["web0000", "web0400", "web0800"].map(|first| format!("--marker={first}"));
    let pages = pages.each_ref().map(|marker| listed(&place, &consul.url(), &["--limit=400", marker]));
    let asked = requests() - before;
    assert!(asked <= 3 * 7, "{asked} requests");
    assert_eq!(pages.each_ref().map(Vec::len), [400, 400, 200]);
    let all = pages.concat();
    assert!(all.is_sorted() && all.iter().collect::<BTreeSet<_>>().len() == 1000);
}

#[test]
fn a_service_in_maintenance_is_hidden_and_not_lost() {
    let Some(consul) = Consul::start("a_service_in_maintenance_is_hidden_and_not_lost") else { return };
    let place = Place::new();
    let (mut wrapper, log) = wrapper_at(&place, &consul.url(), "log", &["--port=80"]);
    wait_until("the registration", || lists(&place, &consul));
    let before = consul.meta("web1");
    let maintenance = |enable: bool| {
        let path = format!("/v1/agent/service/maintenance/web1?enable={enable}&reason=work");
        consul.ask("PUT", &path).is(200);
    };
    maintenance(true);
    assert!(!lists(&place, &consul));
    assert_eq!(raxsr(&place, &consul.url(), &["services", "get", "web1"]).status.code(), Some(3));
    holds_for(3 * INTERVAL, "the maintenance", || !lists(&place, &consul) && consul.meta("web1") == before);
    assert!(!says(&log, "registered again"));
    // Somebody else does not get the id for it.
    let (mut second, second_log) = wrapper_at(&place, &consul.url(), "log2", &["--port=80"]);
    wait_until("the conflict", || says(&second_log, "waiting until the id is free"));
    // Its heir is in maintenance, too.
    wrapper.signal(Signal::SIGKILL);
    wrapper.wait();
    wait_until("the heir", || says(&second_log, "registered") && consul.meta("web1") != before);
    assert!(!lists(&place, &consul));
    maintenance(false);
    wait_until("the end of maintenance", || lists(&place, &consul));
    second.signal(Signal::SIGTERM);
    second.wait();
    assert!(consul.meta("web1").is_null());
}

#[test]
fn what_consumers_will_miss_is_said_once() {
    let Some(mut consul) = Consul::start("what_consumers_will_miss_is_said_once") else { return };
    let place = Place::new();
    let (_wrapper, log) = wrapper_at(&place, &consul.url(), "log", &[]);
    wait_until("the registration", || says(&log, "registered"));
    consul.kill();
    consul.restart_empty();
    wait_until("the registration again", || says(&log, "registered again"));
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("it gives no port").count(), 1, "{said}");
    assert!(!said.contains("no address"), "{said}");
}

#[test]
fn an_agent_elsewhere_is_told_where_this_machine_is() {
    let Some(consul) = Consul::start("an_agent_elsewhere_is_told_where_this_machine_is") else { return };
    let place = Place::new();
    // It leads to this machine, but not by an address that has to.
    let url = format!("consul://{MASTER}@0.0.0.0:{}", consul.address().port());
    for (log, address, expected) in [
        ("with", &["--port=80", "--address=192.0.2.1"][..], "192.0.2.1"),
        ("without", &["--port=80"], "127.0.0.1"),
    ] {
        let (mut wrapper, log) = wrapper_at(&place, &url, log, address);
        wait_until("the registration", || says(&log, "registered service=web1"));
        assert_eq!(consul.ask("GET", "/v1/agent/service/web1").is(200).json()["Address"], expected);
        assert!(!says(&log, "it gives no address"));
        assert!(says(&log, "can be read on the way: use consul+https://") && !says(&log, MASTER));
        wrapper.signal(Signal::SIGTERM);
        wrapper.wait();
    }
}

#[test]
fn an_empty_list_is_doubted_where_a_token_may_be_missing() {
    let Some(consul) = Consul::denying("an_empty_list_is_doubted_where_a_token_may_be_missing") else {
        return;
    };
    let place = Place::new();
    let list = |url: &str| {
        let output = raxsr(&place, url, &["services", "list"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(list(&consul.url()).contains("may show nothing without a token"));
    consul.tell("/v1/agent/service/register", &json!({"ID": "web1", "Name": "web1"}));
    assert!(list(&consul.url_with_token(MASTER)).is_empty());
    let doctor = raxsr(&place, &consul.url(), &["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        told.contains("fail  writable") && told.contains("hint: check the token: CONSUL_HTTP_TOKEN"),
        "{told}"
    );
    let Some(open) = Consul::start("an_empty_list_is_doubted_where_a_token_may_be_missing") else { return };
    assert!(list(&open.url()).is_empty());
}

/// Only later ones than the Consul of this suite tell.
#[test]
fn a_list_with_something_left_out_is_told_of() {
    let peer = Peer::start(|asked| {
        let body = match asked.path.split('?').next().unwrap() {
            "/v1/agent/self" => json!({"Config": {"Datacenter": "dc1", "NodeName": "n1"}}),
            "/v1/agent/services" => json!({"web1": {"ID": "web1", "Service": "web1"}}),
            "/v1/catalog/nodes" => json!([]),
            _ => json!({}),
        };
        Reply::With(200, "X-Consul-Results-Filtered-By-ACLs", "true".to_owned(), body)
    });
    let url = peer.url().replace("http://", "consul://").replace("/v1.0", "");
    let output = raxsr(&Place::new(), &url, &["services", "list"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("leaves out what this token may not read"), "{said}");
}
