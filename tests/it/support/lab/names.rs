//! A name server of the test's own, which fails on command and changes its mind.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::Place;

/// The one name that it knows.
pub(crate) const NAME: &str = "registry.test";

/// What it says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// This is its address.
    Is(Ipv4Addr),
    /// There is no such name.
    Unknown,
    /// It does not work just now.
    Fails,
    /// Nothing.
    Nothing,
}

/// A server of names. Dropped, it is gone. It takes root, as its port is 53.
pub(crate) struct Names {
    shared: Arc<Mutex<Shared>>,
    place: Place,
    answering: Option<JoinHandle<()>>,
}

struct Shared {
    says: Says,
    asked: usize,
    is_over: bool,
}

impl Names {
    /// At an address of its own on this machine.
    #[track_caller]
    pub(crate) fn start(says: Says) -> Self {
        let any = || Ipv4Addr::new(127, 53, fastrand::u8(..), fastrand::u8(1..255));
        let socket = (0..20).find_map(|_| UdpSocket::bind((any(), 53)).ok()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let place = Place::new();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!("bound to IPv4") };
        fs::write(place.path().join("resolv.conf"), format!("nameserver {}\n", address.ip())).unwrap();
        let shared = Arc::new(Mutex::new(Shared { says, asked: 0, is_over: false }));
        let answering = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || answer(&socket, &shared)
        });
        Self { shared, place, answering: Some(answering) }
    }

    pub(crate) fn say(&self, says: Says) {
        self.shared.lock().unwrap().says = says;
    }

    /// How many questions there were.
    pub(crate) fn asked(&self) -> usize {
        self.shared.lock().unwrap().asked
    }

    /// Has `command` ask us and nobody else, in a mount namespace of its own.
    pub(crate) fn serve(&self, command: &mut Command) {
        let ours = self.place.path().join("resolv.conf");
        // SAFETY: between fork and exec, three system calls, whose arguments are there already.
        unsafe { command.pre_exec(move || see(&ours)) };
    }
}

fn see(resolv_conf: &PathBuf) -> std::io::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some(resolv_conf), "/etc/resolv.conf", NONE, MsFlags::MS_BIND, NONE)?;
    Ok(())
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shared.lock().unwrap().is_over = true;
        let _ = self.answering.take().map(JoinHandle::join);
    }
}

fn answer(socket: &UdpSocket, shared: &Mutex<Shared>) {
    let mut buffer = [0; 512];
    loop {
        let received = socket.recv_from(&mut buffer);
        let mut shared = shared.lock().unwrap();
        if shared.is_over {
            return;
        }
        let Ok((length, asker)) = received else { continue };
        shared.asked += 1;
        if let Some(answer) = reply(&buffer[..length], shared.says) {
            let _ = socket.send_to(&answer, asker);
        }
    }
}

/// RFC 1035: the question back, and for one of type A, one record that may not be kept.
fn reply(question: &[u8], says: Says) -> Option<Vec<u8>> {
    let end_of_name = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let asked = question.get(12..end_of_name + 4)?;
    let is_for_address = asked[asked.len() - 4..asked.len() - 2] == [0, 1];
    let (code, address) = match says {
        Says::Is(address) => (0, Some(address).filter(|_| is_for_address)),
        Says::Unknown => (3, None),
        Says::Fails => (2, None),
        Says::Nothing => return None,
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(asked);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
