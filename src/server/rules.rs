//! What a body has to be, key by key, with the API's own words for what it is not.

use serde_json::{Map, Value};
use uuid::{Uuid, Variant};

use super::fault::Refusal;
use crate::model::{
    self, ConfigurationId, ConfigurationValue, HeartbeatTimeout, Metadata, Registration, ServiceId,
    ServiceUpdate, Tag, Tags, Token,
};

/// Why a value is not what it has to be.
type Text = String;

/// The body of a registration. The first key that is wrong is told, in this order.
pub(super) fn registration(body: &Value) -> Result<Registration, Refusal> {
    Ok(Registration {
        id: required(body, "id", service_id)?,
        tags: optional(body, "tags", tags)?.unwrap_or_default(),
        metadata: optional(body, "metadata", metadata)?.unwrap_or_default(),
        heartbeat_timeout: required(body, "heartbeat_timeout", heartbeat_timeout)?,
    })
}

/// The body of an update. An id in it does not rename the service.
pub(super) fn update(body: &Value) -> Result<ServiceUpdate, Refusal> {
    Ok(ServiceUpdate {
        tags: optional(body, "tags", tags)?,
        metadata: optional(body, "metadata", metadata)?,
        heartbeat_timeout: optional(body, "heartbeat_timeout", heartbeat_timeout)?,
    })
}

pub(super) fn heartbeat(body: &Value) -> Result<Token, Refusal> {
    required(body, "token", |value| {
        let text = text(value)?;
        time_based(text)?;
        Ok(Token::new(text))
    })
}

pub(super) fn configuration_value(id: &ConfigurationId, body: &Value) -> Result<ConfigurationValue, Refusal> {
    required(body, "value", |value| {
        ConfigurationValue::new(id.clone(), text(value)?).map_err(|error| told(&error))
    })
}

/// A version 1 UUID.
pub(super) fn time_based(text: &str) -> Result<Uuid, Text> {
    let uuid = Uuid::try_parse(text).map_err(|_| "Invalid UUID".to_owned())?;
    match (uuid.get_variant(), uuid.get_version_num()) {
        (Variant::RFC4122, 1) => Ok(uuid),
        (Variant::RFC4122, _) => Err("UUID is not version 1".to_owned()),
        _ => Err("Unsupported UUID variant".to_owned()),
    }
}

/// What the API says where the model refuses a value.
pub(super) fn told(error: &model::Error) -> Text {
    match error {
        model::Error::Length { min, max, .. } => format!("String is not in range ({min}..{max})"),
        model::Error::Characters { .. } => "Invalid characters".to_owned(),
        model::Error::Count { max, .. } => format!("Object needs to have between 0 and {max} items"),
        model::Error::Range { min, max, .. } => format!("Value out of range ({min}..{max})"),
        model::Error::Form { .. } | model::Error::Marker { .. } => error.to_string(),
    }
}

fn required<T>(body: &Value, key: &str, read: impl FnOnce(&Value) -> Result<T, Text>) -> Result<T, Refusal> {
    let value = body.get(key).ok_or_else(|| format!("Missing required key ({key})"));
    value.and_then(read).map_err(|text| Refusal::invalid_key(key, text))
}

fn optional<T>(
    body: &Value,
    key: &str,
    read: impl FnOnce(&Value) -> Result<T, Text>,
) -> Result<Option<T>, Refusal> {
    body.get(key).map(read).transpose().map_err(|text| Refusal::invalid_key(key, text))
}

fn text(value: &Value) -> Result<&str, Text> {
    value.as_str().ok_or_else(|| "Not a string".to_owned())
}

fn service_id(value: &Value) -> Result<ServiceId, Text> {
    ServiceId::new(text(value)?).map_err(|error| told(&error))
}

fn tags(value: &Value) -> Result<Tags, Text> {
    if value.is_null() {
        return Ok(Tags::default());
    }
    let items = value.as_array().ok_or_else(|| "Not an array".to_owned())?;
    let too_many = items.len() > Tags::MAX;
    let items = if too_many { &items[..=Tags::MAX] } else { &items[..] };
    let tag = |item| Tag::new(text(item)?).map_err(|error| told(&error));
    let tags = items.iter().map(tag).collect::<Result<Vec<_>, Text>>()?;
    Tags::new(tags).map_err(|error| told(&error))
}

fn metadata(value: &Value) -> Result<Metadata, Text> {
    if value.is_null() {
        return Ok(Metadata::default());
    }
    let items: &Map<String, Value> = value.as_object().ok_or_else(|| "Not a hash".to_owned())?;
    let pairs = items.iter().map(|(key, value)| pair(key, value)).collect::<Result<Vec<_>, Text>>()?;
    Metadata::new(pairs).map_err(|error| told(&error))
}

fn pair(key: &str, value: &Value) -> Result<(String, String), Text> {
    let range = || format!("String is not in range (1..{})", Metadata::MAX_LENGTH);
    let fits = |text: &str| (1..=Metadata::MAX_LENGTH).contains(&text.chars().count());
    let shown = model::printable(key);
    if !fits(key) {
        return Err(format!("Key {shown}: {}", range()));
    }
    let value = text(value).map_err(|text| format!("Value for key '{shown}': {text}"))?;
    if !fits(value) {
        return Err(format!("Value for key '{shown}': {}", range()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A whole number, which may be written `30`, `30.0` or `"30"`.
fn heartbeat_timeout(value: &Value) -> Result<HeartbeatTimeout, Text> {
    let written = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    let whole = written.strip_suffix(".0").filter(|_| value.is_number()).unwrap_or(&written);
    let seconds: i64 = whole.parse().map_err(|_| "Invalid integer".to_owned())?;
    u64::try_from(seconds).ok().and_then(|seconds| HeartbeatTimeout::from_secs(seconds).ok()).ok_or_else(
        || {
            let (min, max) = (HeartbeatTimeout::MIN.as_secs(), HeartbeatTimeout::MAX.as_secs());
            format!("Value out of range ({min}..{max})")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_timeout_is_a_whole_number_however_it_is_written() {
        for good in [json!(30), json!(30.0), json!("30"), json!(3), json!(120)] {
            assert!(heartbeat_timeout(&good).is_ok(), "{good}");
        }
        for bad in [
            json!(30.5),
            json!(true),
            json!(null),
            json!("x"),
            json!(""),
            json!([30]),
            json!("30.0"),
            json!(1e300),
        ] {
            assert_eq!(heartbeat_timeout(&bad), Err("Invalid integer".to_owned()), "{bad}");
        }
        for bad in [json!(2), json!(121), json!(-3), json!("0")] {
            assert_eq!(heartbeat_timeout(&bad), Err("Value out of range (3..120)".to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_token_is_a_time_based_uuid() {
        assert!(time_based("6bc8d050-f86a-11e1-a89e-ca2ffe480b20").is_ok());
        for (bad, text) in [
            ("", "Invalid UUID"),
            ("x", "Invalid UUID"),
            ("36865510-f7da-41e1-b732-793f90dd0c35", "UUID is not version 1"),
            ("36865510-f7da-11e1-0732-793f90dd0c35", "Unsupported UUID variant"),
        ] {
            assert_eq!(time_based(bad), Err(text.to_owned()), "{bad}");
        }
    }
}
