//! Where registrations of ours are, and where they may still be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::client::Agent;
use crate::model::{InstanceId, ServiceId};

/// How often an agent that we left is looked at.
const PAUSE: Duration = Duration::from_secs(10);

/// Which agent has which registration of this process.
#[derive(Default)]
pub(super) struct Placement {
    placed: Mutex<HashMap<ServiceId, Placed>>,
}

struct Placed {
    instance: InstanceId,
    agent: Arc<Agent>,
    /// With which the agent enters it into the catalog.
    token: Option<Arc<HeaderValue>>,
    /// The agents that failed: they have it until somebody takes it out there.
    left: Vec<Arc<Agent>>,
    next_look: Option<Instant>,
}

impl Placement {
    /// It is about to be registered there: from now on it may be. Returns the agent that it leaves for this one.
    pub(super) fn enters(
        &self,
        id: &ServiceId,
        instance: InstanceId,
        agent: &Arc<Agent>,
    ) -> Option<Arc<Agent>> {
        let mut placed = self.lock();
        let before = placed.remove(id).filter(|before| before.instance == instance);
        let (token, mut left) = before.map_or((None, Vec::new()), |mut before| {
            before.left.push(before.agent);
            (before.token, before.left)
        });
        let before = left.last().filter(|before| !Arc::ptr_eq(before, agent)).map(Arc::clone);
        left.retain(|other| !Arc::ptr_eq(other, agent));
        let entered = Placed { instance, agent: Arc::clone(agent), token, left, next_look: None };
        placed.insert(id.clone(), entered);
        before
    }

    /// It was registered, with this token.
    pub(super) fn entered(&self, id: &ServiceId, token: Option<Arc<HeaderValue>>) {
        if let Some(placed) = self.lock().get_mut(id) {
            placed.token = token;
        }
    }

    /// The token that it was registered with.
    pub(super) fn token(&self, id: &ServiceId, instance: InstanceId) -> Option<Arc<HeaderValue>> {
        let placed = self.lock();
        placed.get(id).filter(|placed| placed.instance == instance)?.token.clone()
    }

    /// The agents that it is to be taken out of now.
    pub(super) fn to_look_at(&self, id: &ServiceId, instance: InstanceId, now: Instant) -> Vec<Arc<Agent>> {
        let mut all = self.lock();
        let Some(placed) = all.get_mut(id).filter(|placed| placed.instance == instance) else {
            return Vec::new();
        };
        if placed.left.is_empty() || placed.next_look.is_some_and(|next| now < next) {
            return Vec::new();
        }
        placed.next_look = Some(now + PAUSE);
        placed.left.clone()
    }

    /// Whether it is to be taken out there, still.
    pub(super) fn has_left(&self, id: &ServiceId, agent: &Arc<Agent>) -> bool {
        self.lock().get(id).is_some_and(|placed| placed.left.iter().any(|left| Arc::ptr_eq(left, agent)))
    }

    /// It is not there any more.
    pub(super) fn is_gone_from(&self, id: &ServiceId, agent: &Arc<Agent>) {
        if let Some(placed) = self.lock().get_mut(id) {
            placed.left.retain(|left| !Arc::ptr_eq(left, agent));
        }
    }

    /// It was taken out of `agent`, or was not there: everywhere else it may be is left.
    pub(super) fn ends_at(
        &self,
        id: &ServiceId,
        instance: InstanceId,
        agent: &Arc<Agent>,
    ) -> Vec<Arc<Agent>> {
        self.enters(id, instance, agent);
        let placed = self.lock();
        placed.get(id).map_or_else(Vec::new, |placed| placed.left.clone())
    }

    /// Nothing is to be done about it any more.
    pub(super) fn forget(&self, id: &ServiceId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceId, Placed>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Tls;
    use crate::registry::url::AgentAddress;

    fn agent(name: &str) -> Arc<Agent> {
        Arc::new(Agent::new(AgentAddress::Socket(name.into()), &Tls::default()).unwrap())
    }

    #[test]
    fn what_was_left_is_looked_at_now_and_then_until_it_is_gone_or_home_again() {
        let placement = Placement::default();
        let (id, instance) = ("web1".parse().unwrap(), InstanceId::unique());
        let (first, second) = (agent("first"), agent("second"));
        let looked_at = |now: Instant| {
            let agents = placement.to_look_at(&id, instance, now);
            agents.iter().map(|agent| agent.name.clone()).collect::<Vec<_>>()
        };
        let now = Instant::now();
        assert!(placement.enters(&id, instance, &first).is_none());
        assert!(placement.enters(&id, instance, &first).is_none());
        assert!(looked_at(now).is_empty());
        let before = placement.enters(&id, instance, &second).unwrap();
        assert!(Arc::ptr_eq(&before, &first));
        assert_eq!(looked_at(now), ["first"]);
        assert!(looked_at(now).is_empty(), "not twice in a row");
        assert_eq!(looked_at(now + PAUSE), ["first"]);
        placement.enters(&id, instance, &first);
        assert!(!placement.has_left(&id, &first), "it is home again");
        assert_eq!(looked_at(now + 2 * PAUSE), ["second"]);
        placement.is_gone_from(&id, &second);
        assert!(looked_at(now + 3 * PAUSE).is_empty());
        assert_eq!(placement.ends_at(&id, instance, &second).len(), 1, "it was at the first to the end");
        assert!(placement.enters(&id, InstanceId::unique(), &first).is_none(), "another life left nothing");
    }
}
