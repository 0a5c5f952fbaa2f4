//! Several registries at once: a lease each, which fails alone.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::consul::Consul;
use crate::support::etcd::{Etcd, Release};
use crate::support::peer::{Asked, Peer, Reply, agree};
use crate::support::server::Server;
use crate::support::{
    Place, RAXSR, Running, WRAPPER, Wrapper, holds_for, is_root, is_there, says, wait_until,
};

/// A wrapper that keeps `web1` in each of `urls`, and its log.
struct Wrapped {
    process: Running,
    log: PathBuf,
}

impl Wrapped {
    #[track_caller]
    fn start(place: &Place, urls: &[&str], options: &[&str]) -> Self {
        Self::start_command(place, urls, options, &["sleep", "600"])
    }

    #[track_caller]
    fn start_command(place: &Place, urls: &[&str], options: &[&str], words: &[&str]) -> Self {
        let log = place.path().join("log");
        let process = wrapper(place, urls, options).start_with_log(&log, words);
        Self { process, log }
    }

    /// Asks it to stop, and asserts that it ends as its command did.
    #[track_caller]
    fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().signal(), Some(libc::SIGTERM), "{}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

fn wrapper(place: &Place, urls: &[&str], options: &[&str]) -> Wrapper {
    let mut wrapper = place.wrapper(&["--id=web1", "--interval=3"]);
    wrapper.command.args(urls.iter().map(|url| format!("--registry={url}"))).args(options);
    wrapper
}

/// The ids that `raxsr` finds at `url`.
#[track_caller]
fn listed_at(place: &Place, url: &str) -> Vec<Value> {
    let list = place.raxsr_json(&["--registry", url, "services", "list"]);
    list["values"].as_array().unwrap().iter().map(|service| service["id"].clone()).collect()
}

/// The URL of a port that nobody listens at, or can as long as the socket is there.
fn closed() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/v1.0", socket.local_addr().unwrap());
    (socket, url)
}

/// A registry whose file is none.
fn broken() -> Place {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    fs::write(place.registry_file(), "not a database".repeat(99)).unwrap();
    place
}

/// Moves the broken file away.
fn repair(place: &Place) {
    fs::rename(place.registry_file(), place.path().join("broken")).unwrap();
}

#[test]
fn a_service_is_in_each_of_them_while_its_command_lives() {
    let (one, other) = (Place::new(), Place::new());
    let mut wrapper = Wrapped::start(&one, &[&one.url(), &other.url()], &[]);
    wait_until("the registrations", || one.lists("web1") && other.lists("web1"));
    // Longer than its timeout.
    holds_for(Duration::from_secs(4), "being listed", || one.lists("web1") && other.lists("web1"));
    wrapper.stop();
    for place in [&one, &other] {
        assert_eq!(place.events(), ["join web1", "remove web1"]);
    }
    assert_eq!(wrapper.said(), "");
}

#[test]
fn the_variable_names_them_with_blanks_between() {
    let (one, other) = (Place::new(), Place::new());
    let mut wrapper = one.wrapper(&["--id=web1"]);
    wrapper.command.env("SERVICE_REGISTRY_URL", format!(" {}\n\t{} ", one.url(), other.url()));
    let _wrapper = wrapper.start(&["sleep", "600"]);
    wait_until("the registrations", || one.lists("web1") && other.lists("web1"));
}

#[test]
fn a_command_that_ends_by_itself_is_left_to_expire_everywhere() {
    let (one, other) = (Place::new(), Place::new());
    let mut wrapper = Wrapped::start(&one, &[&one.url(), &other.url()], &[]);
    wait_until("the registrations", || one.lists("web1") && other.lists("web1"));
    kill(wrapper.process.child(), Signal::SIGKILL).unwrap();
    assert_eq!(wrapper.process.wait().signal(), Some(libc::SIGKILL));
    for place in [&one, &other] {
        wait_until("the timeout", || !place.lists("web1"));
        assert_eq!(place.events(), ["join web1", "timeout web1"]);
    }
}

#[test]
fn registries_of_different_kinds_stand_side_by_side() {
    const TEST: &str = "registries_of_different_kinds_stand_side_by_side";
    let (Some(consul), Some(etcd)) = (Consul::start(TEST), Etcd::single(Release::Bookworm, TEST)) else {
        return;
    };
    let file = Place::new();
    let urls = [consul.url(), etcd.url(), file.url()];
    let mut wrapper =
        Wrapped::start(&file, &[&urls[0], &urls[1], &urls[2]], &["--notify=registered", "--port=80"]);
    for url in &urls {
        wait_until("the registration", || listed_at(&file, url) == ["web1"]);
    }
    wrapper.stop();
    for url in &urls {
        assert!(listed_at(&file, url).is_empty(), "{url}: {}", wrapper.said());
    }
    assert_eq!(wrapper.said(), "");
}

#[test]
fn one_that_is_killed_and_comes_back_changes_nothing_for_the_other() {
    let (file, mut server) = (Place::new(), Server::open());
    let url = server.url() + "/v1.0";
    let mut wrapper = Wrapped::start(&file, &[&url, &file.url()], &[]);
    let child = wrapper.process.child();
    let is_there = || listed_at(&file, &url) == ["web1"];
    wait_until("the registrations", || file.lists("web1") && is_there());
    server.kill();
    wait_until("the failure", || says(&wrapper.log, "cannot renew the registration, trying on"));
    holds_for(Duration::from_secs(4), "being listed in the file", || file.lists("web1"));
    server.restart();
    wait_until("the registration", is_there);
    wait_until("the end of the failure", || says(&wrapper.log, "renewed the registration again"));
    assert_eq!(wrapper.process.child(), child, "the command did not notice");
    wrapper.stop();
    assert!(listed_at(&file, &url).is_empty());
    assert_eq!(file.events(), ["join web1", "remove web1"]);
    let said = wrapper.said();
    assert!(said.lines().all(|line| line.contains(&format!("registry=\"{url}\""))), "{said}");
}

#[test]
fn one_that_is_not_there_from_the_start_is_entered_when_it_comes() {
    let (file, later) = (Place::new(), Place::new());
    let (port, url) = closed();
    let mut wrapper = Wrapped::start(&file, &[&url, &file.url()], &[]);
    wait_until("the registration", || file.lists("web1"));
    wait_until("the failure", || says(&wrapper.log, "cannot register, trying on"));
    let address = url.trim_start_matches("http://").trim_end_matches("/v1.0");
    drop(port);
    let _server = Server::start_at(later, address, &[]);
    wait_until("the other registration", || listed_at(&file, &url) == ["web1"]);
    wrapper.stop();
    assert!(listed_at(&file, &url).is_empty());
    assert_eq!(file.events(), ["join web1", "remove web1"]);
}

#[test]
fn one_that_is_not_there_or_hangs_delays_no_end() {
    let file = Place::new();
    let hanging = Peer::start(|_| Reply::Hang);
    let (_port, closed) = closed();
    for url in [&closed, &hanging.url()] {
        let words = ["sh", "-c", "until [ -e told ]; do sleep 0.05; done; exit 9"];
        let mut wrapper =
            Wrapped::start_command(&file, &[url, &file.url()], &["--deregister=always"], &words);
        wait_until("the registration", || file.lists("web1"));
        fs::write(file.path().join("told"), "").unwrap();
        assert_eq!(wrapper.process.wait().code(), Some(9), "{url}: {}", wrapper.said());
        assert!(!file.lists("web1"), "{url}");
        fs::remove_file(file.path().join("told")).unwrap();
    }
}

/// The command is told only when the service has left, and of what does not answer nobody waits for long.
#[test]
fn a_stop_leaves_the_healthy_ones_before_the_command_is_told_whatever_hangs() {
    let file = Place::new();
    let hanging = Peer::start(|asked| if asked.method == "DELETE" { Reply::Hang } else { agree(asked) });
    let script = format!(
        "trap '{RAXSR} -f json -r {} services list >listed; exit 3' TERM; while :; do sleep 0.1; done",
        file.url()
    );
    let mut wrapper =
        Wrapped::start_command(&file, &[&hanging.url(), &file.url()], &[], &["sh", "-c", &script]);
    wait_until("the registrations", || file.lists("web1") && hanging.count(Asked::is_registration) > 0);
    wrapper.process.signal(Signal::SIGTERM);
    assert_eq!(wrapper.process.wait().code(), Some(3), "{}", wrapper.said());
    let listed: Value = serde_json::from_slice(&fs::read(file.path().join("listed")).unwrap()).unwrap();
    assert_eq!(listed["values"], serde_json::json!([]));
    assert_eq!(file.events(), ["join web1", "remove web1"]);
    assert!(hanging.count(|asked| asked.method == "DELETE") > 0);
}

#[test]
fn where_all_are_required_one_refusal_stops_the_command_and_it_leaves_the_others() {
    let (file, broken) = (Place::new(), broken());
    let (_port, closed) = closed();
    for refusing in [broken.url(), closed] {
        let options = ["--abort-on-failure", "--retries=2"];
        let mut wrapper = Wrapped::start(&file, &[&file.url(), &refusing], &options);
        assert_eq!(wrapper.process.wait().code(), Some(100), "{}", wrapper.said());
        assert!(wrapper.process.has_left_nobody(), "the command is still there");
        let said = wrapper.said();
        let told = format!("cannot register: stopping the child registry=\"{refusing}\"");
        assert_eq!(said.matches(&told).count(), 1, "{said}");
        assert_eq!(file.events().last().map(String::as_str), Some("remove web1"));
    }
}

#[test]
fn never_means_that_a_refused_command_is_left_to_expire_elsewhere() {
    let (file, broken) = (Place::new(), broken());
    let options = ["--abort-on-failure", "--deregister=never"];
    let mut wrapper = Wrapped::start(&file, &[&file.url(), &broken.url()], &options);
    assert_eq!(wrapper.process.wait().code(), Some(100), "{}", wrapper.said());
    wait_until("the end", || !file.lists("web1"));
    assert!(!file.events().contains(&"remove web1".to_owned()), "{:?}", file.events());
}

#[test]
fn where_any_is_enough_a_refusal_stops_nothing_and_is_tried_on() {
    let (file, broken) = (Place::new(), broken());
    let options = ["--abort-on-failure", "--require=any"];
    let mut wrapper = Wrapped::start(&file, &[&file.url(), &broken.url()], &options);
    wait_until("the registration", || file.lists("web1"));
    wait_until("the refusal", || says(&wrapper.log, "cannot register, trying on"));
    // More than one try, each of them refused for good.
    holds_for(Duration::from_secs(4), "running", || !wrapper.process.has_ended());
    repair(&broken);
    wait_until("the other registration", || broken.lists("web1"));
    wrapper.stop();
    assert_eq!(file.events(), ["join web1", "remove web1"]);
    assert_eq!(broken.events(), ["join web1", "remove web1"]);
    let said = wrapper.said();
    assert_eq!(said.matches("cannot register, trying on").count(), 1, "{said}");
    assert!(said.contains("registered at last"), "{said}");
}

#[test]
fn where_any_is_enough_the_command_is_stopped_when_all_refuse() {
    let (one, other) = (broken(), broken());
    let options = ["--abort-on-failure", "--require=any"];
    let mut wrapper = Wrapped::start(&one, &[&one.url(), &other.url()], &options);
    assert_eq!(wrapper.process.wait().code(), Some(100), "{}", wrapper.said());
    assert!(wrapper.process.has_left_nobody(), "the command is still there");
    assert!(wrapper.said().contains("cannot register: stopping the child"), "{}", wrapper.said());
}

#[test]
fn two_ways_to_one_registry_are_a_conflict_that_is_told() {
    let server = Server::open();
    let url = server.url() + "/v1.0";
    let other = url.replace("127.0.0.1", "localhost");
    let mut wrapper = Wrapped::start(&server.place, &[&url, &other], &[]);
    let holder = format!("held by pid {}", wrapper.process.pid());
    wait_until("the conflict", || says(&wrapper.log, &holder));
    assert_eq!(listed_at(&server.place, &url), ["web1"]);
    wrapper.stop();
    assert!(listed_at(&server.place, &url).is_empty());
}

/// Asserts that this is a mistake, told in these words, with a hint, and that nothing was started.
#[track_caller]
fn is_refused(place: &Place, urls: &[&str], options: &[&str], expected: &str) {
    let output = wrapper(place, urls, options).output(&["touch", "started"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains(expected) && said.contains("\nhint: "), "{said}");
    assert!(!place.path().join("started").exists(), "{said}");
}

#[test]
fn mistakes_are_told_before_anything_is_started() {
    let place = Place::new();
    let url = place.url();
    is_refused(&place, &[&url, &url], &[], &format!("--registry: {url} is named twice"));
    fs::create_dir(place.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", place.path().join("link")).unwrap();
    let [real, link] =
        ["real", "link"].map(|name| format!("sqlite://{}/{name}/a.db", place.path().display()));
    is_refused(&place, &[&url, &real, &link], &[], &format!("--registry: {link} is named twice"));
    let consul = ["consul://127.0.0.1", "http://127.0.0.1:8500/v1.0", "consul://sesame@127.0.0.1:8500"];
    is_refused(&place, &consul, &[], "--registry: consul://127.0.0.1:8500 is named twice");
    is_refused(&place, &[&url, "nonsense"], &[], "--registry: `nonsense` is not a URL");
    is_refused(&place, &[&url], &["--require=some"], "--require");
    let server = "http://127.0.0.1:9/v1.0";
    is_refused(&place, &[&url, server], &["--username=me"], &format!("{server}: a user name to log in with"));
    // Two users of one server have nothing in common.
    let users = [server, "http://me:key@127.0.0.1:9/v1.0"];
    assert_eq!(wrapper(&place, &users, &[]).output(&["true"]).status.code(), Some(0));
}

#[test]
fn raxsr_asks_one() {
    let (one, other) = (Place::new(), Place::new());
    let both = format!("{} {}", one.url(), other.url());
    let mut in_variable = one.program(RAXSR);
    in_variable.env("SERVICE_REGISTRY_URL", both);
    let mut typed = one.program(RAXSR);
    typed.args(["-r", &one.url(), "-r", &other.url()]);
    for (mut command, origin) in [(in_variable, "SERVICE_REGISTRY_URL"), (typed, "--registry")] {
        let output = command.args(["services", "list"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected =
            format!("raxsr: {origin}: one registry can be asked at a time, not 2\nhint: name the one");
        assert!(said.starts_with(&expected), "{said}");
    }
    // What is typed counts.
    let mut command = one.program(RAXSR);
    command.env("SERVICE_REGISTRY_URL", "sqlite:///a.db sqlite:///b.db");
    assert!(command.args(["-r", &one.url(), "services", "list"]).status().unwrap().success());
}

/// What it was told when somebody logged in.
fn logins(peer: &Peer) -> String {
    peer.asked().into_iter().filter(Asked::is_login).map(|asked| asked.body).collect()
}

#[test]
fn each_gets_its_own_login_and_no_other() {
    let place = Place::new();
    let [by_option, by_url, without_users] = [(); 3].map(|()| Peer::start(agree));
    let urls = [
        by_option.url(),
        by_url.url().replace("http://", "http://you:urlkey@"),
        without_users.url().replace("http://", "consul://").replace("/v1.0", ""),
        place.url(),
    ];
    let auth_url = by_option.url().replace("/v1.0", "/v2.0");
    let mut wrapper = place.wrapper(&["--id=web1", "--username=me", "--api-key=optionkey"]);
    wrapper.command.args(["--auth-url", &auth_url]).env("SERVICE_REGISTRY_URL", urls.join(" "));
    let script = "echo \"[$SERVICE_REGISTRY_URL$SERVICE_REGISTRY_API_KEY]\" >secrets; exec sleep 600";
    let mut wrapper = wrapper.start(&["sh", "-c", script]);
    wait_until("the logins", || [&by_option, &by_url].iter().all(|peer| !logins(peer).is_empty()));
    wait_until("the request", || !without_users.asked().is_empty());
    wait_until("the registration", || place.lists("web1"));
    let told = logins(&by_option);
    assert!(told.contains("optionkey") && told.contains("me") && !told.contains("urlkey"), "{told}");
    let told = logins(&by_url);
    assert!(told.contains("urlkey") && told.contains("you") && !told.contains("optionkey"), "{told}");
    let told = format!("{:?}", without_users.asked());
    assert!(!told.contains("optionkey") && !told.contains("urlkey"), "{told}");
    wait_until("the command's environment", || says(&place.path().join("secrets"), "[]\n"));
    wrapper.signal(Signal::SIGTERM);
    let said = wrapper.stderr();
    assert_eq!(
        said.matches("every user of this machine").count(),
        1,
        "what holds for all is told once: {said}"
    );
}

#[test]
fn a_key_alone_is_the_token_of_registries_without_users() {
    let (place, agent) = (Place::new(), Peer::start(agree));
    let url = agent.url().replace("http://", "consul://").replace("/v1.0", "");
    let _wrapper = Wrapped::start(&place, &[&url, &place.url()], &["--api-key=sesame"]);
    wait_until("the request", || !agent.asked().is_empty());
    assert_eq!(agent.asked()[0].header("x-consul-token"), Some("sesame"));
}

#[test]
fn of_several_the_route_is_the_one_to_the_first_on_another_machine() {
    const TEST: &str = "of_several_the_route_is_the_one_to_the_first_on_another_machine";
    if !is_root(TEST) || !is_there("unshare", TEST) || !is_there("ip", TEST) {
        return;
    }
    let place = Place::new();
    let network =
        "ip link set lo up; ip address add 10.9.9.2/32 dev lo; ip route add 10.8.0.0/16 dev lo src 10.9.9.2";
    let urls = [&*place.url(), "consul://localhost", "http://10.9.9.2:9/v1.0", "http://10.8.0.1:9/v1.0"];
    let registries = urls.map(|url| format!("--registry={url}")).join(" ");
    let script = format!("{network}; exec {WRAPPER} --id=web1 --address=route {registries} sleep 600");
    let mut command = place.program("unshare");
    command.args(["--net", "sh", "-c", &script]).env("HOME", place.path());
    let mut wrapper = Running::start(&mut command);
    wait_until("the registration", || place.lists("web1"));
    let service = place.raxsr_json(&["services", "get", "web1"]);
    assert_eq!(service["metadata"]["host"], "10.9.9.2", "{service}");
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
}

#[test]
fn who_looks_services_up_is_told_a_name_and_an_address_that_nobody_said() {
    const TEST: &str = "who_looks_services_up_is_told_a_name_and_an_address";
    let (Some(consul), Some(etcd)) = (Consul::start(TEST), Etcd::single(Release::Bookworm, TEST)) else {
        return;
    };
    let file = Place::new();
    let etcd_url = format!("{}/shop?layout=registrator", etcd.url());
    let urls = [consul.url(), etcd_url, file.url()];
    let start = |options: &[&str]| Wrapped::start(&file, &[&urls[0], &urls[1], &urls[2]], options);
    for (options, name) in [
        (&["--port=80"][..], "sleep"),
        (&["--port=80", "--tags=www,x"], "www"),
        (&["--port=80", "--tags=a b"], "sleep"),
        (&["--port=80", "--tags=www", "--metadata=name=api,host=127.0.0.1"], "api"),
    ] {
        let mut wrapper = start(options);
        wait_until("the registration", || urls.iter().all(|url| listed_at(&file, url) == ["web1"]));
        // The agent knows the address of its own machine; towards the cluster, this machine is itself.
        let service = consul.ask("GET", "/v1/agent/service/web1").is(200).json();
        assert_eq!(service["Service"], name, "{options:?}");
        assert_eq!(service["Address"], if name == "api" { "127.0.0.1" } else { "" }, "{options:?}");
        let expected = (format!("/shop/{name}/web1"), "127.0.0.1:80".to_owned());
        assert!(etcd.keys("/shop/").contains(&expected), "{:?}", etcd.keys("/shop/"));
        // Where nobody looks for a name, there is none but the one that was said.
        let here = file.raxsr_json(&["services", "get", "web1"]);
        assert_eq!(here["metadata"]["name"].is_string(), name == "api", "{here}");
        wrapper.stop();
    }
}
