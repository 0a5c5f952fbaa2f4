//! What the command lines of both programs have in common.

mod access;
mod origins;
mod raxrc;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

#[cfg(feature = "cli")]
pub(crate) use self::access::Target;
pub(crate) use self::access::{AccessArguments, AccessError};
#[cfg(feature = "cli")]
pub(crate) use self::origins::Login;
use crate::message::Hint;

/// Why a command line is nothing to work on.
pub(crate) enum Stop {
    /// It asked for help or the version, and has got it.
    Answered,
    /// It is wrong.
    Mistake(Mistake),
}

/// What is wrong with a command line, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Mistake {
    message: String,
    hint: String,
}

impl Hint for Mistake {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

/// Reads `words`, and for what they do not say the environment. Also tells where each value came from.
pub(crate) fn parse<T: CommandFactory + FromArgMatches>(
    words: impl IntoIterator<Item = OsString>,
) -> Result<(T, ArgMatches), Stop> {
    let words: Vec<OsString> = words.into_iter().collect();
    let command = without_empty_variables(T::command());
    let meant = meant(&command, &words);
    let stop = |error: clap::Error| stop(&meant, &error);
    let matches = command.try_get_matches_from(words).map_err(stop)?;
    let arguments = T::from_arg_matches(&matches).map_err(stop)?;
    Ok((arguments, matches))
}

/// The program, and the subcommand that was meant: whose help tells more.
fn meant(program: &Command, words: &[OsString]) -> String {
    let mut command = program;
    let mut path = command.get_name().to_owned();
    for subcommand in words.iter().skip(1) {
        if let Some(found) = command.find_subcommand(subcommand) {
            command = found;
            path = format!("{path} {}", found.get_name());
        }
    }
    path
}

/// Reads `20`, `20s` or `1m 30s`; a bare number is seconds.
pub(crate) fn span(text: &str) -> Result<Duration, humantime::DurationError> {
    text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text))
}

/// A variable that says nothing counts as none.
fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let says_nothing = argument.get_env().is_some_and(says_nothing);
        if says_nothing { argument.env(None) } else { argument }
    });
    command.mut_subcommands(without_empty_variables)
}

/// Whether it is empty, or the `<NAME>_PORT=tcp://10.0.0.1:80` that Kubernetes and Docker set where a service is
/// called `<NAME>`.
fn says_nothing(variable: &OsStr) -> bool {
    let is_port = variable.as_encoded_bytes().ends_with(b"_PORT");
    std::env::var_os(variable)
        .is_some_and(|value| value.is_empty() || is_port && value.to_string_lossy().contains("://"))
}

/// clap's account of a mistake, cut to what and where, and what to do.
fn stop(meant: &str, error: &clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return Stop::Answered;
    }
    let text = error.to_string();
    let message =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let hint = tip.map_or_else(|| format!("see {meant} --help"), str::to_owned);
    Stop::Mistake(Mistake { message, hint })
}
