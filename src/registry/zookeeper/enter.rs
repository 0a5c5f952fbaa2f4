//! How a service gets its id.
//!
//! All its nodes are made at once or not at all, and what stands in their way is taken away in the same step. In between
//! look and step somebody else may have been faster: then it is looked again.

use super::operation::{ANY_VERSION, Code, Done, Lasting, Request};
use super::record::Record;
use super::session::{Fault, Session};
use super::tree::parent;
use super::{Zookeeper, layout::Entry};
use crate::model::{Registration, ServiceId, Timestamp, printable};
use crate::registry::{Claim, Error, IfTaken, Result, ZookeeperCause};

/// How often it is looked again.
const TRIES: usize = 6;

/// What the way to an id is like.
enum Way {
    /// What has to be taken away first.
    Free(Vec<Request>),
    /// Somebody has it: who, in words.
    Taken(String),
    /// It has changed since it was looked at.
    Unclear,
}

/// What one try to register comes to.
enum Try {
    Done(Entered),
    /// Somebody has the id: who, in words.
    Taken(String),
    /// Somebody was faster, or something was missing that is there now.
    Again,
}

/// What a registration has become.
pub(super) struct Entered {
    pub(super) record: Record,
    /// Of the node under the id.
    pub(super) version: i32,
}

impl Zookeeper {
    /// Makes the nodes of a service, tied to `session`. An earlier registration of the same instance makes way.
    pub(super) async fn enter(
        &self,
        session: &Session,
        registration: &Registration,
        claim: &Claim,
    ) -> Result<Entered> {
        let record = Record::new(registration, claim, Timestamp::now());
        let entry = self.url.layout().entry(registration, record.registered_at);
        let mut lost = None;
        for _ in 0..TRIES {
            match self.try_to_enter(session, record.clone(), entry.as_ref(), claim).await {
                Ok(Try::Done(entered)) => return Ok(entered),
                Ok(Try::Taken(holder)) => return Err(conflict(&registration.id, holder)),
                Ok(Try::Again) => {}
                // It may have taken effect, which the next look tells; but not for ever.
                Err(Fault::Broken(cause @ ZookeeperCause::Broken { .. })) if lost.is_none() => {
                    lost = Some(cause);
                }
                Err(fault) => return Err(self.failure(fault)),
            }
        }
        Err(self.failure(Fault::Broken(lost.unwrap_or(ZookeeperCause::Contended))))
    }

    async fn try_to_enter(
        &self,
        session: &Session,
        mut record: Record,
        entry: Option<&Entry>,
        claim: &Claim,
    ) -> std::result::Result<Try, Fault> {
        let mut requests = match self.look(session, &record, entry, claim).await? {
            Way::Free(requests) => requests,
            Way::Taken(holder) => return Ok(Try::Taken(holder)),
            Way::Unclear => return Ok(Try::Again),
        };
        requests.extend(self.entering(&mut record, entry));
        match session.multi(&requests).await? {
            Ok(done) => {
                let made = entry.and(done.last());
                let version = self.name(session, &mut record, 0, made).await?;
                Ok(Try::Done(Entered { record, version }))
            }
            Err((_, Code::NO_NODE)) => {
                self.make_parents(session, entry).await?;
                Ok(Try::Again)
            }
            Err((_, Code::NODE_EXISTS | Code::BAD_VERSION)) => Ok(Try::Again),
            Err((_, code)) => Err(Fault::Refused(code)),
        }
    }

    /// What is in the way.
    async fn look(
        &self,
        session: &Session,
        record: &Record,
        entry: Option<&Entry>,
        claim: &Claim,
    ) -> std::result::Result<Way, Fault> {
        let id_path = self.tree.service(record.registration.id.as_str());
        let mut requests = Vec::new();
        let mut id_owner = None;
        let mut old_entry = None;
        if let Some((data, stat)) = session.data(&id_path).await? {
            let held = Record::read(&data);
            let is_ours = held.as_ref().is_some_and(|held| held.instance == claim.instance);
            if !is_ours && claim.if_taken == IfTaken::Refuse {
                let holder = held.map(|held| printable(&held.holder));
                return Ok(Way::Taken(holder.unwrap_or_else(|| ANOTHER_PROGRAM.to_owned())));
            }
            requests.push(Request::delete(&id_path, stat.version));
            id_owner = Some(stat.owner);
            if let Some(held) = held {
                if !is_ours {
                    requests.push(self.removal(&held));
                }
                old_entry = held.entry;
            }
        }
        let new_entry = entry.and_then(Entry::fixed_path).filter(|path| old_entry.as_deref() != Some(*path));
        for path in old_entry.as_deref().into_iter().chain(new_entry) {
            let path = self.tree.rooted(path);
            let Some(stat) = session.stat(&path).await? else { continue };
            let is_foreign = Some(stat.owner) != id_owner && stat.owner != session.id();
            if is_foreign && claim.if_taken == IfTaken::Refuse {
                // Or somebody has registered since the first look.
                let has_changed = session.stat(&id_path).await?.map(|stat| stat.owner) != id_owner;
                let foreign = || Way::Taken(ANOTHER_PROGRAM.to_owned());
                return Ok(if has_changed { Way::Unclear } else { foreign() });
            }
            requests.push(Request::delete(&path, ANY_VERSION));
        }
        Ok(Way::Free(requests))
    }

    /// The request for the node that consumers see.
    pub(super) fn show(&self, entry: &Entry) -> Request {
        Request::create(&self.tree.rooted(&entry.path), &entry.data, self.acl(), entry.lasting)
    }

    /// Notes where the node for consumers is that was `made`, where only the server knew; returns the version of the
    /// node under the id, which had `version`.
    pub(super) async fn name(
        &self,
        session: &Session,
        record: &mut Record,
        version: i32,
        made: Option<&Done>,
    ) -> std::result::Result<i32, Fault> {
        let Some(Done::Created(path)) = made.filter(|_| record.entry.is_none()) else { return Ok(version) };
        record.entry = path.strip_prefix(&self.tree.rooted("")).map(str::to_owned);
        let id_path = self.tree.service(record.registration.id.as_str());
        match session.ask(Request::set(&id_path, &record.write(), version)).await? {
            Ok(_) => Ok(version + 1),
            Err(code) => Err(Fault::Refused(code)),
        }
    }

    async fn make_parents(&self, session: &Session, entry: Option<&Entry>) -> std::result::Result<(), Fault> {
        self.tree.make(session, &self.tree.services(), Lasting::Persistent).await?;
        self.tree.make(session, &self.tree.removed(), Lasting::Persistent).await?;
        let Some(entry) = entry else { return Ok(()) };
        self.tree.make(session, parent(&self.tree.rooted(&entry.path)), entry.parents).await
    }

    /// What tells those who watch that a service has not fallen silent. It ends with the session of whoever took it out.
    pub(super) fn removal(&self, held: &Record) -> Request {
        let path = self.tree.removal(&held.registration.id, held.instance);
        Request::create(&path, &[], self.acl(), Lasting::Sequential)
    }
}

const ANOTHER_PROGRAM: &str = "another program";

fn conflict(id: &ServiceId, holder: String) -> Error {
    Error::Conflict { id: id.clone(), holder, frees_in: None }
}
