//! Services that other programs registered, where Curator's consumers look: listed with ours, as far as they can be read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::operation::{self, ANY_VERSION, Code, Request};
use super::session::{Fault, if_there};
use super::wire::Flag;
use super::{BATCH, Zookeeper};
use crate::model::{HeartbeatTimeout, Metadata, Registration, ServiceId, Tag, Tags};
use crate::registry::{Result, ZookeeperLayout};

/// What a service of another program tells of itself.
#[derive(Deserialize)]
struct Instance {
    name: Option<String>,
    id: String,
    address: Option<String>,
    port: Option<u16>,
    payload: Option<Payload>,
}

/// Spring Cloud's; others have others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    metadata: BTreeMap<String, String>,
}

/// Where services are, by id, that have no node under it.
pub(super) type Foreign = BTreeMap<ServiceId, String>;

impl Zookeeper {
    /// All that stands where consumers look, ours among it: to be read before ours are, which come and go as a whole.
    pub(super) async fn listed(&self) -> Result<Foreign> {
        let ZookeeperLayout::Curator { path } = self.url.layout() else { return Ok(Foreign::new()) };
        let base = self.tree.rooted(path);
        let names: Vec<_> =
            self.children(&base).await?.into_iter().map(|name| format!("{base}/{name}")).collect();
        let mut listed = Foreign::new();
        for batch in names.chunks(BATCH) {
            let requests: Vec<_> = batch.iter().map(|name| Request::children(name, Flag::No)).collect();
            for (name, outcome) in batch.iter().zip(self.ask_all(&requests).await?) {
                let Some(body) = if_there(outcome).map_err(|fault| self.failure(fault))? else { continue };
                let ids = operation::read_children(&body).map_err(|garbled| self.garbled(garbled))?;
                let ids = ids.iter().filter_map(|id| id.parse::<ServiceId>().ok());
                listed.extend(ids.map(|id| (id.clone(), format!("{name}/{id}"))));
            }
        }
        Ok(listed)
    }

    /// Where the service of another program is.
    pub(super) async fn foreign_path(&self, id: &ServiceId) -> Result<Option<String>> {
        let path = self.listed().await?.remove(id);
        let ours: BTreeSet<_> = self.children(&self.tree.services()).await?.into_iter().collect();
        Ok(path.filter(|_| !ours.contains(id.as_str())))
    }

    /// Takes the service of another program out, which it may not notice.
    pub(super) async fn take_out_foreign(&self, id: &ServiceId) -> Result<()> {
        let path = self.foreign_path(id).await?.ok_or_else(|| self.no_service(id))?;
        match self.ask(Request::delete(&path, ANY_VERSION)).await? {
            Ok(_) => Ok(()),
            Err(Code::NO_NODE) => Err(self.no_service(id)),
            Err(code) => Err(self.failure(Fault::Refused(code))),
        }
    }
}

/// As much of it as there is room for; none where it is no instance of a service.
pub(super) fn read(data: &[u8]) -> Option<Registration> {
    let instance: Instance = serde_json::from_slice(data).ok()?;
    let mut pairs = instance.payload.unwrap_or_default().metadata;
    let tags = pairs.remove("tags").unwrap_or_default();
    let known = [
        ("name", instance.name.filter(|name| *name != instance.id)),
        ("address", instance.address),
        ("port", instance.port.map(|port| port.to_string())),
    ];
    for (key, value) in known {
        if let Some(value) = value {
            pairs.insert(key.to_owned(), value);
        }
    }
    let fits = |pair: &(String, String)| Metadata::new([pair.clone()]).is_ok();
    let tags = tags.split(',').filter_map(|tag| Tag::new(tag.trim()).ok()).take(Tags::MAX).collect();
    Some(Registration {
        id: instance.id.parse().ok()?,
        heartbeat_timeout: HeartbeatTimeout::MAX,
        tags: Tags::new(tags).ok()?,
        metadata: Metadata::new(pairs.into_iter().filter(fits).take(Metadata::MAX)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_others_registered_as_much_is_told_as_there_is_room_for() {
        let spring = r#"{"name":"shop","id":"a-1","address":"10.0.0.1","port":80,"sslPort":null,"payload":{"@class":"x",
            "id":"application-1","name":"shop","metadata":{"zone":"eu","tags":"a, b","instance_status":"UP"}}}"#;
        let registration = read(spring.as_bytes()).unwrap();
        assert_eq!(registration.endpoint().unwrap().to_string(), "10.0.0.1:80");
        let pairs: Vec<_> = registration.metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(pairs, ["address", "instance_status", "name", "port", "zone"]);
        assert_eq!(registration.tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["a", "b"]);
        for (data, is_service) in [
            (r#"{"name":"a-1","id":"a-1"}"#, true),
            (r#"{"id":"a b","name":"x"}"#, false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(read(data.as_bytes()).is_some(), is_service, "{data}");
        }
    }
}
