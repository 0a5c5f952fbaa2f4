use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, of_length};

/// One label of a service, to find it by: 1 to 55 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// # Errors
    /// When `value` is empty or longer than 55 characters.
    pub fn new(value: impl Into<String>) -> Result<Self, Error> {
        of_length("tag", value.into(), 1, 55).map(Self)
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl TryFrom<String> for Tag {
    type Error = Error;
    fn try_from(value: String) -> Result<Self, Error> {
        Self::new(value)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

/// The tags of one service: at most 10, in the order given, duplicates allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tag>", into = "Vec<Tag>")]
pub struct Tags(Vec<Tag>);

impl Tags {
    /// The most tags a service may have.
    pub const MAX: usize = 10;

    /// # Errors
    /// When there are more than 10.
    pub fn new(tags: Vec<Tag>) -> Result<Self, Error> {
        if tags.len() > Self::MAX {
            return Err(Error::Count { what: "tags", count: tags.len(), max: Self::MAX });
        }
        Ok(Self(tags))
    }

    /// Each tag, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Tag>> for Tags {
    type Error = Error;
    fn try_from(tags: Vec<Tag>) -> Result<Self, Error> {
        Self::new(tags)
    }
}

impl From<Tags> for Vec<Tag> {
    fn from(tags: Tags) -> Self {
        tags.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_the_limits_of_the_api() {
        assert!(Tag::new("").is_err());
        assert!(Tag::new("ä".repeat(55)).is_ok());
        assert!(Tag::new("x".repeat(56)).is_err());
        let tag = Tag::new("x").unwrap();
        assert!(Tags::new(vec![tag.clone(); 10]).is_ok());
        assert!(Tags::new(vec![tag; 11]).is_err());
    }
}
