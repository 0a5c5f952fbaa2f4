//! When the troubles come: each is told as it begins and ends, and what is to be forgotten at a moment is.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::warn;

use super::spec::{Action, Schedule};
use super::{Chaos, Loaded, take_out};
use crate::message::chain;
use crate::model::{Limit, Marker, PageRequest, ServiceId};
use crate::registry::{self, ServiceQuery};
use crate::server::Server;
use crate::server::tenants::Tenant;

/// Starts a task for each rule that has its time. They end when the set is dropped.
pub(in crate::server) fn start(server: &Arc<Server>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..server.chaos.as_ref().map_or(0, |chaos| chaos.rules.len()) {
        let server = Arc::clone(server);
        tasks.spawn(async move {
            if let Some(chaos) = &server.chaos
                && let Some(schedule) = chaos.rules[number].rule.schedule
            {
                keep(&server, chaos, &chaos.rules[number], schedule).await;
            }
        });
    }
    tasks
}

/// Follows a rule's times.
async fn keep(server: &Server, chaos: &Chaos, loaded: &Loaded, schedule: Schedule) {
    let (mut next, rule) = (schedule.start, &loaded.rule);
    // What is too far away to be written as a time does not come.
    while let Some(start) = chaos.started.checked_add(next) {
        sleep_until(start).await;
        if rule.action == Action::Forget && schedule.is_moment() {
            let count = forget_all(server, loaded).await;
            warn!(chaos = %rule, count, "services are forgotten on purpose");
        } else {
            warn!(chaos = %rule, "the trouble on purpose begins");
        }
        if let Some(end) = schedule.length.and_then(|length| start.checked_add(length)) {
            sleep_until(end).await;
            warn!(chaos = %rule, "the trouble on purpose is over");
        }
        let Some(every) = schedule.every else { return };
        next = next.saturating_add(every);
    }
}

/// Takes all services out, or the share that is meant. Returns how many.
async fn forget_all(server: &Server, loaded: &Loaded) -> usize {
    let mut count = 0;
    for tenant in server.tenants().values() {
        match everybody(tenant).await {
            Ok(ids) => {
                for id in ids.iter().filter(|_| loaded.has_one_more()) {
                    count += usize::from(take_out(tenant, id, &server.metrics).await);
                }
            }
            Err(error) => warn!(tenant = %tenant.id, error = chain(&error), "cannot forget its services"),
        }
    }
    count
}

async fn everybody(tenant: &Tenant) -> registry::Result<Vec<ServiceId>> {
    let mut ids = Vec::new();
    let mut page = PageRequest { marker: None, limit: Limit::MAX };
    loop {
        let services = tenant.registry.services(&ServiceQuery { tag: None, page: page.clone() }).await?;
        ids.extend(services.values.into_iter().map(|service| service.registration.id));
        page.marker = services.next_marker.map(Marker::from);
        if page.marker.is_none() {
            return Ok(ids);
        }
    }
}
