//! Whether a command of the user's says that all is well.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid};

use super::{Reason, Surroundings};
use crate::wrapper::ending::Ending;

pub(in crate::wrapper) struct Probe {
    command: String,
    surroundings: Surroundings,
}

impl Probe {
    pub(super) fn new(command: String, surroundings: Surroundings) -> Self {
        Self { command, surroundings }
    }

    pub(super) async fn look(&self) -> Result<(), Reason> {
        let pid = self.start()?;
        let ended = self.surroundings.wards.expect(pid);
        let running = Running { pid };
        let ending = ended.await;
        std::mem::forget(running);
        match ending {
            Ok(Ending::Code(0)) => Ok(()),
            Ok(Ending::Code(code)) => Err(Reason::new(format!("its check exits with {code}"))),
            Ok(Ending::Signal(signal)) => {
                Err(Reason::new(format!("its check was killed by signal {signal}")))
            }
            Err(_) => Err(Reason::new("its check was lost")),
        }
    }

    /// In a process group of its own, silent, and gone with us.
    fn start(&self) -> Result<Pid, Reason> {
        let failed = |error: std::io::Error| Reason::new(format!("its check cannot be run: {error}"));
        let mut environment = self.surroundings.environment.for_a_check();
        let parent = getpid().as_raw().cast_unsigned();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&self.command).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec, only async-signal-safe calls, and no memory is allocated. The environment lives
        // in the closure until exec.
        unsafe {
            command.pre_exec(move || {
                environment.make(parent);
                Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
            });
        }
        let process = command.spawn().map_err(failed)?;
        i32::try_from(process.id()).map(Pid::from_raw).map_err(|_| Reason::new("its check has no pid"))
    }
}

/// Dropped, it is killed with its process group. (It is not reaped before the reaper knows: its pid is its own.)
struct Running {
    pid: Pid,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
    }
}
