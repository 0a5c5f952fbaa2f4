//! The file of an embedded registry: made where it is missing, whole after any crash, and what is told when it
//! cannot be used.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Output;

use nix::sys::signal::Signal;
use rusqlite::Connection;
use service_registry_wrapper::registry::{Access, connect};

use crate::support::{Place, RAXSR, Running, WRAPPER, is_root, says, wait_until};

/// Asserts that `raxsr` refuses with 1 and says `expected` and the file's name, and that a wrapper only warns.
#[track_caller]
fn is_told(place: &Place, expected: &str, hint: &str) {
    let output = place.raxsr(&["services", "list"]);
    is_clear(place, &output, expected, hint);
    let log = place.path().join("log");
    let script = "until [ -e told ]; do sleep 0.05; done; exit 9";
    let mut wrapper = place.wrapper(&["--interval=3"]).start_with_log(&log, &["sh", "-c", script]);
    wait_until("the warning", || says(&log, "WARN cannot register, trying on") && says(&log, expected));
    fs::write(place.path().join("told"), "").unwrap();
    assert_eq!(wrapper.wait().code(), Some(9));
}

#[track_caller]
fn is_clear(place: &Place, output: &Output, expected: &str, hint: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    let (message, rest) = text.split_once('\n').unwrap();
    assert!(message.starts_with(&format!("raxsr: registry {} ", place.url())), "{text}");
    assert!(message.contains(expected), "{text}");
    assert!(rest.starts_with("hint: ") && rest.contains(hint), "{text}");
}

fn with_file(content: &[u8]) -> Place {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    fs::write(place.registry_file(), content).unwrap();
    place
}

#[test]
fn a_missing_directory_is_made_for_the_right_people() {
    let place = Place::new();
    assert!(place.raxsr(&["services", "list"]).status.success());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let expected = if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 };
    assert_eq!(mode(&place.path().join("state")), expected);
    assert_eq!(mode(&place.registry_file()), 0o644);
}

#[test]
fn many_make_a_missing_file_at_once() {
    for _ in 0..20 {
        let place = Place::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let output = place.raxsr(&["services", "list"]);
                    assert!(output.status.success(), "{output:?}");
                });
            }
        });
    }
}

#[test]
fn in_a_shared_directory_the_file_is_shared() {
    let place = Place::new();
    let directory = place.path().join("state");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2770)).unwrap();
    let _wrapper = place.wrapper(&["--id=shared"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("shared"));
    for name in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        let mode = fs::metadata(directory.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o664, "{name}");
    }
}

#[test]
fn a_file_that_root_makes_in_somebodys_directory_is_theirs() {
    if !is_root("a_file_that_root_makes_in_somebodys_directory_is_theirs") {
        return;
    }
    let place = Place::new();
    let directory = place.path().join("state");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(4711), Some(4712)).unwrap();
    assert!(place.services().is_empty());
    let file = fs::metadata(place.registry_file()).unwrap();
    assert_eq!((file.uid(), file.gid()), (4711, 4712));
}

#[test]
fn users_of_a_group_share_a_registry() {
    if !is_root("users_of_a_group_share_a_registry") {
        return;
    }
    let place = Place::new();
    let directory = place.path().join("state");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, None, Some(4711)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where everybody can reach them.
    let programs = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let here = |program: &str| {
        let path = programs.path().join(std::path::Path::new(program).file_name().unwrap());
        fs::copy(program, &path).unwrap();
        path
    };
    let (wrapper, raxsr) = (here(WRAPPER), here(RAXSR));
    let mut running = Vec::new();
    for user in [1001, 1002] {
        let mut command = place.program(&wrapper);
        command.arg(format!("--id=user{user}")).args(["--interval=3", "sleep", "600"]);
        running.push(Running::start(command.uid(user).gid(4711)));
    }
    wait_until("both registrations", || place.services() == ["user1001", "user1002"]);
    let output = place.program(&raxsr).args(["services", "list"]).uid(1003).gid(1003).output().unwrap();
    is_clear(&place, &output, "refuses access", "give this user write access");
}

#[test]
fn a_file_that_is_no_database_is_told() {
    is_told(&with_file(&b"text".repeat(999)), "file is not a database", "move the file away");
}

#[test]
fn a_damaged_file_is_told() {
    let place = Place::new();
    let mut wrapper = place.wrapper(&["--id=victim"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("victim"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    // The last to close it leaves all of it in the one file.
    assert!(place.services().is_empty());
    let whole = fs::read(place.registry_file()).unwrap();
    // The header is right, the rest is not.
    let damaged = [&whole[..4096], &vec![0xa5; whole.len() - 4096]].concat();
    fs::write(place.registry_file(), damaged).unwrap();
    is_told(&place, "database disk image is malformed", "move the file away");
}

#[test]
fn another_programs_database_is_told_and_left_alone() {
    let place = with_file(b"");
    let foreign = Connection::open(place.registry_file()).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    drop(foreign);
    let before = fs::read(place.registry_file()).unwrap();
    is_told(&place, "the database of another program", "name another file");
    assert!(fs::read(place.registry_file()).unwrap() == before, "it was changed");
}

#[test]
fn a_file_of_a_later_version_is_told() {
    let place = Place::new();
    assert!(place.raxsr(&["services", "list"]).status.success());
    Connection::open(place.registry_file()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    is_told(&place, "the file has format 99, this program knows 2", "install the newer version");
}

#[test]
fn a_directory_where_the_file_should_be_is_told() {
    let place = Place::new();
    fs::create_dir_all(place.registry_file()).unwrap();
    is_told(&place, "registry.db: is a directory", "name another file");
}

#[test]
fn a_file_that_may_only_be_read_is_told() {
    if !is_root("a_file_that_may_only_be_read_is_told") {
        return;
    }
    let place = Place::new();
    assert!(place.raxsr(&["services", "list"]).status.success());
    // Root may write to any file, except on what is mounted for reading.
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec {RAXSR} services list",
        place.path().join("state").display()
    );
    let output = place.program("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    is_clear(&place, &output, "refuses access", "give this user write access");
}

#[test]
fn a_full_disk_is_told_and_is_no_end() {
    if !is_root("a_full_disk_is_told_and_is_no_end") {
        return;
    }
    let place = Place::new();
    let state = place.path().join("state");
    fs::create_dir(&state).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=200k none {0} || exit 99
        {RAXSR} services list >/dev/null || exit 98
        cat /dev/zero >{0}/ballast 2>/dev/null
        {WRAPPER} --id=squeezed --interval=3 sleep 600 2>{0}.log & wrapper=$!
        until grep -q 'cannot register' {0}.log; do sleep 0.1; done
        {RAXSR} services list; echo status $?
        rm {0}/ballast
        until {RAXSR} services get squeezed >/dev/null 2>&1; do sleep 0.1; done
        kill $wrapper; wait $wrapper; echo ended $?; cat {0}.log >&2",
        state.display()
    );
    let mut command = place.program("timeout");
    let output = command.args(["60", "unshare", "--mount", "sh", "-c", &script]).output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("ended 143"), "{said} {told}");
    assert!(
        told.contains("state: no storage space")
            && told.contains("hint: free some space")
            && told.contains("registered at last"),
        "{said} {told}"
    );
}

#[test]
fn a_crash_at_any_point_leaves_the_file_whole() {
    let place = Place::new();
    for round in 0..60_u32 {
        let wrappers: Vec<_> = (0..4)
            .map(|number| {
                place.wrapper(&[&format!("--id=r{round}-{number}"), "--interval=3"]).start(&["sleep", "600"])
            })
            .collect();
        // From before the file is opened to well after it was written to.
        let start = tokio::time::Instant::now();
        let delay = std::time::Duration::from_micros(u64::from(round) * 500);
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        for wrapper in &wrappers {
            wrapper.signal(Signal::SIGKILL);
        }
        drop(wrappers);
        if place.registry_file().exists() && fs::metadata(place.registry_file()).unwrap().size() > 0 {
            let file = Connection::open(place.registry_file()).unwrap();
            let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok", "round {round}");
        }
        let (services, events) = (place.services(), place.events());
        for service in services {
            assert!(events.contains(&format!("join {service}")), "{service} is listed without having joined");
        }
    }
    wait_until("all timeouts", || place.services().is_empty());
    let events = place.events();
    let count = |kind: &str| events.iter().filter(|event| event.starts_with(kind)).count();
    assert_eq!(count("join"), count("timeout"), "{events:?}");
}

/// What the first version made.
const FORMAT_1: &str = "
    CREATE TABLE registry (created INTEGER NOT NULL);
    CREATE TABLE service (
        id TEXT PRIMARY KEY, registration TEXT NOT NULL, heartbeat_timeout INTEGER NOT NULL, last_seen INTEGER,
        deadline INTEGER NOT NULL, token TEXT NOT NULL, previous_token TEXT, instance TEXT NOT NULL,
        holder TEXT NOT NULL
    );
    CREATE INDEX service_deadline ON service (deadline);
    CREATE TABLE service_tag (
        tag TEXT NOT NULL, service_id TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
        PRIMARY KEY (tag, service_id)
    ) WITHOUT ROWID;
    CREATE INDEX service_tag_service ON service_tag (service_id);
    CREATE TABLE event (ticks INTEGER PRIMARY KEY, id TEXT NOT NULL, type TEXT NOT NULL, payload TEXT NOT NULL);
    CREATE TABLE configuration_value (id TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    INSERT INTO registry VALUES (139800000000000000);
    INSERT INTO configuration_value VALUES ('key', 'kept');
    PRAGMA application_id = 0x53525752;
    PRAGMA user_version = 1;
";

#[tokio::test]
async fn a_file_of_an_earlier_version_is_brought_up_to_date() {
    let place = Place::new();
    fs::create_dir(place.path().join("state")).unwrap();
    Connection::open(place.registry_file()).unwrap().execute_batch(FORMAT_1).unwrap();
    let registry = connect(&place.url().parse().unwrap(), &Access::default());
    let value = registry.configuration().unwrap().value(&"key".parse().unwrap()).await.unwrap();
    assert_eq!(value.value(), "kept");
    let mut wrapper = place.wrapper(&["--id=web1"]).start(&["sleep", "600"]);
    wait_until("the registration", || place.lists("web1"));
    wrapper.signal(Signal::SIGTERM);
    wrapper.wait();
    assert_eq!(place.events(), ["join web1", "remove web1"]);
}
