//! A connection to one server: made, logged in, and used for whole frames.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use url::Host;

use super::ZookeeperCause;
use super::login::Login;
use super::operation::{Code, Request};
use super::tls::Tls;
use super::wire::{Flag, Garbled, Reader, Writer};
use crate::registry::Secret;
use crate::registry::endpoints::Endpoints;
use crate::registry::url::Server;

/// The numbers of frames that belong to no request.
pub(super) const PING: i32 = -2;
const AUTH: i32 = -4;
/// Far more than a server sends unless set up to.
const LONGEST_FRAME: usize = 64 << 20;
/// What a connection at rest keeps for what comes next.
const RESTING: usize = 2048;

/// The servers of one ensemble, and how to get in.
pub(super) struct Ensemble {
    pub(super) servers: Endpoints<Server>,
    pub(super) login: Option<Login>,
    pub(super) tls: Option<Tls>,
}

/// What makes a session the same one over another connection.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// 0 where there is none yet.
    pub(super) id: i64,
    password: Vec<u8>,
    /// What we have seen: a server that has not seen that much hangs up.
    pub(super) last_seen: i64,
    /// How long it is to live without a connection.
    pub(super) timeout: Duration,
}

impl Ticket {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { id: 0, password: vec![0; 16], last_seen: 0, timeout }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another server, or another time, may do.
    Failed(ZookeeperCause),
    /// The session is over.
    Expired,
    /// We are not let in, anywhere.
    Denied(ZookeeperCause),
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// What comes in.
pub(super) struct Incoming {
    half: ReadHalf<Pin<Box<dyn Stream>>>,
    bytes: Vec<u8>,
}

/// What goes out.
pub(super) struct Outgoing {
    half: WriteHalf<Pin<Box<dyn Stream>>>,
    bytes: Vec<u8>,
}

/// A connection that has a session.
pub(super) struct Connection {
    pub(super) server: String,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// How long the session lives without it, by the server's decision.
    pub(super) negotiated: Duration,
}

/// A server's word on a session.
struct Welcome {
    negotiated: Duration,
    id: i64,
    password: Vec<u8>,
}

impl Ensemble {
    /// Goes through all servers, once, until there is a connection; `ticket` is then its session's.
    pub(super) async fn connect(&self, ticket: &mut Ticket) -> Result<Connection, Refusal> {
        let mut refusal = Refusal::Failed(ZookeeperCause::Nonsense);
        for _ in 0..self.servers.count() {
            let attempt = self.servers.attempt();
            match self.connect_to(attempt.server(), ticket).await {
                Err(Refusal::Failed(cause)) => {
                    debug!(error = %cause, "no connection");
                    refusal = Refusal::Failed(cause);
                }
                outcome => {
                    attempt.answered();
                    return outcome;
                }
            }
        }
        Err(refusal)
    }

    async fn connect_to(&self, server: &Server, ticket: &mut Ticket) -> Result<Connection, Refusal> {
        let patience = (ticket.timeout / 6).clamp(Duration::from_secs(1), Duration::from_secs(5));
        let attempt = self.greet(server, ticket);
        timeout_at(Instant::now() + patience, attempt).await.unwrap_or_else(|_| {
            Err(Refusal::Failed(ZookeeperCause::Silent { server: server.to_string(), patience }))
        })
    }

    async fn greet(&self, server: &Server, ticket: &mut Ticket) -> Result<Connection, Refusal> {
        let name = server.to_string();
        let secret = match &self.login {
            Some(login) => Some(login.secret().await.map_err(Refusal::Denied)?),
            None => None,
        };
        let stream = self.reach(server).await.map_err(Refusal::Failed)?;
        let (read, write) = tokio::io::split(stream);
        let (mut incoming, mut outgoing) =
            (Incoming { half: read, bytes: Vec::new() }, Outgoing { half: write, bytes: Vec::new() });
        let hung_up = || Refusal::Failed(ZookeeperCause::HungUp { server: name.clone() });
        outgoing.push(&hello(ticket));
        outgoing.flush().await.map_err(|_| hung_up())?;
        let answer = incoming.frame().await.map_err(|_| hung_up())?;
        let welcome = read_welcome(&answer).map_err(|_| Refusal::Failed(ZookeeperCause::Nonsense))?;
        if welcome.negotiated.is_zero() {
            return Err(Refusal::Expired);
        }
        (ticket.id, ticket.password) = (welcome.id, welcome.password);
        let mut connection = Connection { server: name, incoming, outgoing, negotiated: welcome.negotiated };
        if let Some(secret) = secret {
            connection.log_in(&secret).await?;
        }
        Ok(connection)
    }

    /// Its addresses are looked up anew each time, and tried in no particular order.
    async fn reach(&self, server: &Server) -> Result<Pin<Box<dyn Stream>>, ZookeeperCause> {
        let failed = |error: &io::Error| {
            let server = server.to_string();
            match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    ZookeeperCause::HungUp { server }
                }
                _ => ZookeeperCause::Connect { server, reason: error.to_string() },
            }
        };
        let mut addresses: Vec<_> = match &server.host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, server.port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, server.port))],
            Host::Domain(name) => {
                lookup_host((name.as_str(), server.port)).await.map_err(|error| failed(&error))?.collect()
            }
        };
        fastrand::shuffle(&mut addresses);
        let stream = TcpStream::connect(&*addresses).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        match &self.tls {
            None => Ok(Box::pin(stream)),
            Some(tls) => tls.encrypt(stream, server).await,
        }
    }
}

fn hello(ticket: &Ticket) -> Vec<u8> {
    let timeout = i32::try_from(ticket.timeout.as_millis()).unwrap_or(i32::MAX);
    let hello = Writer::default().int(0).long(ticket.last_seen).int(timeout).long(ticket.id);
    let hello = hello.bytes(&ticket.password).flag(Flag::No).finish();
    Writer::default().bytes(&hello).finish()
}

fn read_welcome(answer: &[u8]) -> Result<Welcome, Garbled> {
    let mut reader = Reader::new(answer);
    let (_version, negotiated) = (reader.int()?, reader.int()?);
    let (id, password) = (reader.long()?, reader.bytes()?.to_vec());
    let negotiated = Duration::from_millis(u64::try_from(negotiated).unwrap_or_default());
    Ok(Welcome { negotiated, id, password })
}

impl Connection {
    async fn log_in(&mut self, secret: &Secret) -> Result<(), Refusal> {
        self.outgoing.push(&Request::auth("digest", secret.expose()).frame(AUTH));
        let broken = |server: &str, error: &io::Error| {
            Refusal::Failed(ZookeeperCause::Broken { server: server.to_owned(), reason: error.to_string() })
        };
        self.outgoing.flush().await.map_err(|error| broken(&self.server, &error))?;
        let answer = self.incoming.frame().await.map_err(|error| broken(&self.server, &error))?;
        let answer = Answer::read(&answer).map_err(|_| Refusal::Failed(ZookeeperCause::Nonsense))?;
        match answer.error {
            0 => Ok(()),
            code => Err(Refusal::Denied(ZookeeperCause::refused(Code(code)))),
        }
    }
}

/// An answer, or word of what is watched.
pub(super) struct Answer<'a> {
    /// That of the request.
    pub(super) number: i32,
    /// The last change that the server has seen.
    pub(super) seen: i64,
    pub(super) error: i32,
    pub(super) body: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(super) fn read(frame: &'a [u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(frame);
        let (number, seen, error) = (reader.int()?, reader.long()?, reader.int()?);
        Ok(Self { number, seen, error, body: reader.rest() })
    }
}

impl Incoming {
    /// The next frame. Can be dropped and called again.
    pub(super) async fn frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let missing = match self.whole_frame()? {
                Ok(frame) => return Ok(frame),
                Err(missing) => missing,
            };
            self.bytes.reserve(missing.clamp(RESTING, 256 << 10));
            if self.half.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A frame, if it is there; otherwise how much of it is missing at least.
    fn whole_frame(&mut self) -> io::Result<Result<Vec<u8>, usize>> {
        let Some((length, _)) = self.bytes.split_first_chunk() else { return Ok(Err(4)) };
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let end = 4 + length;
        if self.bytes.len() < end {
            return Ok(Err(end - self.bytes.len()));
        }
        let frame = self.bytes[4..end].to_vec();
        self.bytes.drain(..end);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(RESTING);
        }
        Ok(Ok(frame))
    }
}

impl Outgoing {
    pub(super) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend(frame);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends some of what is to be sent. Can be dropped and called again.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        let sent = self.half.write(&self.bytes).await?;
        self.bytes.drain(..sent);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(RESTING);
            // What TLS holds back.
            self.half.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.is_empty() {
            self.send().await?;
        }
        Ok(())
    }
}

/// Shared, because every session of a registry goes to the same servers.
pub(super) type Shared = Arc<Ensemble>;
