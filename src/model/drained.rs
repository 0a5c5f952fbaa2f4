use serde::{Deserialize, Serialize};

use super::{ConfigurationId, ConfigurationValue, Error, ServiceId, Timestamp, of_length};

/// That somebody keeps a service out of the registry, for maintenance: whatever registers it waits until that is over.
///
/// It is a configuration value, `/service-registry/drained/<service id>`, so that every registry has room for it: JSON with
/// `reason`, `since` and `by`. Any other text there drains, too, and is the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Which service.
    pub service: ServiceId,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
    /// Who did it, in words, if that is known.
    pub by: Option<String>,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl Drained {
    /// Where the drained are among the configuration values.
    pub const NAMESPACE: &'static str = "/service-registry/drained";
    /// The most characters of a reason.
    pub const LONGEST_REASON: usize = 255;

    /// The configuration value that says whether `service` is drained.
    #[must_use]
    pub fn key(service: &ServiceId) -> ConfigurationId {
        ConfigurationId::of_service(Self::NAMESPACE, service)
    }

    /// A reason that a value has room for.
    ///
    /// # Errors
    /// When `text` is empty or longer than 255 characters.
    pub fn reason(text: &str) -> Result<String, Error> {
        of_length("reason", text.to_owned(), 1, Self::LONGEST_REASON)
    }

    /// What a configuration value says; none where it is not about a service.
    #[must_use]
    pub fn read(value: &ConfigurationValue) -> Option<Self> {
        let name = value.id.as_str().strip_prefix(Self::NAMESPACE)?.strip_prefix('/')?;
        let service = ServiceId::new(name).ok()?;
        let text = value.value();
        // A list would do as well, for serde.
        let note = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        let note = note.unwrap_or_else(|| Note { reason: Some(text.to_owned()), since: None, by: None });
        let since = note.since.and_then(|since| humantime::parse_rfc3339(&since).ok()).map(Timestamp::from);
        Some(Self { service, reason: note.reason, since, by: note.by })
    }

    /// The configuration value that says it.
    ///
    /// # Errors
    /// When what it says is longer than 1024 characters.
    pub fn value(&self) -> Result<ConfigurationValue, Error> {
        let Self { reason, since, by, .. } = self.clone();
        let note = Note { reason, since: since.map(|since| since.to_string()), by };
        // Three texts: nothing in it can fail.
        let text = serde_json::to_string(&note).unwrap_or_default();
        ConfigurationValue::new(Self::key(&self.service), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(id: &str, text: &str) -> ConfigurationValue {
        ConfigurationValue::new(id.parse().unwrap(), text).unwrap()
    }

    #[test]
    fn what_was_said_comes_back() {
        let service: ServiceId = "a.b_c-9".parse().unwrap();
        let (reason, by) = (Some("disk \"1\"\n".to_owned()), Some("root@web1".to_owned()));
        for drained in [
            Drained { service: service.clone(), reason, since: Some(Timestamp::from_millis(1_500)), by },
            Drained { service, reason: None, since: None, by: None },
        ] {
            assert_eq!(Drained::read(&drained.value().unwrap()), Some(drained));
        }
    }

    #[test]
    fn any_text_drains_and_is_the_reason() {
        for text in ["yes", "{}x", r#"{"other": 1}"#, "[]", "\"quoted\""] {
            let drained = Drained::read(&value("/service-registry/drained/web1", text)).unwrap();
            assert_eq!((drained.reason.as_deref(), drained.since), (Some(text), None));
        }
        for id in ["/service-registry/drained", "/service-registry/drained/deep/web1", "/other/web1"] {
            assert_eq!(Drained::read(&value(id, "yes")), None, "{id}");
        }
    }

    #[test]
    fn every_service_can_be_drained() {
        for id in ["abc", &"x".repeat(65), "..."] {
            let key = Drained::key(&id.parse().unwrap());
            assert!(ConfigurationId::new(key.as_str()).is_ok(), "{key}");
        }
    }
}
