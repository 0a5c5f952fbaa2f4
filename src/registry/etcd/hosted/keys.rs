//! Where things are under a registry's prefix.

use crate::model::{ConfigurationId, ServiceId};
use crate::registry::clock::Ticks;
use crate::registry::etcd::hosted::council::Member;

/// The names of a registry's keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// With a slash at both ends.
    prefix: String,
}

/// What a key is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Service(ServiceId),
    Value(ConfigurationId),
    Server(Member),
    /// The time of the last event: none is recorded with an earlier one.
    Clock,
    /// The revision up to which what others changed is in the log.
    Logged,
}

const SERVICES: &str = "services/";
const VALUES: &str = "configuration/";
const SERVERS: &str = "servers/";
const EVENTS: &str = "events/";

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("/{prefix}/") }
    }

    pub(super) fn all(&self) -> &str {
        &self.prefix
    }

    pub(super) fn services(&self) -> String {
        format!("{}{SERVICES}", self.prefix)
    }

    pub(super) fn values(&self) -> String {
        format!("{}{VALUES}", self.prefix)
    }

    pub(super) fn value(&self, id: &ConfigurationId) -> String {
        format!("{}{VALUES}{}", self.prefix, id.as_str())
    }

    pub(super) fn server(&self, member: Member) -> String {
        format!("{}{SERVERS}{member}", self.prefix)
    }

    pub(super) fn servers(&self) -> String {
        format!("{}{SERVERS}", self.prefix)
    }

    pub(super) fn clock(&self) -> String {
        format!("{}clock", self.prefix)
    }

    pub(super) fn created(&self) -> String {
        format!("{}created", self.prefix)
    }

    pub(super) fn secret(&self) -> String {
        format!("{}secret", self.prefix)
    }

    pub(super) fn logged(&self) -> String {
        format!("{}logged", self.prefix)
    }

    /// The prefix of all events.
    pub(super) fn events(&self) -> String {
        format!("{}{EVENTS}", self.prefix)
    }

    /// The event of a time: in the order of keys, events are in the order of time.
    pub(super) fn event(&self, time: Ticks) -> String {
        format!("{}{EVENTS}{:016x}", self.prefix, time.0)
    }

    /// What a key is for; none where it is nothing to a server.
    pub(super) fn kind(&self, key: &str) -> Option<Kind> {
        let key = key.strip_prefix(&self.prefix)?;
        match key {
            "clock" => return Some(Kind::Clock),
            "logged" => return Some(Kind::Logged),
            _ => {}
        }
        if let Some(id) = key.strip_prefix(SERVICES) {
            return id.parse().ok().map(Kind::Service);
        }
        if let Some(id) = key.strip_prefix(VALUES) {
            return id.parse().ok().map(Kind::Value);
        }
        Member::read(key.strip_prefix(SERVERS)?).map(Kind::Server)
    }
}

/// A time as a value: in the order of bytes, times are in their own order.
pub(super) fn written(time: Ticks) -> String {
    format!("{:016x}", time.0)
}

pub(super) fn read(value: &[u8]) -> Option<Ticks> {
    i64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok().map(Ticks)
}
