//! The session in the README is what happens.

use std::path::Path;

use service_registry_wrapper::model::{InstanceId, Registration};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, connect};

use crate::support::server::Server;
use crate::support::{RAXSR, still};

/// The commands of the session, each with what it prints.
fn session() -> Vec<(&'static str, String)> {
    let readme = include_str!("../../../README.md");
    let (_, session) = readme.split_once("```console\n").unwrap();
    let (session, _) = session.split_once("```").unwrap();
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in session.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, printed))) => printed.extend([line, "\n"]),
            (None, None) => panic!("{line}"),
        }
    }
    commands
}

#[tokio::test]
async fn the_session_of_the_readme_is_as_it_is_told() {
    let server = Server::open();
    let url = format!("{}/v1.0", server.url());
    let registration: Registration = serde_json::from_value(serde_json::json!({
        "id": "my-host1-api0", "heartbeat_timeout": 20, "tags": ["api", "www"],
        "metadata": {"host": "localhost", "port": "8000"},
    }))
    .unwrap();
    let (instance, holder) = (InstanceId::unique(), "the test".to_owned());
    let claim = Claim { instance, holder, if_taken: IfTaken::Refuse };
    let registry = connect(&url.parse().unwrap(), &Access::default());
    registry.register(&registration, &claim).await.unwrap();
    let programs = Path::new(RAXSR).parent().unwrap().display().to_string();
    for (words, expected) in session() {
        if words.starts_with("export RAXSR_API_URL=") {
            continue;
        }
        let mut command = server.place.program("/bin/sh");
        command.env_remove("SERVICE_REGISTRY_URL").env("RAXSR_API_URL", &url).env("PATH", &programs);
        let output = command.args(["-c", words]).output().unwrap();
        assert_eq!(still(&String::from_utf8_lossy(&output.stdout)), still(&expected), "{words}: {output:?}");
    }
}
