//! Server sets: what Finagle and Aurora write and read, and Prometheus reads.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Entry, json};
use crate::registry::zookeeper::operation::Lasting;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    service_endpoint: Address,
    additional_endpoints: BTreeMap<String, Address>,
    status: &'static str,
    shard: u32,
}

#[derive(Serialize)]
struct Address {
    host: String,
    port: u16,
}

pub(super) fn entry(base: &str, (host, port): (String, u16)) -> Entry {
    let member = Member {
        service_endpoint: Address { host, port },
        additional_endpoints: BTreeMap::new(),
        status: "ALIVE",
        shard: 0,
    };
    Entry {
        path: format!("{base}/member_"),
        data: json(&member),
        lasting: Lasting::Sequential,
        parents: Lasting::Persistent,
    }
}
