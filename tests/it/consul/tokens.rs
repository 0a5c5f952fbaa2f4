//! Tokens that change while a service is registered with them.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{INTERVAL, wrapper_at};
use crate::support::consul::Consul;
use crate::support::{Place, Running, holds_for, says, wait_until};

/// A token that may register services, with its accessor.
fn token(consul: &Consul, service: &str) -> (String, String) {
    let policy = json!({
        "Name": format!("{service}-{}", uuid::Uuid::new_v4()),
        "Rules": format!("service \"{service}\" {{ policy = \"write\" }} node_prefix \"\" {{ policy = \"read\" }}"),
    });
    let policy = consul.tell("/v1/acl/policy", &policy).json()["ID"].clone();
    let token = consul.tell("/v1/acl/token", &json!({"Policies": [{"ID": policy}]})).json();
    let text = |key: &str| token[key].as_str().unwrap().to_owned();
    (text("SecretID"), text("AccessorID"))
}

fn revoke(consul: &Consul, accessor: &str) {
    consul.ask("DELETE", &format!("/v1/acl/token/{accessor}")).is(200);
}

/// A wrapper with a token in a file, which has been registered.
fn registered(place: &Place, consul: &Consul, token: &str) -> (Running, PathBuf, PathBuf) {
    let file = place.path().join("token");
    fs::write(&file, token).unwrap();
    let options = ["--name=web1", "--port=80", "--api-key-file", file.to_str().unwrap()];
    let (wrapper, log) = wrapper_at(place, &consul.url(), "log", &options);
    wait_until("the registration", || consul.passing("web1") == 1);
    (wrapper, log, file)
}

#[test]
fn a_new_token_in_the_file_takes_over_the_registration_without_a_gap() {
    let Some(consul) = Consul::denying("a_new_token_in_the_file_takes_over_the_registration") else { return };
    let place = Place::new();
    let ((first, accessor), (second, _)) = (token(&consul, "web1"), token(&consul, "web1"));
    let (mut wrapper, log, file) = registered(&place, &consul, &first);
    fs::write(&file, &second).unwrap();
    wait_until("the new token", || says(&log, "registered with the new token"));
    revoke(&consul, &accessor);
    holds_for(2 * INTERVAL, "the service", || consul.passing("web1") == 1);
    // The agent tells the catalog of a change with the token that the service was registered with.
    wrapper.signal(Signal::SIGSTOP);
    wait_until("the catalog to see it critical", || consul.passing("web1") == 0);
    wrapper.signal(Signal::SIGCONT);
    wait_until("the catalog to see it back", || consul.passing("web1") == 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    wait_until("the catalog to lose it", || {
        consul.ask("GET", "/v1/catalog/service/web1").json() == json!([])
    });
    let said = fs::read_to_string(&log).unwrap();
    assert!(!said.contains(&first) && !said.contains(&second), "{said}");
}

#[test]
fn a_token_that_is_revoked_first_is_followed_by_the_one_in_the_file() {
    let Some(consul) = Consul::denying("a_token_that_is_revoked_first_is_followed") else { return };
    let place = Place::new();
    let ((first, accessor), (second, _)) = (token(&consul, "web1"), token(&consul, "web1"));
    let (mut wrapper, log, file) = registered(&place, &consul, &first);
    revoke(&consul, &accessor);
    wait_until("the outage", || says(&log, "cannot renew the registration"));
    fs::write(&file, &second).unwrap();
    wait_until("the registration", || says(&log, "renewed the registration again"));
    wait_until("the catalog", || consul.passing("web1") == 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    wait_until("the catalog to lose it", || {
        consul.ask("GET", "/v1/catalog/service/web1").json() == json!([])
    });
}

#[test]
fn a_new_token_that_is_refused_or_missing_leaves_the_old_one_in_use() {
    let Some(consul) = Consul::denying("a_new_token_that_is_refused_leaves_the_old_one_in_use") else {
        return;
    };
    let place = Place::new();
    let ((first, _), (other, _)) = (token(&consul, "web1"), token(&consul, "other"));
    let (mut wrapper, log, file) = registered(&place, &consul, &first);
    fs::write(&file, &other).unwrap();
    wait_until("a word about it", || says(&log, "the new token in the token's file is refused"));
    holds_for(2 * INTERVAL, "the service", || consul.passing("web1") == 1);
    fs::write(&file, "").unwrap();
    holds_for(INTERVAL, "the service", || consul.passing("web1") == 1);
    fs::remove_file(&file).unwrap();
    holds_for(INTERVAL, "the service", || consul.passing("web1") == 1);
    assert_eq!(fs::read_to_string(&log).unwrap().matches("is refused").count(), 1);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
}
