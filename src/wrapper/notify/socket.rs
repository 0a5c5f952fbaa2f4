//! The two ends: the service manager's socket, and the one that the child is given instead.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind,
    getsockname, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, geteuid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The variable that names the socket.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Longer than any message a manager accepts.
const LONGEST: usize = 16 * 1024;

/// One message.
#[derive(Debug, Default)]
pub(in crate::wrapper) struct Message {
    pub(super) text: Vec<u8>,
    /// Sent along, and closed here once they are passed on.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Whether it says that the sender is ready.
    pub(in crate::wrapper) fn says_ready(&self) -> bool {
        self.text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
    }
}

/// The service manager.
#[derive(Debug)]
pub(in crate::wrapper) struct Manager {
    socket: OwnedFd,
    address: UnixAddr,
}

impl Manager {
    /// The one that the environment names, if it names one that we can talk to.
    fn from_environment() -> Option<Self> {
        let name = std::env::var_os(VARIABLE)?;
        let address = match name.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name),
            path @ [b'/', ..] => UnixAddr::new(OsStr::from_bytes(path)),
            _ => return None,
        };
        Some(Self { socket: datagram_socket().ok()?, address: address.ok()? })
    }

    pub(super) fn send(&self, text: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(text)], control, flags, Some(&self.address))?;
        Ok(())
    }
}

/// Who listens to what the child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrapper) enum Ears {
    /// The service manager, if there is one.
    Managers,
    /// We as well.
    Ours,
}

/// A socket for the child to speak to, made before it is started.
#[derive(Debug)]
pub(in crate::wrapper) struct Offer {
    /// Whom to pass on to.
    manager: Option<Manager>,
    socket: OwnedFd,
    /// What the child's environment calls it.
    pub(in crate::wrapper) name: String,
}

impl Offer {
    /// One, if there is a service manager to pass on to, or we want to hear ourselves what the child says.
    ///
    /// Its name is in the abstract namespace, chosen by the kernel: no directory has to be there, or writable.
    pub(in crate::wrapper) fn new(ears: Ears) -> Option<Self> {
        let manager = Manager::from_environment();
        if manager.is_none() && ears == Ears::Managers {
            return None;
        }
        let socket = datagram_socket().ok()?;
        setsockopt(&socket, sockopt::PassCred, &true).ok()?;
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed()).ok()?;
        let address: UnixAddr = getsockname(socket.as_raw_fd()).ok()?;
        let name = format!("@{}", std::str::from_utf8(address.as_abstract()?).ok()?);
        Some(Self { manager, socket, name })
    }

    pub(in crate::wrapper) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let of_manager = self.manager.as_ref().map(|manager| manager.socket.as_raw_fd());
        of_manager.into_iter().chain([self.socket.as_raw_fd()])
    }

    /// Listens to it from now on.
    pub(in crate::wrapper) fn accept(self) -> io::Result<(Option<Manager>, Receiver)> {
        // SAFETY: the socket is owned, and closed only when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(self.socket, Interest::READABLE) }?;
        Ok((self.manager, Receiver { socket: Some(socket) }))
    }
}

fn datagram_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None)
}

/// What the child says. Without a manager, for ever silent.
#[derive(Debug, Default)]
pub(in crate::wrapper) struct Receiver {
    socket: Option<AsyncFd<OwnedFd>>,
}

impl Receiver {
    /// The next message from `child`, or from somebody who could as well send us signals.
    pub(in crate::wrapper) async fn next(&self, child: Pid) -> Message {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = socket.readable().await else { return std::future::pending().await };
            if let Ok(Ok(Some(message))) = ready.try_io(|socket| receive(socket.get_ref(), child)) {
                return message;
            }
        }
    }
}

/// The next message, unless it is a stranger's: anybody can find the socket.
fn receive(socket: &OwnedFd, child: Pid) -> io::Result<Option<Message>> {
    let mut text = vec![0; LONGEST];
    // 253 is the most that one message can carry (SCM_MAX_FD).
    let mut control = nix::cmsg_space!([RawFd; 253], libc::ucred);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let length = received.bytes;
    let (mut descriptors, mut is_trusted) = (Vec::new(), false);
    for part in received.cmsgs()? {
        match part {
            ControlMessageOwned::ScmRights(numbers) => {
                // SAFETY: the kernel has just made them for us, and nobody else knows them.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
            ControlMessageOwned::ScmCredentials(sender) => {
                let is_child = sender.pid() == child.as_raw();
                is_trusted = is_child || sender.uid() == 0 || sender.uid() == geteuid().as_raw();
            }
            _ => {}
        }
    }
    text.truncate(length);
    Ok(is_trusted.then_some(Message { text, descriptors }))
}

/// `CLOCK_MONOTONIC` in microseconds, as `RELOADING=1` wants it.
pub(super) fn monotonic_micros() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000)
}
