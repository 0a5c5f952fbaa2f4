//! etcd's watch: what changes under a prefix, from a revision on.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::fault::{Failure, Fault};
use super::servers::{LONGEST, Place};
use super::wire::{Header, KeyValue, encoded, end_of, number};
use crate::registry::Result;
use crate::registry::http::{HttpCause, Stream};

/// How long a stream may be silent before its server is asked whether it is still there. One that is frozen, or cut off
/// from the others, is as silent as one where nothing happens.
const SILENCE: Duration = Duration::from_secs(10);

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::registry) enum Told {
    /// This has changed, if anything; all until this revision is told.
    Changes(Vec<Change>, i64),
    /// The changes asked for are too old to be told: the list has to be looked at again.
    Compacted,
}

/// A change to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) enum Change {
    /// It was written.
    Put {
        /// What it is now.
        now: KeyValue,
    },
    /// It is gone.
    Delete {
        /// Which.
        key: Vec<u8>,
        /// The revision of the store since.
        revision: i64,
    },
}

impl Change {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Put { now } => &now.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the store since.
    pub(super) fn revision(&self) -> i64 {
        match self {
            Self::Put { now } => now.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// A watch that is open.
pub(in crate::registry) struct Changes<'a> {
    client: &'a Client,
    stream: Box<Stream>,
    place: Place,
    prefix: String,
    /// What its first line told.
    first: Option<Told>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    header: Header,
    #[serde(default, rename = "created")]
    is_created: bool,
    #[serde(default, rename = "canceled")]
    is_cancelled: bool,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    compact_revision: i64,
    #[serde(default)]
    events: Vec<WireEvent>,
}

#[derive(Deserialize)]
struct WireEvent {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    kv: KeyValue,
}

impl Client {
    /// Opens a watch over the keys that begin with `prefix`: all changes from `revision` on.
    pub(in crate::registry) async fn changes(&self, prefix: &str, revision: i64) -> Result<Changes<'_>> {
        let body = json!({"create_request": {
            "key": encoded(prefix), "range_end": encoded(end_of(prefix.as_bytes())),
            "start_revision": revision.to_string(), "progress_notify": true,
        }});
        let mut has_logged_in = false;
        let (stream, place, first) = loop {
            let opened = self.open("watch", &body).await;
            let (stream, place, first) = opened.map_err(|failure| self.error(failure))?;
            match read(&first) {
                Ok(first) => break (stream, place, first),
                // A watch is refused by an answer that looks like any other.
                Err(fault) if fault.is_stale_login() && !has_logged_in => {
                    has_logged_in = true;
                    self.renew_credentials();
                }
                Err(fault) => return Err(self.error(Failure::Refused(fault))),
            }
        };
        Ok(Changes { client: self, stream, place, prefix: prefix.to_owned(), first })
    }
}

impl Changes<'_> {
    /// What is told next. Can be dropped and called again, and misses nothing by it.
    ///
    /// # Errors
    /// When the connection is lost, or its server out of reach: a new watch is to be opened.
    pub(in crate::registry) async fn next(&mut self) -> Result<Told> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            let Ok(line) = tokio::time::timeout(SILENCE, self.stream.line(LONGEST)).await else {
                self.check().await?;
                continue;
            };
            let line = line.map_err(|cause| self.lost(cause.into()))?;
            let line = line
                .ok_or_else(|| self.lost(HttpCause::Broken("the server has closed it".to_owned()).into()))?;
            let message = serde_json::from_slice(&line)
                .map_err(|error| self.lost(HttpCause::Nonsense(error.to_string()).into()))?;
            if let Some(fault) = Fault::in_answer(&message) {
                return Err(self.lost(Failure::Refused(fault)));
            }
            if let Some(told) = read(&message).map_err(|fault| self.lost(Failure::Refused(fault)))? {
                return Ok(told);
            }
        }
    }

    /// Whether its server is still there, and in touch with the others.
    async fn check(&self) -> Result<()> {
        let body = json!({"key": encoded(&self.prefix), "limit": "1", "keys_only": true});
        let answer = self.client.ask_at(&self.place, "kv/range", &body).await;
        match answer {
            Err(failure) if failure.is_of_server() => Err(self.lost(failure)),
            _ => Ok(()),
        }
    }

    fn lost(&self, failure: Failure) -> crate::registry::Error {
        self.client.move_on_from(&self.place);
        self.client.error(failure)
    }
}

/// What a message tells; nothing where it only says that the watch is there.
fn read(message: &Value) -> std::result::Result<Option<Told>, Fault> {
    let nonsense = |error: serde_json::Error| Fault::new(0, &error.to_string());
    let message = Message::deserialize(&message["result"]).map_err(nonsense)?;
    if message.is_cancelled {
        return if message.compact_revision > 0 {
            Ok(Some(Told::Compacted))
        } else {
            Err(Fault::of_watch(&message.cancel_reason))
        };
    }
    if message.is_created {
        return Ok(None);
    }
    // The header's revision may be that of changes yet to be told, but for a message without any.
    let last = message.events.last().map_or(message.header.revision, |event| event.kv.mod_revision);
    Ok(Some(Told::Changes(message.events.into_iter().map(Change::from).collect(), last)))
}

impl From<WireEvent> for Change {
    fn from(event: WireEvent) -> Self {
        match event.kind.as_deref() {
            Some("DELETE") => Self::Delete { revision: event.kv.mod_revision, key: event.kv.key },
            _ => Self::Put { now: event.kv },
        }
    }
}
