//! Both programs with a registry that is reached over HTTP: what they say, whom they ask, as whom.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::peer::{Asked, Peer, Reply, agree, fault, login};
use crate::support::{Place, RAXSR, WRAPPER, Wrapper, says, wait_until};

const KEY: &str = "sesame-key";
const TOKEN: &str = "sesame-token";

/// A program that talks to `peer`, in a home of its own.
fn program(place: &Place, program: &str, peer: &Peer) -> Command {
    let mut command = place.program(program);
    command.env("SERVICE_REGISTRY_URL", peer.url()).env("HOME", place.path());
    command
}

fn wrapper(place: &Place, peer: &Peer, options: &[&str]) -> Wrapper {
    let mut command = program(place, WRAPPER, peer);
    command.args(["--id=web1", "--interval=3"]).args(options);
    Wrapper { command }
}

fn list(place: &Place, peer: &Peer) -> Command {
    let mut command = program(place, RAXSR, peer);
    command.args(["--format=json", "services", "list"]);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn key_file(place: &Place) -> String {
    let file = place.path().join("key");
    fs::write(&file, KEY).unwrap();
    format!("--api-key-file={}", file.display())
}

fn raxrc(place: &Place, text: &str) -> PathBuf {
    let file = place.path().join(".raxrc");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// Who logged in, with which key.
fn logins(peer: &Peer) -> Vec<(String, String)> {
    let logins = peer.asked().into_iter().filter(Asked::is_login);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    logins
        .map(|asked| {
            let credentials = asked.json()["auth"]["RAX-KSKEY:apiKeyCredentials"].clone();
            (text(&credentials["username"]), text(&credentials["apiKey"]))
        })
        .collect()
}

#[test]
fn a_heartbeat_that_failed_is_sent_again_and_nothing_else_is() {
    let beats = AtomicUsize::new(0);
    let peer = Peer::start(move |asked| {
        let is_to_fail = asked.is_heartbeat() && beats.fetch_add(1, Ordering::SeqCst) == 1;
        if is_to_fail { Reply::Json(503, Value::Null) } else { agree(asked) }
    });
    let place = Place::new();
    let mut wrapper = wrapper(&place, &peer, &[]).start(&["sleep", "600"]);
    wait_until("the heartbeats", || peer.count(Asked::is_heartbeat) >= 4);
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.stderr(), "");
    let bodies: Vec<_> =
        peer.asked().into_iter().filter(Asked::is_heartbeat).map(|asked| asked.body).collect();
    assert_eq!(bodies[1], bodies[2], "the same token");
    assert_ne!(bodies[2], bodies[3]);
    assert_eq!((peer.count(Asked::is_registration), peer.connections()), (1, 1));
    assert_eq!(peer.asked().last().unwrap().method, "DELETE");
}

#[test]
fn a_heartbeat_that_hangs_or_breaks_costs_no_registration() {
    let beats = AtomicUsize::new(0);
    let peer = Peer::start(move |asked| {
        match beats.fetch_add(usize::from(asked.is_heartbeat()), Ordering::SeqCst) {
            1 if asked.is_heartbeat() => Reply::Hang,
            3 if asked.is_heartbeat() => Reply::Close,
            _ => agree(asked),
        }
    });
    let place = Place::new();
    let mut wrapper = wrapper(&place, &peer, &[]).start(&["sleep", "600"]);
    wait_until("the heartbeats", || peer.count(Asked::is_heartbeat) >= 6);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert_eq!(peer.count(Asked::is_registration), 1);
}

#[test]
fn a_registry_that_forgot_us_is_told_again() {
    let beats = AtomicUsize::new(0);
    let peer = Peer::start(move |asked| {
        let is_to_fail = asked.is_heartbeat() && beats.fetch_add(1, Ordering::SeqCst) == 0;
        if is_to_fail { fault(404, "notFoundError", "Object \"Service\" with key") } else { agree(asked) }
    });
    let place = Place::new();
    let mut wrapper = wrapper(&place, &peer, &[]).start(&["sleep", "600"]);
    wait_until("both registrations", || peer.count(Asked::is_registration) == 2);
    wait_until("a heartbeat", || peer.count(Asked::is_heartbeat) == 2);
    wrapper.signal(Signal::SIGTERM);
    assert!(wrapper.stderr().contains("registered again"));
}

/// A server on which the id is taken `times` times.
fn taken(times: usize) -> Peer {
    let asked_for = AtomicUsize::new(0);
    Peer::start(move |asked| {
        if asked.is_registration() && asked_for.fetch_add(1, Ordering::SeqCst) < times {
            let body = json!({"type": "serviceWithThisIdExists", "code": 400, "message": "m", "details": "d",
                "txnId": "t", "holder": "pid 4711 on web9"});
            return Reply::Json(400, body);
        }
        agree(asked)
    })
}

#[test]
fn an_id_that_is_taken_is_waited_for_taken_over_or_a_failure() {
    let place = Place::new();
    let is_removal = |asked: &Asked| asked.method == "DELETE";

    let peer = taken(2);
    let log = place.path().join("log");
    let waiting = wrapper(&place, &peer, &[]).start_with_log(&log, &["sleep", "600"]);
    wait_until("the registration", || peer.count(Asked::is_heartbeat) > 0);
    assert_eq!((peer.count(Asked::is_registration), peer.count(is_removal)), (3, 0));
    assert!(says(&log, "held by pid 4711 on web9"));
    drop(waiting);

    let peer = taken(1);
    let replacing = wrapper(&place, &peer, &["--on-conflict=replace"]).start(&["sleep", "600"]);
    wait_until("the registration", || peer.count(Asked::is_heartbeat) > 0);
    assert_eq!((peer.count(Asked::is_registration), peer.count(is_removal)), (2, 1));
    drop(replacing);

    let peer = taken(usize::MAX);
    let failing =
        wrapper(&place, &peer, &["--on-conflict=fail", "--abort-on-failure"]).output(&["sleep", "600"]);
    assert_eq!(failing.status.code(), Some(100));
    assert!(stderr(&failing).contains("held by pid 4711 on web9"), "{failing:?}");
    assert_eq!((peer.count(Asked::is_registration), peer.count(is_removal)), (1, 0));
}

#[test]
fn a_takeover_gives_up_after_a_few_removals() {
    let place = Place::new();
    let peer = taken(4);
    let _wrapper = wrapper(&place, &peer, &["--on-conflict=replace"]).start(&["sleep", "600"]);
    wait_until("the registration", || peer.count(Asked::is_heartbeat) > 0);
    assert_eq!(peer.count(|asked| asked.method == "DELETE"), 3);
    assert_eq!(peer.count(Asked::is_registration), 5);
}

#[test]
fn a_wrong_key_ends_the_wrapper_with_100_where_it_must_register() {
    let place = Place::new();
    let peer = Peer::start(|_| Reply::Json(401, json!({"unauthorized": {"code": 401, "message": KEY}})));
    let options = ["--username=me", &key_file(&place), "--abort-on-failure", "--log-format=json"];
    let output = wrapper(&place, &peer, &options).output(&["sleep", "600"]);
    assert_eq!(output.status.code(), Some(100), "{output:?}");
    let log = stderr(&output);
    let errors: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [error] = &errors[..] else { panic!("{log}") };
    let login = peer.url().replace("v1.0", "v2.0");
    let expected = format!(
        "registry {} refuses access: cannot log in at {login}: it answered 401 Unauthorized",
        peer.url()
    );
    assert_eq!(error["error"], expected);
    assert_eq!(error["hint"], "check --username and --api-key-file");
    assert!(!log.contains(KEY));
}

#[test]
fn nothing_secret_is_told_at_any_level() {
    let place = Place::new();
    let beats = AtomicUsize::new(0);
    let peer = Peer::start(move |asked| {
        if asked.is_login() {
            return login(TOKEN);
        }
        match beats.fetch_add(1, Ordering::SeqCst) % 6 {
            1 => fault(401, "unauthorizedError", "expired"),
            2 => Reply::Raw(b"nonsense".to_vec()),
            3 => Reply::With(302, "location", format!("http://{KEY}@host/?{TOKEN}"), Value::Null),
            4 => Reply::Close,
            _ => agree(asked),
        }
    });
    let key = key_file(&place);
    for options in [["--log-level=trace", "--log-format=text"], ["--log-level=trace", "--log-format=json"]] {
        let before = peer.asked().len();
        let options = [&options[..], &["--username=me", &key]].concat();
        let mut wrapper = wrapper(&place, &peer, &options).start(&["sleep", "600"]);
        wait_until("the failures", || peer.asked().len() > before + 12);
        wrapper.signal(Signal::SIGTERM);
        let log = wrapper.stderr();
        assert!(log.contains("request failed") && !log.contains("sesame"), "{log}");
    }
    let url = peer.url().replace("http://", &format!("http://me:{KEY}@"));
    for _ in 0..6 {
        let output = list(&place, &peer).env("SERVICE_REGISTRY_URL", &url).output().unwrap();
        assert!(!format!("{output:?}").contains("sesame"), "{output:?}");
    }
}

#[test]
fn no_proxy_stands_between_us_and_this_machine() {
    let (place, peer, proxy) = (Place::new(), Peer::start(agree), Peer::start(agree));
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let output = list(&place, &peer).env(name, proxy.url()).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
    assert_eq!((proxy.connections(), peer.asked().len()), (0, 5));
    // Where there is one to be used, it is.
    let mut far = list(&place, &peer);
    far.env("SERVICE_REGISTRY_URL", "http://registry.invalid/v1.0").env("http_proxy", proxy.url());
    assert!(far.output().unwrap().status.success());
    assert_eq!(proxy.asked()[0].path, "http://registry.invalid/v1.0/services?limit=100");
}

#[test]
fn without_certificates_on_the_machine_http_works_and_https_says_what_is_missing() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let bare = |url: &str| {
        let mut command = list(&place, &peer);
        command.env("SERVICE_REGISTRY_URL", url);
        command
            .env("SSL_CERT_FILE", "/nonexistent/file")
            .env("SSL_CERT_DIR", "/nonexistent")
            .output()
            .unwrap()
    };
    let output = bare(&peer.url());
    assert!(output.status.success(), "{output:?}");
    let output = bare(&peer.url().replace("http", "https"));
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("no certificate authorities on this machine\nhint: "), "{told}");
    assert!(told.contains("--ca-cert"), "{told}");
}

#[test]
fn no_secret_reaches_the_command() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let mut wrapper = wrapper(&place, &peer, &[]);
    let url = peer.url().replace("http://", &format!("http://me:{KEY}@"));
    wrapper.command.env("RAXSR_API_KEY", KEY).env("RAXSR_USERNAME", "me").env("RAXSR_API_URL", url);
    let output = wrapper.output(&["env"]);
    assert!(output.status.success());
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(!seen.contains("sesame"), "{seen}");
    assert!(seen.contains("RAXSR_USERNAME=me"), "{seen}");
}

#[test]
fn credentials_come_from_the_command_line_then_variables_then_the_file() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let file = raxrc(
        &place,
        &format!(
            "[credentials]\nusername = from-file\napi_key = file-key\n[api]\nurl = {}\n[auth_api]\nurl = {}\n",
            peer.url(),
            peer.url().replace("v1.0", "v2.0/")
        ),
    );
    let run = |change: &dyn Fn(&mut Command)| {
        let mut command = list(&place, &peer);
        command.env_remove("SERVICE_REGISTRY_URL");
        change(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(stderr(&output).contains("--api-key-file"), stderr(&output).contains("warning"));
    };
    run(&|_| {});
    run(&|command| {
        command.env("HOME", "/nonexistent").env("RAXSR_RAXRC", &file);
    });
    run(&|command| {
        command.env("RAXSR_USERNAME", "from-old").env("RAXSR_API_KEY", "old-key");
    });
    run(&|command| {
        command.env("RAXSR_USERNAME", "from-old").env("RAXSR_API_KEY", "old-key");
        command.env("SERVICE_REGISTRY_USERNAME", "from-env").env("SERVICE_REGISTRY_API_KEY", "env-key");
    });
    run(&|command| {
        command.env("SERVICE_REGISTRY_USERNAME", "from-env").env("SERVICE_REGISTRY_API_KEY", "env-key");
        command.args(["--username=typed", "--api-key=typed-key"]);
    });
    run(&|command| {
        command.env("SERVICE_REGISTRY_API_KEY_FILE", &file).args(["--username=typed", "--api-key=typed-key"]);
    });
    let expected = [
        ("from-file", "file-key"),
        ("from-file", "file-key"),
        ("from-old", "old-key"),
        ("from-env", "env-key"),
        ("typed", "typed-key"),
        ("typed", "typed-key"),
    ];
    let expected = expected.map(|(name, key)| (name.to_owned(), key.to_owned()));
    assert_eq!(logins(&peer), expected);
}

#[test]
fn where_to_log_in_is_told_by_rank_as_well() {
    let (place, peer, other) = (Place::new(), Peer::start(agree), Peer::start(agree));
    let elsewhere = other.url().replace("v1.0", "v2.0/tokens/");
    let run = |change: &dyn Fn(&mut Command)| {
        let mut command = list(&place, &peer);
        command.args(["--username=me", &key_file(&place)]);
        change(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (logins(&peer).len(), logins(&other).len())
    };
    assert_eq!(run(&|_| {}), (1, 0));
    assert_eq!(run(&|command| _ = command.env("RAXSR_AUTH_URL", &elsewhere)), (1, 1));
    assert_eq!(run(&|command| _ = command.env("SERVICE_REGISTRY_AUTH_URL", &elsewhere)), (1, 2));
    assert_eq!(run(&|command| _ = command.args(["--auth-url", &elsewhere, "--region=uk"])), (1, 3));
}

#[test]
fn half_a_login_and_broken_files_are_mistakes() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let broken = place.path().join("broken");
    fs::write(&broken, "[credentials]\napi_key sesame").unwrap();
    let unverified = place.path().join("unverified");
    fs::write(&unverified, "[ssl]\nverify = false").unwrap();
    let key = key_file(&place);
    let raxrc = |path: &str| ("RAXSR_RAXRC", path.to_owned());
    let none = ("RAXSR_RAXRC", String::new());
    for (option, variable, expected) in [
        ("--username=me", none.clone(), "a user name to log in with, but no key\nhint: give the key"),
        (&*key, none.clone(), "a key to log in with, but no user name\nhint: give the name"),
        ("--auth-url=ftp://x", none.clone(), "--auth-url: `ftp://x` is not an http or https URL\nhint: "),
        ("--auth-url=http://me:sesame@x/", none.clone(), "--auth-url: `http://***@x/` has a user name"),
        ("--region=fr", none.clone(), "--region"),
        ("--ca-cert=/no/such/file", none.clone(), "--ca-cert: cannot read `/no/such/file`: No such file"),
        (&*format!("--ca-cert={}", broken.display()), none.clone(), "holds no certificate"),
        ("--registry=http://host/v1.0?x", none, "--registry: `http://host/v1.0` has a query"),
        ("--username=me", raxrc("/no/such/file"), "cannot read `/no/such/file`"),
        ("--username=me", raxrc(&broken.display().to_string()), "a line in [credentials] has no `=`"),
        ("--username=me", raxrc(&unverified.display().to_string()), "not to verify certificates\nhint: "),
    ] {
        let mut wrapped = wrapper(&place, &peer, &[option]);
        wrapped.command.env(variable.0, &variable.1);
        let output = wrapped.output(&["touch", "started"]);
        assert_eq!(output.status.code(), Some(125), "{option}: {output:?}");
        let told = stderr(&output);
        assert!(told.contains(expected) && !told.contains("sesame"), "{option}: {told}");
        let output = list(&place, &peer).arg(option).env(variable.0, &variable.1).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}: {output:?}");
        assert!(stderr(&output).starts_with("raxsr: ") && stderr(&output).contains(expected), "{output:?}");
    }
    assert!(!place.path().join("started").exists());
    assert_eq!(peer.asked().len(), 0);
}

#[test]
fn a_key_that_everybody_can_read_is_warned_about() {
    let (place, peer) = (Place::new(), Peer::start(agree));
    let file = raxrc(&place, "[credentials]\nusername = me\napi_key = sesame\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = list(&place, &peer).output().unwrap();
    assert!(output.status.success());
    let expected =
        format!("raxsr: warning: every user of this machine can read the key in `{}`", file.display());
    assert!(stderr(&output).starts_with(&expected), "{output:?}");
}

#[test]
fn an_embedded_registry_asks_for_no_file_and_no_login() {
    let place = Place::new();
    raxrc(&place, "not an INI file");
    let mut command = place.program(RAXSR);
    command.env("HOME", place.path()).args(["--username=me", "services", "list"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_the_registry_says_of_a_person_s_request_is_passed_on() {
    let place = Place::new();
    let missing = || fault(404, "notFoundError", "Object \"Service\" with key \"web1\" does not exist");
    let peer = Peer::start(move |_| missing());
    let get = |peer: &Peer| program(&place, RAXSR, peer).args(["services", "get", "web1"]).output().unwrap();
    let output = get(&peer);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stderr(&output), format!("raxsr: no service `web1` in registry {}\n", peer.url()));
    let away = Peer::start(agree);
    let url = away.url();
    let command = program(&place, RAXSR, &away);
    drop(away);
    let mut command = command;
    let output = command.args(["services", "get", "web1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "raxsr: registry {url} is not available: cannot connect: Connection refused (os error 111)\n"
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn a_registry_that_is_away_at_first_is_registered_with_at_last() {
    let is_away = Arc::new(AtomicUsize::new(1));
    let peer = Peer::start({
        let is_away = Arc::clone(&is_away);
        move |asked| {
            if is_away.load(Ordering::SeqCst) == 1 { Reply::Close } else { agree(asked) }
        }
    });
    let place = Place::new();
    let log = place.path().join("log");
    let wrapper = wrapper(&place, &peer, &[]).start_with_log(&log, &["sleep", "600"]);
    let child = wrapper.child();
    wait_until("the failure", || says(&log, "cannot register, trying on"));
    is_away.store(0, Ordering::SeqCst);
    wait_until("a heartbeat", || peer.count(Asked::is_heartbeat) > 0);
    assert_eq!(wrapper.child(), child);
    assert!(says(&log, "registered at last"));
}
