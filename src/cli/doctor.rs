//! `raxsr doctor`: what keeps services from being registered here, check by check, and what to do about it.

mod lease;
mod setup;

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::drain;
use super::output::{self, Cell, Format, Output, Row};
use crate::command_line::{Login, Target};
use crate::message::{Hint, chain};
use crate::model::{HeartbeatTimeout, Limit, PageRequest, Timestamp};
use crate::registry::{self, Caveat, Registry, ServiceQuery};

/// The server's clock is told in whole seconds, and too late by as long as its answer takes.
const SAME_TIME: Duration = Duration::from_secs(2);
const WRONG_TIME: Duration = Duration::from_secs(5);
/// How many of those that are drained are named.
const DRAINED_NAMED: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Doctor {
    /// The heartbeat timeout that services are to have, 3s to 120s
    #[arg(
        long,
        env = "SERVICE_REGISTRY_INTERVAL",
        value_name = "TIME",
        default_value = "30s",
        value_parser = HeartbeatTimeout::parse
    )]
    interval: HeartbeatTimeout,
}

const AFTER_HELP: &str = "\
It registers a service of its own for a moment, `raxsr-doctor-` and eight digits, and takes it out again.

Exit status:
  0  nothing failed; there may be warnings
  1  a check failed
  2  usage";

/// Checks failed.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} checks failed")]
pub(super) struct Unwell {
    failed: usize,
    all: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
    /// It could not be looked at: an earlier check failed.
    Skip,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    /// The word in its colour, as terminals understand it.
    fn painted(self) -> String {
        let colour = match self {
            Self::Ok => 32,
            Self::Warn => 33,
            Self::Fail => 31,
            Self::Skip => return self.word().to_owned(),
        };
        format!("\x1b[{colour}m{}\x1b[0m", self.word())
    }
}

/// What one look came to.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: &'static str,
    status: Status,
    found: String,
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), remedy: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// The error's own hint comes before `remedy`.
    fn fail(name: &'static str, error: &registry::Error, remedy: &str) -> Self {
        let remedy = error.hint().unwrap_or_else(|| remedy.to_owned());
        Self { name, status: Status::Fail, found: chain(error), remedy: Some(remedy) }
    }

    fn skip(name: &'static str, because: &str) -> Self {
        let found = format!("needs the check `{because}` to pass");
        Self { name, status: Status::Skip, found, remedy: None }
    }

    fn has_failed(&self) -> bool {
        self.status == Status::Fail
    }
}

impl Row for Check {
    const HEADINGS: &'static [&'static str] = &["Check", "Status", "Found", "Remedy"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(self.name),
            Cell::text(self.status.word()),
            Cell::text(&self.found),
            Cell::text(self.remedy.as_deref().unwrap_or_default()),
        ]
    }

    fn data(&self) -> impl Serialize {
        self
    }
}

pub(super) async fn run(
    Doctor { interval }: Doctor,
    target: &Target,
    registry: &dyn Registry,
    output: &Output,
) -> Result<(), super::Error> {
    let mut checks = vec![setup::registry(target), setup::credentials(target)];
    checks.extend(examine(target, registry, interval).await);
    checks.push(setup::interval(target, interval));
    match output.format {
        Format::Table => output::print(&lines(&checks, Paint::for_stdout()))?,
        _ => output.list(&checks)?,
    }
    let failed = checks.iter().filter(|check| check.has_failed()).count();
    if failed == 0 { Ok(()) } else { Err(Unwell { failed, all: checks.len() }.into()) }
}

/// What only the registry itself can tell.
async fn examine(target: &Target, registry: &dyn Registry, interval: HeartbeatTimeout) -> Vec<Check> {
    let (reach, authenticated) = read(target, registry).await;
    let broken = [&reach, &authenticated].into_iter().find(|check| check.has_failed());
    let rest = if let Some(broken) = broken {
        ["writable", "heartbeat", "drained", "clock"].map(|check| Check::skip(check, broken.name))
    } else {
        let (writable, heartbeat) = lease::examine(registry, interval).await;
        [writable, heartbeat, drained(registry).await, clock(registry, &target.origins.login).await]
    };
    [reach, authenticated].into_iter().chain(rest).collect()
}

/// Whether it answers, and lets us in.
async fn read(target: &Target, registry: &dyn Registry) -> (Check, Check) {
    let remedy = match &target.origins.login {
        Login::NotNeeded => "see whether its directory is there, and whether --registry names the right file",
        _ => "see whether it is up, and whether --registry names the right place",
    };
    let limit = Limit::new(1).unwrap_or_default();
    let query = ServiceQuery { tag: None, page: PageRequest { marker: None, limit } };
    let sent = Instant::now();
    let answer = registry.services(&query).await;
    let found = format!("answers in {}", shown(sent.elapsed()));
    let (reach, hidden) = match registry.caveat() {
        None => (Check::ok("reach", found), None),
        Some(Caveat::Hidden(why)) => (Check::ok("reach", found), Some(why)),
        Some(Caveat::Down(which)) => (Check::warn("reach", format!("{found}, but {which}"), remedy), None),
    };
    match answer {
        Ok(page) => match page.stale_since {
            None => (reach, authenticated(&target.origins.login, hidden)),
            Some(since) => {
                let found = format!("does not answer, and what is known of it is of {since}");
                let reach = Check { status: Status::Fail, ..Check::warn("reach", found, remedy) };
                (reach, Check::skip("authenticated", "reach"))
            }
        },
        Err(error @ registry::Error::Unauthorized { .. }) => {
            (reach, Check::fail("authenticated", &error, "check --username and --api-key-file"))
        }
        Err(error) => (Check::fail("reach", &error, remedy), Check::skip("authenticated", "reach")),
    }
}

fn authenticated(login: &Login, hidden: Option<String>) -> Check {
    if let Some(why) = hidden {
        return Check { remedy: None, ..Check::warn("authenticated", why, "") };
    }
    let found = match login {
        Login::NotNeeded => "not needed",
        Login::Unsaid => "it lets everybody in",
        Login::InUrl | Login::Said { .. } => "it lets us in",
        #[cfg(feature = "http")]
        Login::Token(_) => "it lets us in",
    };
    Check::ok("authenticated", found)
}

/// Who is kept out by hand, and may have been forgotten.
async fn drained(registry: &dyn Registry) -> Check {
    const REMEDY: &str = "`raxsr services undrain ID` lets one in again";
    let all = match drain::everybody(registry).await {
        Ok(all) => all,
        Err(error) => {
            let remedy =
                error.hint().unwrap_or_else(|| "services are registered without a look at it".to_owned());
            return Check::warn("drained", format!("not known: {}", chain(&error)), remedy);
        }
    };
    let named: Vec<_> = all.iter().map(|one| one.service.to_string()).take(DRAINED_NAMED).collect();
    let more = all.len() - named.len();
    match (all.len(), more) {
        (0, _) => Check::ok("drained", "nobody"),
        (_, 0) => Check::warn("drained", named.join(", "), REMEDY),
        _ => Check::warn("drained", format!("{}, and {more} more", named.join(", ")), REMEDY),
    }
}

async fn clock(registry: &dyn Registry, login: &Login) -> Check {
    const REMEDY: &str = "set both clocks by NTP: times in lists and events are the registry's";
    let before = Timestamp::now();
    let answer = registry.clock().await;
    let after = Timestamp::now();
    let theirs = match (answer, login) {
        (Ok(Some(theirs)), _) => theirs,
        (Ok(None), Login::NotNeeded) => return Check::ok("clock", "the same machine's"),
        (Ok(None), _) => return Check::ok("clock", "it does not tell"),
        (Err(error), _) => {
            let remedy = error.hint().unwrap_or_else(|| REMEDY.to_owned());
            return Check::warn("clock", format!("not known: {}", chain(&error)), remedy);
        }
    };
    let (difference, found) = compared(theirs, before, after);
    if difference > WRONG_TIME { Check::warn("clock", found, REMEDY) } else { Check::ok("clock", found) }
}

/// How far a clock is from ours, that was read at some time from `before` to `after`.
fn compared(theirs: Timestamp, before: Timestamp, after: Timestamp) -> (Duration, String) {
    let since = |late: Timestamp, early: Timestamp| late.as_millis().saturating_sub(early.as_millis());
    let (behind, ahead) = (since(before, theirs), since(theirs, after));
    let difference = Duration::from_millis(behind.max(ahead));
    let direction = if behind > ahead { "behind" } else { "ahead of" };
    let found = if difference <= SAME_TIME {
        "as ours, to the second or two".to_owned()
    } else {
        let span = humantime::format_duration(Duration::from_secs(difference.as_secs()));
        format!("{span} {direction} ours")
    };
    (difference, found)
}

/// A short span of time, for people.
fn shown(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{:.1} ms", span.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

/// Whether lines have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Colours,
    Plain,
}

impl Paint {
    /// Colours are for terminals whose user has not said otherwise: see no-color.org.
    fn for_stdout() -> Self {
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !is_unwanted { Self::Colours } else { Self::Plain }
    }
}

/// A line for each check, and one below it for the remedy.
fn lines(checks: &[Check], paint: Paint) -> String {
    let mut text = String::new();
    for Check { name, status, found, remedy } in checks {
        let word = if paint == Paint::Colours { status.painted() } else { status.word().to_owned() };
        let gap = " ".repeat(6 - status.word().len());
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{word}{gap}{name:<15}{}", crate::model::escaped(found));
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:21}hint: {}", "", crate::model::escaped(remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(theirs: u64, before: u64, after: u64) -> (u64, String) {
        let time = Timestamp::from_millis;
        let (difference, found) = compared(time(theirs), time(before), time(after));
        (difference.as_secs(), found)
    }

    #[test]
    fn a_clock_is_as_far_off_as_can_be_known() {
        assert_eq!(clocks(59_000, 60_999, 61_000).0, 1);
        assert_eq!(clocks(70_000, 60_000, 75_000), (0, "as ours, to the second or two".to_owned()));
        assert_eq!(clocks(0, 3_600_000, 3_600_001), (3600, "1h behind ours".to_owned()));
        assert_eq!(clocks(70_500, 60_000, 60_001), (10, "10s ahead of ours".to_owned()));
    }

    #[test]
    fn lines_are_aligned_with_and_without_colours() {
        let checks = [Check::ok("reach", "answers in 0.9 ms"), Check::warn("clock", "1h behind\n", "NTP")];
        let plain = lines(&checks, Paint::Plain);
        assert_eq!(
            plain,
            "ok    reach          answers in 0.9 ms\nwarn  clock          1h behind\\n\n                     hint: NTP\n"
        );
        let painted = lines(&checks, Paint::Colours);
        assert!(painted.starts_with("\x1b[32mok\x1b[0m    reach  "), "{painted:?}");
        assert!(painted.contains("\n\x1b[33mwarn\x1b[0m  clock  "), "{painted:?}");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(shown(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(shown(Duration::from_millis(3333)), "3.3 s");
    }
}
