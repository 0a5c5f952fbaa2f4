use std::fmt;
use std::net::Ipv4Addr;

use url::Host;

use super::cluster::{ClusterUrl, Form, Server};
use super::{UrlError, is_loopback};
use crate::model::printable;
use crate::registry::access::{ApiKey, Credentials};

/// Where an ensemble of ZooKeeper servers is: `zookeeper://[user:password@]host[:port],host…/chroot`, or `zk://`, and
/// `zookeeper+tls://` for TLS; with the layout in which consumers find services there as `?layout=…&path=…`.
///
/// The password is kept apart, and nothing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperUrl {
    servers: Vec<Server>,
    /// The node under which everything of ours is, with a slash at its front; empty for the root.
    chroot: String,
    layout: ZookeeperLayout,
    credentials: Option<Credentials>,
    transport: Transport,
    shown: String,
}

/// What consumers of a ZooKeeper registry read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZookeeperLayout {
    /// Curator's service discovery, and Spring Cloud's: `<path>/<name>/<id>`.
    Curator {
        /// The node under which services are.
        path: String,
    },
    /// SmartStack's nerve: `<path>/<id>_<number>`.
    Nerve {
        /// The node under which the instances of the service are.
        path: String,
    },
    /// Finagle's and Aurora's server sets: `<path>/member_<number>`.
    Serverset {
        /// The node under which the members of the set are.
        path: String,
    },
}

/// How servers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Transport {
    Plain,
    Tls,
}

const FORM: Form =
    Form { example: "zookeeper://host:2181,host:2181/chroot?layout=curator", default_port: 2181 };
/// Where Spring Cloud looks unless told.
const CURATOR_PATH: &str = "/services";

impl ZookeeperUrl {
    /// The URL, without the password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The user and the password that were given in it.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Whether what is sent there can be read on the way: to another machine, and not encrypted.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.transport == Transport::Plain && self.servers.iter().any(|server| !is_loopback(&server.host))
    }

    pub(in crate::registry) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(in crate::registry) fn chroot(&self) -> &str {
        &self.chroot
    }

    pub(in crate::registry) fn layout(&self) -> &ZookeeperLayout {
        &self.layout
    }

    pub(in crate::registry) fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether a text begins as such a URL does.
    pub(super) fn is_meant(text: &str) -> bool {
        matches!(&*ClusterUrl::scheme_of(text), "zookeeper" | "zk" | "zookeeper+tls" | "zk+tls")
    }

    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let mut url = ClusterUrl::parse(text, &FORM)?;
        let broken = |fault: String| url.broken(fault, &FORM);
        let layout = ZookeeperLayout::parse(&url.query).map_err(broken)?;
        let chroot = node_path(&url.path).map_err(|fault| broken(format!("has a chroot that {fault}")))?;
        let credentials = match (url.name.take(), url.secret.take()) {
            (None, None) => None,
            (Some(name), Some(password)) => {
                Some(Credentials { username: name.expose().to_owned(), api_key: ApiKey::Given(password) })
            }
            _ => return Err(url.broken("has a user name or a password, but not both", &FORM)),
        };
        if url.servers.is_empty() {
            url.servers.push(Server { host: Host::Ipv4(Ipv4Addr::LOCALHOST), port: FORM.default_port });
        }
        let transport = if url.scheme.ends_with("+tls") { Transport::Tls } else { Transport::Plain };
        let servers: Vec<_> = url.servers.iter().map(ToString::to_string).collect();
        let shown = format!("{}://{}{}{layout}", url.scheme, servers.join(","), printable(&chroot));
        Ok(Self { servers: url.servers, chroot, layout, credentials, transport, shown })
    }
}

impl ZookeeperLayout {
    /// Their names in URLs.
    const NAMES: &str = "curator, nerve and serverset";

    fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let (mut name, mut path) = ("curator", None);
        for (key, value) in query {
            match key.as_str() {
                "layout" => name = value,
                "path" => {
                    let legal = node_path(value).ok().filter(|path| !path.is_empty());
                    path = Some(legal.ok_or("has a path that is not of the form /node/…/node")?);
                }
                other => {
                    return Err(format!(
                        "has the unknown key `{}`: known are layout and path",
                        printable(other)
                    ));
                }
            }
        }
        match (name, path) {
            ("curator", path) => Ok(Self::Curator { path: path.unwrap_or_else(|| CURATOR_PATH.to_owned()) }),
            ("nerve", Some(path)) => Ok(Self::Nerve { path }),
            ("serverset", Some(path)) => Ok(Self::Serverset { path }),
            ("nerve" | "serverset", None) => {
                Err(format!("has no path: write ?layout={name}&path=/where/its/consumers/look"))
            }
            _ => Err(format!("has the unknown layout `{}`: known are {}", printable(name), Self::NAMES)),
        }
    }
}

/// As the query of a URL; nothing where that is what is used unless told.
impl fmt::Display for ZookeeperLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Curator { path } if path == CURATOR_PATH => Ok(()),
            Self::Curator { path } => write!(f, "?layout=curator&path={}", printable(path)),
            Self::Nerve { path } => write!(f, "?layout=nerve&path={}", printable(path)),
            Self::Serverset { path } => write!(f, "?layout=serverset&path={}", printable(path)),
        }
    }
}

/// `text` as the path of a node: empty for the root, and without a slash at its end. Otherwise, what is wrong with it.
fn node_path(text: &str) -> Result<String, &'static str> {
    let path = text.trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let Some(nodes) = path.strip_prefix('/') else { return Err("does not begin with a slash") };
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.chars().all(is_in_names);
    if nodes.split('/').all(is_name) { Ok(path.to_owned()) } else { Err("has a node of no legal name") }
}

/// Whether ZooKeeper lets a node's name have a character.
pub(in crate::registry) fn is_in_names(character: char) -> bool {
    match u32::from(character) {
        0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0.. => false,
        other => other != u32::from('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ZookeeperUrl {
        ZookeeperUrl::parse(text).unwrap()
    }

    #[test]
    fn every_part_is_found() {
        let url = parse("zk://me:p%40ss@a,10.0.0.1:1/apps/eu/?layout=nerve&path=/nerve/web/");
        let servers: Vec<_> = url.servers().iter().map(ToString::to_string).collect();
        assert_eq!((servers.join(" "), url.chroot()), ("a:2181 10.0.0.1:1".to_owned(), "/apps/eu"));
        assert_eq!(url.layout(), &ZookeeperLayout::Nerve { path: "/nerve/web".to_owned() });
        assert_eq!(url.as_str(), "zk://a:2181,10.0.0.1:1/apps/eu?layout=nerve&path=/nerve/web");
        let Some(Credentials { username, api_key: ApiKey::Given(key) }) = url.credentials() else { panic!() };
        assert_eq!((&**username, key.expose()), ("me", "p@ss"));
        assert!(!format!("{url:?}").contains("p@ss"), "{url:?}");
    }

    #[test]
    fn what_is_left_out_is_this_machine_and_where_spring_looks() {
        let url = parse("zookeeper://");
        assert_eq!((url.as_str(), url.chroot()), ("zookeeper://127.0.0.1:2181", ""));
        assert_eq!(url.layout(), &ZookeeperLayout::Curator { path: "/services".to_owned() });
        assert_eq!(parse(url.as_str()), url);
    }

    #[test]
    fn what_is_not_known_is_told_with_what_is() {
        for (text, expected) in [
            ("zk://a?layout=native", "unknown layout `native`: known are curator, nerve and serverset"),
            ("zk://a?timeout=3", "unknown key `timeout`: known are layout and path"),
            ("zk://a?layout=nerve", "has no path"),
            ("zk://a?path=x", "path that is not of the form"),
            ("zk://a//b", "has a chroot that has a node of no legal name"),
            ("zk://a/b/../c", "node of no legal name"),
            ("zk://sesame@a", "but not both"),
            ("zk://sesame:sesame@a/#x", "fragment"),
        ] {
            let error = ZookeeperUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn a_password_is_safe_on_this_machine_and_over_tls() {
        for (text, expected) in [
            ("zk://localhost,[::1],127.0.0.2", false),
            ("zk://localhost,zk1", true),
            ("zookeeper+tls://zk1", false),
        ] {
            assert_eq!(parse(text).is_in_the_clear(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error(text in "zk://.*") {
            let _ = ZookeeperUrl::parse(&text);
        }
    }
}
