//! Over TLS, with certificates on both sides.

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::support::zookeeper::Zookeeper;
use crate::support::{Place, RAXSR, is_there, says, wait_until};

/// An authority; a server's certificate and a client's, each with its key in one file and alone.
const MAKE: &str = "
set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test authority'
openssl req -x509 $key -keyout other.key -out other.pem -days 2 -subj '/CN=Another authority'
echo 'subjectAltName=IP:127.0.0.1' > extensions
for leaf in server client; do
    openssl req -new $key -keyout $leaf.key -out $leaf.csr -subj /CN=$leaf
    openssl x509 -req -in $leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out $leaf.pem
done
cat server.key server.pem > both.pem
";

fn list(place: &Place, url: &str, options: &[&str]) -> Output {
    let mut command = place.program(RAXSR);
    command.env("SERVICE_REGISTRY_URL", url);
    command.args(options).args(["services", "list"]).output().unwrap()
}

#[test]
fn who_is_at_the_other_end_is_proven_on_both_sides() {
    let test = "who_is_at_the_other_end_is_proven_on_both_sides";
    if !is_there("openssl", test) {
        return;
    }
    let place = Place::new();
    let made = Command::new("sh").args(["-c", MAKE]).current_dir(place.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| place.path().join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
        format!("secureClientPort={port}"),
        format!("ssl.keyStore.location={}", file("both.pem")),
        format!("ssl.trustStore.location={}", file("ca.pem")),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let Some(zookeeper) = Zookeeper::with(test, &settings) else { return };
    let url = format!("zookeeper+tls://me:sesame@127.0.0.1:{port}/apps");
    let (ca, other) = (file("ca.pem"), file("other.pem"));
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let ours = ["--client-cert", &certificate, "--client-key", &key];

    let options = [&["--registry", &url, "--id=web1", "--interval=3", "--ca-cert", &ca][..], &ours].concat();
    let log = place.path().join("log");
    let options = [&options[..], &["--log-level=info"]].concat();
    let wrapper = place.wrapper(&options).start_with_log(&log, &["sleep", "600"]);
    wait_until("the registration", || says(&log, "registered"));
    assert!(!says(&log, "can be read on the way"));
    drop(wrapper);

    let output = list(&place, &url, &[&ours[..], &["--ca-cert", &other]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot trust 127.0.0.1") && said.contains("--ca-cert"), "{said}");
    let output = list(&place, &url, &["--ca-cert", &ca]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--client-cert"), "{said}");
    let plain = format!("zookeeper+tls://{}", zookeeper.address());
    let output = list(&place, &plain, &["--ca-cert", &ca]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("secureClientPort"), "{said}");
    let output = list(&place, &url, &[&ours[..], &["--ca-cert", &ca]].concat());
    assert!(output.status.success(), "{output:?}");
}
