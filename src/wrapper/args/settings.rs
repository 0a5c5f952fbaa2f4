//! What the command line means: checked, and free of how it was said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use tracing::warn;

use super::address::AddressError;
use super::check::CheckError;
use super::draft::{Draft, DraftError, Late, Said};
use super::facts::Facts;
use super::readiness::ReadinessError;
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
use crate::wrapper::fitness::{IfLate, Plan, PortRule};
use crate::wrapper::notify::ReadyWhen;
use crate::wrapper::signal_number::SignalNumber;
use crate::wrapper::supervision::{self, Deregister, Drain, Legacy};

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
    /// What makes the service fit to be listed.
    pub(in crate::wrapper) fitness: Plan,
    /// The port that was chosen for the command, if nobody named one.
    pub(in crate::wrapper) chosen_port: Option<u16>,
    stop_signal: SignalNumber,
    stop_timeout: Option<Duration>,
    drain: Option<Drain>,
    on_conflict: OnConflict,
    deregister: Deregister,
    legacy: Legacy,
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
    pub(super) fn new(mut arguments: Arguments, matches: &ArgMatches) -> Result<Self, Refusal> {
        if arguments.pid_file.is_some() && arguments.orphans == Orphans::Leave {
            return Err(Refusal::NotOurs);
        }
        let drain = arguments.drain.drain(arguments.deregister)?;
        let ports = arguments.endpoint.ports().map_err(Refusal::NoFreePort)?;
        let fitness = fitness(&arguments, ports.rule)?;
        let mut warnings = Vec::new();
        let mut secret_variables = Vec::new();
        let mut targets = Vec::new();
        for target in arguments.access.clone().targets(matches)? {
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
        let draft = draft(&arguments, &urls, &secret_variables)?;
        let environment = Changes::without(secret_variables);
        let environment = match ports.variable {
            Some((name, number)) => environment.with(&name, &number.to_string()),
            None => environment,
        };
        Ok(Self {
            registries: targets.into_iter().map(|(url, access)| Destination { url, access }).collect(),
            draft,
            launch: Launch {
                command: arguments.command,
                environment,
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
            fitness,
            chosen_port: ports.chosen,
            stop_signal: arguments.stop_signal,
            stop_timeout: arguments.stop_timeout,
            drain,
            on_conflict: match arguments.on_conflict {
                Conflict::Wait => OnConflict::Wait,
                Conflict::Replace => OnConflict::Replace,
                Conflict::Fail => OnConflict::Fail,
            },
            deregister: arguments.deregister,
            legacy: if arguments.tombstone.tombstone { Legacy::Tombstone } else { Legacy::Entry },
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
            legacy: self.legacy,
            reinstate_after,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            drain: self.drain,
            group: self.launch.group,
        }
    }

    /// How long a service manager has to wait for the command's end once that was told to stop, and a little.
    pub(in crate::wrapper) fn stop_grace(&self) -> Duration {
        self.stop_timeout.map_or(supervision::GRACE, |timeout| timeout.saturating_add(Duration::from_secs(2)))
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
    #[error("--ready-when")]
    Readiness(#[from] ReadinessError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("--port-env: there is no free port")]
    NoFreePort(#[source] io::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("--pid-file: a daemon cannot be followed with --orphans=leave")]
    NotOurs,
    #[error("--{flag}: with --deregister=never the service does not leave the registry")]
    NeverLeaves { flag: &'static str },
}

impl Hint for Refusal {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Draft(error) => error.hint(),
            Self::Address(error) => error.hint(),
            Self::Access(error) => error.hint(),
            Self::NeverLeaves { .. } => Some("use --deregister=on-stop, or do without".to_owned()),
            Self::Readiness(ReadinessError::Condition(error)) => error.hint(),
            Self::Check(CheckError::Target(error)) => error.hint(),
            Self::Check(CheckError::Timeout { .. })
            | Self::Readiness(ReadinessError::Descriptors)
            | Self::NoFreePort(_)
            | Self::NotOurs => None,
        }
    }
}

/// What is to be registered.
fn draft(
    arguments: &Arguments,
    registries: &[&RegistryUrl],
    secrets: &[&'static str],
) -> Result<Draft, Refusal> {
    let said = Said {
        id: arguments.id.as_deref(),
        tags: &arguments.tags,
        pairs: arguments.session_metadata.iter().chain(&arguments.metadata).collect(),
        heartbeat_timeout: arguments.interval,
        endpoint: arguments.endpoint.resolved(registries)?,
    };
    let (host, port) = (said.endpoint.host.clone(), said.endpoint.port);
    let facts = Facts { registries, host, port, secrets, known: BTreeMap::new() };
    Ok(Draft::new(&said, default_id(&arguments.command), facts)?)
}

/// What makes the service fit to be listed.
fn fitness(arguments: &Arguments, port: PortRule) -> Result<Plan, Refusal> {
    Ok(Plan {
        ready_when: arguments.readiness.conditions()?,
        ready_timeout: arguments.readiness.ready_timeout,
        if_late: if arguments.abort_on_failure { IfLate::Stop } else { IfLate::Wait },
        min_uptime: arguments.readiness.min_uptime.unwrap_or_default(),
        check: arguments.check.check()?,
        port,
    })
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
