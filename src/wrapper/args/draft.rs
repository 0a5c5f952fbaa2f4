//! A registration with blanks: what is known only when the command runs is filled in then.
//!
//! Whatever comes in there, it makes a registration: each blank is tried with the shortest and the longest that it may
//! get, before anything is started.

use super::endpoint::Endpoint;
use super::facts::{FactError, Facts};
use super::list;
use super::port::Port;
use super::template::{KNOWN, Placeholder, Template, TemplateError};
use crate::message::Hint;
use crate::model::{self, HeartbeatTimeout, Metadata, Registration, ServiceId, Tag, Tags, printable};

/// What is known only when the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrapper) struct Late {
    /// The command's.
    pub(in crate::wrapper) pid: u32,
    /// The port that it listens on, where that was not said.
    pub(in crate::wrapper) port: Option<u16>,
}

/// There is no pid above (`PID_MAX_LIMIT`, proc(5)).
const PID_MAX: u32 = 4_194_304;

impl Late {
    /// What is the shortest and what is the longest that can come.
    fn extremes(port: Option<Port>) -> [Self; 2] {
        let found = |number| (port == Some(Port::Auto)).then_some(number);
        [Self { pid: 1, port: found(1) }, Self { pid: PID_MAX, port: found(u16::MAX) }]
    }

    fn text(self, placeholder: &Placeholder) -> String {
        match placeholder {
            Placeholder::Pid => self.pid.to_string(),
            Placeholder::Port => self.port.as_ref().map(u16::to_string).unwrap_or_default(),
            // Everything else was known before.
            other => other.to_string(),
        }
    }
}

/// Why it cannot be a registration.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    #[error("--metadata: `{}` is not of the form KEY=VALUE", printable(.0))]
    Pair(String),
    #[error("--{option}")]
    Template {
        option: &'static str,
        #[source]
        source: TemplateError,
    },
    #[error("--{option}")]
    Fact {
        option: &'static str,
        #[source]
        source: FactError,
    },
    #[error("--{option}")]
    Value {
        option: &'static str,
        #[source]
        source: model::Error,
    },
    #[error("--id: `{{port}}`: with --port=auto it can change, and an id cannot")]
    PortInId,
    #[error("--{option}: `{}` has become `{}`", printable(written), printable(filled))]
    Filled {
        option: &'static str,
        written: String,
        filled: String,
        #[source]
        source: Box<model::Error>,
    },
}

impl Hint for DraftError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pair(_) => Some(r"write a comma within a value as `\,`".to_owned()),
            Self::Template { source, .. } => source.hint(),
            Self::Fact { source, .. } => source.hint(),
            Self::Filled { .. } => Some(format!("placeholders are {KNOWN}")),
            Self::PortInId => Some("have one chosen with --port-env, or name it with --port".to_owned()),
            Self::Value { .. } => None,
        }
    }
}

/// What was said of the service.
pub(super) struct Said<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) tags: &'a [String],
    pub(super) pairs: Vec<&'a String>,
    pub(super) heartbeat_timeout: HeartbeatTimeout,
    pub(super) endpoint: Endpoint,
}

/// A text of an option: as it was written, and as far as it is known.
#[derive(Debug)]
struct Words {
    option: &'static str,
    written: String,
    template: Template,
}

/// What is to be registered.
#[derive(Debug)]
pub(in crate::wrapper) struct Draft {
    id: Option<Words>,
    tags: Vec<Words>,
    pairs: Vec<(Words, Words)>,
    /// What has options of its own, and comes behind the pairs.
    more: Vec<(String, String)>,
    /// With the longest that may be filled in.
    pub(in crate::wrapper) sound: Registration,
}

impl Draft {
    /// Reads what was said, fills in what is known, and makes sure of the rest.
    pub(super) fn new(said: &Said<'_>, default_id: ServiceId, facts: Facts<'_>) -> Result<Self, DraftError> {
        let mut reader = Reader(facts);
        let id = said.id.map(|id| reader.words("id", id)).transpose()?;
        if id.as_ref().is_some_and(|id| id.template.has(&Placeholder::Port)) {
            return Err(DraftError::PortInId);
        }
        let items = said.tags.iter().flat_map(|tags| list::items(tags));
        let tags = items.map(|tag| reader.words("tags", &tag)).collect::<Result<_, _>>()?;
        let mut pairs = Vec::new();
        for item in said.pairs.iter().flat_map(|pairs| list::items(pairs)) {
            let Some((key, value)) = item.split_once('=') else { return Err(DraftError::Pair(item)) };
            pairs.push((reader.words("metadata", key)?, reader.words("metadata", value)?));
        }
        let heartbeat_timeout = said.heartbeat_timeout;
        let (tags_none, metadata) = (Tags::default(), Metadata::default());
        let sound = Registration { id: default_id, heartbeat_timeout, tags: tags_none, metadata };
        let mut draft = Self { id, tags, pairs, more: Vec::new(), sound };
        // Which of its pairs are there decides what is behind them.
        let [shortest, longest] = Late::extremes(said.endpoint.port);
        let mut keys = draft.pairs.iter().map(|(key, _)| (key.text(longest), String::new())).collect();
        let own = Vec::len(&keys);
        said.endpoint.add_to(&mut keys);
        draft.more = keys.split_off(own);
        draft.filled(shortest)?;
        draft.sound = draft.filled(longest)?;
        Ok(draft)
    }

    /// The registration, now that everything is known.
    pub(in crate::wrapper) fn complete(&self, late: Late) -> Registration {
        // What the shortest and the longest can be, all between can.
        self.filled(late).unwrap_or_else(|_| self.sound.clone())
    }

    fn filled(&self, late: Late) -> Result<Registration, DraftError> {
        let id = match &self.id {
            Some(id) => id.to(late, ServiceId::new)?,
            None => self.sound.id.clone(),
        };
        let tags = self.tags.iter().map(|tag| tag.to(late, Tag::new)).collect::<Result<_, _>>()?;
        let tags = Tags::new(tags).map_err(|source| DraftError::Value { option: "tags", source })?;
        let mut pairs = Vec::new();
        for (key, value) in &self.pairs {
            let pair = |key: String, value: String| Metadata::new([(key, value)]).map(drop);
            key.to(late, |key| pair(key, "value".to_owned()))?;
            value.to(late, |value| pair("key".to_owned(), value))?;
            pairs.push((key.text(late), value.text(late)));
        }
        pairs.extend(self.more.iter().cloned());
        pairs.extend(late.port.map(|port| ("port".to_owned(), port.to_string())));
        let metadata = Metadata::new(pairs);
        let metadata = metadata.map_err(|source| DraftError::Value { option: "metadata", source })?;
        Ok(Registration { id, heartbeat_timeout: self.sound.heartbeat_timeout, tags, metadata })
    }
}

impl Words {
    fn text(&self, late: Late) -> String {
        self.template.text(|placeholder| late.text(placeholder))
    }

    /// What it comes to.
    fn to<T>(&self, late: Late, made: impl Fn(String) -> Result<T, model::Error>) -> Result<T, DraftError> {
        let filled = self.text(late);
        made(filled.clone()).map_err(|source| {
            let (option, written) = (self.option, self.written.clone());
            if written == filled {
                DraftError::Value { option, source }
            } else {
                DraftError::Filled { option, written, filled, source: source.into() }
            }
        })
    }
}

struct Reader<'a>(Facts<'a>);

impl Reader<'_> {
    fn words(&mut self, option: &'static str, written: &str) -> Result<Words, DraftError> {
        let template = Template::parse(written).map_err(|source| DraftError::Template { option, source })?;
        let template = self.0.fill(&template).map_err(|source| DraftError::Fact { option, source })?;
        Ok(Words { option, written: written.to_owned(), template })
    }
}
