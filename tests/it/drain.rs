//! A planned stop that spares those who have looked the service up: out of the registry first, the signal later.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::consul::Consul;
use crate::support::lab::{Kind, Laboratory};
use crate::support::pty::Terminal;
use crate::support::{Place, RAXSR, Running, WRAPPER, holds_for, says, wait_until};

/// Longer than any test takes: what is over before is over for another reason.
const FOR_EVER: &str = "--drain=12h";

/// A command that ends with 4 when it is told to stop, and notes whether it is listed then: 3 is "no such service".
fn server() -> String {
    format!(
        "trap '{RAXSR} services get web1 >/dev/null 2>&1; echo \"told, listed: $?\" >>notes; exit 4' TERM
        trap 'echo hung up >>notes' HUP
        while :; do sleep 0.05; done"
    )
}

struct Drained {
    place: Place,
    wrapper: Running,
    log: PathBuf,
}

impl Drained {
    /// `web1` in the registry at `url`, listed.
    #[track_caller]
    fn at(url: &str, options: &[&str]) -> Self {
        let drained = Self::starting_at(url, options);
        wait_until("the registration", || says(&drained.log, " registered "));
        drained
    }

    fn starting_at(url: &str, options: &[&str]) -> Self {
        let place = Place::new().with_environment(&[("SERVICE_REGISTRY_URL", url.to_owned())]);
        let log = place.path().join("log");
        let own = ["--id=web1", "--log-level=info", "--port=8000", "--address=127.0.0.1"];
        let wrapper = place.wrapper(&[&own, options].concat());
        let wrapper = wrapper.start_with_log(&log, &["sh", "-c", &server()]);
        Self { place, wrapper, log }
    }

    fn notes(&self) -> String {
        std::fs::read_to_string(self.place.path().join("notes")).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn stop(&self) {
        self.wrapper.signal(Signal::SIGTERM);
    }

    /// Asserts that it ends as its command does, having said these things in this order.
    #[track_caller]
    fn ends_having_said(&mut self, steps: &[&str]) {
        assert_eq!(self.wrapper.wait().code(), Some(4), "{}", self.log());
        let log = self.log();
        let mut rest = &*log;
        for step in steps {
            let Some((_, after)) = rest.split_once(step) else { panic!("no `{step}` in its place: {log}") };
            rest = after;
        }
    }
}

#[test]
fn the_signal_comes_when_the_service_has_been_out_of_the_registry_for_so_long() {
    let place = Place::new();
    let mut drained = Drained::at(&place.url(), &["--drain=700ms"]);
    let asked_at = Instant::now();
    drained.stop();
    let steps = [
        "deregistered",
        "draining",
        "at_most=700ms",
        "drained took=",
        "telling the command",
        "has stopped took=",
    ];
    drained.ends_having_said(&steps);
    assert!(asked_at.elapsed() >= Duration::from_millis(700));
    assert_eq!(drained.notes(), "told, listed: 3\n");
    assert_eq!(place.events(), ["join web1", "remove web1"]);
}

#[test]
fn it_serves_on_in_between_and_a_second_request_ends_that() {
    let place = Place::new();
    let mut drained = Drained::at(&place.url(), &[FOR_EVER]);
    drained.stop();
    wait_until("the deregistration", || !place.lists("web1"));
    drained.wrapper.signal(Signal::SIGHUP);
    wait_until("what is no request to stop", || drained.notes() == "hung up\n");
    holds_for(Duration::from_millis(500), "serving", || drained.notes() == "hung up\n");
    drained.stop();
    drained.ends_having_said(&["draining", "asked to stop again", "telling the command"]);
    assert_eq!(drained.notes(), "hung up\ntold, listed: 3\n");
}

#[test]
fn a_command_that_ends_while_it_drains_ends_the_wrapper() {
    let place = Place::new();
    let mut drained = Drained::at(&place.url(), &[FOR_EVER]);
    let child = drained.wrapper.child();
    drained.stop();
    wait_until("the drain", || says(&drained.log, "draining"));
    nix::sys::signal::kill(child, Signal::SIGTERM).unwrap();
    drained.ends_having_said(&["draining", "ended while it was draining"]);
}

#[test]
fn every_kind_of_registry_tells_when_the_service_is_listed_no_more() {
    for kind in Kind::ALL {
        let test = "every_kind_of_registry_tells_when_the_service_is_listed_no_more";
        let Some(laboratory) = Laboratory::start(kind, test) else { continue };
        let mut drained = Drained::at(laboratory.url(), &[FOR_EVER, "--drain-until-unlisted"]);
        wait_until("the list", || laboratory.lists("web1"));
        drained.stop();
        drained.ends_having_said(&["deregistered", "not listed any more", "drained", "telling the command"]);
        assert_eq!(drained.notes(), "told, listed: 3\n", "{kind:?}: {}", drained.log());
        assert!(!drained.log().contains("WARN"), "{kind:?}: {}", drained.log());
    }
}

/// An agent knows of its own deregistration while the servers, and with them all consumers, do not.
#[test]
fn what_counts_is_what_consumers_are_shown() {
    let Some(server) = Consul::start("what_counts_is_what_consumers_are_shown") else { return };
    let agent = server.joined_by("n2");
    let mut drained = Drained::at(&agent.url(), &[FOR_EVER, "--drain-until-unlisted", "--name=web"]);
    wait_until("the catalog", || server.passing("web") == 1);
    server.signal(Signal::SIGSTOP);
    drained.stop();
    wait_until("the drain", || says(&drained.log, "draining"));
    wait_until("the agent", || agent.ask("GET", "/v1/agent/services").json().get("web1").is_none());
    holds_for(Duration::from_secs(1), "draining", || drained.notes().is_empty());
    server.signal(Signal::SIGCONT);
    wait_until("the signal", || !drained.notes().is_empty());
    assert_eq!(server.passing("web"), 0);
    drained.ends_having_said(&["draining", "not listed any more", "drained", "telling the command"]);
}

/// What a token may not read, Consul leaves out: that is not the same as not being there.
#[test]
fn who_may_not_see_the_list_does_not_take_it_for_empty() {
    let Some(consul) = Consul::denying("who_may_not_see_the_list_does_not_take_it_for_empty") else { return };
    let rules = r#"service "web" { policy = "write" }"#;
    consul.tell("/v1/acl/policy", &serde_json::json!({"Name": "web", "Rules": rules}));
    let token = serde_json::json!({"Policies": [{"Name": "web"}]});
    let token = consul.tell("/v1/acl/token", &token).json()["SecretID"].as_str().unwrap().to_owned();
    let options = ["--drain=500ms", "--drain-until-unlisted", "--name=web"];
    let mut drained = Drained::at(&consul.url_with_token(&token), &options);
    drained.stop();
    drained.ends_having_said(&["deregistered", "draining", "cannot see whether it is still listed"]);
    assert!(drained.log().contains("may not read nodes"), "{}", drained.log());
}

#[test]
fn of_several_registries_those_count_that_answer() {
    let test = "of_several_registries_those_count_that_answer";
    let Some(dead) = Laboratory::start(Kind::Server, test) else { return };
    let place = Place::new();
    let urls = format!("{} {}", dead.url(), place.url());
    let mut drained = Drained::starting_at(&urls, &[FOR_EVER, "--drain-until-unlisted"]);
    wait_until("both registrations", || place.lists("web1") && dead.lists("web1"));
    dead.kill();
    drained.stop();
    drained.ends_having_said(&[
        "draining",
        "drained",
        "cannot see whether it is still listed",
        "telling the command",
    ]);
    assert!(!place.lists("web1"));
}

#[test]
fn a_dead_registry_is_no_reason_not_to_drain_and_none_to_drain_for_longer() {
    let test = "a_dead_registry_is_no_reason_not_to_drain_and_none_to_drain_for_longer";
    for options in [&["--drain=700ms"][..], &["--drain=700ms", "--drain-until-unlisted"]] {
        let Some(dead) = Laboratory::start(Kind::Server, test) else { return };
        let mut drained = Drained::at(dead.url(), options);
        dead.kill();
        drained.stop();
        drained.ends_having_said(&["draining", "at_most=700ms", "took=", "telling the command"]);
        let is_unseen = drained.log().contains("cannot see whether it is still listed");
        assert_eq!(is_unseen, options.len() > 1, "{}", drained.log());
        assert!(drained.log().contains("cannot deregister"), "{}", drained.log());
    }
}

#[test]
fn who_was_never_registered_is_stopped_at_once() {
    let blocked = Place::new();
    std::fs::write(blocked.path().join("state"), "").unwrap();
    let mut drained = Drained::starting_at(&blocked.url(), &[FOR_EVER]);
    wait_until("the failure", || says(&drained.log, "cannot register"));
    drained.stop();
    drained.ends_having_said(&["telling the command"]);
    assert!(!drained.log().contains("draining"), "{}", drained.log());
}

#[test]
fn the_time_to_end_in_counts_from_the_signal() {
    let place = Place::new();
    let log = place.path().join("log");
    let options = ["--id=stuck", "--log-level=info", "--drain=500ms", "--stop-timeout=200ms"];
    let script = "trap '' TERM; while :; do sleep 0.05; done";
    let mut wrapper = place.wrapper(&options).start_with_log(&log, &["sh", "-c", script]);
    wait_until("the registration", || place.lists("stuck"));
    wrapper.signal(Signal::SIGTERM);
    assert_eq!(wrapper.wait().signal(), Some(libc::SIGKILL));
    let log = std::fs::read_to_string(log).unwrap();
    let steps: Vec<_> = ["drained took=", "telling the command", "killing it took="]
        .iter()
        .map(|step| log.find(step))
        .collect();
    assert!(steps.iter().all(Option::is_some) && steps.is_sorted(), "{log}");
}

#[test]
fn ctrl_c_reaches_the_command_and_cannot_wait() {
    for more in [&[][..], &["--signal-group"]] {
        let place = Place::new();
        let mut command = place.program(WRAPPER);
        command.args(["--id=typed", FOR_EVER]).args(more).args(["sleep", "600"]);
        let mut terminal = Terminal::start(command);
        wait_until("the registration", || place.lists("typed"));
        terminal.type_in("\x03");
        terminal.program.wait();
        assert_eq!(place.events(), ["join typed", "remove typed"]);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    for (options, expected) in [
        (&["--drain=5s", "--deregister=never"][..], "--drain: with --deregister=never"),
        (
            &["--drain-until-unlisted", "--deregister=never"],
            "--drain-until-unlisted: with --deregister=never",
        ),
        (&["--drain=25h"], "longer than 24 hours"),
        (&["--drain=soon"], "`soon`"),
    ] {
        let output = place.wrapper(options).output(&["touch", "started"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(expected) || said.contains("'soon'"), "{said}");
        assert!(!place.path().join("started").exists());
    }
    let never = place.wrapper(&["--drain=0", "--id=none"]).output(&["true"]);
    assert!(never.status.success(), "{never:?}");
}
