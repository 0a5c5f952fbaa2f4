use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::{HeartbeatTimeout, Metadata, ServiceId, Tags, Timestamp};

/// What a service tells of itself when it enters the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name in the registry.
    pub id: ServiceId,
    /// How long it may be silent.
    pub heartbeat_timeout: HeartbeatTimeout,
    /// What it can be found by.
    #[serde(default)]
    pub tags: Tags,
    /// What else is to be known of it.
    #[serde(default)]
    pub metadata: Metadata,
}

impl Registration {
    /// Where it can be reached, as far as its metadata tells: its host is `address`, `host`, `hostname` or `ip`, the
    /// first of them that is there, and its port `port`.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let host = ["address", "host", "hostname", "ip"].iter().find_map(|key| self.metadata.get(key))?;
        Some(Endpoint { host: host.to_owned(), port: self.metadata.get("port").map(str::to_owned) })
    }
}

/// Where a service can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an IP address, as the service gave it.
    pub host: String,
    /// The port, as the service gave it.
    pub port: Option<String>,
}

impl Endpoint {
    /// Whether it is a host and a port and nothing else: safe to be put into a script or a configuration file.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_host = self.host.parse::<Ipv6Addr>().is_ok() || self.host.bytes().all(is_name);
        let is_port = |port: &String| port.parse::<u16>().is_ok_and(|port| port > 0);
        !self.host.is_empty() && is_host && self.port.as_ref().is_none_or(is_port)
    }
}

/// `host:port`, with an IPv6 address in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A service as the registry lists it: alive, for all that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What it told of itself.
    #[serde(flatten)]
    pub registration: Registration,
    /// The time of its last heartbeat; none before the first.
    pub last_seen: Option<Timestamp>,
}

/// A change to a listed service: what is `None` stays as it is, what is given replaces the old value whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceUpdate {
    /// Applies from the next heartbeat; the running deadline stays.
    pub heartbeat_timeout: Option<HeartbeatTimeout>,
    /// The new tags.
    pub tags: Option<Tags>,
    /// The new metadata.
    pub metadata: Option<Metadata>,
}
