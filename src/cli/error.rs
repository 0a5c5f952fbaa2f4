use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "server")]
use super::serve;
use super::{PROGRAM, doctor, follow};
use crate::command_line::AccessError;
use crate::message::Hint;
use crate::model::{self, ConfigurationId, ServiceId, Tag};
use crate::registry;

/// Exit statuses.
const REFUSED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Follow(#[from] follow::Error),
    #[cfg(feature = "server")]
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// A value on the command line, or in a file, breaks a rule.
    #[error(transparent)]
    Value(model::Error),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("cannot read `{}`", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot import `{}`: {fault}", .path.display())]
    Import { path: PathBuf, fault: String },
    #[error("cannot import `{}`: `{id}` is outside the namespace", .path.display())]
    Outside { path: PathBuf, id: ConfigurationId },
    #[error("{what} has no format `{format}`")]
    NoSuchFormat { format: String, what: &'static str, formats: &'static str },
    #[error("no command `{0}`")]
    NoSuchCommand(String),
    #[error("service `{0}` is not drained")]
    NotDrained(ServiceId),
    #[error("service `{0}` is still listed: something registers it again and again")]
    StillListed(ServiceId),
    #[error("`{wanted}` has no address")]
    NoAddress { wanted: String },
    #[error("{found} of {min} services tagged `{}` after {}", .tag.as_str(), humantime::format_duration(*.timeout))]
    WaitedInVain { tag: Tag, found: u64, min: u64, timeout: Duration },
    #[error("cannot execute `{program}`")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Unwell(#[from] doctor::Unwell),
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Access(error) => error.hint(),
            Self::Follow(error) => error.hint(),
            #[cfg(feature = "server")]
            Self::Serve(error) => error.hint(),
            Self::NoSuchFormat { formats, .. } => Some(format!("choose one of {formats}")),
            Self::NoAddress { .. } => {
                Some("a service tells its address in its metadata: --metadata=host=HOST,port=PORT".to_owned())
            }
            Self::NotDrained(_) => Some(format!("`{PROGRAM} services drained` lists those that are")),
            Self::StillListed(_) => {
                Some("see what it is: a wrapper of an earlier version knows nothing of draining".to_owned())
            }
            Self::Import { .. } => Some("it is written like what `configuration export` writes".to_owned()),
            Self::Missing(_) | Self::Twice(_) | Self::NoSuchCommand(_) => {
                Some(format!("see {PROGRAM} --help"))
            }
            Self::Value(_) | Self::File { .. } | Self::Outside { .. } | Self::WaitedInVain { .. } => None,
            Self::Run { .. } | Self::Unwell(_) | Self::Output(_) => None,
        }
    }
}

impl Error {
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            // Whoever reads us has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Registry(registry::Error::NotFound { .. })
            | Self::NoAddress { .. }
            | Self::NotDrained(_) => NOT_FOUND,
            Self::Access(_) | Self::Follow(follow::Error::Html | follow::Error::NoLog { .. }) => USAGE,
            Self::Registry(_) | Self::Unwell(_) | Self::Output(_) | Self::WaitedInVain { .. } => REFUSED,
            Self::Follow(_) | Self::StillListed(_) => REFUSED,
            Self::Value(_) | Self::Missing(_) | Self::Twice(_) | Self::File { .. } | Self::Import { .. } => {
                USAGE
            }
            Self::Outside { .. } | Self::NoSuchFormat { .. } | Self::NoSuchCommand(_) => USAGE,
            // As a shell has it.
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Run { .. } => 126,
            #[cfg(feature = "server")]
            Self::Serve(error) if error.is_usage() => USAGE,
            #[cfg(feature = "server")]
            Self::Serve(_) => REFUSED,
        })
    }
}
