//! The way to the registry and back, on which a message may be lost, late, doubled or overtaken.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::plan::Kind;
use super::registry::{Ask, Reply};
use super::world::{Happening, Message, Note, World};
use crate::lease::Clock;
use crate::model::{Page, Registration, Service, ServiceId, ServiceUpdate, Token};
use crate::registry::{
    Cause, Claim, ConfigurationStore, Error, EventLog, Object, Owner, Registry, Result, ServiceQuery,
};

pub(super) type Shared = Arc<Mutex<World>>;

impl World {
    fn send(&mut self, client: usize, ask: Ask) -> u64 {
        let number = self.next_number();
        let message = Message { client, number, ask, login: self.desks[client].login };
        self.note(Note::Sent(message));
        if !self.desks[client].waits_for.is_empty() && client == 0 {
            self.watcher.two_at_a_time();
        }
        self.desks[client].waits_for.push((number, None));
        if self.has(|kind| kind == Kind::Refusing).is_some() || self.is_down() {
            self.at(self.now + Duration::from_millis(1), Happening::Answered(message, Reply::Unavailable));
            return number;
        }
        if let Some(delay) = self.passage() {
            self.carry(message, delay);
        } else {
            self.note(Note::Lost(message));
        }
        if self.has(|kind| kind == Kind::Duplicating).is_some() {
            let delay = self.plan.timeout().mul_f64(self.rng.f64());
            self.carry(message, delay);
        }
        number
    }

    /// How long a message takes; none when it is lost.
    fn passage(&mut self) -> Option<Duration> {
        if self.has(|kind| kind == Kind::BlackHole).is_some() {
            return None;
        }
        if let Some(Kind::Lossy(one_in)) = self.has(|kind| matches!(kind, Kind::Lossy(_)))
            && self.rng.u32(0..one_in) == 0
        {
            return None;
        }
        let is_slow = self.has(|kind| kind == Kind::Slow).is_some() && self.rng.bool();
        let longest = if is_slow { self.plan.timeout() * 2 } else { self.plan.latency };
        Some(longest.mul_f64(self.rng.f64()))
    }

    fn carry(&mut self, message: Message, delay: Duration) {
        if delay > self.plan.latency {
            self.watcher.trouble(self.now, self.now + delay);
        }
        self.at(self.now + delay, Happening::Arrives(message));
    }

    pub(super) fn arrives(&mut self, message: Message) {
        if self.has(|kind| kind == Kind::BlackHole).is_some() {
            return self.note(Note::Lost(message));
        }
        self.note(Note::Arrives(message));
        let reply = self.serve(message);
        match self.passage() {
            Some(delay) => self.at(self.now + delay, Happening::Answered(message, reply)),
            None => self.note(Note::AnswerLost(message, reply)),
        }
    }

    fn serve(&mut self, message: Message) -> Reply {
        if self.is_down() {
            return Reply::Unavailable;
        }
        if self.has(|kind| kind == Kind::Invalid).is_some() {
            return Reply::Invalid;
        }
        if self.has(|kind| kind == Kind::Astray).is_some() {
            match message.ask {
                Ask::Heartbeat(_) => return Reply::NotFound,
                // No backend takes a missing page for an answer to that.
                Ask::Register(_) => return Reply::Unavailable,
                Ask::Login | Ask::Deregister => {}
            }
        }
        if let Some(Kind::Overloaded(one_in)) = self.has(|kind| matches!(kind, Kind::Overloaded(_)))
            && self.rng.u32(0..one_in) == 0
        {
            if self.rng.bool() {
                self.asked(message);
            }
            return Reply::Unavailable;
        }
        self.asked(message)
    }

    pub(super) fn answered(&mut self, message: Message, reply: Reply) {
        let desk = &mut self.desks[message.client];
        match desk.waits_for.iter_mut().find(|(number, _)| *number == message.number) {
            Some((_, answer @ None)) => {
                *answer = Some(reply);
                desk.is_woken = true;
            }
            _ => self.note(Note::TooLate(message, reply)),
        }
    }

    /// The answer to a request, once it is here: heard only once.
    fn hear(&mut self, client: usize, number: u64) -> Option<Reply> {
        let desk = &mut self.desks[client];
        let index = desk.waits_for.iter().position(|waiting| waiting.0 == number && waiting.1.is_some())?;
        let (_, reply) = desk.waits_for.remove(index);
        let reply = reply?;
        if let Reply::LoggedIn(login) = reply {
            desk.login = login;
        }
        self.note(Note::Heard(number, reply));
        Some(reply)
    }

    /// Nobody waits for the answer any more. The request cannot be recalled.
    fn abandon(&mut self, client: usize, number: u64) {
        let waits_for = &mut self.desks[client].waits_for;
        let before = waits_for.len();
        waits_for.retain(|waiting| waiting.0 != number);
        if waits_for.len() < before {
            self.note(Note::Abandoned(number));
        }
    }
}

/// A client's end of the network.
pub(super) struct Line {
    pub(super) world: Shared,
    pub(super) client: usize,
}

struct Flight<'a> {
    line: &'a Line,
    number: u64,
}

impl Future for Flight<'_> {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        let reply = self.line.world.lock().unwrap().hear(self.line.client, self.number);
        reply.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Ok(mut world) = self.line.world.lock() {
            world.abandon(self.line.client, self.number);
        }
    }
}

impl Line {
    async fn ask(&self, ask: Ask) -> Result<Reply> {
        let number = self.world.lock().unwrap().send(self.client, ask);
        let registry = || self.url().to_owned();
        let source = || Cause::Internal("as told".to_owned());
        let id = || "service".to_owned();
        match (Flight { line: self, number }).await {
            Reply::Unavailable => Err(Error::Unavailable { registry: registry(), source: source() }),
            Reply::Unauthorized => Err(Error::Unauthorized { registry: registry(), source: source() }),
            Reply::Invalid => Err(Error::Invalid { registry: registry(), source: source() }),
            Reply::NotFound => {
                Err(Error::NotFound { registry: registry(), object: Object::Service, id: id() })
            }
            Reply::Conflict(frees_in) => Err(Error::Conflict {
                id: id().parse().unwrap(),
                holder: "a rival".to_owned(),
                frees_in: Some(frees_in),
            }),
            reply => Ok(reply),
        }
    }

    async fn ask_for_token(&self, ask: Ask) -> Result<Token> {
        match self.ask(ask).await? {
            Reply::Token(number) => Ok(Token::new(number.to_string())),
            reply => panic!("{reply:?} is no token"),
        }
    }
}

#[async_trait]
impl Registry for Line {
    #[expect(clippy::unnecessary_literal_bound, reason = "the trait's signature")]
    fn url(&self) -> &str {
        "simulation"
    }

    async fn register(&self, _: &Registration, claim: &Claim) -> Result<Token> {
        self.ask_for_token(Ask::Register(claim.if_taken)).await
    }

    async fn heartbeat(&self, _: &ServiceId, token: &Token, _: Owner) -> Result<Token> {
        self.ask_for_token(Ask::Heartbeat(token.as_str().parse().unwrap())).await
    }

    async fn deregister(&self, _: &ServiceId, _: Owner) -> Result<()> {
        self.ask(Ask::Deregister).await.map(drop)
    }

    async fn renew_credentials(&self) -> Result<()> {
        self.ask(Ask::Login).await.map(drop)
    }

    async fn update(&self, _: &ServiceId, _: &ServiceUpdate) -> Result<()> {
        unreachable!("a lease changes nothing")
    }

    async fn service(&self, _: &ServiceId) -> Result<Service> {
        unreachable!("a lease reads nothing")
    }

    async fn services(&self, _: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        unreachable!("a lease reads nothing")
    }

    fn events(&self) -> Result<&dyn EventLog> {
        unreachable!("a lease reads nothing")
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Err(Error::Unsupported { operation: "configuration", kind: "simulated", supported_by: "" })
    }
}

/// The time of the simulation, as a client's driver sees it.
pub(super) struct VirtualClock {
    pub(super) world: Shared,
    pub(super) client: usize,
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.world.lock().unwrap().instant()
    }

    async fn sleep_until(&self, at: Instant) {
        std::future::poll_fn(|_| self.world.lock().unwrap().rings(self.client, at)).await;
    }
}

impl World {
    fn rings(&mut self, client: usize, at: Instant) -> Poll<()> {
        let at = self.time(at);
        if at <= self.now {
            return Poll::Ready(());
        }
        if self.desks[client].timer != Some(at) {
            self.desks[client].timer = Some(at);
            self.at(at, Happening::Rings(client));
        }
        Poll::Pending
    }
}
