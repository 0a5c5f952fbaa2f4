//! Placeholders in `--id`, `--tags` and `--metadata`.

use std::fs;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::{Place, Wrapper, wait_for, wait_until};

/// The one service that is listed once this runs, and the pid of its command.
#[track_caller]
fn registered(place: &Place, wrapper: Wrapper) -> (Value, String) {
    let running = wrapper.start(&["sleep", "600"]);
    wait_until("the registration", || !place.services().is_empty());
    let service = place.raxsr_json(&["services", "list"])["values"][0].clone();
    (service, running.child().to_string())
}

#[track_caller]
fn metadata(options: &[&str]) -> Value {
    let place = Place::new();
    let mut wrapper = place.wrapper(options);
    wrapper.command.env("ZONE", "eu-1,b");
    registered(&place, wrapper).0["metadata"].clone()
}

#[test]
fn id_tags_and_metadata_are_filled_in() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&[
        "--id={env:ROLE}-{port}",
        "--tags={env:ZONE},port-{port}",
        "--metadata=where={ip}:{port},{env:ROLE}=yes,lo={ip:lo}",
        "--address=192.0.2.7",
        "--port=8000",
    ]);
    wrapper.command.envs([("ROLE", "api"), ("ZONE", "eu-1,b")]);
    let (service, _) = registered(&place, wrapper);
    assert_eq!(service["id"], "api-8000");
    // What is filled in is not taken apart.
    assert_eq!(service["tags"], json!(["eu-1,b", "port-8000"]));
    assert_eq!(
        service["metadata"],
        json!({"where": "192.0.2.7:8000", "api": "yes", "lo": "127.0.0.1", "host": "192.0.2.7", "port": "8000"})
    );
}

#[test]
fn the_pid_is_the_commands() {
    let place = Place::new();
    let wrapper = place.wrapper(&["--id=api-{pid}", "--tags={pid}", "--metadata=pid={pid}"]);
    let (service, pid) = registered(&place, wrapper);
    assert_eq!(service["id"], format!("api-{pid}"));
    assert_eq!(service["tags"], json!([pid]));
    assert_eq!(service["metadata"], json!({"pid": pid}));
}

#[test]
fn this_machine_and_this_moment_are_known() {
    let before = SystemTime::now();
    let metadata = metadata(&["--metadata=host={hostname},at={started},again={started}"]);
    let host = nix::unistd::gethostname().unwrap();
    assert_eq!(metadata["host"], host.to_str().unwrap());
    let text = metadata["at"].as_str().unwrap();
    let at = humantime::parse_rfc3339(text).unwrap();
    assert!(at <= SystemTime::now() && at + std::time::Duration::from_secs(1) > before, "{text}");
    assert_eq!(metadata["again"], metadata["at"]);
}

#[test]
fn a_version_is_the_first_line_that_a_command_prints() {
    for (command, expected) in [
        ("echo 1.2.3", "1.2.3"),
        (r"printf '\n  1.2  \nmore\n'", "1.2"),
        ("echo nginx/1.27 >&2", "nginx/1.27"),
        ("echo 'v 7' | awk '{print $2}'", "7"),
        ("seq 1 1000000", "1"),
        // Who has the streams open, too, is not waited for.
        ("sleep 30 & echo 3", "3"),
    ] {
        let option = format!("--metadata=version={{version:{command}}}");
        assert_eq!(metadata(&[&option]), json!({"version": expected}), "{command}");
    }
}

#[test]
fn a_command_is_asked_once_and_knows_no_secret() {
    let place = Place::new();
    let script = "echo x >> asked; echo ${SERVICE_REGISTRY_API_KEY-none}";
    let mut wrapper = place.wrapper(&[&format!("--metadata=a={{version:{script}}},b={{version:{script}}}")]);
    wrapper.command.env("SERVICE_REGISTRY_API_KEY", "sesame");
    let (service, _) = registered(&place, wrapper);
    assert_eq!(service["metadata"], json!({"a": "none", "b": "none"}));
    assert_eq!(fs::read_to_string(place.path().join("asked")).unwrap(), "x\n");
}

#[test]
fn braces_that_are_no_placeholder_are_themselves() {
    for (written, expected) in [
        (r#"{"a":{"b":[1\,{}]}}"#, r#"{"a":{"b":[1,{}]}}"#),
        ("{{hostname}}", "{hostname}"),
        ("{1..3}}", "{1..3}}"),
    ] {
        assert_eq!(metadata(&["--metadata", &format!("text={written}")]), json!({"text": expected}));
    }
}

#[test]
fn variables_say_the_same() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&[]);
    wrapper.command.envs([
        ("ROLE", "api"),
        ("SERVICE_REGISTRY_ID", "{env:ROLE}-{pid}"),
        ("SERVICE_REGISTRY_TAGS", "{env:ROLE}"),
        ("SERVICE_REGISTRY_METADATA", "role={env:ROLE}"),
    ]);
    let (service, pid) = registered(&place, wrapper);
    assert_eq!(service["id"], format!("api-{pid}"));
    assert_eq!((&service["tags"], &service["metadata"]), (&json!(["api"]), &json!({"role": "api"})));
}

#[test]
fn what_cannot_be_filled_in_is_told_and_nothing_is_started() {
    let long = "x".repeat(65);
    for (option, message, hint) in [
        ("--id={hostnam}", "--id: `{hostnam}` is no placeholder", "{hostname}"),
        ("--tags=a,${ZONE}", "--tags: `{ZONE}` is no placeholder", "{env:ZONE}"),
        ("--metadata=a={pid", "--metadata: `{pid` has no `}` at its end", "{{"),
        ("--metadata={env}=a", "--metadata: `{env}` lacks what it is of: {env:NAME}", "{env:NAME}"),
        ("--id={env:NO_SUCH}", "--id: `{env:NO_SUCH}`: there is no such variable", "set it"),
        ("--id={env:SERVICE_REGISTRY_API_KEY}", "is no secret any more", "there are"),
        ("--id=web-{port}", "--id: `{port}`: there is no port", "--port"),
        ("--tags={ip:nosuch0}", "--tags: `{ip:nosuch0}`: there is no interface `nosuch0`", "127.0.0.1"),
        ("--tags={version:false}", "--tags: `{version:false}`: it failed: exit status: 1", "shell"),
        ("--tags={version:true}", "--tags: `{version:true}`: it prints nothing", "shell"),
        ("--tags={version:/no/such}", "it cannot be run", "shell"),
        ("--tags={version:sleep 600}", "it has not ended within 5 s", "shell"),
        (
            "--id={env:ZONE}",
            "--id: `{env:ZONE}` has become `eu 1`: service id `eu 1` may only",
            "placeholders",
        ),
        ("--id={env:LONG}", "--id: `{env:LONG}` has become `xxx", "placeholders"),
        (
            "--metadata=a={env:EMPTY}",
            "--metadata: `{env:EMPTY}` has become ``: metadata value",
            "placeholders",
        ),
        // A command may have pid 7, or pid 4194304.
        ("--id={pid}", "--id: `{pid}` has become `1`: service id", "placeholders"),
        (&format!("--id={}{{pid}}", &long[..59]), "has become `xxxx", "placeholders"),
    ] {
        let place = Place::new();
        let mut wrapper = place.wrapper(&[option]);
        wrapper.command.envs([("ZONE", "eu 1"), ("EMPTY", ""), ("LONG", &*format!("{long}y"))]);
        wrapper.command.env("SERVICE_REGISTRY_API_KEY", "sesame");
        let output = wrapper.output(&["touch", "started"]);
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((output.status.code(), lines.len()), (Some(125), 2), "{option}: {text}");
        assert!(lines[0].starts_with("service-registry-wrapper: ") && lines[0].contains(message), "{text}");
        assert!(lines[1].starts_with("hint: ") && lines[1].contains(hint), "{option}: {text}");
        assert!(!text.contains("sesame"), "{text}");
        assert!(!place.path().join("started").exists() && !place.registry_file().exists(), "{option}");
    }
}

#[test]
fn a_command_that_takes_too_long_is_not_left_behind() {
    let place = Place::new();
    let output = place.wrapper(&["--tags={version:sh -c 'echo $$ > pid; sleep 600'}"]).output(&["true"]);
    assert_eq!(output.status.code(), Some(125));
    let pid = wait_for("its pid", || fs::read_to_string(place.path().join("pid")).ok());
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    wait_until("its end", || nix::sys::signal::kill(pid, None).is_err());
}

#[test]
fn an_id_is_of_no_port_that_can_change() {
    let place = Place::new();
    let output = place.wrapper(&["--id=web-{port}", "--port=auto"]).output(&["touch", "started"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(
        text.contains("--id: `{port}`: with --port=auto it can change") && text.contains("--port-env"),
        "{text}"
    );
    assert!(!place.path().join("started").exists());
}
