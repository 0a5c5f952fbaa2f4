//! Under a real systemd, booted in a container: `tests/systemd/cases.sh` has the cases.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{RAXSR, WRAPPER, debian, is_there};

#[test]
fn the_cases_hold_under_debian_12s_systemd() {
    hold_in("bookworm", "the_cases_hold_under_debian_12s_systemd");
}

/// Which has `Type=notify-reload`.
#[test]
fn the_cases_hold_under_debian_13s_systemd() {
    hold_in("trixie", "the_cases_hold_under_debian_13s_systemd");
}

fn hold_in(release: &str, test: &str) {
    let Some(root) = debian::root(release, test).filter(|_| is_there("systemd-nspawn", test)) else { return };
    let out = tempfile::tempdir().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut container = Command::new("timeout");
    container
        .args(["--kill-after=10", "600", "systemd-nspawn"])
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .args(["--quiet", "--volatile=overlay", "--register=no", "--keep-unit", "--private-network"])
        .args(["--console=pipe", "--hostname=box", "--directory"])
        .arg(&root);
    let mut bind = |outside: &Path, inside: &str| {
        container.arg(format!("--bind-ro={}:{inside}", outside.display()));
    };
    bind(Path::new(WRAPPER), "/usr/bin/service-registry-wrapper");
    bind(Path::new(RAXSR), "/usr/bin/raxsr");
    bind(&repository.join("tests/systemd"), "/tests");
    bind(&repository.join("tests/systemd/cases.service"), "/etc/systemd/system/cases.service");
    for unit in std::fs::read_dir(repository.join("packaging/systemd")).unwrap() {
        let unit = unit.unwrap();
        bind(&unit.path(), &format!("/etc/systemd/system/{}", unit.file_name().to_string_lossy()));
    }
    container.arg(format!("--bind={}:/out", out.path().display()));
    container.args(["--boot", "systemd.unit=cases.service"]);
    let output = container.stdin(Stdio::null()).output().unwrap();

    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap_or_default();
    let results = read("results");
    let console = String::from_utf8_lossy(&output.stdout);
    assert!(results.ends_with("done\n"), "it did not come to its end: {results}\n{}\n{console}", read("log"));
    let failures: Vec<&str> = results.lines().filter(|line| line.starts_with("not ok")).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}
