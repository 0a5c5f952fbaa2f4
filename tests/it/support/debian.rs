//! A Debian root, for containers to boot and run in: made once, kept outside the repository, never written to.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

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

/// The root with what a test has put into it, for a server to run in and to write to.
pub(crate) struct Overlay {
    below: PathBuf,
    place: TempDir,
}

impl Overlay {
    /// Over the root of this release; none where a test that needs it is skipped.
    #[track_caller]
    pub(crate) fn of(release: &str, test: &str) -> Option<Self> {
        let below = root(release, test).filter(|_| is_there("unshare", test))?;
        let place = TempDir::new().unwrap();
        for directory in ["above", "work", "root"] {
            fs::create_dir(place.path().join(directory)).unwrap();
        }
        Some(Self { below, place })
    }

    /// Where what is put into it and written in it is.
    pub(crate) fn above(&self) -> PathBuf {
        self.place.path().join("above")
    }

    /// Puts a file into it, while nothing runs in it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.above().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// The command that runs `words` in it, as the same process, with the machine's devices, processes and network:
    /// in a mount namespace that is gone with it. To be run as root.
    pub(crate) fn command(&self, words: &[&str]) -> Vec<String> {
        let part = |name: &str| self.place.path().join(name).display().to_string();
        let (above, work, root) = (part("above"), part("work"), part("root"));
        // Without an index, what ran in it before need not be unmounted yet.
        let layers = format!("index=off,lowerdir={},upperdir={above},workdir={work}", self.below.display());
        let script = format!(
            "mount -t overlay -o {layers} overlay {root} && mount --rbind /dev {root}/dev &&
             mount --rbind /proc {root}/proc && exec chroot {root} \"$@\""
        );
        let mount = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        mount.iter().chain(words).map(|&word| word.to_owned()).collect()
    }
}

/// Where tests keep what they make once, for as long as nobody else makes it.
fn cache() -> (PathBuf, Flock<File>) {
    let cache = PathBuf::from("/var/tmp/service-registry-wrapper-tests");
    fs::create_dir_all(&cache).unwrap();
    let lock = Flock::lock(File::create(cache.join("lock")).unwrap(), FlockArg::LockExclusive).unwrap();
    (cache, lock)
}

/// Where this machine has its own packages from.
fn mirror() -> Option<String> {
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

/// The root of packages of a release, unpacked beside the system's own, without what they depend on: fetched once.
///
/// # Errors
/// When they cannot be had.
pub(crate) fn packages(release: &str, names: &[&str]) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    let (cache, _lock) = cache();
    let root = cache.join(format!("packages-{release}-{:x}", hasher.finish()));
    if !root.exists() {
        let part = root.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        unpack(release, names, &part)?;
        fs::rename(&part, &root).map_err(|error| error.to_string())?;
    }
    Ok(root.join("root"))
}

/// With package lists of its own: those of the machine stay as they are.
fn unpack(release: &str, names: &[&str], part: &Path) -> Result<(), String> {
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(part.join(directory)).unwrap();
    }
    let mirror = mirror().ok_or("the system's package sources name no mirror")?;
    fs::write(part.join("sources.list"), format!("deb {mirror} {release} main\n")).unwrap();
    let settings = [
        format!("Dir::Etc::sourcelist={}", part.join("sources.list").display()),
        "Dir::Etc::sourceparts=/nonexistent".to_owned(),
        format!("Dir::State::lists={}", part.join("lists").display()),
        format!("Dir::Cache={}", part.join("cache").display()),
        "APT::Sandbox::User=".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(part).args(settings.iter().flat_map(|setting| ["-o", setting])).args(words);
        succeed(&mut command)
    };
    apt(&["update"])?;
    apt(&[&["download"], names].concat())?;
    let files = fs::read_dir(part).unwrap().map(|entry| entry.unwrap().path());
    let packages: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    if packages.len() != names.len() {
        return Err(format!("{} of {} packages were downloaded", packages.len(), names.len()));
    }
    for package in packages {
        succeed(Command::new("dpkg").arg("-x").arg(package).arg(part.join("root")))?;
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
