//! `raxsr`: what people read and script the registry with.
//!
//! Data goes to standard output, everything else to standard error. Each resource is a file that asks the
//! registry; `output` shows what it answered.

mod account;
mod configuration;
mod doctor;
mod drain;
mod error;
mod events;
mod follow;
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
use std::process::ExitCode;

use clap::{ArgMatches, Parser, Subcommand};

use self::error::{Error, USAGE};
use self::output::{Asked, Format, Output};
use crate::command_line::{self, AccessArguments, Stop};
use crate::message::{complain, report};
use crate::registry::{self, Registry};

const PROGRAM: &str = "raxsr";

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
        Resource::Events(events::Action::Follow(follow)) => {
            let format = Asked::of(arguments.format, matches);
            follow::run(follow, registry, format, &target.secret_variables).await
        }
        Resource::Events(events::Action::List(list)) => events::list(list, registry, &output).await,
        Resource::Configuration(action) => configuration::run(action, registry, &output).await,
        Resource::Account(action) => account::run(action, registry, &output).await,
        Resource::Completions(completions) => generate::completions(&completions),
        Resource::Man(manual) => generate::manual(&manual),
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
