//! Where our own nodes are, beside the trees of consumers.
//!
//! ```text
//! /service-registry/services/<id>              a service, as long as its session: what makes its id unique
//! /service-registry/removed/<id>_<instance>_n  that it did not fall silent, for those who watch: gone after a while
//! /service-registry/configuration/:prod:key    the value /prod/key
//! ```

use super::operation::Acl;
use super::operation::{Code, Lasting, Request};
use super::session::{Fault, Session, if_there};
use crate::model::{ConfigurationId, InstanceId, ServiceId};

/// The paths of our own nodes, under a chroot.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    chroot: String,
}

impl Tree {
    pub(super) fn new(chroot: &str) -> Self {
        Self { chroot: chroot.to_owned() }
    }

    /// A path that is given without the chroot.
    pub(super) fn rooted(&self, path: &str) -> String {
        format!("{}{path}", self.chroot)
    }

    pub(super) fn services(&self) -> String {
        self.rooted("/service-registry/services")
    }

    pub(super) fn service(&self, id: &str) -> String {
        format!("{}/{id}", self.services())
    }

    pub(super) fn removed(&self) -> String {
        self.rooted("/service-registry/removed")
    }

    /// To be made with a number at its end: an instance may be removed more than once.
    pub(super) fn removal(&self, id: &ServiceId, instance: InstanceId) -> String {
        format!("{}/{id}_{instance}_", self.removed())
    }

    pub(super) fn configuration(&self) -> String {
        self.rooted("/service-registry/configuration")
    }

    /// An id has slashes, which no name of a node can have, and no colons.
    pub(super) fn value(&self, id: &ConfigurationId) -> String {
        format!("{}/{}", self.configuration(), id.as_str().replace('/', ":"))
    }

    /// Makes the node at `path`, and those above it, where they are not there yet.
    pub(super) async fn make(&self, session: &Session, path: &str, lasting: Lasting) -> Result<(), Fault> {
        let mut missing = vec![path];
        while let Some(&path) = missing.last() {
            if path.is_empty() || if_there(session.ask(Request::exists(path)).await?)?.is_some() {
                missing.pop();
                continue;
            }
            // What is not ours alone stays.
            let lasting = if path.len() > self.chroot.len() { lasting } else { Lasting::Persistent };
            match create(session, path, lasting).await? {
                Ok(_) | Err(Code::NODE_EXISTS) => drop(missing.pop()),
                Err(Code::NO_NODE) => missing.push(parent(path)),
                Err(code) => return Err(Fault::Refused(code)),
            }
        }
        Ok(())
    }
}

async fn create(session: &Session, path: &str, lasting: Lasting) -> Result<super::session::Outcome, Fault> {
    let outcome = session.ask(Request::create(path, &[], Acl::Open, lasting)).await?;
    if lasting == Lasting::Container && outcome == Err(Code::UNIMPLEMENTED) {
        // Before ZooKeeper 3.5.
        return session.ask(Request::create(path, &[], Acl::Open, Lasting::Persistent)).await;
    }
    Ok(outcome)
}

/// The path of the node above; empty for the root.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The id of the value that a node has.
pub(super) fn value_id(name: &str) -> Option<ConfigurationId> {
    name.replace(':', "/").parse().ok()
}

/// Whose removal a node tells of.
pub(super) fn removed(name: &str) -> Option<(ServiceId, InstanceId)> {
    let (rest, _number) = name.rsplit_once('_')?;
    let (id, instance) = rest.rsplit_once('_')?;
    Some((id.parse().ok()?, instance.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_tells_what_it_is_of() {
        let tree = Tree::new("/apps");
        for text in ["key", "/key", "/prod/key", "/prod/eu-1/a.b"] {
            let id = text.parse().unwrap();
            let path = tree.value(&id);
            let name = path.strip_prefix("/apps/service-registry/configuration/").unwrap();
            assert!(!name.contains('/'), "{name}");
            assert_eq!(value_id(name), Some(id));
        }
        let (id, instance) = ("a_b_1".parse().unwrap(), InstanceId::unique());
        let path = tree.removal(&id, instance) + "0000000012";
        assert_eq!(removed(path.rsplit_once('/').unwrap().1), Some((id, instance)));
        assert_eq!((parent("/a/b"), parent("/a")), ("/a", ""));
    }
}
