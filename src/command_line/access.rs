#[cfg(feature = "http")]
mod consul;
#[cfg(feature = "http")]
mod etcd;
mod several;
mod tls;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::origins::{Login, Origins, Sources};
use super::raxrc::{Raxrc, RaxrcError};
use crate::message::Hint;
use crate::model::printable;
use crate::registry::{Access, ApiKey, Asks, AuthUrl, Credentials, RegistryUrl, Secret, UrlError};

/// Variables that are a secret, or name one.
const SECRETS: [&str; 3] = [API_KEY, API_KEY_FILE, RAXSR_API_KEY];

const HEADING: &str = "Registry";
const API_KEY: &str = "SERVICE_REGISTRY_API_KEY";
const API_KEY_FILE: &str = "SERVICE_REGISTRY_API_KEY_FILE";
const RAXSR_API_KEY: &str = "RAXSR_API_KEY";
const RAXSR_AUTH_URL: &str = "RAXSR_AUTH_URL";

/// Which registry, and how to get in.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessArguments {
    /// The registry's URL [default: the embedded registry]
    ///
    /// `sqlite:///path` is an embedded registry: one file, shared by every wrapper and `raxsr` that names it.
    /// The default one is /var/lib/service-registry/registry.db for root, and otherwise
    /// $XDG_STATE_HOME/service-registry/registry.db (~/.local/state/service-registry/registry.db).
    /// `http(s)://host/v1.0` is a server of the Service Registry API.
    /// `consul://host:8500` is a Consul agent, `consul+https://` over TLS, `consul+unix:///path` through a socket;
    /// of several, `consul://host1,host2`, the next is asked when one fails. `?dc=`, `?ns=` and `?partition=` say which
    /// part of Consul is meant. What it leaves open, the variables of Consul's own programs say, such as
    /// `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN_FILE` and `CONSUL_CACERT`.
    /// `etcd://host:2379,host:2379/prefix?layout=native,registrator,skydns,grpc&domain=cluster.local` is an etcd
    /// cluster, `etcd+https://` over TLS; for it, `ETCDCTL_ENDPOINTS`, `ETCDCTL_USER`, `ETCDCTL_PASSWORD` and the like
    /// count. The native layout is always written, the others for other readers.
    /// `zookeeper://host:2181,host:2181/chroot` is an ensemble of ZooKeeper servers, `zookeeper+tls://` over TLS, with
    /// `?layout=curator`, or `nerve` or `serverset` with `&path=/node`; for it, `ZK_AUTH=digest:user:password` counts.
    ///
    /// service-registry-wrapper takes several, and keeps the service in each, whatever becomes of the others: see
    /// --require. In the variable, blanks separate them. The options for logging in hold for each whose URL has no
    /// login in it.
    #[arg(
        long,
        short,
        global = true, help_heading = HEADING,
        // What the command-line client of old called it.
        alias = "api-url",
        env = "SERVICE_REGISTRY_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    registry: Vec<String>,

    /// Who we are to the registry
    ///
    /// An embedded registry asks for no login.
    #[arg(long, global = true, help_heading = HEADING, env = "SERVICE_REGISTRY_USERNAME", value_name = "NAME")]
    username: Option<String>,

    /// The key to log in with: every user of this machine can read it off the command line
    ///
    /// --api-key-file and the environment variable are safe: a wrapped command does not get to see either.
    #[arg(long, global = true, help_heading = HEADING, env = API_KEY, value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// A file whose first line is the key to log in with
    ///
    /// It is read again at each login. To a Consul agent, the key is its token, unless there is another registry that
    /// has users; to etcd and ZooKeeper, it is the user's
    /// password.
    #[arg(long, global = true, help_heading = HEADING, env = API_KEY_FILE, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Where to log in [default: /v2.0 on the registry's host and port]
    #[arg(
        long,
        global = true, help_heading = HEADING,
        env = "SERVICE_REGISTRY_AUTH_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    auth_url: Option<String>,

    /// Log in at Rackspace's identity service of this region
    #[arg(long, global = true, help_heading = HEADING, env = "SERVICE_REGISTRY_REGION", value_name = "REGION")]
    region: Option<Region>,

    /// A PEM file of certificates to trust besides the system's
    #[arg(long, global = true, help_heading = HEADING, env = "SERVICE_REGISTRY_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// A PEM file with the certificate to show to a registry that asks for one
    #[arg(long, global = true, help_heading = HEADING, env = "SERVICE_REGISTRY_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// A PEM file with the private key of that certificate
    #[arg(long, global = true, help_heading = HEADING, env = "SERVICE_REGISTRY_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Region {
    /// The United States.
    Us,
    /// The United Kingdom.
    Uk,
}

impl Region {
    fn auth_url(self) -> &'static str {
        match self {
            Self::Us => AuthUrl::US,
            Self::Uk => AuthUrl::UK,
        }
    }
}

/// The registry that is meant.
pub(crate) struct Target {
    pub(crate) registry: RegistryUrl,
    pub(crate) access: Access,
    /// Where that was said.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only raxsr tells"))]
    pub(crate) origins: Origins,
    /// Variables that a program that we start must not see.
    pub(crate) secret_variables: Vec<&'static str>,
    /// What was said that is better not said like that.
    pub(crate) warnings: Vec<String>,
}

/// Why it is not known which registry is meant, or how to get in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("{origin}")]
    Url {
        origin: String,
        #[source]
        source: UrlError,
    },
    #[error("{flag}: cannot read `{}`", .path.display())]
    File {
        flag: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{flag}: `{}` holds no {content}", .path.display())]
    Empty { flag: &'static str, path: PathBuf, content: &'static str },
    #[error("{given}: a certificate and its private key are of use together")]
    Half { given: String, missing: &'static str },
    #[cfg(feature = "cli")]
    #[error("{origin}: one registry can be asked at a time, not {count}")]
    Several { origin: String, count: usize },
    #[error("{origin}: {registry} is named twice")]
    Twice { origin: String, registry: String },
    #[error("{registry}")]
    Login {
        registry: String,
        #[source]
        source: Box<AccessError>,
    },
    #[cfg(feature = "http")]
    #[error("{name}: `{}` is not {expected}", printable(value))]
    Variable { name: &'static str, value: String, expected: &'static str },
    #[cfg(feature = "zookeeper")]
    #[error("{origin} is not of the form {expected}")]
    Form { origin: String, expected: &'static str },
    #[error("a user name to log in with, but no key")]
    NoKey,
    #[error("a key to log in with, but no user name")]
    NoUsername,
    #[error(transparent)]
    Raxrc(#[from] RaxrcError),
}

impl Hint for AccessError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Url { source, .. } => source.hint(),
            Self::Half { missing, .. } => Some(format!("name the file of the other with {missing}")),
            #[cfg(feature = "cli")]
            Self::Several { .. } => Some("name the one that is meant: --registry URL".to_owned()),
            Self::Twice { .. } => {
                Some("name each registry once: the service has one entry in each".to_owned())
            }
            Self::Login { source, .. } => source.hint(),
            Self::NoKey => Some("give the key with --api-key-file FILE".to_owned()),
            Self::NoUsername => Some("give the name with --username NAME".to_owned()),
            Self::Raxrc(error) => error.hint(),
            #[cfg(feature = "http")]
            Self::Variable { .. } => None,
            #[cfg(feature = "zookeeper")]
            Self::Form { .. } => None,
            Self::File { .. } | Self::Empty { .. } => None,
        }
    }
}

/// A value, and where it was said.
struct Said {
    value: String,
    origin: String,
}

impl Said {
    fn at(origin: impl Into<String>) -> impl FnOnce(String) -> Self {
        move |value| Self { value, origin: origin.into() }
    }

    fn in_variable(name: &str) -> Option<Self> {
        let value = std::env::var_os(name)?.to_string_lossy().into_owned();
        (!value.is_empty()).then(|| Said::at(name)(value))
    }

    fn parse<T: std::str::FromStr<Err = UrlError>>(&self) -> Result<T, AccessError> {
        self.value.parse().map_err(|source| AccessError::Url { origin: self.origin.clone(), source })
    }
}

impl AccessArguments {
    /// How to get in at the registry that was said to be at `url`, by rank: what was said on the command line, in
    /// `SERVICE_REGISTRY_*`, in `RAXSR_*`, in the raxrc file.
    fn at(self, url: Option<Said>, sources: Sources<'_>) -> Result<Target, AccessError> {
        let url = url.or_else(|| Said::in_variable("RAXSR_API_URL"));
        let raxrc = match url.as_ref().map(|url| url.value.parse()) {
            Some(Ok(url)) if RegistryUrl::asks(&url) != Asks::Account => Raxrc::default(),
            _ => Raxrc::read()?,
        };
        let url = url.or_else(|| raxrc.api_url.clone().map(Said::at(raxrc.shown() + ": [api] url")));
        let registry = url.as_ref().map_or_else(embedded, Said::parse)?;
        #[cfg(feature = "http")]
        let registry = etcd::located(consul::located(registry)?)?;
        let origin = url.map_or_else(|| Origins::DEFAULT.to_owned(), |url| url.origin);
        let mut warnings = Vec::new();
        if sources.is_typed("api_key") {
            let warning =
                "every user of this machine can read the key that --api-key gives: use --api-key-file";
            warnings.push(warning.to_owned());
        }
        #[cfg_attr(
            not(any(feature = "sqlite", feature = "http")),
            expect(unreachable_patterns, reason = "there are no other registries")
        )]
        let (access, origins) = match &registry {
            #[cfg(feature = "http")]
            RegistryUrl::Consul(url) => {
                warnings.extend(consul::unused(sources));
                let (access, origins) = self.consul_access(sources, url, origin)?;
                warnings.extend(consul::warnings(url, &access));
                warnings.extend(in_the_clear(&registry, &access));
                (access, origins)
            }
            #[cfg(feature = "http")]
            RegistryUrl::Etcd(url) => {
                let (access, origins) = self.etcd_access(sources, url, origin)?;
                warnings.extend(in_the_clear(&registry, &access));
                (access, origins)
            }
            #[cfg(feature = "zookeeper")]
            RegistryUrl::Zookeeper(url) => {
                let (access, origins) = self.zookeeper_access(sources, url, origin)?;
                warnings.extend(in_the_clear(&registry, &access));
                (access, origins)
            }
            registry if registry.asks() == Asks::Account => {
                warnings.extend(raxrc.warning());
                let (access, origins) = self.access(raxrc, sources, registry, origin)?;
                warnings.extend(in_the_clear(registry, &access));
                (access, origins)
            }
            _ => (Access::default(), Origins::without_login(origin)),
        };
        Ok(Target { registry, access, origins, secret_variables: secret_variables(), warnings })
    }

    /// How to get in at `registry`, which was said at `origin`.
    fn access(
        self,
        raxrc: Raxrc,
        sources: Sources<'_>,
        registry: &RegistryUrl,
        origin: String,
    ) -> Result<(Access, Origins), AccessError> {
        let said = self.auth_url(&raxrc, sources);
        let auth_url = said.as_ref().map(Said::parse).transpose()?;
        let (tls, ca_certificates) = self.tls(sources, None)?;
        let (credentials, login) = self.credentials(raxrc, sources, registry)?;
        let origins =
            Origins { registry: origin, login, auth_url: said.map(|said| said.origin), ca_certificates };
        Ok((Access { credentials, token: None, auth_url, tls }, origins))
    }

    /// The files that are needed later are there now, and have in them what they should.
    fn check_files(&self) -> Result<(), AccessError> {
        if let Some(path) = &self.api_key_file {
            check(path, "--api-key-file", KEY)?;
        }
        if let Some(path) = &self.ca_cert {
            check(path, "--ca-cert", CERTIFICATE)?;
        }
        if let Some(path) = &self.client_cert {
            check(path, "--client-cert", CERTIFICATE)?;
        }
        if let Some(path) = &self.client_key {
            check(path, "--client-key", PRIVATE_KEY)?;
        }
        Ok(())
    }

    fn auth_url(&self, raxrc: &Raxrc, sources: Sources<'_>) -> Option<Said> {
        let region = self.region.map(|region| region.auth_url().to_owned());
        let region = region.map(Said::at(sources.origin("region")));
        let url = self.auth_url.clone().map(Said::at(sources.origin("auth_url")));
        let is_region = sources.is_typed("region") && !sources.is_typed("auth_url");
        let said = if is_region { region } else { url.or(region) };
        said.or_else(|| Said::in_variable(RAXSR_AUTH_URL))
            .or_else(|| raxrc.auth_url.clone().map(Said::at(raxrc.shown() + ": [auth_api] url")))
    }

    fn credentials(
        self,
        raxrc: Raxrc,
        sources: Sources<'_>,
        registry: &RegistryUrl,
    ) -> Result<(Option<Credentials>, Login), AccessError> {
        if registry.has_secret() {
            return Ok((None, Login::InUrl));
        }
        let in_raxrc = |key: &str| format!("{}: [credentials] {key}", raxrc.shown());
        let (username_in_raxrc, key_in_raxrc) = (in_raxrc("username"), in_raxrc("api_key"));
        let username =
            self.username.filter(|name| !name.is_empty()).map(Said::at(sources.origin("username")));
        let username = username.or_else(|| Said::in_variable("RAXSR_USERNAME"));
        let username = username.or_else(|| raxrc.username.map(Said::at(username_in_raxrc)));
        let key = key(self.api_key, self.api_key_file, sources);
        let key = key.or_else(|| Said::in_variable(RAXSR_API_KEY).and_then(given));
        let key = key.or_else(|| raxrc.api_key.map(|key| (ApiKey::Given(key), key_in_raxrc)));
        match (username, key) {
            (Some(Said { value: username, origin }), Some((api_key, key_origin))) => Ok((
                Some(Credentials { username, api_key }),
                Login::Said { username: origin, api_key: key_origin },
            )),
            (None, None) => Ok((None, Login::Unsaid)),
            (Some(_), None) => Err(AccessError::NoKey),
            (None, Some(_)) => Err(AccessError::NoUsername),
        }
    }
}

/// The key that an argument or a variable gives, and which.
fn key(
    api_key: Option<String>,
    api_key_file: Option<PathBuf>,
    sources: Sources<'_>,
) -> Option<(ApiKey, String)> {
    let key = api_key.map(Said::at(sources.origin("api_key"))).and_then(given);
    let file = api_key_file.map(|path| {
        let origin = format!("{} `{}`", sources.origin("api_key_file"), printable(&path.to_string_lossy()));
        (ApiKey::File(path), origin)
    });
    let is_key = sources.is_typed("api_key") && !sources.is_typed("api_key_file");
    if is_key { key.or(file) } else { file.or(key) }
}

/// A key that is none where it is empty.
fn given(said: Said) -> Option<(ApiKey, String)> {
    (!said.value.is_empty()).then(|| (ApiKey::Given(Secret::new(said.value)), said.origin))
}

fn embedded() -> Result<RegistryUrl, AccessError> {
    RegistryUrl::given(None).map_err(|source| AccessError::Url { origin: "--registry".to_owned(), source })
}

/// What is to be known about a login that others can read.
fn in_the_clear(registry: &RegistryUrl, access: &Access) -> Option<String> {
    let logs_in = access.credentials.is_some() || access.token.is_some() || registry.has_secret();
    let scheme = registry.safer_scheme().filter(|_| logs_in)?;
    Some(format!("the key for {registry} can be read on the way: use {scheme}://"))
}

/// The variables that are a secret, or have one in their URL.
fn secret_variables() -> Vec<&'static str> {
    let has_login =
        |name: &&str| std::env::var_os(name).is_some_and(|url| url.to_string_lossy().contains('@'));
    SECRETS
        .into_iter()
        .chain(["SERVICE_REGISTRY_URL", "RAXSR_API_URL"].into_iter().filter(has_login))
        .collect()
}

/// What a file has to have in it: its name, and how to tell.
type Content = (&'static str, fn(&str) -> bool);

const KEY: Content = ("key", |text| text.lines().next().is_some_and(|line| !line.trim().is_empty()));
const CERTIFICATE: Content = ("certificate", |text| text.contains("-----BEGIN CERTIFICATE-----"));
const PRIVATE_KEY: Content = ("private key", |text| text.contains("PRIVATE KEY-----"));

/// The file that a variable names, which has to be there with what it should have in it, and the variable.
fn file_in(variable: &'static str, content: Content) -> Result<Option<(PathBuf, String)>, AccessError> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    check(&path, variable, content)?;
    Ok(Some((path, variable.to_owned())))
}

fn check(path: &Path, flag: &'static str, (content, is_complete): Content) -> Result<(), AccessError> {
    match std::fs::read_to_string(path) {
        Ok(text) if is_complete(&text) => Ok(()),
        Ok(_) => Err(AccessError::Empty { flag, path: path.to_owned(), content }),
        Err(source) => Err(AccessError::File { flag, path: path.to_owned(), source }),
    }
}
