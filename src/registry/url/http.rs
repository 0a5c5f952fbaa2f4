//! URLs of what is reached over HTTP.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{UrlError, without_credentials};
use crate::registry::access::{ApiKey, Credentials, Secret};
#[cfg(feature = "http")]
use crate::registry::http::is_loopback;

/// Where a Service Registry API is: `http(s)://host[:port]/v1.0`, perhaps with a tenant behind it.
///
/// Credentials may be given in it, as `user:key@`; they are kept apart, and nothing shows them.
#[cfg(feature = "http")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl {
    base: Url,
    credentials: Option<Credentials>,
}

#[cfg(feature = "http")]
impl ApiUrl {
    /// The URL, without credentials and without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The credentials that were given in it.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The tenant that it names: what follows the version.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        let (rest, tenant) = self.base.path().trim_end_matches('/').rsplit_once('/')?;
        let version = rest.rsplit('/').next()?.strip_prefix('v')?;
        let is_version =
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_version.then_some(tenant)
    }

    /// Whether what is sent there can be read on the way: to another machine, and not encrypted.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.base.scheme() == "http" && !is_loopback(&self.base)
    }

    pub(in crate::registry) fn base(&self) -> &Url {
        &self.base
    }

    /// Whether `text` is such a URL.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let (base, credentials) = parse(text)?;
        Ok(Self { base, credentials })
    }
}

/// Where to log in: `http(s)://host[:port]/v2.0`. What is behind it, `/tokens` or a slash, may be given too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthUrl(Url);

impl AuthUrl {
    /// Rackspace's identity service, in the United States.
    pub const US: &str = "https://identity.api.rackspacecloud.com/v2.0";
    /// The same, in the United Kingdom.
    pub const UK: &str = "https://lon.identity.api.rackspacecloud.com/v2.0";

    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// `/v2.0` on the host and port of `url`.
    #[cfg(feature = "http")]
    pub(in crate::registry) fn beside(url: &Url) -> Self {
        let mut url = url.clone();
        url.set_path("/v2.0");
        Self(url)
    }
}

impl FromStr for AuthUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (mut url, credentials) = parse(text)?;
        if credentials.is_some() {
            return Err(broken(text, "has a user name: give it with --username"));
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/tokens").unwrap_or(path).trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl fmt::Display for AuthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A URL to append to, and the credentials that were in it.
fn parse(text: &str) -> Result<(Url, Option<Credentials>), UrlError> {
    let mut url = Url::parse(text)
        .map_err(|source| UrlError::Malformed { shown: without_credentials(text), source })?;
    // To url::Url, `http:///host` has the host `host`.
    let names_a_host =
        text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/') && !rest.is_empty());
    let fault = match url.scheme() {
        "http" | "https" if !names_a_host => Some("has no host"),
        "http" | "https" if url.query().is_some() => Some("has a query"),
        "http" | "https" if url.fragment().is_some() => Some("has a fragment"),
        "http" | "https" => None,
        _ => Some("is not an http or https URL"),
    };
    if let Some(fault) = fault {
        return Err(broken(text, fault));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credentials = match (decoded(url.username()), url.password()) {
        (username, None) if username.is_empty() => None,
        (username, Some(key)) if !username.is_empty() && !key.is_empty() => {
            Some(Credentials { username, api_key: ApiKey::Given(Secret::new(decoded(key))) })
        }
        _ => return Err(broken(text, "has half a login: write user:key@, or leave it out")),
    };
    // It has a host, so that both can be set.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Ok((url, credentials))
}

fn broken(text: &str, fault: &'static str) -> UrlError {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    UrlError::Http { shown: without_credentials(&text[..end]), fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Hint;

    #[test]
    fn a_url_is_kept_without_the_slash_at_its_end() {
        for (text, shown, tenant) in [
            ("http://127.0.0.1:9/v1.0", "http://127.0.0.1:9/v1.0", None),
            ("https://host/v1.0/", "https://host/v1.0", None),
            ("https://host/v1.0/7777/", "https://host/v1.0/7777", Some("7777")),
            ("http://[::1]:8080/some/where", "http://[::1]:8080/some/where", None),
            ("http://host", "http://host", None),
            ("http://v1/registry", "http://v1/registry", None),
            ("http://host/v/x", "http://host/v/x", None),
        ] {
            let url = ApiUrl::parse(text).unwrap();
            assert_eq!((url.as_str(), url.tenant()), (shown, tenant), "{text}");
        }
    }

    #[test]
    fn a_key_is_safe_behind_tls_and_on_this_machine() {
        for (text, expected) in [
            ("http://registry.example/v1.0", true),
            ("http://10.0.0.1:8640/v1.0", true),
            ("https://registry.example/v1.0", false),
            ("http://127.0.0.1:8640/v1.0", false),
            ("http://[::1]:8640/v1.0", false),
            ("http://localhost/v1.0", false),
        ] {
            assert_eq!(ApiUrl::parse(text).unwrap().is_in_the_clear(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_registry_is_told() {
        for (text, expected) in [
            ("http:///host/v1.0", "`http:///host/v1.0` has no host"),
            ("http://host/v1.0?x=sesame", "`http://host/v1.0` has a query"),
            ("http://host/v1.0#top", "`http://host/v1.0` has a fragment"),
            (
                "http://me@host/v1.0",
                "`http://***@host/v1.0` has half a login: write user:key@, or leave it out",
            ),
            (
                "http://:sesame@host/v1.0",
                "`http://***@host/v1.0` has half a login: write user:key@, or leave it out",
            ),
            ("http://me:ses/ame@host/v1.0", "`http://***@host/v1.0` is not a URL"),
        ] {
            let error = ApiUrl::parse(text).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn credentials_are_kept_apart_and_not_shown() {
        let url = ApiUrl::parse("http://me:se%40same@host/v1.0").unwrap();
        let credentials = url.credentials().unwrap();
        assert_eq!(credentials.username, "me");
        assert_eq!(credentials.api_key, ApiKey::Given(Secret::new("se@same")));
        assert_eq!(url.as_str(), "http://host/v1.0");
        assert!(!format!("{url:?}").contains("same"), "{url:?}");
    }

    #[test]
    fn an_auth_url_may_be_written_four_ways() {
        for text in ["v2.0", "v2.0/", "v2.0/tokens", "v2.0/tokens/"] {
            let url: AuthUrl = format!("https://id/{text}").parse().unwrap();
            assert_eq!(url.as_str(), "https://id/v2.0");
        }
        for bad in ["ftp://id/v2.0", "id", "https://me:key@id/v2.0", ""] {
            assert!(bad.parse::<AuthUrl>().is_err(), "{bad}");
        }
    }
}
