//! Logins, tenants, and what is kept from whom.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{ACCOUNTS, Api, log_in, login, path_of, service};
use crate::support::server::{Request, Response, Server};
use crate::support::wait_until;

const NO_TOKEN: &str = "No authentication token provided";
const BAD_TOKEN: &str = "Invalid or expired authentication token";

fn with_accounts() -> Server {
    Server::with_accounts(ACCOUNTS, &[])
}

fn post(server: &Server, path: &str, body: &Value) -> Response {
    Request::new("POST", path).json(body).send(server.address())
}

#[track_caller]
fn is_unauthorized(response: &Response, details: &str) {
    response.fault(401, "unauthorizedError").message("forbidden").details(details);
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Keystone uri=\"http") && challenge.ends_with('"'), "{challenge}");
}

/// Asserts that an answer to a login has all that any of the clients looks at.
#[track_caller]
fn is_access(server: &Server, response: &Response, tenant: Option<&str>) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.header("content-length").is_some());
    let json = response.json();
    let access = &json["access"];
    // Twisted and Java: the token's tenant, in digits.
    let id = access["token"]["tenant"]["id"].as_str().unwrap();
    assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(tenant.unwrap_or(id), id);
    assert_eq!(access["token"]["tenant"]["name"], id);
    assert!(access["token"]["id"].as_str().is_some_and(|token| token.len() >= 16), "{json}");
    // Java: 2030-01-01T00:00:00.000-05:00, whose offset has one digit of hours and is no `Z`.
    let expires = access["token"]["expires"].as_str().unwrap();
    let shape: String = expires.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999-99:99");
    assert_eq!((&expires[23..25], &expires[26..]), ("-0", ":00"), "{expires}");
    assert!(humantime::parse_rfc3339(&format!("{}Z", &expires[..23])).is_ok(), "{expires}");
    let catalog = access["serviceCatalog"].as_array().unwrap();
    let entry = |name: &str| {
        let named: Vec<_> = catalog.iter().filter(|entry| entry["name"] == name).collect();
        assert_eq!(named.len(), 1, "{name}: {json}");
        let endpoints = named[0]["endpoints"].as_array().unwrap();
        assert!(!endpoints.is_empty());
        (named[0], endpoints.clone())
    };
    // Node and Python: one endpoint without a region, of this tenant.
    let (compute, endpoints) = entry("cloudServers");
    assert_eq!((&compute["type"], endpoints.len()), (&json!("compute"), 1), "{json}");
    assert_eq!((endpoints[0].get("region"), &endpoints[0]["tenantId"]), (None, &json!(id)));
    assert_eq!(catalog.iter().filter(|entry| entry["type"] == "compute").count(), 1, "{json}");
    let url = path_of(server, endpoints[0]["publicURL"].as_str().unwrap());
    assert_eq!(url, format!("/v1.0/{id}"));
    // Ruby.
    let (_, endpoints) = entry("cloudMonitoring");
    assert!(endpoints[0]["publicURL"].as_str().unwrap().ends_with(&format!("/{id}")), "{json}");
    assert!(access["user"]["id"].is_string() && access["user"]["name"].is_string(), "{json}");
    assert!(access["user"]["roles"].is_array(), "{json}");
}

#[test]
fn a_login_has_what_every_client_looks_at() {
    let (closed, open) = (with_accounts(), Server::open());
    for path in ["/v2.0/tokens", "/v2.0/tokens/"] {
        for (username, key, tenant) in [("alice", "alice-key", "7777"), ("bob", "bob-key", "8888")] {
            for credentials in [
                json!({"RAX-KSKEY:apiKeyCredentials": {"username": username, "apiKey": key}}),
                json!({"passwordCredentials": {"username": username, "password": key}}),
            ] {
                is_access(&closed, &post(&closed, path, &json!({"auth": credentials})), Some(tenant));
                is_access(&open, &post(&open, path, &json!({"auth": credentials})), None);
            }
        }
    }
    // Twisted says no content type.
    let body = json!({"auth": {"RAX-KSKEY:apiKeyCredentials": {"username": "alice", "apiKey": "alice-key"}}});
    let response = Request::new("POST", "/v2.0/tokens").body(body.to_string()).send(closed.address());
    is_access(&closed, &response, Some("7777"));
}

#[test]
fn a_token_is_validated_for_its_own_tenant() {
    let server = with_accounts();
    let token = log_in(&server, "alice", "alice-key").json()["access"]["token"]["id"].clone();
    let validate = |tenant: &str, token: &Value| {
        post(&server, "/v2.0/tokens", &json!({"auth": {"tenantName": tenant, "token": {"id": token}}}))
    };
    is_access(&server, &validate("7777", &token), Some("7777"));
    validate("8888", &token).is(401);
    validate("7777", &json!("nonsense")).is(401);
}

#[test]
fn a_refused_login_does_not_tell_what_was_wrong() {
    let server = with_accounts();
    let mut bodies = Vec::new();
    for (username, key) in [
        ("alice", "bob-key"),
        ("nobody", "alice-key"),
        ("alice", ""),
        ("", ""),
        ("ALICE", "alice-key"),
        ("bob", "alice-key"),
    ] {
        let response = log_in(&server, username, key).is(401);
        let mut body = response.json();
        assert_eq!(body["unauthorized"]["code"], 401, "{body}");
        body["unauthorized"].as_object_mut().unwrap().retain(|key, _| key != "txnId");
        bodies.push(body);
    }
    // What the file has instead of a key is no key.
    log_in(&server, "bob", "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98").is(401);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
}

#[test]
fn a_login_that_makes_no_sense_is_malformed() {
    for server in [with_accounts(), Server::open()] {
        for body in [
            "{",
            "",
            "null",
            "{}",
            "[]",
            r#"{"auth": 5}"#,
            r#"{"auth": {}}"#,
            r#"{"auth": {"RAX-KSKEY:apiKeyCredentials": {"username": "alice"}}}"#,
            r#"{"auth": {"RAX-KSKEY:apiKeyCredentials": {"username": "alice", "apiKey": 5}}}"#,
            r#"{"auth": {"passwordCredentials": {"password": "x"}}}"#,
            r#"{"auth": {"token": {}}}"#,
        ] {
            let request = Request::new("POST", "/v2.0/tokens").header("Content-Type", "application/json");
            request.body(body).send(server.address()).is(400);
        }
    }
}

#[test]
fn nothing_below_the_api_is_told_without_a_login() {
    let server = with_accounts();
    let api = Api::new(&server, "");
    for (method, path) in [
        ("GET", "/v1.0/7777/services"),
        ("GET", "/v1.0/services"),
        ("GET", "/v1.0/limits"),
        ("GET", "/v1.0/7777/events"),
        ("GET", "/v1.0/7777/configuration"),
        ("DELETE", "/v1.0/7777/services/web1"),
        ("PUT", "/v1.0/7777/configuration/key"),
        ("GET", "/v1.0/7777/nonsense"),
        ("GET", "/v1.0/nonsense"),
        ("PATCH", "/v1.0/7777/services"),
        ("OPTIONS", "/v1.0/7777/services"),
    ] {
        is_unauthorized(&api.request(method, path).send(api.address), NO_TOKEN);
        for token in ["nonsense", &Uuid::new_v4().to_string(), "alice-key", "a b"] {
            is_unauthorized(
                &api.with("X-Auth-Token", token).request(method, path).send(api.address),
                BAD_TOKEN,
            );
        }
    }
    // An empty token is a missing or a bad one.
    api.with("X-Auth-Token", "").get("/v1.0/services").fault(401, "unauthorizedError");
    // The login comes before everything else.
    is_unauthorized(&api.post("/v1.0/7777/services", &json!({})), NO_TOKEN);
    let response = api.request("GET", "/v1.0/7777/services?limit=0").send(api.address);
    is_unauthorized(&response, NO_TOKEN);
    api.get("/health").is(200);
}

#[test]
fn a_login_counts_in_every_form_it_may_have() {
    let server = with_accounts();
    let alice = login(&server, "alice");
    let token = alice.headers[0].1.clone();
    let api = Api::new(&server, "/v1.0/7777");
    api.with("x-auth-token", &token).get("/services").is(200);
    api.with("X-AUTH-TOKEN", &token).get("/services").is(200);
    api.get(&format!("/services?x-auth-token={token}")).is(200);
    api.with("Authorization", &format!("Bearer {token}")).get("/services").is(200);
    api.with("Authorization", "Basic YWxpY2U6YWxpY2Uta2V5").get("/services").is(200);
    let wrong_key = "Basic YWxpY2U6Ym9iLWtleQ==";
    let other_account = "Basic Ym9iOmJvYi1rZXk=";
    for authorization in [wrong_key, other_account, "Basic !", "Basic", "Bearer nonsense", "Bearer "] {
        api.with("Authorization", authorization).get("/services").fault(401, "unauthorizedError");
    }
    api.get("/services?x-auth-token=nonsense").fault(401, "unauthorizedError").details(BAD_TOKEN);
}

#[test]
fn the_tenant_is_the_header_then_the_path_then_the_login() {
    let server = with_accounts();
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    for (api, path, header, tenant) in [
        (&alice, "/v1.0/7777", None, Some("7777")),
        (&alice, "/v1.0", None, Some("7777")),
        (&alice, "/v1.0", Some("7777"), Some("7777")),
        (&alice, "/v1.0/7777", Some("7777"), Some("7777")),
        (&alice, "/v1.0/8888", Some("7777"), Some("7777")),
        (&alice, "/v1.0/8888", None, None),
        (&alice, "/v1.0/7777", Some("8888"), None),
        (&alice, "/v1.0", Some("8888"), None),
        (&alice, "/v1.0/1234", None, None),
        (&bob, "/v1.0/7777", None, None),
        (&bob, "/v1.0/8888", None, Some("8888")),
    ] {
        let mut api = api.clone();
        path.clone_into(&mut api.base);
        if let Some(header) = header {
            api = api.with("X-Tenant-Id", header);
        }
        let response = api.put("/configuration/key", &json!({"value": "v"}));
        if let Some(tenant) = tenant {
            let location = path_of(&server, response.is(204).header("location").unwrap());
            assert_eq!(location, format!("/v1.0/{tenant}/configuration/key"), "{path} {header:?}");
            api.get("/configuration/key").is(200);
        } else {
            is_unauthorized(&response, BAD_TOKEN);
        }
    }
}

#[test]
fn what_one_account_has_another_does_not_see() {
    let server = with_accounts();
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    let token = alice.create("web1", 120);
    alice.set("/prod/key", "alice's");
    alice.create("web2", 120);
    for path in ["/services", "/configuration", "/configuration/prod/", "/events", "/services?tag=www"] {
        assert!(bob.ids(path).is_empty(), "{path}");
    }
    for response in [
        bob.get("/services/web1"),
        bob.put("/services/web1", &json!({"tags": ["bob"]})),
        bob.delete("/services/web1"),
        bob.heartbeat("web1", &token),
        bob.get("/configuration//prod/key"),
        bob.delete("/configuration//prod/key"),
    ] {
        response.fault(404, "notFoundError");
    }
    // The same ids may be used by both.
    let bobs = bob.create("web1", 30);
    bob.set("/prod/key", "bob's");
    bob.heartbeat("web1", &token).fault(404, "notFoundError");
    alice.heartbeat("web1", &bobs).fault(404, "notFoundError");
    bob.delete("/services/web1").is(204);
    assert_eq!(alice.get("/services/web1").is(200).json()["heartbeat_timeout"], 120);
    assert_eq!(alice.get("/configuration//prod/key").json()["value"], "alice's");
    assert_eq!(
        bob.events(),
        ["service.join web1", "configuration_value.update /prod/key", "service.remove web1"]
    );
    assert_eq!(
        alice.events(),
        ["service.join web1", "configuration_value.update /prod/key", "service.join web2"]
    );
    alice.heartbeat("web1", &token).is(200);
}

#[test]
fn a_marker_before_the_account_began_is_refused_even_if_another_had_begun() {
    let server = with_accounts();
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    alice.create("web1", 120);
    let marker = alice.ids("/events").remove(0);
    bob.create("web1", 120);
    let response = bob.get(&format!("/events?marker={marker}"));
    // Where accounts begin with the file that names them, there is nothing to refuse, and nothing to see.
    if response.status == 200 {
        assert_eq!(super::ids(&response.json()).len(), 1);
    } else {
        response.fault(400, "badRequest").says("account creation date");
    }
}

#[test]
fn a_token_expires_and_its_owner_logs_in_again() {
    let server = Server::with_accounts(ACCOUNTS, &["--token-lifetime", "1s"]);
    let mut alice = login(&server, "alice");
    wait_until("the token's end", || alice.get("/services").has_one_of(&[200, 401]).status == 401);
    is_unauthorized(&alice.get("/services"), BAD_TOKEN);
    wait_until("a request that is in time", || {
        alice = login(&server, "alice");
        alice.post("/services", &service("web1", 120)).has_one_of(&[201, 401]).status == 201
    });
    let long = with_accounts();
    let alice = login(&long, "alice");
    login(&long, "alice");
    // Another login does not end the first.
    alice.get("/services").is(200);
}

#[test]
fn without_accounts_every_token_and_every_tenant_will_do() {
    let server = Server::open();
    Api::new(&server, "/v1.0/7777").create("web1", 120);
    for (base, tenant) in [("/v1.0/7777", "7777"), ("/v1.0/1", "1"), ("/v1.0", "0")] {
        let api = Api::new(&server, base);
        for api in [api.with("X-Auth-Token", "nonsense"), api] {
            assert_eq!(api.ids("/services"), ["web1"]);
            let response = api.put("/services/web1", &json!({})).is(204);
            let location = path_of(&server, response.header("location").unwrap());
            assert_eq!(location, format!("/v1.0/{tenant}/services/web1"));
        }
    }
}
