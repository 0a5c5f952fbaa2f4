//! Registers a service, keeps it for a while, lists what is there, and withdraws it.
//!
//!     cargo run --example register -- http://127.0.0.1:9000/v1.0 [USERNAME KEY-FILE]

use std::error::Error;
use std::num::NonZeroU32;
use std::time::Duration;

use service_registry_wrapper::lease::driver::{Task, Wish, keep};
use service_registry_wrapper::lease::{BootClock, OnConflict, Policy, Standing};
use service_registry_wrapper::model::{HeartbeatTimeout, InstanceId, Metadata, Registration, Tag, Tags};
use service_registry_wrapper::registry::{Access, ApiKey, Credentials, RegistryUrl, ServiceQuery, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let url: RegistryUrl = words.first().ok_or("which registry? give its URL")?.parse()?;
    let credentials = words.get(1).zip(words.get(2)).map(|(username, file)| Credentials {
        username: username.clone(),
        api_key: ApiKey::File(file.into()),
    });
    let registry = connect(&url, &Access { credentials, ..Access::default() });

    let registration = Registration {
        id: "example-1".parse()?,
        heartbeat_timeout: HeartbeatTimeout::from_secs(6)?,
        tags: Tags::new(vec![Tag::new("example")?])?,
        metadata: Metadata::new([("port".to_owned(), "8000".to_owned())])?,
    };
    let policy = Policy {
        timeout: registration.heartbeat_timeout,
        on_conflict: OnConflict::Wait,
        give_up_after: NonZeroU32::new(3),
    };
    let task = Task {
        registry: registry.clone(),
        registration,
        instance: InstanceId::unique(),
        holder: format!("the example, pid {}", std::process::id()),
        policy,
    };

    let mut keeper = keep(task, BootClock::new());
    keeper.wish(Wish::Listed);
    while keeper.status().standing != Standing::Held {
        if keeper.status().standing == Standing::Refused {
            let failure = keeper.status().failure.map(|failure| failure.to_string());
            return Err(failure.unwrap_or_default().into());
        }
        keeper.changed().await;
    }
    // A program does its work here; the heartbeats go out by themselves.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for service in registry.services(&ServiceQuery::default()).await?.values {
        say(&format!("{} has been seen: {:?}", service.registration.id, service.last_seen));
    }
    keeper.wish(Wish::Unlisted);
    while keeper.status().standing != Standing::Withdrawn {
        keeper.changed().await;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example is there to be seen")]
fn say(line: &str) {
    println!("{line}");
}
