//! Services that are listed: kept, and changed.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::enter::Entered;
use super::layout::Entry;
use super::operation::{self, ANY_VERSION, Code, Request};
use super::record::Record;
use super::session::{Fault, Session, if_there};
use super::tree::parent;
use super::{TRIES, Zookeeper, locked, unsupported};
use crate::model::{InstanceId, ServiceId, ServiceUpdate, Token};
use crate::registry::Result;

/// A service that we keep.
pub(super) struct Registered {
    pub(super) session: Session,
    pub(super) token: Token,
    pub(super) instance: InstanceId,
    known: Mutex<Known>,
}

/// What it is known to be.
struct Known {
    record: Record,
    /// Of the node under its id.
    version: i32,
}

/// What a look at a service comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Listed,
    Gone,
}

impl Registered {
    pub(super) fn new(session: Session, token: Token, Entered { record, version }: Entered) -> Self {
        let instance = record.instance;
        Self { session, token, instance, known: Mutex::new(Known { record, version }) }
    }

    /// It was heard of, and is listed for another timeout.
    pub(super) fn renew(&self) {
        self.session.lives_until(Some(Instant::now() + self.timeout()));
    }

    fn timeout(&self) -> Duration {
        locked(&self.known).record.registration.heartbeat_timeout.as_duration()
    }
}

impl Zookeeper {
    /// Whether its nodes are there, and its own.
    pub(super) async fn check(&self, registered: &Registered) -> std::result::Result<Check, Fault> {
        let (record, version) = {
            let known = locked(&registered.known);
            (known.record.clone(), known.version)
        };
        let session = &registered.session;
        let paths = [Some(self.tree.service(record.registration.id.as_str())), self.entry_path(&record)];
        let outcomes = session.ask_all(paths.iter().flatten().map(|path| Request::exists(path))).await?;
        let mut versions = Vec::new();
        for outcome in outcomes {
            let Some(body) = if_there(outcome)? else { return Ok(Check::Gone) };
            let stat = operation::read_stat(&body)?;
            if stat.owner != session.id() {
                return Ok(Check::Gone);
            }
            versions.push(stat.version);
        }
        if versions.first().is_some_and(|now| *now != version) {
            self.learn(registered, &record).await?;
        }
        Ok(Check::Listed)
    }

    /// Somebody has changed it. Where consumers have to see it elsewhere from now on, or for the first time, or no longer,
    /// that is left to us: the node that they see is tied to our session.
    async fn learn(&self, registered: &Registered, before: &Record) -> std::result::Result<(), Fault> {
        let (session, id) = (&registered.session, &before.registration.id);
        let Some(found) = self.find(session, id).await? else { return Ok(()) };
        let Some(mut record) = found.record.filter(|record| record.instance == registered.instance) else {
            return Ok(());
        };
        let mut version = found.stat.version;
        let old = record.entry.clone();
        let entry = self.url.layout().entry(&record.registration, record.registered_at);
        let stays = |entry: &Entry| {
            old.is_some() && entry.fixed_path().is_none_or(|path| old.as_deref() == Some(path))
        };
        if entry.is_some() != old.is_some() || !entry.as_ref().is_none_or(stays) {
            let mut requests: Vec<_> =
                self.entry_path(&record).iter().map(|path| Request::delete(path, ANY_VERSION)).collect();
            record.entry = entry.as_ref().and_then(Entry::fixed_path).map(str::to_owned);
            requests.push(Request::set(&self.tree.service(id.as_str()), &record.write(), version));
            if let Some(entry) = &entry {
                self.tree.make(session, parent(&self.tree.rooted(&entry.path)), entry.parents).await?;
                requests.push(self.show(entry));
            }
            // The next heartbeat tries again.
            let Ok(done) = session.multi(&requests).await? else { return Ok(()) };
            version = self.name(session, &mut record, version + 1, entry.and(done.last())).await?;
        }
        *locked(&registered.known) = Known { record, version };
        registered.renew();
        Ok(())
    }

    /// Changes what is listed, and what consumers see of it, where its node stays the same one.
    pub(super) async fn change(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        for _ in 0..TRIES {
            let change = match self.try_to_change(&self.session_for(id), id, update).await {
                Err(Fault::Expired) => self.try_to_change(&self.spare(), id, update).await,
                change => change,
            };
            match change.map_err(|fault| self.failure(fault))? {
                Change::Done => return Ok(()),
                Change::NotThere if self.foreign_path(id).await?.is_none() => {
                    return Err(self.no_service(id));
                }
                Change::NotThere | Change::NotOurs => {
                    return Err(unsupported(
                        "changing what another program registered",
                        "services that service-registry-wrapper or raxsr registered",
                    ));
                }
                Change::Interrupted => {}
            }
        }
        Err(self.contended())
    }

    async fn try_to_change(
        &self,
        session: &Session,
        id: &ServiceId,
        update: &ServiceUpdate,
    ) -> std::result::Result<Change, Fault> {
        let Some(found) = self.find(session, id).await? else { return Ok(Change::NotThere) };
        let Some(mut record) = found.record else { return Ok(Change::NotOurs) };
        let registration = &mut record.registration;
        registration.heartbeat_timeout = update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
        if let Some(tags) = &update.tags {
            registration.tags = tags.clone();
        }
        if let Some(metadata) = &update.metadata {
            registration.metadata = metadata.clone();
        }
        let path = self.tree.service(id.as_str());
        let mut requests = vec![Request::set(&path, &record.write(), found.stat.version)];
        let entry = self.url.layout().entry(&record.registration, record.registered_at);
        if let Some(entry) = entry
            && let Some(path) = self.entry_path(&record)
            && entry.fixed_path().is_none_or(|fixed| self.tree.rooted(fixed) == path)
            && session.stat(&path).await?.is_some_and(|stat| stat.owner == found.stat.owner)
        {
            requests.push(Request::set(&path, &entry.data, ANY_VERSION));
        }
        match session.multi(&requests).await? {
            Ok(_) => Ok(Change::Done),
            Err((_, Code::NO_NODE | Code::BAD_VERSION)) => Ok(Change::Interrupted),
            Err((_, code)) => Err(Fault::Refused(code)),
        }
    }

    fn entry_path(&self, record: &Record) -> Option<String> {
        record.entry.as_ref().map(|entry| self.tree.rooted(entry))
    }
}

/// What came of a change.
enum Change {
    Done,
    NotThere,
    NotOurs,
    Interrupted,
}
