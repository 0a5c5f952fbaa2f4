//! Programs that read what wrappers write, in the layout that they know.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use serde_json::{Value, json};

use service_registry_wrapper::model::{InstanceId, ServiceUpdate};
use service_registry_wrapper::registry::{Error, Owner, ServiceQuery};

use super::{ENTRY, at, claim, registration, wrapper};
use crate::support::server::{Connection, Request};
use crate::support::zookeeper::Zookeeper;
use crate::support::{Place, Running, is_there, wait_for, wait_until};

#[test]
fn prometheus_finds_what_is_written_for_nerve_and_for_server_sets() {
    let test = "prometheus_finds_what_is_written_for_nerve_and_for_server_sets";
    if !is_there("prometheus", test) {
        return;
    }
    let Some(zookeeper) = Zookeeper::start(test) else { return };
    let place = Place::new();
    let layouts = [("nerve", "/nerve/shop", "10.0.0.1"), ("serverset", "/sets/shop", "10.0.0.2")];
    let wrappers = layouts.map(|(layout, path, host)| {
        let url = format!("zookeeper://{}/?layout={layout}&path={path}", zookeeper.address());
        let (id, address) = (format!("--id={layout}"), format!("--address={host}"));
        let options = ["--registry", &url, &id, "--interval=3", &address, "--port=8080"];
        place.wrapper(&options).start(&["sleep", "600"])
    });
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _prometheus = prometheus(&place, &zookeeper, address);
    let found = || {
        let mut found = targets(address)?;
        found.sort();
        Some(found)
    };
    wait_until("both targets", || {
        found().as_deref() == Some(&["10.0.0.1:8080".to_owned(), "10.0.0.2:8080".to_owned()])
    });
    drop(wrappers);
    wait_until("no target", || found().is_some_and(|found| found.is_empty()));
}

fn prometheus(place: &Place, zookeeper: &Zookeeper, address: SocketAddr) -> Running {
    let server = zookeeper.address();
    let configuration = format!(
        "scrape_configs:
  - job_name: wrapped
    nerve_sd_configs:
      - servers: ['{server}']
        paths: [/nerve/shop]
    serverset_sd_configs:
      - servers: ['{server}']
        paths: [/sets/shop]
"
    );
    let file = place.path().join("prometheus.yml");
    fs::write(&file, configuration).unwrap();
    let mut command = place.program("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", place.path().join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::start(&mut command)
}

/// The addresses that it would scrape.
fn targets(prometheus: SocketAddr) -> Option<Vec<String>> {
    let mut connection = Connection::try_open(prometheus).ok()?;
    let answer = connection.try_exchange(&Request::new("GET", "/api/v1/targets")).ok()?;
    let json: Value = serde_json::from_slice(&answer.body).ok()?;
    let targets = json["data"]["activeTargets"].as_array()?;
    let address = |target: &Value| Some(target["discoveredLabels"]["__address__"].as_str()?.to_owned());
    targets.iter().map(address).collect()
}

#[test]
fn curators_consumers_read_every_field_that_they_know_and_no_other() {
    let Some(zookeeper) = Zookeeper::start("curators_consumers_read_every_field") else { return };
    let (place, url) = (Place::new(), zookeeper.url());
    let _wrapper = wrapper(&place, &url, "log");
    let node = wait_for("the registration", || zookeeper.client().node(ENTRY));
    let entry: Value = serde_json::from_str(&node.data).unwrap();
    let time = &entry["registrationTimeUTC"];
    assert!(time.as_u64().is_some_and(|time| time > 1_700_000_000_000), "{time}");
    // Byte for byte, as in Curator's and Spring Cloud's own documentation.
    let expected = format!(
        r#"{{"name":"www","id":"web1","address":"10.1.2.3","port":8080,"sslPort":null,"payload":{{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"web1","name":"www","metadata":{{"host":"10.1.2.3","instance_status":"UP","name":"www","port":"8080","tags":"www"}}}},"registrationTimeUTC":{time},"serviceType":"DYNAMIC","uriSpec":{{"parts":[{{"value":"scheme","variable":true}},{{"value":"://","variable":false}},{{"value":"address","variable":true}},{{"value":":","variable":false}},{{"value":"port","variable":true}}]}}}}"#
    );
    assert_eq!(node.data, expected);
    assert_eq!(zookeeper.client().children("/apps/services"), ["www"]);
    let record: Value = serde_json::from_str(&zookeeper.client().node(super::ID).unwrap().data).unwrap();
    assert_eq!((&record["id"], &record["tags"]), (&json!("web1"), &json!(["www"])));
}

#[tokio::test]
async fn what_other_programs_registered_with_curator_is_listed_and_can_be_taken_out() {
    let Some(zookeeper) = Zookeeper::start("what_other_programs_registered_with_curator") else { return };
    let mut spring = zookeeper.client();
    for path in ["/apps", "/apps/services", "/apps/services/shop"] {
        spring.create_parent(path);
    }
    let data = r#"{"name":"shop","id":"spring-1","address":"10.0.0.1","port":80,"payload":{"metadata":{"zone":"eu"}}}"#;
    spring.create_ephemeral("/apps/services/shop/spring-1", data);
    spring.create_ephemeral("/apps/services/shop/nonsense", "nonsense");
    let registry = at(&zookeeper.url());
    registry.register(&registration("web1", &[("name", "shop")]), &claim()).await.unwrap();
    let list = || async {
        let page = registry.services(&ServiceQuery::default()).await.unwrap();
        page.values.into_iter().map(|service| service.registration.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list().await, ["spring-1", "web1"]);
    let id = "spring-1".parse().unwrap();
    let found = registry.service(&id).await.unwrap().registration;
    assert_eq!(found.endpoint().unwrap().to_string(), "10.0.0.1:80");
    let error = registry.update(&id, &ServiceUpdate::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let nobody = registry.update(&"nobody".parse().unwrap(), &ServiceUpdate::default()).await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })), "{nobody:?}");
    // The id of another program's instance of the same service is taken.
    let again = registration("spring-1", &[("name", "shop")]);
    let error = registry.register(&again, &claim()).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { holder, .. } if holder == "another program"), "{error}");
    let ours = Owner::Instance(InstanceId::unique());
    assert!(matches!(registry.deregister(&id, ours).await, Err(Error::NotFound { .. })));
    registry.deregister(&id, Owner::Anyone).await.unwrap();
    assert_eq!(list().await, ["web1"]);
    registry.register(&again, &claim()).await.unwrap();
}
