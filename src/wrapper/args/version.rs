//! What a command says its version is: the first line that it prints.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::message::Hint;

/// How long it may take: the command that is to run waits for it.
const LIMIT: Duration = Duration::from_secs(5);
/// How much of what it prints is looked at.
const LONGEST: usize = 4096;
/// After how many milliseconds at most it is looked whether it has ended.
const STEP: u8 = 10;

/// Why there is no version.
#[derive(Debug, thiserror::Error)]
pub(super) enum VersionError {
    #[error("it cannot be run")]
    Start(#[source] io::Error),
    #[error("it cannot be listened to")]
    Read(#[source] io::Error),
    #[error("it failed: {0}")]
    Failed(ExitStatus),
    #[error("it has not ended within {} s", LIMIT.as_secs())]
    Slow,
    #[error("it prints nothing")]
    Silent,
}

impl Hint for VersionError {
    fn hint(&self) -> Option<String> {
        let advice = "try it in a shell: it has to print a line, and to end with 0";
        Some(advice.to_owned())
    }
}

/// Runs it, without these variables, and returns the first line that it prints; on standard error, where there is
/// nothing on standard output.
pub(super) fn first_line(command: &str, secrets: &[&'static str]) -> Result<String, VersionError> {
    let mut command = prepared(command);
    for secret in secrets {
        command.env_remove(secret);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(VersionError::Start)?;
    let said = listen(&mut child);
    if said.is_err() {
        // What it has started would go on.
        if let Ok(group) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.wait();
    }
    let [output, errors] = said?;
    line(&output).or_else(|| line(&errors)).ok_or(VersionError::Silent)
}

/// A shell's work, unless it is plain words: there are images without a shell.
fn prepared(text: &str) -> Command {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_./:+@,%".contains(&byte);
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    match words.next() {
        Some(program) if text.bytes().all(is_plain) => {
            let mut command = Command::new(program);
            command.args(words);
            command
        }
        _ => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(text);
            command
        }
    }
}

/// What it prints on standard output and standard error until it ends, whoever else may still have them open.
fn listen(child: &mut Child) -> Result<[Vec<u8>; 2], VersionError> {
    let until = Instant::now() + LIMIT;
    let (mut output, mut errors) = (child.stdout.take(), child.stderr.take());
    let mut said = [Vec::new(), Vec::new()];
    loop {
        // First whether it has ended, then what it has left: nothing comes after that.
        let ended = match child.try_wait() {
            Ok(ended) => ended.map(Some),
            // We were started with SIGCHLD ignored: the kernel keeps no status.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Some(None),
            Err(error) => return Err(VersionError::Read(error)),
        };
        let step = if ended.is_some() { PollTimeout::ZERO } else { STEP.into() };
        let [output_said, errors_said] = &mut said;
        let more = read(&mut output, output_said, step)? | read(&mut errors, errors_said, PollTimeout::ZERO)?;
        match ended {
            Some(_) if more => {}
            Some(Some(status)) if !status.success() => return Err(VersionError::Failed(status)),
            Some(_) => return Ok(said),
            None if Instant::now() >= until => return Err(VersionError::Slow),
            // There is nothing to wait for but its end.
            None if output.is_none() => std::thread::park_timeout(Duration::from_millis(2)),
            None => {}
        }
    }
}

/// Reads what is there, and tells whether that was something.
fn read<S: Read + AsFd>(
    stream: &mut Option<S>,
    said: &mut Vec<u8>,
    wait: PollTimeout,
) -> Result<bool, VersionError> {
    let Some(open) = stream else { return Ok(false) };
    let is_ready = match poll(&mut [PollFd::new(open.as_fd(), PollFlags::POLLIN)], wait) {
        Ok(ready) => ready > 0,
        Err(nix::errno::Errno::EINTR) => false,
        Err(error) => return Err(VersionError::Read(error.into())),
    };
    if !is_ready {
        return Ok(false);
    }
    let mut buffer = [0; LONGEST];
    let length = open.read(&mut buffer).map_err(VersionError::Read)?;
    if length == 0 {
        *stream = None;
    }
    let room = LONGEST - said.len();
    said.extend_from_slice(&buffer[..length.min(room)]);
    Ok(length > 0)
}

fn line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
