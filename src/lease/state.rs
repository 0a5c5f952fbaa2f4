//! What a lease remembers, in each of its states.

use std::time::Duration;

use tokio::time::Instant;

use super::{Backoff, Standing};
use crate::model::Token;

#[derive(Debug)]
pub(super) enum State {
    Idle,
    Registering(Registering),
    Held(Held),
    Withdrawing(Withdrawing),
    Withdrawn,
}

#[derive(Debug)]
pub(super) struct Registering {
    pub(super) backoff: Backoff,
    pub(super) failures: u32,
    pub(super) credentials_renewed: bool,
    /// Since when somebody else holds our id.
    pub(super) taken_since: Option<Instant>,
    /// Until when the lease lasts that we had, where a heartbeat was refused. If it was refused in error, we are listed
    /// for as long: not everybody who says "not found" on a way to a registry is one.
    pub(super) listed_until: Option<Instant>,
    /// It has failed, as the policy counts it.
    pub(super) is_refused: bool,
    /// It was not sent when it was last due.
    pub(super) is_drained: bool,
}

impl Registering {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            // With the try before it, less than the timeout: so soon are we back when the registry is.
            backoff: Backoff::capped_at(period.mul_f64(1.6)),
            failures: 0,
            credentials_renewed: false,
            taken_since: None,
            listed_until: None,
            is_refused: false,
            is_drained: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Withdrawing {
    pub(super) tries: u32,
    /// The service is to be listed again, once it is known what became of the request under way.
    pub(super) is_wanted_back: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: Token,
    /// When the registry counts us as dead, unless it has accepted something since: never later than it does.
    pub(super) expires_at: Instant,
    pub(super) failures: u32,
    pub(super) credentials_renewed: bool,
    /// What is to be said of the service.
    pub(super) wanted: Vitality,
    /// What the last request said.
    pub(super) sent: Vitality,
    /// What the registry has accepted last.
    pub(super) told: Vitality,
}

impl Held {
    pub(super) fn new(token: Token, expires_at: Instant) -> Self {
        let (failures, credentials_renewed) = (0, false);
        let (wanted, sent, told) = (Vitality::Healthy, Vitality::Healthy, Vitality::Healthy);
        Self { token, expires_at, failures, credentials_renewed, wanted, sent, told }
    }

    pub(super) fn standing(&self) -> Standing {
        match (self.told, self.wanted) {
            // The first failure is sent again at once: only the second says that something is wrong.
            _ if self.failures > 1 => Standing::Failing,
            (Vitality::Healthy, Vitality::Healthy) => Standing::Held,
            (Vitality::Unhealthy, Vitality::Unhealthy) => Standing::Suspended,
            (Vitality::Healthy, Vitality::Unhealthy) => Standing::Withdrawing,
            (Vitality::Unhealthy, Vitality::Healthy) => Standing::Registering,
        }
    }
}

/// Whether those who look services up are to be shown this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vitality {
    Healthy,
    /// Only that it is there, and in trouble.
    Unhealthy,
}
