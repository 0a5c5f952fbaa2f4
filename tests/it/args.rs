//! The command line: what it means, and what is told when it means nothing.

use std::fs;
use std::process::Output;

use serde_json::json;

use crate::support::{Place, wait_until};

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asserts that this is refused with 125 and one line (and perhaps a hint), and that nothing was started.
#[track_caller]
fn is_refused(place: &Place, options: &[&str], expected: &str) {
    let output = place.wrapper(options).output(&["touch", "started"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(125), "{options:?}: {text}");
    assert!(text.starts_with("service-registry-wrapper: ") && text.contains(expected), "{options:?}: {text}");
    let (message, hint) = text.split_once('\n').unwrap();
    assert!(!message.ends_with('.'), "{message}");
    assert!(hint.is_empty() || hint.starts_with("hint: ") && hint.matches('\n').count() == 1, "{text}");
    assert!(!place.path().join("started").exists(), "{options:?}: something was started");
}

#[test]
fn mistakes_are_told_in_a_line_and_nothing_is_started() {
    let place = Place::new();
    let too_many_tags = format!("--tags={}", ["x"; 11].join(","));
    let too_long_a_tag = format!("--tags={}", "x".repeat(56));
    let too_long_an_id = format!("--id={}", "x".repeat(66));
    let too_many_pairs =
        format!("--metadata={}", (0..21).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(","));
    for (option, expected) in [
        ("--id=a", "--id"),
        ("--id=a b c", "`a b c`"),
        (&too_long_an_id, "3 to 65"),
        (&too_many_tags, "--tags: 11 tags"),
        (&too_long_a_tag, "--tags: tag"),
        ("--metadata=port", "`port` is not of the form KEY=VALUE"),
        ("--metadata=port=", "--metadata: metadata value"),
        ("--metadata==8000", "--metadata: metadata key"),
        (&too_many_pairs, "--metadata: 21 metadata pairs"),
        ("--interval=2", "3 to 120"),
        ("--interval=121", "3 to 120"),
        ("--interval=1h", "3 to 120"),
        ("--interval=3500ms", "3 to 120"),
        ("--interval=soon", "`soon`"),
        ("--retries=x", "--retries"),
        ("--deregister=sometimes", "--deregister"),
        ("--on-conflict=fight", "--on-conflict"),
        ("--log-level=loud", "--log-level"),
        ("--registry=nonsense", "--registry: `nonsense` is not a URL"),
        ("--registry=eureka://localhost:8761", "does not support eureka registries"),
        ("--registry=sqlite://relative.db", "sqlite:///absolute/path"),
        ("--api-key-file=/no/such/file", "cannot read `/no/such/file`"),
        ("--intervall=20", "--intervall"),
        ("--abort-on-failure=maybe", "--abort-on-failure"),
        ("--port=0", "1 to 65535, or `auto`"),
        ("--port-env=1X", "--port-env"),
        ("--ready-when=soon", "--ready-when: `soon` is not known"),
        ("--ready-when=fd:2", "`2` is no descriptor from 3 to 255"),
        ("--ready-when=fd:3,fd:4", "there can be one `fd:N`"),
        ("--ready-when=after:soon", "`soon` is no time"),
        ("--ready-when=tcp:0", "`0` is no port from 1 to 65535"),
        ("--ready-when=http://me:sesame@[", "no URL of a page"),
        ("--ready-timeout=0", "1 ms to 1 day"),
        ("--min-uptime=2d", "0 to 1 day"),
        ("--check=notify", "--check: `notify` is not known"),
        ("--check=exec:", "has no command"),
        ("--check-interval=1ms", "100 ms to 1 hour"),
        ("--check-rise=0", "1 to 100"),
        ("--check-fall=101", "1 to 100"),
        ("--on-unhealthy=panic", "--on-unhealthy"),
    ] {
        is_refused(&place, &[option], expected);
    }
    assert!(!place.registry_file().exists());
}

#[test]
fn an_empty_key_file_is_a_mistake() {
    let place = Place::new();
    let file = place.path().join("key");
    fs::write(&file, "\n").unwrap();
    is_refused(&place, &[&format!("--api-key-file={}", file.display())], "holds no key");
}

#[test]
fn no_command_is_a_mistake() {
    let output = Place::new().wrapper(&["--id=abc"]).output(&[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output).contains("<COMMAND>..."), "{output:?}");
}

#[test]
fn a_secret_in_a_mistake_is_not_shown() {
    let place = Place::new();
    for url in ["consul://user:sesame@host", "http://user:sesame@[", "user:sesame@host"] {
        let output = place.wrapper(&["--registry", url]).output(&["true"]);
        assert_eq!(output.status.code(), Some(125));
        assert!(!text(&output).contains("sesame"), "{output:?}");
    }
}

#[test]
fn help_and_version_are_answers_on_standard_output() {
    let place = Place::new();
    let help = place.wrapper(&["--help"]).output(&[]);
    assert!(help.status.success() && help.stderr.is_empty());
    let help = String::from_utf8(help.stdout).unwrap();
    for option in [
        "id",
        "name",
        "address",
        "port",
        "tags",
        "metadata",
        "interval",
        "abort-on-failure",
        "retries",
        "registry",
        "require",
        "username",
        "api-key",
        "api-key-file",
        "deregister",
        "on-conflict",
        "log-level",
        "log-format",
    ] {
        let name =
            if option == "registry" { "URL".to_owned() } else { option.to_uppercase().replace('-', "_") };
        assert!(help.contains(&format!("--{option}")), "no --{option} in {help}");
        assert!(
            help.contains(&format!("[env: SERVICE_REGISTRY_{name}")),
            "no variable for --{option} in {help}"
        );
    }
    assert!(
        help.contains("Exit status:") && help.contains("Examples:") && !help.contains("session-metadata")
    );
    let version = place.wrapper(&["--version"]).output(&[]);
    assert!(version.status.success());
    let expected = format!("service-registry-wrapper {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

#[test]
fn what_follows_the_command_is_the_commands() {
    let place = Place::new();
    let arguments = ["--port=8000", "--id=x", "-t", "--help", "--", "-x"];
    let output = place.wrapper(&["--id=abc"]).output(&[&["printf", "%s\n"], &arguments[..]].concat());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), arguments);
    let output = place.wrapper(&["--id", "abc", "--"]).output(&["printf", "%s\n", "--", "-x"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--\n-x\n");
}

#[test]
fn the_command_line_of_the_old_manual_works() {
    let place = Place::new();
    let options = [
        "--username=me",
        "--id=my-host1-api0",
        "--tags=api,www",
        "--metadata=port=8000,host=localhost,is_public=true",
        "--session-metadata=rack=r1,port=1",
        "--interval=20",
        "--retries=2",
    ];
    let mut wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("my-host1-api0"));
    let service = place.raxsr_json(&["services", "get", "my-host1-api0"]);
    assert_eq!(service["heartbeat_timeout"], 20);
    assert_eq!(service["tags"], json!(["api", "www"]));
    let expected = json!({"port": "8000", "host": "localhost", "is_public": "true", "rack": "r1"});
    assert_eq!(service["metadata"], expected);
    wrapper.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(wrapper.stderr().matches("--session-metadata").count(), 1);
}

#[test]
fn lists_repeat_and_commas_and_equal_signs_can_be_in_values() {
    let place = Place::new();
    let options = [
        "-t",
        "one,two",
        "--tags=three",
        "-m",
        r"a=1\,2,b=x=y",
        "--metadata",
        "c=,,",
        "--metadata=c=3",
        "--id=abc",
    ];
    let output = place.wrapper(&options).output(&["true"]);
    assert_eq!(output.status.code(), Some(125), "c has no value");
    let options = ["-t", "one,two", "--tags=three,", "-m", r"a=1\,2,b=x=y", "--metadata=c=3,c=4", "--id=abc"];
    let _wrapper = place.wrapper(&options).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("abc"));
    let service = place.raxsr_json(&["services", "get", "abc"]);
    assert_eq!(service["tags"], json!(["one", "two", "three"]));
    assert_eq!(service["metadata"], json!({"a": "1,2", "b": "x=y", "c": "4"}));
}

#[test]
fn every_option_has_its_variable_and_the_command_line_comes_first() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--tags=typed"]);
    wrapper
        .command
        .env("SERVICE_REGISTRY_ID", "from-env")
        .env("SERVICE_REGISTRY_TAGS", "env")
        .env("SERVICE_REGISTRY_METADATA", r"a=1,b=2\,3")
        .env("SERVICE_REGISTRY_INTERVAL", "1m")
        .env("SERVICE_REGISTRY_LOG_FORMAT", "json")
        .env("SERVICE_REGISTRY_LOG_LEVEL", "info")
        .env("SERVICE_REGISTRY_DEREGISTER", "never")
        .env("SERVICE_REGISTRY_ABORT_ON_FAILURE", "yes")
        // As container tools pass on what is not set.
        .env("SERVICE_REGISTRY_RETRIES", "")
        .env("SERVICE_REGISTRY_USERNAME", "");
    let mut wrapper = wrapper.start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("from-env"));
    let service = place.raxsr_json(&["services", "get", "from-env"]);
    assert_eq!(service["tags"], json!(["typed"]));
    assert_eq!(service["metadata"], json!({"a": "1", "b": "2,3"}));
    assert_eq!(service["heartbeat_timeout"], 60);
    wrapper.signal(nix::sys::signal::Signal::SIGTERM);
    let log = wrapper.stderr();
    assert!(place.lists("from-env"), "deregistered, although never was asked for");
    let registered = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(
        registered.into_iter().any(|line| line["message"] == "registered" && line["service"] == "from-env")
    );
}

#[test]
fn without_an_id_it_is_host_and_command() {
    let place = Place::new();
    let _wrapper = place.wrapper(&[]).start(&["/bin/sleep", "600"]);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    wait_until("the registration", || place.lists(&format!("{host}-sleep")));
}

#[test]
fn a_key_on_the_command_line_is_warned_about_and_no_key_reaches_the_command() {
    let place = Place::new();
    let key = place.path().join("key");
    fs::write(&key, "sesame\n").unwrap();
    let typed = place.wrapper(&["--api-key=sesame"]).output(&["env"]);
    assert!(text(&typed).contains("--api-key-file"), "{typed:?}");

    let mut wrapper = place.wrapper(&[]);
    wrapper.command.env("SERVICE_REGISTRY_API_KEY", "sesame").env("SERVICE_REGISTRY_API_KEY_FILE", &key);
    let safe = wrapper.output(&["env"]);
    assert!(safe.status.success());
    assert_eq!(text(&safe), "");
    for output in [typed, safe] {
        let seen = String::from_utf8(output.stdout).unwrap();
        assert!(!seen.contains("sesame") && !seen.contains("API_KEY"), "{seen}");
        assert!(seen.contains("SERVICE_REGISTRY_URL="), "{seen}");
    }
}
