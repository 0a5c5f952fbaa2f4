use std::time::Duration;

use super::operation::Code;
use crate::message::Hint;

/// Why a call to ZooKeeper came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZookeeperCause {
    /// Nobody was reached.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// Who was not.
        server: String,
        /// Why not.
        reason: String,
    },
    /// The connection was closed before a word was said.
    #[error("{server} hangs up at once")]
    HungUp {
        /// Who did.
        server: String,
    },
    /// Its certificate is not to be trusted, for all that we know.
    #[error("cannot trust {server}: {reason}")]
    Untrusted {
        /// Whose.
        server: String,
        /// Why not.
        reason: String,
    },
    /// It was reached, but not heard to the end.
    #[error("the connection to {server} broke: {reason}")]
    Broken {
        /// Whom to.
        server: String,
        /// How.
        reason: String,
    },
    /// It did not answer in time.
    #[error("no answer from {server} within {}", humantime::format_duration(*.patience))]
    Silent {
        /// Who did not.
        server: String,
        /// In what time.
        patience: Duration,
    },
    /// It answered, but not with what it should have.
    #[error("its answer makes no sense")]
    Nonsense,
    /// It refused.
    #[error("it answered {code} ({})", .code_name)]
    Refused {
        /// The number of the error.
        code: i32,
        /// Its name in ZooKeeper's documentation.
        code_name: &'static str,
    },
    /// The session is over, and everything that it had in the registry is gone.
    #[error("the session has expired")]
    Expired,
    /// Several clients changed the same thing at the same time, again and again.
    #[error("others change it at the same time")]
    Contended,
    /// The password, or the file with it, is of no use.
    #[error("{0}")]
    Key(String),
    /// No encrypted connection can be made.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl ZookeeperCause {
    pub(super) fn refused(code: Code) -> Self {
        Self::Refused { code: code.0, code_name: code.name() }
    }
}

impl Hint for ZookeeperCause {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::HungUp { .. } => {
                "its ensemble may have no quorum, or this machine as many connections as maxClientCnxns allows"
            }
            Self::Untrusted { reason, .. } if reason.contains("UnknownIssuer") => {
                "name the certificate of the authority that issued its certificate with --ca-cert"
            }
            Self::Connect { reason, .. }
                if reason.contains("fatal alert") && reason.contains("Certificate") =>
            {
                "show it a certificate that it trusts, with --client-cert and --client-key"
            }
            Self::Connect { reason, .. } if reason.contains("tls") || reason.contains("TLS") => {
                "see which of its ports speaks TLS: secureClientPort in its configuration"
            }
            Self::Untrusted { .. } => "see which names and dates its certificate has",
            Self::Refused { code: -102 | -114 | -115 | -124, .. } => {
                "check the user and the password: ZK_AUTH=digest:user:password, or --username and --api-key-file"
            }
            Self::Nonsense => "see whether it is ZooKeeper that answers there",
            Self::Key(_) => "check --username and --api-key-file",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
