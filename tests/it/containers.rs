//! As the entrypoint of a container: pid 1 under a real container runtime.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::support::{Place, RAXSR, WRAPPER, debian, is_root, is_there};

/// A store of its own for a test, and the registry that its containers share.
struct Host {
    place: Place,
    rootfs: PathBuf,
}

impl Host {
    /// With a Debian root, or none where the test is skipped.
    fn debian(test: &str) -> Option<Self> {
        let rootfs = debian::root("bookworm", test).filter(|_| has_podman(test))?;
        Some(Self::with(rootfs))
    }

    fn with(rootfs: PathBuf) -> Self {
        let place = Place::new();
        let state = place.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        Self { place, rootfs }
    }

    /// Runs a script in namespaces of its own, in which `run` is podman's, `in_root` names the root to run in, and
    /// `wrapper` is the entrypoint with its registry.
    fn script(&self, text: &str) -> Output {
        let store = self.place.path().join("podman");
        let programs = Path::new(WRAPPER).parent().unwrap();
        let prelude = format!(
            r#"ip link set lo up
            podman() {{ command podman --runtime runc --root {store}/root --runroot {store}/run --tmpdir {store}/tmp \
                --cgroup-manager cgroupfs --events-backend none "$@"; }}
            run() {{ podman run --rm --network host --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
                -v {programs}:/programs:ro -v {state}:/state "$@"; }}
            in_root="--rootfs {rootfs}:O"
            wrapper="/programs/service-registry-wrapper --registry sqlite:///state/registry.db"
            until_listed() {{
                for _ in $(seq 300); do {RAXSR} services get "$1" >/dev/null 2>&1 && return; sleep 0.1; done
                echo "$1 is not listed"
            }}
            "#,
            store = store.display(),
            programs = programs.display(),
            state = self.place.path().join("state").display(),
            rootfs = self.rootfs.display(),
        );
        let mut command = self.place.program("timeout");
        command.args([
            "--kill-after=10",
            "120",
            "unshare",
            "--net",
            "--mount",
            "bash",
            "-c",
            &(prelude + text),
        ]);
        command.output().unwrap()
    }
}

#[track_caller]
fn has_podman(test: &str) -> bool {
    ["podman", "runc", "ip"].iter().all(|program| is_there(program, test))
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_status_is_the_commands_in_every_kind_of_container() {
    let Some(host) = Host::debian("the_status_is_the_commands_in_every_kind_of_container") else { return };
    for options in [
        "",
        "--read-only",
        "--user 1000",
        "--cap-drop=ALL",
        "-t",
        "-i",
        "--read-only --user 1000 --cap-drop=ALL",
    ] {
        let name = options.replace([' ', '='], "");
        let output = host.script(&format!(
            "run {options} $in_root $wrapper --id=kind{name} sh -c 'echo as $(id -u); exit 3'; echo status $?
             run {options} $in_root $wrapper --id=dies{name} sh -c 'kill -9 $$'; echo status $?"
        ));
        let (out, err) = said(&output);
        assert!(out.contains("status 3") && out.contains("status 137"), "{options}: {out} {err}");
        assert!(out.contains(if options.contains("user") { "as 1000" } else { "as 0" }), "{options}: {out}");
    }
}

#[test]
fn a_stop_is_graceful_and_leaves_the_registry_first() {
    let Some(host) = Host::debian("a_stop_is_graceful_and_leaves_the_registry_first") else { return };
    let output = host.script(
        r#"run --name web $in_root $wrapper --id=web-1 sh -c 'trap "exit 4" TERM; sleep 600 & wait' & container=$!
        until_listed web-1
        podman exec web /programs/raxsr --registry sqlite:///state/registry.db services list
        podman stop -t 30 web >/dev/null
        wait $container; echo status $?"#,
    );
    let (out, err) = said(&output);
    assert!(out.contains("| web-1 ") && out.ends_with("status 4\n"), "{out} {err}");
    assert_eq!(host.place.events(), ["join web-1", "remove web-1"]);
}

#[test]
fn a_stop_has_to_allow_for_the_drain() {
    let Some(host) = Host::debian("a_stop_has_to_allow_for_the_drain") else { return };
    let output = host.script(
        r#"command='trap "echo told; exit 4" TERM; while :; do sleep 0.1; done'
        run --name web $in_root $wrapper --id=web-1 --drain=3s sh -c "$command" & container=$!
        until_listed web-1
        podman stop -t 10 web >/dev/null & stop=$!
        for _ in $(seq 100); do raxsr services get web-1 >/dev/null 2>&1 || break; sleep 0.1; done; echo out
        wait $stop $container; echo status $?
        run --name hasty $in_root $wrapper --id=web-2 --drain=60s sh -c "$command" & container=$!
        until_listed web-2
        podman stop -t 1 hasty >/dev/null
        wait $container; echo status $?"#
            .replace("raxsr", RAXSR)
            .as_str(),
    );
    let (out, err) = said(&output);
    assert_eq!(out, "out\ntold\nstatus 4\nstatus 137\n", "{err}");
    assert_eq!(host.place.events(), ["join web-1", "remove web-1", "join web-2", "remove web-2"]);
}

#[test]
fn a_command_that_runs_out_of_memory_is_137() {
    let Some(host) = Host::debian("a_command_that_runs_out_of_memory_is_137") else { return };
    let output = host.script(
        "run --memory 64m --memory-swap 64m $in_root $wrapper --id=hungry python3 -c 'x = bytearray(1 << 30)'; echo status $?",
    );
    let (out, err) = said(&output);
    assert!(out.contains("status 137"), "{out} {err}");
}

#[test]
fn orphans_are_reaped() {
    let Some(host) = Host::debian("orphans_are_reaped") else { return };
    let output = host.script(
        r#"run $in_root $wrapper --id=init bash -c 'for i in $(seq 500); do (true &); done
            until [ $(ls -d /proc/[0-9]* | wc -l) -le 4 ]; do :; done
            grep -l "^State:.*zombie" /proc/[0-9]*/status; exit 7'; echo status $?"#,
    );
    let (out, err) = said(&output);
    assert_eq!(out, "status 7\n", "{err}");
}

#[test]
fn an_image_can_hold_nothing_but_two_static_binaries() {
    let test = "an_image_can_hold_nothing_but_two_static_binaries";
    if !is_root(test) || !has_podman(test) || !is_there("busybox", test) {
        return;
    }
    let image = tempfile::tempdir().unwrap();
    fs::copy(static_wrapper(), image.path().join("wrapper")).unwrap();
    let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
    let busybox = String::from_utf8(busybox.stdout).unwrap();
    fs::copy(busybox.trim(), image.path().join("busybox")).unwrap();
    let host = Host::with(image.path().to_owned());
    let output = host.script(
        r#"empty="run --read-only --user 1000 --cap-drop=ALL $in_root /wrapper --registry sqlite:///state/registry.db"
        $empty --id=empty-1 /busybox sh -c 'exit 5'; echo status $?
        $empty --id=empty-2 /busybox sleep 600 & container=$!
        until_listed empty-2; echo listed
        podman stop -a -t 30 >/dev/null; wait $container; echo status $?"#,
    );
    let (out, err) = said(&output);
    assert_eq!(out, "status 5\nlisted\nstatus 143\n", "{err}");
}

/// The wrapper as a static binary, built once.
fn static_wrapper() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let host = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap();
        let host = String::from_utf8(host.stdout).unwrap().trim().to_owned();
        let target = Path::new(WRAPPER).parent().unwrap().with_file_name("static");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--bin", "service-registry-wrapper", "--target", &host])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(repository)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .status()
            .unwrap();
        assert!(status.success());
        target.join(host).join("debug/service-registry-wrapper")
    })
}
