//! What we tell on standard error, which is the child's too: whole lines, and never at the price of waiting.

use std::io::{self, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::level_filters::LevelFilter;

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
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| Unhurried);
    let _ = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
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
