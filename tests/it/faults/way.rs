//! Faults on the way to a registry.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{INTERVAL, OUTAGE, SLACK, all};
use crate::support::lab::{Fault, Kind, Laboratory, Observer, Patient, Proxy, Strike};
use crate::support::{holds_for, wait_until};

/// How often a connection is tried in an outage: at a heartbeat and once more at once, then within each period of two
/// seconds, and just before the lease runs out.
const MOST_TRIES: usize = 12;

/// When it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    BeforeRegistration,
    BetweenBeats,
    DuringBeat,
    DuringDeregistration,
    AtExit,
}

const MOMENTS: [Moment; 5] = [
    Moment::BeforeRegistration,
    Moment::BetweenBeats,
    Moment::DuringBeat,
    Moment::DuringDeregistration,
    Moment::AtExit,
];

#[test]
fn the_way_to_our_server() {
    survives(Kind::Server, "the_way_to_our_server");
}

#[test]
fn the_way_to_consul() {
    survives(Kind::Consul, "the_way_to_consul");
}

#[test]
fn the_way_to_etcd() {
    survives(Kind::Etcd, "the_way_to_etcd");
}

#[test]
fn the_way_to_zookeeper() {
    survives(Kind::Zookeeper, "the_way_to_zookeeper");
}

fn survives(kind: Kind, test: &str) {
    let Some(laboratory) = Laboratory::start(kind, test).map(Arc::new) else { return };
    let observer = Observer::of(Arc::clone(&laboratory));
    let faults = Fault::on_the_way_to(kind).into_iter().enumerate();
    let cells = faults.flat_map(|(number, fault)| MOMENTS.map(|moment| (number, fault, moment)));
    let cells: Vec<_> = cells.collect();
    all(&cells, |&(number, fault, moment)| {
        let proxy = Proxy::to(laboratory.address());
        let cell = Cell {
            id: format!("fault{number}-{moment:?}"),
            url: laboratory.url_through(&proxy),
            observer: &observer,
            proxy,
            fault,
        };
        match moment {
            Moment::BeforeRegistration => cell.before_registration(),
            Moment::BetweenBeats => cell.between_beats(),
            Moment::DuringBeat => cell.during_a_beat(),
            Moment::DuringDeregistration => cell.during_deregistration(),
            Moment::AtExit => cell.at_exit(),
        }
    });
}

/// A fault at a moment.
struct Cell<'a> {
    id: String,
    url: String,
    observer: &'a Observer,
    proxy: Proxy,
    fault: Fault,
}

impl Cell<'_> {
    fn start(&self) -> Patient {
        Patient::start(&self.url, &self.id, &["--interval=6"])
    }

    fn registered(&self) -> Patient {
        let patient = self.start();
        self.wait_until_listed(Instant::now(), &patient);
        patient.wait_until_it_says("registered");
        patient
    }

    fn before_registration(&self) {
        self.proxy.strike(self.fault);
        let patient = self.start();
        wait_until("a first answer", || patient.is_in_trouble() || patient.count("registered") > 0);
        holds_for(INTERVAL / 2, "the fault", || true);
        self.recovers(&patient);
    }

    fn between_beats(&self) {
        let patient = self.registered();
        let before = self.proxy.requests();
        wait_until("a heartbeat", || self.proxy.requests() > before);
        let start = Instant::now();
        self.proxy.strike(self.fault);
        self.outlasts(&patient, start);
    }

    fn during_a_beat(&self) {
        let patient = self.registered();
        let start = Instant::now();
        self.proxy.strike_at(Strike::Answer, self.fault);
        wait_until("a heartbeat", || self.proxy.has_struck());
        self.outlasts(&patient, start);
    }

    /// The fault costs no registration.
    fn outlasts(&self, patient: &Patient, start: Instant) {
        let (begun, connections) = (Instant::now(), self.proxy.connections());
        wait_until("its end", || begun.elapsed() >= OUTAGE);
        // Nobody burns a processor on what does not work.
        let tries = self.proxy.connections() - connections;
        assert!(tries <= MOST_TRIES, "{tries} connections: {:#?}", patient.said());
        self.recovers(patient);
        assert_eq!(self.observer.first_missed(&self.id, start), None, "{:#?}", patient.said());
    }

    fn recovers(&self, patient: &Patient) {
        patient.has_untouched_child();
        self.proxy.heal();
        let healed = Instant::now();
        self.wait_until_listed(healed, patient);
        assert!(healed.elapsed() <= INTERVAL, "{:?}: {:#?}", healed.elapsed(), patient.said());
        wait_until("a word that it is over", || !patient.is_in_trouble());
        let well = Instant::now();
        holds_for(INTERVAL + INTERVAL / 3, "being well", || !patient.is_in_trouble());
        assert_eq!(self.observer.first_missed(&self.id, well), None, "{:#?}", patient.said());
        patient.has_untouched_child();
        // A registration that arrives late ends the one before it, which is a trouble that is over at once.
        let (begun, over) = (patient.count("trying on"), patient.count("after="));
        assert!(begun <= 1 && (begun..=begun + 1).contains(&over), "{:#?}", patient.said());
    }

    fn during_deregistration(&self) {
        let mut patient = self.registered();
        self.proxy.strike_at(Strike::Request, self.fault);
        let lag = patient.stop();
        assert!(lag <= Duration::from_secs(1) + SLACK, "{lag:?}");
        self.expires();
    }

    fn at_exit(&self) {
        let mut patient = self.registered();
        self.proxy.strike(self.fault);
        let start = Instant::now();
        wait_until("trouble", || patient.is_in_trouble() || start.elapsed() >= INTERVAL / 2);
        let lag = patient.lose_child();
        assert!(lag <= SLACK, "{lag:?}");
        self.expires();
    }

    fn expires(&self) {
        self.proxy.heal();
        let healed = Instant::now();
        wait_until("its end in the registry", || self.observer.misses(&self.id, healed));
        holds_for(INTERVAL, "its absence", || self.observer.misses(&self.id, healed));
    }

    fn wait_until_listed(&self, since: Instant, patient: &Patient) {
        let what = format!("{}: {:#?}", self.id, patient.said());
        wait_until(&what, || self.observer.lists(&self.id, since));
    }
}
