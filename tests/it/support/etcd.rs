//! Real etcd clusters: the release of Debian 12, which is installed, and that of Debian 13, which is fetched.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::package::Packaged;
use super::server::{Connection, Request};
use super::{Running, is_there, wait_until};

/// The user with every right, where not everybody has.
pub(crate) const ROOT: &str = "root-sesame";
/// The user `app`, who has all rights under the default prefix and no other.
pub(crate) const APP: &str = "app-sesame";

/// Which etcd: they answer in different formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// 3.4, of Debian 12.
    Bookworm,
    /// 3.5, of Debian 13, with the gateway of later versions.
    Trixie,
}

impl Release {
    pub(crate) const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    #[track_caller]
    fn program(self, test: &str) -> Option<PathBuf> {
        match self {
            Self::Bookworm => is_there("etcd", test).then(|| "etcd".into()),
            Self::Trixie => {
                Packaged { package: "etcd-server", release: "trixie", path: "usr/bin/etcd" }.program(test)
            }
        }
    }
}

/// A cluster that runs. Dropped, it is killed.
pub(crate) struct Etcd {
    directory: TempDir,
    pub(crate) members: Vec<Member>,
    encryption: Encryption,
}

/// A server of it.
pub(crate) struct Member {
    arguments: Vec<String>,
    program: PathBuf,
    directory: PathBuf,
    pub(crate) address: SocketAddr,
    process: Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    /// With certificates on both sides.
    Mutual,
}

const MAKE: &str = "
set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test authority'
for name in server client; do
    openssl req -new $key -keyout $name.key -out $name.csr -subj /O=test
    echo 'subjectAltName=IP:127.0.0.1' > extensions
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out $name.pem
done
";

impl Etcd {
    /// One server; none where a test that needs it is skipped.
    #[track_caller]
    pub(crate) fn single(release: Release, test: &str) -> Option<Self> {
        Self::start(release, test, 1, &[], Encryption::None)
    }

    /// Likewise, with options of its own.
    #[track_caller]
    pub(crate) fn with(release: Release, test: &str, options: &[&str]) -> Option<Self> {
        Self::start(release, test, 1, options, Encryption::None)
    }

    /// Three servers.
    #[track_caller]
    pub(crate) fn cluster(release: Release, test: &str) -> Option<Self> {
        Self::start(release, test, 3, &[], Encryption::None)
    }

    /// One server that asks for a login, of `root` or of `app`.
    #[track_caller]
    pub(crate) fn with_login(release: Release, test: &str, options: &[&str]) -> Option<Self> {
        let etcd = Self::start(release, test, 1, options, Encryption::None)?;
        etcd.enable_login();
        Some(etcd)
    }

    /// One server that speaks TLS, with those who have a certificate.
    #[track_caller]
    pub(crate) fn with_tls(release: Release, test: &str) -> Option<Self> {
        is_there("openssl", test).then(|| Self::start(release, test, 1, &[], Encryption::Mutual))?
    }

    #[track_caller]
    fn start(
        release: Release,
        test: &str,
        count: usize,
        options: &[&str],
        encryption: Encryption,
    ) -> Option<Self> {
        let program = release.program(test)?;
        // Somebody else may get a port between our look and its use.
        let mut tries = (0..5).map(|_| Self::try_start(&program, count, options, encryption));
        Some(tries.find_map(|etcd| etcd).unwrap())
    }

    fn try_start(program: &Path, count: usize, options: &[&str], encryption: Encryption) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        if encryption == Encryption::Mutual {
            let made = Command::new("sh").args(["-c", MAKE]).current_dir(directory.path()).output().unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let held: Vec<_> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = held.iter().map(|socket| socket.local_addr().unwrap()).collect();
        drop(held);
        let (clients, peers) = addresses.split_at(count);
        let all: Vec<_> =
            peers.iter().enumerate().map(|(number, peer)| format!("m{number}=http://{peer}")).collect();
        let scheme = if encryption == Encryption::Mutual { "https" } else { "http" };
        let members = (0..count).map(|number| {
            let (client, peer) =
                (format!("{scheme}://{}", clients[number]), format!("http://{}", peers[number]));
            let data = directory.path().join(format!("m{number}"));
            fs::create_dir(&data).unwrap();
            let mut arguments = vec![
                format!("--name=m{number}"),
                format!("--data-dir={}", data.join("data").display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", all.join(",")),
                "--logger=zap".to_owned(),
                "--log-level=warn".to_owned(),
            ];
            arguments.extend(options.iter().map(|&option| option.to_owned()));
            if encryption == Encryption::Mutual {
                let file = |name: &str| directory.path().join(name).display().to_string();
                arguments.push(format!("--cert-file={}", file("server.pem")));
                arguments.push(format!("--key-file={}", file("server.key")));
                arguments.push(format!("--trusted-ca-file={}", file("ca.pem")));
                arguments.push("--client-cert-auth".to_owned());
            }
            let process = run(program, &arguments, &data);
            let program = program.to_owned();
            Member { arguments, program, directory: data, address: clients[number], process }
        });
        let members = members.collect();
        let mut etcd = Self { directory, members, encryption };
        etcd.is_up().then_some(etcd)
    }

    /// Waits until every member answers, or one has ended.
    fn is_up(&mut self) -> bool {
        let encryption = self.encryption;
        let mut has_ended = false;
        wait_until("etcd", || {
            has_ended = self.members.iter_mut().any(|member| member.process.has_ended());
            has_ended || self.members.iter().all(|member| member.is_healthy(encryption))
        });
        !has_ended
    }

    fn enable_login(&self) {
        let ask = |path: &str, body: Value| assert_eq!(self.ask(path, &body).0, 200, "{path}");
        ask("auth/user/add", json!({"name": "root", "password": ROOT}));
        ask("auth/role/add", json!({"name": "root"}));
        ask("auth/user/grant", json!({"user": "root", "role": "root"}));
        ask("auth/role/add", json!({"name": "app"}));
        let (key, end) = (STANDARD.encode("/service-registry/"), STANDARD.encode("/service-registry0"));
        let permission = json!({"permType": "READWRITE", "key": key, "range_end": end});
        ask("auth/role/grant", json!({"name": "app", "perm": permission}));
        ask("auth/user/add", json!({"name": "app", "password": APP}));
        ask("auth/user/grant", json!({"user": "app", "role": "app"}));
        ask("auth/enable", json!({}));
    }

    /// Creates the user `app` anew: whoever has logged in as him has to do so again.
    pub(crate) fn renew_user(&self, password: &str) {
        let token =
            self.ask("auth/authenticate", &json!({"name": "root", "password": ROOT})).1["token"].clone();
        let token = token.as_str().unwrap();
        for (path, body) in [
            ("auth/user/delete", json!({"name": "app"})),
            ("auth/user/add", json!({"name": "app", "password": password})),
            ("auth/user/grant", json!({"user": "app", "role": "app"})),
        ] {
            let request = Request::new("POST", &format!("/v3/{path}")).header("Authorization", token);
            request.body(body.to_string()).send(self.members[0].address).is(200);
        }
    }

    /// Where it is, without a name or a password.
    pub(crate) fn url(&self) -> String {
        self.url_with("")
    }

    /// Likewise with something before the first host, such as `name:password@`.
    pub(crate) fn url_with(&self, login: &str) -> String {
        let scheme = if self.encryption == Encryption::Mutual { "etcd+https" } else { "etcd" };
        let servers: Vec<_> = self.members.iter().map(|member| member.address.to_string()).collect();
        format!("{scheme}://{login}{}", servers.join(","))
    }

    /// A file of the certificates that it was started with.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Asks whichever member answers first, directly.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        self.members.iter().find_map(|member| member.ask(path, body).ok()).unwrap()
    }

    /// All keys that begin with `prefix`, and their values.
    #[track_caller]
    pub(crate) fn keys(&self, prefix: &str) -> Vec<(String, String)> {
        let mut end = prefix.as_bytes().to_owned();
        *end.last_mut().unwrap() += 1;
        let body = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)});
        let answer = self.ask("kv/range", &body).1;
        let text = |value: &Value| {
            String::from_utf8(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()).unwrap()
        };
        let found = answer["kvs"].as_array().cloned().unwrap_or_default();
        found.iter().map(|found| (text(&found["key"]), text(&found["value"]))).collect()
    }

    pub(crate) fn delete(&self, key: &str) {
        let (status, _) = self.ask("kv/deleterange", &json!({"key": STANDARD.encode(key)}));
        assert_eq!(status, 200);
    }

    /// The numbers of all leases.
    pub(crate) fn leases(&self) -> Vec<String> {
        let answer = self.ask("lease/leases", &json!({})).1;
        let leases = answer["leases"].as_array().cloned().unwrap_or_default();
        leases.iter().map(|lease| lease["ID"].as_str().unwrap().to_owned()).collect()
    }

    /// Forgets what was before now.
    pub(crate) fn compact(&self) {
        let revision = self.ask("kv/range", &json!({"key": "AA=="})).1["header"]["revision"].clone();
        assert_eq!(self.ask("kv/compaction", &json!({"revision": revision, "physical": true})).0, 200);
    }

    /// The number of the member that leads.
    pub(crate) fn leader(&self) -> usize {
        let leads = |member: &Member| {
            let (_, status) = member.ask("maintenance/status", &json!({})).unwrap();
            status["leader"] == status["header"]["member_id"]
        };
        self.members.iter().position(leads).unwrap()
    }

    /// Starts all again that were killed, with what they had on their disks.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        for member in &mut self.members {
            if member.process.has_ended() {
                member.process = run(&member.program, &member.arguments, &member.directory);
            }
        }
        assert!(self.is_up(), "etcd does not start again");
    }

    /// Likewise, with nothing on their disks.
    #[track_caller]
    pub(crate) fn restart_empty(&mut self) {
        for member in &self.members {
            fs::remove_dir_all(member.directory.join("data")).unwrap();
        }
        self.restart();
    }
}

impl Member {
    fn ask(&self, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let request = Request::new("POST", &format!("/v3/{path}")).body(body.to_string());
        let response = Connection::try_open(self.address)?.try_exchange(&request)?;
        Ok((response.status, response.json()))
    }

    fn is_healthy(&self, encryption: Encryption) -> bool {
        if encryption == Encryption::Mutual {
            // It takes only those who have a certificate: enough that it takes connections.
            return Connection::try_open(self.address).is_ok();
        }
        let health = Connection::try_open(self.address)
            .and_then(|mut connection| connection.try_exchange(&Request::new("GET", "/health")));
        health.is_ok_and(|health| health.text().contains("\"true\""))
    }

    /// Ends it as a loss of power would.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

fn run(program: &Path, arguments: &[String], directory: &Path) -> Running {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Running::start(&mut command)
}
