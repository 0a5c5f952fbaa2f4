//! Every command of `raxsr`, in every format.

mod account;
mod configuration;
mod events;
mod services;
mod session;

use service_registry_wrapper::model::{InstanceId, Registration};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, connect};

use crate::support::{Place, still};

const FORMATS: [&str; 5] = ["table", "csv", "json", "yaml", "html"];

/// What a command shows in each of these formats.
fn shown(place: &Place, words: &[&str], formats: &[&str]) -> String {
    let one = |format: &&str| {
        let output = place.raxsr(&[words, &["-f", format]].concat());
        assert!(output.status.success(), "{output:?}");
        let text = still(&String::from_utf8(output.stdout).unwrap());
        format!("$ raxsr {} -f {format}\n{text}", words.join(" "))
    };
    formats.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// A place with services that nobody keeps: what is shown of them does not change.
fn with_services() -> Place {
    let place = Place::new();
    let nasty = r#"{"host": "::1", "port": "5432", "note": "a \"quote\", <b>\n=cmd() 😀"}"#;
    for (id, tags, metadata) in [
        ("db-1", r#"["db", "=cmd()"]"#, nasty),
        ("web-1", r#"["www"]"#, r#"{"host": "10.0.0.7", "port": "80"}"#),
    ] {
        let json =
            format!(r#"{{"id": "{id}", "heartbeat_timeout": 120, "tags": {tags}, "metadata": {metadata}}}"#);
        let registration: Registration = serde_json::from_str(&json).unwrap();
        let (instance, holder) = (InstanceId::unique(), "the test".to_owned());
        let claim = Claim { instance, holder, if_taken: IfTaken::Refuse };
        let registry = connect(&place.url().parse().unwrap(), &Access::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(registry.register(&registration, &claim)).unwrap();
    }
    place
}

fn set(place: &Place, id: &str, value: &str) {
    assert!(place.raxsr(&["configuration", "set", id, value]).status.success());
}
