//! A registry whose name is looked up in vain, or leads elsewhere all of a sudden.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::time::Instant;

use super::{INTERVAL, OUTAGE, all};
use crate::support::lab::{Kind, Laboratory, NAME, Names, Observer, Patient, Says};
use crate::support::server::Server;
use crate::support::{Place, is_root, wait_until};

const FAILURES: [Says; 3] = [Says::Fails, Says::Unknown, Says::Nothing];

#[track_caller]
fn start(names: &Names, url: &str, id: &str) -> Patient {
    Patient::start_as(url, id, &["--interval=6"], |command| names.serve(command))
}

#[test]
fn a_name_that_fails_at_first() {
    const TEST: &str = "a_name_that_fails_at_first";
    if !is_root(TEST) {
        return;
    }
    all(&Kind::REMOTE, |&kind| {
        let Some(laboratory) = Laboratory::start(kind, TEST).map(Arc::new) else { return };
        let observer = Observer::of(Arc::clone(&laboratory));
        let url = laboratory.url().replace("127.0.0.1", NAME);
        all(&FAILURES, |&failure| {
            let id = format!("{failure:?}");
            let names = Names::start(failure);
            let patient = start(&names, &url, &id);
            patient.wait_until_it_says("cannot register, trying on");
            let troubled = Instant::now();
            wait_until("a while", || troubled.elapsed() >= OUTAGE);
            patient.has_untouched_child();
            names.say(Says::Is(Ipv4Addr::LOCALHOST));
            let healed = Instant::now();
            wait_until(&id, || observer.lists(&id, healed));
            assert!(healed.elapsed() <= INTERVAL, "{:?}: {:#?}", healed.elapsed(), patient.said());
            patient.wait_until_it_says("registered at last");
            assert_eq!(
                (patient.count("trying on"), patient.count("after=")),
                (1, 1),
                "{:#?}",
                patient.said()
            );
        });
    });
}

/// A connection that is there needs no name.
#[test]
fn a_name_that_fails_later() {
    if !is_root("a_name_that_fails_later") {
        return;
    }
    let laboratory = Arc::new(Laboratory::start(Kind::Server, "a_name_that_fails_later").unwrap());
    let observer = Observer::of(Arc::clone(&laboratory));
    let url = laboratory.url().replace("127.0.0.1", NAME);
    all(&FAILURES, |&failure| {
        let id = format!("{failure:?}");
        let names = Names::start(Says::Is(Ipv4Addr::LOCALHOST));
        let patient = start(&names, &url, &id);
        let begun = Instant::now();
        wait_until(&id, || observer.lists(&id, begun));
        patient.wait_until_it_says("registered");
        let asked = names.asked();
        names.say(failure);
        let failed = Instant::now();
        wait_until("two intervals", || failed.elapsed() >= 2 * INTERVAL);
        assert_eq!(observer.first_missed(&id, failed), None, "{:#?}", patient.said());
        assert_eq!((names.asked(), patient.count("WARN")), (asked, 0), "{:#?}", patient.said());
    });
}

#[test]
fn a_name_that_leads_elsewhere() {
    if !is_root("a_name_that_leads_elsewhere") {
        return;
    }
    let (here, there) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut server = Server::start_at(Place::new(), &format!("{here}:0"), &[]);
    let port = server.address().port();
    let names = Names::start(Says::Is(here));
    let patient = start(&names, &format!("http://{NAME}:{port}/v1.0"), "nomad");
    patient.wait_until_it_says("registered");

    server.kill();
    let place = std::mem::replace(&mut server.place, Place::new());
    patient.wait_until_it_says("cannot renew the registration, trying on");
    let moved = Server::start_at(place, &format!("{there}:{port}"), &[]);
    names.say(Says::Is(there));
    let healed = Instant::now();
    patient.wait_until_it_says("again");
    assert!(healed.elapsed() <= INTERVAL, "{:?}: {:#?}", healed.elapsed(), patient.said());
    patient.has_untouched_child();
    assert_eq!((patient.count("trying on"), patient.count("after=")), (1, 1), "{:#?}", patient.said());
    assert_eq!(moved.place.services(), ["nomad"]);
}
