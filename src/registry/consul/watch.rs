//! What happens in a datacenter: told by how its services change, which Consul's servers say when there is something new.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Consul;
use super::catalog::Instance;
use super::client::Ask;
use super::health::Standing;
use crate::model::{Event, Registration};
use crate::registry::Result;
use crate::registry::watch::{Left, Listed, Recorder, Seen, Watch};

/// How long Consul waits for news. A service that another program registered without any check is no news to it: it is
/// noticed when the wait is over.
const WAIT: Duration = Duration::from_secs(30);
/// Consul adds up to a sixteenth to it.
const PATIENCE: Duration = Duration::from_secs(40);
/// The shortest time between two looks: of a large datacenter there is news all the time.
const PAUSE: Duration = Duration::from_millis(500);

/// A look at the datacenter whenever something is new there.
pub(super) struct Follower<'a> {
    consul: &'a Consul,
    /// By node: ids are unique there.
    seen: BTreeMap<String, Seen>,
    /// Up to where Consul's own count has got.
    index: u64,
    looked_at: Instant,
    recorder: Recorder,
}

impl<'a> Follower<'a> {
    /// From now on.
    pub(super) async fn new(consul: &'a Consul) -> Result<Self> {
        let (seen, recorder) = (BTreeMap::new(), Recorder::default());
        let mut follower = Self { consul, seen, index: 0, looked_at: Instant::now(), recorder };
        // Whatever is there was there before.
        follower.look(&consul.instances(None).await?);
        Ok(follower)
    }

    fn look(&mut self, instances: &[Instance]) -> Vec<Event> {
        let is_first = self.seen.is_empty();
        let mut nodes: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for instance in instances {
            nodes.entry(&instance.node).or_default().push(instance);
        }
        let mut bodies = Vec::new();
        for (node, seen) in &mut self.seen {
            if !nodes.contains_key(node.as_str()) {
                bodies.extend(seen.look([], |_| Left::Removed));
            }
        }
        for (node, instances) in nodes {
            let seen = self.seen.entry(node.to_owned()).or_insert_with(|| {
                let mut seen = Seen::default();
                if !is_first {
                    seen.look([], |_| Left::Removed);
                }
                seen
            });
            bodies.extend(seen.look(instances.iter().filter_map(|instance| listed(instance)), |gone| {
                how(&instances, gone)
            }));
        }
        // So that the next look is not the first.
        self.seen.entry(String::new()).or_default().look([], |_| Left::Removed);
        self.looked_at = Instant::now();
        bodies.into_iter().map(|body| self.recorder.record(body)).collect()
    }

    /// Returns when there may be news, with Consul's count.
    async fn news(&self) -> Result<u64> {
        let (index, wait) = (self.index, WAIT.as_secs());
        let path = format!("/v1/health/state/any?stale=&index={index}&wait={wait}s");
        let answer = self.consul.client.wait_for(&Ask::get(path).in_datacenter().patient(PATIENCE)).await?;
        let next = answer.header("x-consul-index").and_then(|index| index.parse().ok()).unwrap_or_default();
        // Consul's servers were made anew, and count from the beginning.
        Ok(if next < self.index { 0 } else { next })
    }
}

#[async_trait]
impl Watch for Follower<'_> {
    async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            tokio::time::sleep_until(self.looked_at + PAUSE).await;
            // After an outage, its count may be anything.
            let index = self.news().await.inspect_err(|_| self.index = 0)?;
            let instances = self.consul.instances(None).await?;
            // Dropped until here, nothing of it has been noted.
            let events = self.look(&instances);
            self.index = index;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn listed(instance: &Instance) -> Option<Listed> {
    let is_alive = instance.standing == Standing::Alive;
    let registration = instance.entry.registration().filter(|_| is_alive)?;
    Some(Listed { registration, instance: instance.entry.holder().map(|holder| holder.instance) })
}

/// How one that is not listed any more left: it has fallen silent only where it is there, and dead.
fn how(instances: &[&Instance], gone: &Registration) -> Left {
    let is_dead =
        |instance: &&Instance| instance.entry.id == gone.id.as_str() && instance.standing == Standing::Dead;
    if instances.iter().any(is_dead) { Left::Expired } else { Left::Removed }
}
