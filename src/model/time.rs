use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Error;

/// How long a service may be silent before it counts as dead: 3 to 120 whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct HeartbeatTimeout(u8);

impl HeartbeatTimeout {
    /// The shortest.
    pub const MIN: Self = Self(3);
    /// The longest.
    pub const MAX: Self = Self(120);

    /// # Errors
    /// When `seconds` is not from 3 to 120.
    pub fn from_secs(seconds: u64) -> Result<Self, Error> {
        u8::try_from(seconds)
            .ok()
            .map(Self)
            .filter(|timeout| (Self::MIN..=Self::MAX).contains(timeout))
            .ok_or_else(|| Self::out_of_range(seconds.to_string()))
    }

    /// Reads `20`, `20s` or `1m 30s`; a bare number is seconds.
    ///
    /// # Errors
    /// When `text` is no span of whole seconds from 3 to 120.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let out_of_range = || Self::out_of_range(text.to_owned());
        if let Ok(seconds) = text.parse() {
            return Self::from_secs(seconds).map_err(|_| out_of_range());
        }
        let span = humantime::parse_duration(text).map_err(|_| Error::Form {
            what: "heartbeat timeout",
            value: text.to_owned(),
            expected: "a span of time such as `20`, `20s` or `1m 30s`",
        })?;
        if span.subsec_nanos() != 0 {
            return Err(out_of_range());
        }
        Self::from_secs(span.as_secs()).map_err(|_| out_of_range())
    }

    /// In whole seconds, as it goes over the wire.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0.into()
    }

    /// As a span of time.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.as_secs())
    }

    fn out_of_range(value: String) -> Error {
        let what = "heartbeat timeout in seconds";
        Error::Range { what, value, min: Self::MIN.as_secs(), max: Self::MAX.as_secs() }
    }
}

impl TryFrom<u64> for HeartbeatTimeout {
    type Error = Error;
    fn try_from(seconds: u64) -> Result<Self, Error> {
        Self::from_secs(seconds)
    }
}

impl From<HeartbeatTimeout> for u64 {
    fn from(timeout: HeartbeatTimeout) -> Self {
        timeout.as_secs()
    }
}

/// A point in time: whole milliseconds since the Unix epoch, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time of the wall clock. A clock before 1970 reads as 1970.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From milliseconds since the epoch.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0
    }
}

/// A time before 1970 reads as 1970.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// RFC 3339 in UTC, with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last instant that RFC 3339 can write, 9999-12-31T23:59:59.999Z: a later one is a broken clock's.
        const LAST: u64 = 253_402_300_799_999;
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(LAST));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_seconds_and_units_work() {
        for (text, seconds) in [("3", 3), ("20", 20), ("20s", 20), ("1m", 60), ("1m 30s", 90), ("120", 120)] {
            assert_eq!(HeartbeatTimeout::parse(text).unwrap().as_secs(), seconds);
        }
        for bad in ["", "2", "121", "0", "-5", "1h", "3500ms", "20x", "abc", "99999999999999999999"] {
            assert!(HeartbeatTimeout::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_reads_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
