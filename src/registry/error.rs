use std::time::Duration;

#[cfg(feature = "zookeeper")]
use super::zookeeper::ZookeeperCause;
#[cfg(feature = "http")]
use super::{EtcdCause, HttpCause};
use crate::message::Hint;
use crate::model::{self, ServiceId};

/// Why a call to a registry failed, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not answer, or could not do its work just now. The call may have taken effect.
    #[error("registry {registry} is not available")]
    Unavailable {
        /// The registry's URL, without credentials.
        registry: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// There is no such thing (any more).
    #[error("no {object} `{id}` in registry {registry}")]
    NotFound {
        /// The registry's URL, without credentials.
        registry: String,
        /// What kind of thing was asked for.
        object: Object,
        /// Its id.
        id: String,
    },
    /// Another instance, alive, holds the service's id.
    #[error("service id `{id}` is held by {holder}")]
    Conflict {
        /// The id.
        id: ServiceId,
        /// Who holds it, in words.
        holder: String,
        /// How long until it is free unless the holder renews it, where the registry can tell.
        frees_in: Option<Duration>,
    },
    /// It holds as many of these as it takes.
    #[error("registry {registry} has reached its limit of {limit} {object}s")]
    LimitReached {
        /// The registry's URL, without credentials.
        registry: String,
        /// What there would be one too many of.
        object: Object,
        /// How many it takes.
        limit: u64,
    },
    /// We may not do this.
    #[error("registry {registry} refuses access")]
    Unauthorized {
        /// The registry's URL, without credentials.
        registry: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// It cannot work like this: the same call would fail again.
    #[error("registry {registry} cannot do this")]
    Invalid {
        /// The registry's URL, without credentials.
        registry: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// This kind of registry has no such thing.
    #[error("{operation} is not supported by {kind} registries")]
    Unsupported {
        /// What was asked for, as a noun.
        operation: &'static str,
        /// The kind of registry: its URL's scheme.
        kind: &'static str,
        /// The kinds that have it.
        supported_by: &'static str,
    },
}

/// Kinds of things that a registry may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A service.
    Service,
    /// A heartbeat's token.
    HeartbeatToken,
    /// A configuration value.
    ConfigurationValue,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::HeartbeatToken => "heartbeat token for service",
            Self::ConfigurationValue => "configuration value",
        })
    }
}

/// What lies behind an [`Error`].
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A rule of the API was broken.
    #[error(transparent)]
    Rule(#[from] model::Error),
    /// A file or directory could not be used.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite failed.
    #[cfg(feature = "sqlite")]
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    /// What is reached over HTTP failed, or was not reached.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Http(#[from] HttpCause),
    /// etcd refused.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Etcd(#[from] EtcdCause),
    /// A ZooKeeper server failed, or was not reached.
    #[cfg(feature = "zookeeper")]
    #[error(transparent)]
    Zookeeper(#[from] ZookeeperCause),
    /// The file is an SQLite database, but not a registry.
    #[error("the file is the database of another program (application id {application_id:#x})")]
    Foreign {
        /// The application id in the file's header.
        application_id: u32,
    },
    /// The file was made by a later version of this program.
    #[error("the file has format {found}, this program knows {known}")]
    Newer {
        /// The format of the file.
        found: u32,
        /// The latest format that this program can use.
        known: u32,
    },
    /// Another process hosts the file.
    #[error("another server has it (pid {pid})")]
    Hosted {
        /// Which.
        pid: String,
    },
    /// A record cannot be read.
    #[error("a record is damaged")]
    Damaged(#[source] serde_json::Error),
    /// It did not answer in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// Our own code failed.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a client can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recourse {
    /// Send it again a little later.
    Retry,
    /// Register (again): the registry does not know us.
    Register,
    /// Wait until the id is free.
    AwaitRelease {
        /// How long that takes unless the holder renews it, where that is known.
        frees_in: Option<Duration>,
    },
    /// Log in anew and send it again.
    Authenticate,
    /// Nothing: the same call would fail again.
    None,
}

impl Error {
    /// Whether it is that no answer came: the next try may take as long to fail.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable { source: Cause::TimedOut(_), .. })
    }

    /// What the caller can do next.
    #[must_use]
    pub fn recourse(&self) -> Recourse {
        match self {
            Self::Unavailable { .. } => Recourse::Retry,
            Self::NotFound { .. } => Recourse::Register,
            Self::Conflict { frees_in, .. } => Recourse::AwaitRelease { frees_in: *frees_in },
            Self::Unauthorized { .. } => Recourse::Authenticate,
            Self::LimitReached { .. } | Self::Invalid { .. } | Self::Unsupported { .. } => Recourse::None,
        }
    }

    /// Whether it did not come to the call at all: the login before it failed, as it would before any other.
    pub(crate) fn is_of_login(&self) -> bool {
        let (Self::Unavailable { source, .. }
        | Self::Unauthorized { source, .. }
        | Self::Invalid { source, .. }) = self
        else {
            return false;
        };
        match source {
            #[cfg(feature = "http")]
            Cause::Http(cause) => matches!(cause, HttpCause::Login { .. }),
            #[cfg(feature = "http")]
            Cause::Etcd(cause) => matches!(cause, EtcdCause::Login { .. } | EtcdCause::NoLogin),
            _ => false,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unavailable { source, .. }
            | Self::Unauthorized { source, .. }
            | Self::Invalid { source, .. } => source.hint(),
            Self::Conflict { .. } => {
                Some("choose another --id, or take it over with --on-conflict=replace".to_owned())
            }
            Self::LimitReached { .. } => Some("ask its operator to raise the limit".to_owned()),
            Self::Unsupported { supported_by, .. } => Some(format!("supported by {supported_by}")),
            Self::NotFound { .. } => None,
        }
    }
}

impl Hint for Cause {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(error) => return sqlite_hint(error).map(str::to_owned),
            #[cfg(feature = "http")]
            Self::Http(cause) => return cause.hint(),
            #[cfg(feature = "http")]
            Self::Etcd(cause) => return cause.hint(),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(cause) => return cause.hint(),
            Self::File { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => NOT_OURS,
                std::io::ErrorKind::StorageFull => "free some space on its disk",
                std::io::ErrorKind::IsADirectory => "name another file with --registry sqlite:///path",
                _ => return None,
            },
            Self::Foreign { .. } => "name another file with --registry sqlite:///path",
            Self::Hosted { .. } => "stop that server, or name another file with --registry sqlite:///path",
            Self::Newer { .. } => "install the newer version of this program, or name another file",
            Self::Damaged(_) => MOVE_AWAY,
            Self::Rule(_) | Self::TimedOut(_) | Self::Internal(_) => return None,
        };
        Some(hint.to_owned())
    }
}

const NOT_OURS: &str = "give this user write access to the file and its directory, or name another with --registry sqlite:///path";
const MOVE_AWAY: &str = "move the file away: a new one is made, and running services enter it by themselves";

#[cfg(feature = "sqlite")]
fn sqlite_hint(error: &rusqlite::Error) -> Option<&'static str> {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code()? {
        Code::NotADatabase | Code::DatabaseCorrupt => Some(MOVE_AWAY),
        Code::ReadOnly | Code::PermissionDenied => Some(NOT_OURS),
        Code::DatabaseBusy | Code::DatabaseLocked => Some("see which program holds the file with `fuser -v`"),
        _ => None,
    }
}
