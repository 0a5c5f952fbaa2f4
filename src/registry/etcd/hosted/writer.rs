//! Every change goes through here: with its events, in the order of their times, or not at all.
//!
//! The log is in the order of the times in its events' ids, and nothing may come to stand behind what somebody has read.
//! So each transaction moves the registry's one clock forward, on the condition that it does: two servers that write in
//! the same instant cannot both succeed with times that are the wrong way round. Of what is to be written at the same
//! time, as much goes into one transaction as etcd takes.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::keys::written;
use super::{Core, uptime};
use crate::message::chain;
use crate::model::{Event, EventBody};
use crate::registry::clock::Ticks;
use crate::registry::etcd::kv::Txn;
use crate::registry::{Cause, Error, Recourse, Result};

/// How many operations a transaction may have, less the clock. (etcd's `--max-txn-ops` is 128 by default.)
const MOST_OPERATIONS: usize = 120;
/// How often a transaction is sent again because another server's came first.
const MOST_TRIES: usize = 20;

/// A change to one key, and what goes with it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) expected: Expected,
    /// What it becomes; none where it is deleted.
    pub(super) value: Option<String>,
    /// Keys of other layouts, likewise.
    pub(super) others: Vec<(String, Option<String>)>,
    /// What is to be recorded of it.
    pub(super) bodies: Vec<EventBody>,
    /// That nothing has been added under a prefix since a revision.
    pub(super) unless_new: Option<(String, i64)>,
}

/// What a key has to be for a change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Absent,
    /// As it was written at this revision.
    Unchanged(i64),
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Somebody else changed it first: nothing is done, and what was there at this revision is known by now.
    Raced(i64),
}

/// A change that somebody waits for.
pub(super) struct Order {
    pub(super) change: Change,
    caller: oneshot::Sender<std::result::Result<Outcome, Arc<Error>>>,
}

/// A change that is under way.
pub(super) struct Ordered {
    outcome: oneshot::Receiver<std::result::Result<Outcome, Arc<Error>>>,
    registry: String,
}

impl Ordered {
    pub(super) async fn outcome(self) -> Result<Outcome> {
        let Ok(outcome) = self.outcome.await else {
            let source = Cause::Internal("the writer has ended".to_owned());
            return Err(Error::Unavailable { registry: self.registry, source });
        };
        outcome.map_err(own)
    }
}

impl Order {
    fn keys(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.change.key).chain(self.change.others.iter().map(|(key, _)| key))
    }

    fn operations(&self) -> usize {
        1 + self.change.others.len() + self.change.bodies.len()
    }
}

/// Carries out what is ordered until nobody can order any more.
pub(super) async fn run(core: Arc<Core>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut waiting: Vec<Order> = Vec::new();
    loop {
        if waiting.is_empty() {
            match orders.recv().await {
                Some(order) => waiting.push(order),
                None => return,
            }
        }
        while let Ok(order) = orders.try_recv() {
            waiting.push(order);
        }
        // Who has stopped waiting may send it again.
        waiting.retain(|order| !order.caller.is_closed());
        let batch = take_batch(&mut waiting);
        let retried = core.write(batch).await;
        waiting.splice(0..0, retried);
    }
}

/// As many as fit, the oldest first, and one for each key.
fn take_batch(waiting: &mut Vec<Order>) -> Vec<Order> {
    let (mut keys, mut operations) = (HashSet::new(), 0);
    let mut batch = Vec::new();
    let mut rest = Vec::new();
    for order in waiting.drain(..) {
        let fits = batch.is_empty() || operations + order.operations() <= MOST_OPERATIONS;
        if fits && order.keys().all(|key| !keys.contains(key)) {
            keys.extend(order.keys().cloned());
            operations += order.operations();
            batch.push(order);
        } else {
            rest.push(order);
        }
    }
    *waiting = rest;
    batch
}

impl Core {
    /// Has a change made.
    pub(super) async fn change(&self, change: Change) -> Result<Outcome> {
        self.order(change).outcome().await
    }

    /// Has a change made, together with others that are ordered before it is waited for.
    pub(super) fn order(&self, change: Change) -> Ordered {
        let (caller, outcome) = oneshot::channel();
        // Without a writer, the caller is dropped, and tells so.
        drop(self.orders.send(Order { change, caller }));
        Ordered { outcome, registry: self.url.as_str().to_owned() }
    }

    /// Makes all of these changes, or tells each caller why not. Returns those that are to be tried again, as it was one
    /// of the others that came too late.
    async fn write(&self, mut batch: Vec<Order>) -> Vec<Order> {
        for _ in 0..MOST_TRIES {
            if batch.is_empty() {
                return batch;
            }
            let (first, uptime) = (self.state().next_time(), uptime());
            let outcome = match self.client.commit(self.transaction(&batch, first)).await {
                Ok(outcome) => outcome,
                Err(error) if error.recourse() == Recourse::None && batch.len() > 1 => {
                    // One of them cannot be made: each by itself, then.
                    return self.write_each(batch).await;
                }
                Err(error) => {
                    answer_all(batch, error);
                    return Vec::new();
                }
            };
            if outcome.is_done {
                self.take_effect(&batch, first, outcome.revision(), uptime);
                answer(batch, Outcome::Done);
                return Vec::new();
            }
            debug!(changes = batch.len(), "somebody else was first");
            let mut state = self.state();
            let keys =
                std::iter::once(self.keys.clock()).chain(batch.iter().map(|order| order.change.key.clone()));
            for (key, found) in keys.zip(outcome.all_found()) {
                match found {
                    Some(found) => state.put(&found, uptime),
                    None => state.delete(&key, outcome.revision(), uptime),
                }
            }
            let is_possible = |order: &Order| state.holds(&order.change);
            let (possible, raced): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_possible);
            answer(raced, Outcome::Raced(outcome.revision()));
            batch = possible;
        }
        batch
    }

    async fn write_each(&self, batch: Vec<Order>) -> Vec<Order> {
        let mut retried = Vec::new();
        for order in batch {
            retried.extend(Box::pin(self.write(vec![order])).await);
        }
        retried
    }

    fn transaction(&self, batch: &[Order], first: Ticks) -> Txn {
        let clock = self.keys.clock();
        let mut time = first;
        let mut txn = Txn::default().or_get(&clock).if_value_below(&clock, written(first).as_bytes());
        for Order { change, .. } in batch {
            let key = &change.key;
            txn = txn.or_get(key);
            txn = match change.expected {
                Expected::Absent => txn.if_absent(key),
                Expected::Unchanged(revision) => txn.if_unchanged(key, revision),
            };
            let own = std::iter::once((key, &change.value));
            for (key, value) in own.chain(change.others.iter().map(|(key, value)| (key, value))) {
                txn = match value {
                    Some(value) => txn.put(key, value, None),
                    None => txn.delete(key),
                };
            }
            if let Some((prefix, revision)) = &change.unless_new {
                txn = txn.if_none_since(prefix, *revision);
            }
            for body in &change.bodies {
                let event = Event { id: time.uuid(), timestamp: time.timestamp(), body: body.clone() };
                let event = serde_json::json!(event).to_string();
                txn = txn.put(&self.keys.event(time), event, None);
                time = Ticks(time.0 + 1);
            }
        }
        txn.put(&clock, written(Ticks(first.0.max(time.0 - 1))), None)
    }

    /// What was written is known here before the watch tells of it.
    fn take_effect(&self, batch: &[Order], first: Ticks, revision: i64, uptime: i64) {
        let events: usize = batch.iter().map(|order| order.change.bodies.len()).sum();
        let last = Ticks(first.0 + i64::try_from(events).unwrap_or_default());
        let mut state = self.state();
        state.saw_time(last);
        for Order { change, .. } in batch {
            state.wrote(&change.key, change.value.as_deref(), revision, uptime);
        }
    }
}

fn answer(orders: Vec<Order>, outcome: Outcome) {
    for order in orders {
        drop(order.caller.send(Ok(outcome)));
    }
}

fn answer_all(batch: Vec<Order>, error: Error) {
    let error = Arc::new(error);
    for order in batch {
        drop(order.caller.send(Err(Arc::clone(&error))));
    }
}

/// The same failure, for one of several whom it concerns.
fn own(error: Arc<Error>) -> Error {
    Arc::try_unwrap(error).unwrap_or_else(|error| {
        let source = Cause::Internal(chain(&*error));
        match &*error {
            Error::Unauthorized { registry, .. } => {
                Error::Unauthorized { registry: registry.clone(), source }
            }
            Error::Invalid { registry, .. } => Error::Invalid { registry: registry.clone(), source },
            Error::Unavailable { registry, .. } => Error::Unavailable { registry: registry.clone(), source },
            _ => Error::Unavailable { registry: String::new(), source },
        }
    })
}
