//! A command that has ended by itself leaves word of it in its entry, and in the event of its end.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::faults::all;
use crate::support::lab::{Kind, Laboratory, Patient};
use crate::support::{Place, wait_for, wait_until};

/// What its entry says of itself at `url`, while it is there.
fn metadata(url: &str, id: &str) -> Value {
    Place::new().raxsr_json(&["--registry", url, "services", "get", id])["metadata"].clone()
}

/// What the events said of it when it ended like this.
fn told(url: &str, id: &str, kind: &str) -> Value {
    let place = Place::new();
    wait_for("the event", || {
        let list = place.raxsr_json(&["--registry", url, "events", "list", "--type", kind]);
        let events = list["values"].as_array().unwrap().clone();
        events.into_iter().find(|event| event["payload"]["id"] == id)
    })["payload"]["metadata"]
        .clone()
}

fn wrapped(place: &Place, options: &[&str], script: &str) -> Output {
    place.wrapper(&[&["--id=web1", "--interval=3"], options].concat()).output(&["sh", "-c", script])
}

#[test]
fn a_crash_is_told_by_every_registry_until_the_entry_expires() {
    all(&Kind::ALL, |&kind| {
        let test = "a_crash_is_told_by_every_registry_until_the_entry_expires";
        let Some(laboratory) = Laboratory::start(kind, test) else { return };
        let url = laboratory.url();
        let mut patient =
            Patient::start(url, "web1", &["--interval=6", "--tombstone", "--metadata=port=80,name=web"]);
        wait_until("the registration", || laboratory.lists("web1"));
        patient.wait_until_it_says("registered");
        patient.lose_child();
        assert_eq!(patient.count("WARN"), patient.count("it gives no"), "{:#?}", patient.said());
        let metadata = metadata(url, "web1");
        assert_eq!((&metadata["signal"], &metadata["port"]), (&"KILL".into(), &"80".into()), "{metadata}");
        assert!(metadata["uptime"].as_str().unwrap().ends_with('s'), "{metadata}");
        assert!(metadata["ended_at"].as_str().unwrap().ends_with('Z'), "{metadata}");
        wait_until("its end in the registry", || {
            laboratory.listed().is_some_and(|listed| !listed.contains("web1"))
        });
        if matches!(kind, Kind::File | Kind::Server) {
            assert_eq!(told(url, "web1", "service.timeout"), metadata);
        }
    });
}

#[test]
fn an_exit_status_is_the_commands_and_the_entrys() {
    let place = Place::new();
    let registered = "until raxsr services get web1 >/dev/null 2>&1; do :; done;";
    let registered = registered.replace("raxsr", crate::support::RAXSR);
    let output = wrapped(&place, &["--tombstone"], &format!("{registered} exit 7"));
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(metadata(&place.url(), "web1")["exit_status"], "7");
}

#[test]
fn an_entry_says_nothing_of_an_end_that_was_asked_for_or_unless_it_is_to() {
    let place = Place::new();
    let mut patient = Patient::start(&place.url(), "asked", &["--interval=6", "--tombstone"]);
    patient.wait_until_it_says("registered");
    patient.stop();
    assert_eq!(told(&place.url(), "asked", "service.remove"), serde_json::json!({}));
    let mut patient = Patient::start(&place.url(), "plain", &["--interval=6"]);
    patient.wait_until_it_says("registered");
    patient.lose_child();
    assert_eq!(metadata(&place.url(), "plain"), serde_json::json!({}));
}

#[test]
fn an_end_does_not_wait_long_for_a_registry() {
    let test = "an_end_does_not_wait_long_for_a_registry";
    let Some(laboratory) = Laboratory::start(Kind::Server, test) else { return };
    let mut patient = Patient::start(laboratory.url(), "web1", &["--interval=120", "--tombstone"]);
    patient.wait_until_it_says("registered");
    laboratory.freeze();
    let lag = patient.lose_child();
    assert!(lag >= Duration::from_millis(250) && lag < Duration::from_secs(5), "{lag:?}");
    assert_eq!(patient.count("the entry may not say how the command has ended"), 1, "{:#?}", patient.said());
    laboratory.thaw();
}
