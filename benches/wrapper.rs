//! What being wrapped costs, beside `tini`: `cargo bench --bench wrapper`.
//!
//! The child is this program again: it notes the time as the first thing it does in `main`, and once more as the
//! last, both in nanoseconds of `CLOCK_MONOTONIC`. Rounds are interleaved, so that a machine that drifts drifts
//! for all; medians are to be quoted, and differences to be trusted more than figures.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool that is read by people")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use service_registry_wrapper::registry::{Access, RegistryUrl, connect};
use tempfile::TempDir;

const WRAPPER: &str = env!("CARGO_BIN_EXE_service-registry-wrapper");
const STAMP: &str = "stamp";
const ROUNDS: usize = 150;
/// How long a child lives: long enough for its registration to be over.
const LIFE: Duration = Duration::from_millis(60);
/// How long heartbeats are counted.
const WATCH: Duration = Duration::from_secs(30);

fn main() {
    let arrived = now();
    if std::env::args().nth(1).as_deref() == Some(STAMP) {
        return be_a_child(arrived);
    }
    let place = TempDir::new().unwrap();
    let prefixes = prefixes(&place);
    let _lock = hang(&place);
    println!("{}", machine());
    println!("{:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "start", "", "", "exit lag", "", "");
    println!(
        "{:<26} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "microseconds", "min", "median", "p90", "min", "median", "p90"
    );
    let mut rounds = vec![(Vec::new(), Vec::new()); prefixes.len()];
    for _ in 0..ROUNDS {
        for (prefix, (starts, lags)) in prefixes.iter().zip(&mut rounds) {
            let (start, lag) = round(&prefix.words);
            starts.push(start);
            lags.push(lag);
        }
    }
    for (prefix, (mut starts, mut lags)) in prefixes.iter().zip(rounds) {
        let start = columns(&mut starts);
        let lag = columns(&mut lags);
        println!("{:<26} {start} {lag}", prefix.name);
    }
    println!();
    println!(
        "{:<26} {:>11} {:>8} {:>8} {:>16} {:>12}",
        "", "private KiB", "PSS KiB", "threads", "CPU us/heartbeat", "binary KiB"
    );
    for prefix in prefixes.iter().filter(|prefix| !prefix.words.is_empty() && !prefix.name.starts_with(' ')) {
        println!("{:<26} {}", prefix.name, at_rest(prefix));
    }
}

struct Prefix {
    name: &'static str,
    words: Vec<String>,
    /// Where its heartbeats can be seen.
    registry: Option<RegistryUrl>,
}

fn prefixes(place: &TempDir) -> Vec<Prefix> {
    let mut prefixes = vec![Prefix { name: "no prefix", words: Vec::new(), registry: None }];
    if let Some(tini) = on_path("tini") {
        let words = [&tini, "-s", "--"].map(str::to_owned).to_vec();
        prefixes.push(Prefix { name: "tini -s", words, registry: None });
    } else {
        println!("tini is not installed: no companion to compare with (apt-get install tini)");
    }
    let url = |path: &str| format!("sqlite://{}/{path}/registry.db", place.path().display());
    let wrapper = |url: &str| {
        let options =
            ["--id=bench", "--interval=3", "--on-conflict=replace", "--log-level=off", "--registry", url];
        [&[WRAPPER], &options[..]].concat().into_iter().map(str::to_owned).collect()
    };
    let up = url("up");
    let registry = Some(up.parse().unwrap());
    prefixes.push(Prefix { name: "service-registry-wrapper", words: wrapper(&up), registry });
    fs::write(place.path().join("down"), "a directory cannot be made here").unwrap();
    prefixes.push(Prefix { name: "  registry down", words: wrapper(&url("down")), registry: None });
    prefixes.push(Prefix { name: "  registry hung", words: wrapper(&url("hung")), registry: None });
    prefixes
}

/// Keeps everybody else waiting, for as long as it lives.
fn hang(place: &TempDir) -> rusqlite::Connection {
    let directory = place.path().join("hung");
    fs::create_dir(&directory).unwrap();
    let lock = rusqlite::Connection::open(directory.join("registry.db")).unwrap();
    lock.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    lock
}

fn on_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())?;
    Some(found.to_string_lossy().into_owned())
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    format!(
        "{date}, {cores} cores of {cpu}, Linux {}, {ROUNDS} rounds\n",
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(time.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap()
}

fn be_a_child(arrived: u64) {
    #[expect(clippy::disallowed_methods, reason = "living for a while is all that this process does")]
    std::thread::sleep(LIFE);
    let line = format!("{arrived} {}\n", now());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// From before the start to the child's `main`, and from the child's last act to the end of what we started; in
/// microseconds.
fn round(prefix: &[String]) -> (f64, f64) {
    let this = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let words: Vec<&str> = prefix.iter().map(String::as_str).chain([this.as_str(), STAMP]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
    let started = now();
    let mut process = command.spawn().unwrap();
    let mut pipe = process.stdout.take().unwrap();
    assert!(process.wait().unwrap().success());
    let ended = now();
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    let mut stamps = text.split_whitespace().map(|stamp| stamp.parse::<u64>().unwrap());
    let (arrived, left) = (stamps.next().unwrap(), stamps.next().unwrap());
    (micros(arrived - started), micros(ended - left))
}

fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

/// The least, the median and the ninetieth of a hundred.
fn columns(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let [least, median, late] = [0, values.len() / 2, values.len() * 9 / 10].map(|index| values[index]);
    format!("{least:>9.0} {median:>9.0} {late:>9.0}")
}

/// Memory, threads and CPU time of a prefix whose child does nothing.
fn at_rest(prefix: &Prefix) -> String {
    let mut process =
        Command::new(&prefix.words[0]).args(&prefix.words[1..]).args(["sleep", "600"]).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
    pause(Duration::from_secs(5));
    let cpu_before = cpu_time(pid);
    let beats = prefix.registry.as_ref().map(count_heartbeats);
    let spent = cpu_time(pid).saturating_sub(cpu_before);
    let per_beat = beats.map(|beats| spent.as_secs_f64() * 1e6 / f64::from(beats));
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").to_owned()
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    process.wait().unwrap();
    let size = fs::metadata(Path::new(&prefix.words[0])).unwrap().len() / 1024;
    let per_beat = per_beat.map_or("-".to_owned(), |micros| format!("{micros:.0}"));
    format!("{:>11} {:>8} {threads:>8} {per_beat:>16} {size:>12}", kib("Anonymous:"), kib("Pss:"))
}

/// CPU time of all threads that a process has, and has had.
fn cpu_time(pid: Pid) -> Duration {
    ClockId::pid_cpu_clock_id(pid).and_then(clock_gettime).unwrap().into()
}

fn count_heartbeats(registry: &RegistryUrl) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let registry = connect(registry, &Access::default());
    let id = "bench".parse().unwrap();
    let start = now();
    let (mut beats, mut last) = (0, runtime.block_on(registry.service(&id)).unwrap().last_seen);
    while Duration::from_nanos(now() - start) < WATCH {
        pause(Duration::from_millis(50));
        let seen = runtime.block_on(registry.service(&id)).unwrap().last_seen;
        beats += u32::from(seen != last);
        last = seen;
    }
    beats
}

#[expect(clippy::disallowed_methods, reason = "to measure what others do while we do nothing")]
fn pause(span: Duration) {
    std::thread::sleep(span);
}
