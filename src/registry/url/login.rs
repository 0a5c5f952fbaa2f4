//! What each kind of registry asks of whoever comes in, and what its URL says about that already.

use super::RegistryUrl;

/// What a registry asks of whoever comes in.
#[cfg_attr(
    not(all(feature = "sqlite", feature = "http")),
    expect(dead_code, reason = "a build knows its own registries alone")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing: it is a file.
    Nothing,
    /// A user's name and key, with which to log in at the API's identity service.
    Account,
    /// A token.
    Token,
    /// A user's name and password.
    Password,
}

impl Asks {
    /// Whether it tells users apart.
    pub(crate) fn for_a_user(self) -> bool {
        matches!(self, Self::Account | Self::Password)
    }
}

impl RegistryUrl {
    /// What it asks of whoever comes in.
    pub(crate) fn asks(&self) -> Asks {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Asks::Nothing,
            #[cfg(feature = "http")]
            Self::Rackspace(_) => Asks::Account,
            #[cfg(feature = "http")]
            Self::Consul(_) => Asks::Token,
            #[cfg(feature = "http")]
            Self::Etcd(_) => Asks::Password,
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(_) => Asks::Password,
        }
    }

    /// Who we are by its URL.
    #[cfg(feature = "cli")]
    pub(crate) fn username(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => None,
            #[cfg(feature = "http")]
            Self::Rackspace(url) => url.credentials().map(|credentials| &*credentials.username),
            #[cfg(feature = "http")]
            Self::Consul(_) => None,
            #[cfg(feature = "http")]
            Self::Etcd(url) => url.user(),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(url) => url.credentials().map(|credentials| &*credentials.username),
        }
    }

    /// Whether its URL has the key, the token or the password in it.
    pub(crate) fn has_secret(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => false,
            #[cfg(feature = "http")]
            Self::Rackspace(url) => url.credentials().is_some(),
            #[cfg(feature = "http")]
            Self::Consul(url) => url.token().is_some(),
            #[cfg(feature = "http")]
            Self::Etcd(url) => url.password().is_some(),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(url) => url.credentials().is_some(),
        }
    }

    /// What to write instead of its scheme, where others can read on the way what is sent there: to another machine, and
    /// not encrypted.
    pub(crate) fn safer_scheme(&self) -> Option<&'static str> {
        let (is_in_the_clear, scheme) = match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => (false, ""),
            #[cfg(feature = "http")]
            Self::Rackspace(url) => (url.is_in_the_clear(), "https"),
            #[cfg(feature = "http")]
            Self::Consul(url) => (url.is_in_the_clear(), "consul+https"),
            #[cfg(feature = "http")]
            Self::Etcd(url) => (url.is_in_the_clear(), "etcd+https"),
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(url) => (url.is_in_the_clear(), "zookeeper+tls"),
        };
        is_in_the_clear.then_some(scheme)
    }
}
