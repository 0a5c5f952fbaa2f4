//! A session: what nodes are tied to, and lives longer than any connection.
//!
//! A task of its own keeps it alive, over one connection after another, until nobody holds it any more or its time has
//! come. To be without a connection is not to be over: only a server says so, or nobody.

mod keeping;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::keeping::Keeping;
use super::ZookeeperCause;
use super::connection::Shared;
use super::operation::{self, Body, Code, Done, Request};
use super::wire::{Flag, Garbled, Stat};

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The session is over, with all that was tied to it.
    Expired,
    /// The server was not reached or not heard; it may have done what it was asked.
    Broken(ZookeeperCause),
    /// We are not let in.
    Denied(ZookeeperCause),
    /// The server said no.
    Refused(Code),
}

impl From<Garbled> for Fault {
    fn from(_: Garbled) -> Self {
        Self::Broken(ZookeeperCause::Nonsense)
    }
}

/// What a session that watches is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// Something about the node of this path has changed; it is not watched any more.
    Changed(String),
    /// There is another connection: nothing is watched any more.
    Reconnected,
}

/// What came of a request that reached a server.
pub(super) type Outcome = Result<Body, Code>;

/// A request that somebody waits for.
struct Ask {
    request: Request,
    reply: oneshot::Sender<Result<Outcome, Fault>>,
}

/// A session. When all its clones are dropped, its connection is closed, and it is left to expire.
#[derive(Clone)]
pub(super) struct Session(Arc<Held>);

struct Held {
    asks: mpsc::UnboundedSender<Ask>,
    /// When it is closed; none where it lives for as long as somebody holds it.
    until: watch::Sender<Option<Instant>>,
    id: Arc<AtomicI64>,
    timeout: Duration,
}

impl Session {
    /// One that is to outlive its connections by `timeout`, and to be closed at `until`, if at all.
    pub(super) fn start(ensemble: &Shared, timeout: Duration, until: Option<Instant>) -> Self {
        Self::begin(ensemble, timeout, until, None)
    }

    /// One that tells what happens to watched nodes, until it is dropped.
    pub(super) fn watching(
        ensemble: &Shared,
        timeout: Duration,
    ) -> (Self, mpsc::UnboundedReceiver<Happening>) {
        let (events, happenings) = mpsc::unbounded_channel();
        (Self::begin(ensemble, timeout, None, Some(events)), happenings)
    }

    fn begin(
        ensemble: &Shared,
        timeout: Duration,
        until: Option<Instant>,
        events: Option<mpsc::UnboundedSender<Happening>>,
    ) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let (until, deadline) = watch::channel(until);
        let id = Arc::new(AtomicI64::new(0));
        let keeping = Keeping::new(Arc::clone(ensemble), timeout, asked, deadline, Arc::clone(&id), events);
        tokio::spawn(keeping.run());
        Self(Arc::new(Held { asks, until, id, timeout }))
    }

    /// The number that nodes which are tied to it name as their owner; 0 before its first answer.
    pub(super) fn id(&self) -> i64 {
        self.0.id.load(Ordering::Relaxed)
    }

    /// How long it was asked to outlive its connections.
    pub(super) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Its time comes then and not when it was said before.
    pub(super) fn lives_until(&self, until: Option<Instant>) {
        self.0.until.send_replace(until);
    }

    /// Its time has come.
    pub(super) fn is_overdue(&self) -> bool {
        self.0.until.borrow().is_some_and(|until| until <= Instant::now())
    }

    /// It is neither over nor about to be.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_over() && !self.is_overdue()
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.asks.is_closed()
    }

    /// Returns when it is over.
    pub(super) async fn ended(&self) {
        self.0.asks.closed().await;
    }

    /// Sends all requests at once, and waits for the outcome of each.
    pub(super) async fn ask_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<Outcome>, Fault> {
        let send = |request| {
            let (reply, replied) = oneshot::channel();
            // Where nobody takes it, nobody replies.
            let _ = self.0.asks.send(Ask { request, reply });
            replied
        };
        let replies: Vec<_> = requests.into_iter().map(send).collect();
        let mut outcomes = Vec::with_capacity(replies.len());
        for reply in replies {
            outcomes.push(reply.await.unwrap_or(Err(Fault::Expired))?);
        }
        Ok(outcomes)
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Outcome, Fault> {
        self.ask_all([request]).await?.pop().ok_or(Fault::Expired)
    }

    /// The data of a node, if there is one.
    pub(super) async fn data(&self, path: &str) -> Result<Option<(Vec<u8>, Stat)>, Fault> {
        let body = self.ask(Request::data(path, Flag::No)).await?;
        Ok(if_there(body)?.map(|body| operation::read_data(&body)).transpose()?)
    }

    pub(super) async fn stat(&self, path: &str) -> Result<Option<Stat>, Fault> {
        let body = self.ask(Request::exists(path)).await?;
        Ok(if_there(body)?.map(|body| operation::read_stat(&body)).transpose()?)
    }

    /// Does all of it or nothing: of the first request that failed, which it is and why.
    pub(super) async fn multi(
        &self,
        requests: &[Request],
    ) -> Result<Result<Vec<Done>, (usize, Code)>, Fault> {
        match self.ask(Request::multi(requests)).await? {
            Ok(body) => Ok(operation::read_multi(&body)?),
            Err(code) => Ok(Err((0, code))),
        }
    }
}

/// Takes it for no failure that a node is not there.
pub(super) fn if_there(outcome: Outcome) -> Result<Option<Body>, Fault> {
    match outcome {
        Ok(body) => Ok(Some(body)),
        Err(Code::NO_NODE) => Ok(None),
        Err(code) => Err(Fault::Refused(code)),
    }
}
