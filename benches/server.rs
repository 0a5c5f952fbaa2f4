//! What a server takes, beside etcd: `cargo bench --bench server`.
//!
//! `raxsr serve` and the generator share the machine, as they do in the figures of the README. The generator is
//! one thread with plain sockets. Two ways of asking: *closed* (each connection sends its next heartbeat when the
//! last was answered, which finds the most the server can take), and *paced* at 20,000 heartbeats/s, where a
//! latency counts from when the heartbeat was due. Where Debian's etcd is installed, its lease keep-alive is
//! measured by the same generator in the same run, over the JSON gateway: one HTTP request each, as ours.
//!
//! Then our server is measured over etcd, where that is installed.
//!
//! `cargo bench --bench server -- 1000000` goes up to that many services.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool that is read by people")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

const RAXSR: &str = env!("CARGO_BIN_EXE_raxsr");
const CONNECTIONS: usize = 64;
const RATE: f64 = 20_000.0;
const SPAN: Duration = Duration::from_secs(6);

fn main() {
    let most = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{}", machine());
        ours(most, None).await;
        etcd().await;
        if let Some(store) = Server::start_etcd() {
            store.ready().await;
            ours(most.min(100_000), Some(&store)).await;
            println!("etcd: {:.0} MiB", store.memory_mib());
        }
    });
}

/// Our server over a file, or over this etcd.
async fn ours(most: usize, store: Option<&Server>) {
    let over = if store.is_some() { "etcd" } else { "a file" };
    println!("\nraxsr serve over {over}, {CONNECTIONS} connections, heartbeat timeout 120 s");
    println!(
        "{:<12} {:>11} {:>10} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8} {:>10} {:>12}",
        "services",
        "register/s",
        "closed/s",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "paced/s",
        "p50 ms",
        "p99 ms",
        "page ms",
        "server MiB"
    );
    let mut count = 1_000;
    while count <= most {
        let server = Server::start(count, store);
        let began = Instant::now();
        let services = register(server.address, count).await;
        let registered = rate(count, began.elapsed());
        let closed = load(&server, &services, None).await;
        let paced = load(&server, &services, Some(RATE)).await;
        println!(
            "{count:<12} {registered:>11.0} {:>10.0} {:>8.2} {:>8.2} {:>9.1} {:>10.0} {:>8.2} {:>8.2} {:>10} {:>12.0}",
            closed.rate(),
            closed.percentile(0.5),
            closed.percentile(0.99),
            closed.cpu_us,
            paced.rate(),
            paced.percentile(0.5),
            paced.percentile(0.99),
            format!("{:.1}/{:.1}", paced.page(0.5), paced.page(0.99)),
            server.memory_mib(),
        );
        count *= 10;
    }
    println!("CPU: of the server, for each heartbeat. page: list 1,000 services while paced, median/p99.");
}

/// A service, as its heartbeats need it.
struct Beating {
    path: String,
    token: std::sync::Mutex<String>,
}

async fn register(address: SocketAddr, count: usize) -> Arc<Vec<Beating>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS * 4 {
        let next = Arc::clone(&next);
        connections.spawn(async move {
            let mut peer = Peer::connect(address).await;
            let mut registered = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return registered;
                }
                let body = format!(
                    r#"{{"id":"service-{number:07}","heartbeat_timeout":120,"tags":["bench","t{}"],"metadata":{{"host":"10.0.0.1","port":"80"}}}}"#,
                    number % 100
                );
                let (status, answer) = peer.call("POST", "/v1.0/services", &body).await;
                assert_eq!(status, 201, "{answer}");
                let path = format!("/v1.0/services/service-{number:07}/heartbeat");
                registered.push(Beating { path, token: token(&answer).to_owned().into() });
            }
        });
    }
    let mut services = Vec::with_capacity(count);
    while let Some(registered) = connections.join_next().await {
        services.extend(registered.unwrap());
    }
    Arc::new(services)
}

/// Heartbeats for a while: each connection has its own services, and goes round them.
async fn load(server: &Server, services: &Arc<Vec<Beating>>, pace: Option<f64>) -> Load {
    let cpu_before = server.cpu();
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (services, address) = (Arc::clone(services), server.address);
        connections.spawn(async move {
            let mut peer = Peer::connect(address).await;
            let mut latencies = Vec::new();
            let gap = pace
                .map(|rate| Duration::from_secs_f64(f64::from(u32::try_from(CONNECTIONS).unwrap()) / rate));
            let mut due = start + gap.unwrap_or_default().mul_f64(fastrand::f64());
            for index in (number..services.len()).step_by(CONNECTIONS).cycle() {
                match gap {
                    Some(gap) => {
                        tokio::time::sleep_until(due).await;
                        due += gap;
                    }
                    None => due = Instant::now(),
                }
                if start.elapsed() > SPAN {
                    break;
                }
                let due = if let Some(gap) = gap { due - gap } else { due };
                let service = &services[index];
                let body = format!(r#"{{"token":"{}"}}"#, service.token.lock().unwrap());
                let (status, answer) = peer.call("POST", &service.path, &body).await;
                assert_eq!(status, 200, "{answer}");
                token(&answer).clone_into(&mut service.token.lock().unwrap());
                latencies.push(due.elapsed());
            }
            latencies
        });
    }
    let pages =
        if pace.is_some() { list_pages(server.address, services.len(), start).await } else { Vec::new() };
    let mut latencies = Vec::new();
    while let Some(some) = connections.join_next().await {
        latencies.extend(some.unwrap());
    }
    Load::new(latencies, pages, start.elapsed(), server.cpu().saturating_sub(cpu_before))
}

async fn list_pages(address: SocketAddr, services: usize, start: Instant) -> Vec<Duration> {
    let mut peer = Peer::connect(address).await;
    let mut pages = Vec::new();
    while start.elapsed() < SPAN {
        let from = fastrand::usize(..services.saturating_sub(1_000).max(1));
        let path = format!("/v1.0/services?limit=1000&marker=service-{from:07}");
        let began = Instant::now();
        let (status, answer) = peer.call("GET", &path, "").await;
        pages.push(began.elapsed());
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer.matches("last_seen").count(), services.min(1_000));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    pages
}

async fn etcd() {
    let Some(server) = Server::start_etcd() else {
        println!("\netcd is not installed: no companion to compare with (apt-get install etcd-server)");
        return;
    };
    let count = 1_000;
    let began = Instant::now();
    let mut leases = Vec::new();
    let mut peer = server.ready().await;
    for _ in 0..count {
        let (status, answer) = peer.call("POST", "/v3/lease/grant", r#"{"TTL":"120"}"#).await;
        assert_eq!(status, 200, "{answer}");
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        leases.push(value["ID"].as_str().unwrap().to_owned());
    }
    let granted = rate(count, began.elapsed());
    let leases = Arc::new(leases);
    let (start, cpu_before) = (Instant::now(), server.cpu());
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (leases, address) = (Arc::clone(&leases), server.address);
        connections.spawn(async move {
            let mut peer = Peer::connect(address).await;
            let mut latencies = Vec::new();
            for lease in leases.iter().skip(number).step_by(CONNECTIONS).cycle() {
                if start.elapsed() > SPAN {
                    break;
                }
                let began = Instant::now();
                let (status, answer) =
                    peer.call("POST", "/v3/lease/keepalive", &format!(r#"{{"ID":"{lease}"}}"#)).await;
                assert!(status == 200 && answer.contains("TTL"), "{answer}");
                latencies.push(began.elapsed());
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(some) = connections.join_next().await {
        latencies.extend(some.unwrap());
    }
    let load = Load::new(latencies, Vec::new(), start.elapsed(), server.cpu().saturating_sub(cpu_before));
    println!("\netcd, lease keep-alive over its JSON gateway, {CONNECTIONS} connections");
    println!(
        "{:<12} {:>11} {:>10} {:>8} {:>8} {:>9}",
        "leases", "grant/s", "closed/s", "p50 ms", "p99 ms", "CPU us"
    );
    println!(
        "{count:<12} {granted:>11.0} {:>10.0} {:>8.2} {:>8.2} {:>9.1}",
        load.rate(),
        load.percentile(0.5),
        load.percentile(0.99),
        load.cpu_us
    );
    println!("grant/s: one after the other.");
}

/// What came of it.
struct Load {
    latencies: Vec<Duration>,
    pages: Vec<Duration>,
    span: Duration,
    cpu_us: f64,
}

impl Load {
    fn new(mut latencies: Vec<Duration>, mut pages: Vec<Duration>, span: Duration, cpu: Duration) -> Self {
        latencies.sort();
        pages.sort();
        let cpu_us = cpu.as_secs_f64() * 1e6 / rate(latencies.len(), Duration::from_secs(1));
        Self { latencies, pages, span, cpu_us }
    }

    fn rate(&self) -> f64 {
        rate(self.latencies.len(), self.span)
    }

    fn percentile(&self, part: f64) -> f64 {
        percentile(&self.latencies, part)
    }

    fn page(&self, part: f64) -> f64 {
        percentile(&self.pages, part)
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * part).max(0.0) as usize;
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn rate(count: usize, span: Duration) -> f64 {
    count as f64 / span.as_secs_f64()
}

/// One connection, by hand: the generator should cost less than what it measures.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    host: String,
}

impl Peer {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(4096), host: address.to_string() }
    }

    async fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the server hung up");
            if let Some(answer) = answer(&self.buffer) {
                return answer;
            }
        }
    }
}

/// The whole answer, if that is all of it.
fn answer(bytes: &[u8]) -> Option<(u16, String)> {
    let head_ends = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_ends]).unwrap();
    let status = head[9..12].parse().unwrap();
    let body = &bytes[head_ends + 4..];
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    match header("content-length") {
        Some(length) => {
            let length: usize = length.parse().unwrap();
            (body.len() >= length).then(|| (status, String::from_utf8_lossy(&body[..length]).into_owned()))
        }
        // Chunked: etcd answers a keep-alive with a stream of one.
        None => body
            .ends_with(b"0\r\n\r\n")
            .then(|| (status, String::from_utf8_lossy(body).lines().nth(1).unwrap_or_default().to_owned())),
    }
}

fn token(answer: &str) -> &str {
    answer.split('"').nth(3).unwrap()
}

/// A server that runs, in a directory of its own.
struct Server {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Server {
    fn start(services: usize, store: Option<&Self>) -> Self {
        let directory = TempDir::new().unwrap();
        let registry = match store {
            Some(store) => format!("etcd://{}/bench{services}", store.address),
            None => format!("sqlite://{}/registry.db", directory.path().display()),
        };
        let mut process = Command::new(RAXSR)
            .args(["serve", "--listen=127.0.0.1:0", "--log-level=warn", "--max-services"])
            .arg((2 * services).to_string())
            .args(["--registry", &registry])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let address = url.split('/').next().unwrap().parse().unwrap();
        Self { process, address, _directory: directory }
    }

    fn start_etcd() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let etcd = std::env::split_paths(&path).map(|part| part.join("etcd")).find(|file| file.is_file())?;
        let directory = TempDir::new().unwrap();
        let [client, peer] = [free_address(), free_address()];
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new(etcd)
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--name=one", "--logger=zap", "--log-level=error"])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("one={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { process, address: client, _directory: directory })
    }

    /// A connection, once it is up.
    async fn ready(&self) -> Peer {
        let give_up = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.address).await.is_err() {
            assert!(Instant::now() < give_up, "etcd does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut peer = Peer::connect(self.address).await;
        while !peer.call("GET", "/health", "").await.1.contains("true") {
            assert!(Instant::now() < give_up, "etcd is not healthy");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        peer
    }

    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // USER_HZ is 100 on every Linux that people run.
        Duration::from_millis(ticks * 10)
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    fn memory_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() as f64 / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn machine() -> String {
    let model = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model =
        model.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}
