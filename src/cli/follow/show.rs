//! What is done about an event: it is printed, a command is run.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use super::Error;
use crate::cli::output::{Format, Row as _, csv, print, table, yaml};
use crate::cli::{self, events, warn};
use crate::model::{Event, escaped, printable};

/// Prints events, one after the other.
pub(super) struct Printer {
    format: Format,
}

impl Printer {
    pub(super) fn new(format: Format) -> Result<Self, Error> {
        if format == Format::Html { Err(Error::Html) } else { Ok(Self { format }) }
    }

    /// Prints what stands before the first event.
    pub(super) async fn begin(&self) -> io::Result<()> {
        match self.format {
            Format::Csv => aside(|| print(&csv::headings::<Event>()))?.await.map_err(gone)?,
            _ => Ok(()),
        }
    }

    pub(super) async fn print(&self, event: &Event) -> io::Result<()> {
        let text = match self.format {
            Format::Json => json(event),
            Format::Yaml => format!("---\n{}", yaml(&event.data())),
            Format::Csv => csv::records(std::slice::from_ref(event)),
            _ => line(event),
        };
        aside(move || print(&text))?.await.map_err(gone)?
    }

    /// Whether nobody can read what is printed any more.
    pub(super) fn is_unread() -> bool {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let is_polled = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        is_polled && polled[0].revents().is_some_and(|events| events.intersects(gone))
    }
}

/// Runs a command for each event, one after the other.
pub(super) struct Runner {
    /// For messages.
    name: String,
    words: Vec<OsString>,
    hidden: Vec<&'static str>,
    has_run: bool,
    running: Option<oneshot::Receiver<io::Result<ExitStatus>>>,
}

impl Runner {
    /// The command does not get to see the `hidden` variables.
    pub(super) fn new(words: Vec<OsString>, hidden: &[&'static str]) -> Option<Self> {
        let name = printable(&words.first()?.to_string_lossy());
        Some(Self { name, words, hidden: hidden.to_vec(), has_run: false, running: None })
    }

    /// One that the shell runs.
    pub(super) fn of_shell(script: &str, hidden: &[&'static str]) -> Option<Self> {
        let runner = Self::new(vec!["sh".into(), "-c".into(), script.into()], hidden)?;
        Some(Self { name: printable(script), ..runner })
    }

    /// Runs it to its end. Dropped before that, [`Self::finish`] waits for the rest.
    ///
    /// # Errors
    /// When it cannot be started, and never could.
    pub(super) async fn run(&mut self, event: &Event) -> Result<(), cli::Error> {
        let [program, arguments @ ..] = &*self.words else { return Ok(()) };
        let mut command = self.command(program, arguments, event);
        let input = json(event);
        let outcome = match aside(move || outcome(&mut command, &input)) {
            Ok(running) => self.outcome_of(running).await,
            Err(error) => Err(error),
        };
        let (name, id) = (&self.name, event.id);
        match outcome {
            Ok(status) if status.success() => {}
            Ok(status) => warn(&format!("`{name}` failed at event {id}: {status}")),
            Err(source) if self.has_run => warn(&format!("cannot run `{name}` at event {id}: {source}")),
            Err(source) => return Err(Error::Command { name: name.clone(), source }.into()),
        }
        self.has_run = true;
        Ok(())
    }

    /// Waits for the command that still runs, if one does.
    pub(super) async fn finish(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.await;
        }
    }

    async fn outcome_of(
        &mut self,
        running: oneshot::Receiver<io::Result<ExitStatus>>,
    ) -> io::Result<ExitStatus> {
        let outcome = self.running.insert(running).await;
        self.running = None;
        outcome.map_err(gone)?
    }

    fn command(&self, program: &OsStr, arguments: &[OsString], event: &Event) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        command.env("EVENT_ID", event.id.to_string());
        command.env("EVENT_TYPE", event.body.kind().as_str());
        command.env("EVENT_SUBJECT", event.body.subject());
        for variable in &self.hidden {
            command.env_remove(variable);
        }
        command
    }
}

fn outcome(command: &mut Command, input: &str) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    // A command need not read what it is given.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    child.wait()
}

/// Does what may block on a thread of its own: the end of the program does not wait for it.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().spawn(move || sender.send(work()))?;
    Ok(receiver)
}

fn gone(error: oneshot::error::RecvError) -> io::Error {
    io::Error::other(error)
}

/// An event on one line, for programs.
fn json(event: &Event) -> String {
    // Its keys are strings, and none of its parts can fail.
    serde_json::to_string(&event.data()).map(|text| text + "\n").unwrap_or_default()
}

/// An event on one line, for people.
fn line(event: &Event) -> String {
    let Event { timestamp, body, .. } = event;
    let details = events::payload(body).into_iter().skip(1).filter(|detail| !detail.ends_with(": "));
    let details = details.collect::<Vec<_>>().join("; ");
    let time = table::local(*timestamp);
    let text = format!("{time}  {}  {}  {details}", body.kind().as_str(), body.subject());
    escaped(text.trim_end()) + "\n"
}
