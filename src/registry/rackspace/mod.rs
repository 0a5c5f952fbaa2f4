//! The Service Registry HTTP API, ours and others'.
//!
//! A call is one request over a connection that stays open, with the token of a login that all calls share
//! ([`session`]). A 401 is answered with one new login and the same request again: tokens die, and keys change. What
//! the server said last about services is shown again when it cannot be asked ([`stale`]). Servers that do not know
//! the header that tells instances apart are asked whether it is we who hold an id ([`doubt`]).

mod answer;
mod ask;
mod doubt;
mod session;
mod stale;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use self::answer::{About, Taken};
use self::ask::Ask;
use self::doubt::Doubts;
use self::session::{Pass, Session};
use self::stale::Stale;
use super::http::{Answer, Http, HttpCause};
use super::{
    Access, ApiUrl, AuthUrl, Claim, ConfigurationQuery, ConfigurationStore, Error, EventLog, EventQuery,
    IfTaken, Object, Owner, Quota, Registry, Rehearsal, Rehearsed, Result, ServiceQuery, Step, rehearsal,
};
use crate::api::{HeartbeatToken, Listing};
use crate::model::{
    ConfigurationId, ConfigurationValue, Drained, Event, Page, Registration, Service, ServiceId,
    ServiceUpdate, Timestamp, Token,
};

/// How often one registration takes an id from somebody else: two that do so could go on for ever.
const MOST_REMOVALS: u32 = 3;

/// A server of the API. It is connected to at the first call.
pub(super) struct Rackspace {
    http: Http,
    base: ApiUrl,
    session: Option<Session>,
    stale: Stale,
    doubts: Doubts,
}

fn service_path(id: &ServiceId) -> String {
    format!("/services/{id}")
}

/// The id of a value has a slash at its front when it is in a namespace: two in a row are meant.
fn value_path(id: &ConfigurationId) -> String {
    format!("/configuration/{id}")
}

impl Rackspace {
    pub(super) fn new(url: &ApiUrl, access: &Access) -> Self {
        let session = url.credentials().or(access.credentials.as_ref()).map(|credentials| {
            let auth_url = access.auth_url.clone().unwrap_or_else(|| default_auth_url(url));
            Session::new(credentials.clone(), auth_url)
        });
        Self {
            http: Http::new(&access.tls),
            base: url.clone(),
            session,
            stale: Stale::default(),
            doubts: Doubts::default(),
        }
    }

    /// Asks, logs in where that is needed, and returns a success, or what else it means.
    async fn call(&self, ask: &Ask, about: About<'_>) -> Result<Answer> {
        let answer = self.ask(ask).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.failure(about, &answer)) }
    }

    async fn get<T: DeserializeOwned>(&self, ask: &Ask, about: About<'_>) -> Result<T> {
        let answer = self.call(ask, about).await?;
        answer::read(self.url(), &answer)
    }

    async fn page<T: DeserializeOwned, M: std::str::FromStr>(
        &self,
        ask: &Ask,
        about: About<'_>,
    ) -> Result<Page<T, M>> {
        let Listing { values, metadata } = self.get::<Listing<T>>(ask, about).await?;
        let next_marker = metadata.next_marker.map(|marker| marker.parse()).transpose();
        let next_marker = next_marker
            .map_err(|_| self.unavailable(HttpCause::Nonsense("its next marker is none".to_owned())))?;
        Ok(Page { values, next_marker, stale_since: None })
    }

    /// Asks, and once more after a new login when the token is refused.
    async fn ask(&self, ask: &Ask) -> Result<Answer> {
        let Some(session) = &self.session else { return self.send(ask, None).await };
        let pass = session.pass(&self.http, self.url(), None).await?;
        let answer = self.send(ask, Some(&pass)).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let pass = session.pass(&self.http, self.url(), Some(&pass)).await?;
        self.send(ask, Some(&pass)).await
    }

    async fn send(&self, ask: &Ask, pass: Option<&Arc<Pass>>) -> Result<Answer> {
        let request = ask.request(&self.base, pass.map(|pass| &**pass));
        let request = request.map_err(|cause| self.unavailable(cause))?;
        self.http.send(request, ask.longest()).await.map_err(|cause| self.unavailable(cause))
    }

    /// Registers, unless the id is taken.
    async fn enter(
        &self,
        registration: &Registration,
        claim: &Claim,
    ) -> Result<std::result::Result<Token, Taken>> {
        let answer = self.ask(&Ask::registration(registration, claim)).await?;
        if let Some(taken) = answer::taken(&answer) {
            return Ok(Err(taken));
        }
        if !answer.status.is_success() {
            return Err(self.failure(About::Page, &answer));
        }
        answer::read::<HeartbeatToken>(self.url(), &answer).map(|HeartbeatToken { token }| Ok(token))
    }

    fn rehearsal(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        let (id, ours) = (&registration.id, Owner::Instance(claim.instance));
        let invalid = |cause| self.unavailable(cause);
        let pass =
            self.session.as_ref().map(|_| Pass { token: rehearsal::hidden(), tenant: "<tenant>".to_owned() });
        let mut requests = Vec::new();
        if let Some(session) = &self.session {
            let login = session.request(rehearsal::HIDDEN).map_err(invalid)?;
            requests.push(Rehearsed::http(Step::Registration, &login, "the login"));
        }
        for (step, ask, note) in [
            (Step::Registration, Ask::value(&Drained::key(id)), rehearsal::DRAINED),
            (Step::Registration, Ask::registration(registration, claim), ""),
            (Step::Heartbeat, Ask::heartbeat(id, &Token::new(rehearsal::TOKEN), ours), ""),
            (Step::Deregistration, Ask::deregistration(id, ours), ""),
        ] {
            let request = ask.request(&self.base, pass.as_ref()).map_err(invalid)?;
            requests.push(Rehearsed::http(step, &request, note));
        }
        Ok(Rehearsal { requests, stand_ins: Vec::new() })
    }

    /// Whether the service under our id is what we would register: then we have registered it before.
    async fn is_listed(&self, registration: &Registration) -> Result<bool> {
        match self.service(&registration.id).await {
            Ok(service) => Ok(service.registration == *registration),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A call that renews a registration has failed: unless it may have had an effect, there is no more doubt about it
    /// than before.
    fn settle(&self, id: &ServiceId, before: Option<Instant>, error: Error) -> Error {
        if !doubt::is_open(&error) {
            self.doubts.undo(id, before);
        }
        error
    }

    fn failure(&self, about: About<'_>, answer: &Answer) -> Error {
        answer::failure(self.url(), about, answer)
    }

    fn unavailable(&self, cause: HttpCause) -> Error {
        Error::Unavailable { registry: self.url().to_owned(), source: cause.into() }
    }
}

/// Where to log in for `registry`, unless told: Rackspace had one place for all of its own, others serve both.
pub(super) fn default_auth_url(registry: &ApiUrl) -> AuthUrl {
    let base = registry.base();
    let is_rackspaces =
        base.host_str().is_some_and(|host| host.ends_with(".registry.api.rackspacecloud.com"));
    let theirs = is_rackspaces.then(|| AuthUrl::US.parse().ok()).flatten();
    theirs.unwrap_or_else(|| AuthUrl::beside(base))
}

#[async_trait]
impl Registry for Rackspace {
    fn url(&self) -> &str {
        self.base.as_str()
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        let id = &registration.id;
        let mut removals = 0;
        loop {
            let before = self.doubts.begin(id);
            let Taken { holder, frees_in } = match self.enter(registration, claim).await {
                Ok(Ok(token)) => {
                    self.doubts.end(id);
                    return Ok(token);
                }
                Ok(Err(taken)) => taken,
                Err(error) => return Err(self.settle(id, before, error)),
            };
            self.doubts.undo(id, before);
            let timeout = registration.heartbeat_timeout.as_duration();
            let may_be_ours = holder.is_none() && before.is_some_and(|since| since.elapsed() <= timeout);
            let is_to_go = removals < MOST_REMOVALS
                && (claim.if_taken == IfTaken::TakeOver
                    || may_be_ours && self.is_listed(registration).await?);
            if !is_to_go {
                let holder = holder.unwrap_or_else(|| "another instance".to_owned());
                return Err(Error::Conflict { id: id.clone(), holder, frees_in });
            }
            removals += 1;
            match self.deregister(id, Owner::Anyone).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, whose: Owner) -> Result<Token> {
        let ask = Ask::heartbeat(id, token, whose);
        let before = self.doubts.begin(id);
        match self.get(&ask, About::Heartbeat(id.as_str())).await {
            Ok(HeartbeatToken { token }) => {
                self.doubts.end(id);
                Ok(token)
            }
            Err(error) => Err(self.settle(id, before, error)),
        }
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        let ask = Ask::deregistration(id, whose);
        self.call(&ask, About::One(Object::Service, id.as_str())).await?;
        self.doubts.end(id);
        Ok(())
    }

    async fn rehearse(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        self.rehearsal(registration, claim)
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("heartbeat_timeout", update.heartbeat_timeout.map(|timeout| json!(timeout)));
        set("tags", update.tags.as_ref().map(|tags| json!(tags)));
        set("metadata", update.metadata.as_ref().map(|metadata| json!(metadata)));
        let ask = Ask::new(Method::PUT, service_path(id)).body(body.into());
        self.call(&ask, About::One(Object::Service, id.as_str())).await.map(drop)
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        let ask = Ask::new(Method::GET, service_path(id));
        self.get(&ask, About::One(Object::Service, id.as_str())).await
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        let tag = query.tag.as_ref().map(|tag| tag.as_str().to_owned());
        let ask = Ask::list("/services", &query.page).with("tag", tag);
        match self.page(&ask, About::Page).await {
            Ok(page) => {
                self.stale.keep(ask.query(), &page);
                Ok(page)
            }
            Err(error @ Error::Unavailable { .. }) => self.stale.page(ask.query()).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Ok(self)
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn quota(&self) -> Result<Quota> {
        self.get(&Ask::new(Method::GET, "/limits"), About::Page).await
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(self.call(&Ask::new(Method::GET, "/limits"), About::Page).await?.date)
    }

    async fn renew_credentials(&self) -> Result<()> {
        if let Some(session) = &self.session {
            session.forget().await;
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for Rackspace {
    async fn events(&self, query: &EventQuery) -> Result<Page<Event, Uuid>> {
        let kind = query.kind.map(|kind| kind.as_str().to_owned());
        let ask = Ask::list("/events", &query.page).with("type", kind);
        self.page(&ask, About::Events(query.page.marker)).await
    }
}

#[async_trait]
impl ConfigurationStore for Rackspace {
    async fn value(&self, id: &ConfigurationId) -> Result<ConfigurationValue> {
        self.get(&Ask::value(id), About::One(Object::ConfigurationValue, id.as_str())).await
    }

    async fn values(&self, query: &ConfigurationQuery) -> Result<Page<ConfigurationValue, ConfigurationId>> {
        let path = match &query.namespace {
            Some(namespace) => format!("/configuration{}/", namespace.as_str()),
            None => "/configuration".to_owned(),
        };
        self.page(&Ask::list(path, &query.page), About::Page).await
    }

    async fn set(&self, value: &ConfigurationValue) -> Result<()> {
        let ask = Ask::new(Method::PUT, value_path(&value.id)).body(json!({"value": value.value()}));
        self.call(&ask, About::One(Object::ConfigurationValue, value.id.as_str())).await.map(drop)
    }

    async fn remove(&self, id: &ConfigurationId) -> Result<()> {
        let ask = Ask::new(Method::DELETE, value_path(id));
        self.call(&ask, About::One(Object::ConfigurationValue, id.as_str())).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_for_a_login_unless_told() {
        for (registry, expected) in [
            ("https://dfw.registry.api.rackspacecloud.com/v1.0", AuthUrl::US),
            ("http://127.0.0.1:9000/v1.0/7777", "http://127.0.0.1:9000/v2.0"),
            ("https://registry.example/some/where/", "https://registry.example/v2.0"),
            (
                "https://registry.api.rackspacecloud.com.example/v1.0",
                "https://registry.api.rackspacecloud.com.example/v2.0",
            ),
        ] {
            let Ok(crate::registry::RegistryUrl::Rackspace(url)) = registry.parse() else {
                panic!("{registry}")
            };
            assert_eq!(default_auth_url(&url).as_str(), expected);
        }
    }
}
