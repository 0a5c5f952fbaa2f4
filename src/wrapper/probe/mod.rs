//! Looks at the command from outside: does it serve?
//!
//! A look says that all is well, or why not. It does not limit its own time: dropped, it leaves nothing behind.

mod exec;
#[cfg(feature = "http")]
mod http;
mod listening;
mod process;
mod target;
mod tcp;

use std::fmt;

pub(super) use self::listening::Ports;
pub(super) use self::process::is_running;
pub(super) use self::target::{Target, TargetError};
use super::environment::Changes;
use super::reaper::Wards;

/// Why the command does not serve, for all that a look can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason(String);

impl Reason {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a probe has to know of the place it works in.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// Who else we start, and wait for.
    pub(super) wards: Wards,
    /// What programs see that we start.
    pub(super) environment: Changes,
}

/// Somebody who looks, again and again, at one thing.
pub(super) enum Probe {
    Listening(listening::Probe),
    Tcp(tcp::Probe),
    #[cfg(feature = "http")]
    Http(Box<http::Probe>),
    Exec(exec::Probe),
}

impl Probe {
    pub(super) fn new(target: &Target, surroundings: &Surroundings) -> Self {
        match target {
            Target::Listening(port) => {
                Self::Listening(listening::Probe::new(*port, Ports::new(surroundings.wards.clone())))
            }
            Target::Tcp { host, port } => Self::Tcp(tcp::Probe::new(host.clone(), *port)),
            #[cfg(feature = "http")]
            Target::Http(url) => Self::Http(Box::new(http::Probe::new(url.clone()))),
            Target::Exec(command) => Self::Exec(exec::Probe::new(command.clone(), surroundings.clone())),
        }
    }

    /// Whether all is well. Dropped before it has answered, it leaves nothing behind.
    pub(super) async fn look(&mut self) -> Result<(), Reason> {
        match self {
            Self::Listening(probe) => probe.look(),
            Self::Tcp(probe) => probe.look().await,
            #[cfg(feature = "http")]
            Self::Http(probe) => probe.look().await,
            Self::Exec(probe) => probe.look().await,
        }
    }
}
