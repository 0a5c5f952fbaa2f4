//! Which TCP ports the command listens on, as the kernel has it: nothing is configured, nobody is connected to.
//!
//! `/proc/<pid>/net/tcp` lists the sockets of a process's network namespace, the listening ones first, and so is read
//! no further than those; `/proc/<pid>/fd` says which of them it has open.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use nix::unistd::{Pid, getpid};

use super::Reason;
use crate::wrapper::reaper::Wards;

/// Whether the command listens.
pub(in crate::wrapper) struct Probe {
    port: Option<u16>,
    ports: Ports,
    /// Where it was found to: the first place to look.
    known: Option<Listener>,
}

impl Probe {
    pub(super) fn new(port: Option<u16>, ports: Ports) -> Self {
        Self { port, ports, known: None }
    }

    pub(super) fn look(&mut self) -> Result<(), Reason> {
        if self.known.as_ref().is_some_and(Listener::is_there) {
            return Ok(());
        }
        let found = self.ports.look();
        let is_meant = |listener: &Listener| self.port.is_none_or(|port| listener.address.port() == port);
        self.known = found.listeners.iter().find(|listener| is_meant(listener)).cloned();
        if self.known.is_some() { Ok(()) } else { Err(self.reason(&found)) }
    }

    fn reason(&self, found: &Found) -> Reason {
        let wanted = self.port.map_or("on no TCP port".to_owned(), |port| format!("not on port {port}"));
        let others: Vec<_> = found.ports().iter().map(u16::to_string).collect();
        let others = if others.is_empty() { String::new() } else { format!(" but on {}", others.join(", ")) };
        let blind = match found.denied {
            0 => String::new(),
            denied => format!(
                ", for all that can be seen: {denied} of its processes cannot be looked into, as they are another user's"
            ),
        };
        Reason::new(format!("it listens {wanted}{others}{blind}"))
    }
}

/// Somebody who looks for the ports of our process tree, less the `wards`.
pub(in crate::wrapper) struct Ports {
    wards: Wards,
}

/// What was found.
#[derive(Debug, Default)]
pub(in crate::wrapper) struct Found {
    listeners: Vec<Listener>,
    /// How many processes the kernel did not let us look into.
    denied: usize,
}

impl Found {
    /// The ports, each once: those that can be reached from elsewhere first, then the lowest.
    pub(in crate::wrapper) fn ports(&self) -> Vec<u16> {
        let rank = |listener: &Listener| (listener.address.ip().is_loopback(), listener.address.port());
        let mut ranked: Vec<_> = self.listeners.iter().map(rank).collect();
        ranked.sort_unstable();
        let mut ports = Vec::new();
        for (_, port) in ranked {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }
}

/// An open descriptor of a socket that listens.
#[derive(Debug, Clone)]
struct Listener {
    address: SocketAddr,
    inode: u64,
    pid: Pid,
    descriptor: PathBuf,
}

impl Listener {
    /// Whether it still is.
    fn is_there(&self) -> bool {
        inode_behind(&self.descriptor) == Some(self.inode)
            && listening_in(self.pid)
                .iter()
                .any(|(inode, address)| (*inode, *address) == (self.inode, self.address))
    }
}

impl Ports {
    pub(in crate::wrapper) fn new(wards: Wards) -> Self {
        Self { wards }
    }

    /// Everything that our descendants listen on: orphans that we have adopted are among them.
    pub(in crate::wrapper) fn look(&self) -> Found {
        let mut found = Found::default();
        let mut namespaces = HashMap::new();
        for pid in descendants(&self.wards.pids()) {
            if let Err(error) = look_into(pid, &mut namespaces, &mut found.listeners)
                && error.kind() == ErrorKind::PermissionDenied
            {
                found.denied += 1;
            }
        }
        found
    }
}

type Sockets = Vec<(u64, SocketAddr)>;

fn look_into(
    pid: Pid,
    namespaces: &mut HashMap<PathBuf, Sockets>,
    listeners: &mut Vec<Listener>,
) -> io::Result<()> {
    let namespace = fs::read_link(format!("/proc/{pid}/ns/net"))?;
    let sockets = namespaces.entry(namespace).or_insert_with(|| listening_in(pid));
    if sockets.is_empty() {
        return Ok(());
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let descriptor = entry?.path();
        let Some(inode) = inode_behind(&descriptor) else { continue };
        let those = sockets.iter().filter(|(listening, _)| *listening == inode);
        listeners.extend(those.map(|(_, address)| Listener {
            address: *address,
            inode,
            pid,
            descriptor: descriptor.clone(),
        }));
    }
    Ok(())
}

/// All processes below us, but for `strangers` and those below them.
fn descendants(strangers: &[Pid]) -> Vec<Pid> {
    let mut found = vec![];
    let mut to_visit = children(getpid());
    while let Some(pid) = to_visit.pop() {
        if !strangers.contains(&pid) && !found.contains(&pid) {
            to_visit.extend(children(pid));
            found.push(pid);
        }
    }
    found
}

fn children(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    // A child is that of the thread that has started it.
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    children
}

fn inode_behind(descriptor: &PathBuf) -> Option<u64> {
    let link = fs::read_link(descriptor).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The listening sockets of a process's network namespace.
fn listening_in(pid: Pid) -> Sockets {
    let mut sockets = Sockets::new();
    for table in ["tcp", "tcp6"] {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else { continue };
        let lines = BufReader::with_capacity(4096, file).lines().skip(1);
        sockets.extend(lines.map_while(|line| listening(&line.ok()?)));
    }
    sockets
}

/// The socket in this line, if it listens.
fn listening(line: &str) -> Option<(u64, SocketAddr)> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some(())?;
    let (address, port) = local.split_once(':')?;
    Some((inode, SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?)))
}

/// An address as the kernel prints it: 32 bits at a time, each a number of this machine's.
fn ip(text: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (place, start) in bytes.chunks_exact_mut(4).zip((0..text.len()).step_by(8)) {
        let number = u32::from_str_radix(text.get(start..start + 8)?, 16).ok()?;
        place.copy_from_slice(&number.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    match text.len() {
        8 => Some(Ipv4Addr::new(a, b, c, d).into()),
        32 => Some(Ipv6Addr::from(bytes).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listening_socket_is_seen_and_a_connected_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sees = |address| listening_in(getpid()).iter().any(|(_, seen)| *seen == address);
        assert!(sees(address));
        let connection = std::net::TcpStream::connect(address).unwrap();
        assert!(!sees(connection.local_addr().unwrap()));
        drop(listener);
        assert!(!sees(address));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        for (text, expected) in [
            ("0100007F", "127.0.0.1"),
            ("00000000", "0.0.0.0"),
            ("00000000000000000000000001000000", "::1"),
            ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ] {
            assert_eq!(ip(text), Some(expected.parse().unwrap()), "{text}");
        }
        assert_eq!(ip("01"), None);
    }

    #[test]
    fn what_others_can_reach_comes_first_and_then_the_lowest() {
        let listener = |address: &str| Listener {
            address: address.parse().unwrap(),
            inode: 1,
            pid: getpid(),
            descriptor: PathBuf::new(),
        };
        let all = ["127.0.0.1:80", "[::]:8443", "0.0.0.0:8080", "[::]:8080"];
        let found = Found { listeners: all.map(listener).to_vec(), denied: 0 };
        assert_eq!(found.ports(), [8080, 8443, 80]);
    }
}
