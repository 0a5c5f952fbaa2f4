//! What a server does all the time: it follows the store, keeps its seat among the others, reports to them, takes out the
//! dead, and logs what was changed by others than servers.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::council::Report;
use super::state::{Question, Seat, State};
use super::writer::{Change, Outcome};
use super::{Core, foreign, keys, uptime};
use crate::lease::Backoff;
use crate::message::{Hint, chain};
use crate::model::{EventBody, ServiceId};
use crate::registry::clock::{Ticks, millis};
use crate::registry::etcd::changes::{Change as Told, Told as Answer};
use crate::registry::etcd::kv::{Range, Txn};
use crate::registry::etcd::lease::LeaseId;
use crate::registry::{Error, Result};

/// How often is reported, asked and answered.
const TICK: Duration = Duration::from_millis(500);
/// How long a server's seat stays when it is silent: the time that a server that was killed goes unnoticed.
const SEAT: Duration = Duration::from_secs(10);
/// A seat is renewed when less than this is left of it.
const RENEWED_BEFORE: Duration = Duration::from_secs(7);
/// Who is overdue, but may not be taken out yet, is looked at again after this.
const AGAIN: Duration = Duration::from_millis(400);
/// How many of the dead are taken out at a time.
const MOST_DEAD: usize = 2000;
/// How many fingerprints a report has at most: etcd takes requests of 1.5 MiB.
const MOST_HEARD: usize = 50_000;
/// What happened longer ago than this is no longer in the log.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often is looked for what is older.
const CLEANING: Duration = Duration::from_secs(3600);
/// The longest wait before a lost watch is opened again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// An outage, told once when it begins and once when it is over.
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
}

impl Outage {
    fn goes_on(&mut self, error: &Error) {
        if self.since.is_none() {
            warn!(
                error = chain(error),
                hint = error.hint(),
                "cannot keep in touch with the registry, trying on"
            );
        }
        self.since.get_or_insert_with(Instant::now);
    }

    fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            info!(after = ?since.elapsed(), "in touch with the registry again");
        }
    }
}

/// Follows the store, for ever.
pub(super) async fn follow(core: Arc<Core>) {
    let (mut backoff, mut rng) = (Backoff::capped_at(LONGEST_WAIT), Rng::new());
    loop {
        if let Err(error) = core.follow(|| backoff = Backoff::capped_at(LONGEST_WAIT)).await {
            debug!(error = chain(&error), "lost the watch");
            sleep(backoff.next(&mut rng)).await;
        }
    }
}

/// Keeps the seat and all that goes with it, for ever.
pub(super) async fn keep(core: Arc<Core>) {
    let (mut ticks, mut outage) = (interval(TICK), Outage::default());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cleaned: Option<Instant> = None;
    loop {
        ticks.tick().await;
        if core.state().revision == 0 {
            // Nothing is known yet: the watch is being opened.
            continue;
        }
        let mut round = async || {
            core.keep_seat().await?;
            core.report().await?;
            core.log_foreign().await?;
            if cleaned.is_none_or(|cleaned| cleaned.elapsed() > CLEANING) {
                core.clean().await?;
                cleaned = Some(Instant::now());
            }
            Ok(())
        };
        match round().await {
            Ok(()) => outage.is_over(),
            Err(error) => outage.goes_on(&error),
        }
    }
}

impl Core {
    /// Takes over all that there is.
    pub(super) async fn load(&self) -> Result<()> {
        let now = keys::written(Ticks::now());
        for key in [self.keys.created(), self.keys.clock()] {
            self.client.commit(Txn::default().if_absent(&key).put(&key, &now, None)).await?;
        }
        let prefixes = [
            self.keys.services(),
            self.keys.values(),
            self.keys.servers(),
            self.keys.clock(),
            self.keys.logged(),
        ];
        let mut all = Vec::new();
        let mut revision = 0;
        for prefix in prefixes {
            // All of the same moment.
            let range = Range { revision, ..Range::prefix(&prefix) };
            let found = self.client.list_while(range, &|_| true).await?;
            if revision == 0 {
                revision = found.revision();
            }
            all.extend(found.kvs);
        }
        debug!(keys = all.len(), revision, "loaded the registry");
        self.state().load(&all, revision, uptime());
        self.seated.notify_waiters();
        Ok(())
    }

    /// Watches until that fails, or needs a new beginning.
    async fn follow(&self, opened: impl FnOnce()) -> Result<()> {
        if self.state().revision == 0 {
            self.load().await?;
        }
        let from = self.state().revision + 1;
        let mut watch = self.client.changes(self.keys.all(), from).await?;
        opened();
        loop {
            match watch.next().await? {
                Answer::Changes(changes, revision) => self.apply(&changes, revision),
                Answer::Compacted => {
                    self.state().revision = 0;
                    return Ok(());
                }
            }
        }
    }

    fn apply(&self, changes: &[Told], revision: i64) {
        let uptime = uptime();
        let mut state = self.state();
        let ours = foreign::revisions_of_servers(&self.keys, changes);
        for change in changes {
            if !ours.contains(&change.revision()) {
                state.note_foreign(change);
            }
            match change {
                Told::Put { now } => state.put(now, uptime),
                Told::Delete { key, revision } => {
                    if let Ok(key) = std::str::from_utf8(key) {
                        state.delete(key, *revision, uptime);
                    }
                }
            }
        }
        state.is_at(revision);
        drop(state);
        self.advanced.notify_waiters();
    }

    /// Renews our seat, or takes one.
    async fn keep_seat(&self) -> Result<()> {
        let (seat, now) = (self.state().seat, uptime());
        let Some(seat) = seat else { return self.take_seat().await };
        if now + millis(RENEWED_BEFORE) < seat.valid_until {
            return Ok(());
        }
        if self.client.keep_alive(seat.lease).await? {
            self.sits(seat.lease, now);
            return Ok(());
        }
        warn!("was out of touch with the other servers for too long: joining them anew");
        self.state().stand_up();
        self.take_seat().await
    }

    async fn take_seat(&self) -> Result<()> {
        let now = uptime();
        let lease = self.client.grant(SEAT).await?;
        let report = self.state().council.report([], false);
        self.send(&report, lease).await?;
        self.sits(lease, now);
        debug!(lease = %lease, "has a seat among the servers");
        Ok(())
    }

    /// The seat is ours for its whole time from `since` on.
    fn sits(&self, lease: LeaseId, since: i64) {
        let mut state = self.state();
        if !state.is_seated(uptime()) {
            // Clients could not reach us in between.
            state.leases.spare_all(uptime());
        }
        state.seat = Some(Seat { lease, valid_until: since + millis(SEAT) });
        drop(state);
        self.seated.notify_waiters();
    }

    async fn send(&self, report: &Report, lease: LeaseId) -> Result<()> {
        let key = self.keys.server(self.state().council.me());
        let value = serde_json::json!(report).to_string();
        self.client.commit(Txn::default().put(&key, value, Some(lease))).await?;
        self.state().council.sent(report);
        Ok(())
    }

    /// Tells the others whom we have heard, if there is anything to tell or to ask, and takes out the dead.
    async fn report(&self) -> Result<()> {
        let now = uptime();
        let (dead, due) = {
            let mut state = self.state();
            if !state.is_seated(now) {
                return Ok(());
            }
            let (dead, question) = state.judge(now, millis(AGAIN));
            (dead, due_report(&mut state, question))
        };
        if let Some((report, lease)) = due
            && let Err(error) = self.send(&report, lease).await
        {
            self.state().heard.extend(report.heard());
            return Err(error);
        }
        if dead.is_empty() { Ok(()) } else { self.bury(dead).await }
    }

    /// Takes out the dead that nobody has heard since, as long as no server has come that might have.
    pub(super) async fn bury(&self, dead: Vec<ServiceId>) -> Result<()> {
        let orders: Vec<_> = {
            let state = self.state();
            let change = |id: &ServiceId| {
                let known = state.services.get(id)?;
                let body = EventBody::ServiceTimeout(known.value.registration());
                let change = self.entry_change(Some(known), None, vec![body])?;
                Some(Change { unless_new: Some((self.keys.servers(), state.revision)), ..change })
            };
            dead.iter().take(MOST_DEAD).filter_map(change).collect()
        };
        let orders: Vec<_> = orders.into_iter().map(|change| self.order(change)).collect();
        for order in orders {
            if order.outcome().await? == Outcome::Done {
                self.state().timeouts += 1;
            }
        }
        Ok(())
    }

    /// Logs what others than servers have changed, if that is for us to do.
    async fn log_foreign(&self) -> Result<()> {
        let Some(change) = self.state().foreign_change(self.keys.logged()) else { return Ok(()) };
        self.change(change).await.map(drop)
    }

    async fn clean(&self) -> Result<()> {
        let (from, to) = (self.keys.events(), self.keys.event(Ticks::now().before(RETENTION)));
        self.client.commit(Txn::default().delete_between(&from, &to)).await.map(drop)
    }

    /// Gives up the seat: the others know at once that we are gone.
    pub(super) async fn leave(&self) {
        let Some(seat) = self.state().seat.take() else { return };
        let due = due_report(&mut self.state(), Question::None).map(|(report, _)| report);
        let farewell = async {
            if let Some(report) = due {
                self.send(&report, seat.lease).await?;
            }
            self.client.revoke(seat.lease).await
        };
        if let Err(error) = farewell.await {
            debug!(error = chain(&error), "cannot give up the seat: it expires");
        }
    }
}

/// The report that is due, if one is. Whom it tells of counts as told.
fn due_report(state: &mut State, question: Question) -> Option<(Report, LeaseId)> {
    let lease = state.seat?.lease;
    if state.council.is_alone() {
        state.heard.clear();
        return None;
    }
    let is_due = question == Question::Asked || state.council.is_awaited() || !state.heard.is_empty();
    if !is_due {
        return None;
    }
    let heard: Vec<_> = state.heard.iter().take(MOST_HEARD).copied().collect();
    for fingerprint in &heard {
        state.heard.remove(fingerprint);
    }
    Some((state.council.report(heard, question == Question::Asked), lease))
}
