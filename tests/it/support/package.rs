//! Programs of other releases of Debian than this machine's: fetched once, kept outside the repository, unpacked and not
//! installed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::debian::{cache, mirror};
use super::is_there;

/// A program of a package of a release.
#[derive(Clone, Copy)]
pub(crate) struct Packaged {
    pub(crate) package: &'static str,
    pub(crate) release: &'static str,
    /// Where it is, without a slash at its front.
    pub(crate) path: &'static str,
}

static FETCHED: Mutex<BTreeMap<&str, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());

impl Packaged {
    /// Says loudly when it cannot be had, and fails in CI, which has to have it.
    #[track_caller]
    #[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
    pub(crate) fn program(self, test: &str) -> Option<PathBuf> {
        if !is_there("apt-get", test) || !is_there("dpkg", test) {
            return None;
        }
        let mut fetched = FETCHED.lock().unwrap();
        match fetched.entry(self.package).or_insert_with(|| self.fetched()) {
            Ok(root) => Some(root.join(self.path)),
            Err(reason) => {
                let package = self.package;
                eprintln!("SKIPPED, NEEDS {package}: {test}: {reason}");
                assert!(std::env::var_os("CI").is_none(), "CI has to have {package} for {test}: {reason}");
                None
            }
        }
    }

    fn fetched(self) -> Result<PathBuf, String> {
        let (cache, _lock) = cache();
        let root = cache.join(format!("{}-{}", self.package, self.release));
        if !root.exists() {
            let part = root.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            self.fetch(&part)?;
            fs::rename(&part, &root).map_err(|error| error.to_string())?;
        }
        Ok(root.join("root"))
    }

    /// With package lists of its own: those of the machine stay as they are.
    fn fetch(self, part: &Path) -> Result<(), String> {
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(part.join(directory)).unwrap();
        }
        let mirror = mirror().ok_or("the system's package sources name no mirror")?;
        fs::write(part.join("sources.list"), format!("deb {mirror} {} main\n", self.release)).unwrap();
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
        apt(&["download", self.package])?;
        let mut files = fs::read_dir(part).unwrap().map(|entry| entry.unwrap().path());
        let package = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let package = package.ok_or("no package was downloaded")?;
        succeed(Command::new("dpkg").arg("-x").arg(package).arg(part.join("root")))
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
