//! SmartStack: what nerve writes, and synapse and Prometheus read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Entry, joined, json};
use crate::model::Registration;
use crate::registry::zookeeper::operation::Lasting;

#[derive(Serialize)]
struct Instance<'a> {
    host: String,
    port: u16,
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
}

pub(super) fn entry(base: &str, registration: &Registration, (host, port): (String, u16)) -> Entry {
    let name = registration.id.as_str();
    let mut labels: BTreeMap<_, _> = joined(registration).map(|tags| ("tags", tags)).into_iter().collect();
    labels.extend(registration.metadata.iter().map(|(key, value)| (key, value.to_owned())));
    Entry {
        path: format!("{base}/{name}_"),
        data: json(&Instance { host, port, name, labels }),
        lasting: Lasting::Sequential,
        parents: Lasting::Persistent,
    }
}
