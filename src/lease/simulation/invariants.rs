//! What has to hold of a lease in every history, and the watcher that sees to it.
//!
//! A *trouble* is the time from when something goes wrong until nothing is wrong any more: from a fault's start to its
//! end, from when a message is sent until the last copy of it has arrived, and while another instance has the id.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::Time;
use crate::lease::{Action, Call, Event, Lease, OnConflict, Policy, Request, Standing};
use crate::model::Token;
use crate::registry::{IfTaken, Recourse};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// What the registry has told us that we hold expires only in a trouble of two thirds of the timeout, less what the
    /// last tries take: they begin 200 ms before the end, and each is some time on its way.
    HeldThroughAnOutage,
    /// One timeout after the end of the last trouble the service is listed, knows it, and stays so.
    BackWithinATimeout,
    /// While the service is to be listed, no timeout passes without a request.
    NeverSilent,
    /// A heartbeat that finds us gone is answered with a registration in the same instant.
    ForgottenRegistersAtOnce,
    /// A heartbeat that fails after a success is sent again in the same instant.
    RetriedAtOnce,
    /// In a third of the timeout there are no more than [`Watcher::BUSIEST`] requests, unless the owner changes its mind.
    NoHotLoop,
    /// A request is given its time; only a withdrawal does not wait for a heartbeat.
    OneAtATime,
    /// A withdrawal leaves nothing behind if the registry answers, and nothing is sent after it. What a message did that
    /// was under way all the while lives for a timeout at most.
    WithdrawnForGood,
    /// It takes as long as a registration under way, and two tries of a second at most.
    WithdrawalIsBounded,
    /// Who lives under our id is taken out only where that was asked for, and only by the first registration.
    RivalsAreLeftAlone,
    /// A try ends before the lease does, and within a third of the timeout.
    DeadlineWithinTheLease,
    /// A heartbeat presents the last token received.
    LastToken,
    /// What is due is sent when it is due, or as soon as the wrapper runs again: the next heartbeat at the latest a
    /// third of the timeout after the one that succeeded was sent.
    SentWhenDue,
}

/// A broken invariant, in words.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) what: String,
}

pub(super) struct Watcher {
    timeout: Duration,
    /// The longest way there and back.
    round_trip: Duration,
    policy: Policy,
    troubles: VecDeque<(Time, Time)>,
    /// When the last of them ends.
    calm_since: Time,
    /// Since when the owner wants the service listed.
    wanted_since: Option<Time>,
    /// Whether the last word of the registry was that we hold the entry.
    holds: bool,
    standing: Standing,
    knows: Knowledge,
    /// When the last withdrawal began; time in which the wrapper did not run is not counted.
    leaving_since: Time,
    under_way: Option<Call>,
    sent_at: Time,
    /// When the request was sent that succeeded last.
    renewed_at: Option<Time>,
    has_registered: bool,
    has_failed: bool,
    token: Option<Token>,
    /// When a registration arrived last whose answer nobody waited for any more.
    straggled_at: Option<Time>,
    sends: VecDeque<Time>,
    /// Since when it could have sent something.
    silent_since: Time,
    pub(super) violation: Option<Violation>,
}

/// What the lease was told of its owner's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    Nothing,
    Listed,
    Unlisted,
}

impl Watcher {
    pub(super) const BUSIEST: usize = 30;

    pub(super) fn new(policy: &Policy, latency: Duration) -> Self {
        Self {
            timeout: policy.timeout.as_duration(),
            round_trip: latency * 2,
            policy: policy.clone(),
            troubles: VecDeque::new(),
            calm_since: Time::ZERO,
            wanted_since: None,
            holds: false,
            standing: Standing::Idle,
            knows: Knowledge::Nothing,
            leaving_since: Time::ZERO,
            under_way: None,
            sent_at: Time::ZERO,
            renewed_at: None,
            has_registered: false,
            has_failed: false,
            token: None,
            straggled_at: None,
            sends: VecDeque::new(),
            silent_since: Time::ZERO,
            violation: None,
        }
    }

    fn require(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { invariant, what: what() });
        }
    }

    /// Something is wrong in this span of time.
    pub(super) fn trouble(&mut self, from: Time, until: Time) {
        while self.troubles.front().is_some_and(|(_, end)| *end + self.timeout * 2 < from) {
            self.troubles.pop_front();
        }
        self.troubles.push_back((from, until));
        self.calm_since = self.calm_since.max(until);
    }

    pub(super) fn wished(&mut self, listed: bool, now: Time) {
        self.wanted_since = if listed { Some(self.wanted_since.unwrap_or(now)) } else { None };
        // What is under way in another direction has to end first.
        self.trouble(now, now);
        self.sends.clear();
        self.silent_since = self.silent_since.max(now);
    }

    /// Time has passed until `now` with the id held by us or not.
    pub(super) fn passed(&mut self, is_listed: bool, now: Time) {
        if let Some(since) = self.wanted_since {
            let well_since = since.max(self.calm_since);
            let due = well_since + self.timeout;
            let (standing, is_held) = (self.standing, is_listed && self.standing == Standing::Held);
            self.require(now <= due || is_held, Invariant::BackWithinATimeout, || {
                format!("listed: {is_listed}, {standing:?}; all was well again at {well_since:?}")
            });
            let silence = now.saturating_sub(self.silent_since.max(since));
            self.require(silence <= self.timeout, Invariant::NeverSilent, || {
                format!("nothing was sent for {silence:?}")
            });
        }
        if self.knows == Knowledge::Unlisted {
            let since = self.leaving_since;
            let is_over = self.standing == Standing::Withdrawn || now <= since + self.longest_withdrawal();
            self.require(is_over, Invariant::WithdrawalIsBounded, || format!("began at {since:?}"));
        }
    }

    /// Time has passed until `now` in which the wrapper did not run.
    pub(super) fn paused(&mut self, span: Duration, now: Time) {
        self.silent_since = now;
        self.leaving_since += span;
    }

    fn longest_withdrawal(&self) -> Duration {
        let period = self.timeout / 3;
        period.min(Duration::from_secs(5)) + 2 * (period / 2).min(Duration::from_secs(1))
    }

    /// Our entry has expired.
    pub(super) fn expired(&mut self, now: Time) {
        let renewed = now.saturating_sub(self.timeout);
        // Renewed by a request whose answer was lost, or by a restart, it lives longer than we can know.
        let is_known = self.renewed_at.is_some_and(|sent| renewed <= sent + self.round_trip);
        if !self.holds || !is_known || self.wanted_since.is_none_or(|since| since > renewed) {
            return;
        }
        let around = self.troubles.iter().filter(|(from, until)| *until > renewed && *from < now);
        let hull = around.fold(None, |hull: Option<(Time, Time)>, (from, until)| {
            let (first, last) = hull.unwrap_or((*from, *until));
            Some((first.min(*from).max(renewed), last.max(*until).min(now)))
        });
        let trouble = hull.map_or(Duration::ZERO, |(from, until)| until.saturating_sub(from));
        let margin = Duration::from_millis(200) + 2 * self.round_trip;
        let survivable = (self.timeout * 2 / 3).saturating_sub(margin);
        self.require(trouble >= survivable, Invariant::HeldThroughAnOutage, || {
            format!("expired after a trouble of {trouble:?}: {hull:?}")
        });
    }

    /// One of ours has taken out another instance that was alive.
    pub(super) fn displaced_a_rival(&mut self) {
        let asked = self.policy.on_conflict == OnConflict::Replace;
        self.require(asked, Invariant::RivalsAreLeftAlone, || "a rival was displaced".to_owned());
    }

    /// A registration has arrived whose answer nobody waits for any more.
    pub(super) fn straggled(&mut self, now: Time) {
        self.straggled_at = Some(now);
    }

    /// The driver has a second request on the network.
    pub(super) fn two_at_a_time(&mut self) {
        self.require(false, Invariant::OneAtATime, || "two requests at a time".to_owned());
    }

    /// The lease was told of an event, and decided what to do.
    pub(super) fn decided(&mut self, event: &Event, action: &Action, deadline: Option<Time>, now: Time) {
        let answered = match event {
            Event::Enlist | Event::Withdraw | Event::DeadlineReached => None,
            _ => self.under_way.take(),
        };
        self.learn(event, answered.as_ref(), now);
        self.check_answer(event, answered.as_ref(), action);
        self.check_what_is_due(event, action, deadline, now);
        if let Action::Send(request) = action {
            self.check_request(request, now);
            self.under_way = Some(request.call.clone());
            self.sent_at = now;
            self.silent_since = now;
        }
    }

    fn learn(&mut self, event: &Event, answered: Option<&Call>, now: Time) {
        match event {
            Event::Enlist => self.knows = Knowledge::Listed,
            Event::Withdraw if self.knows != Knowledge::Unlisted => {
                // Wanted back in vain, it goes on with the withdrawal that is under way.
                let is_under_way = self.standing == Standing::Withdrawing;
                self.leaving_since = if is_under_way { self.leaving_since } else { now };
                self.knows = Knowledge::Unlisted;
            }
            Event::Registered(token) | Event::HeartbeatAccepted(token) => {
                self.token = Some(token.clone());
                self.holds = true;
                self.renewed_at = Some(self.sent_at);
                self.has_registered = true;
            }
            Event::Failed(Recourse::Register | Recourse::AwaitRelease { .. }) | Event::Deregistered => {
                self.holds = false;
            }
            _ => {}
        }
        if answered.is_some() {
            self.has_failed &= matches!(event, Event::Failed(_));
        }
    }

    fn check_answer(&mut self, event: &Event, answered: Option<&Call>, action: &Action) {
        let (Some(Call::Heartbeat(_)), Event::Failed(recourse)) = (answered, event) else { return };
        let sent = match action {
            Action::Send(Request { call, .. }) => Some(call),
            Action::Wait => None,
        };
        match recourse {
            Recourse::Register | Recourse::AwaitRelease { .. } | Recourse::None => {
                self.require(
                    matches!(sent, Some(Call::Register(_))),
                    Invariant::ForgottenRegistersAtOnce,
                    || format!("{recourse:?} was answered with {action:?}"),
                );
            }
            Recourse::Retry | Recourse::Authenticate => {
                let again = matches!(sent, Some(Call::Heartbeat(_)));
                let first = !std::mem::replace(&mut self.has_failed, true);
                self.require(!first || again, Invariant::RetriedAtOnce, || {
                    format!("{recourse:?} was answered with {action:?}")
                });
            }
        }
    }

    fn check_what_is_due(&mut self, event: &Event, action: &Action, deadline: Option<Time>, now: Time) {
        if *event == Event::DeadlineReached {
            let sends = matches!(action, Action::Send(_));
            self.require(sends, Invariant::SentWhenDue, || "woke for nothing".to_owned());
        }
        let (Event::Registered(_) | Event::HeartbeatAccepted(_), Action::Wait) = (event, action) else {
            return;
        };
        let latest = now.max(self.sent_at + self.timeout / 3);
        let in_time = deadline.is_some_and(|deadline| deadline <= latest);
        self.require(in_time, Invariant::SentWhenDue, || {
            format!("the next heartbeat is due at {deadline:?}, and should be before {latest:?}")
        });
    }

    fn check_request(&mut self, request: &Request, now: Time) {
        self.check_rate(now);
        let is_leaving = request.call == Call::Deregister;
        let may = match &self.under_way {
            None => true,
            Some(call) => is_leaving && matches!(call, Call::Heartbeat(_)),
        };
        let replaced = self.under_way.clone();
        self.require(may, Invariant::OneAtATime, || format!("{replaced:?} made way for {:?}", request.call));
        let wants_out = self.knows == Knowledge::Unlisted;
        let is_over = self.standing == Standing::Withdrawn && wants_out;
        let (standing, knows) = (self.standing, self.knows);
        self.require(wants_out == is_leaving && !is_over, Invariant::WithdrawnForGood, || {
            format!("{:?} was sent while {standing:?}, {knows:?}", request.call)
        });
        self.check_deadline(request, now);
        match &request.call {
            Call::Heartbeat(token) | Call::Suspend(token) => {
                let is_last = self.token.as_ref() == Some(token);
                self.require(is_last, Invariant::LastToken, || format!("presented {}", token.as_str()));
            }
            Call::Register(IfTaken::TakeOver) => {
                let may = self.policy.on_conflict == OnConflict::Replace && !self.has_registered;
                self.require(may, Invariant::RivalsAreLeftAlone, || "sent to take over".to_owned());
            }
            Call::Register(IfTaken::Refuse) | Call::Deregister => {}
        }
    }

    fn check_deadline(&mut self, request: &Request, now: Time) {
        let mut longest = self.timeout / 3;
        if let (Call::Heartbeat(_), Some(renewed_at)) = (&request.call, self.renewed_at) {
            let left = (renewed_at + self.timeout).saturating_sub(now);
            if left > 2 * Lease::SHORTEST_ATTEMPT {
                longest = longest.min(left);
            }
        }
        let is_fair = (Lease::SHORTEST_ATTEMPT..=longest).contains(&request.timeout);
        self.require(is_fair, Invariant::DeadlineWithinTheLease, || {
            format!("{:?} is given {:?}, {longest:?} are left", request.call, request.timeout)
        });
    }

    fn check_rate(&mut self, now: Time) {
        while self.sends.front().is_some_and(|sent| *sent + self.timeout / 3 < now) {
            self.sends.pop_front();
        }
        self.sends.push_back(now);
        let sends = self.sends.len();
        self.require(sends <= Self::BUSIEST, Invariant::NoHotLoop, || format!("{sends} requests in a third"));
    }

    /// The driver has said where the lease stands.
    pub(super) fn stands(&mut self, standing: Standing, is_listed: bool) {
        let before = std::mem::replace(&mut self.standing, standing);
        if before == standing || (standing, self.knows) != (Standing::Withdrawn, Knowledge::Unlisted) {
            return;
        }
        let since = self.leaving_since;
        let is_excused = self.straggled_at.is_some_and(|at| since <= at + self.timeout);
        if self.calm_since <= since && !is_excused {
            self.require(!is_listed, Invariant::WithdrawnForGood, || "still listed".to_owned());
        }
    }
}
