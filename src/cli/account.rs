use clap::Subcommand;
use serde::Serialize;

use super::Error;
use super::output::{Cell, Output, Row};
use crate::registry::{RateLimit, Registry};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// How many services and configuration values there may be
    ResourceLimits,
    /// How many requests there may be, and have been
    RateLimits,
}

pub(super) async fn run(action: Action, registry: &dyn Registry, output: &Output) -> Result<(), Error> {
    let quota = registry.quota().await?;
    match action {
        Action::ResourceLimits => {
            let rows = quota.resource.into_iter().map(|(resource, limit)| Resource { resource, limit });
            output.list(&rows.collect::<Vec<_>>())?;
        }
        Action::RateLimits => {
            let rows = quota.rate.into_iter().map(|(rate, limit)| Rate { rate, limit });
            output.list(&rows.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Resource {
    resource: String,
    limit: u64,
}

impl Row for Resource {
    const HEADINGS: &'static [&'static str] = &["Resource", "Limit"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::text(&self.resource), Cell::Number(self.limit)]
    }

    fn data(&self) -> impl Serialize {
        self
    }
}

#[derive(Serialize)]
struct Rate {
    rate: String,
    #[serde(flatten)]
    limit: RateLimit,
}

impl Row for Rate {
    const HEADINGS: &'static [&'static str] = &["Rate", "Window", "Used", "Limit"];

    fn cells(&self) -> Vec<Cell> {
        let RateLimit { limit, used, window } = &self.limit;
        vec![Cell::text(&self.rate), Cell::text(window), Cell::Number(*used), Cell::Number(*limit)]
    }

    fn data(&self) -> impl Serialize {
        self
    }
}
