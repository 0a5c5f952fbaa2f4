//! What an outage costs a wrapper, beside a healthy run: `cargo bench --bench faults`.
//!
//! For each registry and each way to fail: how long after its child a wrapper ends, the time of the processor that it
//! takes in each second, its private memory, and how often it tries. All of it of several wrappers at once.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool that is read by people")]

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is there for all tests")]
mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::Instant;

use support::lab::{Fault, Kind, Laboratory, Patient, Proxy, Shock};
use support::{holds_for, private_memory, wait_until};

const WRAPPERS: u32 = 15;
/// How long an outage is looked at.
const WATCH: Duration = Duration::from_secs(30);
const INTERVAL: &str = "--interval=6";

const COLUMNS: &str = "exit lag us  (median)   CPU ms/s   tries/s   private KiB";

fn main() {
    println!("{WRAPPERS} wrappers each, {INTERVAL}, {} s\n", WATCH.as_secs());
    println!("{:<24} {COLUMNS}", "");
    for kind in Kind::ALL {
        let Some(laboratory) = Laboratory::start(kind, "benches/faults").map(Arc::new) else { continue };
        measure(&laboratory, "healthy", &State::Whole);
        if kind == Kind::File {
            measure(&laboratory, "locked", &State::Shocked(Shock::Locked));
            continue;
        }
        let of_http = Some(Fault::Answer(503)).filter(|_| kind.is_http());
        for fault in [Fault::Refuse, Fault::BlackHole, Fault::Reset].into_iter().chain(of_http) {
            measure(&laboratory, &format!("{fault:?}"), &State::CutOff(fault));
        }
    }
}

enum State {
    Whole,
    Shocked(Shock),
    CutOff(Fault),
}

fn measure(laboratory: &Laboratory, name: &str, state: &State) {
    let proxy = (laboratory.kind != Kind::File).then(|| Proxy::to(laboratory.address()));
    let url = proxy.as_ref().map_or(laboratory.url().to_owned(), |proxy| laboratory.url_through(proxy));
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let start = |number| Patient::start(&url, &format!("{plain}{number}"), &[INTERVAL]);
    let mut patients: Vec<_> = (0..WRAPPERS).map(start).collect();
    for patient in &patients {
        patient.wait_until_it_says("registered");
    }
    match (state, &proxy) {
        (State::CutOff(fault), Some(proxy)) => proxy.strike(*fault),
        (State::Shocked(shock), _) => laboratory.strike(*shock),
        _ => {}
    }
    if !matches!(state, State::Whole) {
        wait_until("the trouble", || patients.iter().all(Patient::is_in_trouble));
    }
    let tries = || {
        proxy
            .as_ref()
            .map_or(0, |proxy| u32::try_from(proxy.connections().max(proxy.requests())).unwrap_or(u32::MAX))
    };
    let (cpu_before, tries_before, since) = (cpu(&patients), tries(), Instant::now());
    holds_for(WATCH, "the outage", || true);
    let seconds = since.elapsed().as_secs_f64() * f64::from(WRAPPERS);
    let used = cpu(&patients).saturating_sub(cpu_before).as_secs_f64() * 1e3 / seconds;
    let rate = if proxy.is_some() {
        format!("{:.2}", f64::from(tries() - tries_before) / seconds)
    } else {
        "-".to_owned()
    };
    let memory =
        patients.iter().map(|patient| private_memory(patient.process.pid())).max().unwrap_or_default();
    let mut lags: Vec<_> = patients.iter_mut().map(|patient| patient.lose_child().as_micros()).collect();
    lags.sort_unstable();
    let (fastest, median) = (lags[0], lags[lags.len() / 2]);
    println!(
        "{:<24} {fastest:>11}  ({median:>6})  {used:>9.2}  {rate:>8}  {memory:>12}",
        format!("{:?}, {name}", laboratory.kind)
    );
    if let State::Shocked(shock) = state {
        laboratory.relieve(*shock);
    }
}

/// What they have used so far, together.
fn cpu(patients: &[Patient]) -> Duration {
    let of = |pid: Pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    patients.iter().map(|patient| of(patient.process.pid())).sum()
}
