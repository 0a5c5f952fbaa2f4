//! A service as our own layout has it: the key that guards its id, and everything that is to be known of it.

use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::lease::LeaseId;
use super::wire::KeyValue;
#[cfg(feature = "server")]
use crate::model::Tag;
use crate::model::{
    Endpoint, HeartbeatTimeout, InstanceId, Metadata, Registration, ServiceId, Tags, Timestamp, Token,
};
use crate::registry::Claim;

/// What stands under `/<prefix>/services/<id>`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: ServiceId,
    /// What several services of one kind are called together.
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) tags: Tags,
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) heartbeat_timeout: HeartbeatTimeout,
    pub(super) created_at: Timestamp,
    pub(super) instance: InstanceId,
    /// Who that is, in words.
    #[serde(default)]
    pub(super) holder: String,
    /// What its heartbeats' tokens are made with, where servers keep it. Otherwise it is on a lease of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<Uuid>,
    /// It is being taken out on purpose, and counts as gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leaving: bool,
}

impl Record {
    pub(super) fn new(registration: &Registration, claim: &Claim) -> Self {
        let (id, instance, holder) = (registration.id.clone(), claim.instance, claim.holder.clone());
        let record = Self {
            name: String::new(),
            address: None,
            port: None,
            tags: Tags::default(),
            metadata: Metadata::default(),
            heartbeat_timeout: registration.heartbeat_timeout,
            created_at: Timestamp::now(),
            seed: None,
            leaving: false,
            id,
            instance,
            holder,
        };
        record.with(registration)
    }

    /// The same life of the service, as `registration` describes it.
    pub(super) fn with(self, registration: &Registration) -> Self {
        let metadata = registration.metadata.clone();
        let port = metadata.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        Self {
            name: metadata.get("name").unwrap_or(registration.id.as_str()).to_owned(),
            address: registration.endpoint().filter(Endpoint::is_plain).map(|endpoint| endpoint.host),
            port,
            tags: registration.tags.clone(),
            metadata,
            heartbeat_timeout: registration.heartbeat_timeout,
            ..self
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn has_tag(&self, wanted: &Tag) -> bool {
        self.tags.iter().any(|tag| tag == wanted)
    }

    pub(super) fn registration(&self) -> Registration {
        Registration {
            id: self.id.clone(),
            heartbeat_timeout: self.heartbeat_timeout,
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// `address:port`, where both are known.
    pub(super) fn endpoint(&self) -> Option<String> {
        let (host, port) = (self.address.clone()?, self.port?.to_string());
        Some(Endpoint { host, port: Some(port) }.to_string())
    }
}

/// What is under the key of a service.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// None where it is not one of ours.
    pub(super) record: Option<Record>,
    pub(super) lease: Option<LeaseId>,
    pub(super) revision: i64,
}

impl Found {
    pub(super) fn read(found: &KeyValue) -> Self {
        Self {
            record: serde_json::from_slice(&found.value).ok(),
            lease: LeaseId::of_key(found.lease),
            revision: found.mod_revision,
        }
    }

    /// The record of an instance's, whether it is leaving or not.
    pub(super) fn of(&self, instance: InstanceId) -> Option<&Record> {
        self.record.as_ref().filter(|record| record.instance == instance)
    }

    /// The record of a service that is listed.
    pub(super) fn listed(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| !record.leaving)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.leaving)
    }
}

/// What a heartbeat has to know, so that it need not ask: `<lease>.<instance>.<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) lease: LeaseId,
    pub(super) instance: InstanceId,
}

impl Holding {
    pub(super) fn token(&self, id: &ServiceId) -> Token {
        Token::new(format!("{}.{}.{id}", self.lease, self.instance))
    }

    /// None where the token is not for this service.
    pub(super) fn of_token(token: &Token, id: &ServiceId) -> Option<Self> {
        let mut parts = token.as_str().splitn(3, '.');
        let (lease, instance) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (parts.next()? == id.as_str()).then_some(Self { lease, instance })
    }
}
