//! How a service fares: what its checks come to.

use serde::{Deserialize, Deserializer};

use super::entry::{Entry, check_id, token};

const PASSING: &str = "passing";
pub(super) const CRITICAL: &str = "critical";
/// What our check says of a service that is not healthy begins with this. When the heartbeats end, Consul says something else.
const UNHEALTHY: &str = "unhealthy: ";
const NODE_MAINTENANCE: &str = "_node_maintenance";
const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// A check, as an agent or the catalog tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckStatus {
    #[serde(default)]
    pub(super) node: String,
    #[serde(rename = "ServiceID", default)]
    pub(super) service_id: String,
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    pub(super) status: String,
    /// Whether its heartbeats have it fail.
    #[serde(rename = "Output", default, deserialize_with = "is_of_unhealthy")]
    pub(super) is_told_unhealthy: bool,
}

fn is_of_unhealthy<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let output: Option<String> = Option::deserialize(from)?;
    Ok(output.is_some_and(|output| output.starts_with(UNHEALTHY)))
}

/// What our check says of a service that is not healthy.
pub(super) fn output(reason: &str) -> String {
    format!("{UNHEALTHY}{reason}")
}

impl CheckStatus {
    /// Whether it concerns this service: that of its whole node concerns all that is there.
    pub(super) fn is_of(&self, id: &str) -> bool {
        self.service_id == id || self.service_id.is_empty()
    }

    /// What it is about: a node, and a service there or all of it.
    pub(super) fn place(&self) -> (&str, &str) {
        (&self.node, &self.service_id)
    }

    /// Whether it hides one service.
    pub(super) fn is_of_service_maintenance(&self) -> bool {
        self.check_id.starts_with(SERVICE_MAINTENANCE)
    }

    fn is_maintenance(&self) -> bool {
        self.check_id == NODE_MAINTENANCE || self.is_of_service_maintenance()
    }
}

/// Whether consumers get to see a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Alive,
    /// Somebody hides it, for as long as they work on it.
    Maintenance,
    Dead,
}

impl Standing {
    /// What `checks`, those of this service and of its node, come to.
    pub(super) fn of<'a>(entry: &Entry, checks: impl IntoIterator<Item = &'a CheckStatus>) -> Self {
        let own = own_check(entry);
        let (mut is_passing, mut is_maintained, mut has_own) = (true, false, false);
        for check in checks {
            is_passing &= check.status == PASSING;
            is_maintained |= check.is_maintenance();
            has_own |= Some(&check.check_id) == own.as_ref();
        }
        // One of ours without its check has just been taken out; Consul counts any other as alive.
        match (is_maintained, is_passing && (has_own || own.is_none())) {
            (true, _) => Self::Maintenance,
            (false, true) => Self::Alive,
            (false, false) => Self::Dead,
        }
    }
}

/// Whether whoever registered this is there: also where nobody gets to see it.
pub(super) fn is_held<'a>(entry: &Entry, checks: impl IntoIterator<Item = &'a CheckStatus>) -> bool {
    // What is wrong with its node says nothing about it.
    let mut checks =
        checks.into_iter().filter(|check| check.service_id == entry.id && !check.is_maintenance());
    match own_check(entry) {
        Some(own) => {
            checks.any(|check| check.check_id == own && (check.status == PASSING || check.is_told_unhealthy))
        }
        None => checks.all(|check| check.status != CRITICAL),
    }
}

/// The check that heartbeats keep passing; none where another program registered the service.
fn own_check(entry: &Entry) -> Option<String> {
    let holder = entry.holder()?;
    let id = entry.id.parse().ok()?;
    Some(check_id(&id, &token(holder.instance)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INSTANCE: &str = "0d5a9a6f-5b8f-4a52-9c3c-0d5a9a6f0002";

    fn checks(checks: &[(&str, &str)]) -> Vec<CheckStatus> {
        let check = |&(id, status): &(&str, &str)| CheckStatus {
            node: "n1".to_owned(),
            service_id: "web1".to_owned(),
            check_id: id.replace("OWN", &format!("service:web1:{INSTANCE}")),
            status: status.trim_start_matches("told ").to_owned(),
            is_told_unhealthy: status.starts_with("told "),
        };
        checks.iter().map(check).collect()
    }

    #[test]
    fn consumers_see_what_passes_every_check_and_nobody_works_on() {
        let ours: Entry =
            serde_json::from_value(json!({"ID": "web1", "Meta": {"srw_instance": INSTANCE}})).unwrap();
        let theirs: Entry = serde_json::from_value(json!({"ID": "web1"})).unwrap();
        for (told, ours_stands, ours_is_held, theirs_stands, theirs_is_held) in [
            (&[("OWN", "passing")][..], Standing::Alive, true, Standing::Alive, true),
            (&[("OWN", "told critical")], Standing::Dead, true, Standing::Dead, false),
            (&[("OWN", "critical")], Standing::Dead, false, Standing::Dead, false),
            (&[("OWN", "passing"), ("x", "warning")], Standing::Dead, true, Standing::Dead, true),
            (
                &[("OWN", "passing"), ("_service_maintenance:web1", "critical")],
                Standing::Maintenance,
                true,
                Standing::Maintenance,
                true,
            ),
            (
                &[("_node_maintenance", "critical"), ("OWN", "critical")],
                Standing::Maintenance,
                false,
                Standing::Maintenance,
                false,
            ),
            (&[], Standing::Dead, false, Standing::Alive, true),
        ] {
            let told = checks(told);
            assert_eq!(
                (Standing::of(&ours, &told), is_held(&ours, &told)),
                (ours_stands, ours_is_held),
                "{told:?}"
            );
            let found = (Standing::of(&theirs, &told), is_held(&theirs, &told));
            assert_eq!(found, (theirs_stands, theirs_is_held), "{told:?}");
        }
    }
}
