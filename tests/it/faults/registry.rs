//! Faults of a registry itself.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{INTERVAL, OUTAGE, SLACK, all};
use crate::support::lab::{FullDisk, Kind, Laboratory, Lock, Observer, Patient};
use crate::support::{Place, holds_for, is_root, wait_until};

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shock {
    /// It stands still, as a machine does that is suspended.
    Frozen,
    /// It is killed, and comes back with what it had.
    Killed,
    /// It is killed, and comes back with nothing.
    Emptied,
    /// Somebody has locked the file.
    Locked,
    /// Somebody has deleted the file and its directory.
    Deleted,
    /// Somebody has overwritten the file.
    Overwritten,
    /// Nothing more can be written to the disk.
    DiskFull,
}

const OF_A_PROCESS: [Shock; 3] = [Shock::Frozen, Shock::Killed, Shock::Emptied];
const OF_A_FILE: [Shock; 4] = [Shock::Locked, Shock::Deleted, Shock::Overwritten, Shock::DiskFull];

#[test]
fn a_file() {
    let cells: Vec<_> = OF_A_FILE.map(|shock| (Kind::File, shock)).to_vec();
    survives(&cells, "a_file");
}

#[test]
fn our_server() {
    let of_its_disk = [Shock::DiskFull];
    let cells: Vec<_> =
        OF_A_PROCESS.into_iter().chain(of_its_disk).map(|shock| (Kind::Server, shock)).collect();
    survives(&cells, "our_server");
}

#[test]
fn consul() {
    survives(&OF_A_PROCESS.map(|shock| (Kind::Consul, shock)), "consul");
}

#[test]
fn etcd() {
    survives(&OF_A_PROCESS.map(|shock| (Kind::Etcd, shock)), "etcd");
}

#[test]
fn zookeeper() {
    survives(&OF_A_PROCESS.map(|shock| (Kind::Zookeeper, shock)), "zookeeper");
}

fn survives(cells: &[(Kind, Shock)], test: &str) {
    all(cells, |&(kind, shock)| {
        if shock == Shock::DiskFull && !is_root(test) {
            return;
        }
        let place = Place::new();
        let disk = (shock == Shock::DiskFull).then(|| FullDisk::mount(&place.path().join("state")));
        let Some(laboratory) = Laboratory::start_in(place, kind, test).map(Arc::new) else { return };
        let observer = Observer::of(Arc::clone(&laboratory));
        let scene = Scene { laboratory: &laboratory, observer: &observer, shock, disk };
        scene.plays();
    });
}

/// A shock, and wrappers at every moment of their lives.
struct Scene<'a> {
    laboratory: &'a Laboratory,
    observer: &'a Observer,
    shock: Shock,
    disk: Option<FullDisk>,
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
        let relief = self.strike();
        held.push(self.start("late"));
        let asked = stopped.stop();
        assert!(asked.elapsed() <= Duration::from_secs(1) + SLACK, "{:?}", asked.elapsed());
        wait_until("trouble", || bereaved.is_in_trouble() || struck.elapsed() >= OUTAGE * 3 / 4);
        let lost = bereaved.lose_child();
        assert!(lost.elapsed() <= SLACK, "{:?}", lost.elapsed());
        wait_until("its end", || struck.elapsed() >= self.length());
        held.iter().for_each(Patient::has_untouched_child);
        self.relieve(relief);

        let relieved = Instant::now();
        for patient in &held {
            self.wait_until_listed(patient, relieved);
            assert!(relieved.elapsed() <= INTERVAL, "{:?}: {:#?}", relieved.elapsed(), patient.said());
        }
        wait_until("a word that it is over", || !held.iter().any(Patient::is_in_trouble));
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
        if self.keeps_its_data() && patient.id != "late" && relieved - struck <= OUTAGE + SLACK / 4 {
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

    fn keeps_its_data(&self) -> bool {
        match self.shock {
            Shock::Emptied | Shock::Deleted | Shock::Overwritten => false,
            // An agent begins with every service critical, until it has heard of it.
            Shock::Killed => self.laboratory.kind != Kind::Consul,
            Shock::Frozen | Shock::Locked | Shock::DiskFull => true,
        }
    }

    /// How long it lasts, at least. To come back takes a registry its time.
    fn length(&self) -> Duration {
        match self.shock {
            Shock::Killed | Shock::Emptied => OUTAGE / 2,
            Shock::Deleted => Duration::ZERO,
            _ => OUTAGE,
        }
    }

    /// What ends when it is dropped.
    fn strike(&self) -> Option<Lock> {
        match self.shock {
            Shock::Frozen => self.laboratory.freeze(),
            Shock::Killed | Shock::Emptied => self.laboratory.kill(),
            Shock::Locked => return Some(Lock::on(&self.laboratory.file())),
            Shock::Deleted => fs::remove_dir_all(self.laboratory.file().parent().unwrap()).unwrap(),
            Shock::Overwritten => fs::write(self.laboratory.file(), "not a database ".repeat(999)).unwrap(),
            Shock::DiskFull => self.disk.as_ref().unwrap().fill(),
        }
        None
    }

    fn relieve(&self, lock: Option<Lock>) {
        drop(lock);
        match self.shock {
            Shock::Frozen => self.laboratory.thaw(),
            Shock::Killed => self.laboratory.restart(),
            Shock::Emptied => self.laboratory.restart_empty(),
            Shock::Locked | Shock::Deleted => {}
            Shock::Overwritten => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{suffix}", self.laboratory.file().display()));
                }
            }
            Shock::DiskFull => self.disk.as_ref().unwrap().clear(),
        }
    }
}
