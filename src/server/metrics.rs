//! What Prometheus can read of the server itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request::split_tenant;
use super::tenants::Tenants;

/// In seconds: from what a heartbeat takes to what no client waits for.
const BUCKETS: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    Services,
    Heartbeats,
    Configuration,
    Events,
    Limits,
    Tokens,
    Other,
}

impl Resource {
    pub(super) fn of(path: &str) -> Self {
        let (_, path) = split_tenant(path);
        match path.split('/').nth(1).unwrap_or_default() {
            "services" if path.ends_with("/heartbeat") => Self::Heartbeats,
            "services" => Self::Services,
            "configuration" => Self::Configuration,
            "events" => Self::Events,
            "limits" => Self::Limits,
            "v2.0" => Self::Tokens,
            _ => Self::Other,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Heartbeats => "heartbeats",
            Self::Configuration => "configuration",
            Self::Events => "events",
            Self::Limits => "limits",
            Self::Tokens => "tokens",
            Self::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    resource: &'static str,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct About {
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTenant {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trouble {
    kind: &'static str,
}

pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    latency: Family<About, Histogram, fn() -> Histogram>,
    heartbeats: Family<Outcome, Counter>,
    logins: Family<Outcome, Counter>,
    services: Family<OfTenant, Gauge<u64, AtomicU64>>,
    timeouts: Family<OfTenant, Counter>,
    chaos: Family<Trouble, Counter>,
    /// Held by whoever fills in what is told of each tenant.
    telling: Mutex<()>,
    /// Connections that are open.
    pub(super) connections: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("service_registry");
        let latency = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let metrics = Self {
            requests: Family::default(),
            heartbeats: Family::default(),
            logins: Family::default(),
            services: Family::default(),
            timeouts: Family::default(),
            chaos: Family::default(),
            telling: Mutex::default(),
            connections: Gauge::default(),
            latency,
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from the head of a request to its answer",
            metrics.latency.clone(),
        );
        registry.register("heartbeats", "Heartbeats, by what became of them", metrics.heartbeats.clone());
        registry.register("logins", "Logins, by what became of them", metrics.logins.clone());
        registry.register("services", "Services alive", metrics.services.clone());
        registry.register(
            "timeouts",
            "Services that died of silence since the server started",
            metrics.timeouts.clone(),
        );
        registry.register("chaos", "What went wrong on purpose, by kind", metrics.chaos.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        Self { registry, ..metrics }
    }

    pub(super) fn answered(&self, resource: Resource, method: &Method, status: StatusCode, took: Duration) {
        // Whoever makes methods up makes no series.
        let method = match *method {
            Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD => method.to_string(),
            _ => "other".to_owned(),
        };
        let outcome = if status.is_success() { "accepted" } else { "refused" };
        match resource {
            Resource::Heartbeats => drop(self.heartbeats.get_or_create(&Outcome { outcome }).inc()),
            Resource::Tokens => drop(self.logins.get_or_create(&Outcome { outcome }).inc()),
            _ => {}
        }
        let resource = resource.as_str();
        self.requests.get_or_create(&Answered { resource, method, status: status.as_u16() }).inc();
        self.latency.get_or_create(&About { resource }).observe(took.as_secs_f64());
    }

    /// Something went wrong on purpose.
    pub(super) fn troubled(&self, kind: &'static str) {
        self.chaos.get_or_create(&Trouble { kind }).inc();
    }

    /// Everything, in Prometheus' text format.
    pub(super) fn text(&self, tenants: &Tenants) -> String {
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is told of those who are served no more.
        self.services.clear();
        self.timeouts.clear();
        for tenant in tenants.values() {
            if let Some(statistics) = tenant.registry.statistics() {
                let label = OfTenant { tenant: tenant.id.to_string() };
                self.services.get_or_create(&label).set(statistics.services);
                self.timeouts.get_or_create(&label).inner().store(statistics.timeouts, Ordering::Relaxed);
            }
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
