use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, of_length};

/// What else is to be known of a service: at most 20 pairs, keys and values of 1 to 255 characters, sorted by
/// key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// The most pairs a service may have.
    pub const MAX: usize = 20;
    /// The most characters of a key or a value.
    pub const MAX_LENGTH: usize = 255;

    /// A key given twice keeps its last value.
    ///
    /// # Errors
    /// When there are more than 20 pairs, or a key or a value is empty or longer than 255 characters.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| {
                let key = of_length("metadata key", key, 1, Self::MAX_LENGTH)?;
                Ok((key, of_length("metadata value", value, 1, Self::MAX_LENGTH)?))
            })
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        if pairs.len() > Self::MAX {
            return Err(Error::Count { what: "metadata pairs", count: pairs.len(), max: Self::MAX });
        }
        Ok(Self(pairs))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Each pair, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Metadata {
    type Error = Error;
    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, Error> {
        Self::new(pairs)
    }
}

impl From<Metadata> for BTreeMap<String, String> {
    fn from(metadata: Metadata) -> Self {
        metadata.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> impl Iterator<Item = (String, String)> {
        (0..count).map(|number| (format!("k{number}"), "v".to_owned()))
    }

    #[test]
    fn metadata_keeps_the_limits_of_the_api() {
        assert!(Metadata::new(pairs(20)).is_ok());
        assert!(Metadata::new(pairs(21)).is_err());
        for (key, value) in [("", "v"), ("k", ""), (&*"k".repeat(256), "v"), ("k", &*"v".repeat(256))] {
            assert!(Metadata::new([(key.to_owned(), value.to_owned())]).is_err());
        }
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let twice = ["1", "2"].map(|value| ("k".to_owned(), value.to_owned()));
        assert_eq!(Metadata::new(twice).unwrap().get("k"), Some("2"));
    }
}
