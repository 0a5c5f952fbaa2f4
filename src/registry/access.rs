use std::fmt;
use std::path::PathBuf;

use super::url::AuthUrl;

/// What a registry that is reached over HTTP has to be told about us, and we about it. The embedded one needs none
/// of it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who we are; without it there is no login. Those in the registry's own URL come first. Where a token is all there is
    /// to a login, they are for a server that stands before the registry.
    pub credentials: Option<Credentials>,
    /// The token of a registry where that is all there is to a login. One in the registry's own URL comes first.
    pub token: Option<ApiKey>,
    /// Where to log in. Without it: at Rackspace's identity service for a registry of theirs, otherwise under `/v2.0`
    /// on the registry's own host and port.
    pub auth_url: Option<AuthUrl>,
    /// How an encrypted connection is made.
    pub tls: Tls,
}

/// How an encrypted connection is made: whom we trust, and how we prove who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// A PEM file of certificates that are trusted besides the system's, or a directory of such files.
    pub ca_certificates: Option<PathBuf>,
    /// What is shown to a server that asks for it.
    pub client_certificate: Option<ClientCertificate>,
    /// Who may be at the other end.
    pub peer: Peer,
    /// Which name the certificate of whoever is there has to be for, where that is not the name in the URL.
    pub server_name: Option<String>,
}

/// A certificate of ours, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may be at the other end of an encrypted connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Peer {
    /// Whoever has a certificate for the name in the URL, from an authority that is trusted.
    #[default]
    Certified,
    /// Anybody: a connection that nobody else can read, with we do not know whom.
    Anybody,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The key that proves it.
    pub api_key: ApiKey,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKey {
    /// It was given.
    Given(Secret),
    /// It is the first line of this file, which is read at every login: a new key is picked up.
    File(PathBuf),
}

/// A text that no message and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// One that nobody knows, of 244 random bits.
    #[cfg(feature = "server")]
    pub(super) fn random() -> Self {
        let half = || uuid::Uuid::new_v4().simple();
        Self(format!("{}{}", half(), half()))
    }

    /// The text, for whoever is to get it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
