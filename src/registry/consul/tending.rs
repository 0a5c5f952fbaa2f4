//! A registration's life at one agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tracing::{debug, info, warn};

use super::client::{Agent, Ask, Client};
use super::entry::{self, Check, Entry, Holder, check_id};
use super::health::{self, CRITICAL, CheckStatus, Standing, is_held};
use super::{Consul, IN_PATH, KIND};
use crate::message::chain;
use crate::model::{InstanceId, Registration, ServiceId, ServiceUpdate, Token, printable};
use crate::registry::http::Answer;
use crate::registry::{Claim, Error, IfTaken, Object, Owner, Result};

/// How long an agent that we left has to answer.
const LEAVING: Duration = Duration::from_secs(5);

/// What is said once, however often we register.
#[derive(Default)]
pub(super) struct Told {
    no_port: AtomicBool,
    no_address: AtomicBool,
    token_refused: AtomicBool,
}

/// A service, and how it fares, as its agent tells it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    service: Option<Entry>,
    #[serde(default)]
    checks: Option<Vec<CheckStatus>>,
}

/// A service that an agent knows, alive or not.
pub(super) struct Known {
    entry: Entry,
    checks: Vec<CheckStatus>,
}

/// What a heartbeat says of the service.
#[derive(Clone, Copy)]
pub(super) enum Vitality<'a> {
    Healthy,
    /// It is not to be used, because of this.
    Unhealthy(&'a str),
}

/// What became of a service at an agent.
pub(super) struct Deregistered {
    pub(super) agent: Arc<Agent>,
    pub(super) was_there: bool,
}

impl Known {
    fn is_held(&self) -> bool {
        is_held(&self.entry, &self.checks)
    }

    fn is_of(&self, instance: InstanceId) -> bool {
        self.entry.holder().is_some_and(|holder| holder.instance == instance)
    }

    fn is_in_maintenance(&self) -> bool {
        self.checks.iter().any(CheckStatus::is_of_service_maintenance)
    }

    /// The checks that other lives of it have left behind.
    fn outlived<'a>(&'a self, id: &ServiceId, token: &Token) -> impl Iterator<Item = &'a str> {
        let (prefix, ours) = (entry::check_prefix(id), check_id(id, token));
        let ids = self.checks.iter().map(|check| check.check_id.as_str());
        ids.filter(move |check| check.starts_with(&prefix) && *check != ours)
    }
}

impl Client {
    /// The service under this id. Its health is told by the status, too: only a 404 says that there is none.
    async fn known_at(&self, agent: &Agent, id: &ServiceId) -> Result<Option<Known>> {
        let answer = self.ask_at(agent, &Self::health(id)).await?;
        let health: Health = match answer.status.as_u16() {
            404 => return Ok(None),
            200 | 429 | 503 => self.parse(&answer)?,
            _ => return Err(self.failure(&answer)),
        };
        let checks = health.checks.unwrap_or_default();
        Ok(health.service.map(|entry| Known { entry, checks }))
    }

    /// The request for a service and its health.
    pub(super) fn health(id: &ServiceId) -> Ask {
        Ask::get(format!("/v1/agent/health/service/id/{id}?format=json"))
    }

    /// A heartbeat.
    pub(super) fn pass(id: &ServiceId, token: &Token) -> Ask {
        let check = check_id(id, token);
        Ask::put(format!("/v1/agent/check/pass/{}", utf8_percent_encode(&check, IN_PATH)))
    }

    /// The heartbeat of a service that is not to be used.
    fn fail(id: &ServiceId, token: &Token, reason: &str) -> Ask {
        let check = check_id(id, token);
        let path = format!("/v1/agent/check/update/{}", utf8_percent_encode(&check, IN_PATH));
        Ask::put(path).body(json!({"Status": CRITICAL, "Output": health::output(reason)}).to_string())
    }

    /// The request that takes a service out.
    pub(super) fn removal(id: &ServiceId) -> Ask {
        Ask::put(format!("/v1/agent/service/deregister/{id}"))
    }

    pub(super) fn definition(
        &self,
        registration: &Registration,
        holder: &Holder,
        check: Check,
    ) -> Result<Ask> {
        let definition =
            entry::definition(registration, holder, check).map_err(|rule| self.invalid(rule.into()))?;
        let query = if check == Check::Only { "?replace-existing-checks=true" } else { "" };
        Ok(Ask::put(format!("/v1/agent/service/register{query}")).body(definition.to_string()))
    }

    async fn renew_at(
        &self,
        agent: &Agent,
        id: &ServiceId,
        token: &Token,
        vitality: Vitality<'_>,
    ) -> Result<()> {
        let ask = match vitality {
            Vitality::Healthy => Self::pass(id, token),
            Vitality::Unhealthy(reason) => Self::fail(id, token, reason),
        };
        let answer = self.ask_at(agent, &ask).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            _ if is_unknown_check(&answer) => Err(self.not_found(Object::Service, id.as_str())),
            _ => Err(self.failure(&answer)),
        }
    }

    /// Takes it out, and tells whether it was there.
    async fn remove_at(&self, agent: &Agent, id: &ServiceId, whose: Owner) -> Result<bool> {
        let known = self.known_at(agent, id).await?;
        let is_meant = known.is_some_and(|known| match whose {
            Owner::Anyone => true,
            Owner::Instance(instance) => known.is_of(instance),
        });
        if !is_meant {
            return Ok(false);
        }
        let answer = self.ask_at(agent, &Self::removal(id)).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failure(&answer)),
        }
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

impl Consul {
    pub(super) async fn register_at(
        &self,
        agent: &Arc<Agent>,
        registration: &Registration,
        claim: &Claim,
    ) -> Result<Token> {
        let (client, id, token) = (&self.client, &registration.id, entry::token(claim.instance));
        let before = client.known_at(agent, id).await?;
        let is_ours = before.as_ref().is_some_and(|known| known.is_of(claim.instance));
        let is_held = before.as_ref().is_some_and(Known::is_held);
        if let Some(known) =
            before.as_ref().filter(|_| is_held && !is_ours && claim.if_taken == IfTaken::Refuse)
        {
            let holder = known.entry.holder();
            let holder =
                holder.map_or_else(|| "another program".to_owned(), |holder| printable(&holder.name));
            return Err(Error::Conflict { id: id.clone(), holder, frees_in: None });
        }
        self.tell_once(agent, registration);
        // An operator's check stays: maintenance ends when the operator says so.
        let others_stay = is_ours || before.as_ref().is_some_and(Known::is_in_maintenance);
        let check = if others_stay { Check::Renewed } else { Check::Only };
        let holder = Holder { instance: claim.instance, name: claim.holder.clone() };
        let definition = client.definition(registration, &holder, check)?;
        let left = self.placement.enters(id, claim.instance, agent);
        client.call_at(agent, &definition).await?;
        if let Some(left) = left {
            warn!(service = %id, registry = client.url(), agent = agent.name, before = left.name,
                "registered at another agent: the one before does not answer");
        }
        self.placement.entered(id, client.token.current().await.ok().flatten());
        if let Some(known) = before.as_ref().filter(|_| others_stay) {
            for check in known.outlived(id, &token) {
                let check = utf8_percent_encode(check, IN_PATH);
                client.call_at(agent, &Ask::put(format!("/v1/agent/check/deregister/{check}"))).await?;
            }
        }
        // A check that is there already keeps its status.
        if is_ours {
            client.renew_at(agent, id, &token, Vitality::Healthy).await?;
        }
        Ok(token)
    }

    pub(super) async fn heartbeat_at(
        &self,
        agent: &Arc<Agent>,
        id: &ServiceId,
        instance: InstanceId,
        vitality: Vitality<'_>,
    ) -> Result<()> {
        self.follow_token(agent, id, instance).await?;
        self.client.renew_at(agent, id, &entry::token(instance), vitality).await
    }

    /// An agent enters a service into the catalog with the token of its registration. When its file has another by now,
    /// the one that it had may soon be good for nothing: the service is registered once more, with the new one.
    async fn follow_token(&self, agent: &Arc<Agent>, id: &ServiceId, instance: InstanceId) -> Result<()> {
        let client = &self.client;
        let Some(fresh) = client.token.in_file().await else { return Ok(()) };
        if self.placement.token(id, instance).is_none_or(|used| used == fresh) {
            return Ok(());
        }
        let known = client.known_at(agent, id).await?.filter(|known| known.is_of(instance));
        let Some((holder, registration)) =
            known.and_then(|known| Some((known.entry.holder()?, known.entry.registration()?)))
        else {
            return Ok(());
        };
        let definition = client.definition(&registration, &holder, Check::Renewed)?;
        match client.call_with(agent, &definition, &fresh).await {
            Ok(_) => {
                info!(service = %id, registry = client.url(), "registered with the new token in the token's file");
                client.token.set(Arc::clone(&fresh)).await;
                self.placement.entered(id, Some(fresh));
                self.told.token_refused.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(error @ Error::Unavailable { .. }) => Err(error),
            // The one at hand may be good for some time yet.
            Err(error) => {
                if !self.told.token_refused.swap(true, Ordering::Relaxed) {
                    warn!(service = %id, registry = client.url(), error = chain(&error),
                        "the new token in the token's file is refused: going on with the old one");
                }
                Ok(())
            }
        }
    }

    /// Takes it out of an agent that we left, if that one answers.
    pub(super) fn leaving(
        &self,
        agent: Arc<Agent>,
        id: &ServiceId,
        instance: InstanceId,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (client, placement) = (Arc::clone(&self.client), Arc::clone(&self.placement));
        let id = id.clone();
        async move {
            if !placement.has_left(&id, &agent) {
                return;
            }
            let removal = client.remove_at(&agent, &id, Owner::Instance(instance));
            match tokio::time::timeout(LEAVING, removal).await {
                Ok(Ok(was_there)) => {
                    debug!(service = %id, registry = client.url(), was_there, "out of the agent that failed");
                    placement.is_gone_from(&id, &agent);
                }
                Ok(Err(error)) => debug!(service = %id, error = chain(&error), "cannot leave an agent"),
                Err(_) => debug!(service = %id, "cannot leave an agent: no answer"),
            }
        }
    }

    pub(super) async fn deregister_at(
        &self,
        agent: &Arc<Agent>,
        id: &ServiceId,
        whose: Owner,
    ) -> Result<Deregistered> {
        let was_there = self.client.remove_at(agent, id, whose).await?;
        Ok(Deregistered { agent: Arc::clone(agent), was_there })
    }

    /// The service under this id, if it is there and alive.
    pub(super) async fn alive_at(&self, agent: &Agent, id: &ServiceId) -> Result<Option<Registration>> {
        let known = self.client.known_at(agent, id).await?;
        let alive = known.filter(|known| Standing::of(&known.entry, &known.checks) == Standing::Alive);
        Ok(alive.and_then(|known| known.entry.registration()))
    }

    /// Changes it, and tells whether it is there.
    pub(super) async fn update_at(
        &self,
        agent: &Agent,
        id: &ServiceId,
        update: &ServiceUpdate,
    ) -> Result<bool> {
        let client = &self.client;
        let Some(known) = client.known_at(agent, id).await?.filter(Known::is_held) else { return Ok(false) };
        let (Some(holder), Some(mut registration)) = (known.entry.holder(), known.entry.registration())
        else {
            return Err(Error::Unsupported {
                operation: "changing what another program registered",
                kind: KIND,
                supported_by: "services that service-registry-wrapper or raxsr registered",
            });
        };
        let check = if update.heartbeat_timeout.is_some() { Check::Renewed } else { Check::Kept };
        registration.heartbeat_timeout = update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
        registration.tags = update.tags.clone().unwrap_or(registration.tags);
        registration.metadata = update.metadata.clone().unwrap_or(registration.metadata);
        client.call_at(agent, &client.definition(&registration, &holder, check)?).await?;
        Ok(true)
    }

    /// What consumers will miss.
    fn tell_once(&self, agent: &Agent, registration: &Registration) {
        let (service, registry) = (&registration.id, self.client.url());
        if entry::port(registration).is_none() && !self.told.no_port.swap(true, Ordering::Relaxed) {
            warn!(%service, registry, "it gives no port, without which Consul's consumers cannot use it: see --port");
        }
        let lacks_address = agent.is_remote && entry::address(registration).is_none();
        if lacks_address && !self.told.no_address.swap(true, Ordering::Relaxed) {
            warn!(%service, registry,
                "it gives no address, and the agent is not known to be on this machine: consumers will look for it where \
                 the agent is: see --address");
        }
    }
}
