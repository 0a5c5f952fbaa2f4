//! What a lease is told, what it answers, and how it is seen.

use std::time::Duration;

use crate::model::{Drained, Token};
use crate::registry::{IfTaken, Recourse};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The service is to be in the registry: its child can serve.
    Enlist,
    /// The service is not healthy: where it is listed, the registry is to say so. Elsewhere it is a withdrawal.
    Suspend,
    /// The service is to leave the registry.
    Withdraw,
    /// The time of [`Lease::deadline`](super::Lease::deadline) has come.
    DeadlineReached,
    /// The registration succeeded, with the token of the first heartbeat.
    Registered(Token),
    /// The heartbeat was accepted, whatever it said, with the token of the next.
    HeartbeatAccepted(Token),
    /// The deregistration succeeded.
    Deregistered,
    /// The registration was not sent: somebody keeps the service out.
    Drained(Drained),
    /// The request that was under way failed; a failure can be of use.
    Failed(Recourse),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until the deadline or the next event.
    Wait,
    /// Send this, instead of whatever is still under way.
    Send(Request),
}

/// One call to the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which call.
    pub call: Call,
    /// When to give up on its answer.
    pub timeout: Duration,
    /// Log in anew before it.
    pub credentials: Credentials,
}

/// A call to the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Enter the registry.
    Register(IfTaken),
    /// Renew the lease.
    Heartbeat(Token),
    /// Renew the lease of a service that is not healthy.
    Suspend(Token),
    /// Leave the registry.
    Deregister,
}

/// Which credentials a call is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Those at hand.
    Current,
    /// New ones: the registry refused those at hand.
    Renewed,
}

/// Where the lease stands, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The child is not ready yet.
    Idle,
    /// The first answer is outstanding.
    Registering,
    /// Somebody else holds our id.
    Waiting,
    /// Somebody keeps the service out, for maintenance.
    Drained,
    /// We are listed.
    Held,
    /// We are in the registry, as one that is not healthy, and not listed.
    Suspended,
    /// We are, or want to be, listed, and the last answer was a failure.
    Failing,
    /// Registration has failed, as the [policy](super::Policy::give_up_after) counts it. It is still tried.
    Refused,
    /// The deregistration is under way.
    Withdrawing,
    /// We are not listed, and do not want to be.
    Withdrawn,
}
