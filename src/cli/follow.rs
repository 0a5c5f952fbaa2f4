//! `raxsr events follow`: each event once, as it happens, whatever becomes of the registry in between.
//!
//! A registry's log never grows behind a marker, so that the id of the last event shown is all there is to remember:
//! each question begins at it, inclusive, and what is not after it has been shown. It is asked again after every
//! failure that may pass.
//!
//! Before an event has been shown, following goes on after the newest one that the first answer tells of. Where there
//! is none, or the first question failed, it goes on at the moment when following began, on the registry's clock:
//! what its clock shows (ours does, where it tells no time), less the time since. A registry to which that is in the
//! future or before its making (its clock was set, it was made anew) is asked without a marker, for the last hour; what
//! is from before that moment is left out, unless there was nothing before. The same is done when it refuses the id of
//! an event that was shown. A marker that the user gave has to be good.
//!
//! A registry that keeps no log is watched instead, from now on (`watching`).

mod position;
mod show;
mod watching;

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::position::{Position, marker_before, ticks};
use self::show::{Printer, Runner};
use super::output::Asked;
use super::{PROGRAM, warn};
use crate::lease::Backoff;
use crate::message::{Hint, chain, complain};
use crate::model::{self, Event, EventKind, Limit, MarkerFault, Page, PageRequest, Timestamp};
use crate::registry::{self, Cause, EventQuery, Recourse, Registry};

/// The longest wait for a registry that is away.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Follow {
    /// Only events of this type, such as service.timeout
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<EventKind>,
    /// The event to begin at [default: after the newest]
    #[arg(long, value_name = "UUID")]
    marker: Option<Uuid>,
    /// How often to ask
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// A shell command to run for each event, instead of printing it
    #[arg(long, value_name = "COMMAND", conflicts_with = "words")]
    exec: Option<String>,
    /// The same, as a command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Commands:
  Each event's command has the event on its standard input, as JSON, and EVENT_ID, EVENT_TYPE and
  EVENT_SUBJECT in its environment. The next one waits for its end. One that fails is a warning;
  only when the very first cannot be started, following ends. With --format, events are printed, too.

Signals:
  SIGTERM, SIGINT        finish the command under way, then end; the second time end at once";

/// Why events are not followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("events cannot be followed as html")]
    Html,
    #[error("--marker: registry {registry} keeps no log to begin in")]
    NoLog { registry: String },
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    #[error("cannot run `{name}`")]
    Command {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Html => Some("choose --format table, csv, json or yaml".to_owned()),
            Self::NoLog { .. } => Some("leave it out: what happens from now on is shown".to_owned()),
            Self::Signals(_) | Self::Command { .. } => None,
        }
    }
}

/// Follows until a signal ends it, a failure that will not pass, or the reader.
pub(super) async fn run(
    follow: Follow,
    registry: &dyn Registry,
    format: Asked,
    secret_variables: &[&'static str],
) -> Result<(), super::Error> {
    let mut stop = Stop::new().map_err(Error::Signals)?;
    let interval = follow.interval;
    let mut follower = Follower::new(follow, registry, format, secret_variables)?;
    tokio::select! {
        ended = follower.follow(interval) => return ended,
        () = stop.asked() => {}
    }
    if let Some(runner) = &mut follower.runner {
        tokio::select! {
            () = runner.finish() => {}
            () = stop.asked() => {}
        }
    }
    Ok(())
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct Follower<'a> {
    registry: &'a dyn Registry,
    kind: Option<EventKind>,
    /// Where the user wants to begin.
    wanted: Option<Uuid>,
    began: Instant,
    position: Position,
    printer: Option<Printer>,
    runner: Option<Runner>,
    backoff: Option<Backoff>,
}

impl<'a> Follower<'a> {
    fn new(
        follow: Follow,
        registry: &'a dyn Registry,
        format: Asked,
        secret_variables: &[&'static str],
    ) -> Result<Self, Error> {
        let runner = match &follow.exec {
            Some(script) => Runner::of_shell(script, secret_variables),
            None => Runner::new(follow.words, secret_variables),
        };
        let printer = match format {
            Asked::Otherwise(_) if runner.is_some() => None,
            Asked::For(format) | Asked::Otherwise(format) => Some(Printer::new(format)?),
        };
        Ok(Self {
            registry,
            kind: follow.kind,
            wanted: follow.marker,
            began: Instant::now(),
            position: follow.marker.map_or(Position::Newest, Position::at),
            printer,
            runner,
            backoff: None,
        })
    }

    async fn follow(&mut self, interval: Duration) -> Result<(), super::Error> {
        if let Some(printer) = &self.printer {
            printer.begin().await?;
        }
        if self.registry.events().is_err() {
            return self.watch(interval).await;
        }
        let mut rng = Rng::new();
        loop {
            if self.printer.is_some() && Printer::is_unread() {
                return Ok(());
            }
            let wait = match self.catch_up().await {
                Ok(()) => interval,
                Err(super::Error::Registry(error)) => self.outage(error).await?.next(&mut rng),
                Err(error) => return Err(error),
            };
            sleep(wait).await;
        }
    }

    /// Shows all that has happened.
    async fn catch_up(&mut self) -> Result<(), super::Error> {
        self.find_beginning().await?;
        let mut marker = self.position.marker();
        let mut may_refuse =
            !matches!(self.position, Position::At { marker, .. } if Some(marker) == self.wanted);
        loop {
            let page = match self.page(marker).await {
                Err(error) if may_refuse && is_outside_the_log(&error) => {
                    may_refuse = false;
                    marker = None;
                    continue;
                }
                page => page?,
            };
            for event in page.values {
                self.show(event).await?;
            }
            marker = following(marker, page.next_marker);
            if marker.is_none() {
                return Ok(());
            }
        }
    }

    async fn show(&mut self, event: Event) -> Result<(), super::Error> {
        if self.position.is_before(&event) {
            self.tell(&event).await?;
            self.position = Position::After(event.id);
        }
        Ok(())
    }

    async fn tell(&mut self, event: &Event) -> Result<(), super::Error> {
        if let Some(printer) = &self.printer {
            printer.print(event).await?;
        }
        if let Some(runner) = &mut self.runner {
            runner.run(event).await?;
        }
        Ok(())
    }

    async fn find_beginning(&mut self) -> Result<(), registry::Error> {
        let mut earliest = None;
        if self.position == Position::Newest {
            self.position = Position::Beginning;
            if let Some(newest) = self.newest().await? {
                self.position = Position::After(newest);
            } else {
                earliest = Some(0);
            }
        }
        if self.position == Position::Beginning {
            let marker = marker_before(self.now().await?, self.began.elapsed());
            self.position = Position::At { marker, earliest: earliest.unwrap_or(ticks(&marker)) };
        }
        Ok(())
    }

    /// What the registry's clock shows, or ours where it has an event log but tells no time.
    async fn now(&mut self) -> Result<Timestamp, registry::Error> {
        let clock = self.registry.clock().await;
        if clock.is_err() {
            self.page(None).await?;
        }
        Ok(clock.ok().flatten().unwrap_or_else(Timestamp::now))
    }

    /// The newest event of the last hour.
    async fn newest(&mut self) -> Result<Option<Uuid>, registry::Error> {
        let mut newest = None;
        let mut marker = None;
        loop {
            let page = self.page(marker).await?;
            newest = page.values.last().map(|event| event.id).or(newest);
            marker = following(marker, page.next_marker);
            if marker.is_none() {
                return Ok(newest);
            }
        }
    }

    async fn page(&mut self, marker: Option<Uuid>) -> Result<Page<Event, Uuid>, registry::Error> {
        let query = EventQuery { kind: self.kind, page: PageRequest { marker, limit: Limit::MAX } };
        let page = self.registry.events()?.events(&query).await?;
        self.answered();
        Ok(page)
    }

    /// Says so, if it was away.
    fn answered(&mut self) {
        if self.backoff.take().is_some() {
            complain(&format!("{PROGRAM}: registry {} answers again\n", self.registry.url()));
        }
    }

    /// Says that the registry is away, unless it has been before, and by what to wait for it.
    ///
    /// # Errors
    /// When that will not pass.
    async fn outage(&mut self, error: registry::Error) -> Result<&mut Backoff, super::Error> {
        match error.recourse() {
            Recourse::Retry => {}
            Recourse::Authenticate => self.registry.renew_credentials().await?,
            Recourse::Register | Recourse::AwaitRelease { .. } | Recourse::None => return Err(error.into()),
        }
        Ok(self.backoff.get_or_insert_with(|| {
            warn(&format!("{}; trying on", chain(&error)));
            Backoff::capped_at(LONGEST_WAIT)
        }))
    }
}

/// Where the page after this one begins. One that does not get any further has none.
fn following(marker: Option<Uuid>, next: Option<Uuid>) -> Option<Uuid> {
    next.filter(|next| marker.is_none_or(|marker| ticks(next) > ticks(&marker)))
}

fn is_outside_the_log(error: &registry::Error) -> bool {
    let registry::Error::Invalid { source: Cause::Rule(model::Error::Marker { fault, .. }), .. } = error
    else {
        return false;
    };
    matches!(fault, MarkerFault::InTheFuture | MarkerFault::BeforeTheLog)
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = crate::command_line::span(text).map_err(|error| error.to_string())?;
    if span < SHORTEST_INTERVAL {
        return Err("an interval is 10ms at least".to_owned());
    }
    Ok(span)
}
