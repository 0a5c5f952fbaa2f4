//! A descriptor of the command's own, to say on that it is ready: a pipe at a number of the user's choice, and a line
//! written to it (s6's `notification-fd`).

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The pipe, made before the command is started.
#[derive(Debug)]
pub(super) struct LinePipe {
    reader: OwnedFd,
    ends: Ends,
}

/// Where the command's end is, and where it is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    writer: RawFd,
    number: RawFd,
}

impl LinePipe {
    /// # Errors
    /// When there are no more descriptors, or none of that number.
    pub(super) fn new(number: RawFd) -> io::Result<Self> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if number.cast_unsigned() >= u32::try_from(limit).unwrap_or(u32::MAX) {
            let text = format!("descriptor {number} is above the limit of open files (ulimit -n), {limit}");
            return Err(io::Error::other(text));
        }
        let (reader, writer) = io::pipe()?;
        let reader = OwnedFd::from(reader);
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut writer = writer.into_raw_fd();
        // SAFETY: they read or make descriptors. A number that is free is taken at once: of what is opened on the way to
        // the command's start, nothing must be there. The writing end is nobody else's.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1
                && libc::dup3(writer, number, libc::O_CLOEXEC) == number
            {
                libc::close(writer);
                writer = number;
            }
        }
        Ok(Self { reader, ends: Ends { writer, number } })
    }

    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    /// What of it is ours to keep. (The other end is closed with all that is the command's.)
    pub(super) fn descriptor(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Listens to it from now on.
    pub(super) fn accept(self) -> io::Result<Line> {
        // SAFETY: the pipe owns its descriptor, and closes it only when it is dropped.
        Ok(Line { pipe: unsafe { AsyncFd::register_with_interest(self.reader.into(), Interest::READABLE) }? })
    }
}

impl Ends {
    /// Gives it to the command: in the child, before exec.
    pub(super) fn give(self) -> io::Result<()> {
        let Self { writer, number } = self;
        // SAFETY: both are numbers of descriptors of this process, which is about to be another program.
        unsafe {
            if writer == number {
                let borrowed = BorrowedFd::borrow_raw(number);
                fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty()))?;
            } else if libc::dup2(writer, number) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// What the command writes.
#[derive(Debug)]
pub(super) struct Line {
    pipe: AsyncFd<std::fs::File>,
}

impl Line {
    /// Returns when a line has been written. What comes after it is read, too: whoever goes on writing is not to fail.
    ///
    /// # Errors
    /// When nobody can write one any more.
    pub(super) async fn wait(self) -> io::Result<()> {
        loop {
            let mut buffer = [0; 64];
            match self.read(&mut buffer).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length if buffer[..length].contains(&b'\n') => break,
                _ => {}
            }
        }
        tokio::spawn(async move { while self.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {} });
        Ok(())
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.pipe.readable().await?;
            if let Ok(read) = ready.try_io(|pipe| pipe.get_ref().read(buffer)) {
                return read;
            }
        }
    }
}
