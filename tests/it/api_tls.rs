//! Whom the client trusts over `https://`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Place, RAXSR, Running, is_there};

/// A certificate authority, and a server with a certificate of its for 127.0.0.1.
struct Server {
    place: Place,
    url: String,
    _process: Running,
}

const SERVE: &str = r#"
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b'{"values":[],"metadata":{"count":0,"limit":100,"marker":null,"next_marker":null,"next_href":null}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

const MAKE: &str = "
set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test authority'
openssl req -new $key -keyout leaf.key -out leaf.csr -subj /CN=leaf
echo 'subjectAltName=IP:127.0.0.1' > extensions
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 2 -extfile extensions -out leaf.pem
";

impl Server {
    fn start() -> Self {
        let place = Place::new();
        let made = Command::new("sh").args(["-c", MAKE]).current_dir(place.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut python = Command::new("python3");
        python.args(["-c", SERVE]).current_dir(place.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Running::start(&mut python);
        let mut port = String::new();
        BufReader::new(process.process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { place, url: format!("https://127.0.0.1:{}/v1.0", port.trim()), _process: process }
    }

    fn authority(&self) -> PathBuf {
        self.place.path().join("ca.pem")
    }

    fn list(&self, url: &str, authorities: &Path, options: &[&str]) -> Output {
        let mut command = self.place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", url).env("HOME", self.place.path());
        command.env("SSL_CERT_FILE", authorities).env("SSL_CERT_DIR", "/nonexistent");
        command.args(options).args(["--format=json", "services", "list"]).output().unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn who_is_trusted_is_the_systems_authorities_and_those_that_are_named() {
    if !is_there("openssl", "who_is_trusted_is_the_systems_authorities_and_those_that_are_named") {
        return;
    }
    let server = Server::start();
    let (ca, nothing) = (server.authority(), Path::new("/nonexistent/file"));
    let named = format!("--ca-cert={}", ca.display());
    let output = server.list(&server.url, &ca, &[]);
    assert!(output.status.success(), "trusted by the system: {output:?}");
    let output = server.list(&server.url, nothing, &[&named]);
    assert!(output.status.success(), "named, on a machine that trusts nobody: {output:?}");
    let other = Server::start();
    let output = other.list(&server.url, &other.authority(), &[&named]);
    assert!(output.status.success(), "named, besides the system's: {output:?}");

    let output = other.list(&server.url, &other.authority(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let expected = format!("raxsr: registry {} is not available: cannot trust it: ", server.url);
    assert!(told.starts_with(&expected) && told.contains("\nhint: name the certificate"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    let localhost = server.url.replace("127.0.0.1", "localhost");
    let told = stderr(&server.list(&localhost, &ca, &[]));
    assert!(told.contains("cannot trust it: ") && told.contains("\nhint: see which names"), "{told}");
}

#[test]
fn a_server_that_speaks_no_tls_is_told_as_such() {
    if !is_there("openssl", "a_server_that_speaks_no_tls_is_told_as_such") {
        return;
    }
    let server = Server::start();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 4096]);
    });
    let told = stderr(&server.list(&format!("https://127.0.0.1:{port}/v1.0"), &server.authority(), &[]));
    answering.join().unwrap();
    assert!(
        told.ends_with("cannot connect: it does not speak TLS\nhint: try http:// instead of https://\n"),
        "{told}"
    );
}
