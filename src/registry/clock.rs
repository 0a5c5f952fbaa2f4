//! The two clocks of a registry that we keep ourselves.
//!
//! Deadlines are on `CLOCK_BOOTTIME`: all processes of a machine share it, it counts suspended time, and nobody
//! can set it, so that a wall clock put back or forward an hour neither keeps the dead nor kills the living.
//! What people read (`last_seen`, events) is wall time.
#![cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only an embedded registry keeps deadlines"))]

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use uuid::{Timestamp as UuidTime, Uuid};

use crate::model::{self, HeartbeatTimeout, MarkerFault};

/// Milliseconds since the machine was started.
pub(super) fn uptime_millis() -> io::Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000)
}

/// The deadlines of the living at `now`: after it, and no further off than the longest timeout. One further off
/// is of a time before the last boot, when the clock began again at zero.
pub(super) fn living(now: i64) -> std::ops::RangeInclusive<i64> {
    now + 1..=now + millis(HeartbeatTimeout::MAX.as_duration())
}

/// A span as the file has it.
pub(super) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A point in time as version 1 UUIDs count it: units of 100 ns since 1582-10-15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(pub(super) i64);

impl Ticks {
    const UNIX_EPOCH: i64 = 0x01b2_1dd2_1381_4000;
    const PER_MILLISECOND: i64 = 10_000;

    pub(super) fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(
            Self::UNIX_EPOCH + i64::try_from(elapsed.as_nanos() / 100).unwrap_or(i64::MAX - Self::UNIX_EPOCH),
        )
    }

    /// The time in a marker.
    ///
    /// # Errors
    /// When it is no version 1 UUID.
    pub(super) fn of(marker: &Uuid) -> Result<Self, model::Error> {
        let time = marker.get_timestamp().filter(|_| marker.get_version_num() == 1);
        time.and_then(|time| i64::try_from(time.to_gregorian().0).ok())
            .map(Self)
            .ok_or(model::Error::Marker { marker: *marker, fault: MarkerFault::NotTimeBased })
    }

    #[cfg(feature = "server")]
    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span) * Self::PER_MILLISECOND))
    }

    pub(super) fn before(self, span: Duration) -> Self {
        Self(self.0 - millis(span) * Self::PER_MILLISECOND)
    }

    pub(super) fn timestamp(self) -> model::Timestamp {
        let millis = (self.0 - Self::UNIX_EPOCH) / Self::PER_MILLISECOND;
        model::Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
    }

    /// A version 1 UUID of this time. Its node and clock sequence are random (RFC 9562, section 6.10), so that
    /// two of the same time differ.
    pub(super) fn uuid(self) -> Uuid {
        let random = Uuid::new_v4().into_bytes();
        let [clock_high, clock_low, node @ ..] = random;
        let mut node = [node[0], node[1], node[2], node[3], node[9], node[10]];
        node[0] |= 0x01;
        let ticks = u64::try_from(self.0).unwrap_or_default();
        let sequence = u16::from_be_bytes([clock_high, clock_low]);
        Uuid::new_v1(UuidTime::from_gregorian_time(ticks, sequence), &node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_its_uuid() {
        let now = Ticks::now();
        assert_eq!(Ticks::of(&now.uuid()), Ok(now));
        assert_ne!(now.uuid(), now.uuid());
        assert!(now.timestamp().as_millis().abs_diff(model::Timestamp::now().as_millis()) < 5_000);
        assert!(Ticks::of(&Uuid::new_v4()).is_err());
    }
}
