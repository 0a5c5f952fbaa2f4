//! What the command line means: checked, and free of how it was said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use tracing::warn;

use super::address::AddressError;
use super::draft::{Draft, DraftError, Late, Said};
use super::facts::Facts;
use super::rehearsal::Rendering;
use super::{Arguments, Conflict, OnDeath, Orphans, Required, presumed};
use crate::command_line::AccessError;
use crate::lease::fleet::Require;
use crate::lease::{self, OnConflict};
use crate::message::Hint;
use crate::model::{Registration, ServiceId};
use crate::registry::{Access, RegistryUrl};
use crate::wrapper::child::{Group, Launch};
use crate::wrapper::environment::Changes;
use crate::wrapper::notify::ReadyWhen;
use crate::wrapper::signal_number::SignalNumber;
use crate::wrapper::supervision::{self, Deregister};

/// What the wrapper is to do: valid, and free of how it was said.
#[derive(Debug)]
pub struct Settings {
    /// What to start.
    pub launch: Launch,
    /// What to register, as far as it was said.
    draft: Draft,
    /// Where.
    pub registries: Vec<Destination>,
    pub(in crate::wrapper) require: Require,
    pub(in crate::wrapper) orphans: Orphans,
    pub(in crate::wrapper) pid_file: Option<PathBuf>,
    pub(in crate::wrapper) ready_when: ReadyWhen,
    stop_signal: SignalNumber,
    stop_timeout: Option<Duration>,
    on_conflict: OnConflict,
    deregister: Deregister,
    give_up_after: Option<NonZeroU32>,
    pub(in crate::wrapper) dry_run: Option<Rendering>,
    warnings: Vec<String>,
}

/// A registry to be in.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Which.
    pub url: RegistryUrl,
    /// As whom.
    pub access: Access,
}

impl Settings {
    /// Checks what was said.
    pub(super) fn new(arguments: Arguments, matches: &ArgMatches) -> Result<Self, Refusal> {
        if arguments.pid_file.is_some() && arguments.orphans == Orphans::Leave {
            return Err(Refusal::NotOurs);
        }
        let mut warnings = Vec::new();
        let mut secret_variables = Vec::new();
        let mut targets = Vec::new();
        for target in arguments.access.targets(matches)? {
            add(&mut secret_variables, target.secret_variables);
            add(&mut warnings, target.warnings);
            targets.push((target.registry, target.access));
        }
        if !arguments.session_metadata.is_empty() {
            let warning = "--session-metadata is a thing of the past: its pairs are treated as --metadata";
            warnings.push(warning.to_owned());
        }
        let retries = NonZeroU32::new(arguments.retries).unwrap_or(NonZeroU32::MIN);
        let urls: Vec<_> = targets.iter().map(|(url, _)| url).collect();
        let said = Said {
            id: arguments.id.as_deref(),
            tags: &arguments.tags,
            pairs: arguments.session_metadata.iter().chain(&arguments.metadata).collect(),
            heartbeat_timeout: arguments.interval,
            endpoint: arguments.endpoint.resolved(&urls)?,
        };
        let facts = Facts {
            registries: &urls,
            host: said.endpoint.host.clone(),
            port: said.endpoint.port,
            secrets: &secret_variables,
            known: BTreeMap::new(),
        };
        let draft = Draft::new(&said, default_id(&arguments.command), facts)?;
        Ok(Self {
            registries: targets.into_iter().map(|(url, access)| Destination { url, access }).collect(),
            draft,
            launch: Launch {
                command: arguments.command,
                environment: Changes::without(secret_variables),
                group: if arguments.signal_group { Group::Own } else { Group::Shared },
                death_signal: (arguments.on_wrapper_death == OnDeath::Stop).then_some(arguments.stop_signal),
            },
            require: match arguments.require {
                Required::Any => Require::Any,
                Required::All => Require::All,
            },
            orphans: arguments.orphans,
            pid_file: arguments.pid_file,
            ready_when: arguments.notify,
            stop_signal: arguments.stop_signal,
            stop_timeout: arguments.stop_timeout,
            on_conflict: match arguments.on_conflict {
                Conflict::Wait => OnConflict::Wait,
                Conflict::Replace => OnConflict::Replace,
                Conflict::Fail => OnConflict::Fail,
            },
            deregister: arguments.deregister,
            give_up_after: arguments.abort_on_failure.then_some(retries),
            dry_run: arguments.rehearsal.dry_run,
            warnings,
        })
    }

    /// What to register in one of the registries: also what was not said, where those who look services up there want to
    /// know it.
    pub(in crate::wrapper) fn registration(&self, destination: &Destination, late: Late) -> Registration {
        presumed::completed(&self.draft.complete(late), &destination.url, &self.launch.command)
    }

    pub(in crate::wrapper) fn lease_policy(&self) -> lease::Policy {
        lease::Policy {
            timeout: self.draft.sound.heartbeat_timeout,
            on_conflict: self.on_conflict,
            give_up_after: self.give_up_after,
        }
    }

    pub(in crate::wrapper) fn stop_policy(&self) -> supervision::Policy {
        let reinstate_after = self.draft.sound.heartbeat_timeout.as_duration();
        supervision::Policy {
            deregister: self.deregister,
            reinstate_after,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            group: self.launch.group,
        }
    }

    /// Says what the command line has that is better not there.
    pub(in crate::wrapper) fn tell_warnings(&self) {
        for warning in &self.warnings {
            warn!("{warning}");
        }
    }
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error("--address")]
    Address(#[from] AddressError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("--pid-file: a daemon cannot be followed with --orphans=leave")]
    NotOurs,
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Draft(error) => error.hint(),
            Self::Address(error) => error.hint(),
            Self::Access(error) => error.hint(),
            Self::NotOurs => None,
        }
    }
}

fn default_id(command: &[OsString]) -> ServiceId {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let program = command.first().map(PathBuf::from).unwrap_or_default();
    let program = program.file_name().unwrap_or_default();
    ServiceId::for_command(&host.to_string_lossy(), &program.to_string_lossy())
}

/// What several registries have in common is said once.
fn add<T: PartialEq>(all: &mut Vec<T>, some: Vec<T>) {
    for one in some {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}
