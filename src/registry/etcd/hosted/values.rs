//! Configuration values: read from memory, each change written with its event.

use async_trait::async_trait;

use super::writer::{Change, Expected};
use super::{Hosted, Room};
use crate::model::{ConfigurationId, ConfigurationValue, EventBody, Page};
use crate::registry::{ConfigurationQuery, ConfigurationStore, Object, Result};

#[async_trait]
impl ConfigurationStore for Hosted {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        self.core.ready().await?;
        let state = self.core.state();
        let known = state.values.get(id).map(|known| known.value.clone());
        known.ok_or_else(|| self.core.not_found(Object::ConfigurationValue, id.as_str()))
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        self.core.ready().await?;
        let state = self.core.state();
        let marker = query.page.marker.as_ref().map_or("", |marker| marker.as_str());
        let wanted = state.values.iter().filter(|(id, _)| {
            id.as_str() >= marker && query.namespace.as_ref().is_none_or(|namespace| namespace.contains(id))
        });
        let values = wanted.map(|(_, known)| known.value.clone()).take(query.page.limit.get() + 1);
        Ok(Page::from_lookahead(values.collect(), query.page.limit, |value| value.id.clone()))
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        self.core.ready().await?;
        let core = &*self.core;
        let limit = self.limits().configuration_values;
        let room = limit.map(|limit| Room { limit, object: Object::ConfigurationValue });
        let _adding = core.adding(room, |state| state.values.len()).await;
        let key = core.keys.value(&value.id);
        core.change_as(&key, |state| {
            let known = state.values.get(&value.id);
            if known.is_some_and(|known| known.value == *value) {
                return Ok(None);
            }
            let mut unless_new = None;
            if let Some(room) = room.filter(|_| known.is_none()) {
                room.check(state.values.len(), &core.url)?;
                unless_new = room.is_scarce(state.values.len()).then(|| (core.keys.values(), state.revision));
            }
            let body = EventBody::ConfigurationUpdate {
                old_value: known.map(|known| known.value.value().to_owned()),
                new_value: value.value().to_owned(),
                configuration_value_id: value.id.clone(),
            };
            let change = Change {
                key: key.clone(),
                expected: known.map_or(Expected::Absent, |known| Expected::Unchanged(known.revision)),
                value: Some(value.value().to_owned()),
                others: Vec::new(),
                bodies: vec![body],
                unless_new,
            };
            Ok(Some(change))
        })
        .await
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        self.core.ready().await?;
        let core = &*self.core;
        let key = core.keys.value(id);
        core.change_as(&key, |state| {
            let known = state.values.get(id);
            let known = known.ok_or_else(|| core.not_found(Object::ConfigurationValue, id.as_str()))?;
            let body = EventBody::ConfigurationRemove {
                old_value: known.value.value().to_owned(),
                configuration_value_id: id.clone(),
            };
            let change = Change {
                key: key.clone(),
                expected: Expected::Unchanged(known.revision),
                value: None,
                others: Vec::new(),
                bodies: vec![body],
                unless_new: None,
            };
            Ok(Some(change))
        })
        .await
    }
}
