//! A control group of a test's own, of whichever version the machine has for what it is to control.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Pid;

use crate::support::{is_root, wait_until};

/// What the members of a group are limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Freezer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Dropped, it lets its members go: drop it before a process that waits for one of them.
pub(super) struct Cgroup {
    version: Version,
    parent: PathBuf,
    directory: PathBuf,
}

impl Cgroup {
    /// None where the test is skipped. It takes root.
    #[track_caller]
    #[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
    pub(super) fn new(controller: Controller, test: &str) -> Option<Self> {
        if !is_root(test) {
            return None;
        }
        let group = Self::in_version_one(controller).or_else(|| Self::in_version_two(controller));
        if group.is_none() {
            eprintln!("SKIPPED, NEEDS A CONTROL GROUP FOR {controller:?}: {test}");
            assert!(std::env::var_os("CI").is_none(), "CI has to have control groups for {test}");
        }
        group
    }

    /// Below our own.
    fn in_version_one(controller: Controller) -> Option<Self> {
        let name = controller.name();
        let mount = mounts("cgroup").find(|(_, options)| options.split(',').any(|option| option == name))?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|own| own == name).then(|| path.trim_start_matches('/').to_owned())
        })?;
        let parent = Some(mount.0.join(own)).filter(|path| path.is_dir()).unwrap_or(mount.0);
        Self::below(parent, Version::One)
    }

    /// Below the root: a group with processes in it gives no controllers to those below.
    fn in_version_two(controller: Controller) -> Option<Self> {
        let (root, _) = mounts("cgroup2").next()?;
        if controller != Controller::Freezer {
            fs::write(root.join("cgroup.subtree_control"), format!("+{}", controller.name())).ok()?;
        }
        Self::below(root, Version::Two)
    }

    fn below(parent: PathBuf, version: Version) -> Option<Self> {
        let directory = parent.join(format!("test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&directory).ok()?;
        Some(Self { version, parent, directory })
    }

    /// Takes a process in.
    #[track_caller]
    pub(super) fn add(&self, pid: Pid) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Takes in what a command starts, from its first instruction on.
    pub(super) fn take_in(&self, command: &mut Command) {
        let members = self.directory.join("cgroup.procs");
        // SAFETY: what is done between fork and exec is to open a file and to write to it; the path is there already.
        unsafe {
            command.pre_exec(move || fs::write(&members, "0"));
        }
    }

    /// Gives its members together so many hundredths of a processor.
    #[track_caller]
    pub(super) fn limit_processor(&self, hundredths: u32) {
        let quota = hundredths * 1000;
        match self.version {
            Version::One => {
                self.set("cpu.cfs_period_us", "100000");
                self.set("cpu.cfs_quota_us", &quota.to_string());
            }
            Version::Two => self.set("cpu.max", &format!("{quota} 100000")),
        }
    }

    /// How often its members had to wait for more of the processor.
    pub(super) fn throttled(&self) -> u64 {
        number_in(&self.get("cpu.stat"), "nr_throttled")
    }

    /// How many bytes its members use.
    pub(super) fn memory(&self) -> u64 {
        let name = if self.version == Version::One { "memory.usage_in_bytes" } else { "memory.current" };
        self.get(name).trim().parse().unwrap()
    }

    /// Gives its members together so many bytes.
    #[track_caller]
    pub(super) fn limit_memory(&self, bytes: u64) {
        match self.version {
            Version::One => self.set("memory.limit_in_bytes", &bytes.to_string()),
            Version::Two => {
                self.set("memory.max", &bytes.to_string());
                let _ = fs::write(self.directory.join("memory.swap.max"), "0");
            }
        }
    }

    /// How often its members came to the end of their memory.
    pub(super) fn reclaimed(&self) -> u64 {
        match self.version {
            Version::One => self.get("memory.failcnt").trim().parse().unwrap(),
            Version::Two => number_in(&self.get("memory.events"), "max"),
        }
    }

    /// Stops all its members, in a way that none of them can see.
    #[track_caller]
    pub(super) fn freeze(&self) {
        match self.version {
            Version::One => {
                self.set("freezer.state", "FROZEN");
                wait_until("the freeze", || self.get("freezer.state").trim() == "FROZEN");
            }
            Version::Two => {
                self.set("cgroup.freeze", "1");
                wait_until("the freeze", || number_in(&self.get("cgroup.events"), "frozen") == 1);
            }
        }
    }

    pub(super) fn thaw(&self) {
        let (name, value) = match self.version {
            Version::One => ("freezer.state", "THAWED"),
            Version::Two => ("cgroup.freeze", "0"),
        };
        let _ = fs::write(self.directory.join(name), value);
    }

    #[track_caller]
    fn set(&self, name: &str, value: &str) {
        fs::write(self.directory.join(name), value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.directory.join("freezer.state").exists() || self.version == Version::Two {
            self.thaw();
        }
        let members = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            // It may have ended since.
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Freezer => "freezer",
        }
    }
}

/// Where file systems of this type are mounted, with their options.
fn mounts(kind: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let of_this_kind = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[2] == kind).then(|| (Path::new(words[1]).to_owned(), words[3].to_owned()))
    };
    mounts.lines().filter_map(of_this_kind).collect::<Vec<_>>().into_iter()
}

/// The number behind a name, each on a line of their own.
fn number_in(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().trim().parse().unwrap()
}
