//! Who may do what: users and their passwords, certificates.

use std::fs;
use std::time::Duration;

use service_registry_wrapper::registry::{
    Access, ApiKey, ClientCertificate, Credentials, Error, Owner, Secret, ServiceQuery, Tls,
};

use super::{at, claim, count, raxsr, registration, wrapper};
use crate::support::etcd::{APP, Etcd, Release};
use crate::support::{Place, RAXSR, WRAPPER, says, wait_until};

fn access(api_key: ApiKey) -> Access {
    let credentials = Some(Credentials { username: "app".to_owned(), api_key });
    Access { credentials, ..Access::default() }
}

#[test]
fn a_wrong_password_is_one_clear_line_and_no_password_another() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::with_login(release, "a_wrong_password_is_one_clear_line", &[]) else {
            continue;
        };
        let place = Place::new();
        let refused = ("refuses the login of user `app`", "check --username");
        let no_rights = ("permission denied", "grant the user's role");
        for (url, (fault, hint)) in [
            (etcd.url_with("app:wrong-sesame@"), refused),
            (etcd.url(), ("it asks for a login", "--username")),
            (etcd.url_with(&format!("app:{APP}@")) + "/another", no_rights),
        ] {
            let mut command = place.program(WRAPPER);
            command.env("SERVICE_REGISTRY_URL", url);
            let output = command.args(["--abort-on-failure", "--id=web1", "sleep", "600"]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(100), "{said}");
            let lines: Vec<_> = said.lines().filter(|line| line.contains(fault)).collect();
            assert_eq!(lines.len(), 1, "{fault}: {said}");
            assert!(said.contains("refuses access") && said.contains(hint), "{said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }
}

#[test]
fn a_login_may_come_from_the_url_arguments_a_file_or_etcds_own_variables() {
    let Some(etcd) = Etcd::with_login(Release::Bookworm, "a_login_may_come_from", &[]) else { return };
    let place = Place::new();
    let file = place.path().join("password");
    fs::write(&file, format!("{APP}\n")).unwrap();
    let file = file.to_str().unwrap();
    let (open, half, closed) = (etcd.url_with(&format!("app:{APP}@")), etcd.url_with("app@"), etcd.url());
    let both = format!("app:{APP}");
    for (url, variables, words) in [
        (&*open, vec![], vec![]),
        (&*half, vec![], vec!["--api-key-file", file]),
        (&*half, vec![("ETCDCTL_PASSWORD", APP)], vec![]),
        (&*closed, vec![("ETCDCTL_USER", &*both)], vec![]),
        (&*closed, vec![("ETCDCTL_USER", "app"), ("ETCDCTL_PASSWORD", APP)], vec![]),
        (&*closed, vec![("SERVICE_REGISTRY_API_KEY", APP)], vec!["--username", "app"]),
        (&*closed, vec![("ETCDCTL_USER", "other:wrong")], vec!["--username", "app", "--api-key-file", file]),
    ] {
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", url).envs(variables.clone()).args(&words);
        let output = command.args(["configuration", "set", "key", "value"]).output().unwrap();
        assert!(output.status.success(), "{url} {variables:?} {words:?}: {output:?}");
        assert!(!format!("{output:?}").contains(APP), "{output:?}");
    }
    assert_eq!(raxsr(&place, &half, &["services", "list"]).status.code(), Some(2));
}

#[test]
fn a_wrapper_outlives_the_end_of_its_token() {
    for release in Release::ALL {
        let options: &[&str] = if release == Release::Trixie { &["--auth-token-ttl=3"] } else { &[] };
        let Some(etcd) = Etcd::with_login(release, "a_wrapper_outlives_the_end_of_its_token", options) else {
            continue;
        };
        let (place, url) = (Place::new(), etcd.url_with(&format!("app:{APP}@")));
        let (mut wrapper, log) = wrapper(&place, &url, "log", &[]);
        wait_until("heartbeats", || count(&log, "request succeeded") >= 3);
        if release == Release::Bookworm {
            etcd.renew_user(APP);
        }
        // Heartbeats need no token, and so do not keep it. Every tenth does, when it has long run out.
        wait_until("more heartbeats", || count(&log, "request succeeded") >= 16);
        wrapper.signal(nix::sys::signal::Signal::SIGTERM);
        wrapper.wait();
        assert!(says(&log, "deregistered"), "{}", fs::read_to_string(&log).unwrap());
        assert!(count(&log, "logged in to etcd") >= 2);
        assert!(!says(&log, "request failed") && !says(&log, "registered again"));
    }
}

#[tokio::test]
async fn a_new_password_in_the_file_is_picked_up() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::with_login(release, "a_new_password_in_the_file", &[]) else { continue };
        let place = Place::new();
        let file = place.path().join("password");
        fs::write(&file, "wrong\n").unwrap();
        let registry = at(&etcd.url(), &access(ApiKey::File(file.clone())));
        let error = registry.register(&registration("web1", &[]), &claim()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        fs::write(&file, APP).unwrap();
        let claim = claim();
        registry.register(&registration("web1", &[]), &claim).await.unwrap();
        etcd.renew_user("another");
        fs::write(&file, "another").unwrap();
        registry.deregister(&registration("web1", &[]).id, Owner::Instance(claim.instance)).await.unwrap();
    }
}

#[tokio::test]
async fn a_user_is_no_fault_where_nobody_has_to_log_in() {
    let Some(etcd) = Etcd::single(Release::Trixie, "a_user_is_no_fault") else { return };
    let registry = at(&etcd.url(), &access(ApiKey::Given(Secret::new("sesame"))));
    registry.register(&registration("web1", &[]), &claim()).await.unwrap();
}

#[test]
fn a_password_in_the_clear_is_warned_of() {
    let place = Place::new();
    let said = |url: &str| {
        let options = ["--registry", url, "--id=web1", "--interval=3"];
        let output = place.wrapper(&options).output(&["true"]);
        String::from_utf8(output.stderr).unwrap()
    };
    let warning = "can be read on the way: use etcd+https://";
    assert!(said("etcd://me:sesame@127.0.0.1:1,192.0.2.1").contains(warning));
    for url in ["etcd://me:sesame@127.0.0.1:1", "etcd://192.0.2.1", "etcd+https://me:sesame@192.0.2.1"] {
        assert!(!said(url).contains(warning), "{url}");
    }
}

#[tokio::test]
async fn a_client_certificate_lets_in_who_has_one() {
    for release in Release::ALL {
        let Some(etcd) = Etcd::with_tls(release, "a_client_certificate_lets_in") else { continue };
        let (ca, certificate, key) = (etcd.file("ca.pem"), etcd.file("client.pem"), etcd.file("client.key"));
        let tls = Tls {
            ca_certificates: Some(ca.clone()),
            client_certificate: Some(ClientCertificate {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            ..Tls::default()
        };
        let registry = at(&etcd.url(), &Access { tls: tls.clone(), ..Access::default() });
        let token = registry.register(&registration("web1", &[]), &claim()).await.unwrap();
        registry.heartbeat(&"web1".parse().unwrap(), &token, Owner::Anyone).await.unwrap();
        let without = Tls { client_certificate: None, ..tls };
        let stranger = at(&etcd.url(), &Access { tls: without, ..Access::default() });
        let error = stranger.services(&ServiceQuery::default()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");

        let place = Place::new();
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", etcd.url()).env("ETCDCTL_CACERT", &ca);
        command.env("ETCDCTL_CERT", &certificate).env("ETCDCTL_KEY", &key);
        let output = command.args(["services", "list"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut command = place.program(RAXSR);
        command.env("SERVICE_REGISTRY_URL", etcd.url()).env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true");
        command.env("ETCDCTL_CERT", &certificate).env("ETCDCTL_KEY", &key);
        let output = command.args(["services", "list"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_wrapper_renews_over_tls() {
    let Some(etcd) = Etcd::with_tls(Release::Bookworm, "a_wrapper_renews_over_tls") else { return };
    let place = Place::new();
    let option = |name: &str, file: &str| format!("--{name}={}", etcd.file(file).display());
    let options = [
        option("ca-cert", "ca.pem"),
        option("client-cert", "client.pem"),
        option("client-key", "client.key"),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let (_wrapper, log) = wrapper(&place, &etcd.url(), "log", &options);
    wait_until("heartbeats", || count(&log, "request succeeded") >= 3);
}

#[tokio::test]
async fn of_many_that_log_in_at_a_time_all_get_in_however_impatient() {
    let Some(etcd) = Etcd::with_login(Release::Trixie, "of_many_that_log_in_at_a_time", &[]) else { return };
    let registering = (0..30).map(|number| {
        let registry = at(&etcd.url(), &access(ApiKey::Given(Secret::new(APP))));
        tokio::spawn(async move {
            let (registration, claim) = (registration(&format!("web{number}"), &[]), claim());
            loop {
                let attempt = registry.register(&registration, &claim);
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(500), attempt).await {
                    return;
                }
            }
        })
    });
    for registering in registering.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(60), registering).await.unwrap().unwrap();
    }
}
