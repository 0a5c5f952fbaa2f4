use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, of_length};

/// The name under which a service is listed: 3 to 65 characters of `a-z A-Z 0-9 _ - .`, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId(String);

impl ServiceId {
    /// The fewest characters of an id.
    pub const MIN_LENGTH: usize = 3;
    /// The most characters of an id.
    pub const MAX_LENGTH: usize = 65;

    /// # Errors
    /// When `value` has fewer than 3 or more than 65 characters, or one that an id may not have.
    pub fn new(value: impl Into<String>) -> Result<Self, Error> {
        let value = of_length("service id", value.into(), Self::MIN_LENGTH, Self::MAX_LENGTH)?;
        if value.chars().all(Self::allows) {
            Ok(Self(value))
        } else {
            Err(Error::Characters { what: "service id", value, allowed: "letters, digits, `_`, `-` and `.`" })
        }
    }

    /// An id for a service that was given none: `<host>-<command>`, with what an id may not have replaced by
    /// `-` and cut to size.
    #[must_use]
    pub fn for_command(host: &str, command: &str) -> Self {
        let host = if host.is_empty() { "localhost" } else { host };
        let command = if command.is_empty() { "command" } else { command };
        Self(
            format!("{host}-{command}")
                .chars()
                .map(|character| if Self::allows(character) { character } else { '-' })
                .take(Self::MAX_LENGTH)
                .collect(),
        )
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServiceId {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl TryFrom<String> for ServiceId {
    type Error = Error;
    fn try_from(value: String) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> Self {
        id.0
    }
}

/// What a heartbeat must present: the token that the registration or the last heartbeat returned.
///
/// A secret of sorts, so that its `Debug` shows nothing; opaque to whoever sends it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A token as a registry issued it.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The token as it goes over the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// One life of one wrapper. It tells our own earlier registration, whose answer was lost, from somebody else's
/// under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Uuid);

impl InstanceId {
    /// A new one, never seen before.
    #[must_use]
    pub fn unique() -> Self {
        // Random, but marked as a version 1 UUID: a registry may make it the token of a heartbeat, and servers of the API
        // take no others.
        let random = Uuid::new_v4().into_bytes();
        Self(uuid::Builder::from_bytes(random).with_version(uuid::Version::Mac).into_uuid())
    }
}

impl FromStr for InstanceId {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        value.parse().map(Self).map_err(|_| Error::Form {
            what: "instance",
            value: value.to_owned(),
            expected: "a UUID",
        })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_keep_the_limits_of_the_api() {
        for good in ["abc", "my-host1-api0", "A.b_c-9", &"x".repeat(65)] {
            assert_eq!(ServiceId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "ab", "a b", "a/b", "äöü", "abc\n", &"x".repeat(66)] {
            assert!(ServiceId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Token::new("sesame")).contains("sesame"));
    }

    proptest! {
        #[test]
        fn a_default_id_is_always_legal(host in ".{0,80}", command in ".{0,80}") {
            let id = ServiceId::for_command(&host, &command);
            prop_assert!(ServiceId::new(id.as_str()).is_ok(), "{}", id);
        }
    }
}
