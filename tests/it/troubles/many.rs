//! Five hundred at once: at the start, at the end, and when their registry is restarted under them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::support::server::{Connection, Request, Server};
use crate::support::{Place, Running, children_of, holds_for, wait_until};

const CROWD: usize = 500;

/// How finely requests are counted: a machine that is busy elsewhere for a moment bunches them.
const WINDOW: Duration = Duration::from_secs(2);

/// Wrappers that were started together, each with a command of its own.
struct Crowd {
    wrappers: Vec<Running>,
    children: Vec<Pid>,
    logs: Vec<PathBuf>,
}

impl Crowd {
    fn start(place: &Place, options: &[&str]) -> Self {
        let log = |number| place.path().join(format!("log{number}"));
        let start = |number| {
            let id = format!("--id=web{number}");
            let wrapper = place.wrapper(&[&[&*id], options].concat());
            wrapper.start_with_log(&log(number), &["sleep", "600"])
        };
        let wrappers: Vec<_> = (0..CROWD).map(start).collect();
        let children = wrappers.iter().map(Running::child).collect();
        Self { wrappers, children, logs: (0..CROWD).map(log).collect() }
    }

    #[track_caller]
    fn has_untouched_children(&self) {
        let children: Vec<_> = self.wrappers.iter().flat_map(|wrapper| children_of(wrapper.pid())).collect();
        assert_eq!(children, self.children);
    }

    /// How many lines of each log say this.
    fn counts(&self, words: &str) -> Vec<usize> {
        let count =
            |log| fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(words)).count();
        self.logs.iter().map(count).collect()
    }

    /// Asks all of them to stop, and asserts that each ends as its child did, and leaves the registry or says why not.
    #[track_caller]
    fn stop(mut self, place: &Place, registry: &str) {
        for wrapper in &self.wrappers {
            wrapper.signal(Signal::SIGTERM);
        }
        for wrapper in &mut self.wrappers {
            assert_eq!(wrapper.wait().signal(), Some(libc::SIGTERM));
        }
        // Each gives the registry a second, which may be too little for all of them together.
        let left = self.counts("leaving the entry to expire").iter().filter(|&&count| count == 1).count();
        let removed = place.raxsr_json(&["--registry", registry, "events", "list", "--limit=1000"])["values"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["type"] == "service.remove")
            .count();
        assert!(removed > CROWD / 2 && removed + left >= CROWD, "{removed} were withdrawn, {left} left");
        assert!(listed(place, registry) <= left);
    }
}

fn listed(place: &Place, registry: &str) -> usize {
    let list = place.raxsr_json(&["--registry", registry, "services", "list", "--limit=1000"]);
    list["values"].as_array().unwrap().len()
}

/// What the wrappers ask of a server, as it counts that itself.
struct Load {
    connection: Connection,
    readings: Vec<(Instant, u64)>,
}

impl Load {
    /// From now on.
    fn on(server: &Server) -> Self {
        let mut load = Self { connection: server.connect(), readings: Vec::new() };
        load.read();
        load
    }

    /// From the start of the server.
    fn since_the_start_of(server: &Server) -> Self {
        Self { connection: server.connect(), readings: vec![(Instant::now(), 0)] }
    }

    fn read(&mut self) {
        let metrics = self.connection.exchange(&Request::new("GET", "/metrics")).is(200).text();
        let of_wrappers = |line: &&str| {
            line.starts_with("service_registry_requests_total") && !line.contains(r#"resource="other""#)
        };
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        self.readings.push((Instant::now(), metrics.lines().filter(of_wrappers).map(count).sum()));
    }

    /// Requests per second, in each of the next windows.
    fn rates(mut self, windows: usize) -> Vec<f64> {
        for _ in 0..windows {
            let (since, _) = *self.readings.last().unwrap();
            wait_until("the end of a window", || since.elapsed() >= WINDOW);
            self.read();
        }
        let rate = |pair: &[(Instant, u64)]| {
            let requests = u32::try_from(pair[1].1 - pair[0].1).unwrap();
            f64::from(requests) / (pair[1].0 - pair[0].0).as_secs_f64()
        };
        self.readings.windows(2).map(rate).collect()
    }
}

fn peak(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

#[test]
fn a_restart_under_five_hundred_wrappers_is_no_stampede() {
    let place = Place::new();
    let mut server = Server::start(Place::new(), &["--max-services=1000"]);
    let registry = format!("{}/v1.0", server.url());
    let crowd = Crowd::start(&place, &["--interval=15", "--registry", &registry]);
    wait_until("the registrations", || listed(&place, &registry) == CROWD);
    let steady = Load::on(&server).rates(2);
    let usual = steady.iter().sum::<f64>() / 2.0;

    server.kill();
    holds_for(WINDOW, "the outage", || server.has_ended());
    server.restart();
    let with_data = Load::since_the_start_of(&server).rates(3);

    server.kill();
    fs::remove_dir_all(server.place.path().join("state")).unwrap();
    server.restart();
    let empty = Load::since_the_start_of(&server).rates(3);
    wait_until("the registrations", || listed(&place, &registry) == CROWD);

    let told = format!("usual {steady:.0?}, back with data {with_data:.0?}, back empty {empty:.0?}");
    assert!(peak(&with_data) < 2.5 * usual, "{told}");
    // Whoever is told that it is forgotten registers: that makes two requests.
    assert!(peak(&empty) < 2.0 * 2.5 * usual, "{told}");
    crowd.has_untouched_children();
    // Two outages, the second of them as long as a restart takes.
    assert!(crowd.counts("trying on").iter().all(|&count| count <= 2));
    assert!(crowd.counts("registered again").iter().all(|&count| count == 1));
    crowd.stop(&place, &registry);
}

#[test]
fn five_hundred_wrappers_that_start_at_once_share_a_file() {
    let place = Place::new();
    let crowd = Crowd::start(&place, &["--interval=30"]);
    wait_until("the registrations", || listed(&place, &place.url()) == CROWD);
    crowd.has_untouched_children();
    crowd.stop(&place, &place.url());
}
