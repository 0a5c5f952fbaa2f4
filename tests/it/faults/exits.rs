//! A child that ends by itself ends the wrapper, whatever its registry does.

use std::sync::Arc;
use std::time::Duration;

use super::all;
use crate::support::lab::{Fault, Kind, Laboratory, Patient, Proxy, Shock};
use crate::support::wait_until;

/// How much later than in a healthy run: much less than anybody waits for a registry, and more than a busy machine takes.
const MARGIN: Duration = Duration::from_millis(400);
/// So many exits, of which the fastest counts: any of them can be held up by whoever else is on the machine.
const EXITS: usize = 5;

#[test]
fn an_exit_waits_for_no_registry() {
    all(&Kind::ALL, |&kind| {
        let laboratory = Laboratory::start(kind, "an_exit_waits_for_no_registry").map(Arc::new);
        let Some(laboratory) = laboratory else { return };
        let healthy = fastest(&laboratory, laboratory.url(), "healthy", || {});
        if kind == Kind::File {
            let locked =
                fastest(&laboratory, laboratory.url(), "locked", || laboratory.strike(Shock::Locked));
            assert!(locked <= healthy + MARGIN, "{locked:?}, not {healthy:?}");
            return;
        }
        all(&[Fault::Refuse, Fault::BlackHole, Fault::Truncate(15)], |&fault| {
            let proxy = Proxy::to(laboratory.address());
            let url = laboratory.url_through(&proxy);
            let struck = fastest(&laboratory, &url, &format!("{fault:?}"), || proxy.strike(fault));
            assert!(struck <= healthy + MARGIN, "{struck:?}, not {healthy:?}");
        });
    });
}

/// The fastest exit after `strike`, once it has been noticed.
#[track_caller]
fn fastest(laboratory: &Laboratory, url: &str, name: &str, strike: impl FnOnce()) -> Duration {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let start = |number| Patient::start(url, &format!("{name}{number}"), &["--interval=3"]);
    let mut patients: Vec<_> = (0..EXITS).map(start).collect();
    for patient in &patients {
        wait_until(&patient.id, || laboratory.lists(&patient.id));
        patient.wait_until_it_says("registered");
    }
    strike();
    let noticed = |patient: &Patient| name == "healthy" || patient.is_in_trouble();
    wait_until("the trouble", || patients.iter().all(noticed));
    patients.iter_mut().map(Patient::lose_child).min().unwrap()
}

/// Where a registry is quick to fail, a stop tries it once more: it may be back.
#[test]
fn a_stop_right_after_the_registry_is_back_takes_the_service_out() {
    let laboratory = Laboratory::start(Kind::Server, "a_stop_right_after_the_registry_is_back").unwrap();
    let mut patient = Patient::start(laboratory.url(), "quick", &["--interval=30"]);
    wait_until("the registration", || laboratory.lists("quick"));
    laboratory.kill();
    wait_until("the trouble", || patient.is_in_trouble());
    laboratory.restart();
    patient.stop();
    assert!(!laboratory.lists("quick"), "{:#?}", patient.said());
}
