//! A service as Consul keeps it, and as everybody else knows it.
//!
//! Consul's own consumers read its `Name`, `Tags`, `Address`, `Port` and `Meta`. What we have to know besides is in `Meta`
//! under keys that begin with `srw_`. Where the metadata does not fit Consul's keys, the whole of it is there too, as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::model::{
    self, Endpoint, HeartbeatTimeout, InstanceId, Metadata, Registration, ServiceId, Tag, Tags, Token,
};

const INSTANCE: &str = "srw_instance";
const HOLDER: &str = "srw_holder";
const TIMEOUT: &str = "srw_heartbeat_timeout";
const METADATA: &str = "srw_metadata";
const OURS: &str = "srw_";
const CONSUL: &str = "consul";
/// Consul's limits for `Meta`.
const MOST_PAIRS: usize = 64;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 512;
/// Consul takes a dead service out after this at the earliest: later than any outage that a wrapper may sit out.
const SHORTEST_KEEP_SECS: u64 = 600;

/// Whose an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) instance: InstanceId,
    pub(super) name: String,
}

/// A service as an agent or the catalog tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// What it is called by consumers.
    #[serde(default)]
    pub(super) service: String,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    meta: BTreeMap<String, String>,
}

/// Consul writes an empty list or map as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Entry {
    /// Whether it is Consul itself, which the catalog has an entry for on each of its servers.
    pub(super) fn is_consul(&self) -> bool {
        self.id == CONSUL && self.service == CONSUL
    }

    /// Who registered it; none where that was another program.
    pub(super) fn holder(&self) -> Option<Holder> {
        let instance = self.meta.get(INSTANCE)?.parse().ok()?;
        let name = self.meta.get(HOLDER).map_or("another instance", String::as_str);
        Some(Holder { instance, name: name.to_owned() })
    }

    /// As everybody else knows it: of a service that another program registered, as much as there is room for. None
    /// where its id cannot be one.
    pub(super) fn registration(&self) -> Option<Registration> {
        let timeout = self.meta.get(TIMEOUT).and_then(|timeout| timeout.parse().ok());
        let timeout = timeout.and_then(|seconds| HeartbeatTimeout::from_secs(seconds).ok());
        let tags = self.tags.iter().filter_map(|tag| Tag::new(tag.as_str()).ok()).take(Tags::MAX).collect();
        Some(Registration {
            id: ServiceId::new(self.id.as_str()).ok()?,
            heartbeat_timeout: timeout.unwrap_or(HeartbeatTimeout::MAX),
            tags: Tags::new(tags).ok()?,
            metadata: self.metadata()?,
        })
    }

    fn metadata(&self) -> Option<Metadata> {
        let parts = (0..).map_while(|number| self.meta.get(&part_key(number)));
        let whole: String = parts.map(String::as_str).collect();
        if let Ok(metadata) = serde_json::from_str(&whole) {
            return Some(metadata);
        }
        let fits = |pair: &(String, String)| Metadata::new([pair.clone()]).is_ok();
        let pairs = self.meta.iter().filter(|(key, _)| !key.starts_with(OURS));
        let pairs = pairs.map(|(key, value)| (key.clone(), value.clone()));
        Metadata::new(pairs.filter(fits).take(Metadata::MAX)).ok()
    }
}

/// Whether a registration brings its check with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// It does, and no other check of the service stays.
    Only,
    /// It does, and the others stay: an operator's, too, who has put the service into maintenance.
    Renewed,
    /// The one that is there stays as it is.
    Kept,
}

/// What an agent is told to register.
pub(super) fn definition(
    registration: &Registration,
    holder: &Holder,
    check: Check,
) -> Result<Value, model::Error> {
    let timeout = registration.heartbeat_timeout.as_secs();
    let mut definition = json!({
        "ID": registration.id,
        "Name": name(registration),
        "Tags": registration.tags,
        "Address": address(registration).unwrap_or_default(),
        "Port": port(registration).unwrap_or_default(),
        "Meta": meta(registration, holder)?,
    });
    if check != Check::Kept {
        definition["Check"] = json!({
            "CheckID": check_id(&registration.id, &token(holder.instance)),
            "Name": "heartbeat",
            "TTL": format!("{timeout}s"),
            "Status": "passing",
            "DeregisterCriticalServiceAfter": format!("{}s", SHORTEST_KEEP_SECS.max(10 * timeout)),
        });
    }
    Ok(definition)
}

/// What consumers look for it as.
pub(super) fn name(registration: &Registration) -> &str {
    registration.metadata.get("name").unwrap_or(registration.id.as_str())
}

/// The token of an instance: it names its check, so that the check of one that was taken over is not there.
pub(super) fn token(instance: InstanceId) -> Token {
    Token::new(instance.to_string())
}

/// The id of the check that a token keeps passing.
pub(super) fn check_id(id: &ServiceId, token: &Token) -> String {
    format!("{}{}", check_prefix(id), token.as_str())
}

/// What the ids of the checks of all that ever held this id begin with.
pub(super) fn check_prefix(id: &ServiceId) -> String {
    format!("service:{id}:")
}

/// The port that consumers are told.
pub(super) fn port(registration: &Registration) -> Option<u16> {
    registration.metadata.get("port")?.parse().ok().filter(|port| *port > 0)
}

/// The address that consumers are told; without one, they take the agent's. Consul refuses one that is every address.
pub(super) fn address(registration: &Registration) -> Option<String> {
    let endpoint = registration.endpoint().filter(Endpoint::is_plain)?;
    let is_any = endpoint.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    (!is_any).then_some(endpoint.host)
}

fn meta(registration: &Registration, holder: &Holder) -> Result<BTreeMap<String, String>, model::Error> {
    let mut meta = BTreeMap::new();
    let mut is_whole = true;
    for (key, value) in registration.metadata.iter() {
        let fitting = fitting(key);
        let value_fits = value.len() <= LONGEST_VALUE;
        is_whole &= fitting == key && value_fits;
        if value_fits {
            meta.entry(fitting).or_insert_with(|| value.to_owned());
        }
    }
    if !is_whole {
        let whole = json!(registration.metadata).to_string();
        meta.extend(parts(&whole).enumerate().map(|(number, part)| (part_key(number), part.to_owned())));
    }
    meta.insert(INSTANCE.to_owned(), holder.instance.to_string());
    meta.insert(HOLDER.to_owned(), head(&holder.name).to_owned());
    meta.insert(TIMEOUT.to_owned(), registration.heartbeat_timeout.as_secs().to_string());
    if meta.len() > MOST_PAIRS {
        let what = "pairs that Consul needs for the metadata";
        return Err(model::Error::Count { what, count: meta.len(), max: MOST_PAIRS });
    }
    Ok(meta)
}

/// The key itself, or one like it that Consul takes and that is not one of ours.
fn fitting(key: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let key: String = key
        .chars()
        .map(|character| if fits(character) { character } else { '_' })
        .take(LONGEST_KEY)
        .collect();
    if key.starts_with(OURS) || key.starts_with("consul-") {
        return format!("_{key}").chars().take(LONGEST_KEY).collect();
    }
    key
}

fn part_key(number: usize) -> String {
    if number == 0 { METADATA.to_owned() } else { format!("{METADATA}_{number}") }
}

fn parts(mut whole: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let part = head(whole);
        whole = &whole[part.len()..];
        (!part.is_empty()).then_some(part)
    })
}

/// As much of the front as one value holds.
fn head(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registration(pairs: impl IntoIterator<Item = (String, String)>) -> Registration {
        Registration {
            id: ServiceId::new("web1").unwrap(),
            heartbeat_timeout: HeartbeatTimeout::MIN,
            tags: Tags::default(),
            metadata: Metadata::new(pairs).unwrap(),
        }
    }

    fn holder() -> Holder {
        Holder { instance: InstanceId::unique(), name: "pid 1 on a".to_owned() }
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    fn entry(definition: &Value) -> Entry {
        serde_json::from_value(definition.clone()).unwrap()
    }

    #[test]
    fn what_consul_can_hold_is_not_told_twice() {
        let expected = registration([pair("name", "web"), pair("host", "::1"), pair("port", "80")]);
        let definition = definition(&expected, &holder(), Check::Only).unwrap();
        assert_eq!(
            (&definition["Name"], &definition["Address"], &definition["Port"]),
            (&json!("web"), &json!("::1"), &json!(80))
        );
        assert_eq!(definition["Meta"].as_object().unwrap().len(), 6);
        assert_eq!(definition["Check"]["DeregisterCriticalServiceAfter"], "600s");
        assert_eq!(entry(&definition).registration().unwrap(), expected);
    }

    #[test]
    fn no_key_of_a_service_is_one_of_ours_or_of_consuls() {
        for key in ["srw_instance", "srw.metadata", "consul-x", "a.b"] {
            let expected = registration([pair(key, "v"), pair("a_b", "w")]);
            let holder = holder();
            let definition = definition(&expected, &holder, Check::Kept).unwrap();
            let entry = entry(&definition);
            assert_eq!((entry.registration(), entry.holder()), (Some(expected), Some(holder)));
            assert!(definition.get("Check").is_none());
            let foreign = |key: &String| key.starts_with("consul-") || key.contains('.');
            assert!(!definition["Meta"].as_object().unwrap().keys().any(foreign), "{definition}");
        }
    }

    #[test]
    fn of_what_others_registered_as_much_is_told_as_there_is_room_for() {
        let entry = json!({"ID": "their-1", "Tags": null, "Meta": {"long": "x".repeat(256), "k": "v"}});
        let entry = self::entry(&entry);
        assert!(entry.holder().is_none());
        assert_eq!(entry.registration().unwrap().metadata, registration([pair("k", "v")]).metadata);
        let nameless = json!({"ID": "a b", "Tags": [], "Meta": {}});
        assert!(self::entry(&nameless).registration().is_none());
    }

    #[test]
    fn what_no_64_pairs_can_hold_is_refused() {
        let pairs = (0..20).map(|number| (format!("{number:03}{}", "𝄞".repeat(252)), "𝄞".repeat(255)));
        assert!(definition(&registration(pairs), &holder(), Check::Only).is_err());
    }

    proptest! {
        #[test]
        fn any_metadata_comes_back(pairs in prop::collection::btree_map(".{1,60}", ".{1,60}", 0..20)) {
            let expected = registration(pairs);
            let definition = definition(&expected, &holder(), Check::Only).unwrap();
            for (key, value) in definition["Meta"].as_object().unwrap() {
                prop_assert!(key.len() <= LONGEST_KEY && value.as_str().unwrap().len() <= LONGEST_VALUE);
            }
            prop_assert_eq!(entry(&definition).registration().unwrap(), expected);
        }
    }
}
