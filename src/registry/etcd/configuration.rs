//! Configuration values, under `/<prefix>/configuration/<id>`, on no lease.

use async_trait::async_trait;

use super::Etcd;
use super::kv::{Range, Txn};
use super::wire::KeyValue;
use crate::model::{ConfigurationId, ConfigurationValue, Page};
use crate::registry::{ConfigurationQuery, ConfigurationStore, EtcdUrl, Object, Result};

/// Where all values are.
pub(super) fn values(url: &EtcdUrl) -> String {
    format!("/{}/configuration/", url.prefix())
}

pub(super) fn key(url: &EtcdUrl, id: &ConfigurationId) -> String {
    values(url) + id.as_str()
}

/// The id of the value under a key; none where it is not one of ours.
pub(super) fn id(url: &EtcdUrl, key: &[u8]) -> Option<ConfigurationId> {
    std::str::from_utf8(key).ok()?.strip_prefix(&*values(url))?.parse().ok()
}

/// None where it is not one of ours.
pub(super) fn read(url: &EtcdUrl, found: &KeyValue) -> Option<ConfigurationValue> {
    ConfigurationValue::new(id(url, &found.key)?, String::from_utf8(found.value.clone()).ok()?).ok()
}

#[async_trait]
impl ConfigurationStore for Etcd {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        let found = self.client.get(&key(&self.url, id)).await?;
        let value = found.and_then(|found| read(&self.url, &found));
        value.ok_or_else(|| self.not_found(Object::ConfigurationValue, id.as_str()))
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        let all = values(&self.url);
        let prefix =
            query.namespace.as_ref().map_or_else(|| all.clone(), |name| format!("{all}{}", name.as_str()));
        let marker = query.page.marker.as_ref().map_or("", |marker| marker.as_str());
        let range = Range::prefix(&prefix).from(&format!("{all}{marker}"));
        let wanted = |found: &KeyValue| {
            read(&self.url, found).filter(|value| {
                query.namespace.as_ref().is_none_or(|namespace| namespace.contains(&value.id))
            })
        };
        let most = query.page.limit.get() + 1;
        let is_short = |found: &[KeyValue]| found.iter().filter_map(wanted).take(most).count() < most;
        let found = self.client.list_while(range, &is_short).await?.kvs;
        let values = found.iter().filter_map(wanted).take(most).collect();
        Ok(Page::from_lookahead(values, query.page.limit, |value| value.id.clone()))
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        let (key, value) = (key(&self.url, &value.id), value.value());
        let txn = Txn::default().if_value(&key, value.as_bytes()).or_put(&key, value);
        self.client.commit(txn).await.map(drop)
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        let key = key(&self.url, id);
        let outcome = self.client.commit(Txn::default().if_there(&key).delete(&key)).await?;
        if outcome.is_done {
            return Ok(());
        }
        Err(self.not_found(Object::ConfigurationValue, id.as_str()))
    }
}
