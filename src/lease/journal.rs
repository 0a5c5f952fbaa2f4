//! What the log says of a lease: each state once, when it begins, and how long it lasted when it is over.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Event, Standing};
use crate::message::{Hint, chain};
use crate::model::{Drained, HeartbeatTimeout, Registration, ServiceId, printable};
use crate::registry::{Error, Recourse};

pub(super) struct Journal {
    service: ServiceId,
    registry: String,
    timeout: HeartbeatTimeout,
    standing: Standing,
    /// The last failure, and when the first came, while no success has followed.
    trouble: Option<Trouble>,
    /// The trouble that the last success ended.
    overcome: Option<Trouble>,
    /// Since when somebody keeps the service out, and what there is to say of it.
    drained: Option<(Instant, Drained)>,
    regained: Regained,
    has_been_held: bool,
    /// Whether the registry has it as unhealthy.
    is_suspended: bool,
    /// When the last deregistration began.
    leaving_since: Option<Instant>,
}

/// How a lease came to be held that was in trouble.
enum Regained {
    /// By a heartbeat: the registry had us all the time.
    Renewed,
    Registered,
}

struct Trouble {
    since: Instant,
    error: Arc<Error>,
    /// As what it has been told.
    told: Option<Standing>,
}

impl Journal {
    pub(super) fn new(registration: &Registration, registry: &str) -> Self {
        Self {
            service: registration.id.clone(),
            registry: registry.to_owned(),
            timeout: registration.heartbeat_timeout,
            standing: Standing::Idle,
            trouble: None,
            overcome: None,
            drained: None,
            regained: Regained::Registered,
            has_been_held: false,
            is_suspended: false,
            leaving_since: None,
        }
    }

    /// The last failure, if no success followed.
    pub(super) fn failure(&self) -> Option<Arc<Error>> {
        self.trouble.as_ref().map(|trouble| Arc::clone(&trouble.error))
    }

    /// A request failed.
    pub(super) fn failed(&mut self, error: Error, now: Instant) {
        debug!(service = %self.service, registry = self.registry, error = chain(&error), "request failed");
        let (since, told) =
            self.trouble.as_ref().map_or((now, None), |trouble| (trouble.since, trouble.told));
        self.trouble = Some(Trouble { since, error: Arc::new(error), told });
    }

    /// A request succeeded, with this for an answer.
    pub(super) fn succeeded(&mut self, answer: &Event) {
        debug!(service = %self.service, registry = self.registry, "request succeeded");
        self.overcome = self.trouble.take();
        self.regained = match answer {
            Event::HeartbeatAccepted(_) => Regained::Renewed,
            _ => Regained::Registered,
        };
    }

    /// Somebody keeps the service out.
    pub(super) fn drained(&mut self, drained: &Drained, now: Instant) {
        self.trouble = None;
        let since = self.drained.as_ref().map_or(now, |(since, _)| *since);
        self.drained = Some((since, drained.clone()));
    }

    /// The lease woke up for what was due at `deadline`.
    pub(super) fn woke(&self, deadline: Option<Instant>, now: Instant) {
        let late = deadline.map(|deadline| now.saturating_duration_since(deadline)).unwrap_or_default();
        if late > self.timeout.as_duration() {
            warn!(service = %self.service, registry = self.registry, late = ?late,
                "was not running for longer than the heartbeat timeout: checking the registration");
        }
    }

    /// Where the lease stands now.
    pub(super) fn note(&mut self, standing: Standing, now: Instant) {
        let previous = std::mem::replace(&mut self.standing, standing);
        match standing {
            _ if previous == standing => {}
            Standing::Held => self.begins_to_be_held(now),
            Standing::Suspended => self.begins_to_be_suspended(now),
            Standing::Withdrawing => self.leaving_since = Some(now),
            Standing::Withdrawn => self.is_withdrawn(now),
            Standing::Failing | Standing::Waiting => self.is_in_trouble(),
            Standing::Drained => self.is_drained(),
            Standing::Idle | Standing::Registering | Standing::Refused => {}
        }
    }

    fn begins_to_be_held(&mut self, now: Instant) {
        let (service, registry) = (&self.service, &self.registry);
        let overcome = self.overcome.take();
        if let Some((since, _)) = self.drained.take() {
            warn!(%service, registry, after = ?(now - since), "registered: it is not drained any more");
            self.has_been_held = true;
            return;
        }
        let was_suspended = std::mem::take(&mut self.is_suspended);
        match overcome {
            None if was_suspended => info!(%service, registry, "listed again"),
            None => info!(%service, registry, "registered"),
            Some(Trouble { since, error, .. }) => {
                let after = now - since;
                let message = match self.regained {
                    Regained::Renewed => "renewed the registration again",
                    Regained::Registered if self.has_been_held => "registered again",
                    Regained::Registered => "registered at last",
                };
                warn!(%service, registry, ?after, cause = chain(&*error), "{message}");
            }
        }
        self.has_been_held = true;
    }

    fn begins_to_be_suspended(&mut self, now: Instant) {
        self.is_suspended = true;
        self.leaving_since = None;
        let (service, registry) = (&self.service, &self.registry);
        match self.overcome.take() {
            None => info!(%service, registry, "marked as unhealthy"),
            Some(Trouble { since, error, .. }) => {
                let after = now - since;
                warn!(%service, registry, ?after, cause = chain(&*error), "marked as unhealthy at last");
            }
        }
    }

    fn is_drained(&self) {
        let (service, registry) = (&self.service, &self.registry);
        let Some((_, Drained { reason, since, by, .. })) = &self.drained else { return };
        let (reason, by) = (reason.as_deref().map(printable), by.as_deref().map(printable));
        let since = since.map(|since| since.to_string());
        warn!(%service, registry, reason, since, by, "drained by hand: not registered until it is undrained");
    }

    fn is_in_trouble(&mut self) {
        let (service, registry) = (&self.service, &self.registry);
        let Some(Trouble { error, told, .. }) = &mut self.trouble else { return };
        // A registry may forget the service in between: the trouble goes on.
        if told.replace(self.standing) == Some(self.standing) {
            return;
        }
        let hint = error.hint();
        let (error, hint) = (chain(&**error), hint.as_deref());
        if self.standing == Standing::Waiting {
            warn!(%service, registry, error, hint, "waiting until the id is free");
        } else if self.has_been_held {
            warn!(%service, registry, error, hint, "cannot renew the registration, trying on");
        } else {
            warn!(%service, registry, error, hint, "cannot register, trying on");
        }
    }

    fn is_withdrawn(&mut self, now: Instant) {
        self.drained = None;
        self.is_suspended = false;
        let took = self.leaving_since.take().map(|since| now.saturating_duration_since(since));
        let took = took.unwrap_or_default();
        let (service, registry) = (&self.service, &self.registry);
        match self.trouble.take() {
            Some(Trouble { error, .. }) if error.recourse() != Recourse::Register && self.has_been_held => {
                let expires_within = self.timeout.as_duration();
                warn!(%service, registry, error = chain(&*error), ?took, ?expires_within, "cannot deregister");
            }
            _ => info!(%service, registry, ?took, "deregistered"),
        }
        self.has_been_held = false;
    }
}
