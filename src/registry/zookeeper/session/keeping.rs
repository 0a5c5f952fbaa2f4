//! The task that keeps a session alive.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::{Ask, Fault, Happening};
use crate::registry::ZookeeperCause;
use crate::registry::zookeeper::connection::{Answer, Connection, PING, Refusal, Shared, Ticket};
use crate::registry::zookeeper::operation::{Code, Request};
use crate::registry::zookeeper::wire::{Garbled, Reader};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the farewell takes at most.
const FAREWELL: Duration = Duration::from_secs(1);
/// The number of frames that tell of what is watched.
const WATCH_EVENT: i32 = -1;

pub(super) struct Keeping {
    ensemble: Shared,
    ticket: Ticket,
    asked: mpsc::UnboundedReceiver<Ask>,
    /// What is to be sent when there is a connection.
    waiting: Vec<Ask>,
    deadline: watch::Receiver<Option<Instant>>,
    id: Arc<AtomicI64>,
    events: Option<mpsc::UnboundedSender<Happening>>,
    /// Until when the servers keep it, for all that was heard of them last.
    kept_until: Option<Instant>,
}

/// Why a connection is not used any more.
enum End {
    /// The session needs another.
    Lost(ZookeeperCause),
    /// So does nobody need the session.
    Over,
}

/// What is outstanding on a connection.
struct Exchange {
    asked: VecDeque<(i32, Ask)>,
    next: i32,
    sent_at: Instant,
    heard_at: Instant,
}

impl Keeping {
    pub(super) fn new(
        ensemble: Shared,
        timeout: Duration,
        asked: mpsc::UnboundedReceiver<Ask>,
        deadline: watch::Receiver<Option<Instant>>,
        id: Arc<AtomicI64>,
        events: Option<mpsc::UnboundedSender<Happening>>,
    ) -> Self {
        let ticket = Ticket::new(timeout);
        Self { ensemble, ticket, asked, waiting: Vec::new(), deadline, id, events, kept_until: None }
    }

    pub(super) async fn run(mut self) {
        while let Some(connection) = self.connect().await {
            let (mut exchange, negotiated) = (Exchange::new(), connection.negotiated);
            match self.converse(connection, &mut exchange).await {
                End::Over => break,
                End::Lost(cause) => {
                    debug!(error = %cause, "connection lost");
                    self.kept_until = Some(exchange.heard_at + negotiated);
                    exchange.fail(&Fault::Broken(cause));
                }
            }
        }
    }

    /// None when the session is over.
    async fn connect(&mut self) -> Option<Connection> {
        let mut pause = FIRST_PAUSE;
        loop {
            let (ensemble, mut ticket) = (Arc::clone(&self.ensemble), self.ticket.clone());
            let attempt = async move { (ensemble.connect(&mut ticket).await, ticket) };
            let (outcome, ticket) = self.meanwhile(attempt).await?;
            self.ticket = ticket;
            match outcome {
                Ok(connection) => {
                    self.connected(&connection);
                    return Some(connection);
                }
                Err(Refusal::Expired) => return None,
                Err(Refusal::Denied(cause)) => {
                    self.fail(&Fault::Denied(cause));
                    return None;
                }
                Err(Refusal::Failed(ZookeeperCause::HungUp { .. }))
                    if self.kept_until.is_some_and(|until| until < Instant::now()) =>
                {
                    return None;
                }
                Err(Refusal::Failed(cause @ ZookeeperCause::HungUp { .. })) => {
                    // So does for ever a server that has lost what we have seen. If we have seen nothing, it says what has
                    // become of the session: that it is over, mostly.
                    if std::mem::take(&mut self.ticket.last_seen) != 0 {
                        pause = FIRST_PAUSE;
                    }
                    self.fail(&Fault::Broken(cause));
                }
                Err(Refusal::Failed(cause)) => self.fail(&Fault::Broken(cause)),
            }
            self.pause(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn connected(&self, Connection { server, negotiated, .. }: &Connection) {
        let (session, before) = (self.ticket.id, self.id.swap(self.ticket.id, Ordering::Relaxed));
        if before == session {
            debug!(server, "connected again");
        } else {
            let requested = self.ticket.timeout;
            info!(server, ?negotiated, ?requested, session = format!("{session:#x}"), "new session");
        }
        if let Some(events) = &self.events {
            let _ = events.send(Happening::Reconnected);
        }
    }

    fn fail(&mut self, fault: &Fault) {
        self.waiting.drain(..).for_each(|ask| ask.fail(fault));
    }

    /// Runs `future`, and takes what is asked meanwhile; none when the session is over.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Some(output),
                ask = self.asked.recv() => self.waiting.push(ask?),
                () = has_come(&mut self.deadline) => return None,
            }
        }
    }

    /// Waits for so long, or until something is asked; none when the session is over.
    async fn pause(&mut self, span: Duration) -> Option<()> {
        tokio::select! {
            biased;
            ask = self.asked.recv() => self.waiting.push(ask?),
            () = has_come(&mut self.deadline) => return None,
            () = sleep(span) => {}
        }
        Some(())
    }

    async fn converse(&mut self, mut connection: Connection, exchange: &mut Exchange) -> End {
        let third = connection.negotiated / 3;
        for ask in self.waiting.drain(..) {
            exchange.send(&mut connection, ask);
        }
        loop {
            let lost = |error: &std::io::Error, server: &str| {
                End::Lost(ZookeeperCause::Broken { server: server.to_owned(), reason: error.to_string() })
            };
            let (ping_at, give_up_at) = (exchange.sent_at + third, exchange.heard_at + 2 * third);
            tokio::select! {
                biased;
                frame = connection.incoming.frame() => {
                    let heard = match frame {
                        Ok(frame) => self.heard(&frame, exchange),
                        Err(error) => return lost(&error, &connection.server),
                    };
                    match heard {
                        Ok(None) => {}
                        Ok(Some(end)) => return end,
                        Err(Garbled) => return End::Lost(ZookeeperCause::Nonsense),
                    }
                }
                sent = connection.outgoing.send(), if !connection.outgoing.is_empty() => {
                    if let Err(error) = sent {
                        return lost(&error, &connection.server);
                    }
                }
                ask = self.asked.recv() => match ask {
                    Some(ask) => exchange.send(&mut connection, ask),
                    None => return End::Over,
                },
                () = has_come(&mut self.deadline) => {
                    let _ = timeout(FAREWELL, farewell(connection)).await;
                    return End::Over;
                }
                () = sleep_until(give_up_at) => {
                    let (server, patience) = (connection.server, 2 * third);
                    return End::Lost(ZookeeperCause::Silent { server, patience });
                }
                () = sleep_until(ping_at) => {
                    connection.outgoing.push(&Request::ping().frame(PING));
                    exchange.sent_at = Instant::now();
                }
            }
        }
    }

    fn heard(&mut self, frame: &[u8], exchange: &mut Exchange) -> Result<Option<End>, Garbled> {
        let Answer { number, seen, error, body } = Answer::read(frame)?;
        exchange.heard_at = Instant::now();
        self.ticket.last_seen = self.ticket.last_seen.max(seen);
        match number {
            PING => return Ok(None),
            WATCH_EVENT => {
                let mut event = Reader::new(body);
                let (_kind, _state, path) = (event.int()?, event.int()?, event.text()?);
                if let Some(events) = &self.events {
                    let _ = events.send(Happening::Changed(path));
                }
                return Ok(None);
            }
            _ => {}
        }
        let (expected, ask) = exchange.asked.pop_front().ok_or(Garbled)?;
        if number != expected {
            exchange.asked.push_front((expected, ask));
            return Err(Garbled);
        }
        match Code(error) {
            Code(0) => ask.answer(Ok(body.to_vec())),
            Code::SESSION_EXPIRED => {
                ask.fail(&Fault::Expired);
                return Ok(Some(End::Over));
            }
            code @ Code::SESSION_MOVED => {
                let cause = ZookeeperCause::refused(code);
                ask.fail(&Fault::Broken(cause.clone()));
                return Ok(Some(End::Lost(cause)));
            }
            code => ask.answer(Err(code)),
        }
        Ok(None)
    }
}

impl Exchange {
    fn new() -> Self {
        let now = Instant::now();
        Self { asked: VecDeque::new(), next: 1, sent_at: now, heard_at: now }
    }

    fn send(&mut self, connection: &mut Connection, ask: Ask) {
        connection.outgoing.push(&ask.request.frame(self.next));
        self.asked.push_back((self.next, ask));
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.sent_at = Instant::now();
    }

    fn fail(self, fault: &Fault) {
        self.asked.into_iter().for_each(|(_, ask)| ask.fail(fault));
    }
}

impl Ask {
    /// Where nobody waits any more, nobody is told.
    fn answer(self, outcome: super::Outcome) {
        let _ = self.reply.send(Ok(outcome));
    }

    fn fail(self, fault: &Fault) {
        let _ = self.reply.send(Err(fault.clone()));
    }
}

/// Ends the session, with all that is tied to it.
async fn farewell(mut connection: Connection) -> std::io::Result<()> {
    connection.outgoing.push(&Request::close_session().frame(i32::MAX));
    while !connection.outgoing.is_empty() {
        connection.outgoing.send().await?;
    }
    loop {
        // The last answer, or the end.
        let frame = connection.incoming.frame().await?;
        if Answer::read(&frame).is_ok_and(|answer| answer.number == i32::MAX) {
            return Ok(());
        }
    }
}

/// Returns when the time has come that `deadline` names.
async fn has_come(deadline: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *deadline.borrow_and_update();
        let is_changed = tokio::select! {
            biased;
            changed = deadline.changed() => changed.is_ok(),
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => return,
        };
        if !is_changed {
            // Nobody holds the session: that is told otherwise.
            std::future::pending::<()>().await;
        }
    }
}
