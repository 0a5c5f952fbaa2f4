//! What both ends of the Service Registry HTTP API agree on: the names and shapes that go over the wire.
//!
//! The API is that of the Rackspace Service Registry, version 1.0. Ours alone are the headers [`INSTANCE`] and
//! [`HOLDER`] and a fault's `holder`: with them a client finds its own registration again whose answer was lost.
//! Whoever does not know them leaves them out, and is served as ever. [`CHAOS`] is ours, too.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Token;

/// Request header: the token of the last login.
pub const AUTH_TOKEN: &str = "x-auth-token";
/// Request header: the tenant that is meant, before the one in the path.
pub const TENANT: &str = "x-tenant-id";
/// Response header: what to ask the operator about; a fault's `txnId`.
pub const RESPONSE_ID: &str = "x-response-id";
/// Request header: which life of which program registers, renews or withdraws, as a UUID.
pub const INSTANCE: &str = "x-service-instance";
/// Request header: the same in words, for whoever meets it as a conflict.
pub const HOLDER: &str = "x-service-holder";
/// Response header: what was done to the answer on purpose, by `raxsr serve --chaos`.
pub const CHAOS: &str = "x-chaos";
/// A request's body may not be as long as this, in bytes.
pub const BODY_LIMIT: usize = 5000;

/// Why a request failed, as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// What went wrong, for programs.
    #[serde(rename = "type")]
    pub kind: FaultKind,
    /// The status of the response.
    pub code: u16,
    /// What went wrong, in a few words.
    pub message: String,
    /// What went wrong exactly: a text, but for unknown pages.
    pub details: Value,
    /// The same as the header [`RESPONSE_ID`].
    pub txn_id: String,
    /// Who holds the id that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// The request breaks a rule.
    BadRequest,
    /// A live service has this id.
    ServiceWithThisIdExists,
    /// A page cannot be as long as that.
    InvalidLimit,
    /// There are as many of these as the account may have.
    LimitReached,
    /// The account has asked as often as it may.
    RateLimitReached,
    /// There was no login, or it does not count any more.
    UnauthorizedError,
    /// The login does not allow this.
    ForbiddenError,
    /// There is no such thing.
    NotFoundError,
    /// The request is too long.
    RequestTooLargeError,
    /// The server failed.
    InternalError,
    /// The server cannot do this.
    NotImplementedError,
    /// What the server relies on does not work just now.
    SystemFailureError,
    /// One that we do not know.
    #[serde(other)]
    Other,
}

/// The body of a heartbeat, and of the answer to one and to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatToken {
    /// What the (next) heartbeat presents.
    pub token: Token,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The items, in order.
    pub values: Vec<T>,
    /// Where in the list we are.
    pub metadata: Paging,
}

/// Where in a list a page is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paging {
    /// How many items the page has.
    pub count: usize,
    /// How many it could have had.
    pub limit: usize,
    /// Where it was to begin, inclusive.
    pub marker: Option<String>,
    /// Where the next page begins; none when this is the last.
    pub next_marker: Option<String>,
    /// The next page's URL.
    #[serde(default)]
    pub next_href: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_the_shape_of_the_wire() {
        let json = serde_json::json!({
            "type": "serviceWithThisIdExists", "code": 400, "message": "m", "details": "d", "txnId": "t",
        });
        let fault: Fault = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(fault.kind, FaultKind::ServiceWithThisIdExists);
        assert_eq!(serde_json::to_value(&fault).unwrap(), json);
        assert_eq!(serde_json::from_value::<FaultKind>("newError".into()).unwrap(), FaultKind::Other);
    }
}
