use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, ServiceId, of_length};

/// The name of a configuration value.
///
/// Either a plain key of 3 to 170 characters of `a-z A-Z 0-9 _ - .`, or `/ns1/…/nsN/key` with at most 10
/// namespaces of 3 to 50 characters of `a-z A-Z 0-9 _ -` (no dots) before it; 500 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigurationId(String);

/// The most namespaces that an id, or a namespace itself, may name.
const MAX_DEPTH: usize = 10;
const EXPECTED: &str = "a key of 3 to 170 of `a-z 0-9 _ - .`, or `/namespace/…/key` with at most 10 namespaces of 3 to \
     50 of `a-z 0-9 _ -`";

impl ConfigurationId {
    /// # Errors
    /// When `value` has not the form told above.
    pub fn new(value: impl Into<String>) -> Result<Self, Error> {
        let value = of_length("configuration id", value.into(), 3, 500)?;
        let legal = match value.rsplit_once('/') {
            None => is_key(&value),
            Some((namespaces, key)) => is_key(key) && (namespaces.is_empty() || is_namespace(namespaces)),
        };
        if legal {
            Ok(Self(value))
        } else {
            Err(Error::Form { what: "configuration id", value, expected: EXPECTED })
        }
    }

    /// The one that is called as a service, in a `namespace`: whatever may be in a service's id may be in a key.
    pub(super) fn of_service(namespace: &'static str, service: &ServiceId) -> Self {
        Self(format!("{namespace}/{service}"))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_key(key: &str) -> bool {
    (3..=170).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_namespace(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    path.split('/').count() <= MAX_DEPTH
        && path.split('/').all(|name| {
            (3..=50).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
}

impl fmt::Display for ConfigurationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ConfigurationId {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl TryFrom<String> for ConfigurationId {
    type Error = Error;
    fn try_from(value: String) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl From<ConfigurationId> for String {
    fn from(id: ConfigurationId) -> Self {
        id.0
    }
}

/// A namespace of configuration values: `/ns1/…/nsN`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// A leading slash may be left out, one at the end is dropped: `prod`, `/prod` and `/prod/` are the same.
    ///
    /// # Errors
    /// When `value` is not 1 to 10 names of 3 to 50 characters of `a-z A-Z 0-9 _ -`.
    pub fn new(value: &str) -> Result<Self, Error> {
        let path = format!("/{}", value.trim_matches('/'));
        if is_namespace(&path) {
            Ok(Self(path))
        } else {
            let expected = "1 to 10 names of 3 to 50 of `a-z 0-9 _ -`, with `/` between them";
            Err(Error::Form { what: "namespace", value: value.to_owned(), expected })
        }
    }

    /// Whether a value is in it, or has its name.
    #[must_use]
    pub fn contains(&self, id: &ConfigurationId) -> bool {
        let rest = id.as_str().strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The namespace as text, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::new(value)
    }
}

/// A configuration value: a text of 1 to 1024 characters under an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ConfigurationValue {
    /// Its name.
    pub id: ConfigurationId,
    value: String,
}

impl ConfigurationValue {
    /// # Errors
    /// When `value` is empty or longer than 1024 characters.
    pub fn new(id: ConfigurationId, value: impl Into<String>) -> Result<Self, Error> {
        Ok(Self { id, value: of_length("configuration value", value.into(), 1, 1024)? })
    }

    /// The text.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }
}

#[derive(Deserialize)]
struct Unchecked {
    id: ConfigurationId,
    value: String,
}

impl TryFrom<Unchecked> for ConfigurationValue {
    type Error = Error;
    fn try_from(Unchecked { id, value }: Unchecked) -> Result<Self, Error> {
        Self::new(id, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_keys_or_keys_in_namespaces() {
        let deep = "/abc".repeat(10);
        for good in ["key", "a.b", "/prod/key", "/key", "/prod/eu-1/a.b", &format!("{deep}/key")] {
            assert!(ConfigurationId::new(good).is_ok(), "{good:?}");
        }
        for bad in
            ["", "ab", "prod/key", "/prod/", "/a.b/key", "/ab/key", "/prod//key", &format!("{deep}/abc/key")]
        {
            assert!(ConfigurationId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_namespace_may_be_written_three_ways() {
        for text in ["prod", "/prod", "/prod/"] {
            assert_eq!(Namespace::new(text).unwrap().as_str(), "/prod");
        }
        for bad in ["", "/", "a.b", "ab"] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_counted_in_characters() {
        let id: ConfigurationId = "key".parse().unwrap();
        assert!(ConfigurationValue::new(id.clone(), "ä".repeat(1024)).is_ok());
        assert!(ConfigurationValue::new(id.clone(), "x".repeat(1025)).is_err());
        assert!(ConfigurationValue::new(id, "").is_err());
    }
}
