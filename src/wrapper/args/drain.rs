//! How a stop spares those who have looked the service up.

use std::time::Duration;

use clap::Args;

use super::settings::Refusal;
use crate::command_line::span;
use crate::wrapper::supervision::{Deregister, Drain, Ends};

/// Less than the 10 s that container engines give a stop: the command is to have some of it.
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    /// How long the command serves on between its leaving the registry and the stop signal [default: not at all]
    ///
    /// For consumers that go by what they last read. It counts from the registry's answer, or, where that does not come
    /// within 1 s or the registry is known to be failing, from then; a service that has never been registered is
    /// stopped at once. A second request to stop ends the wait, and so does the command when it ends. What a terminal
    /// sends (Ctrl-C) reaches the command itself, and cannot wait. --stop-timeout counts from the signal. systemd is asked
    /// to wait as long, if the unit is `Type=notify` or has `NotifyAccess=main`; `podman stop -t`, `docker stop -t` and
    /// terminationGracePeriodSeconds have to allow for it. At most 24 h.
    #[arg(
        long,
        help_heading = "Stopping",
        env = "SERVICE_REGISTRY_DRAIN",
        value_name = "TIME",
        value_parser = limit
    )]
    drain: Option<Duration>,

    /// Drain only until the registry's own view does not show the service any more
    ///
    /// That is asked for several times a second: Consul's catalog, the list that etcd, ZooKeeper, a server or a file has. Of
    /// several registries, those count that answer. --drain is then the limit, by default 5 s; where no registry
    /// answers, it is waited for.
    #[arg(
        long,
        help_heading = "Stopping",
        env = "SERVICE_REGISTRY_DRAIN_UNTIL_UNLISTED",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    drain_until_unlisted: bool,
}

impl DrainArguments {
    pub(super) fn drain(&self, deregister: Deregister) -> Result<Option<Drain>, Refusal> {
        let drain = match (self.drain, self.drain_until_unlisted) {
            (None, false) => return Ok(None),
            (Some(limit), false) => Drain { limit, ends: Ends::AtLimit },
            (limit, true) => Drain { limit: limit.unwrap_or(DEFAULT_LIMIT), ends: Ends::WhenUnlisted },
        };
        if deregister == Deregister::Never {
            let flag = if self.drain.is_some() { "drain" } else { "drain-until-unlisted" };
            return Err(Refusal::NeverLeaves { flag });
        }
        Ok(Some(drain))
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    let limit = span(text).map_err(|error| error.to_string())?;
    if limit > LONGEST {
        return Err("it is longer than 24 hours".to_owned());
    }
    Ok(limit)
}
