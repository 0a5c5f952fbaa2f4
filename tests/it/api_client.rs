//! The client of the Service Registry HTTP API, against a server that says what is worst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use service_registry_wrapper::message::{Hint, chain};
use service_registry_wrapper::model::{
    ConfigurationValue, HeartbeatTimeout, InstanceId, Limit, MarkerFault, Metadata, PageRequest,
    Registration, ServiceId, ServiceUpdate, Tag, Token,
};
use service_registry_wrapper::registry::{
    Access, ApiKey, Cause, Claim, ConfigurationQuery, Credentials, Error, EventQuery, IfTaken, Owner,
    Recourse, Registry, Secret, ServiceQuery, connect,
};

use crate::support::peer::{Asked, Peer, Reply, agree, fault, list, login, token};
use crate::support::{Place, says, wait_until};

const KEY: &str = "sesame-key";

fn open(peer: &Peer) -> Arc<dyn Registry> {
    connect(&peer.url().parse().unwrap(), &Access::default())
}

fn with_login(peer: &Peer, api_key: ApiKey) -> Arc<dyn Registry> {
    let credentials = Some(Credentials { username: "me".to_owned(), api_key });
    connect(&peer.url().parse().unwrap(), &Access { credentials, ..Access::default() })
}

fn given_key() -> ApiKey {
    ApiKey::Given(Secret::new(KEY))
}

fn web1() -> ServiceId {
    "web1".parse().unwrap()
}

fn registration() -> Registration {
    Registration {
        id: web1(),
        heartbeat_timeout: HeartbeatTimeout::from_secs(30).unwrap(),
        tags: vec![Tag::new("web").unwrap()].try_into().unwrap(),
        metadata: Metadata::default(),
    }
}

fn claim(if_taken: IfTaken) -> Claim {
    Claim { instance: InstanceId::unique(), holder: "pid 1 on tëst".to_owned(), if_taken }
}

async fn beat(registry: &dyn Registry) -> Result<Token, Error> {
    registry.heartbeat(&web1(), &Token::new("t"), Owner::Instance(InstanceId::unique())).await
}

/// A server where `valid` tells which token is good; each login gives the next.
fn with_tokens(valid: Arc<AtomicUsize>) -> Peer {
    let logins = AtomicUsize::new(0);
    Peer::start(move |asked| {
        if asked.is_login() {
            return login(&logins.fetch_add(1, Ordering::SeqCst).to_string());
        }
        let is_good = asked.header("x-auth-token") == Some(&valid.load(Ordering::SeqCst).to_string());
        if is_good {
            agree(asked)
        } else {
            fault(401, "unauthorizedError", "Invalid or expired authentication token")
        }
    })
}

#[tokio::test]
async fn any_number_of_heartbeats_is_one_login_and_one_connection() {
    let peer = Peer::start(agree);
    let registry = with_login(&peer, given_key());
    let claim = claim(IfTaken::Refuse);
    let mut token = registry.register(&registration(), &claim).await.unwrap();
    for _ in 0..50 {
        token = registry.heartbeat(&web1(), &token, Owner::Instance(claim.instance)).await.unwrap();
    }
    registry.deregister(&web1(), Owner::Instance(claim.instance)).await.unwrap();
    assert_eq!(peer.connections(), 1);
    let asked = peer.asked();
    assert_eq!(asked.len(), 53);
    assert_eq!(asked.iter().filter(|asked| asked.is_login()).count(), 1);
}

#[tokio::test]
async fn a_request_says_who_asks_for_what() {
    let peer = Peer::start(agree);
    let registry = with_login(&peer, given_key());
    let claim = claim(IfTaken::Refuse);
    let token = registry.register(&registration(), &claim).await.unwrap();
    registry.heartbeat(&web1(), &token, Owner::Instance(claim.instance)).await.unwrap();
    registry.deregister(&web1(), Owner::Anyone).await.unwrap();
    let [login, register, heartbeat, deregister] = &peer.asked()[..] else { panic!("{:?}", peer.asked()) };
    let expected = json!({"auth": {"RAX-KSKEY:apiKeyCredentials": {"username": "me", "apiKey": KEY}}});
    assert_eq!((login.json(), &*login.method, &*login.path), (expected, "POST", "/v2.0/tokens"));
    assert_eq!((&*register.method, &*register.path), ("POST", "/v1.0/7777/services"));
    let expected = json!({"id": "web1", "heartbeat_timeout": 30, "tags": ["web"], "metadata": {}});
    assert_eq!(register.json(), expected);
    assert_eq!((&*heartbeat.method, &*heartbeat.path), ("POST", "/v1.0/7777/services/web1/heartbeat"));
    assert_eq!(heartbeat.json(), json!({"token": token.as_str()}));
    assert_eq!((&*deregister.method, &*deregister.path), ("DELETE", "/v1.0/7777/services/web1"));
    let instance = claim.instance.to_string();
    for (asked, expected) in [(register, Some(&*instance)), (heartbeat, Some(&*instance)), (deregister, None)]
    {
        assert_eq!(asked.header("x-service-instance"), expected);
        assert_eq!(asked.header("x-auth-token"), Some("good"));
        assert_eq!(asked.header("x-tenant-id"), Some("7777"));
    }
    assert_eq!(register.header("x-service-holder"), Some("pid 1 on t?st"));
    assert_eq!(register.header("content-type"), Some("application/json"));
    let agent = concat!("service-registry-wrapper/", env!("CARGO_PKG_VERSION"));
    assert_eq!(register.header("user-agent"), Some(agent));
}

#[tokio::test]
async fn without_credentials_nobody_logs_in_and_no_tenant_is_told() {
    let peer = Peer::start(agree);
    open(&peer).services(&ServiceQuery::default()).await.unwrap();
    let [asked] = &peer.asked()[..] else { panic!("{:?}", peer.asked()) };
    assert_eq!(asked.path, "/v1.0/services?limit=100");
    assert_eq!((asked.header("x-auth-token"), asked.header("x-tenant-id")), (None, None));
}

#[tokio::test]
async fn a_tenant_and_credentials_in_the_url_are_used_as_they_are() {
    let peer = Peer::start(agree);
    let url = peer.url().replace("http://", "http://you:k%40y@") + "/4711/";
    let registry = connect(&url.parse().unwrap(), &Access::default());
    registry.services(&ServiceQuery::default()).await.unwrap();
    assert!(!registry.url().contains("you"), "{}", registry.url());
    let [login, asked] = &peer.asked()[..] else { panic!("{:?}", peer.asked()) };
    let credentials = &login.json()["auth"]["RAX-KSKEY:apiKeyCredentials"];
    assert_eq!(*credentials, json!({"username": "you", "apiKey": "k@y"}));
    assert_eq!(asked.path, "/v1.0/4711/services?limit=100");
    assert_eq!(asked.header("x-tenant-id"), Some("4711"));
}

#[tokio::test]
async fn a_token_that_died_early_is_one_new_login_and_no_failure() {
    let valid = Arc::new(AtomicUsize::new(0));
    let peer = with_tokens(Arc::clone(&valid));
    let registry = with_login(&peer, given_key());
    beat(&*registry).await.unwrap();
    valid.store(1, Ordering::SeqCst);
    for _ in 0..3 {
        beat(&*registry).await.unwrap();
    }
    assert_eq!(peer.count(Asked::is_login), 2);
    assert_eq!(peer.count(Asked::is_heartbeat), 5, "one of them refused");
}

#[tokio::test]
async fn calls_at_the_same_time_share_one_login() {
    let valid = Arc::new(AtomicUsize::new(0));
    let peer = with_tokens(Arc::clone(&valid));
    let registry = with_login(&peer, given_key());
    for round in 0..3 {
        valid.store(round, Ordering::SeqCst);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let registry = Arc::clone(&registry);
            calls.spawn(async move { beat(&*registry).await });
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok));
        assert_eq!(peer.count(Asked::is_login), round + 1);
    }
}

#[tokio::test]
async fn a_token_that_is_never_good_is_a_refusal_after_one_new_login() {
    let peer = with_tokens(Arc::new(AtomicUsize::new(usize::MAX)));
    let error = beat(&*with_login(&peer, given_key())).await.unwrap_err();
    assert_eq!(error.recourse(), Recourse::Authenticate);
    assert!(error.hint().unwrap().contains("--api-key-file"));
    assert_eq!((peer.count(Asked::is_login), peer.count(Asked::is_heartbeat)), (2, 2));
}

#[tokio::test]
async fn a_key_file_is_read_again_at_each_login() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "old\n").unwrap();
    let valid = Arc::new(AtomicUsize::new(0));
    let peer = with_tokens(Arc::clone(&valid));
    let registry = with_login(&peer, ApiKey::File(file.clone()));
    beat(&*registry).await.unwrap();
    std::fs::write(&file, "new\n").unwrap();
    valid.store(1, Ordering::SeqCst);
    beat(&*registry).await.unwrap();
    registry.renew_credentials().await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = beat(&*registry).await.unwrap_err();
    assert_eq!(error.recourse(), Recourse::Authenticate);
    assert!(chain(&error).contains("cannot read `"), "{}", chain(&error));
    let logins = peer.asked().into_iter().filter(Asked::is_login);
    let key = |asked: Asked| asked.json()["auth"]["RAX-KSKEY:apiKeyCredentials"]["apiKey"].clone();
    assert_eq!(logins.map(key).collect::<Vec<_>>(), ["old", "new"]);
}

#[tokio::test]
async fn a_login_that_fails_is_told_as_what_it_is() {
    for (reply, recourse, expected) in [
        (401, Recourse::Authenticate, "it answered 401 Unauthorized"),
        (400, Recourse::Authenticate, "it answered 400 Bad Request"),
        (503, Recourse::Retry, "it answered 503 Service Unavailable"),
        (404, Recourse::Retry, "it has no page /v2.0/tokens"),
        (302, Recourse::None, "it redirects (302)"),
        (200, Recourse::Retry, "its answer makes no sense: it has no token"),
    ] {
        let peer = Peer::start(move |_| Reply::Json(reply, json!({"unauthorized": {"message": KEY}})));
        let error = beat(&*with_login(&peer, given_key())).await.unwrap_err();
        assert_eq!(error.recourse(), recourse, "{error:?}");
        let told = chain(&error);
        assert!(told.contains(": cannot log in at http://127.0.0.1:") && told.ends_with(expected), "{told}");
        assert!(!format!("{error:?}").contains(KEY), "{error:?}");
    }
}

#[tokio::test]
async fn a_login_server_that_is_down_is_an_outage() {
    let (peer, away) = (Peer::start(agree), Peer::start(agree).url().replace("v1.0", "v2.0"));
    let credentials = Some(Credentials { username: "me".to_owned(), api_key: given_key() });
    let access = Access { credentials, auth_url: Some(away.parse().unwrap()), ..Access::default() };
    let error = beat(&*connect(&peer.url().parse().unwrap(), &access)).await.unwrap_err();
    assert_eq!(error.recourse(), Recourse::Retry);
    let expected = format!(
        "registry {} is not available: cannot log in at {away}: cannot connect: Connection refused (os error 111)",
        peer.url()
    );
    assert_eq!(chain(&error), expected);
    assert_eq!(peer.asked().len(), 0);
}

#[tokio::test]
async fn what_was_said_last_is_shown_as_stale_while_the_registry_is_away() {
    let is_away = Arc::new(AtomicBool::new(false));
    let peer = Peer::start({
        let is_away = Arc::clone(&is_away);
        move |_| {
            let service =
                json!({"id": "web1", "tags": [], "metadata": {}, "heartbeat_timeout": 30, "last_seen": null});
            if is_away.load(Ordering::SeqCst) {
                Reply::Json(503, Value::Null)
            } else {
                list(&json!([service]))
            }
        }
    });
    let registry = open(&peer);
    let all = ServiceQuery::default();
    let fresh = registry.services(&all).await.unwrap();
    assert_eq!((fresh.values.len(), fresh.stale_since), (1, None));
    is_away.store(true, Ordering::SeqCst);
    let stale = registry.services(&all).await.unwrap();
    assert!(stale.stale_since.is_some() && stale.values == fresh.values);
    let others = ServiceQuery { tag: Some(Tag::new("web").unwrap()), ..all.clone() };
    assert_eq!(registry.services(&others).await.unwrap_err().recourse(), Recourse::Retry);
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(registry.services(&all).await.unwrap().stale_since, None);
}

#[tokio::test]
async fn a_success_that_is_none_is_an_outage() {
    let truncated = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"token\":";
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}", "x".repeat(1 << 17));
    for raw in [
        truncated.to_owned(),
        endless,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ] {
        let bytes = raw.clone().into_bytes();
        let peer = Peer::start(move |_| Reply::Raw(bytes.clone()));
        let error = beat(&*open(&peer)).await.unwrap_err();
        assert_eq!(error.recourse(), Recourse::Retry, "{raw:.60}: {error:?}");
        let told = chain(&error);
        assert!(told.starts_with(&format!("registry {} is not available: ", peer.url())), "{told}");
        assert!(!told.contains('\n'), "{told}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_in_a_line() {
    let url = Peer::start(agree).url();
    let error = beat(&*connect(&url.parse().unwrap(), &Access::default())).await.unwrap_err();
    let expected =
        format!("registry {url} is not available: cannot connect: Connection refused (os error 111)");
    assert_eq!(chain(&error), expected);
    let url = "http://nowhere.invalid/v1.0";
    let error = beat(&*connect(&url.parse().unwrap(), &Access::default())).await.unwrap_err();
    assert!(
        chain(&error).starts_with(&format!("registry {url} is not available: cannot connect: ")),
        "{error:?}"
    );
    assert_eq!(error.recourse(), Recourse::Retry);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let peer = Peer::start(|_| {
        Reply::With(307, "location", "http://me:sesame@elsewhere/v1.0?x=sesame".to_owned(), Value::Null)
    });
    let error = beat(&*open(&peer)).await.unwrap_err();
    assert!(chain(&error).ends_with("it redirects (307) to http://elsewhere/v1.0"), "{}", chain(&error));
    assert_eq!((error.recourse(), peer.asked().len()), (Recourse::None, 1));
}

#[tokio::test]
async fn queries_and_ids_are_written_as_the_api_has_them() {
    let peer = Peer::start(|asked| match (&*asked.method, asked.path.contains("key")) {
        ("GET", true) => Reply::Json(200, json!({"id": "/prod/key", "value": "v"})),
        _ => agree(asked),
    });
    let registry = open(&peer);
    let page = PageRequest { marker: Some(web1().into()), limit: Limit::new(7).unwrap() };
    registry.services(&ServiceQuery { tag: Some(Tag::new("a b&c=ä").unwrap()), page }).await.unwrap();
    let kind = Some("service.timeout".parse().unwrap());
    registry.events().unwrap().events(&EventQuery { kind, ..EventQuery::default() }).await.unwrap();
    let configuration = registry.configuration().unwrap();
    let id = "/prod/key".parse().unwrap();
    assert_eq!(configuration.value(&id).await.unwrap().value(), "v");
    configuration.set(&ConfigurationValue::new(id.clone(), "w").unwrap()).await.unwrap();
    configuration.remove(&id).await.unwrap();
    configuration.set(&ConfigurationValue::new("key".parse().unwrap(), "w").unwrap()).await.unwrap();
    configuration.values(&ConfigurationQuery::default()).await.unwrap();
    let namespace = Some("prod".parse().unwrap());
    configuration.values(&ConfigurationQuery { namespace, ..ConfigurationQuery::default() }).await.unwrap();
    let tags = Some(vec![].try_into().unwrap());
    registry.update(&web1(), &ServiceUpdate { tags, ..ServiceUpdate::default() }).await.unwrap();
    let asked = peer.asked();
    let lines: Vec<_> = asked.iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect();
    assert_eq!(
        lines,
        [
            "GET /v1.0/services?marker=web1&limit=7&tag=a+b%26c%3D%C3%A4",
            "GET /v1.0/events?limit=100&type=service.timeout",
            "GET /v1.0/configuration//prod/key",
            "PUT /v1.0/configuration//prod/key",
            "DELETE /v1.0/configuration//prod/key",
            "PUT /v1.0/configuration/key",
            "GET /v1.0/configuration?limit=100",
            "GET /v1.0/configuration/prod/?limit=100",
            "PUT /v1.0/services/web1",
        ]
    );
    assert_eq!(asked[3].json(), json!({"value": "w"}));
    assert_eq!(asked[8].json(), json!({"tags": []}));
}

#[tokio::test]
async fn a_list_is_walked_by_its_markers() {
    let peer = Peer::start(|asked| {
        let is_first = !asked.path.contains("marker=");
        let id = if is_first { "web1" } else { "web2" };
        let next = if is_first { json!("web2") } else { Value::Null };
        let service = json!({"id": id, "tags": [], "metadata": {}, "heartbeat_timeout": 30, "last_seen": 1_700_000_000_000_u64});
        let metadata =
            json!({"count": 1, "limit": 1, "marker": null, "next_marker": next, "next_href": null});
        Reply::Json(200, json!({"values": [service], "metadata": metadata}))
    });
    let registry = open(&peer);
    let (mut query, mut seen) = (ServiceQuery::default(), Vec::new());
    loop {
        let page = registry.services(&query).await.unwrap();
        seen.extend(page.values.into_iter().map(|service| service.registration.id.to_string()));
        query.page.marker = page.next_marker.map(Into::into);
        if query.page.marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["web1", "web2"]);
}

#[tokio::test]
async fn a_marker_outside_the_log_is_a_broken_rule() {
    let peer = Peer::start(|_| fault(400, "badRequest", "UUID is not version 1"));
    let page = PageRequest { marker: Some(uuid::Uuid::nil()), ..PageRequest::default() };
    let query = EventQuery { page, ..EventQuery::default() };
    let error = open(&peer).events().unwrap().events(&query).await.unwrap_err();
    let Error::Invalid { source: Cause::Rule(rule), .. } = error else { panic!("{error:?}") };
    assert!(rule.to_string().contains(&MarkerFault::NotTimeBased.to_string()), "{rule}");
}

/// A server that does not know instances: it holds one service at most, and loses the answers that it is told to.
fn foreign(held: Arc<std::sync::Mutex<Option<Value>>>, loses: Arc<AtomicBool>) -> Peer {
    Peer::start(move |asked| {
        let mut held = held.lock().unwrap();
        let is_lost = loses.swap(false, Ordering::SeqCst);
        match &*asked.method {
            "POST" if asked.is_registration() => {
                if held.is_some() {
                    return fault(400, "serviceWithThisIdExists", "Service with id web1 already exists.");
                }
                *held = Some(asked.json());
                if is_lost { Reply::Close } else { token(201) }
            }
            "POST" if is_lost => Reply::Close,
            "POST" => fault(404, "notFoundError", "Object \"HeartbeatMarker\" with key \"x\" does not exist"),
            "GET" => {
                let mut service = held.clone().unwrap();
                service["last_seen"] = Value::Null;
                Reply::Json(200, service)
            }
            _ => {
                *held = None;
                Reply::Json(204, Value::Null)
            }
        }
    })
}

#[tokio::test]
async fn our_own_registration_whose_answer_was_lost_is_replaced() {
    let (held, loses) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let peer = foreign(Arc::clone(&held), loses);
    let (registry, claim) = (open(&peer), claim(IfTaken::Refuse));
    let error = registry.register(&registration(), &claim).await.unwrap_err();
    assert_eq!(error.recourse(), Recourse::Retry);
    registry.register(&registration(), &claim).await.unwrap();
    let methods: Vec<_> = peer.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["POST", "POST", "GET", "DELETE", "POST"]);
    // All is known again: the next conflict is somebody else's.
    let error = registry.register(&registration(), &claim).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { holder, .. } if holder == "another instance"), "{error:?}");
}

#[tokio::test]
async fn our_own_registration_whose_heartbeat_was_used_up_is_replaced() {
    let (held, loses) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let peer = foreign(Arc::clone(&held), Arc::clone(&loses));
    let (registry, claim) = (open(&peer), claim(IfTaken::Refuse));
    registry.register(&registration(), &claim).await.unwrap();
    loses.store(true, Ordering::SeqCst);
    assert_eq!(beat(&*registry).await.unwrap_err().recourse(), Recourse::Retry);
    assert_eq!(beat(&*registry).await.unwrap_err().recourse(), Recourse::Register);
    registry.register(&registration(), &claim).await.unwrap();
}

#[tokio::test]
async fn a_registration_that_looks_different_is_somebody_elses() {
    let other = json!({"id": "web1", "tags": ["other"], "metadata": {}, "heartbeat_timeout": 30});
    let held = Arc::new(std::sync::Mutex::new(Some(other)));
    let peer = foreign(Arc::clone(&held), Arc::default());
    let (registry, claim) = (open(&peer), claim(IfTaken::Refuse));
    assert_eq!(beat(&*registry).await.unwrap_err().recourse(), Recourse::Register);
    let error = registry.register(&registration(), &claim).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert_eq!(peer.count(|asked| asked.method == "DELETE"), 0);
}

#[tokio::test]
async fn a_conflict_names_the_holder_and_when_the_id_is_free() {
    let peer = Peer::start(|_| {
        let body = json!({"type": "serviceWithThisIdExists", "code": 400, "message": "m", "details": "m", "txnId": "t",
            "holder": "pid 4711 on web9"});
        Reply::With(400, "retry-after", "17".to_owned(), body)
    });
    let error = open(&peer).register(&registration(), &claim(IfTaken::Refuse)).await.unwrap_err();
    assert_eq!(chain(&error), "service id `web1` is held by pid 4711 on web9");
    let frees_in = Some(std::time::Duration::from_secs(17));
    assert_eq!(error.recourse(), Recourse::AwaitRelease { frees_in });
}

/// It forgets the service while it is in trouble, and the trouble goes on.
#[test]
fn trouble_that_takes_several_turns_is_told_once() {
    let beats = AtomicUsize::new(0);
    let registrations = AtomicUsize::new(0);
    let sorry = || Reply::Json(503, json!({"message": "later"}));
    let peer = Peer::start(move |asked| {
        if asked.is_heartbeat() {
            return match beats.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => sorry(),
                2 => Reply::Json(404, json!({"type": "notFound", "message": "no such service"})),
                _ => agree(asked),
            };
        }
        if asked.is_registration() && registrations.fetch_add(1, Ordering::Relaxed) == 1 {
            return sorry();
        }
        agree(asked)
    });
    let place = Place::new();
    let log = place.path().join("log");
    let options = ["--id=web1", "--interval=3", "--registry", &peer.url()];
    let _wrapper = place.wrapper(&options).start_with_log(&log, &["sleep", "600"]);
    wait_until("the end of it", || says(&log, "registered again"));
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("trying on").count(), 1, "{text}");
}
