use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConfigurationId, Error, Registration, Timestamp};

/// Something that happened in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// A version 1 UUID; events are ordered by the time in it.
    pub id: Uuid,
    /// When the registry recorded it.
    pub timestamp: Timestamp,
    /// What happened, and to what.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened, with what is to be known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload")]
pub enum EventBody {
    /// A service entered the registry.
    #[serde(rename = "service.join")]
    ServiceJoin(Registration),
    /// A service was silent for longer than its timeout, and is gone.
    #[serde(rename = "service.timeout")]
    ServiceTimeout(Registration),
    /// A service was taken out on purpose.
    #[serde(rename = "service.remove")]
    ServiceRemove(Registration),
    /// A configuration value was created or changed.
    #[serde(rename = "configuration_value.update")]
    ConfigurationUpdate {
        /// The value before; none when it was created.
        old_value: Option<String>,
        /// The value since.
        new_value: String,
        /// Which value.
        configuration_value_id: ConfigurationId,
    },
    /// A configuration value was removed.
    #[serde(rename = "configuration_value.remove")]
    ConfigurationRemove {
        /// The value it had.
        old_value: String,
        /// Which value.
        configuration_value_id: ConfigurationId,
    },
}

impl EventBody {
    /// Its kind alone.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::ServiceJoin(_) => EventKind::ServiceJoin,
            Self::ServiceTimeout(_) => EventKind::ServiceTimeout,
            Self::ServiceRemove(_) => EventKind::ServiceRemove,
            Self::ConfigurationUpdate { .. } => EventKind::ConfigurationUpdate,
            Self::ConfigurationRemove { .. } => EventKind::ConfigurationRemove,
        }
    }

    /// The id of the service or configuration value it is about.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::ServiceJoin(service) | Self::ServiceTimeout(service) | Self::ServiceRemove(service) => {
                service.id.as_str()
            }
            Self::ConfigurationUpdate { configuration_value_id, .. }
            | Self::ConfigurationRemove { configuration_value_id, .. } => configuration_value_id.as_str(),
        }
    }
}

/// The kinds of events, under their names on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// `service.join`
    ServiceJoin,
    /// `service.timeout`
    ServiceTimeout,
    /// `service.remove`
    ServiceRemove,
    /// `configuration_value.update`
    ConfigurationUpdate,
    /// `configuration_value.remove`
    ConfigurationRemove,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] = [
        Self::ServiceJoin,
        Self::ServiceTimeout,
        Self::ServiceRemove,
        Self::ConfigurationUpdate,
        Self::ConfigurationRemove,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceJoin => "service.join",
            Self::ServiceTimeout => "service.timeout",
            Self::ServiceRemove => "service.remove",
            Self::ConfigurationUpdate => "configuration_value.update",
            Self::ConfigurationRemove => "configuration_value.remove",
        }
    }
}

impl FromStr for EventKind {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == value).ok_or_else(|| Error::Form {
            what: "event type",
            value: value.to_owned(),
            expected: "one of service.join, service.timeout, service.remove, configuration_value.update, \
                       configuration_value.remove",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_shape_of_the_wire() {
        let event = Event {
            id: Uuid::nil(),
            timestamp: Timestamp::from_millis(5),
            body: EventBody::ConfigurationUpdate {
                old_value: None,
                new_value: "v".to_owned(),
                configuration_value_id: "/prod/key".parse().unwrap(),
            },
        };
        let json = serde_json::json!({
            "id": "00000000-0000-0000-0000-000000000000", "timestamp": 5, "type": "configuration_value.update",
            "payload": {"old_value": null, "new_value": "v", "configuration_value_id": "/prod/key"},
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), json);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn every_kind_reads_back_from_its_name() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("service.left".parse::<EventKind>().is_err());
    }
}
