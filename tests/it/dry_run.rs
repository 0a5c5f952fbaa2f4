//! `--dry-run`: what it prints is what is sent without it, and it sends, starts and makes nothing.

use std::process::Output;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::etcd::{Etcd, Release};
use crate::support::peer::{Asked, Peer, Reply, agree};
use crate::support::zookeeper::Zookeeper;
use crate::support::{Place, Wrapper, wait_for, wait_until};

/// A wrapper with these options, and without the registry of the place.
fn wrapper(place: &Place, options: &[&str]) -> Wrapper {
    let mut wrapper = place.wrapper(options);
    wrapper.command.env_remove("SERVICE_REGISTRY_URL").env("HOME", place.path());
    wrapper
}

#[track_caller]
fn printed(output: &Output) -> Value {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A request without where it goes to: method, path and body.
type Request = (String, String, Value);

/// What was printed for the first registry, which is at `peer`.
fn rehearsed(printed: &Value, peer: &Peer) -> Vec<Request> {
    let host = peer.url().replace("/v1.0", "");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let request = |request: &Value| {
        let path = text(&request["target"]).replace(&host, "");
        (text(&request["method"]), path, request["body"].clone())
    };
    printed["registries"][0]["requests"].as_array().unwrap().iter().map(request).collect()
}

/// What was sent, each only once in a row, and with the names of a rehearsal for what only an answer could tell.
fn sent(peer: &Peer, names: &[(&str, &str)]) -> Vec<Request> {
    let request = |asked: &Asked| {
        let renamed =
            |text: &str| names.iter().fold(text.to_owned(), |text, (it, name)| text.replace(it, name));
        let mut body = if asked.body.is_empty() { Value::Null } else { asked.json() };
        if asked.is_heartbeat() {
            body["token"] = json!("<token>");
        }
        let body = serde_json::from_str(&renamed(&body.to_string())).unwrap();
        (asked.method.clone(), renamed(&asked.path), body)
    };
    let mut all: Vec<_> = peer.asked().iter().map(request).collect();
    all.dedup();
    all
}

const OPTIONS: [&str; 5] = ["--id=api-{pid}", "--tags=a,b", "--metadata=x=1", "--port=8000", "--interval=3s"];

/// What the wrapper sends from its start to its planned end, if `is_heartbeat` is what it stays listed by.
fn live(place: &Place, peer: &Peer, url: &str, is_heartbeat: fn(&Asked) -> bool) -> (String, String) {
    let mut running = wrapper(place, &[&OPTIONS[..], &["--registry", url]].concat()).start(&["sleep", "600"]);
    let (pid, child) = (running.pid().to_string(), running.child().to_string());
    wait_until("a heartbeat", || peer.count(is_heartbeat) > 0);
    running.signal(Signal::SIGTERM);
    running.wait();
    (format!("pid {pid} on"), format!("api-{child}"))
}

#[test]
fn the_http_api_gets_what_was_printed() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let url = peer.url().replace("http://", "http://me:sesame@");
    let dry = [&OPTIONS[..], &["--registry", &url, "--dry-run=json"]].concat();
    let output = wrapper(&place, &dry).output(&["sleep", "600"]);
    assert_eq!(peer.connections(), 0);
    let printed = printed(&output);
    assert!(!printed.to_string().contains("sesame"), "{printed}");
    let (holder, id) = live(&place, &peer, &url, Asked::is_heartbeat);
    let asked = peer.asked();
    let registration = asked.iter().find(|asked| asked.is_registration()).unwrap();
    let instance = registration.header("x-service-instance").unwrap();
    let names = [("7777", "<tenant>"), (instance, "<instance>"), (&id, "api-<pid>"), ("sesame", "***")];
    assert_eq!(rehearsed(&printed, &peer), sent(&peer, &names));
    let headers = printed["registries"][0]["requests"][2]["headers"].as_object().unwrap();
    assert_eq!(headers["x-auth-token"], "***");
    for (name, shown) in headers.iter().filter(|(name, _)| *name != "x-auth-token") {
        let sent = registration.header(name).unwrap().replace(instance, "<instance>");
        let sent = sent.replace("7777", "<tenant>").replace(&holder, "pid <pid of the wrapper> on");
        assert_eq!(*shown, sent, "{name}");
    }
}

/// An agent that knows what was last registered.
fn agent() -> impl Fn(&Asked) -> Reply + Send + Sync {
    let known = Mutex::new(None::<Value>);
    move |asked| {
        let mut known = known.lock().unwrap();
        if asked.path.starts_with("/v1/agent/service/register") {
            *known = Some(asked.json());
        }
        match &*known {
            Some(service) if asked.method == "GET" => {
                Reply::Json(200, json!({"Service": service, "Checks": []}))
            }
            None if asked.method == "GET" => Reply::Json(404, json!("no such service")),
            _ => Reply::Json(200, Value::Null),
        }
    }
}

#[test]
fn a_consul_agent_gets_what_was_printed() {
    let (place, peer) = (Place::new(), Peer::start(agent()));
    let url = peer.url().replace("http://", "consul://sesame@").replace("/v1.0", "");
    let dry = [&OPTIONS[..], &["--registry", &url, "--dry-run=json"]].concat();
    let output = wrapper(&place, &dry).output(&["sleep", "600"]);
    assert_eq!(peer.connections(), 0);
    let printed = printed(&output);
    assert!(!printed.to_string().contains("sesame"), "{printed}");
    let (holder, id) = live(&place, &peer, &url, |asked| asked.path.starts_with("/v1/agent/check/pass/"));
    let asked = peer.asked();
    let registration =
        asked.iter().find(|asked| asked.path.starts_with("/v1/agent/service/register")).unwrap();
    assert_eq!(registration.header("x-consul-token"), Some("sesame"));
    let instance = registration.json()["Meta"]["srw_instance"].as_str().unwrap().to_owned();
    let names = [(&*instance, "<instance>"), (&id, "api-<pid>"), (&holder, "pid <pid of the wrapper> on")];
    assert_eq!(rehearsed(&printed, &peer), sent(&peer, &names));
    let header = &printed["registries"][0]["requests"][2]["headers"]["x-consul-token"];
    assert_eq!(header, "***");
}

#[test]
fn nothing_is_started_sent_or_made() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let host = peer.url().replace("http://", "").replace("/v1.0", "");
    for format in ["--dry-run", "--dry-run=json"] {
        let mut wrapper = place.wrapper(&[format, "--name=api", "--address=192.0.2.7", "--port=8000"]);
        let urls =
            ["http://me:sesame@{}/v1.0", "consul://{}", "etcd://me:sesame@{}", "zookeeper://me:sesame@{}"];
        let urls: Vec<_> = urls.iter().map(|url| url.replace("{}", &host)).collect();
        wrapper.command.env("SERVICE_REGISTRY_URL", format!("{} {}", place.url(), urls.join(" ")));
        let output = wrapper.output(&["touch", "started"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert!(!text.contains("sesame"), "{text}");
        let registries = if format == "--dry-run" { "Registry " } else { "\"requests\":" };
        assert_eq!(text.matches(registries).count(), 5, "{text}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn what_a_gateway_hides_is_readable() {
    let options = [&OPTIONS[..], &["--address=192.0.2.7", "--name=api", "--dry-run=json"]].concat();
    let place = Place::new();
    let requests = |url: &str| {
        let options = [&options[..], &["--registry", url]].concat();
        let printed = printed(&wrapper(&place, &options).output(&["sleep", "600"]));
        printed["registries"][0]["requests"].as_array().unwrap().clone()
    };
    let etcd = requests("etcd://127.0.0.1/shop?layout=registrator");
    let put = &etcd[3]["body"]["success"][0]["request_put"];
    assert_eq!((&put["key"], &put["lease"]), (&json!("/shop/services/api-<pid>"), &json!("<lease>")));
    assert_eq!(put["value"]["metadata"]["x"], "1");
    assert_eq!(etcd[3]["body"]["success"][1]["request_put"]["value"], "192.0.2.7:8000");
    let zookeeper = requests("zookeeper://127.0.0.1/shop");
    let made: Vec<_> = zookeeper.iter().filter(|request| request["method"] == "create ephemeral").collect();
    let targets: Vec<_> = made.iter().map(|request| request["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["/shop/service-registry/services/api-<pid>", "/shop/services/api/api-<pid>"]);
    assert_eq!(made[1]["body"]["port"], 8000);
    let file = requests("sqlite:///tmp/no-such.db");
    assert_eq!(file[1]["body"]["values"]["registration"]["tags"], json!(["a", "b"]));
    assert!(file[1]["body"]["sql"].as_str().unwrap().starts_with("INSERT INTO service"));
}

#[test]
fn the_command_is_printed_as_it_would_be_run() {
    let place = Place::new();
    let mut dry = place.wrapper(&["--dry-run", "--stop-signal=QUIT", "--stop-timeout=90s", "--signal-group"]);
    dry.command.env("RAXSR_API_KEY", "sesame").env("NOTIFY_SOCKET", "/run/notify");
    let output = dry.output(&["sleep", "6 00"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        r#"arguments: ["sleep","6 00"]"#,
        "stop signal: SIGQUIT",
        "stop timeout: 1m 30s",
        "process group: own",
        r#"removed: ["RAXSR_API_KEY"]"#,
        "NOTIFY_SOCKET: <socket of the wrapper>",
        &format!("directory: {}", place.path().display()),
    ] {
        assert!(text.lines().any(|printed| printed.trim() == line), "{line}: {text}");
    }
    let mut dry = place.wrapper(&["--deregister=never"]);
    dry.command.env("SERVICE_REGISTRY_DRY_RUN", "json");
    let output = dry.output(&["true"]);
    assert!(!String::from_utf8(output.stdout).unwrap().contains("\"deregistration\""));
}

#[test]
fn mistakes_are_told_as_ever() {
    let place = Place::new();
    for options in [
        &["--dry-run", "--id=a"][..],
        &["--dry-run", "--tags={env:NO_SUCH}"],
        &["--dry-run", "--registry=nonsense"],
        &["--dry-run", "--api-key-file=/no/such/file"],
        &["--dry-run=xml"],
    ] {
        let output = place.wrapper(options).output(&["touch", "started"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{options:?}");
        let dry = String::from_utf8(output.stderr).unwrap();
        if options.len() > 1 {
            let output = place.wrapper(&options[1..]).output(&["touch", "started"]);
            assert_eq!(String::from_utf8(output.stderr).unwrap(), dry);
        }
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// What the requests of `printed` make, by their keys: those that have this name of a method, or of a member.
fn etcd_puts(printed: &Value) -> Vec<(String, Value)> {
    let requests = printed["registries"][0]["requests"].as_array().unwrap().iter();
    let entering = requests.filter(|request| request["step"] == "registration");
    let puts =
        entering.flat_map(|request| request["body"]["success"].as_array().cloned().unwrap_or_default());
    let key_and_value = |put: &Value| {
        let put = &put["request_put"];
        Some((put["key"].as_str()?.to_owned(), put["value"].clone()))
    };
    puts.filter_map(|put| key_and_value(&put)).collect()
}

/// The same for each life: who, since when.
fn lifeless(mut record: Value) -> Value {
    for name in ["instance", "holder", "created_at", "registered_at", "registrationTimeUTC"] {
        if let Some(map) = record.as_object_mut() {
            map.remove(name);
        }
    }
    record
}

#[test]
fn an_etcd_cluster_has_the_keys_that_were_printed() {
    let test = "an_etcd_cluster_has_the_keys_that_were_printed";
    let Some(etcd) = Etcd::single(Release::Bookworm, test) else { return };
    let (place, url) = (Place::new(), etcd.url() + "?layout=registrator");
    let options = ["--id=web1", "--name=web", "--address=192.0.2.7", "--port=8000", "--registry", &url];
    let printed =
        printed(&wrapper(&place, &[&options[..], &["--dry-run=json"]].concat()).output(&["sleep", "600"]));
    assert!(etcd.keys("/").is_empty());
    let _running = wrapper(&place, &options).start(&["sleep", "600"]);
    wait_until("the registration", || !etcd.keys("/").is_empty());
    let made = etcd.keys("/").into_iter().map(|(key, value)| {
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        (key, lifeless(value))
    });
    let mut puts: Vec<_> =
        etcd_puts(&printed).into_iter().map(|(key, value)| (key, lifeless(value))).collect();
    puts.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(puts, made.collect::<Vec<_>>());
    assert_eq!(puts.len(), 2);
}

#[test]
fn a_zookeeper_server_has_the_nodes_that_were_printed() {
    let test = "a_zookeeper_server_has_the_nodes_that_were_printed";
    let Some(zookeeper) = Zookeeper::start(test) else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let options = ["--id=web1", "--name=web", "--address=192.0.2.7", "--port=8000", "--registry", &url];
    let printed =
        printed(&wrapper(&place, &[&options[..], &["--dry-run=json"]].concat()).output(&["sleep", "600"]));
    let requests = printed["registries"][0]["requests"].as_array().unwrap();
    let made: Vec<_> =
        requests.iter().filter(|request| request["method"] == "create ephemeral").cloned().collect();
    assert_eq!(made.len(), 2, "{printed}");
    let mut client = zookeeper.client();
    let path = |request: &Value| request["target"].as_str().unwrap().to_owned();
    assert!(made.iter().all(|request| client.node(&path(request)).is_none()));
    let _running = wrapper(&place, &options).start(&["sleep", "600"]);
    for request in &made {
        let node = wait_for("the node", || client.node(&path(request)));
        let data: Value = serde_json::from_str(&node.data).unwrap();
        assert_eq!(lifeless(data), lifeless(request["body"].clone()));
    }
}

#[test]
fn a_port_that_nobody_knows_yet_is_named() {
    let place = Place::new();
    let dry = |options: &[&str]| {
        let options = [&["--id=web1", "--metadata=at=x:{port}", "--dry-run=json"], options].concat();
        printed(&wrapper(&place, &options).output(&["sleep", "600"]))
    };
    for options in
        [&["--registry=consul://", "--port=auto"][..], &["--registry=consul://", "--port-env=PORT"]]
    {
        let printed = dry(options);
        let body = &printed["registries"][0]["requests"][2]["body"];
        assert_eq!(body["Port"], "<port>", "{printed}");
        assert_eq!((&body["Meta"]["at"], &body["Meta"]["port"]), (&json!("x:<port>"), &json!("<port>")));
    }
    let set = &dry(&["--port-env=PORT"])["command"]["environment"]["set"];
    assert_eq!(set, &json!({"PORT": "<port>"}));
    let set = &dry(&["--port-env=PORT", "--port=8000"])["command"]["environment"]["set"];
    assert_eq!(set, &json!({"PORT": "8000"}));
}
