//! A server that is killed under load: what it said is done stays done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{Api, at_once, event, path_of, service, token};
use crate::support::server::{Connection, Request, Response, Server};
use crate::support::{Place, wait_until};

const WORKERS: usize = 4;

/// What a worker was told is done.
#[derive(Default)]
struct Done {
    /// Ids and tokens.
    services: Vec<(String, String)>,
    /// Ids of configuration values that were set once.
    values: Vec<String>,
    /// What the worker's own value was last set to.
    counter: usize,
}

impl Done {
    /// Works until the server is gone.
    fn until_the_end(api: &Api, name: &str, count: &AtomicUsize) -> Self {
        let mut done = Self::default();
        let mut connection = Connection::open(api.address);
        let mut ask = |method: &str, path: &str, body: &Value, status: u16| -> Option<Response> {
            let answer = connection.try_exchange(&api.request(method, path).json(body)).ok()?.is(status);
            count.fetch_add(1, Ordering::SeqCst);
            Some(answer)
        };
        for number in 1.. {
            let id = format!("{name}-{number}");
            let Some(created) = ask("POST", "/services", &service(&id, 120), 201) else { break };
            done.services.push((id.clone(), token(&created)));
            let value = json!({"value": number.to_string()});
            let Some(_) = ask("PUT", &format!("/configuration/{id}"), &value, 204) else { break };
            done.values.push(id);
            let Some(_) = ask("PUT", &format!("/configuration/{name}"), &value, 204) else { break };
            done.counter = number;
        }
        done
    }
}

/// A whole list, page by page.
#[track_caller]
fn all(server: &Server, api: &Api, path: &str) -> Vec<Value> {
    let mut values = Vec::new();
    let mut next = Some(format!("{}{path}?limit=1000", api.base));
    while let Some(target) = next {
        let list = Request::new("GET", &target).send(api.address).is(200).json();
        values.extend(list["values"].as_array().unwrap().iter().cloned());
        next = list["metadata"]["next_href"].as_str().map(|url| path_of(server, url));
    }
    values
}

/// Asserts that the server has all that was done, that everything it has came about by an event, and that nobody died.
fn has_all(server: &Server, api: &Api, done: &mut BTreeMap<String, Done>) {
    let mut events: BTreeMap<String, usize> = BTreeMap::new();
    let mut last_set: BTreeMap<String, Value> = BTreeMap::new();
    for one in all(server, api, "/events") {
        *events.entry(event(&one)).or_default() += 1;
        if let Some(id) = one["payload"]["configuration_value_id"].as_str() {
            last_set.insert(id.to_owned(), one["payload"]["new_value"].clone());
        }
    }
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    let services: Vec<String> = all(server, api, "/services").iter().map(id).collect();
    let values: BTreeMap<String, Value> =
        all(server, api, "/configuration").iter().map(|item| (id(item), item["value"].clone())).collect();
    assert_eq!(values, last_set);
    for id in &services {
        assert_eq!(events.remove(&format!("service.join {id}")), Some(1), "{id}");
    }
    for id in values.keys() {
        events.remove(&format!("configuration_value.update {id}"));
    }
    assert!(events.is_empty(), "{events:?}");

    let mut connection = server.connect();
    for (name, done) in &mut *done {
        for (id, current) in &mut done.services {
            assert!(services.contains(id), "{id} was registered");
            let heartbeat = api.request("POST", &format!("/services/{id}/heartbeat"));
            *current = token(&connection.exchange(&heartbeat.json(&json!({"token": current}))).is(200));
        }
        for id in &done.values {
            assert!(values.contains_key(id), "{id} was set");
        }
        let counter: usize = values.get(name).map_or(0, |value| value.as_str().unwrap().parse().unwrap());
        // It may have heard one more, and not come to say so.
        assert!([done.counter, done.counter + 1].contains(&counter), "{name}: {counter}, {}", done.counter);
    }
    let most = done.values().map(|done| done.services.len()).sum::<usize>() + done.len();
    assert!(services.len() <= most, "{} services, at most {most} were asked for", services.len());
}

#[test]
fn what_was_acknowledged_outlives_a_kill_under_load() {
    let options = ["--max-services=1000000", "--max-configuration-values=1000000"];
    let mut server = Server::start(Place::new(), &options);
    let api = Api::new(&server, "/v1.0/7777");
    let mut done = BTreeMap::new();
    for round in 0..3 {
        let count = AtomicUsize::new(0);
        let workers = std::thread::scope(|scope| {
            let (api, count) = (&api, &count);
            let workers = scope.spawn(move || {
                at_once(WORKERS, |worker| {
                    let name = format!("round{round}-{worker}");
                    let done = Done::until_the_end(api, &name, count);
                    (name, done)
                })
            });
            wait_until("some work to be done", || count.load(Ordering::SeqCst) > 300);
            server.kill();
            workers.join().unwrap()
        });
        for (name, worker) in &workers {
            assert!(!worker.services.is_empty(), "{name} has done something");
        }
        server.restart();
        done.extend(workers);
        has_all(&server, &api, &mut done);
    }
}
