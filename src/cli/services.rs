use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::{Output, Row};
use super::{Error, warn};
use crate::model::{Limit, Marker, PageRequest, Service, ServiceId, Tag, Timestamp};
use crate::registry::{Owner, Registry, ServiceQuery};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List the services alive
    List(List),
    /// Show one service
    Get(Which),
    /// Take a service out of the registry
    ///
    /// If its wrapper still runs, it registers the service again at its next heartbeat.
    Remove(Which),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    /// How many at most, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value = "100")]
    limit: Limit,
    /// The id to begin at, as the page before told
    #[arg(long, value_name = "ID")]
    marker: Option<Marker>,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The service's id
    #[arg(value_name = "ID", required_unless_present = "id")]
    positional: Option<ServiceId>,
    /// The same, as an option
    #[arg(long, value_name = "ID", conflicts_with = "positional")]
    id: Option<ServiceId>,
}

impl Which {
    fn id(self) -> Option<ServiceId> {
        self.positional.or(self.id)
    }
}

pub(super) async fn run(action: Action, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    match action {
        Action::List(List { tag, limit, marker }) => {
            let query = ServiceQuery { tag, page: PageRequest { marker, limit } };
            let page = registry.services(&query).await?;
            if let Some(since) = page.stale_since {
                warn(&staleness(registry.url(), since, Timestamp::now()));
            }
            output.page(&page, limit)?;
        }
        Action::Get(which) => {
            if let Some(id) = which.id() {
                output.item(&registry.service(&id).await?)?;
            }
        }
        Action::Remove(which) => {
            if let Some(id) = which.id() {
                registry.deregister(&id, Owner::Anyone).await?;
            }
        }
    }
    Ok(())
}

/// What is to be known about a list that the registry could not be asked for.
fn staleness(registry: &str, since: Timestamp, now: Timestamp) -> String {
    let age = Duration::from_secs(now.as_millis().saturating_sub(since.as_millis()) / 1000);
    let age = humantime::format_duration(age);
    format!("registry {registry} is not available: showing what it said {age} ago")
}

impl Row for Service {
    const HEADINGS: &'static [&'static str] = &["ID", "TAGS", "METADATA", "TIMEOUT", "LAST SEEN"];

    fn cells(&self) -> Vec<String> {
        let Self { registration, last_seen } = self;
        vec![
            registration.id.to_string(),
            registration.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", "),
            registration
                .metadata
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(", "),
            format!("{} s", registration.heartbeat_timeout.as_secs()),
            last_seen.map_or_else(|| "-".to_owned(), |time| time.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_list_is_told_with_its_age() {
        let told =
            staleness("http://host/v1.0", Timestamp::from_millis(1_000), Timestamp::from_millis(63_500));
        assert_eq!(told, "registry http://host/v1.0 is not available: showing what it said 1m 2s ago");
    }
}
