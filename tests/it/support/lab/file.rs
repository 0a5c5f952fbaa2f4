//! What can go wrong with a registry that is a file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A lock on a registry's file that its users wait for. Dropped, it is released.
pub(super) struct Lock(rusqlite::Connection);

impl Lock {
    /// Keeps everybody from writing. (From reading, nobody can keep those who have it open.)
    pub(super) fn on(file: &Path) -> Self {
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.execute_batch("ROLLBACK");
    }
}

/// A small file system of its own, which can be filled. Dropped, it is gone. It takes root.
pub(super) struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts one of 512 KiB at `directory`.
    #[track_caller]
    pub(super) fn mount(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=512k,mode=0755",
            "tmpfs",
            &directory.display().to_string(),
        ]);
        Self { directory: directory.to_owned() }
    }

    /// Takes the last byte there is.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives it all back.
    pub(super) fn clear(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.directory).status();
    }
}

#[track_caller]
fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}
