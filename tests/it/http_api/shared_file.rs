//! The file under a server stays everybody's: wrappers and `raxsr` beside it read and change it.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Api, open, token};
use crate::support::server::Server;
use crate::support::{RAXSR, Running, holds_for, wait_until};

/// The server looks into the file twice a second.
fn wait_until_refused(api: &Api, id: &str, mut current: String) {
    wait_until("the 404", || {
        let answer = api.heartbeat(id, &current);
        if answer.status == 200 {
            current = token(&answer);
        }
        answer.status == 404
    });
}

#[test]
fn wrappers_on_the_file_and_clients_of_the_server_see_each_other() {
    let (server, api) = open();
    let mut wrapper = server.place.wrapper(&["--id=beside", "--interval=3"]).start(&["sleep", "600"]);
    wait_until("the registration", || api.ids("/services") == ["beside"]);
    api.create("through", 120);
    assert_eq!(server.place.services(), ["beside", "through"]);
    api.post("/services", &super::service("beside", 30)).fault(400, "serviceWithThisIdExists");
    // Longer than its timeout twice over.
    holds_for(Duration::from_secs(7), "being listed", || api.ids("/services").len() == 2);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert_eq!(api.ids("/services"), ["through"]);
    assert_eq!(api.events(), ["service.join beside", "service.join through", "service.remove beside"]);
}

#[test]
fn a_service_that_is_removed_from_the_file_cannot_be_renewed() {
    let (server, api) = open();
    let current = api.create("web1", 120);
    assert!(server.place.raxsr(&["services", "remove", "web1"]).status.success());
    wait_until_refused(&api, "web1", current);
    api.create("web1", 120);
    assert_eq!(api.events(), ["service.join web1", "service.remove web1", "service.join web1"]);
}

#[test]
fn a_service_of_the_server_can_be_taken_over_on_the_file() {
    let (server, api) = open();
    let theirs = api.create("twin", 120);
    let _wrapper = server.place.wrapper(&["--id=twin", "--on-conflict=replace"]).start(&["sleep", "600"]);
    wait_until("the takeover", || api.events().len() == 3);
    wait_until_refused(&api, "twin", theirs);
    assert_eq!(api.ids("/services"), ["twin"]);
}

#[test]
fn nobody_is_dead_because_the_server_was_away() {
    let (mut server, api) = open();
    let mut current = api.create("web1", 3);
    server.signal(Signal::SIGSTOP);
    holds_for(Duration::from_secs(5), "its place in the file", || server.place.lists("web1"));
    server.signal(Signal::SIGCONT);
    current = token(&api.heartbeat("web1", &current).is(200));
    server.kill();
    holds_for(Duration::from_secs(5), "its place in the file", || server.place.lists("web1"));
    server.restart();
    assert_eq!(api.ids("/services"), ["web1"]);
    api.heartbeat("web1", &current).is(200);
    wait_until("its death of silence", || api.ids("/services").is_empty());
    assert_eq!(api.events(), ["service.join web1", "service.timeout web1"]);
}

#[test]
fn when_a_service_was_seen_outlives_a_planned_end() {
    let (mut server, api) = open();
    let first = api.create("web1", 120);
    api.heartbeat("web1", &first).is(200);
    let seen = api.get("/services/web1").json()["last_seen"].clone();
    assert!(seen.is_u64(), "{seen}");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(server.place.raxsr_json(&["services", "get", "web1"])["last_seen"].is_string());
    server.restart();
    assert_eq!(api.get("/services/web1").json()["last_seen"], seen);
}

#[test]
fn a_file_has_one_server() {
    let (server, api) = open();
    let mut command = server.place.program(RAXSR);
    command.args(["serve", "--listen=127.0.0.1:0"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut second = Running::start(&mut command);
    assert_eq!(second.wait().code(), Some(1));
    let said = second.stderr();
    assert!(said.contains("another server has it (pid ") && said.contains("hint: "), "{said}");
    api.create("web1", 120);
}

#[test]
fn a_file_that_was_deleted_is_made_again() {
    let (server, api) = open();
    let gone = api.create("web1", 120);
    fs::remove_file(server.place.registry_file()).unwrap();
    let _ = fs::remove_file(server.place.registry_file().with_extension("db-wal"));
    let _ = fs::remove_file(server.place.registry_file().with_extension("db-shm"));
    api.create("web2", 120);
    assert_eq!(api.ids("/services"), ["web2"]);
    api.heartbeat("web1", &gone).fault(404, "notFoundError");
    assert_eq!(server.place.services(), ["web2"]);
}

#[test]
fn accounts_have_files_of_their_own() {
    let server = Server::with_accounts(super::ACCOUNTS, &[]);
    let alice: Api = super::login(&server, "alice");
    alice.post("/services", &json!({"id": "hers", "heartbeat_timeout": 120})).is(201);
    let file = server.place.registry_file().with_file_name("registry-7777.db");
    let url = format!("--registry=sqlite://{}", file.display());
    let list = server.place.raxsr_json(&["services", "list", &url]);
    assert_eq!(super::ids(&list), ["hers"]);
    assert!(server.place.services().is_empty());
}
