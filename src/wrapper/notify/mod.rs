//! `sd_notify(3)`: what the child tells its service manager, and what we do.
//!
//! A manager listens to its main process, which is us: the child gets a socket of ours, and what it says there is
//! passed on in our name, descriptors and all. We add how the lease stands, and, as [`ReadyWhen`] says, tell in the
//! child's place that it is ready.

mod socket;

use std::time::Duration;

use tracing::{debug, warn};

pub(super) use self::socket::{Ears, Offer, Receiver};
use self::socket::{Manager, Message};
use crate::lease::Standing;
use crate::lease::fleet::Member;
use crate::model::escaped;
use crate::registry::Recourse;

/// When the service manager is told that the service is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReadyWhen {
    /// When the command says so.
    Child,
    /// As soon as the command runs: for one that does not speak `sd_notify`.
    Started,
    /// When it is registered.
    Registered,
}

/// What is said to the service manager. Without one, nothing.
pub(super) struct Notifier {
    manager: Option<Manager>,
    speech: Speech,
}

impl Notifier {
    pub(super) fn new(manager: Option<Manager>, ready_when: ReadyWhen) -> Self {
        Self { manager, speech: Speech::new(ready_when) }
    }

    /// The command runs.
    pub(super) fn started(&mut self) {
        let text = self.speech.started();
        self.say(&text, &Message::default());
    }

    /// The child said something.
    pub(super) fn heard(&mut self, message: &Message) {
        debug!(text = %message.text.escape_ascii(), descriptors = message.descriptors.len(), "child notifies");
        let text = self.speech.relay(&message.text);
        self.say(&text, message);
    }

    /// A lease stands otherwise than before: how all stand together, and each.
    pub(super) fn leases_are(&mut self, overall: Standing, leases: &[Member]) {
        let text = self.speech.leases_are(overall, leases);
        self.say(&text, &Message::default());
    }

    /// The service is not listed because of this, or is listed again when nothing is in its way any more.
    pub(super) fn unfit(&mut self, why: Option<&str>) {
        let text = self.speech.unfit(why);
        self.say(&text, &Message::default());
    }

    /// We were asked to stop.
    pub(super) fn stopping(&mut self) {
        self.speech.unfit = None;
        self.say(b"STOPPING=1\n", &Message::default());
    }

    /// We are not to be killed before so much time has passed, whatever we were given to stop in.
    pub(super) fn extend(&mut self, span: Duration) {
        let text = format!("EXTEND_TIMEOUT_USEC={}\n", span.as_micros());
        self.say(text.as_bytes(), &Message::default());
    }

    /// The child serves on for as long as this; none when that is over.
    pub(super) fn drains_for(&mut self, left: Option<Duration>) {
        let text = self.speech.drains_for(left);
        self.say(&text, &Message::default());
    }

    /// A request to reload was passed on.
    pub(super) fn reloaded(&mut self) {
        let text = self.speech.reloaded();
        self.say(&text, &Message::default());
    }

    fn say(&self, text: &[u8], message: &Message) {
        let Some(manager) = &self.manager else { return };
        if text.is_empty() && message.descriptors.is_empty() {
            return;
        }
        if let Err(error) = manager.send(text, &message.descriptors) {
            warn!(error = %error, "cannot notify the service manager");
        }
    }
}

/// What is said, line by line, without the saying.
struct Speech {
    ready_when: ReadyWhen,
    is_ready: bool,
    child_speaks: bool,
    child_status: Option<Vec<u8>>,
    leases: Standing,
    lease: String,
    /// Said in its place.
    unfit: Option<String>,
    /// Said in the place of both.
    drain: Option<String>,
}

impl Speech {
    fn new(ready_when: ReadyWhen) -> Self {
        Self {
            ready_when,
            is_ready: false,
            child_speaks: false,
            child_status: None,
            leases: Standing::Idle,
            lease: String::new(),
            unfit: None,
            drain: None,
        }
    }

    fn started(&mut self) -> Vec<u8> {
        if self.ready_when == ReadyWhen::Started { self.ready() } else { Vec::new() }
    }

    fn ready(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.is_ready, true) { Vec::new() } else { b"READY=1\n".to_vec() }
    }

    /// What of the child's words is passed on: all but its claim to be the main process, and its first claim to be
    /// ready where that is ours to make. Its status is joined with ours.
    fn relay(&mut self, text: &[u8]) -> Vec<u8> {
        self.child_speaks = true;
        let mut passed = Vec::new();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if line.starts_with(b"MAINPID=") || line.starts_with(b"MAINPIDFDID=") {
                continue;
            }
            if let Some(status) = line.strip_prefix(b"STATUS=") {
                self.child_status = Some(status.to_vec());
                passed.extend(self.status());
                continue;
            }
            if line == b"READY=1" && !self.is_ready {
                if self.ready_when != ReadyWhen::Child {
                    continue;
                }
                self.is_ready = true;
            }
            passed.extend(line);
            passed.push(b'\n');
        }
        passed
    }

    fn leases_are(&mut self, overall: Standing, leases: &[Member]) -> Vec<u8> {
        // What it was stopped for is what is to be read of it afterwards.
        let is_over = self.leases == Standing::Refused && is_leaving(overall);
        if is_over || overall == Standing::Idle {
            return Vec::new();
        }
        self.leases = overall;
        self.lease = told(overall, leases);
        let mut text = self.status();
        // Whoever drained it does not want it to look as though it could not start.
        if matches!(overall, Standing::Held | Standing::Drained) && self.ready_when == ReadyWhen::Registered {
            text.extend(self.ready());
        }
        text
    }

    fn status(&self) -> Vec<u8> {
        let child = self.child_status.as_deref().unwrap_or_default();
        let ours = self.drain.as_ref().or(self.unfit.as_ref()).unwrap_or(&self.lease);
        let between: &[u8] = if child.is_empty() || ours.is_empty() { b"" } else { b"; " };
        [b"STATUS=", child, between, ours.as_bytes(), b"\n"].concat()
    }

    fn unfit(&mut self, why: Option<&str>) -> Vec<u8> {
        self.unfit = why.map(|why| format!("not listed: {}", escaped(why)));
        // What is to be said of a lease that is only now wanted comes with it.
        if why.is_none() && self.lease.is_empty() { Vec::new() } else { self.status() }
    }

    fn drains_for(&mut self, left: Option<Duration>) -> Vec<u8> {
        let text = |left: Duration| {
            let seconds = Duration::from_secs(left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
            format!("draining, to be stopped in {} at most", humantime::format_duration(seconds))
        };
        self.drain = left.map(text);
        self.status()
    }

    /// `Type=notify-reload` waits for an answer to its signal: ours, from a child that does not speak.
    fn reloaded(&self) -> Vec<u8> {
        if self.child_speaks || !self.is_ready {
            return Vec::new();
        }
        format!("RELOADING=1\nMONOTONIC_USEC={}\nREADY=1\n", socket::monotonic_micros()).into_bytes()
    }
}

/// How the leases stand, in a few words: with several registries, in how many the service is, and which are in trouble.
fn told(overall: Standing, leases: &[Member]) -> String {
    let is_in = |standing| leases.iter().filter(|lease| lease.standing == standing).count();
    if is_leaving(overall) || is_in(overall) == leases.len() {
        return words(overall).to_owned();
    }
    let mut text = format!("registered in {} of {} registries", is_in(Standing::Held), leases.len());
    for Member { registry, standing, failure, .. } in leases {
        let is_away = failure.as_ref().is_some_and(|failure| failure.recourse() == Recourse::Retry);
        let trouble = match standing {
            Standing::Failing => "is not available",
            Standing::Refused if is_away => "is not available",
            Standing::Waiting => "has another service of this id",
            Standing::Drained => "has it drained",
            Standing::Refused => "refuses",
            _ => continue,
        };
        text = format!("{text}, {registry} {trouble}");
    }
    text
}

fn is_leaving(standing: Standing) -> bool {
    matches!(standing, Standing::Suspended | Standing::Withdrawing | Standing::Withdrawn)
}

fn words(standing: Standing) -> &'static str {
    match standing {
        Standing::Idle => "",
        Standing::Registering => "registering",
        Standing::Waiting => "not registered: another service has the id",
        Standing::Drained => "not registered: drained by hand",
        Standing::Held => "registered",
        Standing::Suspended => "not listed: unhealthy",
        Standing::Failing => "registry is not available",
        Standing::Refused => "cannot be registered",
        Standing::Withdrawing => "leaving the registry",
        Standing::Withdrawn => "not registered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: Vec<u8>) -> String {
        String::from_utf8(text).unwrap()
    }

    impl Speech {
        fn lease_is(&mut self, standing: Standing) -> Vec<u8> {
            self.leases_are(standing, &[member("a", standing)])
        }
    }

    fn member(registry: &str, standing: Standing) -> Member {
        let registry = registry.to_owned();
        Member { registry, standing, before: Standing::Idle, has_been_held: false, failure: None }
    }

    #[test]
    fn what_the_child_says_is_passed_on_but_for_its_pid() {
        let mut speech = Speech::new(ReadyWhen::Child);
        let text = b"READY=1\nMAINPID=4711\nWATCHDOG=1\n\nEXTEND_TIMEOUT_USEC=5\nBARRIER=1";
        assert_eq!(said(speech.relay(text)), "READY=1\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=5\nBARRIER=1\n");
        assert_eq!(said(speech.relay(b"\xff").into_iter().filter(u8::is_ascii).collect()), "\n");
    }

    #[test]
    fn the_status_is_the_childs_and_the_leases() {
        let mut speech = Speech::new(ReadyWhen::Child);
        assert_eq!(said(speech.lease_is(Standing::Held)), "STATUS=registered\n");
        assert_eq!(said(speech.relay(b"STATUS=7 clients")), "STATUS=7 clients; registered\n");
        assert_eq!(said(speech.lease_is(Standing::Failing)), "STATUS=7 clients; registry is not available\n");
    }

    #[test]
    fn of_several_registries_those_in_trouble_are_named() {
        use Standing::{Failing, Held, Refused, Registering, Withdrawing};
        for (overall, a, b, expected) in [
            (Held, Held, Held, "registered"),
            (Registering, Held, Registering, "registered in 1 of 2 registries"),
            (Held, Failing, Held, "registered in 1 of 2 registries, a is not available"),
            (Failing, Failing, Refused, "registered in 0 of 2 registries, a is not available, b refuses"),
            (Failing, Failing, Failing, "registry is not available"),
            (Withdrawing, Failing, Withdrawing, "leaving the registry"),
        ] {
            assert_eq!(told(overall, &[member("a", a), member("b", b)]), expected);
        }
    }

    #[test]
    fn what_keeps_a_service_off_the_list_is_told_until_it_is_over() {
        let mut speech = Speech::new(ReadyWhen::Child);
        assert_eq!(said(speech.unfit(Some("not ready"))), "STATUS=not listed: not ready\n");
        assert_eq!(said(speech.unfit(None)), "");
        assert_eq!(said(speech.lease_is(Standing::Held)), "STATUS=registered\n");
        let text = said(speech.unfit(Some("tcp:80: refused\n")));
        assert_eq!(text, "STATUS=not listed: tcp:80: refused\\n\n");
        assert_eq!(said(speech.lease_is(Standing::Suspended)), text);
        assert_eq!(said(speech.unfit(None)), "STATUS=not listed: unhealthy\n");
    }

    #[test]
    fn a_drain_is_told_until_it_is_over() {
        let mut speech = Speech::new(ReadyWhen::Child);
        speech.lease_is(Standing::Held);
        speech.relay(b"STATUS=7 clients");
        let text = said(speech.drains_for(Some(Duration::from_millis(61_001))));
        assert_eq!(text, "STATUS=7 clients; draining, to be stopped in 1m 2s at most\n");
        assert_eq!(said(speech.lease_is(Standing::Withdrawn)), text);
        assert_eq!(said(speech.drains_for(None)), "STATUS=7 clients; not registered\n");
    }

    #[test]
    fn what_it_was_stopped_for_stays_to_be_read() {
        let mut speech = Speech::new(ReadyWhen::Child);
        assert_eq!(said(speech.lease_is(Standing::Refused)), "STATUS=cannot be registered\n");
        assert_eq!(said(speech.lease_is(Standing::Withdrawn)), "");
    }

    #[test]
    fn ready_is_said_once_by_whom_it_is_to_be_said() {
        let mut speech = Speech::new(ReadyWhen::Registered);
        assert_eq!(said(speech.started()), "");
        assert_eq!(said(speech.relay(b"READY=1")), "");
        assert_eq!(said(speech.lease_is(Standing::Held)), "STATUS=registered\nREADY=1\n");
        assert_eq!(said(speech.lease_is(Standing::Held)), "STATUS=registered\n");
        let mut speech = Speech::new(ReadyWhen::Registered);
        let drained = said(speech.lease_is(Standing::Drained));
        assert_eq!(drained, "STATUS=not registered: drained by hand\nREADY=1\n");
        let mut speech = Speech::new(ReadyWhen::Started);
        assert_eq!(said(speech.started()), "READY=1\n");
    }

    #[test]
    fn a_reload_is_the_childs_to_report_if_it_speaks() {
        let mut speech = Speech::new(ReadyWhen::Started);
        speech.started();
        let answer = said(speech.reloaded());
        assert!(
            answer.starts_with("RELOADING=1\nMONOTONIC_USEC=") && answer.ends_with("\nREADY=1\n"),
            "{answer}"
        );
        assert_eq!(said(speech.relay(b"RELOADING=1\nMONOTONIC_USEC=1")), "RELOADING=1\nMONOTONIC_USEC=1\n");
        // Ready again, after the reload: that has to arrive whoever said it the first time.
        assert_eq!(said(speech.relay(b"READY=1")), "READY=1\n");
        assert_eq!(said(speech.reloaded()), "");
    }
}
