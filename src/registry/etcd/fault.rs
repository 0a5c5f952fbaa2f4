//! What etcd's gateway says when it refuses: by the code of gRPC, and where that is not enough, by the text. The status
//! of HTTP differs from version to version.

use serde_json::Value;

use crate::message::Hint;
use crate::model::printable;
use crate::registry::{Cause, Error, HttpCause};

/// Why etcd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EtcdCause {
    /// It answered with an error.
    #[error("it answered: {message}")]
    Refused {
        /// The error's code in gRPC.
        code: u64,
        /// What it said about it.
        message: String,
    },
    /// It does not take the user's name and password.
    #[error("it refuses the login of user `{user}`: {message}")]
    Login {
        /// Who.
        user: String,
        /// What it said about it.
        message: String,
    },
    /// It asks for a login, and nobody said who we are.
    #[error("it asks for a login")]
    NoLogin,
    /// It is there, but its interface for HTTP is not.
    #[error("etcd {version} answers there, but not its JSON gateway")]
    NoGateway {
        /// Which version it is.
        version: String,
    },
}

impl Hint for EtcdCause {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Refused { code: PERMISSION_DENIED, .. } => {
                "grant the user's role the right to read and write the keys under the registry's prefix"
            }
            Self::Refused { message, .. } if message.contains(FULL) => {
                "compact and defragment etcd, then `etcdctl alarm disarm`"
            }
            Self::Login { .. } => "check --username and --api-key-file, or ETCDCTL_USER and ETCDCTL_PASSWORD",
            Self::NoLogin => "give a user with --username and --api-key-file, or in ETCDCTL_USER",
            Self::NoGateway { .. } => {
                "name its port for clients, usually 2379; `enable-grpc-gateway: true` in its configuration file turns the \
                 gateway on"
            }
            Self::Refused { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whether etcd has no space left to write to.
pub(super) fn is_full(error: &Error) -> bool {
    let Error::Unavailable { source: Cause::Etcd(EtcdCause::Refused { message, .. }), .. } = error else {
        return false;
    };
    message.contains(FULL)
}

const FULL: &str = "space exceeded";
const CANCELLED: u64 = 1;
const UNKNOWN: u64 = 2;
const INVALID_ARGUMENT: u64 = 3;
const DEADLINE_EXCEEDED: u64 = 4;
const NOT_FOUND: u64 = 5;
const PERMISSION_DENIED: u64 = 7;
const FAILED_PRECONDITION: u64 = 9;
const ABORTED: u64 = 10;
const OUT_OF_RANGE: u64 = 11;
const INTERNAL: u64 = 13;
const UNAVAILABLE: u64 = 14;
const UNAUTHENTICATED: u64 = 16;

/// An error that etcd answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u64,
    pub(super) message: String,
}

impl Fault {
    /// The one in an answer of any version, alone or in a stream.
    pub(super) fn in_answer(answer: &Value) -> Option<Self> {
        // 3.4: {"error":"text","message":"text","code":5}; later: {"code":5,"message":"text"}. In a stream
        // {"error":{"grpc_code":5,"http_code":404,…}} or {"error":{"code":5,…}}.
        let fault = if answer["error"].is_object() { &answer["error"] } else { answer };
        let code = fault["grpc_code"].as_u64().or_else(|| fault["code"].as_u64())?;
        let message = fault["message"].as_str().or_else(|| fault["error"].as_str()).unwrap_or_default();
        Some(Self::new(code, message))
    }

    pub(super) fn new(code: u64, message: &str) -> Self {
        Self { code, message: printable(message.trim_start_matches("etcdserver: ")) }
    }

    /// The one that ended a watch. It has no code.
    pub(super) fn of_watch(reason: &str) -> Self {
        let code = if reason.contains("permission denied") { PERMISSION_DENIED } else { UNKNOWN };
        Self::new(code, reason.trim_start_matches("rpc error: code = "))
    }

    /// Whether another login may help: the token has expired, or is of a time before somebody's rights were changed.
    pub(super) fn is_stale_login(&self) -> bool {
        let says = |text: &str| self.message.contains(text);
        self.code == UNAUTHENTICATED
            || says("invalid auth token")
            || says("user name is empty")
            || says("revision of auth store is old")
    }

    pub(super) fn is_denied(&self) -> bool {
        self.code == PERMISSION_DENIED || self.is_stale_login()
    }

    /// Whether a name and a password do not fit.
    pub(super) fn is_wrong_login(&self) -> bool {
        self.code == INVALID_ARGUMENT && self.message.contains("authentication failed")
    }

    pub(super) fn is_login_off(&self) -> bool {
        self.code == FAILED_PRECONDITION && self.message.contains("not enabled")
    }

    pub(super) fn is_no_lease(&self) -> bool {
        self.code == NOT_FOUND && self.message.contains("lease not found")
    }

    pub(super) fn is_lease_there(&self) -> bool {
        self.message.contains("lease already exists")
    }

    pub(super) fn is_compacted(&self) -> bool {
        self.code == OUT_OF_RANGE && self.message.contains("compacted")
    }

    /// Whether the path is not there: the gateway of another version, or none.
    pub(super) fn is_no_page(&self) -> bool {
        self.code == NOT_FOUND && self.message == "Not Found"
    }

    /// Whether another server may do what this one cannot, now or later.
    pub(super) fn is_of_server(&self) -> bool {
        matches!(self.code, CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | ABORTED | INTERNAL | UNAVAILABLE)
            && !self.is_denied()
    }

    /// Whether the same call would fail again.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.code, INVALID_ARGUMENT | NOT_FOUND | OUT_OF_RANGE | 12)
    }
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not heard, or was not etcd.
    Http(HttpCause),
    /// It was, and refused.
    Refused(Fault),
    /// The login failed, or there is no way to log in, or nothing to log in to.
    Etcd(EtcdCause),
}

impl Failure {
    pub(super) fn is_of_server(&self) -> bool {
        match self {
            Self::Http(cause) => !matches!(cause, HttpCause::File { .. } | HttpCause::NoKey { .. }),
            Self::Refused(fault) => fault.is_of_server(),
            Self::Etcd(cause) => matches!(cause, EtcdCause::NoGateway { .. }),
        }
    }
}

impl From<HttpCause> for Failure {
    fn from(cause: HttpCause) -> Self {
        Self::Http(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_is_read_in_the_format_of_every_version() {
        let text = "etcdserver: requested lease not found";
        for answer in [
            json!({"error": text, "message": text, "code": 5}),
            json!({"code": 5, "message": text}),
            json!({"error": {"grpc_code": 5, "http_code": 404, "message": text, "http_status": "Not Found"}}),
            json!({"error": {"code": 5, "message": text}}),
        ] {
            let fault = Fault::in_answer(&answer).unwrap();
            assert_eq!(fault, Fault { code: 5, message: "requested lease not found".to_owned() });
            assert!(fault.is_no_lease() && !fault.is_no_page());
        }
        assert_eq!(Fault::in_answer(&json!({"header": {}, "ID": "5", "TTL": "30"})), None);
    }

    #[test]
    fn what_helps_is_told_by_code_and_text() {
        assert!(Fault::new(16, "etcdserver: invalid auth token").is_stale_login());
        assert!(Fault::new(3, "etcdserver: user name is empty").is_stale_login());
        assert!(Fault::new(3, "etcdserver: revision of auth store is old").is_stale_login());
        let wrong = Fault::new(3, "etcdserver: authentication failed, invalid user ID or password");
        assert!(wrong.is_wrong_login() && !wrong.is_stale_login());
        assert!(Fault::new(14, "etcdserver: leader changed").is_of_server());
        assert!(!Fault::new(7, "etcdserver: permission denied").is_of_server());
    }
}
