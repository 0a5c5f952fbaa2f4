//! What a registry holds, as validated values.
//!
//! Nothing here does I/O or knows a backend. A value that exists is a legal one: each type is made by a
//! constructor that checks the limits of the Service Registry API, and the limits stand next to the type they
//! bound. Serialised, every type has the shape it has on the wire of that API.

mod configuration;
mod drained;
mod event;
mod id;
mod metadata;
mod page;
mod service;
mod tags;
mod time;

pub use configuration::{ConfigurationId, ConfigurationValue, Namespace};
pub use drained::Drained;
pub use event::{Event, EventBody, EventKind};
pub use id::{InstanceId, ServiceId, Token};
pub use metadata::Metadata;
pub use page::{Limit, Marker, Page, PageRequest};
pub use service::{Endpoint, Registration, Service, ServiceUpdate};
pub use tags::{Tag, Tags};
pub use time::{HeartbeatTimeout, Timestamp};

/// Why a value is not legal. Each says what was wrong, the value, and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A text is too short or too long, in characters.
    #[error("{what} `{}` is {length} characters long, it needs {min} to {max}", printable(.value))]
    Length {
        /// What the text is, as a noun with its article's place left empty: `service id`.
        what: &'static str,
        /// The text itself.
        value: String,
        /// Its length in characters.
        length: usize,
        /// The fewest characters allowed.
        min: usize,
        /// The most characters allowed.
        max: usize,
    },
    /// A text has a character that is not allowed there.
    #[error("{what} `{}` may only have {allowed}", printable(.value))]
    Characters {
        /// What the text is.
        what: &'static str,
        /// The text itself.
        value: String,
        /// The characters it may have, in words.
        allowed: &'static str,
    },
    /// There are too many of something.
    #[error("{count} {what}, at most {max} are allowed")]
    Count {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A number is outside its range.
    #[error("{what} `{}` is not a whole number from {min} to {max}", printable(.value))]
    Range {
        /// What the number is.
        what: &'static str,
        /// As it was given.
        value: String,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A text is not of the form it must have.
    #[error("{what} `{}` is not {expected}", printable(.value))]
    Form {
        /// What the text is.
        what: &'static str,
        /// The text itself.
        value: String,
        /// The form it must have, with its article: `a version 1 UUID`.
        expected: &'static str,
    },
    /// A marker does not point into the event log.
    #[error("event marker `{marker}` {fault}")]
    Marker {
        /// The marker.
        marker: uuid::Uuid,
        /// What is wrong with it.
        fault: MarkerFault,
    },
}

/// What is wrong with a marker into the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerFault {
    /// It is no version 1 UUID, and so has no time.
    NotTimeBased,
    /// Its time has not come yet.
    InTheFuture,
    /// Its time was before the registry was made.
    BeforeTheLog,
}

impl std::fmt::Display for MarkerFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotTimeBased => "is not a version 1 UUID",
            Self::InTheFuture => "is of a time that has not come yet",
            Self::BeforeTheLog => "is of a time before the registry was made",
        })
    }
}

/// User data for a message: on one line, and cut where it is too long to read.
#[must_use]
pub fn printable(value: &str) -> String {
    const LONGEST: usize = 80;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => escaped(&value[..end]) + "…",
        None => escaped(value),
    }
}

/// User data with its control characters escaped: it stays on one line, and cannot drive a terminal.
#[must_use]
pub fn escaped(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// `value` as it is, if it has `min` to `max` characters.
fn of_length(what: &'static str, value: String, min: usize, max: usize) -> Result<String, Error> {
    let length = value.chars().count();
    if (min..=max).contains(&length) {
        Ok(value)
    } else {
        Err(Error::Length { what, value, length, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_the_value() {
        assert_eq!(printable("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(printable(&"x".repeat(100)).chars().count(), 81);
    }
}
