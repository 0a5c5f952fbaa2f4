use std::fmt;
use std::path::PathBuf;

use super::url::AuthUrl;

/// What a registry that is reached over HTTP has to be told about us, and we about it. The embedded one needs none
/// of it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who we are; without it there is no login. Those in the registry's own URL come first.
    pub credentials: Option<Credentials>,
    /// The token of a registry where that is all there is to a login. One in the registry's own URL comes first.
    pub token: Option<ApiKey>,
    /// Where to log in. Without it: at Rackspace's identity service for a registry of theirs, otherwise under `/v2.0`
    /// on the registry's own host and port.
    pub auth_url: Option<AuthUrl>,
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca_certificates: Option<PathBuf>,
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
