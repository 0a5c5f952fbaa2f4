//! `raxsr doctor`: what it finds, and what it never shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::peer::{Asked, Peer, Reply, agree, fault};
use crate::support::pty::Terminal;
use crate::support::server::Server;
use crate::support::{Place, RAXSR};

const ACCOUNTS: &str = "[[account]]\nusername = \"alice\"\napi_key = \"sesame\"\ntenant = \"7777\"\n";

fn doctor(place: &Place, url: &str) -> Command {
    let mut command = place.program(RAXSR);
    command.env("SERVICE_REGISTRY_URL", url).env("HOME", place.path()).arg("doctor");
    command
}

/// What a program said, which is never the key.
#[track_caller]
fn said(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("sesame"), "{text}");
    text
}

#[track_caller]
fn told(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    said(&output)
}

/// The line of a check, with what follows it.
#[track_caller]
fn line<'a>(text: &'a str, check: &str) -> &'a str {
    let is_meant = |line: &&str| line.split_whitespace().nth(1) == Some(check);
    text.lines().find(is_meant).unwrap_or_else(|| panic!("no {check} in {text}"))
}

#[track_caller]
fn statuses(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', 'r']));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

fn key_file(place: &Place, key: &str) -> String {
    let file = place.path().join("key");
    fs::write(&file, key).unwrap();
    file.display().to_string()
}

fn raxrc(place: &Place, mode: u32, text: &str) -> String {
    let file = place.path().join(".raxrc");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

#[test]
fn an_embedded_registry_is_well_and_left_as_it_was() {
    let place = Place::new();
    let text = told(&mut doctor(&place, &place.url()), 0);
    assert_eq!(statuses(&text), ["ok"; 9], "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(
        line(&text, "registry"),
        format!("ok    registry       {} (SERVICE_REGISTRY_URL)", place.url())
    );
    assert!(line(&text, "credentials").ends_with("not needed"));
    assert!(line(&text, "clock").ends_with("the same machine's"));
    assert!(line(&text, "interval").ends_with("30s: a heartbeat about every 10.0 s"));
    assert!(place.services().is_empty());
    let events = place.events();
    let id = events[0].strip_prefix("join ").unwrap();
    assert_eq!(events[1..], [format!("remove {id}")]);
    let digits = id.strip_prefix("raxsr-doctor-").unwrap();
    assert!(digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    assert!(line(&text, "writable").contains(id));
}

#[test]
fn who_is_drained_is_a_warning() {
    let place = Place::new();
    assert!(place.raxsr(&["services", "drain", "web1"]).status.success());
    let text = told(&mut doctor(&place, &place.url()), 0);
    assert_eq!(line(&text, "drained"), "warn  drained        web1");
    assert!(text.contains("hint: `raxsr services undrain ID`"), "{text}");
    for number in 2..8 {
        place.raxsr(&["services", "drain", &format!("web{number}")]);
    }
    let text = told(&mut doctor(&place, &place.url()), 0);
    assert_eq!(line(&text, "drained"), "warn  drained        web1, web2, web3, web4, web5, and 2 more");
}

#[test]
fn programs_get_the_checks_as_data() {
    let place = Place::new();
    let checks = place.raxsr_json(&["doctor", "--interval=3"]);
    let names: Vec<_> = checks.as_array().unwrap().iter().map(|check| &check["check"]).collect();
    let expected = [
        "registry",
        "credentials",
        "reach",
        "authenticated",
        "writable",
        "heartbeat",
        "drained",
        "clock",
        "interval",
    ];
    assert_eq!(names, expected);
    assert_eq!((&checks[2]["status"], &checks[2]["remedy"]), (&Value::from("ok"), &Value::Null));
    let csv = place.raxsr(&["doctor", "-f", "csv"]);
    assert!(said(&csv).starts_with("Check,Status,Found,Remedy\nregistry,ok,"), "{csv:?}");
}

#[test]
fn a_server_is_well_and_each_origin_is_told() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (place, url) = (Place::new(), format!("{}/v1.0", server.url()));
    let key = key_file(&place, "sesame");
    let flags =
        told(doctor(&place, "").args(["--username=alice", "--api-key-file", &key, "--registry", &url]), 0);
    assert_eq!(statuses(&flags), ["ok"; 9], "{flags}");
    assert!(line(&flags, "registry").ends_with(&format!("{url} (--registry)")));
    let expected = format!(
        "user `alice` (--username), key from --api-key-file `{key}`, login at {}/v2.0 (default)",
        server.url()
    );
    assert!(line(&flags, "credentials").ends_with(&expected), "{flags}");

    let ours = told(
        doctor(&place, &url)
            .env("SERVICE_REGISTRY_USERNAME", "alice")
            .env("SERVICE_REGISTRY_API_KEY", "sesame"),
        0,
    );
    let expected = "user `alice` (SERVICE_REGISTRY_USERNAME), key from SERVICE_REGISTRY_API_KEY,";
    assert!(line(&ours, "credentials").contains(expected), "{ours}");

    let old = told(
        doctor(&place, "")
            .env("RAXSR_API_URL", &url)
            .env("RAXSR_USERNAME", "alice")
            .env("RAXSR_API_KEY", "sesame")
            .env("RAXSR_AUTH_URL", format!("{}/v2.0", server.url())),
        0,
    );
    assert!(line(&old, "registry").ends_with("(RAXSR_API_URL)"), "{old}");
    let expected = "user `alice` (RAXSR_USERNAME), key from RAXSR_API_KEY, login at ";
    assert!(line(&old, "credentials").contains(expected), "{old}");
    assert!(line(&old, "credentials").ends_with("(RAXSR_AUTH_URL)"), "{old}");

    let in_url = told(&mut doctor(&place, &url.replace("//", "//alice:sesame@")), 0);
    let expected = "user `alice` (the registry's URL), key from the registry's URL,";
    assert!(line(&in_url, "credentials").contains(expected), "{in_url}");
    assert!(line(&in_url, "registry").contains(&format!(" {url} ")), "{in_url}");
}

#[test]
fn a_raxrc_file_is_told_and_warned_of_when_everybody_can_read_it() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let place = Place::new();
    let text =
        format!("[credentials]\nusername = alice\napi_key = sesame\n[api]\nurl = {}/v1.0\n", server.url());
    let file = raxrc(&place, 0o600, &text);
    let safe = told(&mut doctor(&place, ""), 0);
    assert!(line(&safe, "registry").ends_with(&format!("(`{file}`: [api] url)")), "{safe}");
    let expected =
        format!("user `alice` (`{file}`: [credentials] username), key from `{file}`: [credentials] api_key,");
    assert!(line(&safe, "credentials").contains(&expected), "{safe}");
    assert_eq!(statuses(&safe), ["ok"; 9], "{safe}");
    raxrc(&place, 0o644, &text);
    let exposed = told(&mut doctor(&place, ""), 0);
    assert!(line(&exposed, "credentials").starts_with("warn"), "{exposed}");
    assert_eq!(exposed.matches("chmod it to 600").count(), 1, "{exposed}");
}

#[test]
fn a_key_on_the_command_line_is_a_warning_told_once() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let url = format!("{}/v1.0", server.url());
    let text =
        told(doctor(&Place::new(), &url).args(["--username=alice", "--api-key=sesame", "--interval=5s"]), 0);
    assert!(line(&text, "credentials").starts_with("warn"), "{text}");
    assert!(line(&text, "credentials").contains("key from --api-key,"), "{text}");
    assert_eq!(text.matches("use --api-key-file").count(), 1, "{text}");
    assert!(line(&text, "interval").starts_with("warn"), "{text}");
}

#[test]
fn a_server_that_is_down_fails_one_check_and_skips_the_rest() {
    let mut server = Server::open();
    server.kill();
    let text = told(&mut doctor(&Place::new(), &format!("{}/v1.0", server.url())), 1);
    let expected = ["ok", "ok", "fail", "skip", "skip", "skip", "skip", "skip", "ok"];
    assert_eq!(statuses(&text), expected, "{text}");
    assert!(line(&text, "credentials").ends_with("no login"), "{text}");
    assert!(line(&text, "reach").contains("is not available: cannot connect"), "{text}");
    assert!(text.contains("hint: see whether it is up"), "{text}");
    assert!(text.ends_with("raxsr: 1 of 9 checks failed\n"), "{text}");
}

#[test]
fn a_wrong_key_is_told_from_a_registry_out_of_reach() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let place = Place::new();
    let key = key_file(&place, "open-sesame");
    let url = format!("{}/v1.0", server.url());
    let text = told(doctor(&place, &url).args(["--username=alice", "--api-key-file", &key]), 1);
    let expected = ["ok", "ok", "ok", "fail", "skip", "skip", "skip", "skip", "ok"];
    assert_eq!(statuses(&text), expected, "{text}");
    assert!(line(&text, "authenticated").contains("refuses access: cannot log in at"), "{text}");
    assert!(text.contains("hint: check --username and --api-key-file"), "{text}");
}

#[test]
fn a_clock_that_is_off_is_a_warning() {
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let date = httpdate(an_hour_ago);
    let peer = Peer::start(move |asked: &Asked| match agree(asked) {
        Reply::Json(status, body) => Reply::With(status, "date", date.clone(), body),
        reply => reply,
    });
    let text = told(&mut doctor(&Place::new(), &peer.url()), 0);
    let clock = line(&text, "clock");
    assert!(clock.starts_with("warn") && clock.ends_with(" behind ours"), "{text}");
    assert!(text.contains("hint: set both clocks by NTP"), "{text}");
}

/// A time as HTTP has it.
fn httpdate(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut date = Command::new("date");
    let output = date
        .env("LC_ALL", "C")
        .args(["-u", &format!("-d@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn its_service_goes_also_when_heartbeats_fail() {
    let peer =
        Peer::start(
            |asked: &Asked| {
                if asked.is_heartbeat() { fault(404, "notFoundError", "gone") } else { agree(asked) }
            },
        );
    let text = told(&mut doctor(&Place::new(), &peer.url()), 1);
    assert!(line(&text, "heartbeat").starts_with("fail"), "{text}");
    assert!(line(&text, "writable").starts_with("ok"), "{text}");
    assert_eq!(peer.count(|asked| asked.method == "DELETE"), 1);
}

#[test]
fn a_registry_that_takes_nothing_fails_and_skips_heartbeats() {
    let peer = Peer::start(|asked: &Asked| {
        if asked.is_registration() { fault(503, "serviceUnavailable", "no") } else { agree(asked) }
    });
    let text = told(&mut doctor(&Place::new(), &peer.url()), 1);
    assert_eq!(statuses(&text)[4..], ["fail", "skip", "ok", "ok", "ok"], "{text}");
    // The registration may have taken effect.
    assert_eq!(peer.count(|asked| asked.method == "DELETE"), 1);
}

#[test]
fn slow_heartbeats_are_a_warning() {
    let peer = Peer::start(|asked: &Asked| {
        if asked.is_heartbeat() {
            wait(Duration::from_millis(600));
        }
        agree(asked)
    });
    let text = told(doctor(&Place::new(), &peer.url()).arg("--interval=3"), 0);
    assert!(line(&text, "heartbeat").starts_with("warn"), "{text}");
    assert!(text.contains("hint: choose a longer --interval"), "{text}");
}

#[expect(clippy::disallowed_methods, reason = "a slow server")]
fn wait(span: Duration) {
    std::thread::sleep(span);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let place = Place::new();
    let screen = |no_color: &str| {
        let mut command = doctor(&place, &place.url());
        command.env("NO_COLOR", no_color);
        let terminal = Terminal::start(command);
        terminal.wait_to_see("a heartbeat about every");
        terminal.screen()
    };
    assert!(screen("").contains("\x1b[32mok\x1b[0m    reach"));
    assert!(!screen("1").contains('\x1b'));
}

#[test]
fn an_interval_has_bounds() {
    let place = Place::new();
    for interval in ["2s", "3m", "soon"] {
        told(doctor(&place, &place.url()).args(["--interval", interval]), 2);
    }
}
