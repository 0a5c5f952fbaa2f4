//! The open file: finding, making and checking it, and its transactions.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, ffi};
use tokio::time::Instant;

use super::fault::Fault;
use super::format::{self, Format};
use super::services;

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a write outlives once it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// A crash of any process (`PRAGMA synchronous = NORMAL`).
    Process,
    /// A power failure as well (`FULL`).
    Full,
}

pub(super) struct Store {
    connection: Connection,
    durability: Durability,
}

/// The open file in `slot`, opened again when there is none or another file now has its name: writing into one
/// that was deleted would keep nobody listed.
pub(super) fn usable<'a>(slot: &'a mut Option<Store>, path: &Path) -> Result<&'a mut Store, Fault> {
    if slot.as_ref().is_some_and(Store::has_moved) {
        *slot = None;
    }
    match slot {
        Some(store) => Ok(store),
        None => Ok(slot.insert(Store::open(path)?)),
    }
}

impl Store {
    /// Opens the file. While others are making it, SQLite does not wait for them: so we do.
    fn open(path: &Path) -> Result<Self, Fault> {
        let give_up = Instant::now() + BUSY_TIMEOUT;
        loop {
            match Self::open_now(path) {
                Err(fault) if fault.is_busy() && Instant::now() < give_up => pause(),
                outcome => return outcome,
            }
        }
    }

    fn open_now(path: &Path) -> Result<Self, Fault> {
        prepare(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // In one transaction: another process may be making the schema just now.
        let file = connection.transaction()?;
        let format = Format::of(&file)?;
        drop(file);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // In KiB: a wrapper works on a page or two at a time, and is to stay small.
        connection.pragma_update(None, "cache_size", -256)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        if format != Format::Current {
            format::make(&mut connection)?;
        }
        Ok(Self { connection, durability: Durability::Full })
    }

    pub(super) fn has_moved(&self) -> bool {
        let mut moved: std::ffi::c_int = 0;
        // SAFETY: the handle is open for as long as the connection is, and SQLITE_FCNTL_HAS_MOVED writes one int.
        let code = unsafe {
            ffi::sqlite3_file_control(
                self.connection.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_HAS_MOVED,
                std::ptr::from_mut(&mut moved).cast(),
            )
        };
        code == ffi::SQLITE_OK && moved != 0
    }

    /// A transaction that may write, at once.
    pub(super) fn begin(&mut self, durability: Durability) -> Result<Transaction<'_>, Fault> {
        self.make_durable(durability)?;
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    /// One transaction that settles the dead, then does `job`.
    pub(super) fn write<T>(
        &mut self,
        durability: Durability,
        job: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut file = self.begin(durability)?;
        if services::settle_the_dead(&file)? == 0 {
            let outcome = job(&file)?;
            file.commit()?;
            return Ok(outcome);
        }
        // The dead are gone whatever becomes of the job.
        let part = file.savepoint()?;
        let outcome = job(&part);
        if outcome.is_ok() { part.commit() } else { part.finish() }?;
        file.commit()?;
        outcome
    }

    /// One transaction that does `job` on the living: only if somebody has died does it write.
    pub(super) fn read<T>(&mut self, job: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let file = self.connection.transaction()?;
        if !services::anyone_died(&file)? {
            return job(&file);
        }
        drop(file);
        self.write(Durability::Process, job)
    }

    fn make_durable(&mut self, durability: Durability) -> Result<(), Fault> {
        if self.durability != durability {
            let level = match durability {
                Durability::Process => "NORMAL",
                Durability::Full => "FULL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = durability;
        }
        Ok(())
    }
}

impl std::ops::Deref for Store {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own waits here, nobody waits for it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Makes the file and its directories where they are missing.
pub(super) fn prepare(path: &Path) -> Result<(), Fault> {
    make_file(path).map_err(|source| Fault::file(path.display().to_string(), source))
}

/// Makes the file and its directories where they are missing. In a directory that others of its group (or all)
/// may write to, they may write to the file too: SQLite gives its companions (`-wal`, `-shm`) the same mode.
fn make_file(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        // The XDG specification asks for 0700; root's is for everybody to see.
        let mode = if nix::unistd::geteuid().is_root() { 0o755 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    }
    let file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        // The directory may be closed to us and the file still be ours to write to: SQLite will tell.
        Err(_) if path.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    let owner = fs::metadata(directory)?;
    // Whoever the directory is for must not be locked out by root's having looked first.
    if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    let shared = owner.permissions().mode() & 0o022;
    if shared != 0 {
        let mode = file.metadata()?.permissions().mode();
        // Who may write may also read.
        file.set_permissions(fs::Permissions::from_mode(mode | shared | shared << 1))?;
    }
    Ok(())
}
