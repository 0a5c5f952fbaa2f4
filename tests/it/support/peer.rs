//! The other side of HTTP, on a script: says what a test wants it to say, at the worst moment, and counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn is_login(&self) -> bool {
        self.path == "/v2.0/tokens"
    }

    pub(crate) fn is_heartbeat(&self) -> bool {
        self.path.ends_with("/heartbeat")
    }

    pub(crate) fn is_registration(&self) -> bool {
        self.method == "POST" && self.path.ends_with("/services")
    }
}

/// What is said to it.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// The same, with one more header.
    With(u16, &'static str, String, Value),
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the other side waits.
    Hang,
    /// The end of the connection.
    Close,
}

/// A server. Dropped, it listens no more.
pub(crate) struct Peer {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    connections: usize,
    asked: Vec<Asked>,
    streams: Vec<TcpStream>,
    is_over: bool,
}

type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

impl Peer {
    /// Listens on a free port, and answers as `script` says.
    pub(crate) fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let (script, shared): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&log));
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut log = shared.lock().unwrap();
                if log.is_over {
                    return;
                }
                log.connections += 1;
                log.streams.push(stream.try_clone().unwrap());
                drop(log);
                let (script, shared) = (Arc::clone(&script), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, &*script, &shared));
            }
        });
        Self { address, log, listening: Some(listening) }
    }

    /// The URL of its registry, for whoever needs no login or logs in beside it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1.0", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.log().connections
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.log().asked.clone()
    }

    pub(crate) fn count(&self, which: impl Fn(&Asked) -> bool) -> usize {
        self.log().asked.iter().filter(|asked| which(asked)).count()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let streams = {
            let mut log = self.log();
            log.is_over = true;
            std::mem::take(&mut log.streams)
        };
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(self.address);
        // From here on, the connection is refused.
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

fn serve(stream: TcpStream, script: &Script, log: &Mutex<Log>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(asked) = read(&mut reader) {
        log.lock().unwrap().asked.push(asked.clone());
        let sent = match script(&asked) {
            Reply::Json(status, body) => write(&mut writer, status, "", &body),
            Reply::With(status, name, value, body) => {
                write(&mut writer, status, &format!("{name}: {value}\r\n"), &body)
            }
            Reply::Raw(bytes) => {
                let _ = writer.write_all(&bytes);
                break;
            }
            Reply::Hang => {
                let _ = reader.read(&mut [0]);
                break;
            }
            Reply::Close => break,
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

fn write(writer: &mut TcpStream, status: u16, headers: &str, body: &Value) -> std::io::Result<()> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    writer.write_all(answer.as_bytes())
}

/// The next request; none when the connection ends, even in the middle of one.
pub(crate) fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, headers, body: String::new() };
    let mut body = vec![0; asked.header("content-length").unwrap_or("0").parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

/// What a login gives.
pub(crate) fn login(token: &str) -> Reply {
    Reply::Json(200, json!({"access": {"token": {"id": token, "tenant": {"id": "7777", "name": "7777"}}}}))
}

pub(crate) fn token(status: u16) -> Reply {
    Reply::Json(status, json!({"token": uuid::Uuid::new_v4()}))
}

pub(crate) fn fault(status: u16, kind: &str, details: &str) -> Reply {
    Reply::Json(
        status,
        json!({"type": kind, "code": status, "message": "m", "details": details, "txnId": "t"}),
    )
}

pub(crate) fn list(values: &Value) -> Reply {
    let count = values.as_array().map_or(0, Vec::len);
    let metadata =
        json!({"count": count, "limit": 100, "marker": null, "next_marker": null, "next_href": null});
    Reply::Json(200, json!({"values": values, "metadata": metadata}))
}

/// A registry without a login that agrees with everything.
pub(crate) fn agree(asked: &Asked) -> Reply {
    match (&*asked.method, asked.is_login()) {
        (_, true) => login("good"),
        ("POST", _) if asked.is_heartbeat() => token(200),
        ("POST", _) => token(201),
        ("GET", _) => list(&json!([])),
        _ => Reply::Json(204, Value::Null),
    }
}
