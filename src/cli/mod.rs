//! `raxsr`: what people read and script the registry with.
//!
//! Data goes to standard output, everything else to standard error. Each resource is a file that asks the
//! registry; `output` shows what it answered.

mod account;
mod configuration;
mod doctor;
mod events;
mod generate;
mod output;
mod part;
mod resolve;
#[cfg(feature = "server")]
mod serve;
mod services;
mod transfer;
mod wait;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Parser, Subcommand};

use self::output::{Format, Output};
use crate::command_line::{self, AccessArguments, AccessError, Stop};
use crate::message::{Hint, complain, report};
use crate::model::{self, ConfigurationId, Tag};
use crate::registry::{self, Registry};

const PROGRAM: &str = "raxsr";
const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;

/// Read a service registry, or serve it
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, subcommand_required = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    access: AccessArguments,

    /// How to show it
    #[arg(long, short, global = true, env = "RAXSR_FORMAT", value_name = "FORMAT", default_value = "table")]
    format: Format,

    #[command(subcommand)]
    resource: Resource,
}

#[derive(Debug, Subcommand)]
enum Resource {
    /// The services alive
    #[command(subcommand)]
    Services(services::Action),
    /// What happened in the registry
    #[command(subcommand)]
    Events(events::Action),
    /// The configuration values
    #[command(subcommand)]
    Configuration(configuration::Action),
    /// What the account may have and do
    #[command(subcommand)]
    Account(account::Action),
    /// Write completions for a shell
    Completions(generate::Completions),
    /// Write a manual page, in roff: `raxsr man | man -l -`
    Man(generate::Manual),
    /// Look for what keeps services from being registered here
    Doctor(doctor::Doctor),
    /// Serve a registry over HTTP: the Service Registry API
    #[cfg(feature = "server")]
    Serve(serve::Serve),
}

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  the registry refused, or could not be reached
  2  usage
  3  no such service or value";

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
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
            #[cfg(feature = "server")]
            Self::Serve(error) => error.hint(),
            Self::NoSuchFormat { formats, .. } => Some(format!("choose one of {formats}")),
            Self::NoAddress { .. } => {
                Some("a service tells its address in its metadata: --metadata=host=HOST,port=PORT".to_owned())
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
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            // Whoever reads us has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Registry(registry::Error::NotFound { .. }) | Self::NoAddress { .. } => NOT_FOUND,
            Self::Registry(_) | Self::Unwell(_) | Self::Output(_) | Self::WaitedInVain { .. } => REFUSED,
            Self::Value(_) | Self::Missing(_) | Self::Twice(_) | Self::File { .. } | Self::Import { .. } => {
                USAGE
            }
            Self::Outside { .. } | Self::NoSuchFormat { .. } | Self::NoSuchCommand(_) => USAGE,
            // As a shell has it.
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Run { .. } => 126,
            Self::Access(_) => USAGE,
            #[cfg(feature = "server")]
            Self::Serve(error) if error.is_usage() => USAGE,
            #[cfg(feature = "server")]
            Self::Serve(_) => REFUSED,
        })
    }
}

/// Does what `words` ask for, and says how to exit.
#[must_use]
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (arguments, matches) = match command_line::parse::<Arguments>(words) {
        Ok(parsed) => parsed,
        Err(Stop::Answered) => return ExitCode::SUCCESS,
        Err(Stop::Mistake(mistake)) => {
            complain(&report(PROGRAM, &mistake));
            return ExitCode::from(USAGE);
        }
    };
    let runtime = runtime(&arguments.resource).enable_all().build();
    let outcome =
        runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(carry_out(arguments, &matches)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            if code != ExitCode::SUCCESS {
                complain(&report(PROGRAM, &error));
            }
            code
        }
    }
}

/// A server uses every core, a command one thread.
fn runtime(resource: &Resource) -> tokio::runtime::Builder {
    match resource {
        #[cfg(feature = "server")]
        Resource::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    }
}

async fn carry_out(arguments: Arguments, matches: &ArgMatches) -> Result<(), Error> {
    match &arguments.resource {
        Resource::Completions(completions) => return generate::completions(completions),
        Resource::Man(manual) => return generate::manual(manual),
        resource => check_format(arguments.format, resource)?,
    }
    let target = match &arguments.resource {
        #[cfg(feature = "server")]
        Resource::Serve(_) => arguments.access.served(matches)?,
        _ => arguments.access.target(matches)?,
    };
    // The doctor has a line for them.
    if !matches!(arguments.resource, Resource::Doctor(_)) {
        target.warnings.iter().for_each(|warning| warn(warning));
    }
    let registry = registry::connect(&target.registry, &target.access);
    let registry: &dyn Registry = &*registry;
    let output = Output::new(arguments.format);
    match arguments.resource {
        Resource::Services(action) => services::run(action, registry, &output).await,
        Resource::Events(action) => events::run(action, registry, &output).await,
        Resource::Configuration(action) => configuration::run(action, registry, &output).await,
        Resource::Account(action) => account::run(action, registry, &output).await,
        Resource::Completions(_) | Resource::Man(_) => Ok(()),
        Resource::Doctor(doctor) => doctor::run(doctor, &target, registry, &output).await,
        #[cfg(feature = "server")]
        Resource::Serve(serve) => Ok(serve::run(serve, target.registry, target.access).await?),
    }
}

/// Formats of addresses are for addresses.
fn check_format(format: Format, resource: &Resource) -> Result<(), Error> {
    let is_for_addresses = matches!(format, Format::Env | Format::Hosts | Format::Haproxy | Format::Nginx);
    match resource {
        Resource::Services(services::Action::Resolve(_)) => Ok(()),
        _ if is_for_addresses => Err(Error::NoSuchFormat {
            format: format.name(),
            what: "this",
            formats: "table, csv, json, yaml, html; `services resolve` has it",
        }),
        _ => Ok(()),
    }
}

/// Says how it goes, on standard error.
fn note(text: &str) {
    complain(&format!("{PROGRAM}: {text}\n"));
}

/// Says what is better known, on standard error.
fn warn(warning: &str) {
    complain(&format!("{PROGRAM}: warning: {warning}\n"));
}
