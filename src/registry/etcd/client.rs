//! etcd v3 over its JSON gateway: one call at a time to whichever server of the cluster answers.
//!
//! * A server is asked until it fails, does not answer within [`PATIENCE`], or the call is dropped: then the next.
//! * A call that is refused for want of a login, or for an old one, is sent again once after another.
//! * What the gateway serves under `/v3` is under `/v3beta` and `/v3alpha` in versions before 3.4.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::debug;
use url::Url;

use super::fault::{EtcdCause, Failure, Fault};
use super::kv::Range;
use super::login::{Login, Ticket};
use crate::model::{Timestamp, printable};
use crate::registry::endpoints::Endpoints;
use crate::registry::http::{Http, HttpCause, Stream};
use crate::registry::{Access, Error, EtcdUrl, Result};

/// How long a server is waited for before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// A page of the largest values that etcd takes by default would be longer. Ours are a few kilobytes each.
pub(super) const LONGEST: usize = 64 << 20;
const GATEWAYS: [&str; 3] = ["v3", "v3beta", "v3alpha"];

/// A cluster, as a client sees it. It is connected to at the first call, and each call can be dropped at any await.
pub(in crate::registry) struct Client {
    http: Http,
    endpoints: Endpoints<Endpoint>,
    login: Login,
    /// The registry's URL, for messages.
    shown: String,
}

/// One server of it.
struct Endpoint {
    base: Url,
    /// Which of [`GATEWAYS`] it has.
    gateway: AtomicUsize,
}

/// A request.
struct Ask<'a> {
    path: &'a str,
    body: &'a str,
    ticket: Ticket,
    shape: Shape,
}

/// What is to come.
#[derive(Clone, Copy)]
enum Shape {
    /// An answer as a whole.
    Whole,
    /// One that goes on and on.
    Open,
}

enum Reply {
    /// All of it, and the time by the server's clock.
    Whole(Value, Option<Timestamp>),
    /// The stream that it comes in, where from, and what has come first.
    Open(Box<Stream>, Place, Value),
}

impl Reply {
    fn into_value(self) -> Value {
        match self {
            Self::Whole(value, _) | Self::Open(_, _, value) => value,
        }
    }
}

/// Where a server is reached.
#[derive(Clone)]
pub(super) struct Place {
    base: Url,
    gateway: &'static str,
}

/// Whether a call needs a login.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// It does, where there is one to be had.
    Needed,
    /// It is for everybody: no reason to log in.
    NotNeeded,
}

impl Client {
    pub(in crate::registry) fn new(url: &EtcdUrl, access: &Access) -> Self {
        let endpoints = url.endpoints().map(|base| Endpoint { base, gateway: AtomicUsize::new(0) });
        Self {
            http: Http::new(&access.tls),
            endpoints: Endpoints::shuffled(endpoints.collect()),
            login: Login::new(url.credentials(access)),
            shown: url.as_str().to_owned(),
        }
    }

    /// The next call logs in anew.
    pub(in crate::registry) async fn renew_credentials(&self) {
        self.login.forget().await;
    }

    /// The time by the clock of the server that answers, who has to let us read what is under `prefix`.
    pub(in crate::registry) async fn clock(&self, prefix: &str) -> Result<Option<Timestamp>> {
        let body = Range { limit: 1, ..Range::prefix(prefix) }.body().to_string();
        let reply = self.send("kv/range", &body, Shape::Whole, Rights::Needed).await;
        match reply.map_err(|failure| self.error(failure))? {
            Reply::Whole(_, date) => Ok(date),
            Reply::Open(..) => Ok(None),
        }
    }

    pub(super) async fn call<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let answer = self.ask(path, &body.to_string(), Rights::Needed).await;
        self.parse(answer.map_err(|failure| self.error(failure))?)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, answer: Value) -> Result<T> {
        serde_json::from_value(answer)
            .map_err(|error| self.error(HttpCause::Nonsense(printable(&error.to_string())).into()))
    }

    pub(super) async fn ask(
        &self,
        path: &str,
        body: &str,
        rights: Rights,
    ) -> std::result::Result<Value, Failure> {
        self.send(path, body, Shape::Whole, rights).await.map(Reply::into_value)
    }

    /// Opens an answer without an end; its first line has come.
    pub(super) async fn open(
        &self,
        path: &str,
        body: &Value,
    ) -> std::result::Result<(Box<Stream>, Place, Value), Failure> {
        match self.send(path, &body.to_string(), Shape::Open, Rights::Needed).await? {
            Reply::Open(stream, place, first) => Ok((stream, place, first)),
            Reply::Whole(..) => Err(HttpCause::Nonsense("it has come to its end".to_owned()).into()),
        }
    }

    /// Asks, and once more after a login where the last is not good any more.
    async fn send(
        &self,
        path: &str,
        body: &str,
        shape: Shape,
        rights: Rights,
    ) -> std::result::Result<Reply, Failure> {
        let ticket = match rights {
            Rights::Needed => self.login.ticket(self).await?,
            Rights::NotNeeded => self.login.at_hand().await,
        };
        let ask = Ask { path, body, ticket, shape };
        match self.at_any(&ask).await {
            Err(Failure::Refused(fault)) if fault.is_stale_login() => {
                let ticket = self.login.other_than(&ask.ticket, self).await?;
                self.at_any(&Ask { ticket, ..ask }).await
            }
            answer => answer,
        }
    }

    /// Asks one server after the other, until one can answer.
    async fn at_any(&self, ask: &Ask<'_>) -> std::result::Result<Reply, Failure> {
        let mut tries = self.endpoints.count();
        loop {
            let attempt = self.endpoints.attempt();
            let answer = tokio::time::timeout(PATIENCE, self.exchange(attempt.server(), ask)).await;
            let answer = answer.unwrap_or_else(|_| Err(HttpCause::TimedOut(PATIENCE).into()));
            tries -= 1;
            match answer {
                Err(failure) if failure.is_of_server() => {
                    debug!(endpoint = %attempt.server().base, ?failure, "asking the next");
                    if tries == 0 {
                        return Err(failure);
                    }
                }
                answer => {
                    attempt.answered();
                    return answer;
                }
            }
        }
    }

    /// Asks one server, under the path that its version has.
    async fn exchange(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> std::result::Result<Reply, Failure> {
        let first = endpoint.gateway.load(Ordering::Relaxed);
        for number in (0..GATEWAYS.len()).map(|step| (first + step) % GATEWAYS.len()) {
            let place = Place { base: endpoint.base.clone(), gateway: GATEWAYS[number] };
            match self.exchange_at(place, ask).await {
                Err(failure) if is_no_page(&failure) => {}
                answer => {
                    endpoint.gateway.store(number, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(self.without_gateway(endpoint).await)
    }

    async fn exchange_at(&self, place: Place, ask: &Ask<'_>) -> std::result::Result<Reply, Failure> {
        let request = request(&place, ask)?;
        match ask.shape {
            Shape::Whole => {
                let answer = self.http.send(request, LONGEST).await?;
                Ok(Reply::Whole(parsed(answer.status, &answer.body)?, answer.date))
            }
            Shape::Open => {
                let mut stream = self.http.open(request).await?;
                let line = stream.line(LONGEST).await?.unwrap_or_default();
                let first = parsed(stream.status, &line)?;
                Ok(Reply::Open(Box::new(stream), place, first))
            }
        }
    }

    /// Logs in: the token of a user.
    pub(super) async fn authenticate(&self, body: &Value) -> std::result::Result<Value, Failure> {
        let body = body.to_string();
        let ask = Ask { path: "auth/authenticate", body: &body, ticket: None, shape: Shape::Whole };
        self.at_any(&ask).await.map(Reply::into_value)
    }

    /// Why none of the paths is there.
    async fn without_gateway(&self, endpoint: &Endpoint) -> Failure {
        let version = async {
            let request = Request::new(Method::GET, join(&endpoint.base, "version")?);
            let answer = self.http.send(request, LONGEST).await?;
            let answer: Option<Value> = serde_json::from_slice(&answer.body).ok();
            let version = answer.and_then(|answer| Some(answer.get("etcdserver")?.as_str()?.to_owned()));
            Ok::<_, Failure>(version)
        };
        match version.await {
            Ok(Some(version)) => Failure::Etcd(EtcdCause::NoGateway { version: printable(&version) }),
            Ok(None) => HttpCause::Nonsense("it has no page of etcd's".to_owned()).into(),
            Err(failure) => failure,
        }
    }

    /// Asks one server, and no other.
    pub(super) async fn ask_at(
        &self,
        place: &Place,
        path: &str,
        body: &Value,
    ) -> std::result::Result<Value, Failure> {
        let (body, ticket) = (body.to_string(), self.login.ticket(self).await?);
        let ask = Ask { path, body: &body, ticket, shape: Shape::Whole };
        let answer = tokio::time::timeout(PATIENCE, self.exchange_at(place.clone(), &ask)).await;
        answer.unwrap_or(Err(HttpCause::TimedOut(PATIENCE).into())).map(Reply::into_value)
    }

    /// The next call goes to another server than this one.
    pub(super) fn move_on_from(&self, place: &Place) {
        let attempt = self.endpoints.attempt();
        if attempt.server().base != place.base {
            attempt.answered();
        }
    }

    pub(super) fn error(&self, failure: Failure) -> Error {
        let registry = self.shown.clone();
        match failure {
            Failure::Refused(fault) => {
                let (is_denied, is_final) = (fault.is_denied(), fault.is_final());
                let Fault { code, message } = fault;
                let source = EtcdCause::Refused { code, message }.into();
                match (is_denied, is_final) {
                    (true, _) => Error::Unauthorized { registry, source },
                    (false, true) => Error::Invalid { registry, source },
                    (false, false) => Error::Unavailable { registry, source },
                }
            }
            Failure::Etcd(cause @ (EtcdCause::Login { .. } | EtcdCause::NoLogin)) => {
                Error::Unauthorized { registry, source: cause.into() }
            }
            Failure::Etcd(cause) => Error::Invalid { registry, source: cause.into() },
            Failure::Http(cause) => match cause {
                HttpCause::File { .. }
                | HttpCause::NoKey { .. }
                | HttpCause::Status { status: 401 | 403, .. } => {
                    Error::Unauthorized { registry, source: cause.into() }
                }
                HttpCause::Redirect { .. } | HttpCause::Status { status: 400 | 405 | 413, .. } => {
                    Error::Invalid { registry, source: cause.into() }
                }
                cause => Error::Unavailable { registry, source: cause.into() },
            },
        }
    }
}

fn join(base: &Url, path: &str) -> std::result::Result<Url, Failure> {
    base.join(path).map_err(|error| HttpCause::Client(error.to_string()).into())
}

fn request(place: &Place, ask: &Ask<'_>) -> std::result::Result<Request, Failure> {
    let url = join(&place.base, &format!("{}/{}", place.gateway, ask.path))?;
    let mut request = Request::new(Method::POST, url);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(ticket) = &ask.ticket {
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::clone(ticket));
    }
    *request.body_mut() = Some(ask.body.to_owned().into());
    Ok(request)
}

fn is_no_page(failure: &Failure) -> bool {
    match failure {
        Failure::Http(HttpCause::Status { status, .. }) => *status == 404,
        Failure::Refused(fault) => fault.is_no_page(),
        _ => false,
    }
}

/// What was said: one value, or where an answer is a stream, the values of its lines as a list.
fn parsed(status: StatusCode, body: &[u8]) -> std::result::Result<Value, Failure> {
    let values: serde_json::Result<Vec<Value>> =
        serde_json::Deserializer::from_slice(body).into_iter().collect();
    match values {
        Ok(values) => {
            if let Some(fault) = values.iter().find_map(Fault::in_answer) {
                return Err(Failure::Refused(fault));
            }
            if status.is_success() {
                let mut values = values;
                return Ok(if values.len() == 1 { values.swap_remove(0) } else { Value::Array(values) });
            }
        }
        Err(error) if status.is_success() => {
            return Err(HttpCause::Nonsense(printable(&error.to_string())).into());
        }
        Err(_) => {}
    }
    let status = status.as_u16();
    if (300..400).contains(&status) {
        // It may have secrets in it.
        return Err(HttpCause::Redirect { status, location: None }.into());
    }
    let message = printable(String::from_utf8_lossy(body).trim());
    Err(HttpCause::Status { status, message }.into())
}
