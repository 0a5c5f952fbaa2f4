//! A loopback proxy that breaks on command, and is whole again on command.

use std::io::{BufReader, Cursor, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, getsockname, listen,
    setsockopt, shutdown, socket, sockopt,
};

use super::Kind;
use crate::support::peer;

/// What is wrong with the way to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody is there: connections end, new ones are refused.
    Refuse,
    /// Every connection is reset, those there are and each new one.
    Reset,
    /// Connections are taken and nothing comes through; what was sent arrives when it is over.
    BlackHole,
    /// Each answer is held up for so long.
    Delay(Duration),
    /// Answers come byte by byte, with so much time between two.
    Drip(Duration),
    /// Each answer ends after so many bytes, and the connection with it.
    Truncate(usize),
    /// Each request is answered with this status, and goes no further. (HTTP alone.)
    Answer(u16),
    /// Each answer is reset in the middle of its body. (HTTP alone.)
    CutMidBody,
}

impl Fault {
    const ON_EVERY_WAY: [Self; 7] = [
        Self::Refuse,
        Self::Reset,
        Self::BlackHole,
        // A little late, and too late.
        Self::Delay(Duration::from_millis(400)),
        Self::Delay(Duration::from_secs(5)),
        Self::Drip(Duration::from_millis(20)),
        Self::Truncate(15),
    ];

    const WHERE_HTTP_IS_SPOKEN: [Self; 6] = [
        Self::CutMidBody,
        Self::Answer(401),
        Self::Answer(404),
        Self::Answer(429),
        Self::Answer(500),
        Self::Answer(503),
    ];

    /// All that can happen on the way to a registry of this kind. To a file, there is none.
    pub(crate) fn on_the_way_to(kind: Kind) -> Vec<Self> {
        let on_every_way = Self::ON_EVERY_WAY.into_iter().filter(|_| kind != Kind::File);
        on_every_way.chain(Self::WHERE_HTTP_IS_SPOKEN.into_iter().filter(|_| kind.is_http())).collect()
    }
}

/// When a fault begins that waits for its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The next request is the first that it hits.
    Request,
    /// The next request arrives, and its answer is the first that it hits.
    Answer,
}

/// A way to `target`. Dropped, it is closed.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    address: SocketAddr,
    /// Keeps the port ours while nobody listens there.
    _placeholder: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    armed: Option<(Strike, Fault)>,
    listener: Option<TcpListener>,
    connections: Vec<TcpStream>,
    accepted: usize,
    requests: usize,
    is_over: bool,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let (placeholder, address) = reserve();
        let state = Mutex::new(State::default());
        let shared =
            Arc::new(Shared { target, address, _placeholder: placeholder, state, changed: Condvar::new() });
        shared.listen(&mut shared.state());
        Self { shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Breaks it, from now on.
    pub(crate) fn strike(&self, fault: Fault) {
        self.shared.strike(&mut self.shared.state(), fault);
    }

    /// Breaks it at the next request or answer.
    pub(crate) fn strike_at(&self, moment: Strike, fault: Fault) {
        self.shared.state().armed = Some((moment, fault));
    }

    /// Whether the fault has begun that waited for its moment.
    pub(crate) fn has_struck(&self) -> bool {
        self.shared.state().fault.is_some()
    }

    /// Makes it whole.
    pub(crate) fn heal(&self) {
        let mut state = self.shared.state();
        (state.fault, state.armed) = (None, None);
        if state.listener.is_none() {
            self.shared.listen(&mut state);
        }
        self.shared.changed.notify_all();
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().accepted
    }

    /// How many requests came, or parts of them.
    pub(crate) fn requests(&self) -> usize {
        self.shared.state().requests
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        self.shared.strike(&mut state, Fault::Refuse);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn listen(self: &Arc<Self>, state: &mut State) {
        let listener = listen_at(self.address);
        state.listener = Some(listener.try_clone().unwrap());
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            // Until it is shut down.
            for stream in listener.incoming().map_while(Result::ok) {
                shared.accept(stream);
            }
        });
    }

    fn strike(&self, state: &mut State, fault: Fault) {
        (state.fault, state.armed) = (Some(fault), None);
        match fault {
            Fault::Refuse => {
                if let Some(listener) = state.listener.take() {
                    let _ = shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
                }
                for stream in state.connections.drain(..) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
            Fault::Reset => state.connections.drain(..).for_each(|stream| reset(&stream)),
            _ => {}
        }
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.state();
        state.accepted += 1;
        match state.fault {
            _ if state.is_over => return,
            Some(Fault::Reset) => return reset(&client),
            _ => state.connections.push(client.try_clone().unwrap()),
        }
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            shared.await_light();
            match TcpStream::connect_timeout(&shared.target, Duration::from_secs(10)) {
                Ok(server) => shared.connect(client, server),
                Err(_) => reset(&client),
            }
        });
    }

    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (to_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.pass_answers(from_server, to_client));
        self.pass_requests(client, server);
    }

    /// The fault there is now, or as of now.
    fn at(&self, moment: Strike) -> Option<Fault> {
        let mut state = self.state();
        if moment == Strike::Request {
            state.requests += 1;
        }
        if let Some((_, fault)) = state.armed.filter(|(armed, _)| *armed == moment) {
            self.strike(&mut state, fault);
        }
        state.fault
    }

    /// Waits for the end of a black hole, and says what is wrong then.
    fn await_light(&self) -> Option<Fault> {
        let is_dark = |state: &mut State| state.fault == Some(Fault::BlackHole);
        self.changed.wait_while(self.state(), is_dark).unwrap().fault
    }

    /// Waits for `span`, or the end of `fault`.
    fn endure(&self, fault: Fault, span: Duration) {
        let is_there = |state: &mut State| state.fault == Some(fault);
        drop(self.changed.wait_timeout_while(self.state(), span, is_there).unwrap());
    }

    fn pass_requests(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            self.at(Strike::Request);
            let sent = match self.await_light() {
                Some(Fault::Refuse | Fault::Reset) => break,
                Some(Fault::Answer(status)) => say(&buffer[..length], &mut client, status),
                _ => server.write_all(&buffer[..length]),
            };
            if sent.is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    fn pass_answers(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            self.at(Strike::Answer);
            let answer = &buffer[..length];
            let sent = match self.await_light() {
                Some(Fault::Refuse | Fault::Reset) => break,
                Some(fault @ Fault::Delay(span)) => {
                    self.endure(fault, span);
                    client.write_all(answer)
                }
                Some(fault @ Fault::Drip(span)) => answer.chunks(1).try_for_each(|byte| {
                    self.endure(fault, span);
                    client.write_all(byte)
                }),
                Some(Fault::Truncate(length)) => {
                    let _ = client.write_all(&answer[..length.min(answer.len())]);
                    break;
                }
                Some(Fault::CutMidBody) => {
                    let _ = client.write_all(&answer[..middle_of_body(answer)]);
                    reset(&client);
                    break;
                }
                _ => client.write_all(answer),
            };
            if sent.is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

/// Answers a request that began with `start`.
fn say(start: &[u8], client: &mut TcpStream, status: u16) -> std::io::Result<()> {
    let mut request = BufReader::new(Cursor::new(start.to_vec()).chain(client.try_clone()?));
    if peer::read(&mut request).is_none() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let body = format!("status {status} of the test\n");
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n", body.len());
    client.write_all(format!("{head}\r\n{body}").as_bytes())
}

fn middle_of_body(answer: &[u8]) -> usize {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |end| end + 4);
    head + (answer.len() - head) / 2
}

fn reserve() -> (OwnedFd, SocketAddr) {
    let socket = socket_at(SockaddrIn::new(127, 0, 0, 1, 0));
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    (socket, SocketAddrV4::from(address).into())
}

fn listen_at(address: SocketAddr) -> TcpListener {
    let SocketAddr::V4(address) = address else { unreachable!("reserved for IPv4") };
    let socket = socket_at(address.into());
    listen(&socket, Backlog::MAXCONN).unwrap();
    socket.into()
}

/// One that shares its port with others of ours.
fn socket_at(address: SockaddrIn) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, SockProtocol::Tcp).unwrap();
    setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
    bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

/// Ends it with a reset, however many descriptors there are of it.
fn reset(stream: &TcpStream) {
    let nowhere = [0_u8; size_of::<libc::sockaddr>()];
    let length = libc::socklen_t::try_from(nowhere.len()).unwrap();
    // SAFETY: an address of the length that is named, which says no more than that it is none (`AF_UNSPEC` is 0).
    unsafe { libc::connect(stream.as_raw_fd(), nowhere.as_ptr().cast(), length) };
}
