use std::str::FromStr;

use url::Url;

use super::UrlError;
use super::cluster::{ClusterUrl, Form, Server};
use crate::registry::access::{Access, ApiKey, Credentials, Secret};

/// Where an etcd cluster is, and what is kept in it how:
/// `etcd://[user[:password]@]host[:port][,host[:port]…][/prefix][?layout=native,…&domain=…]`, or `etcd+https://` for TLS.
///
/// The password is kept apart, and nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdUrl {
    encryption: Encryption,
    /// None where the URL leaves them open.
    servers: Vec<Server>,
    /// Without slashes at its ends.
    prefix: String,
    layouts: Vec<EtcdLayout>,
    /// What names in DNS end in.
    domain: String,
    user: Option<Secret>,
    password: Option<Secret>,
    shown: String,
}

/// How a service is written into etcd for others to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdLayout {
    /// Our own, which is always there: `/<prefix>/services/<id>`, everything as JSON.
    Native,
    /// registrator's: `/<prefix>/<name>/<id>`, `address:port`.
    Registrator,
    /// That of `SkyDNS`, which `CoreDNS` reads: `/skydns/<domain, reversed>/<name>/<id>`.
    SkyDns,
    /// gRPC-Go's: `<prefix>/<name>/<address:port>`.
    Grpc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    Tls,
}

const FORM: Form =
    Form { example: "etcd://host:2379,host:2379/prefix?layout=native,skydns", default_port: 2379 };
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PREFIX: &str = "service-registry";
const DEFAULT_DOMAIN: &str = "cluster.local";

impl EtcdLayout {
    /// Every layout there is.
    pub const ALL: [Self; 4] = [Self::Native, Self::Registrator, Self::SkyDns, Self::Grpc];

    /// Its name in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Registrator => "registrator",
            Self::SkyDns => "skydns",
            Self::Grpc => "grpc",
        }
    }
}

impl EtcdUrl {
    /// The URL, without name and password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// Whose login was given in it.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(Secret::expose)
    }

    /// The password that was given in it.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Under which part of the keys it keeps what, without slashes at its ends.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How services are written; the native layout is always among it.
    #[must_use]
    pub fn layouts(&self) -> &[EtcdLayout] {
        &self.layouts
    }

    /// What names in DNS end in.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Where the cluster is when the URL leaves that open: at `endpoints`, as in etcd's own variable
    /// `ETCDCTL_ENDPOINTS`: hosts and ports with commas between them, perhaps with `http://` or `https://` before each.
    ///
    /// # Errors
    /// When `endpoints` is nothing of the kind.
    pub fn or_at(mut self, endpoints: &str) -> Result<Self, UrlError> {
        if !self.servers.is_empty() {
            return Ok(self);
        }
        let mut encryption = None;
        let mut servers = Vec::new();
        for endpoint in endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()) {
            let (scheme, server) = endpoint.split_once("://").unwrap_or(("", endpoint));
            let found = match scheme {
                "https" => Encryption::Tls,
                "http" => Encryption::None,
                "" => self.encryption,
                _ => return Err(broken(endpoint, "is not an endpoint of etcd over HTTP")),
            };
            if *encryption.get_or_insert(found) != found {
                return Err(broken(endpoint, "is encrypted or not, unlike the endpoints before it"));
            }
            servers.extend(ClusterUrl::parse(&format!("etcd://{server}"), &FORM)?.servers);
        }
        self.servers = servers;
        self.encryption = encryption.unwrap_or(self.encryption);
        self.shown = self.to_text();
        Ok(self)
    }

    /// Whether what is said to it can be read on the way.
    pub(crate) fn is_in_the_clear(&self) -> bool {
        self.encryption == Encryption::None
            && !self.endpoints().all(|endpoint| crate::registry::http::is_loopback(&endpoint))
    }

    /// The host of the first server.
    pub(super) fn host(&self) -> Option<url::Host<&str>> {
        Some(match &self.servers.first()?.host {
            url::Host::Domain(name) => url::Host::Domain(name),
            url::Host::Ipv4(address) => url::Host::Ipv4(*address),
            url::Host::Ipv6(address) => url::Host::Ipv6(*address),
        })
    }

    /// The same for one of several tenants, under `<prefix>/tenants/<tenant>`.
    #[cfg(feature = "server")]
    pub(super) fn for_tenant(&self, tenant: &str) -> Self {
        let mut url = Self { prefix: format!("{}/tenants/{tenant}", self.prefix), ..self.clone() };
        url.shown = url.to_text();
        url
    }

    /// Where each server speaks HTTP.
    pub(in crate::registry) fn endpoints(&self) -> impl Iterator<Item = Url> {
        let scheme = match self.encryption {
            Encryption::None => "http",
            Encryption::Tls => "https",
        };
        let local = Server { host: url::Host::Domain(DEFAULT_HOST.to_owned()), port: FORM.default_port };
        let servers = if self.servers.is_empty() { vec![local] } else { self.servers.clone() };
        servers.into_iter().filter_map(move |server| server.http(scheme).ok())
    }

    /// Who we are: what the URL says comes first.
    pub(in crate::registry) fn credentials(&self, access: &Access) -> Option<Credentials> {
        let given = access.credentials.as_ref();
        let username = self.user().or(given.map(|given| given.username.as_str()))?.to_owned();
        let password = self.password.clone().map(ApiKey::Given);
        let api_key = password.or_else(|| given.map(|given| given.api_key.clone()))?;
        Some(Credentials { username, api_key })
    }

    /// Whether a text begins as such a URL does.
    pub(super) fn is_meant(text: &str) -> bool {
        matches!(&*ClusterUrl::scheme_of(text), "etcd" | "etcd+https" | "etcds")
    }

    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let url = ClusterUrl::parse(text, &FORM)?;
        let prefix = match url.path.trim_matches('/') {
            "" => DEFAULT_PREFIX,
            prefix if prefix.split('/').any(str::is_empty) => {
                return Err(url.broken("has an empty part in its prefix", &FORM));
            }
            prefix => prefix,
        };
        let (mut layouts, mut domain) = (vec![EtcdLayout::Native], DEFAULT_DOMAIN.to_owned());
        for (key, value) in &url.query {
            match key.as_str() {
                "layout" => {
                    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                        let layout: EtcdLayout =
                            name.parse().map_err(|fault: String| url.broken(fault, &FORM))?;
                        if !layouts.contains(&layout) {
                            layouts.push(layout);
                        }
                    }
                }
                "domain" if is_domain(value.trim_matches('.')) => {
                    value.trim_matches('.').clone_into(&mut domain);
                }
                "domain" => return Err(url.broken("has a domain that is no name in DNS", &FORM)),
                _ => return Err(url.broken("has a parameter other than layout and domain", &FORM)),
            }
        }
        if url.name.is_none() && url.secret.is_some() {
            return Err(url.broken("has a password and no user", &FORM));
        }
        let encryption = if url.scheme == "etcd" { Encryption::None } else { Encryption::Tls };
        let prefix = prefix.to_owned();
        let mut url = Self {
            encryption,
            servers: url.servers,
            prefix,
            layouts,
            domain,
            user: url.name,
            password: url.secret,
            shown: String::new(),
        };
        url.shown = url.to_text();
        Ok(url)
    }

    /// All of it but name and password.
    fn to_text(&self) -> String {
        let scheme = if self.encryption == Encryption::Tls { "etcd+https" } else { "etcd" };
        let mut servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        if servers.is_empty() {
            servers.push(format!("{DEFAULT_HOST}:{}", FORM.default_port));
        }
        let mut text = format!("{scheme}://{}", servers.join(","));
        if self.prefix != DEFAULT_PREFIX {
            text.push('/');
            text.push_str(&crate::model::escaped(&self.prefix));
        }
        if self.layouts.len() > 1 {
            let names: Vec<_> = self.layouts.iter().map(|layout| layout.as_str()).collect();
            text.push_str("?layout=");
            text.push_str(&names.join(","));
        }
        if self.domain != DEFAULT_DOMAIN {
            text.push(if self.layouts.len() > 1 { '&' } else { '?' });
            text.push_str("domain=");
            text.push_str(&self.domain);
        }
        text
    }
}

impl FromStr for EtcdLayout {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|layout| layout.as_str() == text);
        found.ok_or_else(|| format!("has layout `{}`: there are {}", crate::model::printable(text), known()))
    }
}

fn broken(text: &str, fault: &str) -> UrlError {
    let shown = super::without_credentials(text);
    UrlError::Form { shown, fault: fault.to_owned(), example: FORM.example }
}

/// Whether it is labels of DNS with dots between them.
fn is_domain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Whether it is one label of a name in DNS: 1 to 63 letters, digits and hyphens, none of these at its ends.
pub(in crate::registry) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Hint;

    fn parse(text: &str) -> EtcdUrl {
        EtcdUrl::parse(text).unwrap()
    }

    fn endpoints(url: &EtcdUrl) -> Vec<String> {
        url.endpoints().map(String::from).collect()
    }

    #[test]
    fn every_part_is_found() {
        let url = parse("etcd+https://me:p%40ss@a,b:1/my/prefix/?layout=skydns,grpc&domain=shop.example.");
        assert_eq!(endpoints(&url), ["https://a:2379/", "https://b:1/"]);
        assert_eq!((url.prefix(), url.domain()), ("my/prefix", "shop.example"));
        assert_eq!(url.layouts(), [EtcdLayout::Native, EtcdLayout::SkyDns, EtcdLayout::Grpc]);
        let shown = "etcd+https://a:2379,b:1/my/prefix?layout=native,skydns,grpc&domain=shop.example";
        assert_eq!(url.as_str(), shown);
        assert_eq!(parse(shown).as_str(), shown);
        let credentials = url.credentials(&Access::default()).unwrap();
        assert_eq!(credentials.username, "me");
        assert!(!format!("{url:?}").contains("p@ss"), "{url:?}");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let url = parse("etcd://");
        assert_eq!(endpoints(&url), ["http://127.0.0.1:2379/"]);
        assert_eq!((url.prefix(), url.as_str()), ("service-registry", "etcd://127.0.0.1:2379"));
        assert_eq!(parse("etcds://a").as_str(), "etcd+https://a:2379");
    }

    #[test]
    fn the_endpoints_of_etcdctl_fill_in_for_missing_ones_only() {
        for (text, endpoints, expected) in [
            ("etcd://", "a,b:1", "etcd://a:2379,b:1"),
            ("etcd:///x", "http://a:1,http://b:2", "etcd://a:1,b:2/x"),
            ("etcd://", "https://a:1,https://b:2", "etcd+https://a:1,b:2"),
            ("etcd+https://", "a", "etcd+https://a:2379"),
            ("etcd://c", "a", "etcd://c:2379"),
        ] {
            assert_eq!(parse(text).or_at(endpoints).unwrap().as_str(), expected);
        }
        for bad in ["unix:///x", "http://a,https://b", "http://a:x"] {
            assert!(parse("etcd://").or_at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_unknown_is_told_with_what_is_known() {
        for (text, said) in [
            ("etcd://me:sesame@a/?layout=consul", "native, registrator, skydns, grpc"),
            ("etcd://me:sesame@a/?layouts=native", "layout and domain"),
            ("etcd://me:sesame@a/?domain=a..b", "no name in DNS"),
            ("etcd://:sesame@a", "no user"),
            ("etcd://me:sesame@a//b//c", "empty part"),
        ] {
            let error = EtcdUrl::parse(text).unwrap_err();
            let shown = format!("{error} {}", error.hint().unwrap());
            assert!(shown.contains(said) && !shown.contains("sesame"), "{shown}");
        }
    }
}
