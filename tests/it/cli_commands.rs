//! What the commands of `raxsr` do, beside showing.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;

use crate::support::{Place, RAXSR, Running, says, wait_until};

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// How it was refused: its exit status, and what it said.
fn refused(place: &Place, words: &[&str]) -> (Option<i32>, String) {
    let output = place.raxsr(words);
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn value(place: &Place, id: &str) -> String {
    done(&place.raxsr(&["configuration", "get", id, "--raw"]))
}

#[test]
fn a_wait_ends_when_enough_are_there_and_becomes_the_command() {
    let place = Place::new();
    let log = place.path().join("log");
    let mut command = place.program(RAXSR);
    command.args(["services", "wait", "--tag=db", "--min=2", "--", "sh", "-c", "echo started >&2; exit 7"]);
    let mut waiting = Running::start(command.stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    wait_until("the first look", || says(&log, "waiting for 2 services tagged `db`, 0 there"));
    let _one = place.wrapper(&["--id=db1", "--tags=db"]).start(&["sleep", "600"]);
    wait_until("the second look", || says(&log, "`db`, 1 there"));
    assert!(!waiting.has_ended());
    let _two = place.wrapper(&["--id=db2", "--tags=db"]).start(&["sleep", "600"]);
    assert_eq!(waiting.wait().code(), Some(7));
    assert!(says(&log, "started"));
}

#[test]
fn a_wait_in_vain_says_how_many_there_were() {
    let place = Place::new();
    let (code, said) = refused(&place, &["services", "wait", "--tag=db", "--timeout=100ms"]);
    assert_eq!(code, Some(1));
    assert!(said.ends_with("raxsr: 0 of 1 services tagged `db` after 100ms\n"), "{said}");
    let _one = place.wrapper(&["--id=db1", "--tags=db"]).start(&["sleep", "600"]);
    done(&place.raxsr(&["services", "wait", "--tag=db"]));
    let (code, said) = refused(&place, &["services", "wait", "--tag=db", "--", "/no/such/command"]);
    assert_eq!((code, said.lines().count()), (Some(127), 1), "{said}");
}

#[test]
fn a_wait_outlasts_a_registry_that_is_away() {
    let place = Place::new();
    let log = place.path().join("log");
    fs::write(place.path().join("state"), "no directory").unwrap();
    let mut command = place.program(RAXSR);
    command.args(["services", "wait", "--tag=db"]);
    let mut waiting = Running::start(command.stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    wait_until("the failure", || says(&log, "warning: registry"));
    fs::remove_file(place.path().join("state")).unwrap();
    let _one = place.wrapper(&["--id=db1", "--tags=db"]).start(&["sleep", "600"]);
    assert!(waiting.wait().success());
}

#[test]
fn addresses_are_safe_for_whoever_evaluates_them() {
    let place = Place::new();
    let start = |id: &str, metadata: &str| {
        let wrapper =
            place.wrapper(&["--id", id, "--tags=7-db", "--metadata", metadata]).start(&["sleep", "600"]);
        wait_until("the registration", || place.lists(id));
        wrapper
    };
    let _wrappers = [
        start("good", "host=db.example,port=5432"),
        start("evil", "host=$(reboot),port=1"),
        start("eval", "host=db,port=5432; reboot"),
        start("mute", "port=80"),
    ];
    let output = place.raxsr(&["services", "resolve", "--tag=7-db", "-f", "env"]);
    let script = done(&output) + "echo \"$_7_DB_ADDRESS $_7_DB_COUNT\"";
    assert_eq!(done(&place.program("sh").args(["-c", &script]).output().unwrap()), "db.example:5432 1\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("left out").count(), 3);
    let hosts = place.raxsr(&["services", "resolve", "good", "-f", "hosts"]);
    assert!(hosts.status.success() && hosts.stdout.is_empty(), "a name is no IP address: {hosts:?}");
    assert_eq!(refused(&place, &["services", "resolve", "mute"]).0, Some(3));
    assert_eq!(refused(&place, &["services", "resolve", "none"]).0, Some(3));
    assert_eq!(refused(&place, &["services", "list", "-f", "nginx"]).0, Some(2));
}

#[test]
fn a_whole_list_is_more_than_a_page() {
    let place = Place::new();
    let pairs: String = (0..1_001).map(|number| format!("key-{number:04}: v\n")).collect::<Vec<_>>().concat();
    let file = place.path().join("many.yaml");
    fs::write(&file, pairs).unwrap();
    done(&place.raxsr(&["configuration", "import", &file.display().to_string()]));
    let page = place.raxsr_json(&["configuration", "list", "--limit=1000"]);
    assert_eq!(page["metadata"]["next_marker"], "key-1000");
    let all = place.raxsr_json(&["configuration", "list", "--all"]);
    assert_eq!((&all["metadata"]["count"], &all["metadata"]["next_marker"]), (&1_001.into(), &().into()));
    let rest = place.raxsr_json(&["configuration", "list", "--all", "--marker=key-0999"]);
    assert_eq!(rest["metadata"]["count"], 2);
}

#[test]
fn a_value_comes_from_an_argument_a_file_or_standard_input() {
    let place = Place::new();
    let said = done(&place.raxsr(&["configuration", "set", "/prod/key", "one"]));
    assert_eq!(said, "Value for key \"/prod/key\" set to \"one\"\n");
    done(&place.raxsr(&["configuration", "set", "--id=/prod/key", "--value=--two"]));
    assert_eq!(value(&place, "/prod/key"), "--two");
    let file = place.path().join("value");
    fs::write(&file, "three\nlines\n\n").unwrap();
    done(&place.raxsr(&["configuration", "set", "/prod/key", "--file", &file.display().to_string()]));
    assert_eq!(value(&place, "/prod/key"), "three\nlines\n");
    let mut command = place.program(RAXSR);
    command.args(["configuration", "set", "/prod/key", "--file=-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"four\r\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(value(&place, "/prod/key"), "four");
    let said = done(&place.raxsr(&["configuration", "remove", "--id=/prod/key"]));
    assert_eq!(said, "Configuration value \"/prod/key\" has been removed\n");
    for (words, code) in [
        (&["get", "/prod/key"][..], 3),
        (&["remove", "/prod/key"], 3),
        (&["set", "/prod/key"], 2),
        (&["set"], 2),
        (&["set", "a b", "v"], 2),
        (&["set", "key", ""], 2),
        (&["set", "key", "v", "--value=v"], 2),
        (&["set", "key", "v", "--file=/no/such/file"], 2),
        (&["set", "key", "--file=/no/such/file"], 2),
        (&["get", "prod/key"], 2),
    ] {
        assert_eq!(refused(&place, &[&["configuration"], words].concat()).0, Some(code), "{words:?}");
    }
}

#[test]
fn a_namespace_goes_to_a_file_and_comes_back() {
    let place = Place::new();
    let nasty = "two\nlines: \"quoted\" # = {[ 😀\u{1b}";
    for (id, text) in
        [("/prod/nasty", nasty), ("/prod/port", "8000"), ("/prod/yes", "yes"), ("/other/key", "x")]
    {
        done(&place.raxsr(&["configuration", "set", id, text]));
    }
    for format in ["yaml", "json"] {
        let file = place.path().join(format);
        fs::write(&file, done(&place.raxsr(&["configuration", "export", "prod", "-f", format]))).unwrap();
        let again = Place::new();
        let path = file.display().to_string();
        let told = done(&again.raxsr(&["configuration", "import", &path]));
        assert!(told.ends_with("3 created, 0 changed, 0 removed, 0 unchanged\n"), "{told}");
        assert_eq!(value(&again, "/prod/nasty"), nasty);
        assert_eq!(value(&again, "/prod/yes"), "yes");
        let told = done(&again.raxsr(&["configuration", "import", &path]));
        assert_eq!(told, "0 created, 0 changed, 0 removed, 3 unchanged\n");
    }
}

#[test]
fn an_import_shows_the_difference_and_a_dry_run_only_that() {
    let place = Place::new();
    for (id, text) in [("/prod/a-key", "1"), ("/prod/old", "2"), ("/other/key", "x")] {
        done(&place.raxsr(&["configuration", "set", id, text]));
    }
    let file = place.path().join("new.yaml");
    fs::write(&file, "/prod/a-key: '3'\n/prod/new: |\n  a\n  b\n").unwrap();
    let path = file.display().to_string();
    let words = ["configuration", "import", &path, "--namespace=prod", "--prune"];
    let difference = "~ /prod/a-key: 1 -> 3\n+ /prod/new: a\\nb\\n\n- /prod/old: 2\n\
                      1 created, 1 changed, 1 removed, 0 unchanged\n";
    assert_eq!(done(&place.raxsr(&[&words[..], &["--dry-run"]].concat())), difference);
    assert_eq!(value(&place, "/prod/a-key"), "1");
    assert_eq!(done(&place.raxsr(&words)), difference);
    assert_eq!(value(&place, "/prod/new"), "a\nb\n");
    assert_eq!(value(&place, "/other/key"), "x");
    assert_eq!(refused(&place, &["configuration", "get", "/prod/old"]).0, Some(3));
}

#[test]
fn an_import_that_is_wrong_changes_nothing() {
    let place = Place::new();
    let file = place.path().join("wrong.yaml");
    let path = file.display().to_string();
    for (text, expected) in [
        ("/prod/key: '1'\n/prod/port: 8000\n", "`/prod/port` is no text"),
        ("/prod/key: '1'\nprod/key: '2'\n", "configuration id `prod/key`"),
        ("/prod/key: '1'\n/prod/none: ''\n", "configuration value"),
        ("/prod/key: '1'\n/other/key: '2'\n", "`/other/key` is outside the namespace"),
        ("/prod/key: '1'\n  wrong: [\n", "cannot import"),
        ("- /prod/key\n", "no mapping"),
        ("", "no mapping"),
    ] {
        fs::write(&file, text).unwrap();
        let (code, said) = refused(&place, &["configuration", "import", &path, "--namespace=prod"]);
        assert!(code == Some(2) && said.contains(expected), "{text:?}: {said}");
        assert_eq!(refused(&place, &["configuration", "get", "/prod/key"]).0, Some(3));
    }
}

#[test]
fn what_a_registry_does_not_have_is_told_with_who_has_it() {
    let place = Place::new();
    let (code, said) = refused(&place, &["account", "rate-limits"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("not supported by embedded registries") && said.contains("hint: supported by servers"),
        "{said}"
    );
}

#[test]
fn both_programs_have_completions_and_manual_pages() {
    let place = Place::new();
    for program in ["raxsr", "service-registry-wrapper"] {
        for shell in ["bash", "zsh", "fish"] {
            let text = done(&place.raxsr(&["completions", shell, "--program", program]));
            assert!(text.contains(program), "{shell}: {text}");
        }
        let page = done(&place.raxsr(&["man", "--program", program]));
        assert!(page.contains(&format!(".TH {program} 1")), "{page}");
    }
    let page = done(&place.raxsr(&["man", "configuration", "import"]));
    assert!(page.contains(".TH raxsr-configuration-import 1") && page.contains("dry"), "{page}");
    assert_eq!(refused(&place, &["man", "nonsense"]).0, Some(2));
}

#[test]
fn a_wait_can_be_interrupted() {
    let place = Place::new();
    let log = place.path().join("log");
    let mut command = place.program(RAXSR);
    command.args(["services", "wait", "--tag=db"]);
    let mut waiting = Running::start(command.stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    wait_until("the first look", || says(&log, "waiting for"));
    waiting.signal(Signal::SIGINT);
    assert!(!waiting.wait().success());
}
