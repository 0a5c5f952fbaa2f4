#[cfg(any(feature = "http", feature = "zookeeper"))]
mod cluster;
#[cfg(feature = "http")]
mod consul;
#[cfg(feature = "http")]
pub(super) mod etcd;
mod http;
mod login;
#[cfg(feature = "zookeeper")]
mod zookeeper;

#[cfg(feature = "sqlite")]
use std::ffi::OsString;
use std::fmt;
#[cfg(feature = "sqlite")]
use std::os::unix::ffi::OsStringExt;
#[cfg(feature = "sqlite")]
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::{Host, Url};

#[cfg(feature = "zookeeper")]
pub(super) use self::cluster::Server;
#[cfg(feature = "http")]
pub(super) use self::consul::AgentAddress;
#[cfg(feature = "http")]
pub use self::consul::ConsulUrl;
#[cfg(feature = "http")]
pub use self::etcd::{EtcdLayout, EtcdUrl};
#[cfg(feature = "http")]
pub use self::http::ApiUrl;
pub use self::http::AuthUrl;
pub(crate) use self::login::Asks;
#[cfg(feature = "zookeeper")]
pub(super) use self::zookeeper::{Transport, is_in_names};
#[cfg(feature = "zookeeper")]
pub use self::zookeeper::{ZookeeperLayout, ZookeeperUrl};

use crate::message::Hint;
use crate::model::printable;

/// Which registry is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// `sqlite:///path`: the embedded registry, one SQLite file.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// `http(s)://host/v1.0`: a server of the Service Registry HTTP API.
    #[cfg(feature = "http")]
    Rackspace(ApiUrl),
    /// `consul://[token@]host:port`: a Consul agent; `consul+https://` over TLS, `consul+unix:///path` through a socket.
    #[cfg(feature = "http")]
    Consul(ConsulUrl),
    /// `etcd://host:port,host:port/prefix`: an etcd cluster; `etcd+https://` over TLS.
    #[cfg(feature = "http")]
    Etcd(EtcdUrl),
    /// `zookeeper://host:2181,host:2181/chroot`, or `zk://`: an ensemble of ZooKeeper servers.
    #[cfg(feature = "zookeeper")]
    Zookeeper(ZookeeperUrl),
}

/// Why a text names no registry.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is no URL.
    #[error("`{shown}` is not a URL")]
    Malformed {
        /// The text, without what may be a secret.
        shown: String,
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// We have no backend of that name.
    #[error("`{shown}`: this build does not support {scheme} registries")]
    Scheme {
        /// The URL, without credentials.
        shown: String,
        /// Its scheme.
        scheme: String,
    },
    /// `sqlite:` takes an absolute path and nothing else.
    #[error("`{shown}` is not of the form sqlite:///absolute/path")]
    Path {
        /// The URL, without credentials.
        shown: String,
    },
    /// A server is reached by a scheme, a host, and a path.
    #[error("`{shown}` {fault}")]
    Http {
        /// The URL, without credentials.
        shown: String,
        /// What it has or lacks, as a verb and its object.
        fault: &'static str,
    },
    /// It is not of the form that URLs of its kind have.
    #[error("`{shown}` {fault}")]
    Form {
        /// The URL, without credentials.
        shown: String,
        /// What it has or lacks, as a verb and its object.
        fault: String,
        /// A URL that is of that form.
        example: &'static str,
    },
    /// No registry was given, and there is no place for the embedded one.
    #[error("no place for the embedded registry: none of XDG_STATE_HOME and HOME names a directory")]
    NoDefault,
    /// No registry was given, and this build has no embedded one.
    #[error("no registry given, and this build has no embedded one")]
    NotEmbedded,
}

impl Hint for UrlError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoDefault => "name its file with --registry sqlite:///path".to_owned(),
            Self::Http { .. } => "write http://host:port/path or https://host/path".to_owned(),
            Self::Form { example, .. } => format!("write {example}"),
            _ => format!("this build supports {}", RegistryUrl::FORMS.join(" and ")),
        })
    }
}

impl RegistryUrl {
    /// The URLs that this build understands, as examples.
    pub const FORMS: &[&str] = &[
        #[cfg(feature = "sqlite")]
        "sqlite:///path",
        #[cfg(feature = "http")]
        "http(s)://host/v1.0",
        #[cfg(feature = "http")]
        "consul://host:8500",
        #[cfg(feature = "http")]
        "etcd://host:2379",
        #[cfg(feature = "zookeeper")]
        "zookeeper://host:2181",
    ];

    /// The registry that was asked for, or else the embedded one.
    ///
    /// # Errors
    /// When the text names no registry, or there is no text and no place for the embedded one.
    pub fn given(text: Option<&str>) -> Result<Self, UrlError> {
        text.map_or_else(Self::embedded, str::parse)
    }

    /// Where the embedded registry is unless told: `/var/lib/service-registry/registry.db` for root, otherwise
    /// `$XDG_STATE_HOME/service-registry/registry.db`, where `XDG_STATE_HOME` is `$HOME/.local/state` unless set
    /// to an absolute path (XDG Base Directory Specification 0.8).
    ///
    /// # Errors
    /// When neither variable names a directory.
    #[cfg(feature = "sqlite")]
    pub fn embedded() -> Result<Self, UrlError> {
        let directory = if nix::unistd::geteuid().is_root() {
            PathBuf::from("/var/lib")
        } else {
            let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
            absolute("XDG_STATE_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
                .ok_or(UrlError::NoDefault)?
        };
        Ok(Self::Sqlite(directory.join("service-registry/registry.db")))
    }

    /// # Errors
    /// Always: this build has no embedded registry.
    #[cfg(not(feature = "sqlite"))]
    pub fn embedded() -> Result<Self, UrlError> {
        Err(UrlError::NotEmbedded)
    }

    /// The host that it is on; none for a file.
    #[must_use]
    pub(crate) fn host(&self) -> Option<Host<&str>> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => None,
            #[cfg(feature = "http")]
            Self::Rackspace(url) => url.base().host(),
            #[cfg(feature = "http")]
            Self::Consul(url) => url.host(),
            #[cfg(feature = "http")]
            Self::Etcd(url) => url.host(),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(url) => url.servers().first().map(Server::host),
        }
    }

    /// Whether those who look services up there go by name and address.
    pub(crate) fn is_for_discovery(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => false,
            #[cfg(feature = "http")]
            Self::Rackspace(_) => false,
            #[cfg(feature = "http")]
            Self::Consul(_) | Self::Etcd(_) => true,
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(_) => true,
        }
    }

    /// Whether it knows where this machine is: a Consul agent does, of its own.
    pub(crate) fn knows_this_machine(&self) -> bool {
        match self {
            #[cfg(feature = "http")]
            Self::Consul(url) => url.is_on_this_machine(),
            #[cfg(any(feature = "sqlite", feature = "http", feature = "zookeeper"))]
            _ => false,
        }
    }

    /// The registry of one of several tenants, who share this URL and nothing else: beside the file
    /// `registry.db` it is `registry-7777.db`. None where tenants cannot be held apart.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Option<Self> {
        match self {
            Self::Sqlite(path) => {
                let mut name = path.file_stem()?.to_owned();
                name.push(format!("-{tenant}"));
                if let Some(extension) = path.extension() {
                    name.push(".");
                    name.push(extension);
                }
                Some(Self::Sqlite(path.with_file_name(name)))
            }
            #[cfg(feature = "http")]
            Self::Etcd(url) => Some(Self::Etcd(url.for_tenant(tenant))),
            #[cfg(feature = "http")]
            Self::Rackspace(_) | Self::Consul(_) => None,
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(_) => None,
        }
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(url: &Url, shown: String) -> Result<Self, UrlError> {
        let path =
            PathBuf::from(OsString::from_vec(percent_encoding::percent_decode_str(url.path()).collect()));
        let is_file = path.is_absolute() && path.file_name().is_some() && !url.path().ends_with('/');
        if url.has_host() && url.host_str() != Some("")
            || url.query().is_some()
            || url.fragment().is_some()
            || !is_file
        {
            return Err(UrlError::Path { shown });
        }
        Ok(Self::Sqlite(path))
    }
}

impl FromStr for RegistryUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        #[cfg(feature = "http")]
        if ConsulUrl::is_meant(text) {
            return ConsulUrl::parse(text).map(Self::Consul);
        }
        #[cfg(feature = "http")]
        if EtcdUrl::is_meant(text) {
            return EtcdUrl::parse(text).map(Self::Etcd);
        }
        #[cfg(feature = "zookeeper")]
        if ZookeeperUrl::is_meant(text) {
            return ZookeeperUrl::parse(text).map(Self::Zookeeper);
        }
        let url = Url::parse(text)
            .map_err(|source| UrlError::Malformed { shown: without_credentials(text), source })?;
        let shown = without_credentials(text);
        match url.scheme() {
            #[cfg(feature = "sqlite")]
            "sqlite" => Self::sqlite(&url, shown),
            #[cfg(feature = "http")]
            "http" | "https" => ApiUrl::parse(text).map(Self::Rackspace),
            scheme => Err(UrlError::Scheme { shown, scheme: scheme.to_owned() }),
        }
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => f.write_str(&sqlite_shown(path)),
            #[cfg(feature = "http")]
            Self::Rackspace(url) => f.write_str(url.as_str()),
            #[cfg(feature = "http")]
            Self::Consul(url) => f.write_str(url.as_str()),
            #[cfg(feature = "http")]
            Self::Etcd(url) => f.write_str(url.as_str()),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(url) => f.write_str(url.as_str()),
        }
    }
}

/// The URL of an embedded registry, for messages.
#[cfg(feature = "sqlite")]
pub(super) fn sqlite_shown(path: &Path) -> String {
    format!("sqlite://{}", printable(&path.to_string_lossy()))
}

/// Whether a host is this machine.
#[cfg(any(feature = "http", feature = "zookeeper"))]
pub(super) fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
        }
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whatever stands between `//` and the last `@` may be somebody's name and password, in a broken URL too.
fn without_credentials(text: &str) -> String {
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    match text[start..].rfind('@') {
        Some(at) => printable(&format!("{}***{}", &text[..start], &text[start + at..])),
        None => printable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path_of(text: &str) -> PathBuf {
        match text.parse() {
            Ok(RegistryUrl::Sqlite(path)) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sqlite_takes_an_absolute_path() {
        assert_eq!(path_of("sqlite:///tmp/a%20b.db"), Path::new("/tmp/a b.db"));
        assert_eq!(path_of("sqlite:/tmp/a.db"), Path::new("/tmp/a.db"));
        for bad in [
            "sqlite://",
            "sqlite:///",
            "sqlite://host/a.db",
            "sqlite:a.db",
            "sqlite:///a/?x=1",
            "sqlite:///a/",
        ] {
            assert!(bad.parse::<RegistryUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_named_and_its_password_is_not() {
        let error = "eureka://user:sesame@host:8500".parse::<RegistryUrl>().unwrap_err();
        let text = format!("{error} {}", error.hint().unwrap());
        assert!(text.contains("eureka registries") && text.contains("sqlite:///path"), "{text}");
        assert!(!text.contains("sesame") && !text.contains("user"), "{text}");
    }

    #[test]
    fn a_broken_url_shows_no_password() {
        let error = "http://user:ses@me@[::/x".parse::<RegistryUrl>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("ses"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_registry_or_an_error(text in ".*") {
            let _ = text.parse::<RegistryUrl>();
        }
    }
}
