//! The HTTP client shared by every backend that is reached over HTTP: connections, trust, timeouts, bounded answers.
//!
//! It is made at the first call, so that nothing of it stands before the child's start. What it promises:
//! * One connection to each host is kept open for as long as the other side allows, and used again.
//! * `http://` needs no certificates: none are loaded. For `https://` the system's are, off the runtime's thread.
//! * The proxy variables (`HTTPS_PROXY`, `http_proxy`, `ALL_PROXY`, `NO_PROXY` and the like) are obeyed, as reqwest does
//!   even without its feature `system-proxy`, but never for a loopback address.
//! * No redirect is followed: it would carry the token to whoever it names.
//! * An answer is read up to a bound, and no request takes longer than [`PATIENCE`], unless it says so itself.

mod cause;
pub(super) mod key;
mod stream;
mod visit;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Request, StatusCode};
use tokio::sync::OnceCell;
use tracing::trace;
use url::{Host, Url};

pub use self::cause::HttpCause;
pub(super) use self::stream::Stream;
pub(crate) use self::visit::Visitor;
use super::access::{ClientCertificate, Peer, Tls};
use crate::model::Timestamp;

/// How long a request takes at most. (A lease gives up on its own earlier.)
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it takes at most to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("service-registry-wrapper/", env!("CARGO_PKG_VERSION"));

/// What a server said.
#[derive(Debug)]
pub(super) struct Answer {
    /// To which request: its path.
    pub(super) path: String,
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Where it redirects to.
    pub(super) location: Option<String>,
    /// How long it asks us to wait.
    pub(super) retry_after: Option<Duration>,
    /// The time by its clock, in whole seconds.
    pub(super) date: Option<Timestamp>,
    /// All that it said beside the body.
    pub(super) headers: HeaderMap,
}

impl Answer {
    /// One of the headers.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Which way requests take.
#[derive(Debug, Clone, Default)]
pub(super) enum Route {
    /// To the host that their URL names.
    #[default]
    Direct,
    /// Through this socket, whatever host their URL names.
    Socket(PathBuf),
    /// To this host, past any proxy: its certificate is not for its own name, but for the one in their URL.
    Host(Host),
}

/// The clients, one for each kind of URL: made when they are first needed, and once.
pub(super) struct Http {
    tls: Tls,
    route: Route,
    /// How long a connection is kept that nobody uses; for ever without it.
    idle: Option<Duration>,
    clients: [OnceCell<Client>; 4],
}

/// What a client has to be able to do.
#[derive(Clone, Copy)]
struct Kind {
    is_tls: bool,
    is_loopback: bool,
}

impl Kind {
    fn of(url: &Url) -> Self {
        Self { is_tls: url.scheme() == "https", is_loopback: is_loopback(url) }
    }
}

/// Whether `url` is on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    url.host().is_some_and(|host| super::url::is_loopback(&host))
}

impl Http {
    pub(super) fn new(tls: &Tls) -> Self {
        Self::by(Route::Direct, tls, None)
    }

    /// Likewise by another way, with connections that are closed when they were not used for `idle`.
    pub(super) fn by(route: Route, tls: &Tls, idle: Option<Duration>) -> Self {
        Self { tls: tls.clone(), route, idle, clients: Default::default() }
    }

    /// Sends a request, and reads at most `longest` bytes of its answer.
    pub(super) async fn send(&self, request: Request, longest: usize) -> Result<Answer, HttpCause> {
        let client = self.client(Kind::of(request.url())).await?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let patience = request.timeout().copied().unwrap_or(PATIENCE);
        let mut response = client.execute(request).await.map_err(|error| HttpCause::of(&error, patience))?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        trace!(%method, path, status = status.as_u16(), "answered");
        let location = text(&headers, LOCATION.as_str());
        let date = text(&headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok());
        let retry_after = text(&headers, RETRY_AFTER.as_str())
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| HttpCause::of(&error, patience))? {
            if body.len() + chunk.len() > longest {
                return Err(HttpCause::Nonsense(format!("it is longer than {longest} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { path, status, body, location, retry_after, date: date.map(Timestamp::from), headers })
    }

    async fn client(&self, kind: Kind) -> Result<&Client, HttpCause> {
        let index = usize::from(kind.is_tls) * 2 + usize::from(kind.is_loopback);
        self.clients[index].get_or_try_init(|| self.build(kind)).await
    }

    async fn build(&self, kind: Kind) -> Result<Client, HttpCause> {
        let (route, idle) = (self.route.clone(), self.idle);
        if !kind.is_tls {
            return build(kind, &Tls::default(), route, idle);
        }
        let tls = self.tls.clone();
        let work = tokio::task::spawn_blocking(move || build(kind, &tls, route, idle));
        work.await.unwrap_or_else(|error| Err(HttpCause::Client(error.to_string())))
    }
}

fn build(kind: Kind, tls: &Tls, route: Route, idle: Option<Duration>) -> Result<Client, HttpCause> {
    // Only the first call in a process counts; whoever came first has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .timeout(PATIENCE)
        .connect_timeout(CONNECT_PATIENCE)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(idle)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15));
    if kind.is_loopback {
        client = client.no_proxy();
    }
    client = match route {
        Route::Direct => client,
        Route::Socket(path) => client.unix_socket(path),
        Route::Host(host) => client.no_proxy().dns_resolver(Arc::new(Only(host))),
    };
    client = if kind.is_tls { encrypted(client, tls)? } else { client.tls_certs_only([]) };
    client.build().map_err(|error| HttpCause::of_build(&error))
}

/// The one host that every name leads to.
struct Only(Host);

impl Resolve for Only {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = match &self.0 {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn encrypted(mut client: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, HttpCause> {
    if let Some(path) = &tls.ca_certificates {
        client = client.tls_certs_merge(certificates(path)?);
    }
    if let Some(certificate) = &tls.client_certificate {
        client = client.identity(identity(certificate)?);
    }
    Ok(match tls.peer {
        Peer::Certified => client,
        Peer::Anybody => client.tls_danger_accept_invalid_certs(true),
    })
}

fn identity(certificate: &ClientCertificate) -> Result<Identity, HttpCause> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| HttpCause::File { path: path.display().to_string(), source })
    };
    let mut pem = read(&certificate.certificate)?;
    pem.push(b'\n');
    pem.extend(read(&certificate.key)?);
    Identity::from_pem(&pem).map_err(|_| HttpCause::NoIdentity {
        certificate: certificate.certificate.display().to_string(),
        key: certificate.key.display().to_string(),
    })
}

/// Those in a file, or in all the files of a directory.
fn certificates(path: &Path) -> Result<Vec<Certificate>, HttpCause> {
    let shown = || path.display().to_string();
    let failed = |source| HttpCause::File { path: shown(), source };
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
        let files = paths.map_err(failed)?.into_iter().filter(|path| path.is_file());
        let all: Vec<_> = files.filter_map(|file| certificates(&file).ok()).flatten().collect();
        return if all.is_empty() { Err(HttpCause::NoCertificate { path: shown() }) } else { Ok(all) };
    }
    let pem = std::fs::read(path).map_err(failed)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(HttpCause::NoCertificate { path: shown() }),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_stays_on_this_machine() {
        for (url, is_loopback) in [
            ("http://127.0.0.1", true),
            ("http://127.8.9.1:80", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost:1", true),
            ("http://LOCALHOST.", true),
            ("http://api.localhost", true),
            ("http://localhost.example", false),
            ("http://128.0.0.1", false),
            ("http://[2001:db8::1]", false),
        ] {
            assert_eq!(Kind::of(&url.parse().unwrap()).is_loopback, is_loopback, "{url}");
        }
    }
}
