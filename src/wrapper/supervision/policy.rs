//! What the supervision is to obey.

use std::time::Duration;

use crate::wrapper::child::Group;
use crate::wrapper::signal_number::SignalNumber;

/// When to take the service out of the registry, rather than let it expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::wrapper) enum Deregister {
    /// Whenever the command ends.
    Always,
    /// When it is asked to stop; a command that ends by itself is left to expire, so that whoever watches for
    /// crashes sees one.
    OnStop,
    /// Never: the entry always expires.
    Never,
}

/// What is left in the registry of a child that has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrapper) enum Legacy {
    /// Its entry, as it was.
    Entry,
    /// Its entry, and in that how it has ended.
    Tombstone,
}

/// What the supervision is to obey.
#[derive(Debug, Clone, Copy)]
pub(in crate::wrapper) struct Policy {
    pub(in crate::wrapper) deregister: Deregister,
    pub(in crate::wrapper) legacy: Legacy,
    /// When a child that was interrupted but goes on is listed again.
    pub(in crate::wrapper) reinstate_after: Duration,
    /// What the child gets instead of SIGTERM.
    pub(in crate::wrapper) stop_signal: SignalNumber,
    /// How long the child has to end once it was asked to, before it is killed. None: for ever.
    pub(in crate::wrapper) stop_timeout: Option<Duration>,
    /// How long the request to stop is held back once the service has left the registry. None: not at all.
    pub(in crate::wrapper) drain: Option<Drain>,
    /// Which process group it is in.
    pub(in crate::wrapper) group: Group,
}

/// How a child goes on serving those who have looked it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrapper) struct Drain {
    /// For no longer than this.
    pub(in crate::wrapper) limit: Duration,
    pub(in crate::wrapper) ends: Ends,
}

/// When a drain is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrapper) enum Ends {
    /// At its limit.
    AtLimit,
    /// As soon as registries do not show the service any more.
    WhenUnlisted,
}
