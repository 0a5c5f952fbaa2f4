//! How the gateway writes numbers and bytes, and what it leaves out: whatever is zero, empty or false.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::registry) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(in crate::registry) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(in crate::registry) value: Vec<u8>,
    /// The revision of the whole store when the key was last written.
    #[serde(default, deserialize_with = "number")]
    pub(in crate::registry) mod_revision: i64,
    /// The lease that it ends with; 0 without one.
    #[serde(default, deserialize_with = "number")]
    pub(in crate::registry) lease: i64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

/// An integer of 64 bits: the gateway writes it as a string.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => {
            text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"a number"))
        }
        Value::Number(number) => number.as_i64().ok_or_else(|| D::Error::custom("a number is too large")),
        _ => Err(D::Error::custom("a number is none")),
    }
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(&text).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"Base64"))
}

pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The end of the range of all keys that begin with `prefix`.
pub(in crate::registry) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // To the end of the store.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_prefix_end_where_another_begins() {
        assert_eq!(end_of(b"/a/"), b"/a0");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0]);
    }

    #[test]
    fn what_is_left_out_is_zero() {
        let found: KeyValue =
            serde_json::from_str(r#"{"key":"Zm9v","lease":"5","create_revision":"2"}"#).unwrap();
        assert_eq!(found, KeyValue { key: b"foo".to_vec(), value: Vec::new(), mod_revision: 0, lease: 5 });
    }
}
