use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::drain::{self, Drain};
use super::output::{Cell, Extent, Output, Row};
use super::part::Part;
use super::resolve::{self, Resolve};
use super::wait::{self, Wait};
use super::{Error, warn};
use crate::model::{Page, Registration, Service, ServiceId, Tag, Timestamp};
use crate::registry::{self, Owner, Registry, ServiceQuery};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List the services alive
    List(List),
    /// Show one service
    Get(Which),
    /// Take a service out of the registry
    ///
    /// If its wrapper still runs, it registers the service again at its next heartbeat: see `drain`.
    Remove(Which),
    /// Take a service out of the registry for maintenance, and keep it out
    ///
    /// Its command runs on. Its wrapper does not register it again until `undrain`, nor does one that is started in the
    /// meantime. It need not be registered. That it is drained is the configuration value
    /// /service-registry/drained/ID; a wrapper that may not read it registers all the same.
    Drain(Drain),
    /// Let a drained service in again
    ///
    /// Its wrapper registers it within a third of its --interval.
    Undrain(Which),
    /// List the services that are drained, and why
    Drained,
    /// Wait until so many services with a tag are there, then run a command
    ///
    /// For start scripts: raxsr services wait --tag=db --min=2 --timeout=30s -- ./start-app
    Wait(Wait),
    /// Tell where services are, for a script or a template
    ///
    /// What their metadata says: `host` (or `address`, `hostname`, `ip`) and `port`. With -f env, hosts, haproxy or
    /// nginx: eval "$(raxsr services resolve --tag=db -f env)".
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    #[command(flatten)]
    part: Part,
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
    pub(super) fn id(self) -> Option<ServiceId> {
        self.positional.or(self.id)
    }
}

pub(super) async fn run(action: Action, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    match action {
        Action::List(List { tag, part }) => {
            let page = page(registry, tag, &part).await?;
            if let Some(since) = page.stale_since {
                warn(&staleness(registry.url(), since, Timestamp::now()));
            }
            if let Some(caveat) = registry.caveat() {
                warn(&caveat.to_string());
            }
            output.page(&page, part.extent())?;
        }
        Action::Get(which) => {
            if let Some(id) = which.id() {
                let service = registry.service(&id).await;
                if let Err(registry::Error::NotFound { .. }) = service {
                    drain::explain(registry, &id).await;
                }
                output.item(&service?)?;
            }
        }
        Action::Remove(which) => {
            if let Some(id) = which.id() {
                registry.deregister(&id, Owner::Anyone).await?;
            }
        }
        Action::Drain(drain) => drain::drain(drain, registry).await?,
        Action::Undrain(which) => drain::undrain(which, registry).await?,
        Action::Drained => drain::list(registry, output).await?,
        Action::Wait(wait) => wait::run(wait, registry).await?,
        Action::Resolve(resolve) => resolve::run(resolve, registry, output).await?,
    }
    Ok(())
}

/// The services that are wanted: a page of them, or all.
pub(super) async fn page(
    registry: &dyn Registry,
    tag: Option<Tag>,
    part: &Part,
) -> Result<Page<Service, ServiceId>, Error> {
    let mut query = ServiceQuery { tag, page: part.first_page() };
    let mut page = registry.services(&query).await?;
    if let Extent::Page(_) = part.extent() {
        return Ok(page);
    }
    while let Some(next) = page.next_marker.take() {
        query.page.marker = Some(next.into());
        let more = registry.services(&query).await?;
        page.values.extend(more.values);
        page.next_marker = more.next_marker;
        page.stale_since = page.stale_since.or(more.stale_since);
    }
    Ok(page)
}

/// What is to be known about a list that the registry could not be asked for.
fn staleness(registry: &str, since: Timestamp, now: Timestamp) -> String {
    let age = Duration::from_secs(now.as_millis().saturating_sub(since.as_millis()) / 1000);
    let age = humantime::format_duration(age);
    format!("registry {registry} is not available: showing what it said {age} ago")
}

impl Row for Service {
    const HEADINGS: &'static [&'static str] =
        &["Service ID", "Heartbeat Timeout", "Last Seen", "Tags", "Metadata"];

    fn cells(&self) -> Vec<Cell> {
        let Self { registration, last_seen } = self;
        vec![
            Cell::text(&registration.id),
            Cell::Number(registration.heartbeat_timeout.as_secs()),
            Cell::Time(*last_seen),
            Cell::Text(tags(registration)),
            Cell::Text(metadata(registration)),
        ]
    }

    fn data(&self) -> impl Serialize {
        Data { registration: &self.registration, last_seen: self.last_seen.map(|time| time.to_string()) }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    registration: &'a Registration,
    last_seen: Option<String>,
}

pub(super) fn tags(registration: &Registration) -> String {
    registration.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(", ")
}

pub(super) fn metadata(registration: &Registration) -> String {
    let pairs = registration.metadata.iter().map(|(key, value)| format!("{key}: {value}"));
    pairs.collect::<Vec<_>>().join(", ")
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
