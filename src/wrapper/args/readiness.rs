//! When the service may be listed: options that hold it back until its command can serve.

use std::time::Duration;

use clap::Args;

use super::list;
use crate::command_line;
use crate::wrapper::fitness::{Condition, ConditionError};

const READY_HELP: &str = "\
Register the service only when this holds: CONDITION,CONDITION,...

  started                the command runs
  listening[:PORT]       it, or a process that it has started, listens on TCP, on any port or on this one
  tcp:[HOST:]PORT        a connection is accepted there; without a host, on this machine's loopback addresses
  http://..., https://... the answer's status is 200 to 399; certificates are not verified
  exec:COMMAND           this shell command, in the command's environment, ends with 0
  notify                 it says READY=1 to its NOTIFY_SOCKET (sd_notify), with or without systemd
  fd:N                   it writes a line to descriptor N (3 to 255), a pipe that is made for it (as under s6)
  after:TIME             it has been running for so long

Of several, each has to have held once. `listening` asks the kernel, and nobody connects; what others look at is looked \
at every 10 ms at first and every second in the end, and a look is cut off after 5 s. A comma within one is written `\\,`. \
Can be given several times.";

#[derive(Debug, Args)]
pub(super) struct ReadinessArguments {
    /// Register the service only when this holds [default: started]
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_READY_WHEN",
        value_name = "CONDITION",
        long_help = READY_HELP
    )]
    ready_when: Vec<String>,

    /// How long the command may take to be ready: 1 ms to 1 day
    ///
    /// After that, the wrapper says once what is missing, and waits on; with --abort-on-failure, it stops the command and
    /// exits with 100.
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_READY_TIMEOUT",
        value_name = "TIME",
        default_value = "60s",
        value_parser = ready_timeout
    )]
    pub(super) ready_timeout: Duration,

    /// Register the service only when its command has been running for so long: 0 to 1 day [default: 0]
    ///
    /// A command that crashes before, again and again, leaves no trace in the registry.
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_MIN_UPTIME",
        value_name = "TIME",
        value_parser = min_uptime
    )]
    pub(super) min_uptime: Option<Duration>,
}

impl ReadinessArguments {
    /// What has to hold; nothing where the start is enough.
    pub(super) fn conditions(&self) -> Result<Vec<Condition>, ReadinessError> {
        let items = self.ready_when.iter().flat_map(|value| list::items(value));
        let mut conditions: Vec<Condition> = items.map(|item| item.parse()).collect::<Result<_, _>>()?;
        conditions.retain(|condition| *condition != Condition::Started);
        let is_descriptor = |condition: &&Condition| matches!(condition, Condition::Descriptor(_));
        if conditions.iter().filter(is_descriptor).count() > 1 {
            return Err(ReadinessError::Descriptors);
        }
        Ok(conditions)
    }
}

/// Why there is nothing to wait for.
#[derive(Debug, thiserror::Error)]
pub(in crate::wrapper) enum ReadinessError {
    #[error(transparent)]
    Condition(#[from] ConditionError),
    #[error("there can be one `fd:N`")]
    Descriptors,
}

fn ready_timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), DAY, "1 ms to 1 day")
}

fn min_uptime(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, DAY, "0 to 1 day")
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A time of at least `least` and at most `most`: `bounds` in words.
pub(super) fn within(text: &str, least: Duration, most: Duration, bounds: &str) -> Result<Duration, String> {
    let span = command_line::span(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&span) { Ok(span) } else { Err(format!("it has to be {bounds}")) }
}
