//! The one thread that writes into a hosted registry's file.
//!
//! Writes that come in while the disk is busy with others are done together, in one transaction and with one
//! `fsync` (group commit). Each is a savepoint of its own, so that one that fails takes no other with it, and is
//! answered when the transaction is on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Shared, file};
use crate::model::{HeartbeatTimeout, ServiceId};
use crate::registry::Cause;
use crate::registry::hosted::leases::Lease;
use crate::registry::hosted::token::Seed;
use crate::registry::sqlite::fault::Fault;
use crate::registry::sqlite::services;
use crate::registry::sqlite::store::{self, Durability, Store};
use crate::registry::sqlite::uptime_millis;

/// How often the dead are settled when nobody asks.
const TICK: Duration = Duration::from_millis(500);
/// How often it is written down who was seen last when.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// How many writes are done together at most: what they keep everybody waiting for stays a few milliseconds.
const BATCH: usize = 256;
/// How many times are written down together.
const FLUSH_BATCH: usize = 2_000;

/// What a write means for the leases, once it is on the disk.
pub(super) enum Effect {
    Nothing,
    Keep(ServiceId, Lease),
    Retime(ServiceId, HeartbeatTimeout),
    Forget(ServiceId),
}

/// What is asked of the thread.
pub(super) enum Order {
    Write(Box<dyn Write>),
    /// Write down what is only in memory, and end.
    Close(oneshot::Sender<()>),
}

/// A write, and who waits for it.
pub(super) trait Write: Send {
    /// Does it; says whether it is to stay.
    fn run(&mut self, file: &Connection) -> Option<Effect>;
    fn fail(&mut self, fault: Fault);
    fn answer(self: Box<Self>);
}

pub(super) struct Job<T, F> {
    pub(super) write: F,
    pub(super) outcome: Option<Result<T, Fault>>,
    pub(super) caller: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Write for Job<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<(T, Effect), Fault> + Send,
{
    fn run(&mut self, file: &Connection) -> Option<Effect> {
        let (outcome, effect) = match (self.write)(file) {
            Ok((value, effect)) => (Ok(value), Some(effect)),
            Err(fault) => (Err(fault), None),
        };
        self.outcome = Some(outcome);
        effect
    }

    fn fail(&mut self, fault: Fault) {
        self.outcome = Some(Err(fault));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Whoever does not wait any more does not want to know.
            let _ = self.caller.send(outcome);
        }
    }
}

pub(super) struct Worker {
    path: PathBuf,
    shared: Shared,
    store: Option<Store>,
    /// The file's count of changes to hosted services, when it last agreed with the leases.
    agreed: Option<i64>,
    flushed: Instant,
    is_failing: bool,
}

impl Worker {
    /// Opens the file, and takes over the services that an earlier host has kept.
    pub(super) fn new(path: PathBuf, shared: Shared) -> Result<Self, Fault> {
        let mut worker =
            Self { path, shared, store: None, agreed: None, flushed: Instant::now(), is_failing: false };
        worker.commit(&mut [])?;
        Ok(worker)
    }

    /// Works until it is told to close, or nobody is left who could.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let closed_by = match orders.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(first) => self.serve(first, orders),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            };
            if let Some(caller) = closed_by {
                self.flush();
                let _ = caller.send(());
                return;
            }
            if Instant::now() >= next_tick {
                self.guarded(Self::tick);
                next_tick = Instant::now() + TICK;
            }
        }
    }

    /// Does an order, and what else has come in.
    fn serve(&mut self, first: Order, orders: &Receiver<Order>) -> Option<oneshot::Sender<()>> {
        let mut batch = Vec::new();
        let mut closed_by = None;
        for order in std::iter::once(first).chain(orders.try_iter().take(BATCH - 1)) {
            match order {
                Order::Write(write) => batch.push(write),
                Order::Close(caller) => closed_by = Some(caller),
            }
        }
        self.guarded(|worker| worker.write(&mut batch));
        batch.into_iter().for_each(Write::answer);
        closed_by
    }

    /// Our own mistake in one order must not end the service of all.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            error!(
                registry = &*self.shared.url,
                "a write failed by a mistake of this program's: opening the file anew"
            );
            self.store = None;
            self.agreed = None;
            self.shared.leases().revive();
        }
    }

    fn write(&mut self, batch: &mut [Box<dyn Write>]) {
        let Err(fault) = self.commit(batch) else { return };
        self.failed(&fault);
        for write in batch {
            write.fail(fault.repeated());
        }
    }

    fn failed(&mut self, fault: &Fault) {
        self.shared.leases().revive();
        if fault.calls_for_reopening() {
            self.store = None;
            self.agreed = None;
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(registry = &*self.shared.url, error = fault.told(), "cannot write to the registry's file");
        }
    }

    /// One transaction: the dead leave the file, then each write has its turn.
    fn commit(&mut self, batch: &mut [Box<dyn Write>]) -> Result<(), Fault> {
        if self.store.as_ref().is_some_and(Store::has_moved) {
            self.agreed = None;
        }
        let store = store::usable(&mut self.store, &self.path)?;
        let mut file = store.begin(Durability::Full)?;
        file::note_host(&file)?;
        if self.agreed != Some(file::hosted_changes(&file)?) {
            let hosted = file::hosted(&file)?;
            if !hosted.is_empty() && self.agreed.is_none() {
                info!(registry = &*self.shared.url, services = hosted.len(), "took over the hosted services");
            }
            self.shared.leases().agree_with(hosted, uptime_millis()?);
        }
        let dead = self.shared.leases().the_dead(uptime_millis()?);
        let mut timeouts = services::settle_the_dead(&file)?;
        for (id, seed) in &dead {
            timeouts += file::settle(&file, id, *seed)?;
        }
        let mut effects = Vec::new();
        for write in batch {
            let part = file.savepoint()?;
            match write.run(&part) {
                Some(effect) => {
                    part.commit()?;
                    effects.push(effect);
                }
                None => part.finish()?,
            }
        }
        let changes = file::hosted_changes(&file)?;
        let services = services::count(&file)?;
        file.commit()?;
        self.agreed = Some(changes);
        self.shared.settled(timeouts, services);
        self.is_failing = false;
        self.take_effect(&dead, effects)
    }

    fn take_effect(&self, dead: &[(ServiceId, Seed)], effects: Vec<Effect>) -> Result<(), Fault> {
        let uptime = uptime_millis()?;
        let mut leases = self.shared.leases();
        leases.bury(dead);
        for effect in effects {
            match effect {
                Effect::Nothing => {}
                Effect::Keep(id, lease) => leases.keep(id, lease, uptime),
                Effect::Retime(id, timeout) => leases.retime(&id, timeout),
                Effect::Forget(id) => leases.forget(&id),
            }
        }
        Ok(())
    }

    /// What is due without anybody's asking.
    fn tick(&mut self) {
        if self.is_something_due().unwrap_or(true) {
            self.write(&mut []);
        }
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush();
        }
    }

    fn is_something_due(&mut self) -> Result<bool, Fault> {
        if self.shared.leases().anyone_died(uptime_millis()?) {
            return Ok(true);
        }
        match &self.store {
            Some(store) if !store.has_moved() => {
                self.shared.settled(0, services::count(store)?);
                Ok(self.agreed != Some(file::hosted_changes(store)?) || services::anyone_died(store)?)
            }
            _ => Ok(true),
        }
    }

    /// Writes down who was seen last when, for whoever reads the file while no host runs.
    fn flush(&mut self) {
        self.flushed = Instant::now();
        loop {
            let seen = self.shared.leases().take_unwritten(FLUSH_BATCH);
            if seen.is_empty() {
                break;
            }
            let outcome = store::usable(&mut self.store, &self.path).and_then(|store| {
                let file = store.begin(Durability::Process)?;
                file::note_host(&file)?;
                file::note_seen(&file, &seen)?;
                Ok(file.commit()?)
            });
            if let Err(fault) = outcome {
                return self.failed(&fault);
            }
        }
    }
}

/// The thread is gone, and with it whoever could answer.
pub(super) fn gone() -> Fault {
    Fault::Because(Cause::Internal("the thread that writes has ended".to_owned()))
}
