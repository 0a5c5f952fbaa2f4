//! What happens from now on, as the servers tell who watches.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::connection::Shared;
use super::operation::{self, Request};
use super::record::Record;
use super::session::{Fault, Happening, Session, if_there};
use super::tree::{Tree, removed};
use super::wire::Flag;
use super::{BATCH, ZookeeperCause};
use crate::model::{Event, InstanceId, Registration, ServiceId};
use crate::registry::watch::{Left, Listed, Recorder, Seen, Watch};
use crate::registry::{Cause, Error, Result};

/// How long it watches on without a connection.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Watches the list of services, and each service in it: one that is gone and back between two looks is another.
pub(super) struct Watching {
    ensemble: Shared,
    tree: Tree,
    url: String,
    session: Option<(Session, mpsc::UnboundedReceiver<Happening>)>,
    /// What each node was when it was looked at, unless it has changed since.
    known: BTreeMap<String, Option<Listed>>,
    seen: Seen,
    /// Which life of each service that is.
    instances: HashMap<ServiceId, InstanceId>,
    recorder: Recorder,
}

impl Watching {
    pub(super) fn new(ensemble: &Shared, tree: &Tree, url: &str) -> Self {
        Self {
            ensemble: ensemble.clone(),
            tree: tree.clone(),
            url: url.to_owned(),
            session: None,
            known: BTreeMap::new(),
            seen: Seen::default(),
            instances: HashMap::new(),
            recorder: Recorder::default(),
        }
    }

    /// Looks, and says what must have happened since the last look.
    async fn look(&mut self) -> std::result::Result<Vec<Event>, Fault> {
        let session = self.session();
        let names = self.children(&session).await?;
        self.known.retain(|name, _| names.contains(name));
        let unknown: Vec<_> = names.into_iter().filter(|name| !self.known.contains_key(name)).collect();
        for batch in unknown.chunks(BATCH) {
            self.read(&session, batch).await?;
        }
        let removed = self.removed(&session).await?;
        // From here on, nothing is waited for: what is seen is told.
        let how = |Registration { id, .. }: &Registration| {
            let instance = self.instances.get(id);
            let is_removed = instance.is_some_and(|instance| removed.contains(&(id.clone(), *instance)));
            if is_removed { Left::Removed } else { Left::Expired }
        };
        let bodies = self.seen.look(self.known.values().flatten().cloned(), how);
        let listed = self.known.values().flatten();
        let instances = listed.filter_map(|listed| Some((listed.registration.id.clone(), listed.instance?)));
        self.instances = instances.collect();
        Ok(bodies.into_iter().map(|body| self.recorder.record(body)).collect())
    }

    fn session(&mut self) -> Session {
        let ensemble = &self.ensemble;
        let (session, _) = self.session.get_or_insert_with(|| Session::watching(ensemble, TIMEOUT));
        session.clone()
    }

    /// The names of the nodes of all services. A list that is not there yet is made, so that it can be watched.
    async fn children(&self, session: &Session) -> std::result::Result<BTreeSet<String>, Fault> {
        let path = self.tree.services();
        let ask = || session.ask(Request::children(&path, Flag::Yes));
        let body = if let Some(body) = if_there(ask().await?)? {
            body
        } else {
            self.tree.make(session, &path, operation::Lasting::Persistent).await?;
            ask().await?.map_err(Fault::Refused)?
        };
        Ok(operation::read_children(&body)?.into_iter().collect())
    }

    /// What stands in these nodes, each of which is watched from now on.
    async fn read(&mut self, session: &Session, names: &[String]) -> std::result::Result<(), Fault> {
        let requests = names.iter().map(|name| Request::data(&self.tree.service(name), Flag::Yes));
        for (name, outcome) in names.iter().zip(session.ask_all(requests).await?) {
            let Some(body) = if_there(outcome)? else { continue };
            let (data, _) = operation::read_data(&body)?;
            let listed = Record::read(&data)
                .map(|record| Listed { registration: record.registration, instance: Some(record.instance) });
            self.known.insert(name.clone(), listed);
        }
        Ok(())
    }

    /// Who did not fall silent, of those that are gone.
    async fn removed(
        &self,
        session: &Session,
    ) -> std::result::Result<HashSet<(ServiceId, InstanceId)>, Fault> {
        let outcome = session.ask(Request::children(&self.tree.removed(), Flag::No)).await?;
        let Some(body) = if_there(outcome)? else { return Ok(HashSet::new()) };
        Ok(operation::read_children(&body)?.iter().filter_map(|name| removed(name)).collect())
    }

    /// Waits for the next word of the servers, and takes those with it that are there.
    async fn wait(&mut self) {
        let Some((_, happenings)) = &mut self.session else { return };
        let Some(first) = happenings.recv().await else {
            // The session is over: the next look begins another.
            self.session = None;
            self.known.clear();
            return;
        };
        let mut next = Some(first);
        while let Some(happening) = next {
            match happening {
                Happening::Reconnected => self.known.clear(),
                Happening::Changed(path) => {
                    if let Some((_, name)) = path.rsplit_once('/') {
                        self.known.remove(name);
                    }
                }
            }
            next = happenings.try_recv().ok();
        }
    }

    fn failure(&mut self, fault: Fault) -> Error {
        let cause = match fault {
            Fault::Expired => ZookeeperCause::Expired,
            Fault::Broken(cause) | Fault::Denied(cause) => cause,
            Fault::Refused(code) => ZookeeperCause::refused(code),
        };
        // Whatever was under way: the next look is at everything.
        self.session = None;
        self.known.clear();
        Error::Unavailable { registry: self.url.clone(), source: Cause::Zookeeper(cause) }
    }
}

#[async_trait]
impl Watch for Watching {
    async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            match self.look().await {
                Ok(events) if !events.is_empty() => return Ok(events),
                Ok(_) => self.wait().await,
                Err(fault) => return Err(self.failure(fault)),
            }
        }
    }
}
