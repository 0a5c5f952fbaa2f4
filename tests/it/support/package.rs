//! Programs of other releases of Debian than this machine's: fetched once, kept outside the repository, unpacked and not
//! installed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use super::debian::packages;
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
        match fetched.entry(self.package).or_insert_with(|| packages(self.release, &[self.package])) {
            Ok(root) => Some(root.join(self.path)),
            Err(reason) => {
                let package = self.package;
                eprintln!("SKIPPED, NEEDS {package}: {test}: {reason}");
                assert!(std::env::var_os("CI").is_none(), "CI has to have {package} for {test}: {reason}");
                None
            }
        }
    }
}
