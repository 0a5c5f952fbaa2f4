//! A wrapper that suffers, and its child, which must not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use tokio::time::Instant;

use crate::support::{Place, Running, children_of, status_of, wait_until};

/// A wrapper under test.
pub(crate) struct Patient {
    pub(crate) id: String,
    pub(crate) process: Running,
    child: Pid,
    log: PathBuf,
    _place: Place,
}

impl Patient {
    /// Keeps `id` in the registry at `url`.
    #[track_caller]
    pub(crate) fn start(url: &str, id: &str, options: &[&str]) -> Self {
        Self::start_as(url, id, options, |_| {})
    }

    /// Likewise, in surroundings that `prepare` makes.
    #[track_caller]
    pub(crate) fn start_as(
        url: &str,
        id: &str,
        options: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let place = Place::new();
        let log = place.path().join("log");
        let own = [&format!("--registry={url}"), &format!("--id={id}")];
        let mut wrapper = place.wrapper(&own.map(String::as_str));
        wrapper.command.env("SERVICE_REGISTRY_LOG_LEVEL", "info").args(options);
        prepare(&mut wrapper.command);
        let process = wrapper.start_with_log(&log, &["sleep", "100000"]);
        let child = process.child();
        Self { id: id.to_owned(), process, child, log, _place: place }
    }

    /// What it has said so far, line by line.
    pub(crate) fn said(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    /// How many lines say this.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.said().iter().filter(|line| line.contains(words)).count()
    }

    /// Whether it has said that something is wrong, and not yet that it is over.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.count("trying on") > self.count("after=")
    }

    /// Waits until it has said that all it was in trouble with is over.
    #[track_caller]
    pub(crate) fn wait_until_it_is_over(&self) {
        let start = Instant::now();
        wait_until("its word", || !self.is_in_trouble() || start.elapsed() > Duration::from_secs(40));
        assert!(!self.is_in_trouble(), "does not say that it is over: {:#?}", self.said());
    }

    /// Asserts that its child is the one it began with, and runs.
    #[track_caller]
    pub(crate) fn has_untouched_child(&self) {
        assert_eq!(children_of(self.process.pid()), [self.child]);
        let state = status_of(self.child, "State").unwrap();
        assert!(state.starts_with('S') || state.starts_with('R'), "{state}");
    }

    /// Asks it to stop, and asserts that it ends as its child did, and says how long it took.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.process.signal(Signal::SIGTERM);
        let status = self.process.process.wait().unwrap();
        let lag = start.elapsed();
        assert_eq!(status.signal(), Some(libc::SIGTERM), "{:#?}", self.said());
        lag
    }

    /// Kills its child, asserts that it ends as the child did, and says how long it took.
    #[track_caller]
    pub(crate) fn lose_child(&mut self) -> Duration {
        let start = Instant::now();
        kill(self.child, Signal::SIGKILL).unwrap();
        let status = self.process.process.wait().unwrap();
        let lag = start.elapsed();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{:#?}", self.said());
        lag
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn wait_until_it_says(&self, words: &str) {
        wait_until(words, || self.count(words) > 0);
    }
}
