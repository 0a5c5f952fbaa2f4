//! Consul, over the HTTP API of an agent: the one that the service is registered at and nobody else.
//!
//! A registration is a service with one TTL check, which heartbeats keep passing; who is dead is `critical`, and taken out
//! by Consul itself some time later. The check's id has the instance in it, so that a heartbeat is one request, and finds
//! no check when somebody else has taken the id. One of a service that is not healthy has the check fail, and say why: the
//! id is not free for that, until the heartbeats end. An agent has no request that registers only where nobody has: two that
//! do so in the same instant replace one another, and the first learns of it by its next heartbeat.
//!
//! Ids are unique on an agent. What registers, renews and takes out is done there; what only looks sees the whole
//! datacenter, our agent's services first.
//!
//! Of several agents one is asked until it fails. The next does not know us, so that the heartbeat there makes the lease
//! register again; the old one is told to forget us when it answers again.

mod catalog;
mod client;
mod configuration;
mod entry;
mod health;
mod placement;
mod rehearsing;
mod tending;
mod token;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use self::catalog::Instance;
use self::client::{Agent, Ask, Client};
use self::health::Standing;
use self::placement::Placement;
use self::tending::{Deregistered, Told, Vitality};
use self::watch::Follower;
use super::http::HttpCause;
use super::watch::Watch;
use super::{
    Access, Cause, Caveat, Claim, ConfigurationStore, ConsulUrl, Error, EventLog, Object, Owner, Registry,
    Rehearsal, Result, ServiceQuery,
};
use crate::model::{InstanceId, Page, Registration, Service, ServiceId, ServiceUpdate, Timestamp, Token};

const KIND: &str = "consul";
/// What an id may have that is no part of a path's syntax.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// How long agents that we left before may delay our end.
const LAST_LOOK: Duration = Duration::from_millis(300);

/// How often an agent without room for another connection is asked again, and after how long.
const CROWDED_TRIES: usize = 8;
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// Consul. It is connected to at the first call.
pub(super) struct Consul {
    client: Arc<Client>,
    placement: Arc<Placement>,
    /// Held from the look at who has an id until it is ours: several clients may share this registry.
    registering: tokio::sync::Mutex<()>,
    /// What was said, and is not said again.
    told: Told,
    /// Why the last list may lack something.
    hidden: Mutex<Option<String>>,
}

impl Consul {
    pub(super) fn new(url: &ConsulUrl, access: &Access) -> Self {
        Self {
            client: Arc::new(Client::new(url, access)),
            placement: Arc::default(),
            registering: tokio::sync::Mutex::default(),
            told: Told::default(),
            hidden: Mutex::default(),
        }
    }

    async fn instances(&self, tag: Option<&str>) -> Result<Vec<Instance>> {
        let client = &self.client;
        client.at_an_agent(|agent| async move { client.instances(&agent, tag).await }).await
    }

    /// One of those alive, of which our own agent's come first.
    async fn find(&self, id: &ServiceId) -> Result<Option<Registration>> {
        let instances = self.instances(None).await?;
        let mut found = instances
            .iter()
            .filter(|instance| instance.entry.id == id.as_str() && instance.standing == Standing::Alive);
        Ok(found.find_map(|instance| instance.entry.registration()))
    }

    async fn renew(&self, id: &ServiceId, token: &Token, vitality: Vitality<'_>) -> Result<Token> {
        let Ok(instance) = token.as_str().parse::<InstanceId>() else {
            return Err(self.client.not_found(Object::HeartbeatToken, id.as_str()));
        };
        let work = |agent| async move { self.heartbeat_at(&agent, id, instance, vitality).await };
        self.client.at_an_agent(work).await?;
        for agent in self.placement.to_look_at(id, instance, tokio::time::Instant::now()) {
            tokio::spawn(self.leaving(agent, id, instance));
        }
        Ok(token.clone())
    }

    /// Takes it out of the agent that is pinned. There is no later: an agent that has no room for another connection, as
    /// when many wrappers end together, is asked again until the caller gives up.
    async fn deregister_here(&self, id: &ServiceId, whose: Owner) -> Result<Deregistered> {
        for _ in 0..CROWDED_TRIES {
            let work = |agent| async move { self.deregister_at(&agent, id, whose).await };
            match self.client.at_an_agent(work).await {
                Err(error) if is_crowded(&error) => {
                    tokio::time::sleep(CROWDED_PAUSE.mul_f64(0.5 + fastrand::f64())).await;
                }
                done => return done,
            }
        }
        self.client.at_an_agent(|agent| async move { self.deregister_at(&agent, id, whose).await }).await
    }

    /// Takes a service out of all agents but one, where it may have been before. Returns whether it is in none of them.
    async fn leave_others(&self, here: &Arc<Agent>, id: &ServiceId, instance: InstanceId) -> bool {
        let others = self.placement.ends_at(id, instance, here);
        let leave = |agent: &Arc<Agent>| tokio::spawn(self.leaving(Arc::clone(agent), id, instance));
        let leaving: Vec<_> = others.iter().map(leave).collect();
        let all = async {
            for leaving in leaving {
                let _ = leaving.await;
            }
        };
        let _ = tokio::time::timeout(LAST_LOOK, all).await;
        !others.iter().any(|agent| self.placement.has_left(id, agent))
    }

    /// Why a service cannot be changed that our agent does not have.
    async fn not_here(&self, id: &ServiceId) -> Error {
        match self.find(id).await {
            Ok(Some(_)) => Error::Unsupported {
                operation: "changing what is registered at another agent",
                kind: KIND,
                supported_by: "the agent of its own node, named with --registry",
            },
            Ok(None) => self.client.not_found(Object::Service, id.as_str()),
            Err(error) => error,
        }
    }

    /// What an empty list may mean.
    async fn doubt(&self) -> Option<String> {
        let answer = self.client.ask(&Ask::get("/v1/acl/token/self")).await.ok()?;
        let has_no_acls = String::from_utf8_lossy(&answer.body).contains("disabled");
        if has_no_acls {
            return None;
        }
        Some(if self.client.token.is_given() {
            format!(
                "{} shows nothing to this token: it may lack `service_prefix` and `node_prefix` with `read`",
                self.url()
            )
        } else {
            format!(
                "{} may show nothing without a token: give one with CONSUL_HTTP_TOKEN, or --api-key-file",
                self.url()
            )
        })
    }
}

/// Whether an agent has closed a connection at once. Later ones than 1.8 say so with a status.
fn is_crowded(error: &Error) -> bool {
    let Error::Unavailable { source: Cause::Http(cause), .. } = error else { return false };
    matches!(cause, HttpCause::Broken(_) | HttpCause::Status { status: 429, .. })
}

#[async_trait]
impl Registry for Consul {
    fn url(&self) -> &str {
        self.client.url()
    }

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, registration: &Registration, claim: &Claim) -> Result<Token> {
        let _registering = self.registering.lock().await;
        self.client
            .at_an_agent(|agent| async move { self.register_at(&agent, registration, claim).await })
            .await
    }

    async fn heartbeat(&self, id: &ServiceId, token: &Token, _whose: Owner) -> Result<Token> {
        self.renew(id, token, Vitality::Healthy).await
    }

    fn can_suspend(&self) -> bool {
        true
    }

    async fn suspend(&self, id: &ServiceId, token: &Token, _whose: Owner, reason: &str) -> Result<Token> {
        self.renew(id, token, Vitality::Unhealthy(reason)).await
    }

    async fn deregister(&self, id: &ServiceId, whose: Owner) -> Result<()> {
        let _registering = self.registering.lock().await;
        let here = self.deregister_here(id, whose).await?;
        if let Owner::Instance(instance) = whose {
            let is_out = self.leave_others(&here.agent, id, instance).await;
            if !here.was_there && !is_out {
                return Err(self.client.unavailable(HttpCause::TimedOut(LAST_LOOK)));
            }
            self.placement.forget(id);
        }
        if here.was_there {
            return Ok(());
        }
        Err(match whose {
            Owner::Anyone => self.not_here(id).await,
            Owner::Instance(_) => self.client.not_found(Object::Service, id.as_str()),
        })
    }

    async fn rehearse(&self, registration: &Registration, claim: &Claim) -> Result<Rehearsal> {
        self.rehearsal(registration, claim).await
    }

    async fn update(&self, id: &ServiceId, update: &ServiceUpdate) -> Result<()> {
        let _registering = self.registering.lock().await;
        let is_here =
            self.client.at_an_agent(|agent| async move { self.update_at(&agent, id, update).await }).await?;
        if is_here { Ok(()) } else { Err(self.not_here(id).await) }
    }

    async fn service(&self, id: &ServiceId) -> Result<Service> {
        let here = match self.client.datacenter() {
            None => self.client.at_an_agent(|agent| async move { self.alive_at(&agent, id).await }).await?,
            Some(_) => None,
        };
        let registration = if here.is_some() { here } else { self.find(id).await? };
        let registration = registration.ok_or_else(|| self.client.not_found(Object::Service, id.as_str()))?;
        Ok(Service { registration, last_seen: None })
    }

    /// In the catalog, that is: the agent knows of its own deregistration before anybody else does.
    async fn shows(&self, registration: &Registration, instance: InstanceId) -> Result<bool> {
        let name = entry::name(registration);
        let client = &self.client;
        let found = client.at_an_agent(|agent| async move { client.named(&agent, name).await }).await?;
        let is_ours = |found: &Instance| {
            found.entry.id == registration.id.as_str()
                && found.entry.holder().is_some_and(|holder| holder.instance == instance)
        };
        if found.iter().any(|found| is_ours(found) && found.standing == Standing::Alive) {
            return Ok(true);
        }
        if client.token.is_given()
            && !client.at_an_agent(|agent| async move { client.sees_nodes(&agent).await }).await?
        {
            // Consul leaves out what a token may not read, and says nothing about it.
            let message = "the token may not read nodes".to_owned();
            return Err(client.unauthorized(HttpCause::Denied { status: 403, message }));
        }
        Ok(false)
    }

    async fn services(&self, query: &ServiceQuery) -> Result<Page<Service, ServiceId>> {
        let instances = self.instances(query.tag.as_ref().map(crate::model::Tag::as_str)).await?;
        let is_filtered = self.client.has_filtered();
        let hidden = if instances.is_empty() {
            self.doubt().await
        } else {
            is_filtered.then(|| format!("{} leaves out what this token may not read", self.url()))
        };
        *self.hidden.lock().unwrap_or_else(PoisonError::into_inner) = hidden;
        Ok(catalog::page(&instances, query))
    }

    fn caveat(&self) -> Option<Caveat> {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.client.passed_over().map(Caveat::Down).or(hidden.map(Caveat::Hidden))
    }

    fn events(&self) -> Result<&dyn EventLog> {
        Err(Error::Unsupported { operation: "the event log", kind: KIND, supported_by: super::KEEP_A_LOG })
    }

    async fn watch(&self) -> Result<Box<dyn Watch + '_>> {
        Ok(Box::new(Follower::new(self).await?))
    }

    fn configuration(&self) -> Result<&dyn ConfigurationStore> {
        Ok(self)
    }

    async fn clock(&self) -> Result<Option<Timestamp>> {
        Ok(self.client.call(&Ask::get("/v1/status/leader")).await?.date)
    }

    async fn renew_credentials(&self) -> Result<()> {
        self.client.token.forget().await;
        Ok(())
    }
}
