//! What can be done with a path.

use super::{ACCOUNTS, login};
use crate::support::server::{Request, Server};

#[test]
fn no_way_to_write_a_path_leads_past_the_login_or_out_of_the_tenant() {
    let server = Server::with_accounts(ACCOUNTS, &[]);
    let (alice, bob) = (login(&server, "alice"), login(&server, "bob"));
    bob.create("bobs", 120);
    let absolute = format!("{}/v1.0/8888/services", server.url());
    for path in [
        "/v1.0/../v1.0/8888/services",
        "/v1.0/7777/../8888/services",
        "/v1.0/%2e%2e/v1.0/8888/services",
        "/v1.0/7777/%2e%2e/8888/services",
        "/v1.0/7777/..%2f8888/services",
        "/health/../v1.0/8888/services",
        "//v1.0/8888/services",
        "/v1.0//8888/services",
        "/v1.0/8888//services",
        "/v1.0%2f8888/services",
        "/V1.0/8888/services",
        "/./v1.0/8888/services",
        "/v1.0/7777/services/../../8888/services/bobs",
        "/v1.0/8888/services;x",
        "/v1.0/8888/services%00",
        "/v1.0/8888/services%3f",
        "/v1.0/7777%00/8888/services",
        "/v1.0/8888/services/%2e%2e",
        "/v1.0/8888/configuration/%2e%2e%2f%2e%2e%2fkey",
        &absolute,
    ] {
        let headers = alice.headers.iter();
        let request =
            headers.fold(Request::new("GET", path), |request, (name, value)| request.header(name, value));
        for request in [Request::new("GET", path), request] {
            let response = request.send(server.address());
            assert!((400..500).contains(&response.status), "{path}: {response:?}");
            assert!(!response.text().contains("bobs\",\"tags"), "{path}: {response:?}");
        }
    }
    for path in [
        "/services/%00",
        "/services/web%00",
        "/services/..",
        "/services/..%2fhealth",
        "/configuration/..%2fkey",
    ] {
        let response = alice.get(path);
        assert!((400..500).contains(&response.status), "{path}: {response:?}");
    }
    assert!(alice.ids("/services").is_empty());
}
