//! The servers of a cluster, over the JSON gateway: whichever answers is asked.
//!
//! What the gateway serves under `/v3` is under `/v3beta` and `/v3alpha` in versions before 3.4.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde_json::Value;
use tracing::debug;
use url::Url;

use super::fault::{EtcdCause, Failure, Fault};
use super::login::Ticket;
use crate::model::{Timestamp, printable};
use crate::registry::endpoints::Endpoints;
use crate::registry::http::{Http, HttpCause, Stream};
use crate::registry::{EtcdUrl, Tls};

/// A page of the largest values that etcd takes by default would be longer. Ours are a few kilobytes each.
pub(super) const LONGEST: usize = 64 << 20;
const GATEWAYS: [&str; 3] = ["v3", "v3beta", "v3alpha"];

/// All of them.
pub(super) struct Servers {
    http: Http,
    endpoints: Endpoints<Endpoint>,
}

/// One server of it.
struct Endpoint {
    base: Url,
    /// Which of [`GATEWAYS`] it has.
    gateway: AtomicUsize,
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) path: &'a str,
    pub(super) body: &'a str,
    pub(super) ticket: Ticket,
    pub(super) shape: Shape,
    /// How long a server is waited for before the next is asked.
    pub(super) patience: Duration,
}

/// What is to come.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// An answer as a whole.
    Whole,
    /// One that goes on and on.
    Open,
}

pub(super) enum Reply {
    /// All of it, and the time by the server's clock.
    Whole(Value, Option<Timestamp>),
    /// The stream that it comes in, where from, and what has come first.
    Open(Box<Stream>, Place, Value),
}

impl Reply {
    pub(super) fn into_value(self) -> Value {
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

impl Servers {
    pub(super) fn new(url: &EtcdUrl, tls: &Tls) -> Self {
        let endpoints = url.endpoints().map(|base| Endpoint { base, gateway: AtomicUsize::new(0) });
        Self { http: Http::new(tls), endpoints: Endpoints::shuffled(endpoints.collect()) }
    }

    /// Asks one server after the other, until one can answer.
    pub(super) async fn at_any(&self, ask: &Ask<'_>) -> Result<Reply, Failure> {
        let mut tries = self.endpoints.count();
        loop {
            let attempt = self.endpoints.attempt();
            let answer = tokio::time::timeout(ask.patience, self.exchange(attempt.server(), ask)).await;
            let answer = answer.unwrap_or_else(|_| Err(HttpCause::TimedOut(ask.patience).into()));
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

    /// What would be asked of the server that comes first.
    pub(super) fn rehearsed(&self, ask: &Ask<'_>) -> Result<Request, Failure> {
        let attempt = self.endpoints.attempt();
        let base = attempt.server().base.clone();
        attempt.answered();
        request(&Place { base, gateway: GATEWAYS[0] }, ask)
    }

    /// Asks one server, under the path that its version has.
    async fn exchange(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Reply, Failure> {
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

    async fn exchange_at(&self, place: Place, ask: &Ask<'_>) -> Result<Reply, Failure> {
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
    pub(super) async fn at(&self, place: &Place, ask: &Ask<'_>) -> Result<Value, Failure> {
        let answer = tokio::time::timeout(ask.patience, self.exchange_at(place.clone(), ask)).await;
        answer.unwrap_or(Err(HttpCause::TimedOut(ask.patience).into())).map(Reply::into_value)
    }

    /// The next call goes to another server than this one.
    pub(super) fn move_on_from(&self, place: &Place) {
        let attempt = self.endpoints.attempt();
        if attempt.server().base != place.base {
            attempt.answered();
        }
    }
}

fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    base.join(path).map_err(|error| HttpCause::Client(error.to_string()).into())
}

fn request(place: &Place, ask: &Ask<'_>) -> Result<Request, Failure> {
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
fn parsed(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
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
