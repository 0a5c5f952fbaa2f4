//! What happens in the registry, as etcd's watch tells it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::changes::{Change, Changes, Told};
use super::kv::Range;
use super::record::{Found, Record};
use super::{Etcd, configuration, layout};
use crate::model::{ConfigurationId, Event, EventBody, ServiceId};
use crate::registry::watch::{Left, Listed, Recorder, Seen};
use crate::registry::{Result, Watch};

/// A watch that has told something, or lasted for longer, may be opened again at once.
const SETTLED: Duration = Duration::from_secs(1);

/// A watch that goes on over lost connections, servers and compactions.
pub(super) struct Following<'a> {
    etcd: &'a Etcd,
    seen: Seen,
    /// Those that servers keep, on no lease: they do not just fall silent.
    kept: HashSet<ServiceId>,
    values: BTreeMap<ConfigurationId, String>,
    recorder: Recorder,
    /// Everything up to here is known.
    revision: i64,
    changes: Option<Changes<'a>>,
    /// Since when that has told of nothing; none once it has.
    silent_since: Option<Instant>,
    /// What is known cannot be gone on with.
    is_outdated: bool,
    /// Recorded, and not told yet.
    pending: Vec<Event>,
}

impl<'a> Following<'a> {
    /// From what there is now on.
    pub(super) async fn begin(etcd: &'a Etcd) -> Result<Self> {
        let mut following = Self {
            etcd,
            seen: Seen::default(),
            kept: HashSet::new(),
            values: BTreeMap::new(),
            recorder: Recorder::default(),
            revision: 0,
            changes: None,
            silent_since: None,
            is_outdated: true,
            pending: Vec::new(),
        };
        following.look().await?;
        // What is there is no news.
        following.pending.clear();
        Ok(following)
    }

    /// Looks at everything, and takes for news how it differs from what was known.
    async fn look(&mut self) -> Result<()> {
        let services = self.etcd.client.list(&layout::services(&self.etcd.url)).await?;
        // Of the same moment.
        let values =
            Range { revision: services.revision(), ..Range::prefix(&configuration::values(&self.etcd.url)) };
        let values = self.etcd.client.list_while(values, &|_| true).await?;
        self.revision = services.revision();
        self.is_outdated = false;
        let services: Vec<_> = services.kvs.iter().map(Found::read).collect();
        self.kept = services.iter().filter_map(kept).collect();
        let listed: Vec<_> = services.iter().filter_map(listed).collect();
        let values = values.kvs.iter().filter_map(|found| configuration::read(&self.etcd.url, found));
        let values: BTreeMap<_, _> =
            values.map(|value| (value.id.clone(), value.value().to_owned())).collect();
        let mut bodies = self.seen.look(listed, |_| Left::Expired);
        let gone: Vec<_> = self.values.keys().filter(|id| !values.contains_key(*id)).cloned().collect();
        bodies.extend(gone.into_iter().filter_map(|id| self.value_gone(id)));
        bodies.extend(values.into_iter().filter_map(|(id, value)| self.value_set(id, value)));
        self.record(bodies);
        Ok(())
    }

    /// Takes note of changes. Servers that keep a registry in the cluster write each change together with its event,
    /// which says more than the change; and an event for each change that was made by others, which we have seen.
    fn happened(&mut self, changes: Vec<Change>) {
        let prefix = format!("/{}/", self.etcd.url.prefix());
        let (events, repeated) = (format!("{prefix}events/"), format!("{prefix}logged"));
        let revisions = |is_meant: &dyn Fn(&[u8]) -> bool| -> HashSet<i64> {
            changes.iter().filter(|change| is_meant(change.key())).map(Change::revision).collect()
        };
        let logged = revisions(&|key| key.starts_with(events.as_bytes()));
        let repeats = revisions(&|key| key == repeated.as_bytes());
        for change in changes {
            let revision = change.revision();
            match change {
                Change::Put { now } if now.key.starts_with(events.as_bytes()) => {
                    let event = serde_json::from_slice::<Event>(&now.value).ok();
                    self.pending.extend(event.filter(|_| !repeats.contains(&revision)));
                }
                change => {
                    let bodies = self.heard(change);
                    if !logged.contains(&revision) {
                        self.record(bodies);
                    }
                }
            }
        }
    }

    fn record(&mut self, bodies: impl IntoIterator<Item = EventBody>) {
        let recorder = &mut self.recorder;
        self.pending.extend(bodies.into_iter().map(|body| recorder.record(body)));
    }

    fn is_service(&self, key: &[u8]) -> bool {
        key.starts_with(layout::services(&self.etcd.url).as_bytes())
    }

    fn heard(&mut self, change: Change) -> Vec<EventBody> {
        match change {
            Change::Put { now } if self.is_service(&now.key) => self.service_put(&Found::read(&now)),
            Change::Delete { key, .. } if self.is_service(&key) => self.service_gone(&key),
            Change::Put { now } => {
                let value = configuration::read(&self.etcd.url, &now);
                let body = value.and_then(|value| {
                    let text = value.value().to_owned();
                    self.value_set(value.id, text)
                });
                body.into_iter().collect()
            }
            Change::Delete { key, .. } => {
                let id = configuration::id(&self.etcd.url, &key);
                id.and_then(|id| self.value_gone(id)).into_iter().collect()
            }
        }
    }

    fn service_put(&mut self, found: &Found) -> Vec<EventBody> {
        self.kept.extend(kept(found));
        match (&found.record, listed(found)) {
            (_, Some(listed)) => self.seen.came(listed),
            (Some(record), None) => self.seen.went(&record.id, Left::Removed).into_iter().collect(),
            (None, None) => Vec::new(),
        }
    }

    fn service_gone(&mut self, key: &[u8]) -> Vec<EventBody> {
        let prefix = layout::services(&self.etcd.url);
        let id = std::str::from_utf8(&key[prefix.len()..]).ok().and_then(|id| id.parse().ok());
        // One that left on purpose was marked before, and is not in the list any more.
        let went = |id: ServiceId| {
            let how = if self.kept.remove(&id) { Left::Removed } else { Left::Expired };
            self.seen.went(&id, how)
        };
        id.and_then(went).into_iter().collect()
    }

    fn value_set(&mut self, id: ConfigurationId, value: String) -> Option<EventBody> {
        let old_value = self.values.insert(id.clone(), value.clone());
        (old_value.as_ref() != Some(&value)).then_some(EventBody::ConfigurationUpdate {
            old_value,
            new_value: value,
            configuration_value_id: id,
        })
    }

    fn value_gone(&mut self, id: ConfigurationId) -> Option<EventBody> {
        let old_value = self.values.remove(&id)?;
        Some(EventBody::ConfigurationRemove { old_value, configuration_value_id: id })
    }

    /// Hears what has changed since what is known, on the watch that is open or on a new one.
    async fn hear(&mut self) -> Result<()> {
        if self.is_outdated {
            self.look().await?;
        }
        let Some(changes) = &mut self.changes else {
            let prefix = format!("/{}/", self.etcd.url.prefix());
            self.changes = Some(self.etcd.client.changes(&prefix, self.revision + 1).await?);
            self.silent_since = Some(Instant::now());
            return Ok(());
        };
        match changes.next().await {
            Ok(Told::Changes(changes, revision)) => {
                self.silent_since = None;
                self.happened(changes);
                self.revision = self.revision.max(revision);
                Ok(())
            }
            Ok(Told::Compacted) => {
                self.changes = None;
                self.is_outdated = true;
                Ok(())
            }
            Err(error) => {
                self.changes = None;
                // A server that has gone away is nothing to tell of while there is another.
                let is_settled = self.silent_since.is_none_or(|since| since.elapsed() > SETTLED);
                if is_settled { Ok(()) } else { Err(error) }
            }
        }
    }
}

/// The id of a service that servers keep.
fn kept(found: &Found) -> Option<ServiceId> {
    let record = found.listed().filter(|record| record.seed.is_some() && found.lease.is_none());
    record.map(|record| record.id.clone())
}

fn listed(found: &Found) -> Option<Listed> {
    let record = found.listed()?;
    Some(Listed { registration: Record::registration(record), instance: Some(record.instance) })
}

#[async_trait]
impl Watch for Following<'_> {
    async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            if !self.pending.is_empty() {
                return Ok(std::mem::take(&mut self.pending));
            }
            self.hear().await?;
        }
    }
}
