//! `scheme://[name[:secret]@]host[:port],host[:port]…[/path][?key=value&…]`: the URL of a registry that may be on
//! several machines. [`Url`] has room for one.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{UrlError, without_credentials};
use crate::registry::access::Secret;

/// A URL in its parts, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterUrl {
    /// In small letters.
    pub(super) scheme: String,
    /// What stands before the colon, or before the `@` where there is no colon: a name, or a token.
    pub(super) name: Option<Secret>,
    pub(super) secret: Option<Secret>,
    /// In the order given; none where the URL leaves that open.
    pub(super) servers: Vec<Server>,
    /// With a slash at its front, or empty.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    /// All of it, without what may be a secret, for messages.
    shown: String,
}

/// Where one server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) struct Server {
    pub(in crate::registry) host: Host,
    pub(in crate::registry) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How URLs of one kind are written.
pub(super) struct Form {
    /// An example of one.
    pub(super) example: &'static str,
    /// The port of a server that is named without one.
    pub(super) default_port: u16,
}

impl ClusterUrl {
    /// The scheme that `text` begins with, in small letters; empty without one.
    pub(super) fn scheme_of(text: &str) -> String {
        text.trim().split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase()
    }

    pub(super) fn parse(text: &str, form: &Form) -> Result<Self, UrlError> {
        let text = text.trim();
        let shown = without_credentials(text);
        let broken = |fault: &str| UrlError::Form {
            shown: shown.clone(),
            fault: fault.to_owned(),
            example: form.example,
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| broken("has no `//`"))?;
        if rest.contains('#') {
            return Err(broken("has a fragment (`#…`)"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A secret may have slashes in it; a host has none.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (name, secret) = login.map_or((None, None), credentials);
        let servers = authority.split(',').filter(|server| !server.is_empty());
        let servers: Vec<_> = servers.map(|server| Server::parse(server, form)).collect::<Result<_, _>>()?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            name,
            secret,
            servers,
            path: percent_decode_str(path)
                .decode_utf8()
                .map_err(|_| broken("has a path that is not UTF-8"))?
                .into_owned(),
            query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            shown,
        })
    }

    /// That it is not of the form it has to be: `fault` is what it has or lacks, as a verb and its object.
    pub(super) fn broken(&self, fault: impl Into<String>, form: &Form) -> UrlError {
        UrlError::Form { shown: self.shown.clone(), fault: fault.into(), example: form.example }
    }
}

impl Server {
    #[cfg(feature = "zookeeper")]
    pub(in crate::registry) fn host(&self) -> Host<&str> {
        match &self.host {
            Host::Domain(name) => Host::Domain(name),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        }
    }

    fn parse(text: &str, form: &Form) -> Result<Self, UrlError> {
        // As the URL of no known scheme, it keeps the port that is the default of another.
        let url = Url::parse(&format!("cluster://{text}"))
            .map_err(|source| UrlError::Malformed { shown: without_credentials(text), source })?;
        let host = url.host_str().unwrap_or_default();
        // A host of no known scheme is taken as it stands: an IPv4 address is not seen as one.
        let host = Host::parse(host)
            .map_err(|source| UrlError::Malformed { shown: without_credentials(text), source })?;
        Ok(Self { host, port: url.port().unwrap_or(form.default_port) })
    }

    /// Where it speaks HTTP.
    #[cfg(feature = "http")]
    pub(in crate::registry) fn http(&self, scheme: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{scheme}://{self}/"))
    }
}

fn credentials(login: &str) -> (Option<Secret>, Option<Secret>) {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8_lossy();
        (!text.is_empty()).then(|| Secret::new(text))
    };
    match login.split_once(':') {
        Some((name, secret)) => (decoded(name), decoded(secret)),
        None => (decoded(login), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORM: Form = Form { example: "etcd://host:2379", default_port: 2379 };

    fn parse(text: &str) -> ClusterUrl {
        ClusterUrl::parse(text, &FORM).unwrap()
    }

    #[test]
    fn every_part_is_found() {
        let url = parse("ETCD://me:p%40ss/w@a,10.0.0.1:1,[::1]:80/a%20b?layout=native,grpc&x=%2F");
        let servers: Vec<_> = url.servers.iter().map(ToString::to_string).collect();
        assert_eq!((url.scheme.as_str(), url.path.as_str()), ("etcd", "/a b"));
        assert_eq!(servers, ["a:2379", "10.0.0.1:1", "[::1]:80"]);
        assert_eq!((url.name.unwrap().expose(), url.secret.unwrap().expose()), ("me", "p@ss/w"));
        assert_eq!(
            url.query,
            [("layout".to_owned(), "native,grpc".to_owned()), ("x".to_owned(), "/".to_owned())]
        );
        assert_eq!(url.servers[1].http("http").unwrap().as_str(), "http://10.0.0.1:1/");
    }

    #[test]
    fn what_may_be_left_out_may_be_left_out() {
        let url = parse("etcd://");
        assert_eq!((url.servers.len(), url.path.as_str(), url.query.len()), (0, "", 0));
        assert_eq!((url.name, url.secret), (None, None));
        assert_eq!(parse("etcd://sesame@/").name.unwrap().expose(), "sesame");
    }

    #[test]
    fn no_secret_is_shown() {
        for text in
            ["etcd://me:ses@me@a:x", "etcd:/me:sesame@a", "etcd://me:sesame@a#x", "etcd://sesame@[::/x"]
        {
            let error = ClusterUrl::parse(text, &FORM).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("ses"), "{error}");
        }
        let url = parse("etcd://me:sesame@a/x");
        assert!(!format!("{url:?} {}", url.broken("has a path", &FORM)).contains("sesame"), "{url:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error(text in "etcd://.*") {
            let _ = ClusterUrl::parse(&text, &FORM);
        }
    }
}
