//! What happens in a registry that keeps no log: told from how its list changes.
#![cfg_attr(
    not(any(feature = "http", feature = "zookeeper")),
    expect(dead_code, reason = "an embedded registry keeps a log")
)]

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Result;
use super::clock::Ticks;
use crate::model::{Event, EventBody, InstanceId, Registration, ServiceId};

/// What happens in a registry from the moment on when it was first asked.
#[async_trait]
pub trait Watch: Send {
    /// What happened next: one event at least. Can be dropped and called again, and misses nothing by it.
    ///
    /// # Errors
    /// When the registry is out of reach. Asked again, it goes on with what has changed in between.
    async fn next(&mut self) -> Result<Vec<Event>>;
}

/// The list of services as it was when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    services: Option<BTreeMap<ServiceId, Listed>>,
}

/// A service in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) registration: Registration,
    /// Which life of it this is; none where the registry does not tell.
    pub(super) instance: Option<InstanceId>,
}

/// How a service left the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It fell silent.
    Expired,
    /// It was taken out on purpose.
    Removed,
}

impl Seen {
    /// What must have happened since the last look for the list to be `now`; `how` tells how a service left. The first
    /// look tells of nothing.
    pub(super) fn look(
        &mut self,
        now: impl IntoIterator<Item = Listed>,
        how: impl Fn(&Registration) -> Left,
    ) -> Vec<EventBody> {
        let now: BTreeMap<_, _> =
            now.into_iter().map(|listed| (listed.registration.id.clone(), listed)).collect();
        let mut bodies = Vec::new();
        if let Some(before) = &self.services {
            bodies.extend(missing(before, &now).map(|registration| match how(registration) {
                Left::Expired => EventBody::ServiceTimeout(registration.clone()),
                Left::Removed => EventBody::ServiceRemove(registration.clone()),
            }));
            bodies.extend(missing(&now, before).cloned().map(EventBody::ServiceJoin));
        }
        self.services = Some(now);
        bodies
    }

    /// What must have happened for a service to be listed as this now, where each change is told.
    #[cfg(feature = "http")]
    pub(super) fn came(&mut self, listed: Listed) -> Vec<EventBody> {
        let services = self.services.get_or_insert_default();
        let joined = EventBody::ServiceJoin(listed.registration.clone());
        let instance = listed.instance;
        match services.insert(listed.registration.id.clone(), listed) {
            Some(before) if before.instance == instance => Vec::new(),
            Some(before) => vec![EventBody::ServiceRemove(before.registration), joined],
            None => vec![joined],
        }
    }

    /// Likewise, for it to be listed no longer; nothing where it was not.
    #[cfg(feature = "http")]
    pub(super) fn went(&mut self, id: &ServiceId, how: Left) -> Option<EventBody> {
        let Listed { registration, .. } = self.services.as_mut()?.remove(id)?;
        Some(match how {
            Left::Expired => EventBody::ServiceTimeout(registration),
            Left::Removed => EventBody::ServiceRemove(registration),
        })
    }
}

/// Those of `some` that are not in `others`, or are there in another life.
fn missing<'a>(
    some: &'a BTreeMap<ServiceId, Listed>,
    others: &'a BTreeMap<ServiceId, Listed>,
) -> impl Iterator<Item = &'a Registration> {
    let is_missing = |(id, listed): &(&ServiceId, &Listed)| {
        others.get(id).is_none_or(|other| other.instance != listed.instance)
    };
    some.iter().filter(is_missing).map(|(_, listed)| &listed.registration)
}

/// Where ids of events come from that nobody else has recorded: each is later than the one before.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    last: Option<Ticks>,
}

impl Recorder {
    /// What has just happened, as an event.
    pub(super) fn record(&mut self, body: EventBody) -> Event {
        let time = self.last.map_or_else(Ticks::now, |Ticks(last)| Ticks::now().max(Ticks(last + 1)));
        self.last = Some(time);
        Event { id: time.uuid(), timestamp: time.timestamp(), body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeartbeatTimeout, Metadata, Tags};

    fn listed(id: &str, instance: Option<InstanceId>) -> Listed {
        let registration = Registration {
            id: id.parse().unwrap(),
            heartbeat_timeout: HeartbeatTimeout::MIN,
            tags: Tags::default(),
            metadata: Metadata::default(),
        };
        Listed { registration, instance }
    }

    #[test]
    fn a_list_tells_who_came_who_went_and_who_is_not_the_same() {
        let (mut seen, mut recorder) = (Seen::default(), Recorder::default());
        let first = InstanceId::unique();
        let how = |registration: &Registration| {
            if registration.id.as_str() == "gone" { Left::Removed } else { Left::Expired }
        };
        let before = [listed("stays", None), listed("gone", None), listed("again", Some(first))];
        assert_eq!(seen.look(before, how), []);
        let now = [listed("stays", None), listed("again", Some(InstanceId::unique())), listed("new", None)];
        let bodies = seen.look(now.clone(), how);
        let told: Vec<_> = bodies.iter().map(|body| (body.kind().as_str(), body.subject())).collect();
        assert_eq!(
            told,
            [
                ("service.timeout", "again"),
                ("service.remove", "gone"),
                ("service.join", "again"),
                ("service.join", "new")
            ]
        );
        assert_eq!(seen.look(now, how), []);
        let ids: Vec<_> = bodies.into_iter().map(|body| recorder.record(body).id.get_timestamp()).collect();
        assert!(ids.is_sorted_by_key(|time| time.map(|time| time.to_gregorian().0)), "{ids:?}");
    }
}
