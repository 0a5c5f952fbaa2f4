//! Prometheus itself finds what is registered, and scrapes it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Api, open};
use crate::support::server::{Connection, Request};
use crate::support::{Running, is_there, wait_for};

#[test]
fn prometheus_scrapes_what_is_registered() {
    if !is_there("prometheus", "service discovery by Prometheus") {
        return;
    }
    let (server, api) = open();
    register_itself(&api, server.address());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configuration = format!(
        "scrape_configs:
  - job_name: wrapped
    scrape_interval: 1s
    http_sd_configs:
      - url: {}/http_sd?tag=scrape
        refresh_interval: 1s
    relabel_configs:
      - source_labels: [__meta_service_registry_id]
        target_label: service
      - source_labels: [__meta_service_registry_tags]
        regex: '.*,blue,.*'
        action: keep
",
        server.url()
    );
    let file = server.place.path().join("prometheus.yml");
    fs::write(&file, configuration).unwrap();
    let mut command = server.place.program("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", server.place.path().join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _prometheus = Running::start(&mut command);
    let target = wait_for("a scraped target", || up(address));
    assert_eq!(
        target["labels"],
        json!({"instance": server.address().to_string(), "job": "wrapped", "service": "itself"})
    );
    let discovered = &target["discoveredLabels"];
    assert_eq!(discovered["__meta_service_registry_metadata_zone_1"], "a", "{discovered}");
}

/// The server is a service, too, with metrics.
fn register_itself(api: &Api, address: SocketAddr) {
    let metadata =
        json!({"host": address.ip().to_string(), "port": address.port().to_string(), "zone-1": "a"});
    let service =
        json!({"id": "itself", "heartbeat_timeout": 120, "tags": ["blue", "scrape"], "metadata": metadata});
    api.post("/services", &service).is(201);
    api.create("elsewhere", 120);
}

/// The one target, once it has been scraped.
fn up(prometheus: SocketAddr) -> Option<Value> {
    let mut connection = Connection::try_open(prometheus).ok()?;
    let answer = connection.try_exchange(&Request::new("GET", "/api/v1/targets")).ok()?;
    let json: Value = serde_json::from_slice(&answer.body).ok()?;
    let targets = json["data"]["activeTargets"].as_array()?;
    targets.iter().find(|target| target["health"] == "up").cloned()
}
