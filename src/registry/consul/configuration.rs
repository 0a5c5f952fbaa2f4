//! Configuration values, in Consul's key/value store.
//!
//! `/prod/key` is `service-registry/configuration/prod/key` there, and `key` is `service-registry/configuration/key`.
//! `/key`, which is neither, has a slash at its end instead: Consul cleans paths of two slashes in a row.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::Consul;
use super::client::Ask;
use crate::model::{ConfigurationId, ConfigurationValue, Page};
use crate::registry::{ConfigurationQuery, ConfigurationStore, Object, Result};

const PREFIX: &str = "service-registry/configuration/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    /// In Base64.
    value: Option<String>,
}

impl Pair {
    /// None where it is not one of ours.
    fn read(&self) -> Option<ConfigurationValue> {
        let bytes = STANDARD.decode(self.value.as_ref()?).ok()?;
        ConfigurationValue::new(id(&self.key)?, String::from_utf8(bytes).ok()?).ok()
    }
}

fn path(id: &ConfigurationId) -> String {
    let id = id.as_str();
    match id.strip_prefix('/') {
        Some(key) if !key.contains('/') => format!("/v1/kv/{PREFIX}{key}/"),
        Some(key) => format!("/v1/kv/{PREFIX}{key}"),
        None => format!("/v1/kv/{PREFIX}{id}"),
    }
}

fn id(key: &str) -> Option<ConfigurationId> {
    let key = key.strip_prefix(PREFIX)?;
    let id = match key.strip_suffix('/') {
        Some(single) if single.contains('/') => return None,
        Some(single) => format!("/{single}"),
        None if key.contains('/') => format!("/{key}"),
        None => key.to_owned(),
    };
    id.parse().ok()
}

impl Consul {
    /// The request for a value.
    pub(super) fn look(id: &ConfigurationId) -> Ask {
        Ask::get(path(id)).in_datacenter()
    }

    async fn look_up(&self, id: &ConfigurationId) -> Result<Option<ConfigurationValue>> {
        let answer = self.client.ask(&Self::look(id)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                Ok(self.client.parse::<Vec<Pair>>(&answer)?.first().and_then(Pair::read))
            }
            _ => Err(self.client.failure(&answer)),
        }
    }
}

#[async_trait]
impl ConfigurationStore for Consul {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        let value = self.look_up(id).await?;
        value.ok_or_else(|| self.client.not_found(Object::ConfigurationValue, id.as_str()))
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        let answer =
            self.client.ask(&Ask::get(format!("/v1/kv/{PREFIX}?recurse=true")).in_datacenter()).await?;
        let pairs: Vec<Pair> = match answer.status {
            StatusCode::NOT_FOUND => Vec::new(),
            status if status.is_success() => self.client.parse(&answer)?,
            _ => return Err(self.client.failure(&answer)),
        };
        let is_wanted = |value: &ConfigurationValue| {
            let marker = query.page.marker.as_ref();
            marker.is_none_or(|marker| value.id.as_str() >= marker.as_str())
                && query.namespace.as_ref().is_none_or(|namespace| namespace.contains(&value.id))
        };
        let mut values: Vec<_> = pairs.iter().filter_map(Pair::read).filter(is_wanted).collect();
        values.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(Page::from_lookahead(values, query.page.limit, |value| value.id.clone()))
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        if self.look_up(&value.id).await?.as_ref() == Some(value) {
            return Ok(());
        }
        self.client.call(&Ask::put(path(&value.id)).body(value.value()).in_datacenter()).await.map(drop)
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        self.value(id).await?;
        self.client.call(&Ask::new(Method::DELETE, path(id)).in_datacenter()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_a_key_of_its_own() {
        for (text, expected) in [
            ("key", "service-registry/configuration/key"),
            ("/key", "service-registry/configuration/key/"),
            ("/prod/key", "service-registry/configuration/prod/key"),
            ("/prod/eu-1/a.b", "service-registry/configuration/prod/eu-1/a.b"),
        ] {
            assert_eq!(path(&text.parse().unwrap()), format!("/v1/kv/{expected}"));
            assert_eq!(id(expected).unwrap().as_str(), text);
        }
        for foreign in ["service-registry/configuration/", "service-registry/configuration/a/b/", "other"] {
            assert_eq!(id(foreign), None, "{foreign}");
        }
    }
}
