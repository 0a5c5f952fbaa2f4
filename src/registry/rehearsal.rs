//! What would be asked of a registry, to be looked at before anything is asked.
//!
//! Each backend makes its requests for a rehearsal as it makes those that it sends. What only an answer can tell is shown
//! by a name in angle brackets, a secret as `***`.

use serde_json::{Map, Value, json};

/// What stands in for a secret.
#[cfg(any(feature = "http", feature = "zookeeper"))]
pub(super) const HIDDEN: &str = "***";
/// What stands in for the token of a heartbeat.
#[cfg(any(feature = "http", feature = "sqlite"))]
pub(super) const TOKEN: &str = "<token>";

/// What the time of a registration is shown as.
#[cfg(any(feature = "http", feature = "zookeeper"))]
pub(super) const NOW: &str = "<now>";
/// Why the configuration is looked at first.
pub(super) const DRAINED: &str = "whether it is drained";

/// All that would be asked, in its order.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// The requests.
    pub requests: Vec<Rehearsed>,
    /// What stands in them for what only an answer can tell, and what that is.
    pub stand_ins: Vec<(String, &'static str)>,
}

/// Which step in the life of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Entering.
    Registration,
    /// Staying.
    Heartbeat,
    /// Leaving on purpose.
    Deregistration,
}

impl Step {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Heartbeat => "heartbeat",
            Self::Deregistration => "deregistration",
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Rehearsed {
    /// What it is for.
    pub step: Step,
    /// `PUT`, `create`, or what else this kind of registry calls it.
    pub method: String,
    /// The URL, the path of a node, or the file.
    pub target: String,
    /// What goes before the body, secrets hidden.
    pub headers: Map<String, Value>,
    /// What is told; null where there is nothing.
    pub body: Value,
    /// What is to be known besides; empty if nothing.
    pub note: &'static str,
}

impl Rehearsed {
    #[cfg(any(feature = "sqlite", feature = "zookeeper"))]
    pub(super) fn new(step: Step, method: &str, target: String, body: Value, note: &'static str) -> Self {
        Self { step, method: method.to_owned(), target, headers: Map::new(), body, note }
    }

    #[cfg(feature = "http")]
    pub(super) fn http(step: Step, request: &reqwest::Request, note: &'static str) -> Self {
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            let text = if value.is_sensitive() { HIDDEN } else { value.to_str().unwrap_or(HIDDEN) };
            (name.as_str().to_owned(), text.into())
        };
        let body = request.body().and_then(reqwest::Body::as_bytes).map_or(Value::Null, read);
        // A URL has no angle brackets of its own.
        let target = request.url().as_str().replace("%3C", "<").replace("%3E", ">");
        let headers = request.headers().iter().map(header).collect();
        Self { step, method: request.method().to_string(), target, headers, body, note }
    }

    /// Puts names in the place of what stands in for them.
    pub fn rename(&mut self, stand_ins: &[(String, &'static str)]) {
        rename_in(&mut self.target, stand_ins);
        self.headers.values_mut().for_each(|value| rename(value, stand_ins));
        rename(&mut self.body, stand_ins);
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = json!({"step": self.step.as_str(), "method": self.method, "target": self.target});
        let headers = (!self.headers.is_empty()).then(|| Value::Object(self.headers.clone()));
        let body = (!self.body.is_null()).then(|| self.body.clone());
        let note = (!self.note.is_empty()).then(|| self.note.into());
        for (name, value) in [("headers", headers), ("body", body), ("note", note)] {
            if let Some(value) = value {
                all[name] = value;
            }
        }
        all
    }
}

fn rename_in(text: &mut String, stand_ins: &[(String, &'static str)]) {
    for (stand_in, name) in stand_ins {
        if text.contains(stand_in) {
            *text = text.replace(stand_in, name);
        }
    }
}

/// Names of members are renamed, too; a number that stands in for something becomes a text.
fn rename(value: &mut Value, stand_ins: &[(String, &'static str)]) {
    match value {
        Value::String(text) => rename_in(text, stand_ins),
        Value::Number(number) => {
            let number = number.to_string();
            if let Some((_, name)) = stand_ins.iter().find(|(stand_in, _)| *stand_in == number) {
                *value = (*name).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, stand_ins)),
        Value::Object(map) => {
            let renamed = std::mem::take(map).into_iter().map(|(mut name, mut value)| {
                rename_in(&mut name, stand_ins);
                rename(&mut value, stand_ins);
                (name, value)
            });
            *map = renamed.collect();
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// What is JSON as such, everything else as text.
#[cfg(any(feature = "http", feature = "zookeeper"))]
pub(super) fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

/// A header that is not shown.
#[cfg(feature = "http")]
pub(super) fn hidden() -> reqwest::header::HeaderValue {
    let mut value = reqwest::header::HeaderValue::from_static(HIDDEN);
    value.set_sensitive(true);
    value
}
