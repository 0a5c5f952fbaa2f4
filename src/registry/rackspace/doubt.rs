//! Which of our own registrations may have taken effect without our knowing it.
//!
//! Our own server tells instances apart, and takes a repeated registration for what it is. Others answer "taken" to
//! the repetition of a registration whose answer was lost, and to the registration after a heartbeat whose answer was
//! lost (its token was used up, so that the next heartbeat is "not found"). What is listed then is ours if it looks
//! as we would register it, and if we were in doubt within its timeout. It cannot be told from a twin with the same
//! id, tags, metadata and timeout; two such must not run against such a server.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::model::{HeartbeatTimeout, ServiceId};
use crate::registry::Error;

/// The calls that are under way, or came to no good end, and when they began.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<ServiceId, Instant>>);

impl Doubts {
    /// A call for `id` that renews a registration begins: until its end is told, it may take effect. Returns since
    /// when there was doubt before it.
    pub(super) fn begin(&self, id: &ServiceId) -> Option<Instant> {
        let now = Instant::now();
        let mut doubts = self.lock();
        doubts.retain(|_, since| now - *since <= HeartbeatTimeout::MAX.as_duration());
        doubts.insert(id.clone(), now)
    }

    /// It is known what became of it.
    pub(super) fn end(&self, id: &ServiceId) {
        self.lock().remove(id);
    }

    /// It had no effect: all is as it was before.
    pub(super) fn undo(&self, id: &ServiceId, before: Option<Instant>) {
        match before {
            Some(since) => self.lock().insert(id.clone(), since),
            None => self.lock().remove(id),
        };
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `error` leaves open if the call had an effect. A heartbeat that is "not found" may be one that an earlier
/// one, whose answer was lost, has made so.
pub(super) fn is_open(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::NotFound { .. })
}
