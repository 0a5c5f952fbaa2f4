//! The lease that is never lost: every fault, on every registry, at every moment.
//!
//! Whatever happens between us and a registry, or to it, the child is not touched, the wrapper ends when it does, a
//! fault of two thirds of the timeout takes nothing from the registry, and after a longer one the service is back
//! within an interval. The log says once that something is wrong, and once that it is over.
//!
//! How long things take, and what they cost, is in `benches/faults.rs`. What holds of every order of events is
//! proven in `src/lease/simulation`.

mod exits;
mod names;
mod registry;
mod way;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(6);
/// The longest outage that costs no registration.
const OUTAGE: Duration = Duration::from_secs(4);
/// What a stop may take beside what the deregistration may: the child's end, and a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// Runs each of `cells` at the same time, and tells of all that failed.
#[track_caller]
pub(crate) fn all<C: Sync + std::fmt::Debug>(cells: &[C], check: impl Fn(&C) + Sync) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let check = &check;
        let run = |cell| {
            scope.spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| check(cell)));
                outcome.is_err().then(|| format!("{cell:?}"))
            })
        };
        let running: Vec<_> = cells.iter().map(run).collect();
        running.into_iter().filter_map(|cell| cell.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "failed, as told above: {failed:#?}");
}
