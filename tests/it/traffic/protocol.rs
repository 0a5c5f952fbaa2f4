//! Requests as clients make them, and whether they are answered in full.

use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any server takes on a busy machine: only what hangs takes for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a packet begins with that tells success, the end of a list, an error.
const OK: u8 = 0;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// How a server is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// For `/`, and for `/large`, more than a connection has room for.
    Http,
    /// As the user `consumer`, who has no password.
    Mysql,
}

impl Protocol {
    /// Makes a request, and takes its answer.
    pub(super) fn ask(self, address: SocketAddr) -> Result<()> {
        match self {
            Self::Http => Download::begin(address, "/")?.finish(),
            Self::Mysql => {
                let mut connection = Connection::open(address)?;
                connection.query("SELECT 6 * 7")?;
                connection.expect("42")?;
                connection.send(0, b"\x01")
            }
        }
    }

    /// Makes one that is still being answered until it is to finish.
    pub(super) fn begin(self, address: SocketAddr) -> Result<Pending> {
        match self {
            Self::Http => Ok(Pending::Download(Download::begin(address, "/large")?)),
            Self::Mysql => {
                let mut holder = Connection::open(address)?;
                holder.query("SELECT GET_LOCK('traffic', 0)")?;
                holder.expect("1")?;
                let mut waiter = Connection::open(address)?;
                waiter.query("SELECT GET_LOCK('traffic', 3600)")?;
                Ok(Pending::Query { holder, waiter })
            }
        }
    }
}

/// A request that is being answered.
pub(super) enum Pending {
    Download(Download),
    /// It waits for a lock that another connection has.
    Query {
        holder: Connection,
        waiter: Connection,
    },
}

impl Pending {
    /// Lets it finish, and takes the rest of its answer.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::Download(download) => download.finish(),
            Self::Query { mut holder, mut waiter } => {
                holder.query("SELECT RELEASE_LOCK('traffic')")?;
                holder.expect("1")?;
                waiter.expect("1")
            }
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A page of which the head has come.
pub(super) struct Download {
    stream: TcpStream,
    /// How much of it is still to come.
    rest: usize,
}

impl Download {
    fn begin(address: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        match length {
            Some(rest) if head.starts_with("HTTP/1.1 200 ") => Ok(Self { stream, rest }),
            _ => Err(Error::other(format!("answered with {head:?}"))),
        }
    }

    fn finish(mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        while self.rest > 0 {
            match self.stream.read(&mut buffer)? {
                0 => return Err(Error::other(format!("{} bytes are missing", self.rest))),
                length => self.rest = self.rest.saturating_sub(length),
            }
        }
        Ok(())
    }
}

/// A connection to a database, logged in.
pub(super) struct Connection {
    stream: TcpStream,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let mut connection = Self { stream: connect(address)? };
        connection.receive()?;
        // That we speak version 4.1 and hash passwords, the largest packet, UTF-8, the user, an empty hash.
        let capabilities: u32 = 0x0200 | 0x8000;
        let mut login = capabilities.to_le_bytes().to_vec();
        login.extend((1_u32 << 24).to_le_bytes());
        login.push(33);
        login.extend([0; 23]);
        login.extend(b"consumer\0\0");
        connection.send(1, &login)?;
        match connection.receive()?.first() {
            Some(&OK) => Ok(connection),
            other => Err(Error::other(format!("the login is answered with {other:?}"))),
        }
    }

    fn query(&mut self, query: &str) -> Result<()> {
        self.send(0, format!("\x03{query}").as_bytes())
    }

    /// Takes a result of one row with one value, which has to be this.
    fn expect(&mut self, value: &str) -> Result<()> {
        self.receive()?;
        self.receive_list()?;
        let rows = self.receive_list()?;
        match &*rows {
            [row] if row[1..] == *value.as_bytes() => Ok(()),
            _ => Err(Error::other(format!("answered with {rows:?}"))),
        }
    }

    fn receive_list(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut list = Vec::new();
        loop {
            let packet = self.receive()?;
            if packet.first() == Some(&END) {
                return Ok(list);
            }
            list.push(packet);
        }
    }

    /// A packet, which is no error.
    fn receive(&mut self) -> Result<Vec<u8>> {
        // Three bytes of length, and the packet's number.
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut packet = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut packet)?;
        match packet.first() {
            Some(&ERROR) => Err(Error::other(String::from_utf8_lossy(&packet).into_owned())),
            _ => Ok(packet),
        }
    }

    fn send(&mut self, number: u8, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], number];
        packet.extend(payload);
        self.stream.write_all(&packet)
    }
}
