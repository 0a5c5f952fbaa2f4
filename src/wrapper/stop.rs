//! The steps of a planned stop: how long each took, for the log, and the look at the registries in between.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::signal_number::SignalNumber;
use super::supervision::{Drained, Ends};
use crate::lease::driver::{Task, or_never};
use crate::lease::view::View;

#[derive(Default)]
pub(super) struct Stop {
    drain: Option<Draining>,
    /// When the child was told.
    told_at: Option<Instant>,
}

struct Draining {
    since: Instant,
    /// Where it ends when the service is not listed any more.
    view: Option<View>,
}

impl Stop {
    /// The child is to serve on, at the longest until then.
    pub(super) fn drain(&mut self, until: Instant, ends: Ends, tasks: &[Task]) {
        let since = Instant::now();
        let at_most = rounded(until - since);
        let view = match ends {
            Ends::AtLimit => {
                info!(?at_most, "draining: the command is told to stop afterwards");
                None
            }
            Ends::WhenUnlisted => {
                info!(?at_most, "draining: the command is told to stop when it is not listed any more");
                Some(View::new(tasks))
            }
        };
        self.drain = Some(Draining { since, view });
    }

    /// Returns when no registry shows the service any more, where a drain waits for that.
    pub(super) async fn unlisted(&mut self) {
        let view = self.drain.as_mut().and_then(|drain| drain.view.as_mut());
        or_never(view.map(View::unlisted)).await;
    }

    pub(super) fn drained(&mut self, why: Drained) {
        let Some(Draining { since, view }) = self.drain.take() else { return };
        let took = since.elapsed();
        match why {
            Drained::AskedAgain => info!(?took, "asked to stop again: not draining any longer"),
            Drained::Unlisted => info!(?took, "drained"),
            Drained::AtLimit if view.is_some() => warn!(?took, "not draining any longer"),
            Drained::AtLimit => info!(?took, "drained"),
        }
        if let Some(view) = view.filter(|_| why != Drained::AskedAgain) {
            view.tell_the_rest();
        }
    }

    /// The child gets what asks it to end.
    pub(super) fn told(&mut self, signal: SignalNumber) {
        if self.told_at.is_none() {
            info!(%signal, "telling the command to stop");
            self.told_at = Some(Instant::now());
        }
    }

    /// The child is killed, as it has not ended in its time.
    pub(super) fn killed(&self) {
        let took = self.told_at.map(|told_at| tracing::field::debug(told_at.elapsed()));
        warn!(took, "the command has not stopped in time: killing it");
    }

    /// The child has ended.
    pub(super) fn ended(&mut self) {
        if let Some(Draining { since, .. }) = self.drain.take() {
            info!(took = ?since.elapsed(), "the command ended while it was draining");
        } else if let Some(told_at) = self.told_at.take() {
            info!(took = ?told_at.elapsed(), "the command has stopped");
        }
    }
}

/// As it was said, but for the moment that has passed since.
fn rounded(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from((span.as_millis() + 5) / 10 * 10).unwrap_or(u64::MAX))
}
