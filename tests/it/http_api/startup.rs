//! What a server is not started with, and what it says then.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{ACCOUNTS, Api, is_well, login};
use crate::support::server::{Server, write_accounts};
use crate::support::{Place, RAXSR, Running, is_there, says, wait_until};

const LOCAL: &str = "127.0.0.1:0";
const PUBLIC: &str = "0.0.0.0:0";
const USAGE: i32 = 2;
const REFUSED: i32 = 1;

/// What a server said that was not started: a line, and maybe a hint.
struct Refusal {
    said: String,
}

impl Refusal {
    /// Tries to start it.
    #[track_caller]
    fn of(place: &Place, listen: &str, options: &[&str], status: i32) -> Self {
        let (exit, said) = Server::refusal(place, listen, options);
        assert_eq!(exit.code(), Some(status), "{said}");
        let (first, hint) = said.split_once('\n').unwrap();
        assert!(first.starts_with("raxsr: "), "{said}");
        assert!(hint.is_empty() || hint.starts_with("hint: ") && hint.matches('\n').count() == 1, "{said}");
        assert!(!said.contains("alice-key") && !said.contains("PRIVATE KEY-"), "{said}");
        Self { said }
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        let line = self.said.lines().next().unwrap();
        assert!(line.contains(text), "{}", self.said);
        self
    }

    #[track_caller]
    fn hints(self, text: &str) {
        assert!(self.said.contains("\nhint: ") && self.said.contains(text), "{}", self.said);
    }

    #[track_caller]
    fn has_no_hint(self) {
        assert!(!self.said.contains("\nhint: "), "{}", self.said);
    }
}

/// Makes a key and a certificate of it for 127.0.0.1, in `<name>.key` and `<name>.pem`.
#[track_caller]
pub(super) fn make_certificate(place: &Path, name: &str) {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-keyout", &key, "-out", &certificate, "-days", "2", "-subj", "/CN=test"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    let made = openssl.current_dir(place).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn an_address_that_cannot_be_listened_on_is_told() {
    let place = Place::new();
    for nonsense in ["nonsense", "127.0.0.1", "127.0.0.1:65536", "localhost:80", ":80", ""] {
        Refusal::of(&place, nonsense, &[], USAGE).says("--listen");
    }
    let taken = TcpListener::bind(LOCAL).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refusal = Refusal::of(&place, &address, &[], REFUSED).says(&format!("cannot listen on {address}: "));
    refusal.hints("choose another --listen");
}

#[test]
fn a_file_of_accounts_that_is_of_no_use_is_told_without_its_keys() {
    let place = Place::new();
    let refusal = |options: &[&str]| Refusal::of(&place, LOCAL, options, USAGE).says("--accounts");
    let missing = place.path().join("missing").display().to_string();
    refusal(&["--accounts", &missing]).says(&format!("cannot read `{missing}`")).has_no_hint();
    let directory = place.path().display().to_string();
    refusal(&["--accounts", &directory]).says("cannot read");
    for (text, says) in [
        ("", "has no account"),
        ("# alice-key\n", "has no account"),
        ("[[account]]\nusername = \"alice\"\napi_key = alice-key\n", ", line 3: "),
        ("[[account]]\nusername = \"alice\"\napi_key = \"alice-key\ntenant = \"7777\"\n", ", line 3: "),
        ("[[account]]\nusername = \"alice\"\napi_key = \"alice-key\"\ntenant = 7777\n", ", line 4: "),
        ("[[account]]\nusername = \"alice\"\ntenant = \"7777\"\n", "account `alice` has no api_key"),
        ("alice-key", ", line 1: "),
        (&ACCOUNTS.replace("bob", "alice"), "account `alice` is there twice"),
        (&ACCOUNTS.replace("8888", "x"), "tenant `x` is not"),
    ] {
        let file = write_accounts(&place, text, 0o600);
        refusal(&["--accounts", &file]).says(says).hints("[[account]] with username");
    }
    for mode in [0o644, 0o640, 0o620, 0o604, 0o666] {
        let file = write_accounts(&place, ACCOUNTS, mode);
        let refusal = refusal(&["--accounts", &file]).says(&format!("(mode {mode:o})"));
        refusal.hints("chmod 600");
    }
}

#[test]
fn a_file_of_hashes_may_be_read_by_everybody() {
    let place = Place::new();
    let (_, bob) = ACCOUNTS.rsplit_once("[[account]]").unwrap();
    let file = write_accounts(&place, &format!("[[account]]{bob}"), 0o644);
    let server = Server::start(place, &["--accounts", &file]);
    login(&server, "bob").create("web1", 120);
}

#[test]
fn what_others_can_reach_needs_accounts_and_tls_or_consent() {
    let place = Place::new();
    let file = write_accounts(&place, ACCOUNTS, 0o600);
    let message = |missing: &str| format!("can be reached from other machines, and there is no {missing}");
    for listen in [PUBLIC, "[::]:0", "192.0.2.1:80"] {
        let refusal = Refusal::of(&place, listen, &[], USAGE).says(&message("--accounts"));
        refusal.hints("--insecure");
    }
    let refusal = Refusal::of(&place, PUBLIC, &["--accounts", &file], USAGE).says(&message("--tls-cert"));
    refusal.hints("--tls-key");
    let server = Server::start_at(place, PUBLIC, &["--insecure"]);
    let port = server.address().port();
    assert!(server.log().contains(&format!("serving http://0.0.0.0:{port}/v1.0 from ")), "{}", server.log());
    is_well(&server);
}

#[test]
fn a_certificate_and_a_key_that_are_of_no_use_are_told() {
    let place = Place::new();
    let file = |name: &str| place.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("cert.key"));
    let refusal = |options: &[&str]| Refusal::of(&place, LOCAL, options, USAGE);
    refusal(&["--tls-cert", &cert]).says("--tls-key");
    refusal(&["--tls-key", &key]).says("--tls-cert");
    let both = ["--tls-cert", &cert, "--tls-key", &key];
    refusal(&both).says(&format!("--tls-cert: cannot read `{cert}`: ")).has_no_hint();
    for garbage in ["", "garbage\n", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        fs::write(&cert, garbage).unwrap();
        refusal(&both).says("--tls-cert: ").says(&cert).hints("PEM");
    }
    if !is_there("openssl", "a_certificate_and_a_key_that_are_of_no_use_are_told") {
        return;
    }
    make_certificate(place.path(), "cert");
    make_certificate(place.path(), "other");
    let with_key = |key: &str| refusal(&["--tls-cert", &cert, "--tls-key", &file(key)]);
    with_key("missing").says("--tls-key: cannot read").has_no_hint();
    with_key("cert.pem").says("--tls-key: cannot read").hints("PEM");
    let mismatch = with_key("other.key").says("--tls-cert and --tls-key do not fit together");
    mismatch.hints("name the key");
    // In the right frame, but no certificate.
    fs::write(&cert, "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n").unwrap();
    refusal(&both).says(&format!("--tls-cert: `{cert}` ")).hints("certificate");
}

#[test]
fn a_file_that_is_no_registry_is_told_and_left_alone() {
    for content in ["nonsense\n".repeat(2000), "note\n".to_owned()] {
        let place = Place::new();
        fs::create_dir(place.registry_file().parent().unwrap()).unwrap();
        fs::write(place.registry_file(), &content).unwrap();
        let refusal = Refusal::of(&place, LOCAL, &[], REFUSED).says("cannot open the registry: ");
        refusal.says(&place.url()).hints("move the file away");
        assert_eq!(fs::read_to_string(place.registry_file()).unwrap(), content);
    }
    let place = Place::new();
    fs::create_dir_all(place.registry_file()).unwrap();
    Refusal::of(&place, LOCAL, &[], REFUSED).says("is a directory");
}

#[test]
fn a_login_lasts_for_a_second_at_least() {
    let place = Place::new();
    for nonsense in ["0", "0s", "999ms", "-1", "soon", ""] {
        let option = format!("--token-lifetime={nonsense}");
        Refusal::of(&place, LOCAL, &[&option], USAGE).says("--token-lifetime");
    }
}

#[test]
fn what_is_to_go_wrong_has_to_be_said_right() {
    let place = Place::new();
    let refusal = |spec: &str| Refusal::of(&place, LOCAL, &["--chaos", spec], USAGE);
    refusal("fial:20%").says("--chaos: `fial:20%`: there is no `fial`").hints("say fail, delay, hang");
    refusal("fail:20%,hang:0%").says("--chaos: `hang:0%`: `0%` is no percentage").hints("`fail:20%`");
    refusal("fail=200").says("`200` is no status of a failure").hints("from 400 to 599");
    refusal("delay=soon").says("`soon` is no span of time").hints("200ms");
    refusal("fail@10s+5s/1s").says("begins again before it has ended").hints("@10s+5s/1m");
    refusal("seed=1").says("there is nothing to go wrong").hints("say fail");
    let repeated = ["--chaos=fail,seed=1", "--chaos=seed=2"];
    Refusal::of(&place, LOCAL, &repeated, USAGE).says("`seed=2`: there is a seed already").hints("seed=42");
    assert!(!place.registry_file().exists(), "nothing was begun");
}

#[test]
fn an_empty_variable_is_none() {
    let place = Place::new();
    let log = place.path().join("log");
    let mut command = place.program(RAXSR);
    for name in [
        "ACCOUNTS",
        "TLS_CERT",
        "TLS_KEY",
        "INSECURE",
        "TOKEN_LIFETIME",
        "MAX_SERVICES",
        "CHAOS",
        "LOG_LEVEL",
    ] {
        command.env(format!("RAXSR_{name}"), "");
    }
    command.args(["serve", "--listen", LOCAL]).stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut server = Running::start(&mut command);
    wait_until("the server", || {
        assert!(!server.has_ended(), "{}", fs::read_to_string(&log).unwrap());
        says(&log, "serving http://127.0.0.1:")
    });
}

#[test]
fn its_health_is_told_to_everybody() {
    for server in [Server::open(), Server::with_accounts(ACCOUNTS, &[])] {
        let api = Api::new(&server, "");
        let health = api.get("/health").is(200);
        assert_eq!(health.json(), json!({"status": "ok"}));
        let page = api.get("/").is(200);
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
        assert!(page.text().contains("<!DOCTYPE html>") && page.text().contains("/v1.0"), "{page:?}");
    }
}
