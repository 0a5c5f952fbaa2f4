//! Configuration values: a node for each, beside the trees of services.

use async_trait::async_trait;

use super::operation::{self, ANY_VERSION, Code, Lasting, Request};
use super::session::{Fault, if_there};
use super::tree::value_id;
use super::wire::Flag;
use super::{BATCH, TRIES, Zookeeper};
use crate::model::{ConfigurationId, ConfigurationValue, Page};
use crate::registry::{ConfigurationQuery, ConfigurationStore, Object, Result};

impl Zookeeper {
    /// Those of these ids that have one.
    async fn values_of(&self, ids: &[ConfigurationId]) -> Result<Vec<ConfigurationValue>> {
        let requests: Vec<_> = ids.iter().map(|id| Request::data(&self.tree.value(id), Flag::No)).collect();
        let mut values = Vec::new();
        for (id, outcome) in ids.iter().zip(self.ask_all(&requests).await?) {
            let Some(body) = if_there(outcome).map_err(|fault| self.failure(fault))? else { continue };
            let (data, _) = operation::read_data(&body).map_err(|garbled| self.garbled(garbled))?;
            // What is none was written by somebody else.
            let text = String::from_utf8(data).ok();
            values.extend(text.and_then(|text| ConfigurationValue::new(id.clone(), text).ok()));
        }
        Ok(values)
    }

    fn no_value(&self, id: &ConfigurationId) -> crate::registry::Error {
        self.not_found(Object::ConfigurationValue, id.as_str())
    }
}

#[async_trait]
impl ConfigurationStore for Zookeeper {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        let value = self.values_of(std::slice::from_ref(id)).await?.pop();
        value.ok_or_else(|| self.no_value(id))
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        let names = self.children(&self.tree.configuration()).await?;
        let is_wanted = |id: &ConfigurationId| {
            let marker = query.page.marker.as_ref();
            marker.is_none_or(|marker| id.as_str() >= marker.as_str())
                && query.namespace.as_ref().is_none_or(|namespace| namespace.contains(id))
        };
        let mut ids: Vec<_> = names.iter().filter_map(|name| value_id(name)).filter(is_wanted).collect();
        ids.sort_unstable();
        let (mut values, wanted) = (Vec::new(), query.page.limit.get() + 1);
        for batch in ids.chunks(BATCH.min(wanted)) {
            values.extend(self.values_of(batch).await?);
            if values.len() >= wanted {
                break;
            }
        }
        Ok(Page::from_lookahead(values, query.page.limit, |value| value.id.clone()))
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        let (path, data) = (self.tree.value(&value.id), value.value().as_bytes());
        for _ in 0..TRIES {
            match self.ask(Request::set(&path, data, ANY_VERSION)).await? {
                Ok(_) => return Ok(()),
                Err(Code::NO_NODE) => {}
                Err(code) => return Err(self.failure(Fault::Refused(code))),
            }
            match self.ask(Request::create(&path, data, self.acl(), Lasting::Persistent)).await? {
                Ok(_) => return Ok(()),
                Err(Code::NODE_EXISTS) => {}
                Err(Code::NO_NODE) => {
                    let (session, parent) = (self.spare(), self.tree.configuration());
                    let made = self.tree.make(&session, &parent, Lasting::Persistent).await;
                    made.map_err(|fault| self.failure(fault))?;
                }
                Err(code) => return Err(self.failure(Fault::Refused(code))),
            }
        }
        Err(self.contended())
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        match self.ask(Request::delete(&self.tree.value(id), ANY_VERSION)).await? {
            Ok(_) => Ok(()),
            Err(Code::NO_NODE) => Err(self.no_value(id)),
            Err(code) => Err(self.failure(Fault::Refused(code))),
        }
    }
}
