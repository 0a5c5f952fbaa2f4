//! How a command has ended, in the entry that it leaves to expire: for whoever wonders why it is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::ending::Ending;
use super::signal_number::SignalNumber;
use crate::message::chain;
use crate::model::{Metadata, ServiceId, ServiceUpdate, Timestamp};
use crate::registry::{Error, Registry, Result};

/// How long it may hold up our end.
pub(super) const BUDGET: Duration = Duration::from_millis(250);

/// What is being written. It does not end before all is.
pub(super) type Writing = Pin<Box<dyn Future<Output = ()>>>;

/// Writes into the entries how their command, begun at `began`, has ended just now.
pub(super) fn write(
    ending: Ending,
    began: Instant,
    entries: impl IntoIterator<Item = (Arc<dyn Registry>, ServiceId)>,
) -> Writing {
    let inscription = inscription(ending, began.elapsed(), Timestamp::now());
    let mut work = JoinSet::new();
    for (registry, service) in entries {
        let inscription = inscription.clone();
        work.spawn(async move {
            match engrave(&*registry, &service, inscription).await {
                Ok(()) => debug!(%service, registry = registry.url(), "left word of the end"),
                // Somebody has taken it out, which is an end as well.
                Err(Error::NotFound { .. }) => {}
                Err(error) => warn!(%service, registry = registry.url(), error = chain(&error),
                    "cannot leave word of how the command has ended"),
            }
        });
    }
    Box::pin(async move { while work.join_next().await.is_some() {} })
}

/// What others have changed since the registration stays.
async fn engrave(registry: &dyn Registry, service: &ServiceId, inscription: Vec<Pair>) -> Result<()> {
    let before = registry.service(service).await?.registration.metadata;
    let metadata = Some(with(&before, &inscription));
    registry.update(service, &ServiceUpdate { metadata, ..ServiceUpdate::default() }).await
}

type Pair = (String, String);

/// What is to be known of an end, the most important first.
fn inscription(ending: Ending, uptime: Duration, at: Timestamp) -> Vec<Pair> {
    let (key, value) = match ending {
        Ending::Code(code) => ("exit_status", code.to_string()),
        Ending::Signal(number) => ("signal", signal_name(number)),
    };
    let seconds = Duration::from_secs(uptime.as_secs());
    let uptime =
        if seconds.is_zero() { Duration::from_millis(uptime.subsec_millis().into()) } else { seconds };
    let uptime = humantime::format_duration(uptime).to_string();
    let pairs = [(key, value), ("ended_at", at.to_string()), ("uptime", uptime)];
    pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

fn signal_name(number: i32) -> String {
    let signal = SignalNumber::new(number).map(|signal| signal.to_string());
    let name = signal.as_deref().map(|name| name.strip_prefix("SIG").unwrap_or(name));
    name.map_or_else(|| number.to_string(), str::to_owned)
}

/// As many of the pairs as there is room for: none of a service's own makes way.
fn with(before: &Metadata, inscription: &[Pair]) -> Metadata {
    let own = || before.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    (0..=inscription.len())
        .rev()
        .find_map(|count| Metadata::new(own().chain(inscription[..count].iter().cloned())).ok())
        .unwrap_or_else(|| before.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(count: usize) -> Metadata {
        Metadata::new((0..count).map(|number| (format!("k{number:02}"), "v".to_owned()))).unwrap()
    }

    fn shown(ending: Ending, uptime: Duration) -> Vec<String> {
        let pairs = inscription(ending, uptime, Timestamp::from_millis(1_500));
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn an_end_is_told_in_three_pairs() {
        let ended_at = "ended_at=1970-01-01T00:00:01.500Z";
        assert_eq!(
            shown(Ending::Code(7), Duration::from_millis(182_900)),
            ["exit_status=7", ended_at, "uptime=3m 2s"]
        );
        assert_eq!(
            shown(Ending::Signal(libc::SIGSEGV), Duration::from_micros(250_700)),
            ["signal=SEGV", ended_at, "uptime=250ms"]
        );
        let real_time = shown(Ending::Signal(libc::SIGRTMIN() + 3), Duration::ZERO);
        assert_eq!(real_time, ["signal=RTMIN+3", ended_at, "uptime=0s"]);
    }

    #[test]
    fn what_the_service_said_of_itself_stays() {
        let end = || inscription(Ending::Code(1), Duration::ZERO, Timestamp::now());
        for (count, expected) in [(0, 3), (17, 20), (18, 20), (19, 20), (20, 20)] {
            let after = with(&metadata(count), &end());
            assert_eq!(after.iter().count(), expected, "{count}");
            assert!(metadata(count).iter().all(|(key, value)| after.get(key) == Some(value)));
            assert_eq!(after.get("exit_status").is_some(), count < 20);
        }
    }
}
