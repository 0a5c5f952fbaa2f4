//! Lives the life of a service, quickly.

use std::time::Duration;

use tokio::time::Instant;

use super::{Check, shown};
use crate::message::chain;
use crate::model::{HeartbeatTimeout, InstanceId, Metadata, Registration, ServiceId, Tags, Token};
use crate::registry::{Claim, Error, IfTaken, Owner, Recourse, Registry, Result};

const HEARTBEATS: usize = 5;

/// Whether we may register, and how fast heartbeats are. The service is gone afterwards.
pub(super) async fn examine(registry: &dyn Registry, interval: HeartbeatTimeout) -> (Check, Check) {
    let instance = InstanceId::unique();
    let registration = registration(instance, interval);
    let holder = format!("raxsr doctor, pid {}", std::process::id());
    let claim = Claim { instance, holder, if_taken: IfTaken::Refuse };
    let (id, whose) = (&registration.id, Owner::Instance(instance));
    let token = match registry.register(&registration, &claim).await {
        Ok(token) => token,
        Err(error) => {
            // It may have taken effect all the same.
            if error.recourse() == Recourse::Retry {
                let _ = registry.deregister(id, whose).await;
            }
            return refused(&error);
        }
    };
    let times = heartbeats(registry, id, token, whose).await;
    let left = registry.deregister(id, whose).await;
    (writable(id, interval, left), heartbeat(times, interval))
}

fn refused(error: &Error) -> (Check, Check) {
    const REMEDY: &str = "ask its operator whether this user may register services";
    (Check::fail("writable", error, REMEDY), Check::skip("heartbeat", "writable"))
}

/// One whose id is as good as unique: the instance is.
fn registration(instance: InstanceId, heartbeat_timeout: HeartbeatTimeout) -> Registration {
    let digits: String = instance.to_string().chars().take(8).collect();
    Registration {
        id: ServiceId::for_command("raxsr", &format!("doctor-{digits}")),
        heartbeat_timeout,
        tags: Tags::default(),
        metadata: Metadata::default(),
    }
}

async fn heartbeats(
    registry: &dyn Registry,
    id: &ServiceId,
    mut token: Token,
    whose: Owner,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..HEARTBEATS {
        let sent = Instant::now();
        token = registry.heartbeat(id, &token, whose).await?;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn writable(id: &ServiceId, interval: HeartbeatTimeout, left: Result<()>) -> Check {
    match left {
        Ok(()) => Check::ok("writable", format!("registered `{id}` and took it out again")),
        Err(error) => {
            let span = humantime::format_duration(interval.as_duration());
            let remedy = format!("remove it with `raxsr services remove {id}`, or wait {span}");
            let found = format!("registered `{id}`, but cannot take it out: {}", chain(&error));
            Check { found, remedy: Some(remedy), ..Check::fail("writable", &error, "") }
        }
    }
}

fn heartbeat(times: Result<Vec<Duration>>, interval: HeartbeatTimeout) -> Check {
    const FAILED: &str = "see the registry's own log: services registered there will be lost";
    const SLOW: &str = "choose a longer --interval, or see what slows the registry or the way to it down";
    let times = match times {
        Ok(times) => times,
        Err(error) => return Check::fail("heartbeat", &error, FAILED),
    };
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let found = format!("{HEARTBEATS} sent: median {}, slowest {}", shown(median), shown(slowest));
    if slowest > interval.as_duration() / 6 {
        Check::warn("heartbeat", found, SLOW)
    } else {
        Check::ok("heartbeat", found)
    }
}
