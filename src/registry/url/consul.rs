use std::path::PathBuf;

use url::{Host, Url};

use super::cluster::{ClusterUrl, Form, Server};
use super::{UrlError, without_credentials};
use crate::model::printable;
use crate::registry::access::Secret;
use crate::registry::http::is_loopback;

const FORM: Form = Form {
    example: "consul://host:8500, consul://token@host1,host2?dc=dc1 or consul+unix:///run/consul.sock",
    default_port: 8500,
};
const KNOWN_KEYS: &str = "`dc`, `ns` and `partition`";

/// Where a Consul agent is: `consul://[token@]host[:port]`, `consul+https://` for TLS, `consul+unix:///path` for a socket.
///
/// Several hosts, with commas between them, are agents of which any will do: one is asked until it fails. The query may
/// say where what we read is (`dc`), and where all of it is (`ns` and `partition`). The token is kept apart, and nothing
/// shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulUrl {
    place: Place,
    token: Option<Secret>,
    scope: Scope,
    shown: String,
}

/// Where the agents are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The URL leaves it open: at the usual port of this machine.
    Here(Scheme),
    Servers(Scheme, Vec<Server>),
    Socket(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Which part of Consul is meant; what is not said is the agent's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::registry) struct Scope {
    /// For what is read, and for the key/value store: an agent registers in its own.
    pub(in crate::registry) datacenter: Option<String>,
    pub(in crate::registry) namespace: Option<String>,
    pub(in crate::registry) partition: Option<String>,
}

/// How one agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) enum AgentAddress {
    /// Over the network: its HTTP interface.
    Http(Url),
    /// Through a socket in the file system.
    Socket(PathBuf),
}

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

    /// Whether it says where the agent is.
    #[must_use]
    pub fn names_place(&self) -> bool {
        !matches!(self.place, Place::Here(_))
    }

    /// Whether the agent is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Here(Scheme::Https) | Place::Servers(Scheme::Https, _))
    }

    /// Whether others can read on the way what an agent is told.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        let is_readable = |agent: &AgentAddress| match agent {
            AgentAddress::Http(url) => url.scheme() == "http" && !is_loopback(url),
            AgentAddress::Socket(_) => false,
        };
        self.agents().iter().any(is_readable)
    }

    /// Whether every agent that it may mean runs on this machine.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        let is_here = |agent: &AgentAddress| match agent {
            AgentAddress::Http(url) => is_loopback(url),
            AgentAddress::Socket(_) => true,
        };
        self.agents().iter().all(is_here)
    }

    /// The same over TLS, where the URL leaves open where the agent is.
    #[must_use]
    pub fn or_over_tls(self) -> Self {
        match self.place {
            Place::Here(_) => self.at(Place::Here(Scheme::Https)),
            Place::Servers(..) | Place::Socket(_) => self,
        }
    }

    /// Where the agent is when the URL leaves that open: at `address`, as in Consul's own variable
    /// `CONSUL_HTTP_ADDR`, a host and a port, perhaps with `http://` or `https://` before them, or `unix:///path`.
    ///
    /// # Errors
    /// When `address` is nothing of the kind.
    pub fn or_at(self, address: &str) -> Result<Self, UrlError> {
        if self.names_place() {
            return Ok(self);
        }
        let url = match address.split_once("://") {
            Some(("https", rest)) => format!("consul+https://{rest}"),
            Some(("http", rest)) => format!("consul://{rest}"),
            // Not a URL, whatever it looks like: the path is not encoded.
            Some(("unix", path)) if path.len() > 1 && path.starts_with('/') => {
                return Ok(self.at(Place::Socket(path.into())));
            }
            None if self.is_tls() => format!("consul+https://{address}"),
            None => format!("consul://{address}"),
            Some(_) => {
                let fault = "is not an address of Consul over HTTP".to_owned();
                return Err(UrlError::Form {
                    shown: without_credentials(address),
                    fault,
                    example: "host:port, https://host:port or unix:///path",
                });
            }
        };
        let found = Self::parse(&url)?;
        let token = self.token.clone().or(found.token);
        Ok(Self { token, ..self.at(found.place) })
    }

    /// Which namespace and which partition is meant when the URL leaves that open.
    #[must_use]
    pub fn or_within(mut self, namespace: Option<String>, partition: Option<String>) -> Self {
        self.scope.namespace = self.scope.namespace.or(namespace);
        self.scope.partition = self.scope.partition.or(partition);
        let place = self.place.clone();
        self.at(place)
    }

    pub(in crate::registry) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The agents, in the order given; never none.
    pub(in crate::registry) fn agents(&self) -> Vec<AgentAddress> {
        let (scheme, servers) = match &self.place {
            Place::Socket(path) => return vec![AgentAddress::Socket(path.clone())],
            Place::Here(scheme) => (*scheme, &[here()][..]),
            Place::Servers(scheme, servers) => (*scheme, &servers[..]),
        };
        let name = if scheme == Scheme::Https { "https" } else { "http" };
        // A host that was parsed makes a URL.
        servers.iter().filter_map(|server| server.http(name).ok()).map(AgentAddress::Http).collect()
    }

    /// The first agent's host; none for a socket.
    pub(in crate::registry) fn host(&self) -> Option<Host<&str>> {
        let host = match &self.place {
            Place::Here(_) => return Some(Host::Ipv4(std::net::Ipv4Addr::LOCALHOST)),
            Place::Servers(_, servers) => &servers.first()?.host,
            Place::Socket(_) => return None,
        };
        Some(match host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        })
    }

    fn at(self, place: Place) -> Self {
        let shown = shown(&place, &self.scope);
        Self { place, shown, ..self }
    }

    /// Whether a text begins as such a URL does. `consul://token@` is one, but none to [`Url`].
    pub(super) fn is_meant(text: &str) -> bool {
        ["consul", "consul+https", "consul+unix"].contains(&ClusterUrl::scheme_of(text).as_str())
    }

    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        Self::parse_all(text).map_err(without_query)
    }

    fn parse_all(text: &str) -> Result<Self, UrlError> {
        let url = ClusterUrl::parse(text, &FORM)?;
        let broken = |fault: String| url.broken(fault, &FORM);
        if url.secret.is_some() {
            let fault = "has a user name and a password: Consul has tokens, and for what stands before it there is \
                         CONSUL_HTTP_AUTH";
            return Err(broken(fault.to_owned()));
        }
        let place = match url.scheme.as_str() {
            "consul+unix" if !url.servers.is_empty() => {
                return Err(broken("names a host and a socket".to_owned()));
            }
            "consul+unix" if url.path.len() < 2 => return Err(broken("names no socket".to_owned())),
            "consul+unix" => Place::Socket(url.path.clone().into()),
            _ if !url.path.trim_matches('/').is_empty() => {
                return Err(broken("has more to it than hosts and ports".to_owned()));
            }
            scheme => {
                let scheme = if scheme == "consul+https" { Scheme::Https } else { Scheme::Http };
                if url.servers.is_empty() {
                    Place::Here(scheme)
                } else {
                    Place::Servers(scheme, url.servers.clone())
                }
            }
        };
        let mut scope = Scope::default();
        for (key, value) in &url.query {
            let slot = match key.as_str() {
                "dc" => &mut scope.datacenter,
                "ns" => &mut scope.namespace,
                "partition" => &mut scope.partition,
                key if !value.is_empty() => {
                    let key = printable(key);
                    return Err(broken(format!("has `{key}` in its query, where only {KNOWN_KEYS} can be")));
                }
                _ => return Err(broken(format!("has something in its query besides {KNOWN_KEYS}"))),
            };
            *slot = (!value.is_empty()).then(|| value.clone());
        }
        let shown = shown(&place, &scope);
        Ok(Self { place, token: url.name, scope, shown })
    }
}

/// A query may have a token in it, as Consul's own API allows.
fn without_query(error: UrlError) -> UrlError {
    match error {
        UrlError::Form { mut shown, fault, example } => {
            shown.truncate(shown.find('?').unwrap_or(shown.len()));
            UrlError::Form { shown, fault, example }
        }
        error => error,
    }
}

fn here() -> Server {
    Server { host: Host::Ipv4(std::net::Ipv4Addr::LOCALHOST), port: FORM.default_port }
}

fn shown(place: &Place, scope: &Scope) -> String {
    let scheme = |scheme: Scheme| if scheme == Scheme::Https { "consul+https" } else { "consul" };
    let mut text = match place {
        Place::Socket(path) => {
            format!("consul+unix://{}", printable(&path.to_string_lossy()))
        }
        Place::Here(kind) => format!("{}://{}", scheme(*kind), here()),
        Place::Servers(kind, servers) => {
            let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
            format!("{}://{}", scheme(*kind), servers.join(","))
        }
    };
    let said = [("dc", &scope.datacenter), ("ns", &scope.namespace), ("partition", &scope.partition)];
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in said.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        query.append_pair(key, value);
    }
    let query = query.finish();
    if !query.is_empty() {
        text.push('?');
        text.push_str(&query);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ConsulUrl {
        ConsulUrl::parse(text).unwrap()
    }

    fn agents(url: &ConsulUrl) -> Vec<String> {
        let shown = |agent: &AgentAddress| match agent {
            AgentAddress::Http(url) => url.to_string(),
            AgentAddress::Socket(path) => path.display().to_string(),
        };
        url.agents().iter().map(shown).collect()
    }

    #[test]
    fn what_is_left_out_is_the_agent_of_this_machine() {
        for (text, shown, expected) in [
            ("consul://", "consul://127.0.0.1:8500", "http://127.0.0.1:8500/"),
            ("consul://web1/", "consul://web1:8500", "http://web1:8500/"),
            ("consul://web1:80", "consul://web1:80", "http://web1/"),
            ("consul+https://[::1]:443", "consul+https://[::1]:443", "https://[::1]/"),
            ("Consul+Unix:///run/a%20b", "consul+unix:///run/a b", "/run/a b"),
        ] {
            let url = parse(text);
            assert_eq!((url.as_str(), agents(&url)), (shown, vec![expected.to_owned()]));
        }
    }

    #[test]
    fn several_agents_and_where_in_consul() {
        let url = parse("consul://sesame@web1,web2:1/?dc=eu%201&ns=team&partition=");
        assert_eq!(url.as_str(), "consul://web1:8500,web2:1?dc=eu+1&ns=team");
        assert_eq!(agents(&url), ["http://web1:8500/", "http://web2:1/"]);
        assert_eq!(url.scope().datacenter.as_deref(), Some("eu 1"));
        let url = url.or_within(Some("other".to_owned()), Some("p".to_owned()));
        assert_eq!(url.as_str(), "consul://web1:8500,web2:1?dc=eu+1&ns=team&partition=p");
    }

    #[test]
    fn a_token_is_kept_apart_and_not_shown() {
        for text in ["consul://se%40same@web1:1", "consul://se%40same@", "consul+unix://se%40same@/run/c"] {
            let url = parse(text);
            assert_eq!(url.token().unwrap().expose(), "se@same");
            assert!(!format!("{url:?}").contains("same"), "{url:?}");
        }
        for text in [
            "consul://me:sesame@web1",
            "consul://sesame@web1/x",
            "consul://sesame@web1:x",
            "consul://web1?token=sesame",
            "consul+unix://sesame@",
        ] {
            let error = ConsulUrl::parse(text).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("sesame"), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for (text, fault) in [
            ("consul://web1?near=_agent", "`dc`, `ns` and `partition`"),
            ("consul+unix://web1/run/c", "a host and a socket"),
            ("consul+unix:///", "no socket"),
            ("consul://web1/v1", "more to it"),
        ] {
            let error = ConsulUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn an_address_fills_in_for_a_missing_host_only() {
        for (text, address, expected) in [
            ("consul://", "web1:1", "consul://web1:1"),
            ("consul://", "https://web1:1", "consul+https://web1:1"),
            ("consul+https://", "web1", "consul+https://web1:8500"),
            ("consul://web2", "web1:1", "consul://web2:8500"),
            ("consul://?dc=a", "unix:///run/con%sul.sock", "consul+unix:///run/con%sul.sock?dc=a"),
        ] {
            assert_eq!(parse(text).or_at(address).unwrap().as_str(), expected);
        }
        assert!(parse("consul://").or_at("unix://").is_err());
        assert!(parse("consul://").or_at("ftp://web1").is_err());
        assert_eq!(parse("consul://sesame@").or_at("web1").unwrap().token().unwrap().expose(), "sesame");
        assert!(parse("consul://").or_over_tls().or_at("web1").unwrap().is_tls());
        assert!(!parse("consul://web1").or_over_tls().is_tls());
    }

    #[test]
    fn what_stays_on_this_machine_or_is_encrypted_nobody_else_reads() {
        for (text, is_in_the_clear) in [
            ("consul://", false),
            ("consul://localhost,[::1]", false),
            ("consul://localhost,web1", true),
            ("consul+https://web1", false),
            ("consul+unix:///run/consul.sock", false),
        ] {
            assert_eq!(parse(text).is_in_the_clear(), is_in_the_clear, "{text}");
        }
    }
}
