use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{ConfigurationId, Error, ServiceId, Timestamp, of_length};

/// How many items a page holds at most: 1 to 1000, 100 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The most items of one page.
    pub const MAX: Self = Self(1000);

    /// # Errors
    /// When `limit` is not from 1 to 1000.
    pub fn new(limit: u64) -> Result<Self, Error> {
        u16::try_from(limit).ok().filter(|limit| (1..=Self::MAX.0).contains(limit)).map(Self).ok_or_else(
            || Error::Range { what: "limit", value: limit.to_string(), min: 1, max: Self::MAX.0.into() },
        )
    }

    /// As a count.
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Limit {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        value.parse().ok().and_then(|limit| Self::new(limit).ok()).ok_or_else(|| Error::Range {
            what: "limit",
            value: value.to_owned(),
            min: 1,
            max: Self::MAX.0.into(),
        })
    }
}

/// A place in a list that is ordered by id: at this id, or where it would stand. At most 500 characters of
/// `a-z A-Z 0-9 - : _ . /`, so that every id is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// # Errors
    /// When `value` is longer than 500 characters, or has one that a marker may not have.
    pub fn new(value: impl Into<String>) -> Result<Self, Error> {
        let value = of_length("marker", value.into(), 0, 500)?;
        if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-:_./".contains(&b)) {
            Ok(Self(value))
        } else {
            let allowed = "letters, digits, `-`, `:`, `_`, `.` and `/`";
            Err(Error::Characters { what: "marker", value, allowed })
        }
    }

    /// The marker as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ServiceId> for Marker {
    fn from(id: ServiceId) -> Self {
        Self(id.into())
    }
}

impl From<ConfigurationId> for Marker {
    fn from(id: ConfigurationId) -> Self {
        Self(id.into())
    }
}

impl FromStr for Marker {
    type Err = Error;
    fn from_str(value: &str) -> Result<Self, Error> {
        Self::new(value)
    }
}

/// Which part of a list is wanted. `M` is what marks a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<M> {
    /// Where the page begins, inclusive; what is gone in the meantime begins it at the next.
    pub marker: Option<M>,
    /// How long it is at most.
    pub limit: Limit,
}

impl<M> Default for PageRequest<M> {
    fn default() -> Self {
        Self { marker: None, limit: Limit::default() }
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T, M> {
    /// The items of this page, in order.
    pub values: Vec<T>,
    /// The marker of the first item of the next page; none when this is the last.
    pub next_marker: Option<M>,
    /// When the registry said so, if it could not be asked just now: this is what it last answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Timestamp>,
}

impl<T, M> Page<T, M> {
    /// A page of at most `limit` from one item more than that: the extra one marks the next page.
    pub fn from_lookahead(mut values: Vec<T>, limit: Limit, marker: impl FnOnce(&T) -> M) -> Self {
        let next_marker = values.get(limit.get()).map(marker);
        values.truncate(limit.get());
        Self { values, next_marker, stale_since: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_1_to_1000() {
        assert_eq!("1000".parse::<Limit>().unwrap().get(), 1000);
        for bad in ["", "0", "1001", "-1", "x", "1.5"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_item_past_the_page_marks_the_next() {
        let limit = Limit::new(2).unwrap();
        let page = Page::from_lookahead(vec!["a", "b", "c"], limit, |item| *item);
        assert_eq!((page.values, page.next_marker), (vec!["a", "b"], Some("c")));
        let page = Page::from_lookahead(vec!["a", "b"], limit, |item| *item);
        assert_eq!((page.values, page.next_marker), (vec!["a", "b"], None));
    }
}
