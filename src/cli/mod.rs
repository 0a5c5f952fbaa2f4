//! `raxsr`: what people read and script the registry with.
//!
//! Data goes to standard output, everything else to standard error. Each resource is a file that asks the
//! registry; `output` shows what it answered.

mod events;
mod follow;
mod output;
mod part;
#[cfg(feature = "server")]
mod serve;
mod services;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{ArgMatches, Parser, Subcommand};

use self::output::{Asked, Format, Output};
use crate::command_line::{self, AccessArguments, AccessError, Stop};
use crate::message::{Hint, complain, report};
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
    /// Serve a registry over HTTP: the Service Registry API
    #[cfg(feature = "server")]
    Serve(serve::Serve),
}

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  the registry refused, or could not be reached
  2  usage
  3  no such service";

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Follow(#[from] follow::Error),
    #[cfg(feature = "server")]
    #[error(transparent)]
    Serve(#[from] serve::Error),
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
            Self::Output(_) => None,
        }
    }
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            // Whoever reads us has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Registry(registry::Error::NotFound { .. }) => NOT_FOUND,
            Self::Access(_) | Self::Follow(follow::Error::Html) => USAGE,
            Self::Registry(_) | Self::Output(_) | Self::Follow(_) => REFUSED,
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
    let target = match &arguments.resource {
        #[cfg(feature = "server")]
        Resource::Serve(_) => arguments.access.served(matches)?,
        _ => arguments.access.target(matches)?,
    };
    for warning in &target.warnings {
        warn(warning);
    }
    let registry = registry::connect(&target.registry, &target.access);
    let registry: &dyn Registry = &*registry;
    let output = Output::new(arguments.format);
    match arguments.resource {
        Resource::Services(action) => services::run(action, registry, &output).await,
        Resource::Events(events::Action::Follow(follow)) => {
            let format = Asked::of(arguments.format, matches);
            follow::run(follow, registry, format, &target.secret_variables).await
        }
        Resource::Events(events::Action::List(list)) => events::list(list, registry, &output).await,
        #[cfg(feature = "server")]
        Resource::Serve(serve) => Ok(serve::run(serve, target.registry, target.access).await?),
    }
}

/// Says what is better known, on standard error.
fn warn(warning: &str) {
    complain(&format!("{PROGRAM}: warning: {warning}\n"));
}
