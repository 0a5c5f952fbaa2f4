//! Asking agents: the one that is pinned until it fails, then the next.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use url::Url;

use super::catalog::Myself;
use super::token::TokenSlot;
use crate::message::chain;
use crate::model::printable;
use crate::registry::endpoints::Endpoints;
use crate::registry::http::{Answer, Http, HttpCause, Route, is_loopback, key};
use crate::registry::rehearsal;
use crate::registry::url::AgentAddress;
use crate::registry::{Access, Cause, ConsulUrl, Credentials, Error, Object, Result, Tls};

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// A datacenter has at most a few ten thousand checks, values are at most a few kilobytes each.
const LONGEST: usize = 64 << 20;
/// How long an agent has for its answer, where there is another that can be asked instead.
const FAIR_SHARE: Duration = Duration::from_secs(5);
/// An agent takes 200 connections of one address, unless told otherwise: there may be more wrappers than that.
const IDLE: Duration = Duration::from_secs(2);

/// What all requests to one Consul have in common.
pub(super) struct Client {
    url: ConsulUrl,
    pub(super) token: TokenSlot,
    /// For a server that stands before the agents.
    login: Option<Credentials>,
    agents: Endpoints<Arc<Agent>>,
    /// Something was left out of an answer because of the token.
    has_filtered: AtomicBool,
    /// The last agent that another was asked instead of, and why.
    passed_over: Mutex<Option<String>>,
}

/// The HTTP interface of one agent.
pub(super) struct Agent {
    http: Http,
    base: Url,
    /// Its address, for messages.
    pub(super) name: String,
    /// What it is called, where the URL has its certificate's name in its place.
    host: Option<HeaderValue>,
    pub(super) is_remote: bool,
    /// Who it is in its datacenter, once it has said so.
    pub(super) myself: OnceCell<Myself>,
}

/// A request, but for the token.
pub(super) struct Ask {
    method: Method,
    /// With a slash at its front, and the query.
    path: String,
    body: Option<String>,
    datacenter: Datacenter,
    patience: Option<Duration>,
}

/// Where a request is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Datacenter {
    Agents,
    Meant,
}

impl Ask {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        let datacenter = Datacenter::Agents;
        Self { method, path: path.into(), body: None, datacenter, patience: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(super) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// In the datacenter that the URL names. What begins with `/v1/agent/` is always that agent's.
    pub(super) fn in_datacenter(mut self) -> Self {
        self.datacenter = Datacenter::Meant;
        self
    }

    /// Waits as long as this for the answer.
    pub(super) fn patient(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }
}

impl Agent {
    pub(super) fn new(address: AgentAddress, tls: &Tls) -> Option<Self> {
        let name = match &address {
            AgentAddress::Http(url) => authority(&url.host()?, url.port_or_known_default()),
            AgentAddress::Socket(path) => printable(&path.to_string_lossy()),
        };
        let (mut base, mut route) = match address {
            AgentAddress::Http(url) => (url, Route::Direct),
            AgentAddress::Socket(path) => (Url::parse("http://localhost/").ok()?, Route::Socket(path)),
        };
        let (is_remote, mut host) = (!is_loopback(&base), None);
        if let (Some(name), "https") = (&tls.server_name, base.scheme()) {
            let (real, port) = (base.host()?.to_owned(), base.port());
            // What is no name leaves it at the name in the URL, which will not be the certificate's.
            if base.set_host(Some(name)).is_ok() {
                host = HeaderValue::from_str(&authority(&real, port)).ok();
                route = Route::Host(real);
            }
        }
        let http = Http::by(route, tls, Some(IDLE));
        Some(Self { http, base, name, host, is_remote, myself: OnceCell::new() })
    }
}

fn authority(host: &impl Display, port: Option<u16>) -> String {
    port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

impl Client {
    pub(super) fn new(url: &ConsulUrl, access: &Access) -> Self {
        let token = url.token().cloned().map(crate::registry::ApiKey::Given).or_else(|| access.token.clone());
        let agents = url.agents().into_iter().filter_map(|address| Agent::new(address, &access.tls));
        Self {
            token: TokenSlot::new(token),
            login: access.credentials.clone(),
            agents: Endpoints::new(agents.map(Arc::new).collect()),
            url: url.clone(),
            has_filtered: AtomicBool::new(false),
            passed_over: Mutex::default(),
        }
    }

    /// Which agent failed, so that another was asked, since the last time this was asked, and why.
    pub(super) fn passed_over(&self) -> Option<String> {
        self.lock_passed_over().take()
    }

    fn lock_passed_over(&self) -> MutexGuard<'_, Option<String>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something was left out of an answer because of the token, since the last time this was asked. Consul tells
    /// from 1.11 on.
    pub(super) fn has_filtered(&self) -> bool {
        self.has_filtered.swap(false, Ordering::Relaxed)
    }

    /// The URL, without credentials.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn datacenter(&self) -> Option<&str> {
        self.url.scope().datacenter.as_deref()
    }

    /// Does `work` with the agent that is pinned, or where that is not available with the next, until each has been
    /// tried. All of one work is done with one agent. Given up, it counts as a failure of that agent.
    pub(super) async fn at_an_agent<T, W>(&self, work: impl Fn(Arc<Agent>) -> W) -> Result<T>
    where
        W: Future<Output = Result<T>>,
    {
        let mut others = self.agents.count() - 1;
        loop {
            let attempt = self.agents.attempt();
            match work(Arc::clone(attempt.server())).await {
                Err(Error::Unavailable { source, .. }) if others > 0 => {
                    let told =
                        format!("agent {} is not available: {}", attempt.server().name, chain(&source));
                    *self.lock_passed_over() = Some(told);
                    others -= 1;
                }
                Err(error @ Error::Unavailable { .. }) => return Err(error),
                done => {
                    attempt.answered();
                    return done;
                }
            }
        }
    }

    /// Asks whichever agent answers.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer> {
        self.at_an_agent(|agent| async move { self.ask_at(&agent, ask).await }).await
    }

    /// Likewise; only a success is an answer.
    pub(super) async fn call(&self, ask: &Ask) -> Result<Answer> {
        self.at_an_agent(|agent| async move { self.call_at(&agent, ask).await }).await
    }

    /// Likewise for what is answered when there is something new. Given up, it says nothing about the agent.
    pub(super) async fn wait_for(&self, ask: &Ask) -> Result<Answer> {
        let mut others = self.agents.count() - 1;
        loop {
            let attempt = self.agents.attempt();
            let agent = Arc::clone(attempt.server());
            attempt.answered();
            let answer = self.call_at(&agent, ask).await;
            if !matches!(answer, Err(Error::Unavailable { .. })) {
                return answer;
            }
            let attempt = self.agents.attempt();
            if !Arc::ptr_eq(attempt.server(), &agent) {
                // Somebody else has moved on already.
                attempt.answered();
            }
            if others == 0 {
                return answer;
            }
            others -= 1;
        }
    }

    /// Asks this agent, and once more where the token is refused and its file has another by now.
    pub(super) async fn ask_at(&self, agent: &Agent, ask: &Ask) -> Result<Answer> {
        let token = self.token.current().await.map_err(|cause| self.unauthorized(cause))?;
        let answer = self.send(agent, ask, token.as_deref()).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let other = self.token.other_than(token.as_deref()).await;
        match other.map_err(|cause| self.unauthorized(cause))? {
            Some(other) => self.send(agent, ask, Some(&other)).await,
            None => Ok(answer),
        }
    }

    pub(super) async fn call_at(&self, agent: &Agent, ask: &Ask) -> Result<Answer> {
        self.succeeded(self.ask_at(agent, ask).await?)
    }

    /// Likewise with this token, and no other.
    pub(super) async fn call_with(&self, agent: &Agent, ask: &Ask, token: &HeaderValue) -> Result<Answer> {
        self.succeeded(self.send(agent, ask, Some(token)).await?)
    }

    pub(super) async fn read_at<T: DeserializeOwned>(&self, agent: &Agent, ask: &Ask) -> Result<T> {
        let answer = self.call_at(agent, ask).await?;
        if answer.header("x-consul-results-filtered-by-acls") == Some("true") {
            self.has_filtered.store(true, Ordering::Relaxed);
        }
        self.parse(&answer)
    }

    async fn send(&self, agent: &Agent, ask: &Ask, token: Option<&HeaderValue>) -> Result<Answer> {
        let mut request = self.request(agent, ask).await.map_err(|cause| self.unavailable(cause))?;
        if let Some(token) = token {
            request.headers_mut().insert(TOKEN, token.clone());
        }
        agent.http.send(request, LONGEST).await.map_err(|cause| self.unavailable(cause))
    }

    async fn request(&self, agent: &Agent, ask: &Ask) -> std::result::Result<Request, HttpCause> {
        let mut url = agent.base.join(&ask.path).map_err(|error| HttpCause::Client(error.to_string()))?;
        let scope = self.url.scope();
        let datacenter = scope.datacenter.as_ref().filter(|_| ask.datacenter == Datacenter::Meant);
        let said =
            [("dc", datacenter), ("ns", scope.namespace.as_ref()), ("partition", scope.partition.as_ref())];
        for (key, value) in said.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            url.query_pairs_mut().append_pair(key, value);
        }
        let mut request = Request::new(ask.method.clone(), url);
        if let Some(host) = &agent.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        if let Some(login) = &self.login {
            request.headers_mut().insert(AUTHORIZATION, basic(login).await?);
        }
        if let Some(body) = &ask.body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.clone().into());
        }
        *request.timeout_mut() = ask.patience.or((self.agents.count() > 1).then_some(FAIR_SHARE));
        Ok(request)
    }

    /// What would be sent to the agent that is pinned, with the token hidden.
    pub(super) async fn rehearsed(&self, ask: &Ask) -> Result<Request> {
        let attempt = self.agents.attempt();
        let agent = Arc::clone(attempt.server());
        attempt.answered();
        let mut request = self.request(&agent, ask).await.map_err(|cause| self.unavailable(cause))?;
        if self.token.is_given() {
            request.headers_mut().insert(TOKEN, rehearsal::hidden());
        }
        Ok(request)
    }

    fn succeeded(&self, answer: Answer) -> Result<Answer> {
        if answer.status.is_success() { Ok(answer) } else { Err(self.failure(&answer)) }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.unavailable(HttpCause::Nonsense(printable(&error.to_string()))))
    }

    pub(super) fn failure(&self, answer: &Answer) -> Error {
        let (registry, status) = (self.url().to_owned(), answer.status.as_u16());
        let message = printable(String::from_utf8_lossy(&answer.body).trim());
        match status {
            401 | 403 => self.unauthorized(HttpCause::Denied { status, message }),
            404 => {
                self.unavailable(HttpCause::Nonsense(format!("it has no page {}", printable(&answer.path))))
            }
            300..400 => {
                // It may have secrets in it.
                let cause = HttpCause::Redirect { status, location: None };
                Error::Invalid { registry, source: cause.into() }
            }
            400 | 405 | 413 => {
                Error::Invalid { registry, source: HttpCause::Status { status, message }.into() }
            }
            _ => self.unavailable(HttpCause::Status { status, message }),
        }
    }

    pub(super) fn unavailable(&self, cause: HttpCause) -> Error {
        Error::Unavailable { registry: self.url().to_owned(), source: cause.into() }
    }

    pub(super) fn unauthorized(&self, cause: HttpCause) -> Error {
        Error::Unauthorized { registry: self.url().to_owned(), source: cause.into() }
    }

    pub(super) fn invalid(&self, source: Cause) -> Error {
        Error::Invalid { registry: self.url().to_owned(), source }
    }

    pub(super) fn not_found(&self, object: Object, id: &str) -> Error {
        Error::NotFound { registry: self.url().to_owned(), object, id: id.to_owned() }
    }
}

async fn basic(login: &Credentials) -> std::result::Result<HeaderValue, HttpCause> {
    let password = key::read(&login.api_key).await?;
    let both = STANDARD.encode(format!("{}:{}", login.username, password.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {both}"))
        .map_err(|_| HttpCause::Client("the login has characters that no login has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
