//! What those see who look services up: whether one that has left its registries is still on their lists.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::driver::Task;
use crate::message::chain;

/// How long after a look that found the service the next is made.
const PERIOD: Duration = Duration::from_millis(150);
/// Likewise after one that failed: more of them would not help a registry in trouble.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How long a registry has for its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A look at each registry of a service, again and again until it is not shown there any more. Dropped, it is over.
#[derive(Debug)]
pub struct View {
    since: Instant,
    places: Vec<Place>,
    looks: mpsc::Receiver<(usize, Sight)>,
    _looking: JoinSet<()>,
}

#[derive(Debug)]
struct Place {
    service: String,
    registry: String,
    sight: Sight,
}

/// What is known of a service at a registry.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// The first answer is outstanding.
    Unknown,
    /// It has never answered, because of this.
    Failed(String),
    Shown,
    Gone,
}

impl View {
    /// Starts looking, on the current runtime.
    #[must_use]
    pub fn new(tasks: &[Task]) -> Self {
        let (sender, looks) = mpsc::channel(1);
        let mut looking = JoinSet::new();
        for (number, task) in tasks.iter().enumerate() {
            looking.spawn(look(number, task.clone(), sender.clone()));
        }
        let place = |task: &Task| Place {
            service: task.registration.id.to_string(),
            registry: task.registry.url().to_owned(),
            sight: Sight::Unknown,
        };
        let places = tasks.iter().map(place).collect();
        Self { since: Instant::now(), places, looks, _looking: looking }
    }

    /// Returns when the service is shown nowhere any more, as far as registries answer; never, if none does. It can be
    /// dropped and called again.
    pub async fn unlisted(&mut self) {
        while !is_over(self.places.iter().map(|place| &place.sight)) {
            match self.looks.recv().await {
                Some((number, sight)) => self.saw(number, sight),
                // Only a runtime that is shutting down ends the looking.
                None => std::future::pending().await,
            }
        }
    }

    fn saw(&mut self, number: usize, sight: Sight) {
        let Some(place) = self.places.get_mut(number) else { return };
        match (&place.sight, &sight) {
            // That it does not answer now does not make it forget.
            (Sight::Shown, Sight::Failed(_)) => return,
            (_, Sight::Gone) => {
                let Place { service, registry, .. } = place;
                info!(%service, registry, took = ?self.since.elapsed(), "not listed any more");
            }
            _ => {}
        }
        place.sight = sight;
    }

    /// Says where the service may still be listed, now that nobody waits any longer.
    pub fn tell_the_rest(&self) {
        let took = self.since.elapsed();
        for Place { service, registry, sight } in &self.places {
            match sight {
                Sight::Gone => {}
                Sight::Shown => warn!(%service, registry, ?took, "still listed"),
                Sight::Unknown => warn!(%service, registry, ?took, "cannot see whether it is still listed"),
                Sight::Failed(error) => {
                    warn!(%service, registry, ?took, error, "cannot see whether it is still listed");
                }
            }
        }
    }
}

/// Whether it is shown nowhere: of those that answer, of which there has to be one.
fn is_over<'a>(sights: impl Iterator<Item = &'a Sight> + Clone) -> bool {
    sights.clone().any(|sight| *sight == Sight::Gone)
        && sights.into_iter().all(|sight| matches!(sight, Sight::Gone | Sight::Failed(_)))
}

async fn look(number: usize, task: Task, sights: mpsc::Sender<(usize, Sight)>) {
    loop {
        let answer = timeout(PATIENCE, task.registry.shows(&task.registration, task.instance)).await;
        let (sight, pause) = match answer {
            Ok(Ok(false)) => (Sight::Gone, None),
            Ok(Ok(true)) => (Sight::Shown, Some(PERIOD)),
            Ok(Err(error)) => (Sight::Failed(chain(&error)), Some(AFTER_FAILURE)),
            Err(_) => (Sight::Failed(format!("no answer within {PATIENCE:?}")), Some(PERIOD)),
        };
        let is_heard = sights.send((number, sight)).await.is_ok();
        let Some(pause) = pause.filter(|_| is_heard) else { return };
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_nobody_who_answers_shows_it() {
        let failed = || Sight::Failed("down".to_owned());
        for (sights, expected) in [
            (vec![Sight::Gone], true),
            (vec![Sight::Shown], false),
            (vec![Sight::Unknown], false),
            (vec![failed()], false),
            (vec![failed(), Sight::Gone], true),
            (vec![Sight::Unknown, Sight::Gone], false),
            (vec![Sight::Shown, Sight::Gone], false),
            (vec![Sight::Gone, Sight::Gone], true),
        ] {
            assert_eq!(is_over(sights.iter()), expected, "{sights:?}");
        }
    }
}
