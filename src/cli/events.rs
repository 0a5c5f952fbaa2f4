use clap::{Args, Subcommand};
use uuid::Uuid;

use super::Error;
use super::output::{Output, Row};
use crate::model::{Event, EventBody, EventKind, Limit, PageRequest, Registration, Tag};
use crate::registry::{EventQuery, Registry};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List what happened, oldest first: in the last hour, or since a marker
    List(List),
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

pub(super) async fn run(action: Action, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    let Action::List(List { kind, limit, marker }) = action;
    let query = EventQuery { kind, page: PageRequest { marker, limit } };
    output.page(&registry.events()?.events(&query).await?, limit)?;
    Ok(())
}

impl Row for Event {
    const HEADINGS: &'static [&'static str] = &["TIME", "TYPE", "SUBJECT", "DETAILS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.timestamp.to_string(),
            self.body.kind().as_str().to_owned(),
            self.body.subject().to_owned(),
            details(&self.body),
        ]
    }
}

fn details(body: &EventBody) -> String {
    match body {
        EventBody::ServiceJoin(service)
        | EventBody::ServiceTimeout(service)
        | EventBody::ServiceRemove(service) => service_details(service),
        EventBody::ConfigurationUpdate { old_value: None, new_value, .. } => new_value.clone(),
        EventBody::ConfigurationUpdate { old_value: Some(old_value), new_value, .. } => {
            format!("{old_value} -> {new_value}")
        }
        EventBody::ConfigurationRemove { old_value, .. } => old_value.clone(),
    }
}

fn service_details(service: &Registration) -> String {
    let tags = service.tags.iter().map(Tag::as_str).map(str::to_owned);
    let pairs = service.metadata.iter().map(|(key, value)| format!("{key}={value}"));
    tags.chain(pairs).collect::<Vec<_>>().join(", ")
}
