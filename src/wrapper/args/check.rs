//! Whether the service stays listed: options to look at a command that runs.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;

use super::list;
use super::readiness::within;
use crate::wrapper::fitness::{Check, OnUnhealthy};
use crate::wrapper::probe::{Target, TargetError};

const CHECK_HELP: &str = "\
Keep the service registered only while this is well: CHECK,CHECK,...

  listening[:PORT]       the command, or a process that it has started, listens on TCP, on any port or on this one
  tcp:[HOST:]PORT        a connection is accepted there; without a host, on this machine's loopback addresses
  http://..., https://... the answer's status is 200 to 399; certificates are not verified
  exec:COMMAND           this shell command, in the command's environment, ends with 0

An unhealthy service is taken out of the registry, and comes back when it is healthy: the command goes on. At Consul it \
stays, with its check critical, which says why, without the commands of `exec:`. One that is stopped (SIGSTOP) is unhealthy. \
Of several checks, all have to be well. The service is registered first when a check has been well for the first time: until \
then, it is looked at more often. A comma within one is written `\\,`. Can be given several times.";

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Keep the service registered only while this is well
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_CHECK",
        value_name = "CHECK",
        long_help = CHECK_HELP
    )]
    check: Vec<String>,

    /// How long after a check the next one is: 100 ms to 1 hour
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_CHECK_INTERVAL",
        value_name = "TIME",
        default_value = "10s",
        value_parser = interval
    )]
    check_interval: Duration,

    /// How long a check may take before it is cut off, and counts as failed: 10 ms to --check-interval [default: 5s]
    ///
    /// The processes of an `exec:` check are killed. With an interval below 5 s, the default is the interval.
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_CHECK_TIMEOUT",
        value_name = "TIME",
        value_parser = timeout
    )]
    check_timeout: Option<Duration>,

    /// How many checks in a row have to be well for an unhealthy service to be healthy again: 1 to 100
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_CHECK_RISE",
        value_name = "COUNT",
        default_value = "1",
        value_parser = count
    )]
    check_rise: NonZeroU32,

    /// How many checks in a row have to fail for the service to be unhealthy: 1 to 100
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_CHECK_FALL",
        value_name = "COUNT",
        default_value = "3",
        value_parser = count
    )]
    check_fall: NonZeroU32,

    /// What becomes of a command that is unhealthy
    #[arg(
        long,
        help_heading = "Readiness and health",
        env = "SERVICE_REGISTRY_ON_UNHEALTHY",
        value_name = "WHAT",
        default_value = "withdraw"
    )]
    on_unhealthy: OnUnhealthy,
}

impl CheckArguments {
    /// How to check; none where nothing is to be.
    pub(super) fn check(&self) -> Result<Option<Check>, CheckError> {
        let items = self.check.iter().flat_map(|value| list::items(value));
        let targets: Vec<Target> = items.map(|item| item.parse()).collect::<Result<_, _>>()?;
        if targets.is_empty() {
            return Ok(None);
        }
        let interval = self.check_interval;
        let timeout = self.check_timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval));
        if timeout > interval {
            return Err(CheckError::Timeout { timeout, interval });
        }
        let (rise, fall) = (self.check_rise, self.check_fall);
        Ok(Some(Check { targets, interval, timeout, rise, fall, on_unhealthy: self.on_unhealthy }))
    }
}

/// Why there is nothing to check.
#[derive(Debug, thiserror::Error)]
pub(in crate::wrapper) enum CheckError {
    #[error("--check")]
    Target(#[from] TargetError),
    #[error(
        "--check-timeout: {} is longer than the --check-interval of {}",
        humantime::format_duration(*timeout), humantime::format_duration(*interval)
    )]
    Timeout { timeout: Duration, interval: Duration },
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

fn interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), Duration::from_secs(3600), "100 ms to 1 hour")
}

fn timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(10), Duration::from_secs(3600), "10 ms to --check-interval")
}

fn count(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse().ok().filter(|count: &NonZeroU32| count.get() <= 100);
    count.ok_or_else(|| "it has to be a whole number from 1 to 100".to_owned())
}
