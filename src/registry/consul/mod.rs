//! A Consul agent, over its HTTP API: the one that the service is registered at and nobody else.
//!
//! A registration is a service with one TTL check, which heartbeats keep passing; who is dead is `critical`, and taken out
//! by Consul itself some time later. The check's id has the instance in it, so that a heartbeat is one request, and finds
//! no check when somebody else has taken the id. An agent has no request that registers only where nobody has: two that
//! do so in the same instant replace one another, and the first learns of it by its next heartbeat.
//!
//! Ids are unique on an agent, not in a datacenter, which is why lists are the agent's, too.

mod configuration;
mod entry;
mod token;

use std::collections::BTreeMap;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use self::entry::{Check, Entry, Holder, check_id};
use self::token::TokenSlot;
use super::http::{Answer, Http, HttpCause};
use super::{
    Access, ApiKey, Claim, ConfigurationStore, ConsulUrl, Error, EventLog, IfTaken, Object, Owner, Quota,
    Registry, Result, ServiceQuery,
};
use crate::model::{
    InstanceId, Page, Registration, Service, ServiceId, ServiceUpdate, Timestamp, Token, printable,
};

const KIND: &str = "consul";
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
/// An agent has at most a few thousand services, values are at most a few kilobytes each.
const LONGEST: usize = 32 << 20;
const PASSING: &str = "passing";
/// What an id may have that is no part of a path's syntax.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A Consul agent. It is connected to at the first call.
pub(super) struct Consul {
    http: Http,
    url: ConsulUrl,
    token: TokenSlot,
    /// Held from the look at who has an id until it is ours: several clients may share this registry.
    registering: Mutex<()>,
}

/// A request, but for the token.
struct Ask {
    method: Method,
    /// With a slash at its front, and the query.
    path: String,
    body: Option<String>,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None }
    }

    fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }
}

/// A service, and how it fares.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    aggregated_status: String,
    service: Option<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckStatus {
    #[serde(rename = "ServiceID")]
    service_id: String,
    status: String,
}

/// A service that an agent knows, alive or not.
struct Known {
    entry: Entry,
    is_alive: bool,
}

impl Consul {
    pub(super) fn new(url: &ConsulUrl, access: &Access) -> Self {
        let token = url.token().cloned().map(ApiKey::Given).or_else(|| access.token.clone());
        Self {
            http: Http::new(&access.tls),
            url: url.clone(),
            token: TokenSlot::new(token),
            registering: Mutex::default(),
        }
    }

    /// Asks, and once more where the token is refused and its file has another by now.
    async fn ask(&self, ask: &Ask) -> Result<Answer> {
        let token = self.token.current().await.map_err(|cause| self.unauthorized(cause))?;
        let answer = self.send(ask, token.as_deref()).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        let other = self.token.other_than(token.as_deref()).await;
        match other.map_err(|cause| self.unauthorized(cause))? {
            Some(other) => self.send(ask, Some(&other)).await,
            None => Ok(answer),
        }
    }

    async fn send(&self, ask: &Ask, token: Option<&HeaderValue>) -> Result<Answer> {
        let url = self.url.base().join(&ask.path);
        let url = url.map_err(|error| self.unavailable(HttpCause::Client(error.to_string())))?;
        let mut request = Request::new(ask.method.clone(), url);
        if let Some(token) = token {
            request.headers_mut().insert(TOKEN, token.clone());
        }
        if let Some(body) = &ask.body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.clone().into());
        }
        self.http.send(request, LONGEST).await.map_err(|cause| self.unavailable(cause))
    }

    async fn call(&self, ask: &Ask) -> Result<Answer> {
        let answer = self.ask(ask).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.failure(&answer)) }
    }

    async fn read<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T> {
        self.parse(&self.call(ask).await?)
    }

    fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.unavailable(HttpCause::Nonsense(printable(&error.to_string()))))
    }

    /// The service under this id. Its health is told by the status, too: only a 404 says that there is none.
    async fn known(&self, id: &ServiceId) -> Result<Option<Known>> {
        let answer = self.ask(&Ask::get(format!("/v1/agent/health/service/id/{id}?format=json"))).await?;
        let health: Health = match answer.status.as_u16() {
            404 => return Ok(None),
            200 | 429 | 503 => self.parse(&answer)?,
            _ => return Err(self.failure(&answer)),
        };
        let is_alive = health.aggregated_status == PASSING;
        Ok(health.service.map(|entry| Known { entry, is_alive }))
    }

    async fn alive(&self, id: &ServiceId) -> Result<Entry> {
        let known = self.known(id).await?.filter(|known| known.is_alive);
        known.map(|known| known.entry).ok_or_else(|| self.not_found(Object::Service, id.as_str()))
    }

    async fn define(&self, registration: &Registration, holder: &Holder, check: Check) -> Result<()> {
        let definition = entry::definition(registration, holder, check)
            .map_err(|rule| Error::Invalid { registry: self.url().to_owned(), source: rule.into() })?;
        let query = if check == Check::New { "?replace-existing-checks=true" } else { "" };
        let path = format!("/v1/agent/service/register{query}");
        self.call(&Ask::put(path).body(definition.to_string())).await.map(drop)
    }

    async fn pass(&self, id: &ServiceId, token: &Token) -> Result<Answer> {
        let check = check_id(id, token);
        let check = utf8_percent_encode(&check, IN_PATH);
        self.ask(&Ask::put(format!("/v1/agent/check/pass/{check}"))).await
    }

    fn failure(&self, answer: &Answer) -> Error {
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

    fn unavailable(&self, cause: HttpCause) -> Error {
        Error::Unavailable { registry: self.url().to_owned(), source: cause.into() }
    }

    fn unauthorized(&self, cause: HttpCause) -> Error {
        Error::Unauthorized { registry: self.url().to_owned(), source: cause.into() }
    }

    fn not_found(&self, object: Object, id: &str) -> Error {
        Error::NotFound { registry: self.url().to_owned(), object, id: id.to_owned() }
    }
}

/// Whether a heartbeat was for a check that is not there: Consul 1.8 calls that a fault of its own.
fn is_unknown_check(answer: &Answer) -> bool {
    let message = String::from_utf8_lossy(&answer.body);
    match answer.status.as_u16() {
        404 => true,
        500 => message.contains("does not have associated TTL") || message.contains("Unknown check"),
        _ => false,
    }
}

#[async_trait]
impl Registry for Consul {
    fn url(&self) -> &str {
        self.url.as_str()
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        let (id, token) = (&registration.id, entry::token(claim.instance));
        let _registering = self.registering.lock().await;
        let before = self.known(id).await?;
        let holder = before.as_ref().and_then(|known| known.entry.holder());
        let is_ours = holder.as_ref().is_some_and(|holder| holder.instance == claim.instance);
        let is_alive = before.is_some_and(|known| known.is_alive);
        if is_alive && !is_ours && claim.if_taken == IfTaken::Refuse {
            let holder =
                holder.map_or_else(|| "another program".to_owned(), |holder| printable(&holder.name));
            return Err(Error::Conflict { id: id.clone(), holder, frees_in: None });
        }
        let holder = Holder { instance: claim.instance, name: claim.holder.clone() };
        self.define(registration, &holder, Check::New).await?;
        // A check that is there already keeps its status.
        if is_ours && !is_alive {
            self.heartbeat(id, &token, Owner::Anyone).await?;
        }
        Ok(token)
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, _whose: Owner) -> Result<Token> {
        if token.as_str().parse::<InstanceId>().is_err() {
            return Err(self.not_found(Object::HeartbeatToken, id.as_str()));
        }
        let answer = self.pass(id, token).await?;
        match answer.status {
            status if status.is_success() => Ok(token.clone()),
            _ if is_unknown_check(&answer) => Err(self.not_found(Object::Service, id.as_str())),
            _ => Err(self.failure(&answer)),
        }
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        let _registering = self.registering.lock().await;
        let known = self.known(id).await?;
        let is_meant = known.is_some_and(|known| match whose {
            Owner::Anyone => true,
            Owner::Instance(instance) => {
                known.entry.holder().is_some_and(|holder| holder.instance == instance)
            }
        });
        if !is_meant {
            return Err(self.not_found(Object::Service, id.as_str()));
        }
        let answer = self.ask(&Ask::put(format!("/v1/agent/service/deregister/{id}"))).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Err(self.not_found(Object::Service, id.as_str())),
            status if status.is_success() => Ok(()),
            _ => Err(self.failure(&answer)),
        }
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        let _registering = self.registering.lock().await;
        let entry = self.alive(id).await?;
        let (Some(holder), Some(mut registration)) = (entry.holder(), entry.registration()) else {
            return Err(Error::Unsupported {
                operation: "changing what another program registered",
                kind: KIND,
                supported_by: "services that service-registry-wrapper or raxsr registered",
            });
        };
        let check = if update.heartbeat_timeout.is_some() { Check::New } else { Check::Kept };
        registration.heartbeat_timeout = update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
        registration.tags = update.tags.clone().unwrap_or(registration.tags);
        registration.metadata = update.metadata.clone().unwrap_or(registration.metadata);
        self.define(&registration, &holder, check).await
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        let registration = self.alive(id).await?.registration();
        let registration = registration.ok_or_else(|| self.not_found(Object::Service, id.as_str()))?;
        Ok(Service { registration, last_seen: None })
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        let entries: BTreeMap<String, Entry> = self.read(&Ask::get("/v1/agent/services")).await?;
        let checks: BTreeMap<String, CheckStatus> = self.read(&Ask::get("/v1/agent/checks")).await?;
        let mut is_passing = BTreeMap::new();
        for check in checks.values() {
            *is_passing.entry(check.service_id.as_str()).or_insert(true) &= check.status == PASSING;
        }
        // One of ours without a check has just been taken out; Consul counts any other as alive.
        let is_alive = |entry: &&Entry| {
            is_passing.get(entry.id.as_str()).copied().unwrap_or_else(|| entry.holder().is_none())
        };
        let is_wanted = |registration: &Registration| {
            let marker = query.page.marker.as_ref();
            marker.is_none_or(|marker| registration.id.as_str() >= marker.as_str())
                && query.tag.as_ref().is_none_or(|wanted| registration.tags.iter().any(|tag| tag == wanted))
        };
        let alive = entries.values().filter(is_alive).filter_map(Entry::registration).filter(is_wanted);
        let values = alive.map(|registration| Service { registration, last_seen: None });
        let values = values.take(query.page.limit.get() + 1).collect();
        Ok(Page::from_lookahead(values, query.page.limit, |service| service.registration.id.clone()))
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Err(Error::Unsupported {
            operation: "the event log",
            kind: KIND,
            supported_by: "embedded registries and servers of the Service Registry API",
        })
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn quota(&self) -> Result<Quota> {
        Err(Error::Unsupported {
            operation: "telling an account's limits",
            kind: KIND,
            supported_by: "servers of the Service Registry API: --registry http(s)://host/v1.0",
        })
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(self.call(&Ask::get("/v1/status/leader")).await?.date)
    }

    async fn renew_credentials(&self) -> Result<()> {
        self.token.forget().await;
        Ok(())
    }
}
