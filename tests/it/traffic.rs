//! Real servers under load: no request fails while they start, drain and stop, as long as they are asked for what they
//! can do.
//!
//! The load comes from a consumer that follows the registry: it looks every so often who is listed, and asks whoever
//! was when it last looked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::debian::Overlay;
use crate::support::lab::{Kind, Laboratory};
use crate::support::{Running, is_there, wait_until};

/// What makes the difference.
const WELL_BEHAVED: [&str; 2] = ["--ready-when=listening", "--drain=2s"];
/// How often the consumer looks who is there.
const GLANCE: Duration = Duration::from_millis(100);

/// How a server is asked whether it works.
#[derive(Clone, Copy)]
enum Question {
    /// A page, by HTTP.
    Page,
    /// What MySQL's protocol begins with.
    Greeting,
}

impl Question {
    /// Whether it is answered.
    fn ask(self, address: SocketAddr) -> bool {
        self.try_ask(address).unwrap_or_default()
    }

    fn try_ask(self, address: SocketAddr) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        match self {
            Self::Page => {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                Ok(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"well"))
            }
            Self::Greeting => {
                // Three bytes of length, the number of the packet, the version of the protocol.
                let mut start = [0; 5];
                stream.read_exact(&mut start)?;
                Ok(start[4] == 10)
            }
        }
    }
}

/// Asks a server for as long as it is listed. Dropped, it stops.
struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    laboratory: Laboratory,
    address: SocketAddr,
    question: Question,
    book: Mutex<Book>,
    stop: Condvar,
}

#[derive(Default)]
struct Book {
    listed: BTreeSet<String>,
    answered: usize,
    failed: usize,
    is_over: bool,
}

impl Load {
    fn on(address: SocketAddr, question: Question) -> Self {
        let laboratory = Laboratory::start(Kind::Server, "traffic").unwrap();
        let (book, stop) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { laboratory, address, question, book, stop });
        let run = |work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared))
        };
        let threads = vec![run(Shared::follow), run(Shared::ask), run(Shared::ask)];
        Self { shared, threads }
    }

    fn answered(&self) -> usize {
        self.shared.book.lock().unwrap().answered
    }

    fn failed(&self) -> usize {
        self.shared.book.lock().unwrap().failed
    }
}

impl Shared {
    fn follow(&self) {
        while self.goes_on_after(GLANCE) {
            let Some(listed) = self.laboratory.listed() else { continue };
            self.book.lock().unwrap().listed = listed;
        }
    }

    fn ask(&self) {
        while self.goes_on_after(GLANCE / 10) {
            if !self.book.lock().unwrap().listed.contains("server") {
                continue;
            }
            let is_answered = self.question.ask(self.address);
            let mut book = self.book.lock().unwrap();
            book.answered += usize::from(is_answered);
            book.failed += usize::from(!is_answered);
        }
    }

    fn goes_on_after(&self, span: Duration) -> bool {
        let book = self.book.lock().unwrap();
        !self.stop.wait_timeout_while(book, span, |book| !book.is_over).unwrap().0.is_over
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.book.lock().unwrap().is_over = true;
        self.shared.stop.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A server of somebody else's, and how it is run.
struct Program {
    question: Question,
    options: Vec<&'static str>,
    command: Vec<String>,
    overlay: Option<Overlay>,
    address: SocketAddr,
}

impl Program {
    fn start(&self, load: &Load, log: &Path, options: &[&str]) -> Running {
        let place = crate::support::Place::new();
        let mut wrapper = place.wrapper(&["--id=server", "--interval=10", "--log-level=info"]);
        wrapper.command.args(["--registry", load.shared.laboratory.url()]).args(&self.options).args(options);
        if let Some(overlay) = &self.overlay {
            overlay.mount_for(&mut wrapper.command);
        }
        let words: Vec<_> = self.command.iter().map(String::as_str).collect();
        wrapper.start_with_log(log, &words)
    }
}

/// Starts it, has it work, and stops it: with the options no request fails, without them some do.
fn serves(name: &str, program: &Program) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join(name);
    let load = Load::on(program.address, program.question);
    for _ in 0..2 {
        let before = load.answered();
        let mut wrapper = program.start(&load, &log, &WELL_BEHAVED);
        wait_until("answers", || load.answered() > before + 50);
        wrapper.signal(Signal::SIGTERM);
        wrapper.wait();
    }
    assert_eq!(load.failed(), 0, "{name}: {}", fs::read_to_string(&log).unwrap());

    // It is listed before it can serve, and asked after it has stopped.
    let mut wrapper = program.start(&load, &log, &[]);
    wait_until("a failure at the start", || load.failed() > 0);
    let before = load.answered();
    wait_until("answers", || load.answered() > before + 10);
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts slowly, as servers do that have something to load.
fn slowly(command: &str) -> Vec<String> {
    ["sh", "-c", &format!("sleep 1; exec {command}")].map(str::to_owned).to_vec()
}

#[test]
fn nginx() {
    if !is_there("nginx", "nginx under load") {
        return;
    }
    let (directory, address) = (tempfile::tempdir().unwrap(), free());
    let root = directory.path().display();
    let config = format!(
        "pid {root}/nginx.pid; error_log {root}/error.log; events {{}}
        http {{ access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
               uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
               server {{ listen {address}; location / {{ return 200 well; }} }} }}"
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let command = slowly(&format!("nginx -e stderr -c {} -g 'daemon off;'", file.display()));
    let options = vec!["--stop-signal=QUIT"];
    serves("nginx", &Program { question: Question::Page, options, command, overlay: None, address });
}

#[test]
fn apache() {
    let Some(overlay) = Overlay::of("bookworm", "Apache under load") else { return };
    let address = free();
    let config = format!(
        "ServerRoot /etc/apache2\nServerName localhost\nListen {address}\nPidFile /run/apache.pid\nErrorLog /dev/stderr\n\
         DocumentRoot /srv\nLoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so\nDirectoryIndex index.html\n"
    );
    overlay.write("srv/index.html", "well");
    overlay.write("etc/apache2/test.conf", &config);
    let command =
        slowly(&format!("chroot {} apache2 -f /etc/apache2/test.conf -DFOREGROUND", root(&overlay)));
    let options = vec!["--stop-signal=WINCH"];
    serves(
        "apache",
        &Program { question: Question::Page, options, command, overlay: Some(overlay), address },
    );
}

#[test]
fn mariadb() {
    let Some(overlay) = Overlay::of("bookworm", "MariaDB under load") else { return };
    let address = free();
    overlay.write("db.sh", &format!(
        "set -e\n[ -d /db ] || mariadb-install-db --no-defaults --datadir=/db --user=root >/dev/null\n\
         exec mariadbd --no-defaults --datadir=/db --user=root --socket=/run/db.sock --bind-address={} --port={} \
         --skip-name-resolve --max-connect-errors=1000000 --skip-log-warnings\n",
        address.ip(),
        address.port()
    ));
    let command = slowly(&format!("chroot {} sh /db.sh", root(&overlay)));
    serves(
        "mariadb",
        &Program { question: Question::Greeting, options: vec![], command, overlay: Some(overlay), address },
    );
}

fn root(overlay: &Overlay) -> String {
    let root: PathBuf = overlay.root();
    root.display().to_string()
}
