//! A real ZooKeeper server, of Debian 12: fetched once, kept outside the repository, run on a port of its own.

pub(crate) mod client;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use self::client::Client;
use super::debian::packages;
use super::{Running, is_there, wait_until};

/// What a server needs at run time, beside Java.
const PACKAGES: [&str; 5] = [
    "libzookeeper-java",
    "libslf4j-java",
    "libsnappy-java",
    "libdropwizard-metrics-java",
    // For TLS.
    "libnetty-java",
];
const JARS: [&str; 14] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-nop",
    "snappy-java",
    "metrics-core",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
];

/// A server that runs. Dropped, it is killed.
pub(crate) struct Zookeeper {
    directory: TempDir,
    address: SocketAddr,
    process: Running,
}

impl Zookeeper {
    /// One that lets everybody in; none where a test that needs it is skipped.
    #[track_caller]
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::with(test, &[])
    }

    /// One with these settings, too.
    #[track_caller]
    pub(crate) fn with(test: &str, settings: &[&str]) -> Option<Self> {
        class_path(test)?;
        // Somebody else may get a port between our look and its use.
        Some((0..5).find_map(|_| Self::try_launch(settings)).unwrap())
    }

    /// Three of one ensemble, which are one registry: see [`Self::url_of`].
    #[track_caller]
    pub(crate) fn ensemble(test: &str) -> Option<Vec<Self>> {
        class_path(test)?;
        Some((0..5).find_map(|_| Self::try_launch_ensemble()).unwrap())
    }

    fn try_launch_ensemble() -> Option<Vec<Self>> {
        let held: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        drop(held);
        let mut settings = vec!["initLimit=20".to_owned(), "syncLimit=10".to_owned()];
        settings
            .extend((1..=3).map(|id| format!("server.{id}=127.0.0.1:{}:{}", ports[id - 1], ports[id + 2])));
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let launch = |id: usize| Self::launch(&settings, Some(id));
        let mut servers: Vec<_> = (1..=3).map(launch).collect();
        servers.iter_mut().all(Self::is_up).then_some(servers)
    }

    /// The registry that these servers are, under a chroot of its own.
    pub(crate) fn url_of(servers: &[Self]) -> String {
        let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
        format!("zookeeper://{}/apps", addresses.join(","))
    }

    fn try_launch(settings: &[&str]) -> Option<Self> {
        let mut server = Self::launch(settings, None);
        server.is_up().then_some(server)
    }

    /// Starts one; `id` is its number in its ensemble.
    fn launch(settings: &[&str], id: Option<usize>) -> Self {
        let directory = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = directory.path().join("data");
        let mut file = format!(
            "tickTime=500\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\nminSessionTimeout=1000\n\
             maxSessionTimeout=40000\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            data.display(),
            address.port(),
        );
        if !settings.iter().any(|setting| setting.starts_with("maxClientCnxns")) {
            file.push_str("maxClientCnxns=0\n");
        }
        file.push_str(&settings.join("\n"));
        fs::write(directory.path().join("zoo.cfg"), file).unwrap();
        if let Some(id) = id {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("myid"), id.to_string()).unwrap();
        }
        let process = run(directory.path());
        Self { directory, address, process }
    }

    /// Waits until it serves, or has ended.
    fn is_up(&mut self) -> bool {
        let mut has_ended = false;
        wait_until("zookeeper", || {
            has_ended = self.process.has_ended();
            has_ended || self.say("srvr").is_ok_and(|answer| answer.contains("Mode:"))
        });
        !has_ended
    }

    /// What it answers to one of its four-letter words.
    pub(crate) fn say(&self, word: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The registry under a chroot of its own.
    pub(crate) fn url(&self) -> String {
        format!("zookeeper://{}/apps", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody else, who looks into it directly.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it as a loss of power would.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    /// Starts it again after its end, with what it had on its disk.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process = run(self.directory.path());
        assert!(self.is_up(), "zookeeper does not start again: {}", self.log());
    }

    /// Starts it again after its end, with nothing on its disk.
    #[track_caller]
    pub(crate) fn restart_empty(&mut self) {
        fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.restart();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

fn run(directory: &Path) -> Running {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new("java");
    command
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-cp")
        .arg(class_path("a restart").unwrap())
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(directory.join("zoo.cfg"))
        .current_dir(directory);
    Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

/// Says loudly when it cannot be had, and fails in CI, which has to have it.
#[track_caller]
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
fn class_path(test: &str) -> Option<String> {
    static CLASS_PATH: OnceLock<Result<String, String>> = OnceLock::new();
    if !is_there("java", test) || !is_there("apt-get", test) || !is_there("dpkg", test) {
        return None;
    }
    let found = CLASS_PATH.get_or_init(|| {
        let root = packages("bookworm", &PACKAGES)?;
        let jars = JARS.iter().map(|jar| root.join(format!("usr/share/java/{jar}.jar")));
        Ok(jars.map(|jar| jar.display().to_string()).collect::<Vec<_>>().join(":"))
    });
    match found {
        Ok(path) => Some(path.clone()),
        Err(reason) => {
            eprintln!("SKIPPED, NEEDS zookeeper: {test}: {reason}");
            assert!(std::env::var_os("CI").is_none(), "CI has to have zookeeper for {test}: {reason}");
            None
        }
    }
}
