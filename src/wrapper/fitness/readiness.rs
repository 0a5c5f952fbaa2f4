//! Waits until each condition has held once.

use std::time::Duration;

use tokio::sync::watch as latest;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Condition, Known};
use crate::wrapper::descriptor::Line;
use crate::wrapper::probe::{Probe, Reason, Surroundings};

/// How long a look may take that has no other limit.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The first pause between two looks, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// Pauses that grow, and are long against the looks between them: one that costs much is made seldom.
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: PAUSES[0] }
    }

    /// The next, after a look that took `cost`.
    pub(super) fn after(&mut self, cost: Duration) -> Duration {
        let pause = self.next.max((cost * 10).min(PAUSES[1]));
        self.next = self.next.mul_f64(1.5).min(PAUSES[1]);
        pause
    }
}

pub(super) struct Readiness {
    pub(super) conditions: Vec<Condition>,
    pub(super) surroundings: Surroundings,
    pub(super) line: Option<Line>,
    pub(super) known: latest::Receiver<Known>,
    pub(super) started_at: Instant,
    /// What it waits for, and why that does not hold.
    pub(super) missing: latest::Sender<String>,
}

impl Readiness {
    /// Returns when all have held.
    pub(super) async fn wait(mut self) {
        for condition in std::mem::take(&mut self.conditions) {
            let text = condition.to_string();
            self.missing.send_replace(text.clone());
            match condition {
                Condition::Started => {}
                Condition::After(span) => sleep_until(self.started_at + span).await,
                Condition::Notify => {
                    self.missing.send_replace("it has not said READY=1 to its NOTIFY_SOCKET".to_owned());
                    if self.known.wait_for(|known| known.has_said_ready).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Condition::Descriptor(number) => {
                    let nothing = format!("it has not written a line to descriptor {number}");
                    self.missing.send_replace(nothing.clone());
                    let has_written = match self.line.take() {
                        Some(line) => line.wait().await.is_ok(),
                        None => false,
                    };
                    if !has_written {
                        self.missing.send_replace(format!("{nothing}, and closed it"));
                        std::future::pending::<()>().await;
                    }
                }
                Condition::Looks(target) => {
                    let mut probe = Probe::new(&target, &self.surroundings);
                    let mut pauses = Pauses::new();
                    loop {
                        let start = Instant::now();
                        let Err(reason) = within(LONGEST_LOOK, &mut probe).await else { break };
                        self.missing.send_replace(format!("{text}: {reason}"));
                        sleep(pauses.after(start.elapsed())).await;
                    }
                }
            }
        }
    }
}

/// A look that is cut off after `limit`.
pub(super) async fn within(limit: Duration, probe: &mut Probe) -> Result<(), Reason> {
    match timeout(limit, probe.look()).await {
        Ok(seen) => seen,
        Err(_) => Err(Reason::new(format!("no answer within {}", humantime::format_duration(limit)))),
    }
}
