//! The log of events: each under its time, for thirty days.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Core, Hosted, keys};
use crate::model::{self, Event, MarkerFault, Page};
use crate::registry::clock::Ticks;
use crate::registry::etcd::kv::Range;
use crate::registry::etcd::wire::{KeyValue, end_of};
use crate::registry::{Error, EventLog, EventQuery, Result};

/// How far back a list without a marker goes.
const RECENT: Duration = Duration::from_secs(3600);

#[async_trait]
impl EventLog for Hosted {
    async fn events(&self, query: &EventQuery) -> Result<Page<Event, Uuid>> {
        self.core.ready().await?;
        self.core.settle().await?;
        let from = match &query.page.marker {
            Some(marker) => self.core.within_log(marker).await?,
            None => Ticks::now().before(RECENT),
        };
        let most = query.page.limit.get() + 1;
        let events = self.core.keys.events();
        let range = Range {
            key: self.core.keys.event(from).into_bytes(),
            end: Some(end_of(events.as_bytes())),
            limit: most,
            revision: 0,
        };
        let wanted = |found: &KeyValue| {
            let event: Option<Event> = serde_json::from_slice(&found.value).ok();
            event.filter(|event| query.kind.is_none_or(|kind| event.body.kind() == kind))
        };
        let is_short = |found: &[KeyValue]| found.iter().filter_map(wanted).take(most).count() < most;
        let found = self.core.client.list_while(range, &is_short).await?;
        let events = found.kvs.iter().filter_map(wanted).take(most).collect();
        Ok(Page::from_lookahead(events, query.page.limit, |event: &Event| event.id))
    }
}

impl Core {
    /// The time of a marker, which must lie between the registry's making and now.
    async fn within_log(&self, marker: &Uuid) -> Result<Ticks> {
        let refuse = |fault| self.invalid(model::Error::Marker { marker: *marker, fault });
        let from = Ticks::of(marker).map_err(|rule| self.invalid(rule))?;
        // The clock of another server may be ahead of ours.
        if from > Ticks::now() && from >= self.state().next_time() {
            return Err(refuse(MarkerFault::InTheFuture));
        }
        let created = self.client.get(&self.keys.created()).await?;
        if created.and_then(|created| keys::read(&created.value)).is_some_and(|created| from < created) {
            return Err(refuse(MarkerFault::BeforeTheLog));
        }
        Ok(from)
    }

    pub(super) fn invalid(&self, rule: model::Error) -> Error {
        Error::Invalid { registry: self.url.as_str().to_owned(), source: rule.into() }
    }
}
