//! The registries of a server, one for each tenant: what one of them holds, no other can come upon.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::accounts::{AccountLimits, TenantId};
use crate::registry::{self, Limits, Registry};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) limits: AccountLimits,
    usage: Mutex<Usage>,
}

pub(super) type Tenants = BTreeMap<TenantId, Arc<Tenant>>;

/// How many requests there were since when.
struct Usage {
    since: Instant,
    requests: u64,
}

/// What is left of a day's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) limit: u64,
    pub(super) used: u64,
}

impl Rate {
    /// What is told where there is no limit: the largest whole number that every JSON reader keeps.
    pub(super) const AS_MANY_AS_YOU_LIKE: u64 = (1 << 53) - 1;
}

impl Tenant {
    pub(super) fn new(id: TenantId, registry: Arc<dyn Registry>, limits: AccountLimits) -> Self {
        let usage = Mutex::new(Usage { since: Instant::now(), requests: 0 });
        Self { id, registry, limits, usage }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long it takes until there may be another one, when there were too many.
    pub(super) fn count_request(&self) -> Result<Rate, Duration> {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = usage.since.elapsed();
        if passed >= DAY {
            *usage = Usage { since: Instant::now(), requests: 0 };
        }
        let limit = self.limits.requests_per_day.unwrap_or(Rate::AS_MANY_AS_YOU_LIKE);
        if usage.requests >= limit {
            return Err(DAY.saturating_sub(passed));
        }
        usage.requests += 1;
        Ok(Rate { limit, used: usage.requests })
    }
}

/// Opens the registry of each tenant that has none yet, and keeps those of the others. Blocks.
///
/// # Errors
/// When one cannot be opened.
pub(super) fn open(
    known: &Tenants,
    wanted: &BTreeMap<TenantId, AccountLimits>,
    open: impl Fn(&TenantId, Limits) -> registry::Result<Arc<dyn Registry>>,
) -> registry::Result<Tenants> {
    let mut tenants = Tenants::new();
    for (id, limits) in wanted {
        let tenant = match known.get(id) {
            Some(tenant) if tenant.limits == *limits => Arc::clone(tenant),
            Some(tenant) => {
                tenant.registry.set_limits(limits.resources);
                Arc::new(Tenant::new(id.clone(), Arc::clone(&tenant.registry), *limits))
            }
            None => {
                let registry = open(id, limits.resources)?;
                Arc::new(Tenant::new(id.clone(), registry, *limits))
            }
        };
        tenants.insert(id.clone(), tenant);
    }
    Ok(tenants)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Access, RegistryUrl, connect};

    #[tokio::test(start_paused = true)]
    async fn a_days_requests_are_used_up_and_come_back() {
        let url: RegistryUrl = "sqlite:///nowhere/registry.db".parse().unwrap();
        let limits = AccountLimits { resources: Limits::default(), requests_per_day: Some(2) };
        let tenant = Tenant::new(TenantId::open(), connect(&url, &Access::default()), limits);
        assert_eq!(tenant.count_request(), Ok(Rate { limit: 2, used: 1 }));
        assert_eq!(tenant.count_request(), Ok(Rate { limit: 2, used: 2 }));
        tokio::time::advance(DAY / 4).await;
        assert_eq!(tenant.count_request(), Err(DAY * 3 / 4));
        tokio::time::advance(DAY).await;
        assert_eq!(tenant.count_request(), Ok(Rate { limit: 2, used: 1 }));
    }
}
