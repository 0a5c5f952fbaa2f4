use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::follow::Follow;
use super::output::{Cell, Extent, Output, Row};
use super::{Error, services};
use crate::model::{Event, EventBody, EventKind, Limit, PageRequest};
use crate::registry::{EventQuery, Registry};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List what happened in the last hour, or since a marker: the latest first
    List(List),
    /// Show what happens, as it happens: the oldest first
    Follow(Follow),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only events of this type, such as service.timeout
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<EventKind>,
    /// How many at most, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value = "100")]
    limit: Limit,
    /// The event to begin at, as the page before told
    #[arg(long, value_name = "UUID")]
    marker: Option<Uuid>,
}

pub(super) async fn list(list: List, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    let List { kind, limit, marker } = list;
    let query = EventQuery { kind, page: PageRequest { marker, limit } };
    let mut page = registry.events()?.events(&query).await?;
    // As it always was: the latest first, of a page that begins with the oldest.
    page.values.reverse();
    output.page(&page, Extent::Page(limit))?;
    Ok(())
}

impl Row for Event {
    const HEADINGS: &'static [&'static str] = &["Event ID", "Timestamp", "Event Type", "Payload"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(self.id),
            Cell::Time(Some(self.timestamp)),
            Cell::text(self.body.kind().as_str()),
            Cell::Lines(payload(&self.body)),
        ]
    }

    fn data(&self) -> impl Serialize {
        Data { id: self.id, timestamp: self.timestamp.to_string(), body: &self.body }
    }
}

#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    timestamp: String,
    #[serde(flatten)]
    body: &'a EventBody,
}

/// What is to be known about an event, one thing a line: the id of what it is about first.
pub(super) fn payload(body: &EventBody) -> Vec<String> {
    match body {
        EventBody::ServiceJoin(service)
        | EventBody::ServiceTimeout(service)
        | EventBody::ServiceRemove(service) => vec![
            format!("id: {}", service.id),
            format!("heartbeat_timeout: {}", service.heartbeat_timeout.as_secs()),
            format!("tags: {}", services::tags(service)),
            format!("metadata: {}", services::metadata(service)),
        ],
        EventBody::ConfigurationUpdate { old_value, new_value, configuration_value_id } => vec![
            format!("configuration_value_id: {configuration_value_id}"),
            format!("old_value: {}", old_value.as_deref().unwrap_or_default()),
            format!("new_value: {new_value}"),
        ],
        EventBody::ConfigurationRemove { old_value, configuration_value_id } => vec![
            format!("configuration_value_id: {configuration_value_id}"),
            format!("old_value: {old_value}"),
        ],
    }
}
