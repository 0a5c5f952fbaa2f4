//! What can be looked at, as it is written.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "http")]
use url::Url;

use crate::message::Hint;
use crate::model::printable;

/// What a probe looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::wrapper) enum Target {
    /// The command, or who it has started, listens on this TCP port, or on any.
    Listening(Option<u16>),
    /// A connection is accepted there; without a host, on this machine's loopback addresses.
    Tcp { host: Option<String>, port: u16 },
    /// The answer's status is 200 to 399.
    #[cfg(feature = "http")]
    Http(Url),
    /// This shell command ends with 0.
    Exec(String),
}

impl Target {
    /// Whether a name may have to be looked up.
    pub(in crate::wrapper) fn names_a_host(&self) -> bool {
        match self {
            Self::Listening(_) | Self::Exec(_) => false,
            Self::Tcp { host, .. } => host.is_some(),
            #[cfg(feature = "http")]
            Self::Http(url) => url.domain().is_some(),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("listening", None) => Ok(Self::Listening(None)),
            ("listening", Some(rest)) => Ok(Self::Listening(Some(port(rest)?))),
            ("tcp", Some(rest)) => tcp(rest.strip_prefix("//").unwrap_or(rest)),
            ("exec", Some(command)) if !command.trim().is_empty() => Ok(Self::Exec(command.to_owned())),
            ("exec", _) => Err(TargetError::NoCommand),
            ("http" | "https", Some(_)) => http(text),
            _ => Err(TargetError::Unknown(text.to_owned())),
        }
    }
}

fn port(text: &str) -> Result<u16, TargetError> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| TargetError::Port(text.to_owned()))
}

fn tcp(text: &str) -> Result<Target, TargetError> {
    let Some((host, number)) = text.rsplit_once(':') else {
        return Ok(Target::Tcp { host: None, port: port(text)? });
    };
    let port = port(number)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = match inner {
        "" | "localhost" => None,
        inner if inner == host && host.contains(':') => return Err(TargetError::Brackets(host.to_owned())),
        inner => Some(inner.to_owned()),
    };
    Ok(Target::Tcp { host, port })
}

#[cfg(feature = "http")]
fn http(text: &str) -> Result<Target, TargetError> {
    // It may have a password in it: it is not shown.
    let url: Url = text.parse().map_err(TargetError::Url)?;
    Ok(Target::Http(url))
}

#[cfg(not(feature = "http"))]
fn http(_text: &str) -> Result<Target, TargetError> {
    Err(TargetError::NoHttp)
}

/// As it was written, but for credentials.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(None) => f.write_str("listening"),
            Self::Listening(Some(port)) => write!(f, "listening:{port}"),
            Self::Tcp { host: None, port } => write!(f, "tcp:{port}"),
            Self::Tcp { host: Some(host), port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host: Some(host), port } => write!(f, "tcp:{host}:{port}"),
            #[cfg(feature = "http")]
            Self::Http(url) => {
                let mut shown = url.clone();
                let _ = shown.set_password(None);
                let _ = shown.set_username("");
                shown.set_query(None);
                write!(f, "{shown}")
            }
            Self::Exec(command) => write!(f, "exec:{}", printable(command)),
        }
    }
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(in crate::wrapper) enum TargetError {
    #[error("`{}` is not known", printable(.0))]
    Unknown(String),
    #[error("`{}` is no port from 1 to 65535", printable(.0))]
    Port(String),
    #[error("`{}`: an IPv6 address has to be in brackets", printable(.0))]
    Brackets(String),
    #[error("`exec:` has no command behind it")]
    NoCommand,
    #[cfg(feature = "http")]
    #[error("no URL of a page: {0}")]
    Url(url::ParseError),
    #[cfg(not(feature = "http"))]
    #[error("this build cannot ask for pages: it was made without the feature `http`")]
    NoHttp,
}

impl Hint for TargetError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(_) => {
                Some(r"try `listening`, `tcp:8000`, `http://localhost:8000/` or `exec:COMMAND`; write a comma within one as `\,`".to_owned())
            }
            Self::Brackets(host) => Some(format!("write tcp:[{host}]:PORT")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_looked_at_is_shown_as_it_is_written() {
        for text in [
            "listening",
            "listening:80",
            "tcp:80",
            "tcp:192.0.2.7:80",
            "tcp:[::1]:80",
            "tcp:db.example:5432",
            "exec:test -f /run/ok",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for (text, shown) in [("tcp:localhost:80", "tcp:80"), ("tcp://[::1]:80", "tcp:[::1]:80")] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn credentials_of_a_page_are_not_shown() {
        let target: Target = "http://me:sesame@localhost:80/up?key=sesame".parse().unwrap();
        assert_eq!(target.to_string(), "http://localhost/up");
        let error = "http://me:sesame@[".parse::<Target>().unwrap_err();
        assert!(!error.to_string().contains("sesame"), "{error}");
    }

    #[test]
    fn anything_else_is_a_mistake() {
        for text in [
            "",
            "nonsense",
            "listening:",
            "listening:0",
            "tcp",
            "tcp:",
            "tcp:x",
            "tcp:host:70000",
            "tcp:::1:80",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!("exec: ".parse::<Target>().is_err());
    }
}
