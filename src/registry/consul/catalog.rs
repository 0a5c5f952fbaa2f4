//! The services of a datacenter.
//!
//! Those of our agent are told by itself: it knows of a change a moment before the catalog does. Those of all others are
//! in the catalog, which can be asked for the services of one node, or for those of one name, but not for all: we ask
//! for whichever is fewer, nodes or names.

use std::collections::BTreeMap;

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::IN_PATH;
use super::client::{Agent, Ask, Client};
use super::entry::Entry;
use super::health::{CheckStatus, Standing};
use crate::model::{Page, Registration, Service, ServiceId};
use crate::registry::{Error, Result, ServiceQuery};

/// A service somewhere in the datacenter.
#[derive(Debug)]
pub(super) struct Instance {
    /// Ids are unique on a node.
    pub(super) node: String,
    pub(super) entry: Entry,
    pub(super) standing: Standing,
}

/// Who an agent is.
#[derive(Debug, Clone)]
pub(super) struct Myself {
    node: String,
    /// None where we may not know.
    datacenter: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agents {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    datacenter: String,
    node_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
}

/// What is on one node.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OnNode {
    services: Option<BTreeMap<String, Entry>>,
}

/// One of those with the same name.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    node: Node,
    service: Entry,
    checks: Vec<CheckStatus>,
}

impl Client {
    /// Every service there is, alive or not; of those at other agents at least the ones with `tag`. The list may lag
    /// behind the other agents by as much as Consul's servers do.
    pub(super) async fn instances(&self, agent: &Agent, tag: Option<&str>) -> Result<Vec<Instance>> {
        let checks: BTreeMap<String, CheckStatus> =
            self.read_at(agent, &Ask::get("/v1/agent/checks")).await?;
        let myself = self.myself(agent, &checks).await?;
        let is_its_own = self.datacenter().is_none_or(|meant| {
            let own = myself.as_ref().and_then(|myself| myself.datacenter.as_deref());
            own.is_some_and(|own| own.eq_ignore_ascii_case(meant))
        });
        if !is_its_own {
            return self.elsewhere(agent, None, tag).await;
        }
        let node = myself.map(|myself| myself.node);
        let entries: BTreeMap<String, Entry> = self.read_at(agent, &Ask::get("/v1/agent/services")).await?;
        let mut all: Vec<_> = entries
            .into_values()
            .map(|entry| {
                let standing = Standing::of(&entry, checks.values().filter(|check| check.is_of(&entry.id)));
                Instance { node: node.clone().unwrap_or_default(), entry, standing }
            })
            .collect();
        let mut others = self.elsewhere(agent, node.as_deref(), tag).await?;
        if node.is_none() {
            // It is somewhere among them, and what it has is told already.
            others.retain(|other| !all.iter().any(|own| own.entry == other.entry));
        }
        all.extend(others);
        Ok(all)
    }

    /// What is in the catalog but for that of one node.
    async fn elsewhere(&self, agent: &Agent, but: Option<&str>, tag: Option<&str>) -> Result<Vec<Instance>> {
        let mut nodes: Vec<Node> = self.read_at(agent, &catalog("nodes")).await?;
        nodes.retain(|node| Some(node.node.as_str()) != but);
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let names: BTreeMap<String, Vec<String>> = self.read_at(agent, &catalog("services")).await?;
        let has_tag = |tags: &[String]| tag.is_none_or(|tag| tags.iter().any(|other| other == tag));
        let names: Vec<_> = names.iter().filter(|(_, tags)| has_tag(tags)).map(|(name, _)| name).collect();
        let mut all = if names.len() < nodes.len() {
            self.by_name(agent, &names).await?
        } else {
            self.by_node(agent, &nodes).await?
        };
        all.retain(|instance| Some(instance.node.as_str()) != but && !instance.entry.is_consul());
        Ok(all)
    }

    async fn by_name(&self, agent: &Agent, names: &[&String]) -> Result<Vec<Instance>> {
        let mut all = Vec::new();
        for name in names {
            all.extend(self.of_name(agent, name, "?stale=").await?);
        }
        Ok(all)
    }

    /// Those of one name, as the leader of Consul's servers has them: nobody shows less than a moment ago.
    pub(super) async fn named(&self, agent: &Agent, name: &str) -> Result<Vec<Instance>> {
        self.of_name(agent, name, "").await
    }

    /// Whether we may read any node, without which all names are empty.
    pub(super) async fn sees_nodes(&self, agent: &Agent) -> Result<bool> {
        let nodes: Vec<Node> = self.read_at(agent, &catalog("nodes")).await?;
        Ok(!nodes.is_empty())
    }

    async fn of_name(&self, agent: &Agent, name: &str, query: &str) -> Result<Vec<Instance>> {
        let path = format!("/v1/health/service/{}{query}", utf8_percent_encode(name, IN_PATH));
        let found: Vec<Named> = self.read_at(agent, &Ask::get(path).in_datacenter()).await?;
        Ok(found
            .into_iter()
            .map(|Named { node, service, checks }| Instance {
                node: node.node,
                standing: Standing::of(&service, &checks),
                entry: service,
            })
            .collect())
    }

    async fn by_node(&self, agent: &Agent, nodes: &[Node]) -> Result<Vec<Instance>> {
        let mut checks: Vec<CheckStatus> =
            self.read_at(agent, &Ask::get("/v1/health/state/any?stale=").in_datacenter()).await?;
        checks.sort();
        let mut all = Vec::new();
        for Node { node } in nodes {
            let ask = catalog(&format!("node/{}", utf8_percent_encode(node, IN_PATH)));
            // It may have gone since.
            let Some(found) = self.read_at::<Option<OnNode>>(agent, &ask).await? else { continue };
            let of_node = |id: &str| between(&checks, node, id);
            all.extend(found.services.unwrap_or_default().into_values().map(|entry| {
                let concerned = of_node(&entry.id).iter().chain(of_node(""));
                Instance { node: node.clone(), standing: Standing::of(&entry, concerned), entry }
            }));
        }
        Ok(all)
    }

    /// Who the agent is; none where it keeps that from us. Its checks may tell, too.
    async fn myself(&self, agent: &Agent, checks: &BTreeMap<String, CheckStatus>) -> Result<Option<Myself>> {
        if let Some(myself) = agent.myself.get() {
            return Ok(Some(myself.clone()));
        }
        let in_checks = checks.values().map(|check| check.node.clone()).find(|node| !node.is_empty());
        match self.read_at::<Agents>(agent, &Ask::get("/v1/agent/self")).await {
            Ok(Agents { config }) => {
                let myself = Myself { node: config.node_name, datacenter: Some(config.datacenter) };
                Ok(Some(agent.myself.get_or_init(|| async { myself }).await.clone()))
            }
            Err(Error::Unauthorized { .. }) => Ok(in_checks.map(|node| Myself { node, datacenter: None })),
            Err(error) => Err(error),
        }
    }
}

/// Any of Consul's servers may answer, without asking who leads them.
fn catalog(what: &str) -> Ask {
    Ask::get(format!("/v1/catalog/{what}?stale=")).in_datacenter()
}

/// Those of a service, of checks that are in order.
fn between<'a>(checks: &'a [CheckStatus], node: &str, id: &str) -> &'a [CheckStatus] {
    let start = checks.partition_point(|check| check.place() < (node, id));
    let end = checks.partition_point(|check| check.place() <= (node, id));
    &checks[start..end]
}

/// The part of those alive that is asked for. Ids may be there several times, on several nodes: all of one id are on the
/// same page, which may be longer for it.
pub(super) fn page(instances: &[Instance], query: &ServiceQuery) -> Page<Service, ServiceId> {
    let is_wanted = |registration: &Registration| {
        let marker = query.page.marker.as_ref();
        marker.is_none_or(|marker| registration.id.as_str() >= marker.as_str())
            && query.tag.as_ref().is_none_or(|wanted| registration.tags.iter().any(|tag| tag == wanted))
    };
    let alive = instances.iter().filter(|instance| instance.standing == Standing::Alive);
    let mut registrations: Vec<_> =
        alive.filter_map(|instance| instance.entry.registration()).filter(is_wanted).collect();
    // Those of our own agent, which are the first, stay before others of their id.
    registrations.sort_by(|one, other| one.id.cmp(&other.id));
    let mut end = query.page.limit.get().min(registrations.len());
    while end > 0 && registrations.get(end).is_some_and(|next| next.id == registrations[end - 1].id) {
        end += 1;
    }
    let next_marker = registrations.get(end).map(|next| next.id.clone());
    registrations.truncate(end);
    let values = registrations.into_iter().map(|registration| Service { registration, last_seen: None });
    Page { values: values.collect(), next_marker, stale_since: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Limit, Marker, PageRequest};

    fn instance(node: &str, id: &str) -> Instance {
        let entry =
            serde_json::from_value(json!({"ID": id, "Service": "s", "Meta": {"node": node}})).unwrap();
        Instance { node: node.to_owned(), entry, standing: Standing::Alive }
    }

    #[test]
    fn all_of_one_id_are_on_one_page() {
        let instances = [("n2", "bbb"), ("n1", "aaa"), ("n1", "bbb"), ("n3", "bbb"), ("n3", "ccc")];
        let instances: Vec<_> = instances.iter().map(|(node, id)| instance(node, id)).collect();
        let limit = Limit::new(2).unwrap();
        let ask = |marker: Option<Marker>| {
            let page = page(&instances, &ServiceQuery { tag: None, page: PageRequest { marker, limit } });
            let node = |service: &Service| service.registration.metadata.get("node").unwrap().to_owned();
            (page.values.iter().map(node).collect::<Vec<_>>(), page.next_marker)
        };
        let (first, next) = ask(None);
        assert_eq!(first, ["n1", "n2", "n1", "n3"]);
        assert_eq!(ask(next.map(Marker::from)), (vec!["n3".to_owned()], None));
    }

    #[test]
    fn checks_are_found_by_node_and_service() {
        let check = |node: &str, service: &str| CheckStatus {
            node: node.to_owned(),
            service_id: service.to_owned(),
            check_id: format!("{node} {service}"),
            status: "passing".to_owned(),
            is_told_unhealthy: false,
        };
        let mut checks =
            vec![check("n1", "b"), check("n2", ""), check("n1", "a"), check("n1", ""), check("n1", "b")];
        checks.sort();
        assert_eq!(between(&checks, "n1", "b").len(), 2);
        assert_eq!(between(&checks, "n2", "").len(), 1);
        assert!(between(&checks, "n2", "a").is_empty());
    }
}
