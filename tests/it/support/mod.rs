//! What every test needs: a place of its own, the two programs, and patience with a condition.

pub(crate) mod consul;
pub(crate) mod debian;
pub(crate) mod etcd;
pub(crate) mod lab;
pub(crate) mod package;
pub(crate) mod peer;
pub(crate) mod pty;
pub(crate) mod server;
pub(crate) mod zookeeper;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const WRAPPER: &str = env!("CARGO_BIN_EXE_service-registry-wrapper");
pub(crate) const RAXSR: &str = env!("CARGO_BIN_EXE_raxsr");

/// Longer than anything takes on a busy machine; only a test that fails waits for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns what `look` finds, as soon as it finds something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        pause();
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Asserts that `condition` holds, now and for all of `span`.
#[track_caller]
pub(crate) fn holds_for(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(condition(), "{what} stopped being true after {:?}", start.elapsed());
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that waits between two looks")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Whether a test can run that needs root. Says so loudly when not, and fails in CI, which has to have it.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED, NEEDS ROOT: {test}");
        assert!(std::env::var_os("CI").is_none(), "CI has to run {test} as root");
    }
    is_root
}

/// Whether a program is installed that a test needs. Says so loudly when not, and fails in CI, which has to have it.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
pub(crate) fn is_there(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !is_there {
        eprintln!("SKIPPED, NEEDS {program}: {test}");
        assert!(std::env::var_os("CI").is_none(), "CI has to have {program} for {test}");
    }
    is_there
}

/// A directory with a registry in it, both gone at the end of the test.
pub(crate) struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), environment: Vec::new() }
    }

    /// The same with these variables for all that is run in it.
    pub(crate) fn with_environment(mut self, variables: &[(&str, String)]) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn registry_file(&self) -> PathBuf {
        self.path().join("state/registry.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.registry_file().display())
    }

    /// A program in a clean environment that names this place's registry.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            let foreign = ["service_registry", "raxsr_", "consul_", "etcdctl_", "zk_"];
            if foreign.iter().any(|prefix| text.starts_with(prefix)) || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("SERVICE_REGISTRY_URL", self.url()).current_dir(self.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn wrapper(&self, options: &[&str]) -> Wrapper {
        let mut command = self.program(WRAPPER);
        command.args(options);
        Wrapper { command }
    }

    pub(crate) fn raxsr(&self, words: &[&str]) -> Output {
        self.program(RAXSR).args(words).output().unwrap()
    }

    /// What `raxsr -f json` says, which has to work.
    #[track_caller]
    pub(crate) fn raxsr_json(&self, words: &[&str]) -> Value {
        let output = self.raxsr(&[&["--format=json"], words].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The ids of the services alive.
    pub(crate) fn services(&self) -> Vec<String> {
        let list = self.raxsr_json(&["services", "list"]);
        let id = |service: &Value| service["id"].as_str().unwrap().to_owned();
        list["values"].as_array().unwrap().iter().map(id).collect()
    }

    pub(crate) fn lists(&self, id: &str) -> bool {
        self.services().iter().any(|listed| listed == id)
    }

    /// What happened, as `join web1`, the oldest first.
    pub(crate) fn events(&self) -> Vec<String> {
        let list = self.raxsr_json(&["events", "list", "--limit=1000"]);
        let event = |event: &Value| {
            let kind = event["type"].as_str().unwrap().trim_start_matches("service.");
            format!("{kind} {}", event["payload"]["id"].as_str().unwrap())
        };
        list["values"].as_array().unwrap().iter().rev().map(event).collect()
    }
}

/// A wrapper about to be run.
pub(crate) struct Wrapper {
    pub(crate) command: Command,
}

impl Wrapper {
    /// Runs it to its end.
    pub(crate) fn output(mut self, words: &[&str]) -> Output {
        self.command.args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts it with a file for what is said on standard error: what has been said so far can be read there.
    pub(crate) fn start_with_log(mut self, log: &Path, words: &[&str]) -> Running {
        let log = fs::File::create(log).unwrap();
        Running::start(self.command.args(words).stdin(Stdio::null()).stderr(log))
    }

    /// Starts it, in a process group of its own.
    pub(crate) fn start(mut self, words: &[&str]) -> Running {
        let command = self.command.args(words);
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }
}

/// A wrapper that runs. Dropped, it is killed with its whole process group.
pub(crate) struct Running {
    pub(crate) process: Child,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` in a process group of its own.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::new(command.process_group(0).spawn().unwrap())
    }

    /// A process that leads its process group.
    pub(crate) fn new(process: Child) -> Self {
        Self { process, status: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// The wrapped child, once it is there.
    pub(crate) fn child(&self) -> Pid {
        wait_for("the child", || children_of(self.pid()).first().copied())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.status = self.status.or(self.process.try_wait().unwrap());
        self.status.is_some()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("the wrapper's end", || self.has_ended());
        self.status.unwrap()
    }

    /// Whether its process group, which its child was started into, is empty.
    pub(crate) fn has_left_nobody(&self) -> bool {
        killpg(self.pid(), None) == Err(Errno::ESRCH)
    }

    /// All that it and its child said on standard error, once it has ended.
    pub(crate) fn stderr(&mut self) -> String {
        self.wait();
        let mut text = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// The foreground process group of a process's terminal.
pub(crate) fn foreground_group(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    Some(Pid::from_raw(after_name.split(' ').nth(5)?.parse().ok()?))
}

/// Whether a file has `text` in it.
pub(crate) fn says(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|said| said.contains(text))
}

/// One line of `/proc/<pid>/status`, without its name.
pub(crate) fn status_of(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Memory of its own, in KiB: heap, stacks, mappings of no file. (What relocation does to the pages of the program
/// itself is left out: it grows with debug information. `benches/` has the whole of a release build.)
pub(crate) fn private_memory(pid: Pid) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut total, mut of_a_file) = (0, false);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0].contains('-') {
            of_a_file = words.get(5).is_some_and(|name| name.starts_with('/'));
        } else if words[0] == "Anonymous:" && !of_a_file {
            total += words[1].parse::<u64>().unwrap();
        }
    }
    total
}

/// What a program printed, with every time and every UUID as zeros: everything keeps its place.
pub(crate) fn still(text: &str) -> String {
    const TIMES: [&str; 3] =
        ["dddd-dd-dd dd:dd:dd", "dddd-dd-ddTdd:dd:dd.dddZ", "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"];
    let mut characters: Vec<char> = text.chars().collect();
    for start in 0..characters.len() {
        for pattern in TIMES {
            let Some(part) = characters.get_mut(start..start + pattern.len()) else { continue };
            let fits = |(shown, expected): (&char, char)| match expected {
                'd' => shown.is_ascii_digit(),
                'x' => shown.is_ascii_hexdigit(),
                other => *shown == other,
            };
            if part.iter().zip(pattern.chars()).all(fits) {
                part.iter_mut().filter(|shown| shown.is_ascii_hexdigit()).for_each(|shown| *shown = '0');
            }
        }
    }
    characters.into_iter().collect()
}
