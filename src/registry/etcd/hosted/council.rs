//! Several servers of one registry, and how they agree that a service is dead.
//!
//! Any of them may have its heartbeats. What each has heard it tells the others in a report, about twice a second,
//! whatever the number of services: that is all that heartbeats cost the store. Of each service, one server is the
//! undertaker, by a hash over the servers there are. When a deadline has passed by what that one knows, it asks, in its
//! own next report, and takes the service out when each of the others has written a report with that one before its
//! eyes: whatever it had heard before, it has told.
//!
//! Where a server has gone, what it heard last is lost: then everybody has its full timeout once more, as after any
//! take-over. A server counts as gone when its lease has run out, and takes no heartbeat from shortly before on.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::ServiceId;

/// One life of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Member(Uuid);

impl Member {
    pub(super) fn unique() -> Self {
        Self(Uuid::new_v4())
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self)
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A service in eight bytes, the same on every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// Whose undertaker keeps the log of what others than servers change.
    pub(super) const OF_THE_LOG: Self = Self(0);

    pub(super) fn of(id: &ServiceId) -> Self {
        Self(mixed(id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })))
    }

    /// How much a server is the one for it.
    fn weight(self, member: Member) -> u64 {
        let (high, low) = member.0.as_u64_pair();
        mixed(self.0 ^ mixed(high) ^ low)
    }
}

/// The finalizer of `SplitMix64`: every bit of the result depends on every bit of `hash`.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// What a server tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The first is 1.
    pub(super) number: u64,
    /// Whether it has to be answered with another.
    pub(super) asks: bool,
    /// The last report of each of the others that it has seen.
    seen: BTreeMap<Member, u64>,
    /// Fingerprints of whom it has heard since its last, eight bytes each, in Base64.
    heard: String,
}

impl Report {
    pub(super) fn heard(&self) -> Vec<Fingerprint> {
        let bytes = STANDARD.decode(&self.heard).unwrap_or_default();
        let (fingerprints, _) = bytes.as_chunks();
        fingerprints.iter().map(|bytes| Fingerprint(u64::from_be_bytes(*bytes))).collect()
    }
}

/// The servers there are, as one of them sees it.
#[derive(Debug)]
pub(super) struct Council {
    me: Member,
    /// Of our last report. None of them has the number of another, even where it is not known what became of it.
    number: u64,
    /// Of the last that has been sent for sure.
    sent: u64,
    others: BTreeMap<Member, Other>,
}

#[derive(Debug, Default)]
struct Other {
    /// Of its last report.
    number: u64,
    /// The last of ours that it had seen by then.
    has_seen: u64,
    /// It asked in one that we have not answered.
    waits: bool,
}

impl Council {
    pub(super) fn new(me: Member) -> Self {
        Self { me, number: 0, sent: 0, others: BTreeMap::new() }
    }

    pub(super) fn me(&self) -> Member {
        self.me
    }

    /// The same server, before it has heard of any other.
    pub(super) fn anew(&self) -> Self {
        Self { me: self.me, number: self.number, sent: self.sent, others: BTreeMap::new() }
    }

    /// Another life of the server, among the same others.
    pub(super) fn reborn(&self) -> Self {
        let others = self
            .others
            .iter()
            .map(|(member, other)| (*member, Other { number: other.number, ..Other::default() }));
        Self { me: Member::unique(), number: 0, sent: 0, others: others.collect() }
    }

    pub(super) fn is_member(&self, member: Member) -> bool {
        member == self.me || self.others.contains_key(&member)
    }

    pub(super) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether it is for us to take this service out when it is dead.
    pub(super) fn is_ours(&self, service: Fingerprint) -> bool {
        let ours = (service.weight(self.me), self.me);
        self.others.keys().all(|other| (service.weight(*other), *other) < ours)
    }

    /// Takes note of another's report.
    pub(super) fn hear(&mut self, member: Member, report: &Report) {
        if member == self.me {
            return;
        }
        let other = self.others.entry(member).or_default();
        other.number = report.number;
        other.has_seen = report.seen.get(&self.me).copied().unwrap_or_default();
        other.waits |= report.asks;
    }

    /// Another has gone. Whether it was there.
    pub(super) fn lose(&mut self, member: Member) -> bool {
        self.others.remove(&member).is_some()
    }

    /// Whether somebody waits for a report of ours.
    pub(super) fn is_awaited(&self) -> bool {
        self.others.values().any(|other| other.waits)
    }

    /// The number of our next report: what was not known before it is asked in it.
    pub(super) fn next(&self) -> u64 {
        self.number + 1
    }

    /// Whether the others have still to be asked for an answer to our report of this number, or a later one.
    pub(super) fn has_to_ask(&self, number: u64) -> bool {
        number > self.sent && !self.is_alone()
    }

    /// Whether every other has told what it had heard before our report of this number.
    pub(super) fn has_answered(&self, number: u64) -> bool {
        self.others.values().all(|other| other.has_seen >= number)
    }

    /// Our next report. It counts once it [was sent](Self::sent).
    pub(super) fn report(&mut self, heard: impl IntoIterator<Item = Fingerprint>, asks: bool) -> Report {
        let bytes: Vec<u8> = heard.into_iter().flat_map(|service| service.0.to_be_bytes()).collect();
        self.number += 1;
        Report {
            number: self.number,
            asks,
            seen: self.others.iter().map(|(member, other)| (*member, other.number)).collect(),
            heard: STANDARD.encode(bytes),
        }
    }

    pub(super) fn sent(&mut self, report: &Report) {
        self.sent = report.number;
        for (member, other) in &mut self.others {
            // One that came while it was on its way has still to be answered.
            if report.seen.get(member).is_some_and(|seen| *seen == other.number) {
                other.waits = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ServiceId {
        ServiceId::new(format!("web{number}")).unwrap()
    }

    fn meeting(count: usize) -> Vec<Council> {
        let members: Vec<_> = (0..count).map(|_| Member::unique()).collect();
        let mut councils: Vec<_> = members.iter().map(|member| Council::new(*member)).collect();
        for index in 0..count {
            tell(&mut councils, index, false);
        }
        councils
    }

    /// One reports to all.
    fn tell(councils: &mut [Council], index: usize, asks: bool) {
        let report = councils[index].report([Fingerprint::of(&id(index))], asks);
        councils[index].sent(&report);
        let me = councils[index].me();
        for council in councils {
            council.hear(me, &report);
        }
    }

    #[test]
    fn every_service_has_one_undertaker_and_each_server_its_share() {
        let mut councils = meeting(3);
        let owners = |councils: &[Council]| {
            let count = |council: &Council| {
                (0..3000).filter(|number| council.is_ours(Fingerprint::of(&id(*number)))).count()
            };
            councils.iter().map(count).collect::<Vec<_>>()
        };
        let shares = owners(&councils);
        assert_eq!(shares.iter().sum::<usize>(), 3000);
        assert!(shares.iter().all(|share| (800..1200).contains(share)), "{shares:?}");
        let gone = councils.remove(0).me();
        assert!(councils.iter_mut().all(|council| council.lose(gone) && !council.lose(gone)));
        assert_eq!(owners(&councils).iter().sum::<usize>(), 3000);
    }

    #[test]
    fn who_asks_has_its_answer_when_all_have_reported_since() {
        let mut councils = meeting(3);
        let question = councils[0].next();
        tell(&mut councils, 1, false);
        tell(&mut councils, 2, false);
        tell(&mut councils, 0, true);
        assert!(!councils[0].has_answered(question), "they reported before they were asked");
        assert!(councils[1].is_awaited() && councils[2].is_awaited() && !councils[0].is_awaited());
        tell(&mut councils, 1, false);
        assert!(!councils[0].has_answered(question) && !councils[1].is_awaited());
        tell(&mut councils, 2, false);
        assert!(councils[0].has_answered(question));
    }

    #[test]
    fn a_question_that_crossed_a_report_is_not_answered_by_it() {
        let mut councils = meeting(2);
        let report = councils[1].report([], false);
        let question = councils[0].next();
        tell(&mut councils, 0, true);
        councils[1].sent(&report);
        let other = councils[1].me();
        councils[0].hear(other, &report);
        assert!(!councils[0].has_answered(question) && councils[1].is_awaited());
    }

    #[test]
    fn a_report_of_which_nobody_knows_whether_it_was_sent_is_followed_by_one_of_another_number() {
        let mut councils = meeting(2);
        let question = councils[0].next();
        let lost = councils[0].report([], true);
        let me = councils[0].me();
        councils[1].hear(me, &lost);
        tell(&mut councils, 1, false);
        assert!(councils[0].has_to_ask(question) && councils[0].next() > question);
        let later = councils[0].next();
        tell(&mut councils, 0, true);
        assert!(!councils[0].has_to_ask(later) && !councils[0].has_answered(later));
    }

    #[test]
    fn who_is_gone_is_not_waited_for() {
        let mut councils = meeting(2);
        let question = councils[0].next();
        tell(&mut councils, 0, true);
        let gone = councils[1].me();
        councils[0].lose(gone);
        assert!(councils[0].has_answered(question) && councils[0].is_alone());
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut council = Council::new(Member::unique());
        let heard: Vec<_> = (0..100).map(|number| Fingerprint::of(&id(number))).collect();
        let report = council.report(heard.clone(), true);
        let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!((&read, read.heard()), (&report, heard));
    }
}
