//! The Service Registry HTTP API as its clients have always known it, asked of `raxsr serve` over the wire.

mod chaos;
mod configuration;
mod events;
mod faults;
mod heartbeats;
mod identity;
mod killed;
mod limits;
mod operations;
mod over_etcd;
mod pagination;
mod paths;
mod prometheus;
mod robustness;
mod services;
mod shared_file;
mod startup;
mod wrapped;

use std::net::SocketAddr;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::server::{Connection, Request, Response, Server};

/// Two accounts, one whose key the file does not tell.
const ACCOUNTS: &str = r#"
[[account]]
username = "alice"
api_key = "alice-key"
tenant = "7777"

[[account]]
username = "bob"
api_key_sha256 = "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98"
tenant = "8888"
"#;

/// One client of a server: where it asks, and what it says with each request.
#[derive(Clone)]
struct Api {
    address: SocketAddr,
    base: String,
    headers: Vec<(&'static str, String)>,
}

impl Api {
    fn new(server: &Server, base: &str) -> Self {
        Self { address: server.address(), base: base.to_owned(), headers: Vec::new() }
    }

    /// One that says this header, too.
    fn with(&self, name: &'static str, value: &str) -> Self {
        let mut api = self.clone();
        api.headers.push((name, value.to_owned()));
        api
    }

    fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(method, &format!("{}{path}", self.base));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Response {
        self.request("GET", path).send(self.address)
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path).json(body).send(self.address)
    }

    #[track_caller]
    fn put(&self, path: &str, body: &Value) -> Response {
        self.request("PUT", path).json(body).send(self.address)
    }

    #[track_caller]
    fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send(self.address)
    }

    /// Registers a service, and returns its token.
    #[track_caller]
    fn create(&self, id: &str, heartbeat_timeout: u8) -> String {
        token(&self.post("/services", &service(id, heartbeat_timeout)).is(201))
    }

    #[track_caller]
    fn heartbeat(&self, id: &str, token: &str) -> Response {
        self.post(&format!("/services/{id}/heartbeat"), &json!({"token": token}))
    }

    /// Sets a configuration value.
    #[track_caller]
    fn set(&self, id: &str, value: &str) {
        self.put(&format!("/configuration/{id}"), &json!({"value": value})).is(204);
    }

    /// The ids of a list, in order.
    #[track_caller]
    fn ids(&self, path: &str) -> Vec<String> {
        ids(&self.get(path).is(200).json())
    }

    /// What happened, as `service.join web1`.
    #[track_caller]
    fn events(&self) -> Vec<String> {
        let list = self.get("/events?limit=1000").is(200).json();
        list["values"].as_array().unwrap().iter().map(event).collect()
    }
}

/// A server that lets everybody in, and a client of it.
fn open() -> (Server, Api) {
    let server = Server::open();
    let api = Api::new(&server, "/v1.0/7777");
    (server, api)
}

/// A client that has logged in.
#[track_caller]
fn login(server: &Server, username: &str) -> Api {
    let access = log_in(server, username, &format!("{username}-key")).is(200).json();
    let token = access["access"]["token"]["id"].as_str().unwrap();
    let tenant = access["access"]["token"]["tenant"]["id"].as_str().unwrap();
    Api::new(server, &format!("/v1.0/{tenant}")).with("X-Auth-Token", token)
}

fn log_in(server: &Server, username: &str, api_key: &str) -> Response {
    let credentials = json!({"username": username, "apiKey": api_key});
    let body = json!({"auth": {"RAX-KSKEY:apiKeyCredentials": credentials}});
    Request::new("POST", "/v2.0/tokens").json(&body).send(server.address())
}

/// The least that registers a service.
fn service(id: &str, heartbeat_timeout: u8) -> Value {
    json!({"id": id, "heartbeat_timeout": heartbeat_timeout})
}

/// The token of an answer that has nothing else.
#[track_caller]
fn token(response: &Response) -> String {
    let json = response.json();
    assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
    let token = json["token"].as_str().unwrap();
    assert_eq!(Uuid::parse_str(token).unwrap().get_version_num(), 1, "{token}");
    token.to_owned()
}

#[track_caller]
fn ids(list: &Value) -> Vec<String> {
    list["values"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn event(event: &Value) -> String {
    let payload = &event["payload"];
    let subject = payload["id"].as_str().or(payload["configuration_value_id"].as_str()).unwrap();
    format!("{} {subject}", event["type"].as_str().unwrap())
}

/// The path and query of a URL of this server.
#[track_caller]
fn path_of(server: &Server, url: &str) -> String {
    let path = url.strip_prefix(&server.url());
    path.unwrap_or_else(|| panic!("{url} is not below {}", server.url())).to_owned()
}

/// Runs `what` so many times at once, each with its number, and returns what they returned.
fn at_once<T: Send>(times: usize, what: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..times)
            .map(|number| {
                scope.spawn({
                    let what = &what;
                    move || what(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Asserts that the server still serves.
#[track_caller]
fn is_well(server: &Server) {
    let mut connection: Connection = server.connect();
    connection.exchange(&Request::new("GET", "/health")).is(200);
}
