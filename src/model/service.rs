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
