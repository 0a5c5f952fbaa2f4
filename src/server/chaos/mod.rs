//! What goes wrong on purpose, so that those who rely on a server can rehearse what they do then.
//!
//! The API alone is concerned; health and metrics tell the truth. Every answer that was meddled with says so in its
//! head, and is counted; of what never comes to an answer the count alone tells.

mod spec;
pub(super) mod timetable;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use fastrand::Rng;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use self::spec::{Action, Rule};
pub use self::spec::{Spec, SpecError};
use super::fault::Refusal;
use super::metrics::{Metrics, Resource};
use super::request;
use super::tenants::Tenant;
use crate::api;
use crate::message::chain;
use crate::model::ServiceId;
use crate::registry::{self, Owner};

/// A server's troubles.
pub(super) struct Chaos {
    rules: Vec<Loaded>,
    started: Instant,
    /// Whether the server is about to end: nobody waits any longer then.
    is_over: watch::Sender<bool>,
}

/// A rule and its dice. Each has its own, so that it strikes the same requests whatever the others do.
struct Loaded {
    rule: Rule,
    dice: Mutex<Rng>,
}

/// What becomes of one request.
#[derive(Default)]
pub(super) struct Fate {
    kinds: Vec<&'static str>,
    end: Option<End>,
}

enum End {
    Fail(Refusal),
    Forget,
    Lose,
}

/// There is no answer, on purpose: the connection is to be closed.
#[derive(Debug, thiserror::Error)]
#[error("left without an answer on purpose")]
pub(super) struct Unanswered;

/// Whether a path is one of those that the troubles are for.
pub(super) fn concerns(path: &str) -> bool {
    request::is_api(path) || path == "/http_sd" || path == "/v2.0" || path.starts_with("/v2.0/")
}

impl Chaos {
    /// Says that it is there: nobody is to take it for an accident.
    pub(super) fn new(spec: &Spec) -> Self {
        let seed = spec.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
        warn!(chaos = %spec, seed, "answers are made to fail on purpose");
        let mut dice = Rng::with_seed(seed);
        let load = |rule: &Rule| Loaded { rule: rule.clone(), dice: Mutex::new(dice.fork()) };
        let rules = spec.rules.iter().map(load).collect();
        Self { rules, started: Instant::now(), is_over: watch::Sender::new(false) }
    }

    /// Lets go of all that waits.
    pub(super) fn end(&self) {
        self.is_over.send_replace(true);
    }

    /// What becomes of a request: delayed here, and the first rule that ends it. `Err` when that is no answer.
    pub(super) async fn befall(&self, request: &mut Request, metrics: &Metrics) -> Result<Fate, Unanswered> {
        let mut fate = Fate::default();
        let path = request.uri().path().to_owned();
        let is_heartbeat = request.method() == Method::POST && Resource::of(&path) == Resource::Heartbeats;
        for loaded in &self.rules {
            let action = loaded.rule.action;
            if action == Action::Forget && !is_heartbeat {
                continue;
            }
            let Some(left) = loaded.strikes(self.started.elapsed()) else { continue };
            debug!(chaos = %loaded.rule, path, "on purpose");
            if action != Action::Forget {
                fate.kinds.push(action.kind());
                metrics.troubled(action.kind());
            }
            match action {
                Action::Delay { least, most } => {
                    self.wait(loaded.between(least, most)).await;
                    continue;
                }
                Action::Hang => {
                    self.hang(request.body_mut(), left).await;
                    return Err(Unanswered);
                }
                Action::Fail(status) => {
                    fate.end = Some(End::Fail(Refusal::on_purpose(status, &loaded.rule)));
                }
                Action::Forget => fate.end = Some(End::Forget),
                Action::Lose => fate.end = Some(End::Lose),
            }
            break;
        }
        Ok(fate)
    }

    async fn wait(&self, span: Duration) {
        let mut is_over = self.is_over.subscribe();
        tokio::select! {
            () = sleep(span) => {}
            _ = is_over.wait_for(|is_over| *is_over) => {}
        }
    }

    /// Waits until the client goes, for `left` at most. The body has to be read for that: a connection with
    /// something in it does not tell its end.
    async fn hang(&self, body: &mut Body, left: Duration) {
        let gone = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = gone => {}
            () = self.wait(left) => {}
        }
    }
}

impl Loaded {
    /// Whether this request is one for it, and how much longer the rule holds.
    fn strikes(&self, elapsed: Duration) -> Option<Duration> {
        let left = match &self.rule.schedule {
            None => Duration::MAX,
            // That is nobody's request.
            Some(schedule) if self.rule.action == Action::Forget && schedule.is_moment() => return None,
            Some(schedule) => schedule.left(elapsed)?,
        };
        self.has_one_more().then_some(left)
    }

    fn has_one_more(&self) -> bool {
        self.rule.share.has_one_more(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn between(&self, least: Duration, most: Duration) -> Duration {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        least.saturating_add(most.saturating_sub(least).mul_f64(dice.f64()))
    }
}

impl Fate {
    /// The refusal that is the answer.
    pub(super) fn refusal(&mut self) -> Option<Refusal> {
        match self.end.take() {
            Some(End::Fail(refusal)) => Some(refusal),
            end => {
                self.end = end;
                None
            }
        }
    }

    /// Takes out the service that the heartbeat at `path` is for. What becomes of the heartbeat then is as ever.
    pub(super) async fn forget(&mut self, tenant: &Tenant, path: &str, metrics: &Metrics) {
        if !matches!(self.end, Some(End::Forget)) {
            return;
        }
        let id = path.strip_prefix("/services/").and_then(|path| path.strip_suffix("/heartbeat"));
        let id = id.and_then(|id| percent_decode_str(id).decode_utf8().ok());
        if let Some(id) = id.and_then(|id| ServiceId::new(id).ok())
            && take_out(tenant, &id, metrics).await
        {
            self.kinds.push(Action::Forget.kind());
        }
    }

    /// The answer, with what was done to it in its head.
    pub(super) fn told(self, mut response: Response) -> Result<Response, Unanswered> {
        if matches!(self.end, Some(End::Lose)) {
            return Err(Unanswered);
        }
        if !self.kinds.is_empty()
            && let Ok(value) = HeaderValue::try_from(self.kinds.join(", "))
        {
            response.headers_mut().insert(HeaderName::from_static(api::CHAOS), value);
        }
        Ok(response)
    }
}

/// Takes out a service, whoever's it is. Returns whether it was there.
async fn take_out(tenant: &Tenant, id: &ServiceId, metrics: &Metrics) -> bool {
    match tenant.registry.deregister(id, Owner::Anyone).await {
        Ok(()) => {
            metrics.troubled(Action::Forget.kind());
            true
        }
        Err(registry::Error::NotFound { .. }) => false,
        Err(error) => {
            warn!(service = %id, error = chain(&error), "cannot forget it");
            false
        }
    }
}
