//! The open file: finding, making and checking it, and its transactions.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, ffi};
use tokio::time::Instant;

use super::clock::Ticks;
use super::fault::Fault;
use super::services;
use crate::registry::Cause;

/// `SRWR`: what the header of our files says, for `file(1)` and for us.
const APPLICATION_ID: u32 = 0x5352_5752;
/// The format that this program makes, in the header's user version.
const FORMAT: u32 = 1;
/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE registry (
        created INTEGER NOT NULL            -- ticks
    );
    CREATE TABLE service (
        id TEXT PRIMARY KEY,
        registration TEXT NOT NULL,         -- JSON: id, heartbeat_timeout, tags, metadata
        heartbeat_timeout INTEGER NOT NULL, -- seconds
        last_seen INTEGER,                  -- milliseconds since 1970
        deadline INTEGER NOT NULL,          -- milliseconds since boot
        token TEXT NOT NULL,                -- what the next heartbeat presents
        previous_token TEXT,                -- what the last one presented: its answer may have been lost
        instance TEXT NOT NULL,             -- who registered
        holder TEXT NOT NULL                -- the same in words
    );
    CREATE INDEX service_deadline ON service (deadline);
    CREATE TABLE service_tag (
        tag TEXT NOT NULL,
        service_id TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
        PRIMARY KEY (tag, service_id)
    ) WITHOUT ROWID;
    CREATE INDEX service_tag_service ON service_tag (service_id);
    CREATE TABLE event (
        ticks INTEGER PRIMARY KEY,          -- the time in its id: unique, ever growing
        id TEXT NOT NULL,                   -- version 1 UUID
        type TEXT NOT NULL,
        payload TEXT NOT NULL               -- JSON
    );
    CREATE TABLE configuration_value (
        id TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
";

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
        make_file(path).map_err(|source| Fault::file(path.display().to_string(), source))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // In one transaction: another process may be making the schema just now.
        let file = connection.transaction()?;
        let is_new = check_format(&file)?;
        drop(file);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // In KiB: a wrapper works on a page or two at a time, and is to stay small.
        connection.pragma_update(None, "cache_size", -256)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        if is_new {
            make_schema(&mut connection)?;
        }
        Ok(Self { connection, durability: Durability::Full })
    }

    fn has_moved(&self) -> bool {
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

    /// One transaction that settles the dead, then does `job`.
    pub(super) fn write<T>(
        &mut self,
        durability: Durability,
        job: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.make_durable(durability)?;
        let mut file = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !services::settle_the_dead(&file)? {
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

#[expect(clippy::disallowed_methods, reason = "a thread of its own waits here, nobody waits for it")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
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

/// Whether the file is still empty.
///
/// # Errors
/// When it is not ours, or of a format that we do not know.
fn check_format(connection: &Connection) -> Result<bool, Fault> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    // The header has four bytes for each, which SQLite reads as signed.
    let unsigned = |number: i64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    let application_id = unsigned(number("application_id")?);
    if application_id == APPLICATION_ID {
        let found = unsigned(number("user_version")?);
        if found > FORMAT {
            return Err(Fault::Because(Cause::Newer { found, known: FORMAT }));
        }
        return Ok(false);
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id != 0 || tables != 0 {
        return Err(Fault::Because(Cause::Foreign { application_id }));
    }
    Ok(true)
}

fn make_schema(connection: &mut Connection) -> Result<(), Fault> {
    let file = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if check_format(&file)? {
        file.execute_batch(SCHEMA)?;
        file.execute("INSERT INTO registry (created) VALUES (?1)", [Ticks::now().0])?;
        file.pragma_update(None, "application_id", APPLICATION_ID)?;
        file.pragma_update(None, "user_version", FORMAT)?;
        file.commit()?;
    }
    Ok(())
}
