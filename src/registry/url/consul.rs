use url::Url;

use super::{UrlError, without_credentials};
use crate::registry::access::Secret;

/// Where a Consul agent is: `consul://[token@]host[:port]`, or `consul+https://` for TLS.
///
/// The token is kept apart, and nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulUrl {
    /// The agent's HTTP interface.
    base: Url,
    shown: String,
    token: Option<Secret>,
    names_host: bool,
}

const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8500;

impl ConsulUrl {
    /// The URL, without the token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The token that was given in it.
    #[must_use]
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Where the agent is when the URL leaves that open: at `address`, as in Consul's own variable
    /// `CONSUL_HTTP_ADDR`, a host and a port, perhaps with `http://` or `https://` before them.
    ///
    /// # Errors
    /// When `address` is nothing of the kind.
    pub fn or_at(self, address: &str) -> Result<Self, UrlError> {
        if self.names_host {
            return Ok(self);
        }
        let is_tls = self.base.scheme() == "https";
        let url = match address.split_once("://") {
            Some(("https", rest)) => format!("consul+https://{rest}"),
            Some(("http", rest)) => format!("consul://{rest}"),
            None if is_tls => format!("consul+https://{address}"),
            None => format!("consul://{address}"),
            Some(_) => return Err(broken(address, "is not an address of Consul over HTTP")),
        };
        let found = Self::parse(&url)?;
        Ok(Self { token: self.token.or(found.token), ..found })
    }

    pub(in crate::registry) fn base(&self) -> &Url {
        &self.base
    }

    /// Whether a text begins as such a URL does. `consul://token@` is one, but none to [`Url`].
    pub(super) fn is_meant(text: &str) -> bool {
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        ["consul", "consul+https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    }

    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let malformed = |source| UrlError::Malformed { shown: without_credentials(text), source };
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(|| broken(text, "has no host"))?;
        let scheme = scheme.to_ascii_lowercase();
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_complete = rest[authority.len()..].trim_matches('/').is_empty();
        if !is_complete {
            return Err(broken(text, "has more to it than a host and a port"));
        }
        if login.contains(':') {
            return Err(broken(text, "has a user name"));
        }
        let names_host = !host.is_empty();
        let host = if names_host { host } else { DEFAULT_HOST };
        // As the URL of no known scheme, it keeps the port that is the default of another.
        let port = Url::parse(&format!("consul://{host}")).map_err(malformed)?.port().unwrap_or(DEFAULT_PORT);
        let web = if scheme == "consul+https" { "https" } else { "http" };
        let mut base = Url::parse(&format!("{web}://{host}")).map_err(malformed)?;
        // It has a host, so that it can have a port.
        let _ = base.set_port(Some(port));
        let shown = format!("{scheme}://{}:{port}", base.host_str().unwrap_or(DEFAULT_HOST));
        let token = percent_encoding::percent_decode_str(login).decode_utf8_lossy();
        let token = (!token.is_empty()).then(|| Secret::new(token));
        Ok(Self { base, shown, token, names_host })
    }
}

fn broken(text: &str, fault: &'static str) -> UrlError {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    UrlError::Form {
        shown: without_credentials(&text[..end]),
        fault: fault.to_owned(),
        example: "consul://host:port or consul://token@host:port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ConsulUrl {
        ConsulUrl::parse(text).unwrap()
    }

    #[test]
    fn what_is_left_out_is_the_agent_of_this_machine() {
        for (text, shown, base) in [
            ("consul://", "consul://127.0.0.1:8500", "http://127.0.0.1:8500/"),
            ("consul://web1/", "consul://web1:8500", "http://web1:8500/"),
            ("consul://web1:80", "consul://web1:80", "http://web1/"),
            ("consul+https://[::1]:443", "consul+https://[::1]:443", "https://[::1]/"),
        ] {
            let url = parse(text);
            assert_eq!((url.as_str(), url.base().as_str()), (shown, base));
        }
    }

    #[test]
    fn a_token_is_kept_apart_and_not_shown() {
        for text in ["consul://se%40same@web1:1", "consul://se%40same@"] {
            let url = parse(text);
            assert_eq!(url.token().unwrap().expose(), "se@same");
            assert!(!format!("{url:?}").contains("same"), "{url:?}");
        }
        for text in ["consul://me:sesame@web1", "consul://sesame@web1/x", "consul://sesame@web1:x"] {
            let error = ConsulUrl::parse(text).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("sesame"), "{error}");
        }
    }

    #[test]
    fn an_address_fills_in_for_a_missing_host_only() {
        for (text, address, expected) in [
            ("consul://", "web1:1", "consul://web1:1"),
            ("consul://", "https://web1:1", "consul+https://web1:1"),
            ("consul+https://", "web1", "consul+https://web1:8500"),
            ("consul://web2", "web1:1", "consul://web2:8500"),
        ] {
            assert_eq!(parse(text).or_at(address).unwrap().as_str(), expected);
        }
        assert!(parse("consul://").or_at("unix:///run/consul.sock").is_err());
        assert_eq!(parse("consul://sesame@").or_at("web1").unwrap().token().unwrap().expose(), "sesame");
    }
}
