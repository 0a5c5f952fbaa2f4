//! Where a service is written, and how: our own layout, and those that other programs read. Their keys are on the same
//! lease, and end with it.

use serde_json::json;

use super::record::Record;
use crate::model::ServiceId;
use crate::registry::url::etcd::is_label;
use crate::registry::{EtcdLayout, EtcdUrl};

/// How long clients of `SkyDNS` may keep what they were told, in seconds.
const SKYDNS_TTL: u8 = 60;

/// A key with the value that it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
}

/// Where all services are.
pub(super) fn services(url: &EtcdUrl) -> String {
    format!("/{}/services/", url.prefix())
}

/// The key that guards an id.
pub(super) fn key(url: &EtcdUrl, id: &ServiceId) -> String {
    services(url) + id.as_str()
}

/// All that is to be written of a service, our own layout first.
pub(super) fn entries(url: &EtcdUrl, record: &Record) -> Vec<Entry> {
    url.layouts().iter().filter_map(|layout| entry(*layout, url, record).ok()).collect()
}

/// Why it cannot be written in a layout that was asked for, for each.
pub(super) fn complaints(url: &EtcdUrl, record: &Record) -> Vec<(EtcdLayout, &'static str)> {
    let complaint = |layout: &EtcdLayout| Some((*layout, entry(*layout, url, record).err()?));
    url.layouts().iter().filter_map(complaint).collect()
}

fn entry(layout: EtcdLayout, url: &EtcdUrl, record: &Record) -> Result<Entry, &'static str> {
    const NO_ENDPOINT: &str = "it has no address or no port: give both with --address and --port";
    let (prefix, name, id) = (url.prefix(), &record.name, &record.id);
    match layout {
        EtcdLayout::Native => Ok(Entry { key: key(url, id), value: json!(record).to_string() }),
        EtcdLayout::Registrator => {
            let value = record.endpoint().ok_or(NO_ENDPOINT)?;
            // Our own keys are there.
            if ["services", "configuration"].contains(&&**name) || name.contains('/') {
                return Err("its name cannot be part of a key: choose another with --name");
            }
            Ok(Entry { key: format!("/{prefix}/{name}/{id}"), value })
        }
        EtcdLayout::SkyDns => {
            if !is_label(name) || !is_label(id.as_str()) {
                return Err(
                    "its name or its id is no label in DNS: only letters, digits and hyphens, 63 at most",
                );
            }
            let host = record.address.as_deref().ok_or("it has no address: give one with --address")?;
            let reversed: Vec<_> = url.domain().rsplit('.').collect();
            let host = json!(host);
            let port = record.port.map_or_else(String::new, |port| format!(r#","port":{port}"#));
            let value = format!(r#"{{"host":{host}{port},"ttl":{SKYDNS_TTL}}}"#);
            Ok(Entry { key: format!("/skydns/{}/{name}/{id}", reversed.join("/")), value })
        }
        EtcdLayout::Grpc => {
            let endpoint = record.endpoint().ok_or(NO_ENDPOINT)?;
            let metadata = json!(record.metadata);
            let value = format!(r#"{{"Op":0,"Addr":{},"Metadata":{metadata}}}"#, json!(endpoint));
            // Without a slash at its front: a target of gRPC's, `etcd:///prefix/name`, loses it.
            Ok(Entry { key: format!("{prefix}/{name}/{endpoint}"), value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeartbeatTimeout, InstanceId, Metadata, Registration, Tags};
    use crate::registry::{Claim, IfTaken, RegistryUrl};

    fn url() -> EtcdUrl {
        match "etcd://a/shop?layout=registrator,skydns,grpc&domain=cluster.local".parse().unwrap() {
            RegistryUrl::Etcd(url) => url,
            other => panic!("{other}"),
        }
    }

    fn record(id: &str, pairs: &[(&str, &str)]) -> Record {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let registration = Registration {
            id: id.parse().unwrap(),
            heartbeat_timeout: HeartbeatTimeout::MIN,
            tags: Tags::default(),
            metadata: Metadata::new(pairs).unwrap(),
        };
        let (instance, holder) = (InstanceId::unique(), String::new());
        Record::new(&registration, &Claim { instance, holder, if_taken: IfTaken::Refuse })
    }

    #[test]
    fn each_layout_is_as_its_readers_expect_it() {
        let record = record("web1", &[("address", "10.1.2.3"), ("name", "web"), ("port", "8080")]);
        let written: Vec<_> =
            entries(&url(), &record).into_iter().map(|entry| (entry.key, entry.value)).collect();
        let expected = [
            ("/shop/web/web1", "10.1.2.3:8080"),
            ("/skydns/local/cluster/web/web1", r#"{"host":"10.1.2.3","port":8080,"ttl":60}"#),
            (
                "shop/web/10.1.2.3:8080",
                r#"{"Op":0,"Addr":"10.1.2.3:8080","Metadata":{"address":"10.1.2.3","name":"web","port":"8080"}}"#,
            ),
        ];
        assert_eq!(written[0].0, "/shop/services/web1");
        for (written, (key, value)) in written[1..].iter().zip(expected) {
            assert_eq!((&*written.0, &*written.1), (key, value));
        }
    }

    #[test]
    fn what_a_layout_has_no_room_for_is_not_written_in_it() {
        let layouts = |record: &Record| {
            complaints(&url(), record).into_iter().map(|(layout, _)| layout.as_str()).collect::<Vec<_>>()
        };
        let everywhere = [("address", "::1"), ("port", "80")];
        assert!(layouts(&record("web1", &everywhere)).is_empty());
        assert_eq!(layouts(&record("web1", &[("address", "::1")])), ["registrator", "grpc"]);
        assert_eq!(layouts(&record("web.1", &everywhere)), ["skydns"]);
        assert_eq!(layouts(&record("services", &everywhere)), ["registrator"]);
        assert_eq!(layouts(&record("web1", &[])), ["registrator", "skydns", "grpc"]);
    }
}
