//! How far the events have been shown.

use std::time::Duration;

use uuid::Uuid;

use crate::model::{Event, Timestamp};

/// 1970 as version 1 UUIDs count: units of 100 ns since 1582-10-15.
const UNIX_EPOCH: u64 = 0x01b2_1dd2_1381_4000;
const TICKS_PER_MILLISECOND: u64 = 10_000;

/// Where to go on. Events are told apart by the time in their ids alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// After the newest event there is, which has to be found.
    Newest,
    /// At the moment when following began, on the registry's clock, which has to be asked for.
    Beginning,
    /// At `marker`, but at no event from before `earliest`. No event has been shown.
    At { marker: Uuid, earliest: u64 },
    /// After this event, the last that was shown.
    After(Uuid),
}

impl Position {
    /// At this event or time, inclusive.
    pub(super) fn at(marker: Uuid) -> Self {
        Self::At { marker, earliest: ticks(&marker) }
    }

    /// Where a page has to begin.
    pub(super) fn marker(self) -> Option<Uuid> {
        match self {
            Self::Newest | Self::Beginning => None,
            Self::At { marker, .. } | Self::After(marker) => Some(marker),
        }
    }

    /// Whether `event` has still to be shown.
    pub(super) fn is_before(self, event: &Event) -> bool {
        match self {
            Self::Newest | Self::Beginning => false,
            Self::At { earliest, .. } => ticks(&event.id) >= earliest,
            Self::After(last) => ticks(&event.id) > ticks(&last),
        }
    }
}

/// The time in a version 1 UUID.
pub(super) fn ticks(id: &Uuid) -> u64 {
    id.get_timestamp().map_or(0, |time| time.to_gregorian().0)
}

/// A marker at `waited` before `now`.
pub(super) fn marker_before(now: Timestamp, waited: Duration) -> Uuid {
    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let since_epoch = now.as_millis().saturating_sub(waited).saturating_mul(TICKS_PER_MILLISECOND);
    let time = uuid::Timestamp::from_gregorian_time(UNIX_EPOCH.saturating_add(since_epoch), 0);
    Uuid::new_v1(time, &[1, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EventBody;

    /// The later its time, the smaller its text.
    fn id(high: u32) -> Uuid {
        let low = 9 - high;
        format!("{low:08x}-{high:04x}-1000-8000-000000000000").parse().unwrap()
    }

    fn event(id: Uuid) -> Event {
        let body = EventBody::ConfigurationRemove {
            old_value: String::new(),
            configuration_value_id: "key".parse().unwrap(),
        };
        Event { id, timestamp: Timestamp::from_millis(0), body }
    }

    #[test]
    fn events_are_ordered_by_their_time_and_not_by_their_text() {
        let position = Position::After(id(2));
        let is_before = [1, 2, 3].map(|high| position.is_before(&event(id(high))));
        assert_eq!(is_before, [false, false, true]);
        let is_at = [1, 2, 3].map(|high| Position::at(id(2)).is_before(&event(id(high))));
        assert_eq!(is_at, [false, true, true]);
    }

    #[test]
    fn a_marker_has_the_time_that_it_was_made_for() {
        let marker = marker_before(Timestamp::from_millis(1_700_000_000_500), Duration::from_millis(500));
        let (seconds, nanoseconds) = marker.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanoseconds, marker.get_version_num()), (1_700_000_000, 0, 1));
    }
}
