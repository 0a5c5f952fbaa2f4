//! What consumers read: the node of a service where each kind of them looks, byte for byte as they know it.

mod curator;
mod nerve;
mod serverset;

use serde::Serialize;

use super::operation::Lasting;
use crate::model::{Endpoint, Registration, Timestamp};
use crate::registry::ZookeeperLayout;

/// The node of a service for consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Without the chroot; without the number that the server adds, where it is sequential.
    pub(super) path: String,
    pub(super) data: Vec<u8>,
    pub(super) lasting: Lasting,
    /// How long its parents are there.
    pub(super) parents: Lasting,
}

impl Entry {
    /// Its path, where that is known before it is there.
    pub(super) fn fixed_path(&self) -> Option<&str> {
        (self.lasting == Lasting::Ephemeral).then_some(self.path.as_str())
    }
}

impl ZookeeperLayout {
    /// The node of a service that registered at this time. One without an address and a port has none: consumers could
    /// do nothing with it, and some of them fail.
    pub(super) fn entry(&self, registration: &Registration, registered_at: Timestamp) -> Option<Entry> {
        let endpoint = registration.endpoint().filter(Endpoint::is_plain)?;
        let endpoint = (endpoint.host, endpoint.port?.parse().ok()?);
        Some(match self {
            Self::Curator { path } => curator::entry(path, registration, endpoint, registered_at),
            Self::Nerve { path } => nerve::entry(path, registration, endpoint),
            Self::Serverset { path } => serverset::entry(path, endpoint),
        })
    }
}

/// The tags as one text.
fn joined(registration: &Registration) -> Option<String> {
    let tags: Vec<_> = registration.tags.iter().map(crate::model::Tag::as_str).collect();
    (!tags.is_empty()).then(|| tags.join(","))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers only: there is nothing that cannot be JSON.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeartbeatTimeout, Metadata, Tag, Tags};

    fn registration(pairs: &[(&str, &str)]) -> Registration {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Registration {
            id: "web1".parse().unwrap(),
            heartbeat_timeout: HeartbeatTimeout::MIN,
            tags: Tags::new(vec![Tag::new("www").unwrap(), Tag::new("a b").unwrap()]).unwrap(),
            metadata: Metadata::new(pairs).unwrap(),
        }
    }

    fn entry(layout: &ZookeeperLayout, pairs: &[(&str, &str)]) -> (String, String) {
        let entry = layout.entry(&registration(pairs), Timestamp::from_millis(1_700_000_000_123)).unwrap();
        (entry.path, String::from_utf8(entry.data).unwrap())
    }

    const ADDRESS: [(&str, &str); 3] = [("name", "shop"), ("address", "10.1.2.3"), ("port", "8080")];

    #[test]
    fn each_layout_is_as_its_consumers_know_it() {
        let (path, data) = entry(&ZookeeperLayout::Nerve { path: "/n".to_owned() }, &ADDRESS);
        assert_eq!(path, "/n/web1_");
        assert_eq!(
            data,
            r#"{"host":"10.1.2.3","port":8080,"name":"web1","labels":{"address":"10.1.2.3","name":"shop","port":"8080","tags":"www,a b"}}"#
        );
        let (path, data) = entry(&ZookeeperLayout::Serverset { path: "/s".to_owned() }, &ADDRESS);
        assert_eq!(path, "/s/member_");
        assert_eq!(
            data,
            r#"{"serviceEndpoint":{"host":"10.1.2.3","port":8080},"additionalEndpoints":{},"status":"ALIVE","shard":0}"#
        );
        let (path, data) = entry(&ZookeeperLayout::Curator { path: "/services".to_owned() }, &ADDRESS);
        assert_eq!(path, "/services/shop/web1");
        let expected = r#"{"name":"shop","id":"web1","address":"10.1.2.3","port":8080,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"web1","name":"shop","metadata":{"address":"10.1.2.3","instance_status":"UP","name":"shop","port":"8080","tags":"www,a b"}},"registrationTimeUTC":1700000000123,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;
        assert_eq!(data, expected);
    }

    #[test]
    fn a_service_that_cannot_be_reached_is_not_shown() {
        for layout in [
            ZookeeperLayout::Curator { path: "/services".to_owned() },
            ZookeeperLayout::Nerve { path: "/n".to_owned() },
            ZookeeperLayout::Serverset { path: "/s".to_owned() },
        ] {
            for pairs in [&[][..], &[("port", "80")], &[("host", "a")], &[("host", "a b"), ("port", "80")]] {
                assert_eq!(layout.entry(&registration(pairs), Timestamp::now()), None);
            }
        }
    }

    #[test]
    fn any_name_is_the_name_of_a_node() {
        let curator = ZookeeperLayout::Curator { path: String::new() };
        for (name, expected) in [
            ("a/b", "/a%2Fb/web1"),
            ("..", "/%2E%2E/web1"),
            ("a\n€", "/a%0A€/web1"),
            ("𝄞", "/%F0%9D%84%9E/web1"),
        ] {
            let pairs = [("name", name), ("host", "a"), ("port", "80")];
            assert_eq!(entry(&curator, &pairs).0, expected);
        }
    }
}
