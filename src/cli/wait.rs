use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use tokio::time::Instant;

use super::{Error, note, warn};
use crate::command_line::span;
use crate::lease::Backoff;
use crate::message::chain;
use crate::model::{Limit, Marker, PageRequest, Tag};
use crate::registry::{self, Recourse, Registry, ServiceQuery};

/// How often to look.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The tag that they have
    #[arg(long, value_name = "TAG")]
    tag: Tag,
    /// How many there have to be
    #[arg(long, value_name = "COUNT", default_value = "1")]
    min: u64,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    timeout: Duration,
    /// A command to run when they are there
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(wait: Wait, registry: &dyn Registry) -> Result<(), Error> {
    let mut progress = Progress::default();
    let outcome = tokio::time::timeout(wait.timeout, until_there(&wait, registry, &mut progress)).await;
    let Ok(outcome) = outcome else {
        let Wait { tag, min, timeout, .. } = wait;
        return Err(Error::WaitedInVain { tag, found: progress.found.unwrap_or(0), min, timeout });
    };
    outcome?;
    match wait.command.split_first() {
        None => Ok(()),
        Some((program, arguments)) => {
            let source = Command::new(program).args(arguments).exec();
            Err(Error::Run { program: program.to_string_lossy().into_owned(), source })
        }
    }
}

/// What was said of how it goes.
#[derive(Default)]
struct Progress {
    found: Option<u64>,
    is_failing: bool,
}

async fn until_there(wait: &Wait, registry: &dyn Registry, progress: &mut Progress) -> Result<(), Error> {
    let (mut rng, mut backoff) = (Rng::new(), Backoff::capped_at(4 * PERIOD));
    loop {
        let began = Instant::now();
        let pause = match count(registry, &wait.tag, wait.min).await {
            Ok(found) if found >= wait.min => return Ok(()),
            Ok(found) => {
                if progress.found.replace(found) != Some(found) {
                    note(&format!(
                        "waiting for {} services tagged `{}`, {found} there",
                        wait.min,
                        wait.tag.as_str()
                    ));
                }
                progress.is_failing = false;
                backoff = Backoff::capped_at(4 * PERIOD);
                PERIOD
            }
            Err(error) if error.recourse() == Recourse::Retry => {
                if !std::mem::replace(&mut progress.is_failing, true) {
                    warn(&format!("{}; waiting on", chain(&error)));
                }
                backoff.next(&mut rng).max(PERIOD / 5)
            }
            Err(error) => return Err(error.into()),
        };
        tokio::time::sleep_until(began + pause).await;
    }
}

/// How many services have the tag; no more are counted than are wanted.
async fn count(registry: &dyn Registry, tag: &Tag, wanted: u64) -> registry::Result<u64> {
    let mut query =
        ServiceQuery { tag: Some(tag.clone()), page: PageRequest { marker: None, limit: Limit::MAX } };
    let mut found = 0;
    loop {
        let page = registry.services(&query).await?;
        // What it said some time ago is nothing to start on.
        if page.stale_since.is_some() {
            return Ok(0);
        }
        found += page.values.len() as u64;
        query.page.marker = page.next_marker.map(Marker::from);
        if query.page.marker.is_none() || found >= wanted {
            return Ok(found);
        }
    }
}
