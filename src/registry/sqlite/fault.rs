use std::time::Duration;

use rusqlite::ErrorCode as Code;

use crate::model::{self, ServiceId};
use crate::registry::{Cause, Error, Object};

/// A failure inside the backend, before it is known which file it was.
#[derive(Debug)]
pub(super) enum Fault {
    Because(Cause),
    NotFound { object: Object, id: String },
    Conflict { id: ServiceId, holder: String, frees_in: Duration },
}

impl Fault {
    pub(super) fn file(path: impl Into<String>, source: std::io::Error) -> Self {
        Self::Because(Cause::File { path: path.into(), source })
    }

    pub(super) fn internal(error: &tokio::task::JoinError) -> Self {
        Self::Because(Cause::Internal(error.to_string()))
    }

    /// Whether the open file is of no use any more: it may have been replaced, or repaired, in the meantime.
    pub(super) fn calls_for_reopening(&self) -> bool {
        match self {
            Self::Because(Cause::Sqlite(error)) => {
                !matches!(error.sqlite_error_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked))
            }
            _ => false,
        }
    }

    /// The same as the caller sees it.
    pub(super) fn at(self, url: &str) -> Error {
        let registry = url.to_owned();
        match self {
            Self::NotFound { object, id } => Error::NotFound { registry, object, id },
            Self::Conflict { id, holder, frees_in } => Error::Conflict { id, holder, frees_in: Some(frees_in) },
            Self::Because(source) => match class(&source) {
                Class::Passing => Error::Unavailable { registry, source },
                Class::Forbidden => Error::Unauthorized { registry, source },
                Class::Lasting => Error::Invalid { registry, source },
            },
        }
    }
}

enum Class {
    Passing,
    Forbidden,
    Lasting,
}

fn class(cause: &Cause) -> Class {
    match cause {
        Cause::Sqlite(error) => match error.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => Class::Lasting,
            Some(Code::ReadOnly | Code::PermissionDenied) => Class::Forbidden,
            _ => Class::Passing,
        },
        Cause::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Class::Forbidden,
        Cause::File { .. } | Cause::TimedOut(_) | Cause::Internal(_) => Class::Passing,
        Cause::Rule(_) | Cause::Foreign { .. } | Cause::Newer { .. } | Cause::Damaged(_) => Class::Lasting,
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Because(Cause::Sqlite(error))
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Because(Cause::Damaged(error))
    }
}

impl From<model::Error> for Fault {
    fn from(error: model::Error) -> Self {
        Self::Because(Cause::Rule(error))
    }
}
