use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rusqlite::ErrorCode as Code;

#[cfg(feature = "server")]
use crate::message::chain;
use crate::model::{self, ServiceId};
use crate::registry::{Cause, Error, Object};

/// A failure inside the backend, before it is known which file it was.
#[derive(Debug)]
pub(super) enum Fault {
    Because(Cause),
    NotFound { object: Object, id: String },
    Conflict { id: ServiceId, holder: String, frees_in: Option<Duration> },
    LimitReached { object: Object, limit: u64 },
}

impl Fault {
    pub(super) fn file(path: impl Into<String>, source: io::Error) -> Self {
        Self::Because(Cause::File { path: path.into(), source })
    }

    pub(super) fn internal(error: &tokio::task::JoinError) -> Self {
        Self::Because(Cause::Internal(error.to_string()))
    }

    /// The same once more, for everybody whom it concerns.
    #[cfg(feature = "server")]
    pub(super) fn repeated(&self) -> Self {
        Self::Because(match self {
            Self::Because(Cause::Sqlite(rusqlite::Error::SqliteFailure(error, message))) => {
                Cause::Sqlite(rusqlite::Error::SqliteFailure(*error, message.clone()))
            }
            Self::Because(Cause::File { path, source }) => {
                Cause::File { path: path.clone(), source: source.kind().into() }
            }
            _ => Cause::Internal(self.told()),
        })
    }

    /// In one line, for the log.
    #[cfg(feature = "server")]
    pub(super) fn told(&self) -> String {
        match self {
            Self::Because(cause) => chain(cause),
            Self::NotFound { .. } | Self::Conflict { .. } | Self::LimitReached { .. } => format!("{self:?}"),
        }
    }

    /// Whether others were using the file, and for too long.
    pub(super) fn is_busy(&self) -> bool {
        let Self::Because(Cause::Sqlite(error)) = self else { return false };
        matches!(error.sqlite_error_code(), Some(Code::DatabaseBusy | Code::DatabaseLocked))
    }

    /// Whether the open file is of no use any more: it may have been replaced, or repaired, in the meantime.
    pub(super) fn calls_for_reopening(&self) -> bool {
        matches!(self, Self::Because(Cause::Sqlite(_))) && !self.is_busy()
    }

    /// The same as the caller sees it.
    pub(super) fn at(self, path: &Path, url: &str) -> Error {
        let registry = url.to_owned();
        match self.explained(path) {
            Self::NotFound { object, id } => Error::NotFound { registry, object, id },
            Self::Conflict { id, holder, frees_in } => Error::Conflict { id, holder, frees_in },
            Self::LimitReached { object, limit } => Error::LimitReached { registry, object, limit },
            Self::Because(source) => match class(&source) {
                Class::Passing => Error::Unavailable { registry, source },
                Class::Forbidden => Error::Unauthorized { registry, source },
                Class::Lasting => Error::Invalid { registry, source },
            },
        }
    }
}

impl Fault {
    /// SQLite says that something went wrong with a file; the system says what.
    fn explained(self, path: &Path) -> Self {
        let Self::Because(Cause::Sqlite(error)) = &self else { return self };
        let is_about_a_file = matches!(
            error.sqlite_error_code(),
            Some(
                Code::CannotOpen
                    | Code::ReadOnly
                    | Code::DiskFull
                    | Code::SystemIoFailure
                    | Code::PermissionDenied
            )
        );
        if !is_about_a_file {
            return self;
        }
        match trouble_with(path) {
            Some((path, kind)) => Self::file(path.display().to_string(), kind.into()),
            None => self,
        }
    }
}

/// Why a file, or its companions beside it, cannot be written.
fn trouble_with(path: &Path) -> Option<(&Path, ErrorKind)> {
    let directory = path.parent()?;
    if path.is_dir() {
        return Some((path, ErrorKind::IsADirectory));
    }
    for path in [path, directory] {
        if let Err(errno) = access(path, AccessFlags::W_OK) {
            return Some((path, io::Error::from(errno).kind()));
        }
    }
    let is_full = statvfs(directory).is_ok_and(|disk| disk.blocks_available() == 0);
    is_full.then_some((directory, ErrorKind::StorageFull))
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
        Cause::File { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Class::Forbidden,
            _ => Class::Passing,
        },
        Cause::TimedOut(_) | Cause::Internal(_) => Class::Passing,
        #[cfg(feature = "http")]
        Cause::Http(_) | Cause::Etcd(_) => Class::Passing,
        #[cfg(feature = "zookeeper")]
        Cause::Zookeeper(_) => Class::Passing,
        Cause::Rule(_)
        | Cause::Foreign { .. }
        | Cause::Newer { .. }
        | Cause::Hosted { .. }
        | Cause::Damaged(_) => Class::Lasting,
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
