//! `raxsr serve` as a process, and a client that can also say what no well-behaved one would.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Place, RAXSR, Running, wait_for, wait_until};

/// Names an etcd cluster that servers are to keep their registries in, instead of a file.
pub(crate) const CLUSTER: &str = "SERVICE_REGISTRY_TEST_CLUSTER";

/// No answer takes as long, even on a busy machine: nothing hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A server that runs. Dropped, it is killed.
pub(crate) struct Server {
    pub(crate) place: Place,
    options: Vec<String>,
    process: Running,
    scheme: String,
    address: SocketAddr,
}

impl Server {
    /// Starts one over the registry of `place`, on a port of its own, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(place: Place, options: &[&str]) -> Self {
        Self::start_at(place, "127.0.0.1:0", options)
    }

    /// The same at this address.
    #[track_caller]
    pub(crate) fn start_at(place: Place, listen: &str, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut process = Running::start(&mut command(&place, listen, &options));
        let (scheme, address) = wait_until_ready(&place, &mut process);
        Self { place, options, process, scheme, address }
    }

    /// One that lets everybody in.
    #[track_caller]
    pub(crate) fn open() -> Self {
        Self::start(Place::new(), &[])
    }

    /// One with these accounts, the text of an accounts file.
    #[track_caller]
    pub(crate) fn with_accounts(accounts: &str, options: &[&str]) -> Self {
        let place = Place::new();
        let file = write_accounts(&place, accounts, 0o600);
        Self::start(place, &[&["--accounts", &file], options].concat())
    }

    /// What cannot be started: its exit status and what it said.
    #[track_caller]
    pub(crate) fn refusal(place: &Place, listen: &str, options: &[&str]) -> (ExitStatus, String) {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut process = Running::start(&mut command(place, listen, &options));
        (process.wait(), log(place))
    }

    /// Where it is, without the path.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that it said on standard error since it was started.
    pub(crate) fn log(&self) -> String {
        log(&self.place)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Ends it as a loss of power would.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Starts it again after its end: on the same port, with the same file.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        wait_until("the end before a restart", || self.has_ended());
        let mut command = command(&self.place, &self.address.to_string(), &self.options);
        self.process = Running::start(&mut command);
        let (_, address) = wait_until_ready(&self.place, &mut self.process);
        assert_eq!(address, self.address);
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }
}

/// Writes an accounts file, and returns its path.
pub(crate) fn write_accounts(place: &Place, accounts: &str, mode: u32) -> String {
    let file = place.path().join("accounts.toml");
    fs::write(&file, accounts).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

fn command(place: &Place, listen: &str, options: &[String]) -> Command {
    let log = fs::File::create(place.path().join("server.log")).unwrap();
    let mut command = place.program(RAXSR);
    command.args(["serve", "--listen", listen, "--registry", &registry(place)]).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// A file, or where this cluster is named, a part of it.
fn registry(place: &Place) -> String {
    let name = place.path().file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches('.');
    std::env::var(CLUSTER).map_or_else(|_| place.url(), |cluster| format!("{cluster}/{name}"))
}

fn log(place: &Place) -> String {
    fs::read_to_string(place.path().join("server.log")).unwrap()
}

#[track_caller]
fn wait_until_ready(place: &Place, process: &mut Running) -> (String, SocketAddr) {
    wait_for("the server", || {
        assert!(!process.has_ended(), "the server did not start: {}", log(place));
        ready_line(&log(place))
    })
}

/// The scheme and the address of the line that says where the API is.
fn ready_line(log: &str) -> Option<(String, SocketAddr)> {
    log.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(|line| {
        let (before, after) = line.split_once("://")?;
        let (authority, _) = after.split_once("/v1.0")?;
        let scheme = before.rsplit(|c: char| !c.is_ascii_lowercase()).next()?;
        let mut address: SocketAddr = authority.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        scheme.starts_with("http").then(|| (scheme.to_owned(), address))
    })
}

/// A request: what a client says, true or not.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: None }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    pub(crate) fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.target), format!("Host: {host}")];
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        lines.extend(self.body.iter().map(|body| format!("Content-Length: {}", body.len())));
        let mut bytes = (lines.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it over a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, address: SocketAddr) -> Response {
        Connection::open(address).exchange(self)
    }
}

/// A connection that stays open until one end closes it.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap()
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, READ_TIMEOUT)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream: BufReader::new(stream) })
    }

    #[track_caller]
    pub(crate) fn exchange(&mut self, request: &Request) -> Response {
        self.try_exchange(request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    pub(crate) fn try_exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.send(&request.bytes(self.address))?;
        self.receive(&request.method)
    }

    /// Sends any bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the answer to a request of this method.
    pub(crate) fn receive(&mut self, method: &str) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(format!("no status: {status_line}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(line.clone()))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if method != "HEAD" && status >= 200 && status != 204 && status != 304 {
            response.body = self.response_body(&response)?;
        }
        Ok(response)
    }

    fn response_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = response.header("content-length") {
            body.resize(length.parse().map_err(io::Error::other)?, 0);
            self.stream.read_exact(&mut body)?;
        } else if response.header("transfer-encoding").is_some() {
            loop {
                let length = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; length + 2];
                self.stream.read_exact(&mut chunk)?;
                if length == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..length]);
            }
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(body)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Waits until the server closes, and returns what it still said.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server does not close"),
        }
        rest
    }
}

/// What the server answered. The names of the headers are in lower case.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}: {}", self.headers, self.text());
        self
    }

    /// Asserts that the status is one of these.
    #[track_caller]
    pub(crate) fn has_one_of(self, statuses: &[u16]) -> Self {
        assert!(statuses.contains(&self.status), "{statuses:?}: {self:?}: {}", self.text());
        self
    }

    /// Asserts that this is a fault of this kind, whole and consistent, and returns it.
    #[track_caller]
    pub(crate) fn fault(&self, status: u16, kind: &str) -> Fault {
        assert_eq!(self.status, status, "{self:?}: {}", self.text());
        let json = self.json();
        assert_eq!((&json["type"], &json["code"]), (&kind.into(), &status.into()), "{json}");
        assert_eq!(json["txnId"].as_str(), self.header("x-response-id"), "{self:?}");
        let content_type = self.header("content-type").unwrap_or_default();
        assert!(content_type.eq_ignore_ascii_case("application/json; charset=UTF-8"), "{self:?}");
        let message = json["message"].as_str().unwrap().to_owned();
        Fault { message, details: json["details"].clone(), json }
    }
}

/// The body of a response that tells of a fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) details: Value,
    pub(crate) json: Value,
}

impl Fault {
    /// Asserts what the message is.
    #[track_caller]
    pub(crate) fn message(self, expected: &str) -> Self {
        assert_eq!(self.message, expected, "{}", self.json);
        self
    }

    /// Asserts what the details are.
    #[track_caller]
    pub(crate) fn details(self, expected: &str) -> Self {
        assert_eq!(self.details, expected, "{}", self.json);
        self
    }

    /// Asserts that the message or the details say this.
    #[track_caller]
    pub(crate) fn says(self, expected: &str) -> Self {
        let details = self.details.as_str().unwrap_or_default();
        assert!(self.message.contains(expected) || details.contains(expected), "{expected}: {}", self.json);
        self
    }
}
