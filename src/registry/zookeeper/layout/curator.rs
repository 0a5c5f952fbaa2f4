//! Curator's service discovery (`x-discovery`), with the payload of Spring Cloud Zookeeper: readers of either know every
//! field of it, and old ones refuse any other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Entry, joined, json};
use crate::model::{Registration, Timestamp};
use crate::registry::url::is_in_names;
use crate::registry::zookeeper::operation::Lasting;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance<'a> {
    name: &'a str,
    id: &'a str,
    address: String,
    port: u16,
    ssl_port: Option<u16>,
    payload: Payload<'a>,
    #[serde(rename = "registrationTimeUTC")]
    registered_at: Timestamp,
    service_type: &'static str,
    uri_spec: UriSpec,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "@class")]
    class: &'static str,
    id: &'a str,
    name: &'a str,
    metadata: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct UriSpec {
    parts: [Part; 5],
}

#[derive(Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

const CLASS: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
const URI: UriSpec = UriSpec {
    parts: [
        Part { value: "scheme", variable: true },
        Part { value: "://", variable: false },
        Part { value: "address", variable: true },
        Part { value: ":", variable: false },
        Part { value: "port", variable: true },
    ],
};

pub(super) fn entry(
    base: &str,
    registration: &Registration,
    (address, port): (String, u16),
    registered_at: Timestamp,
) -> Entry {
    let id = registration.id.as_str();
    let name = registration.metadata.get("name").unwrap_or(id);
    let mut metadata = BTreeMap::from([("instance_status", "UP".to_owned())]);
    metadata.extend(joined(registration).map(|tags| ("tags", tags)));
    metadata.extend(registration.metadata.iter().map(|(key, value)| (key, value.to_owned())));
    let instance = Instance {
        name,
        id,
        address,
        port,
        ssl_port: None,
        payload: Payload { class: CLASS, id, name, metadata },
        registered_at,
        service_type: "DYNAMIC",
        uri_spec: URI,
    };
    Entry {
        path: format!("{base}/{}/{id}", node_name(name)),
        data: json(&instance),
        lasting: Lasting::Ephemeral,
        // The name of a service is gone with its last instance.
        parents: Lasting::Container,
    }
}

/// `name` itself, but for what a node's name cannot have.
fn node_name(name: &str) -> String {
    let is_reserved = matches!(name, "." | "..");
    name.chars().fold(String::new(), |mut text, character| {
        if is_in_names(character) && !is_reserved {
            text.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing into a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    })
}
