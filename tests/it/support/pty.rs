//! A real terminal, with the program at its far end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;

use super::{PATIENCE, Running};

/// A terminal whose session leader is a program under test.
pub(crate) struct Terminal {
    pub(crate) program: Running,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts `command` as the leader of a session on a new terminal, in its foreground.
    pub(crate) fn start(mut command: Command) -> Self {
        // Closed on exec, so that no other program keeps the terminal from hanging up.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = open(ptsname_r(&master).unwrap().as_str(), flags, Mode::empty()).unwrap();
        let master = master.as_fd().try_clone_to_owned().unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let program = Running::new(command.spawn().unwrap());
        let screen = Arc::default();
        watch(master.try_clone().unwrap(), Arc::clone(&screen));
        Self { program, keyboard: File::from(master), screen }
    }

    /// Types `keys`, control characters and all.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_to_see(&self, text: &str) {
        self.wait_to_see_times(text, 1);
    }

    /// Waits until `text` is on the screen for the `count`th time.
    #[track_caller]
    pub(crate) fn wait_to_see_times(&self, text: &str, count: usize) {
        let start = tokio::time::Instant::now();
        while self.screen().matches(text).count() < count {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for {count} times {text:?} in {}",
                self.screen()
            );
            super::pause();
        }
    }

    /// Hangs up, as a terminal window does that is closed.
    pub(crate) fn hang_up(self) -> Running {
        self.program
    }
}

/// Copies what the program writes to `screen`, until nobody else looks at it any more.
fn watch(master: OwnedFd, screen: Arc<Mutex<String>>) {
    let mut master = File::from(master);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while Arc::strong_count(&screen) > 1 {
            let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(20_u8)) == Ok(0) {
                continue;
            }
            let Ok(count @ 1..) = master.read(&mut bytes) else { return };
            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
}
