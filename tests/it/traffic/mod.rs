//! Real servers under load: with the options that README has for them no request fails while they start, drain and
//! stop. Without, some do.
//!
//! The servers are those of Debian, configured as the distribution does.

mod load;
mod protocol;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use nix::sys::signal::Signal;

use self::load::Load;
use self::protocol::Protocol;
use crate::support::debian::Overlay;
use crate::support::{Place, Running, says, wait_until};

/// More than a connection has room for, wherever buffers are large.
const LARGE: u64 = 128 << 20;

/// A server program, and how it is run.
struct Software {
    protocol: Protocol,
    /// What makes the difference.
    options: &'static [&'static str],
    command: &'static [&'static str],
    configuration: fn(SocketAddr) -> Vec<(&'static str, String)>,
}

const NGINX: Software = Software {
    protocol: Protocol::Http,
    options: &["--ready-when=listening", "--drain=5s", "--stop-signal=QUIT"],
    command: &["nginx", "-g", "daemon off;"],
    configuration: |address| {
        let site = format!("server {{ listen {address}; root /var/www/html; }}");
        vec![("etc/nginx/sites-enabled/default", site)]
    },
};

const APACHE: Software = Software {
    protocol: Protocol::Http,
    options: &["--ready-when=listening", "--drain=5s", "--stop-signal=WINCH"],
    command: &["sh", "-c", ". /etc/apache2/envvars; exec apache2 -DFOREGROUND"],
    configuration: |address| {
        vec![
            ("etc/apache2/ports.conf", format!("Listen {address}\n")),
            (
                "etc/apache2/sites-enabled/000-default.conf",
                "ServerName localhost\nDocumentRoot /var/www/html\n".to_owned(),
            ),
            ("run/apache2/made", String::new()),
            ("run/lock/apache2/made", String::new()),
        ]
    },
};

const MARIADB: Software = Software {
    protocol: Protocol::Mysql,
    options: &["--ready-when=listening", "--drain=5s"],
    command: &["mariadbd", "--user=mysql"],
    configuration: |address| {
        let settings = format!(
            "[mariadbd]\nbind-address={}\nport={}\nskip-name-resolve\ninit-file=/users.sql\n\
             socket=/tmp/mysqld.sock\npid-file=/tmp/mysqld.pid\n",
            address.ip(),
            address.port()
        );
        vec![
            ("etc/mysql/mariadb.conf.d/99-traffic.cnf", settings),
            ("users.sql", "CREATE USER IF NOT EXISTS consumer;\n".to_owned()),
        ]
    },
};

#[test]
fn nginx_fails_no_request_with_the_options_and_some_without() {
    under_load(&NGINX, "nginx_fails_no_request_with_the_options_and_some_without");
}

#[test]
fn apache_fails_no_request_with_the_options_and_some_without() {
    under_load(&APACHE, "apache_fails_no_request_with_the_options_and_some_without");
}

#[test]
fn mariadb_fails_no_request_with_the_options_and_some_without() {
    under_load(&MARIADB, "mariadb_fails_no_request_with_the_options_and_some_without");
}

/// Each of two is started and restarted while the other serves, and then both are stopped; and one without options.
#[track_caller]
fn under_load(software: &'static Software, test: &str) {
    let place = Place::new();
    let instances = ["one", "two"].map(|id| Instance::new(&place, software, id, test));
    let [Some(mut one), Some(mut two)] = instances else { return };

    let load = Load::on(place.url(), software.protocol);
    for instance in [&mut one, &mut two] {
        instance.start_well(&load);
    }
    for instance in [&mut one, &mut two] {
        instance.stop_well(&load);
        instance.start_well(&load);
    }
    let [mut first, mut second] = [one.take(), two.take()];
    for wrapper in [&first, &second] {
        wrapper.signal(Signal::SIGTERM);
    }
    for wrapper in [&mut first, &mut second] {
        assert!(wrapper.wait().success());
    }
    let (answered, failures) = (load.answered(), load.failures());
    assert!(failures.is_empty(), "{answered} answered, {} not: {:?}", failures.len(), failures.first());

    one.start_badly(&load);
    one.stop_badly(&load);
}

/// A server of its own, with an address of its own.
struct Instance<'a> {
    place: &'a Place,
    software: &'static Software,
    id: &'static str,
    address: SocketAddr,
    overlay: Overlay,
    wrapper: Option<Running>,
}

impl<'a> Instance<'a> {
    #[track_caller]
    fn new(place: &'a Place, software: &'static Software, id: &'static str, test: &str) -> Option<Self> {
        let overlay = Overlay::of("bookworm", test)?;
        let address = address();
        for (path, text) in (software.configuration)(address) {
            overlay.write(path, &text);
        }
        overlay.write("var/www/html/index.html", "well");
        File::create(overlay.above().join("var/www/html/large")).unwrap().set_len(LARGE).unwrap();
        Some(Self { place, software, id, address, overlay, wrapper: None })
    }

    fn log(&self) -> PathBuf {
        self.place.path().join(self.id)
    }

    fn gate(&self) -> PathBuf {
        self.place.path().join(format!("{}.gate", self.id))
    }

    /// Starts it, with something to do before it can serve that takes until the gate is open.
    fn start(&mut self, options: &[&str]) {
        let _ = fs::remove_file(self.gate());
        let [id, host] = [format!("--id={}", self.id), format!("--address={}", self.address.ip())];
        let port = format!("--port={}", self.address.port());
        let own = ["--log-level=info", &id, &host, &port];
        let script = format!("until [ -e {} ]; do sleep 0.02; done; exec \"$@\"", self.gate().display());
        let command = self.overlay.command(self.software.command);
        let mut words = vec!["sh", "-c", &script, "sh"];
        words.extend(command.iter().map(String::as_str));
        let wrapper = self.place.wrapper(&[&own, options].concat());
        self.wrapper = Some(wrapper.start_with_log(&self.log(), &words));
    }

    fn open_gate(&self, load: &Load) {
        fs::write(self.gate(), "").unwrap();
        load.wait_for_answers(self.id);
    }

    fn take(&mut self) -> Running {
        self.wrapper.take().unwrap()
    }

    /// With the options: nobody is sent to it who would not be served.
    #[track_caller]
    fn start_well(&mut self, load: &Load) {
        self.start(self.software.options);
        load.wait_for_looks(2);
        assert!(!load.knows(self.id), "it is listed before it can serve");
        self.open_gate(load);
    }

    /// It serves on whoever has looked it up, and finishes what it has begun.
    #[track_caller]
    fn stop_well(&mut self, load: &Load) {
        load.wait_for_answers(self.id);
        let pending = self.software.protocol.begin(self.address).unwrap();
        let mut wrapper = self.take();
        wrapper.signal(Signal::SIGTERM);
        let last_moment = match self.software.protocol {
            Protocol::Http => "telling the command to stop",
            // It ends what it is asked when it is to stop: that has to be done by then.
            Protocol::Mysql => "draining",
        };
        wait_until(last_moment, || says(&self.log(), last_moment));
        pending.finish().unwrap();
        assert!(wrapper.wait().success());
        assert!(!load.knows(self.id), "it has stopped while somebody would still ask it");
    }

    /// Without the options: it is asked before it can serve.
    #[track_caller]
    fn start_badly(&mut self, load: &Load) {
        self.start(&[]);
        wait_until("a failure at the start", || !load.failures().is_empty());
        self.open_gate(load);
    }

    /// What it has begun is cut off, and it is asked after it has stopped, unless the consumer happens to look between
    /// the deregistration and the end: then once more.
    #[track_caller]
    fn stop_badly(&mut self, load: &Load) {
        for _ in 0..20 {
            let pending = self.software.protocol.begin(self.address).unwrap();
            load.wait_for_looks(1);
            let before = load.failures().len();
            let mut wrapper = self.take();
            wrapper.signal(Signal::SIGTERM);
            wrapper.wait();
            assert!(pending.finish().is_err());
            load.wait_for_looks(1);
            if load.failures().len() > before {
                return;
            }
            self.start(&[]);
            self.open_gate(load);
        }
        panic!("no request has failed at the stop");
    }
}

/// On an address that no other program has, so that none can take the port between a stop and a start.
fn address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let next = || {
        static LAST: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
        LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    };
    let address = Ipv4Addr::new(127, high.max(1), low, next());
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}
