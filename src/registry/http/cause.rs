use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;

use crate::message::Hint;
use crate::model::escaped;

/// Why a call over HTTP came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpCause {
    /// Nobody was reached.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The server's certificate is not to be trusted, for all that we know.
    #[error("cannot trust it: {0}")]
    Untrusted(String),
    /// It was reached, but not heard to the end.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It did not answer in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// It answered, but not with what it should have.
    #[error("its answer makes no sense: {0}")]
    Nonsense(String),
    /// It refused.
    #[error("{}", answered(*.status, .message))]
    Status {
        /// The answer's status.
        status: u16,
        /// What it said about it, if anything.
        message: String,
    },
    /// It takes the token, or the lack of one, for no permission to do this.
    #[error("{}", answered(*.status, .message))]
    Denied {
        /// The answer's status.
        status: u16,
        /// What it said about it, if anything.
        message: String,
    },
    /// It knows nothing of the kind at all.
    #[error("it has no page {path}")]
    NoPage {
        /// The path that was asked for.
        path: String,
    },
    /// It says that somebody else is in charge.
    #[error("{}", redirected(*.status, .location.as_deref()))]
    Redirect {
        /// The answer's status.
        status: u16,
        /// Who, without credentials.
        location: Option<String>,
    },
    /// The login failed.
    #[error("cannot log in at {url}")]
    Login {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: Box<HttpCause>,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file has no key on its first line.
    #[error("`{path}` holds no key")]
    NoKey {
        /// Which.
        path: String,
    },
    /// The file has no certificate in it.
    #[error("`{path}` holds no certificate")]
    NoCertificate {
        /// Which.
        path: String,
    },
    /// The files are no certificate with its key.
    #[error("`{certificate}` and `{key}` are no certificate and its private key")]
    NoIdentity {
        /// Which certificate.
        certificate: String,
        /// Which key.
        key: String,
    },
    /// There is nothing to trust.
    #[error("no certificate authorities on this machine")]
    NoAuthorities,
    /// No client can be made.
    #[error("cannot set up HTTP: {0}")]
    Client(String),
}

impl HttpCause {
    /// What lies behind an error of the client; `patience` is how long it waited at most.
    pub(super) fn of(error: &reqwest::Error, patience: Duration) -> Self {
        let reason = deepest(error);
        if let Some(fault) = find::<rustls::Error>(error) {
            return match fault {
                rustls::Error::InvalidCertificate(_) => Self::Untrusted(reason),
                rustls::Error::InvalidMessage(_) => Self::Connect("it does not speak TLS".to_owned()),
                _ => Self::Connect(reason),
            };
        }
        if error.is_connect() {
            let is_late = error.is_timeout()
                && find::<std::io::Error>(error).is_none_or(|io| io.raw_os_error().is_none());
            return Self::Connect(if is_late { "no answer in time".to_owned() } else { reason });
        }
        if error.is_timeout() { Self::TimedOut(patience) } else { Self::Broken(reason) }
    }

    /// Why no client could be made.
    pub(super) fn of_build(error: &reqwest::Error) -> Self {
        let reason = deepest(error);
        if reason.contains("No CA certificates") { Self::NoAuthorities } else { Self::Client(reason) }
    }
}

impl Hint for HttpCause {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Connect(reason) | Self::Broken(reason)
                if reason.contains("alert: BadCertificate") || reason.contains("CertificateRequired") =>
            {
                "it may ask for a certificate: name one that it trusts with --client-cert and --client-key"
            }
            Self::Connect(reason) if reason.contains("speak TLS") => "try http:// instead of https://",
            // A new authority of the same name comes out as a bad signature.
            Self::Untrusted(reason)
                if reason.contains("UnknownIssuer") || reason.contains("BadSignature") =>
            {
                "name the certificate of the authority that issued its certificate with --ca-cert"
            }
            Self::Untrusted(_) => "see which names and dates its certificate has",
            Self::NoAuthorities => "install ca-certificates, or name a PEM file with --ca-cert",
            Self::NoCertificate { .. } => "name a file with certificates in PEM format with --ca-cert",
            Self::NoIdentity { .. } => "name files in PEM format with --client-cert and --client-key",
            Self::NoPage { .. } => "a registry's URL usually ends in /v1.0",
            Self::Redirect { .. } => "give the URL that it names with --registry",
            Self::Status { status: 401 | 403, .. } | Self::NoKey { .. } => CREDENTIALS,
            Self::Denied { .. } => "check the token: CONSUL_HTTP_TOKEN, or --api-key-file",
            Self::Login { source, .. } => match &**source {
                Self::Status { status: 400, .. } => CREDENTIALS,
                Self::NoPage { .. } => "see --auth-url: it usually ends in /v2.0",
                Self::Redirect { .. } => "give the URL that it names with --auth-url",
                source => return source.hint(),
            },
            Self::Nonsense(_) => "see whether it is a service registry that answers there",
            Self::Connect(_)
            | Self::Broken(_)
            | Self::TimedOut(_)
            | Self::Status { .. }
            | Self::File { .. }
            | Self::Client(_) => return None,
        };
        Some(hint.to_owned())
    }
}

const CREDENTIALS: &str = "check --username and --api-key-file";

fn answered(status: u16, message: &str) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let status = format!("it answered {status} {}", reason.unwrap_or_default());
    if message.is_empty() {
        status.trim_end().to_owned()
    } else {
        format!("{}: {message}", status.trim_end())
    }
}

fn redirected(status: u16, location: Option<&str>) -> String {
    match location {
        Some(location) => format!("it redirects ({status}) to {location}"),
        None => format!("it redirects ({status})"),
    }
}

/// What an error comes from in the end. The layers above it only say that there was a request.
fn deepest(error: &reqwest::Error) -> String {
    let mut text = "unknown".to_owned();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    escaped(&text)
}

/// The error of type `T` behind an error. An [`std::io::Error`] hides what it wraps.
fn find<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}
