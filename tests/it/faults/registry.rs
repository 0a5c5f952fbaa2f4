//! Faults of a registry itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{INTERVAL, OUTAGE, SLACK, all};
use crate::support::lab::{Kind, Laboratory, Observer, Patient, Shock};
use crate::support::{holds_for, is_root, wait_until};

#[test]
fn a_file() {
    survives(Kind::File, "a_file");
}

#[test]
fn our_server() {
    survives(Kind::Server, "our_server");
}

#[test]
fn consul() {
    survives(Kind::Consul, "consul");
}

#[test]
fn etcd() {
    survives(Kind::Etcd, "etcd");
}

#[test]
fn zookeeper() {
    survives(Kind::Zookeeper, "zookeeper");
}

fn survives(kind: Kind, test: &str) {
    let of_our_disk = [Shock::DiskFull].into_iter().filter(|_| matches!(kind, Kind::File | Kind::Server));
    let shocks: Vec<_> = Shock::of(kind).iter().copied().chain(of_our_disk).collect();
    all(&shocks, |&shock| {
        let laboratory = match shock {
            Shock::DiskFull if !is_root(test) => return,
            Shock::DiskFull => Laboratory::on_small_disk(kind, test),
            _ => Laboratory::start(kind, test),
        };
        let Some(laboratory) = laboratory.map(Arc::new) else { return };
        let observer = Observer::of(Arc::clone(&laboratory));
        Scene { laboratory: &laboratory, observer: &observer, shock }.plays();
    });
}

/// A shock, and wrappers at every moment of their lives.
struct Scene<'a> {
    laboratory: &'a Laboratory,
    observer: &'a Observer,
    shock: Shock,
}

impl Scene<'_> {
    fn plays(&self) {
        let start = Instant::now();
        // At some of these, it strikes during a heartbeat.
        let mut held: Vec<_> = (0..4).map(|number| self.start(&format!("held{number}"))).collect();
        let (mut stopped, mut bereaved) = (self.start("stopped"), self.start("bereaved"));
        for patient in held.iter().chain([&stopped, &bereaved]) {
            self.wait_until_listed(patient, start);
        }

        let struck = Instant::now();
        self.laboratory.strike(self.shock);
        held.push(self.start("late"));
        let lag = stopped.stop();
        assert!(lag <= Duration::from_secs(1) + SLACK, "{lag:?}");
        wait_until("trouble", || bereaved.is_in_trouble() || struck.elapsed() >= OUTAGE * 3 / 4);
        let lag = bereaved.lose_child();
        assert!(lag <= SLACK, "{lag:?}");
        wait_until("its end", || struck.elapsed() >= self.length());
        held.iter().for_each(Patient::has_untouched_child);
        self.laboratory.relieve(self.shock);

        let relieved = Instant::now();
        for patient in &held {
            self.wait_until_listed(patient, relieved);
            assert!(relieved.elapsed() <= INTERVAL, "{:?}: {:#?}", relieved.elapsed(), patient.said());
        }
        for patient in &held {
            patient.wait_until_it_is_over();
        }
        let well = Instant::now();
        holds_for(INTERVAL + INTERVAL / 3, "being well", || !held.iter().any(Patient::is_in_trouble));
        for patient in &held {
            self.is_well(patient, struck, relieved, well);
        }
        for patient in [stopped, bereaved] {
            wait_until("its end in the registry", || self.observer.misses(&patient.id, well));
        }
    }

    fn is_well(&self, patient: &Patient, struck: Instant, relieved: Instant, well: Instant) {
        patient.has_untouched_child();
        assert_eq!(self.observer.first_missed(&patient.id, well), None, "{:#?}", patient.said());
        let is_spared = self.shock.spares_the_services_of(self.laboratory.kind);
        if is_spared && patient.id != "late" && relieved - struck <= OUTAGE + SLACK / 4 {
            let missed = self.observer.first_missed(&patient.id, struck);
            assert_eq!(missed, None, "{:#?}", patient.said());
        }
        let (begun, over) = (patient.count("trying on"), patient.count("after="));
        assert!(begun <= 1 && (begun..=begun + 1).contains(&over), "{:#?}", patient.said());
    }

    fn start(&self, id: &str) -> Patient {
        Patient::start(self.laboratory.url(), id, &["--interval=6"])
    }

    fn wait_until_listed(&self, patient: &Patient, since: Instant) {
        wait_until(&patient.id, || self.observer.lists(&patient.id, since));
    }

    /// How long it lasts, at least. To come back takes a registry its time.
    fn length(&self) -> Duration {
        match self.shock {
            Shock::Killed | Shock::Emptied => OUTAGE / 2,
            Shock::Deleted => Duration::ZERO,
            _ => OUTAGE,
        }
    }
}
