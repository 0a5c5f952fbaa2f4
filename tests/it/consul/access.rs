//! Ways to an agent: sockets, TLS, a server before it, and what Consul's own variables say.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{raxsr, wrapper_at};
use crate::support::consul::Consul;
use crate::support::peer::{Peer, Reply};
use crate::support::{Place, RAXSR, Running, is_there, says, wait_until};

/// `raxsr` with these variables.
fn with(place: &Place, variables: &[(&str, &str)], words: &[&str]) -> Output {
    let mut command = place.program(RAXSR);
    command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    command.env("SERVICE_REGISTRY_URL", "consul://").envs(variables.iter().copied()).args(words);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_agent_is_reached_through_a_socket() {
    let place = Place::new();
    let socket = place.path().join("consul.sock");
    let addresses = format!("127.0.0.1 unix://{}", socket.display());
    let Some(consul) =
        Consul::with("an_agent_is_reached_through_a_socket", &json!({"addresses": {"http": addresses}}))
    else {
        return;
    };
    let url = format!("consul+unix://{}", socket.display());
    let (mut wrapper, log) = wrapper_at(&place, &url, "log", &["--port=80"]);
    wait_until("the registration", || says(&log, "registered"));
    assert!(!consul.meta("web1").is_null());
    let address = format!("unix://{}", socket.display());
    let output = with(&place, &[("CONSUL_HTTP_ADDR", &address)], &["-f", "csv", "services", "list"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("web1"), "{output:?}");
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert!(consul.meta("web1").is_null());
    assert!(!says(&log, "WARN"), "{}", fs::read_to_string(&log).unwrap());
}

const MAKE: &str = "
set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test authority'
issue() {
    openssl req -new $key -keyout $1.key -out $1.csr -subj /CN=$1
    echo \"subjectAltName=$2\" > extensions
    openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -set_serial $3 -days 2 -extfile extensions -out $1.pem
}
issue agent DNS:server.dc1.consul 2
issue client DNS:client 3
mkdir authorities
cp ca.pem authorities/
";

#[test]
fn an_agent_is_reached_over_tls_with_a_certificate_of_ours_under_another_name() {
    const TEST: &str = "an_agent_is_reached_over_tls_with_a_certificate_of_ours";
    let place = Place::new();
    if !is_there("openssl", TEST) {
        return;
    }
    let made = Command::new("sh").args(["-c", MAKE]).current_dir(place.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| place.path().join(name).display().to_string();
    let settings = json!({
        "ca_file": file("ca.pem"), "cert_file": file("agent.pem"), "key_file": file("agent.key"),
        "verify_incoming_https": true,
    });
    let Some(consul) = Consul::with(TEST, &settings) else { return };
    let address = format!("127.0.0.1:{}", consul.ports().https);
    let url = format!("consul+https://{address}");
    let (ca, authorities) = (file("ca.pem"), file("authorities"));
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let url = ("SERVICE_REGISTRY_URL", url.as_str());
    let ca = ("CONSUL_CACERT", ca.as_str());
    let directory = ("CONSUL_CAPATH", authorities.as_str());
    let pair = [("CONSUL_CLIENT_CERT", certificate.as_str()), ("CONSUL_CLIENT_KEY", key.as_str())];
    let name = ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul");
    let unverified = ("CONSUL_HTTP_SSL_VERIFY", "false");
    let by_variables = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_SSL", "true")];
    let list = ["services", "list"];
    for variables in [
        [&[url, ca, name][..], &pair].concat(),
        [&[url, directory, name][..], &pair].concat(),
        [&[url, ca, unverified][..], &pair].concat(),
        [&[ca, name][..], &by_variables, &pair].concat(),
    ] {
        let output = with(&place, &variables, &list);
        assert!(output.status.success(), "{variables:?}: {output:?}");
        assert_eq!(
            said(&output).contains("anybody may be at"),
            variables.contains(&unverified),
            "{output:?}"
        );
    }
    let flags = ["--client-cert", &certificate, "--client-key", &key, "--ca-cert", ca.1];
    let output = with(&place, &[url, name], &[&flags[..], &list].concat());
    assert!(output.status.success(), "{output:?}");
    for (variables, expected) in [
        ([&[url, ca][..], &pair].concat(), "cannot trust it"),
        ([&[url, ca, ("CONSUL_TLS_SERVER_NAME", "other.consul")][..], &pair].concat(), "cannot trust it"),
        (vec![url, ca, name], "with --client-cert and --client-key"),
    ] {
        let output = with(&place, &variables, &list);
        assert_eq!(output.status.code(), Some(1), "{variables:?}: {output:?}");
        assert!(said(&output).contains(expected), "{variables:?}: {output:?}");
    }
    let mut command = place.program(crate::support::WRAPPER);
    command.envs([url, ca, name]).envs(pair).args(["--id=web1", "--port=80", "sleep", "600"]);
    let _wrapper = Running::start(&mut command);
    wait_until("the registration", || !consul.meta("web1").is_null());
}

#[test]
fn a_plain_url_is_told_of_where_tls_was_asked_for() {
    let Some(consul) = Consul::start("a_plain_url_is_told_of_where_tls_was_asked_for") else { return };
    let url = consul.url();
    let variables = [("SERVICE_REGISTRY_URL", &*url), ("CONSUL_HTTP_SSL", "true")];
    let output = with(&Place::new(), &variables, &["services", "list"]);
    assert!(output.status.success(), "{output:?}");
    assert!(said(&output).contains("is not encrypted, although CONSUL_HTTP_SSL is set"), "{output:?}");
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:LISTEN;
        auth_basic "agents";
        auth_basic_user_file users;
        location / { proxy_pass http://AGENT; }
    }
}
"#;

#[test]
fn a_server_that_stands_before_the_agent_gets_its_name_and_password() {
    const TEST: &str = "a_server_that_stands_before_the_agent_gets_its_name_and_password";
    if !is_there("nginx", TEST) || !is_there("openssl", TEST) {
        return;
    }
    let Some(consul) = Consul::denying(TEST) else { return };
    let place = Place::new();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings =
        NGINX.replace("LISTEN", &listen.port().to_string()).replace("AGENT", &consul.address().to_string());
    fs::write(place.path().join("nginx.conf"), settings).unwrap();
    let hash = Command::new("openssl").args(["passwd", "-apr1", "ses:ame"]).output().unwrap();
    fs::write(place.path().join("users"), format!("me:{}", String::from_utf8(hash.stdout).unwrap())).unwrap();
    // nginx may have another user than root.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut nginx = Command::new("nginx");
    nginx
        .arg("-p")
        .arg(place.path())
        .args(["-c", "nginx.conf"])
        .current_dir(place.path())
        .stderr(Stdio::null());
    let _nginx = Running::start(&mut nginx);
    let address = listen.to_string();
    let address = ("CONSUL_HTTP_ADDR", address.as_str());
    let token = ("CONSUL_HTTP_TOKEN", crate::support::consul::MASTER);
    let set = ["configuration", "set", "key", "value"];
    let login = ("CONSUL_HTTP_AUTH", "me:ses:ame");
    wait_until("nginx", || with(&place, &[address, token, login], &set).status.success());
    let output = with(&place, &[address, token, ("CONSUL_HTTP_AUTH", "me:wrong")], &set);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("401 Unauthorized") && !said(&output).contains("wrong"), "{output:?}");
}

#[test]
fn what_a_variable_or_a_query_cannot_mean_is_told() {
    let place = Place::new();
    let missing = place.path().join("none").display().to_string();
    for (variable, value, expected) in [
        ("CONSUL_HTTP_SSL", "perhaps", "CONSUL_HTTP_SSL: `perhaps` is not true or false"),
        ("CONSUL_HTTP_SSL_VERIFY", "no", "CONSUL_HTTP_SSL_VERIFY: `no` is not true or false"),
        ("CONSUL_TLS_SERVER_NAME", "10.0.0.1", "CONSUL_TLS_SERVER_NAME: `10.0.0.1` is not a host name"),
        ("CONSUL_CAPATH", &missing, "CONSUL_CAPATH: cannot read"),
        ("CONSUL_HTTP_TOKEN_FILE", &missing, "CONSUL_HTTP_TOKEN_FILE: cannot read"),
        ("CONSUL_HTTP_ADDR", "ftp://web1", "CONSUL_HTTP_ADDR: `ftp://web1` is not an address of Consul"),
        ("CONSUL_CLIENT_CERT", &missing, "CONSUL_CLIENT_CERT: cannot read"),
        ("SERVICE_REGISTRY_URL", "consul://web1?near=x", "`near` in its query, where only `dc`, `ns` and"),
    ] {
        let output = with(&place, &[(variable, value)], &["services", "list"]);
        assert_eq!(output.status.code(), Some(2), "{variable}: {output:?}");
        assert!(said(&output).contains(expected), "{variable}: {output:?}");
    }
}

/// Namespaces and partitions are in Consul Enterprise only, so that only their way there can be looked at.
#[test]
fn a_namespace_and_a_partition_go_with_every_request() {
    let place = Place::new();
    let peer = Peer::start(|asked| match asked.path.split('?').next().unwrap() {
        "/v1/agent/self" => {
            let config = json!({"Datacenter": "dc1", "NodeName": "n1"});
            Reply::Json(200, json!({ "Config": config }))
        }
        "/v1/catalog/nodes" => Reply::Json(200, json!([])),
        _ => Reply::Json(200, json!({})),
    });
    let address = peer.url().replace("http://", "").split('/').next().unwrap().to_owned();
    let variables =
        [("CONSUL_HTTP_ADDR", &*address), ("CONSUL_NAMESPACE", "team"), ("CONSUL_PARTITION", "p1")];
    let output = with(&place, &variables, &["services", "list"]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        peer.asked().len() > 2
            && peer.asked().iter().all(|asked| asked.path.ends_with("ns=team&partition=p1"))
    );
}

#[test]
fn a_namespace_is_refused_by_a_consul_that_has_none() {
    let Some(consul) = Consul::start("a_namespace_is_refused_by_a_consul_that_has_none") else { return };
    let output = raxsr(&Place::new(), &format!("{}?ns=team", consul.url()), &["services", "list"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("Namespaces are a Consul Enterprise"), "{output:?}");
}

#[test]
fn what_is_read_and_configured_is_in_the_datacenter_that_is_named() {
    let Some(near) = Consul::start("what_is_read_and_configured_is_in_the_datacenter_that_is_named") else {
        return;
    };
    let far = near.beside("dc2");
    let place = Place::new();
    far.tell("/v1/agent/service/register", &json!({"ID": "far1", "Name": "far"}));
    near.tell("/v1/agent/service/register", &json!({"ID": "near1", "Name": "near"}));
    let url = format!("{}?dc=dc2", near.url());
    let listed = |url: &str| {
        let output = raxsr(&place, url, &["-f", "json", "services", "list"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list["values"].as_array().into_iter().flatten().map(|value| value["id"].clone()).collect::<Vec<_>>()
    };
    wait_until("the other datacenter", || listed(&url) == ["far1"]);
    assert_eq!(listed(&near.url()), ["near1"]);
    assert_eq!(listed(&format!("{}?dc=dc1", near.url())), ["near1"]);
    assert!(raxsr(&place, &url, &["services", "get", "far1"]).status.success());
    assert!(raxsr(&place, &url, &["configuration", "set", "/prod/key", "value"]).status.success());
    let get = ["configuration", "get", "/prod/key"];
    assert!(raxsr(&place, &far.url(), &get).status.success());
    assert_eq!(raxsr(&place, &near.url(), &get).status.code(), Some(3));
    assert!(raxsr(&place, &url, &["configuration", "remove", "/prod/key"]).status.success());
    assert_eq!(raxsr(&place, &far.url(), &get).status.code(), Some(3));
    let nowhere = raxsr(&place, &format!("{}?dc=dc9", near.url()), &["services", "list"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(said(&nowhere).contains("No path to datacenter"), "{nowhere:?}");
}
