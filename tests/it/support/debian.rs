//! A Debian root, for containers to boot and run in: made once, kept outside the repository, never written to.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::{is_root, is_there};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,python3,procps,nginx-light,apache2,mariadb-server";

/// The root's directory, of Debian 12 (`bookworm`) or another release; none where a test that needs it is skipped.
/// The first call for each takes half a minute.
#[track_caller]
pub(crate) fn root(release: &str, test: &str) -> Option<PathBuf> {
    if !is_root(test) || !is_there("mmdebstrap", test) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    PACKAGES.hash(&mut hasher);
    let (cache, _lock) = cache();
    let root = cache.join(format!("{release}-{:x}", hasher.finish()));
    if !root.exists() {
        make(release, &root);
    }
    Some(root)
}

/// Where tests keep what they make once, for as long as nobody else makes it.
pub(crate) fn cache() -> (PathBuf, Flock<File>) {
    let cache = PathBuf::from("/var/tmp/service-registry-wrapper-tests");
    fs::create_dir_all(&cache).unwrap();
    let lock = Flock::lock(File::create(cache.join("lock")).unwrap(), FlockArg::LockExclusive).unwrap();
    (cache, lock)
}

/// Where this machine has its own packages from.
pub(crate) fn mirror() -> Option<String> {
    let sources = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output().ok()?;
    String::from_utf8(sources.stdout).ok()?.lines().next().map(str::to_owned)
}

fn make(release: &str, root: &PathBuf) {
    let mirror = mirror().unwrap();
    let part = root.with_extension("part");
    let _ = fs::remove_dir_all(&part);
    let output = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include", PACKAGES, release])
        .arg(&part)
        .arg(mirror)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&part, root).unwrap();
}
