//! What we tell on standard error, which is the child's too: whole lines, and never at the price of waiting.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How much to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Nothing.
    Off,
    /// Why we are about to exit.
    Error,
    /// What an operator should look at.
    Warn,
    /// A dozen lines in a quiet life.
    Info,
    /// Each heartbeat and signal.
    Debug,
    /// Everything.
    Trace,
}

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: a JSON object a line.
    Json,
}

/// Starts logging. Only the first call in a process counts.
pub fn start(level: Level, format: Format) {
    let level = match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(|| Unhurried);
    let text = || format::format().with_target(false).with_ansi(false);
    let json = || format::json().flatten_event(true).with_target(false);
    let ours = ours(level);
    let _ = match (format, is_journal()) {
        (Format::Text, false) => lines.event_format(text()).finish().with(ours).try_init(),
        (Format::Text, true) => {
            let text = ForJournal(text().with_level(false).without_time());
            lines.event_format(text).finish().with(ours).try_init()
        }
        (Format::Json, false) => {
            lines.fmt_fields(format::JsonFields::new()).event_format(json()).finish().with(ours).try_init()
        }
        (Format::Json, true) => {
            let json = ForJournal(json());
            lines.fmt_fields(format::JsonFields::new()).event_format(json).finish().with(ours).try_init()
        }
    };
}

/// What we have to tell, and of what our libraries have only what an operator should look at; at `trace`, everything.
fn ours(level: LevelFilter) -> Targets {
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level).with_default(libraries)
}

/// Whether standard error is the journal's: systemd tells its device and inode (`systemd.exec(5)`), so that a
/// redirection does not deceive us.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Each line with its level in front, as the journal reads it (`sd-daemon(3)`).
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Standard error, for lines: one that would have to wait, for a full pipe or a stopped terminal, is dropped.
/// The child may block on its own output; whoever supervises it must not.
struct Unhurried;

/// What a pipe that has room at all takes without waiting (pipe(7)).
const PIPE_BUF: usize = 4096;

impl Write for Unhurried {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            let whole = line.len() <= PIPE_BUF;
            let (text, end): (&[u8], &[u8]) =
                if whole { (line, b"") } else { (&line[..PIPE_BUF - 1], b"\n") };
            let mut stderr = stderr.lock();
            let _ = stderr.write_all(text).and_then(|()| stderr.write_all(end));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
