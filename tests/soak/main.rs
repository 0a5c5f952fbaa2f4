//! Heartbeats under random faults, for as long as you like: what a wrapper costs, and what it loses, in a table.
//!
//! ```text
//! cargo test --release --test soak -- --time=1h
//! ```
//!
//! Not part of `cargo test`. Each kind of registry runs at the same time, with wrappers of its own behind a proxy of
//! its own, and suffers one fault after another, of a kind, a length and at a time that the seed decides. It fails, and
//! says of what, when a fault of less than two thirds of the timeout takes a service from its registry, when one is
//! not back within an interval after a longer one, when a child is touched, or when anything grows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that failed")]

mod faults;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is there for all tests")]
mod support;
mod table;
mod ward;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::support::lab::Kind;
use self::ward::{Report, Ward};

/// Heartbeats under random faults
#[derive(Debug, Clone, Parser)]
struct Options {
    /// How long
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    time: Duration,

    /// Which faults come when; said at the beginning, to have the same again
    #[arg(long)]
    seed: Option<u64>,

    /// How many wrappers for each registry
    #[arg(long, default_value = "4")]
    wrappers: usize,

    /// The heartbeat timeout of each, in seconds
    #[arg(long, default_value = "10")]
    interval: u64,

    /// These registries alone
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    only: Vec<Kind>,
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter().find(|kind| format!("{kind:?}").eq_ignore_ascii_case(name));
    known.ok_or_else(|| format!("one of {:?}", Kind::ALL))
}

#[expect(clippy::print_stderr, reason = "long work shows progress")]
fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let kinds = if options.only.is_empty() { Kind::ALL.to_vec() } else { options.only.clone() };
    eprintln!("soak: {kinds:?} for {}, --seed={seed}", humantime::format_duration(options.time));
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let run = |kind: Kind| {
            let (options, rng) = (options.clone(), fastrand::Rng::with_seed(seed ^ kind as u64));
            scope.spawn(move || Ward::open(kind, &options)?.run(&options, rng).into())
        };
        let running: Vec<_> = kinds.into_iter().map(run).collect();
        running.into_iter().filter_map(|ward| ward.join().unwrap()).collect()
    });
    table::print(&reports);
    let complaints: Vec<_> = reports.iter().flat_map(Report::complaints).collect();
    for complaint in &complaints {
        eprintln!("soak: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
