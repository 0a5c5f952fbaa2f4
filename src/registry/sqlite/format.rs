//! The format of the file: its tables, and how an older one is brought up to date.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;
use crate::registry::Cause;
use crate::registry::clock::Ticks;

/// `SRWR`: what the header of our files says, for `file(1)` and for us.
const APPLICATION_ID: u32 = 0x5352_5752;
/// The format that this program makes, in the header's user version.
const FORMAT: u32 = 2;

const SERVICES: &str = "
    CREATE TABLE registry (
        created INTEGER NOT NULL,           -- ticks
        services INTEGER NOT NULL,          -- how many there are
        hosted_changes INTEGER NOT NULL,    -- goes up when a hosted service leaves or gets another timeout
        host_seen INTEGER NOT NULL          -- when a host was last known to run, in milliseconds since boot
    );
    CREATE TABLE service (
        id TEXT PRIMARY KEY,
        registration TEXT NOT NULL,         -- JSON: id, heartbeat_timeout, tags, metadata
        heartbeat_timeout INTEGER NOT NULL, -- seconds
        last_seen INTEGER,                  -- milliseconds since 1970
        deadline INTEGER,                   -- milliseconds since boot; null: hosted, its host has it in memory
        token TEXT NOT NULL,                -- what the next heartbeat presents; hosted: what its tokens are made with
        previous_token TEXT,                -- what the last one presented: its answer may have been lost
        instance TEXT NOT NULL,             -- who registered
        holder TEXT NOT NULL                -- the same in words
    );
    CREATE INDEX service_deadline ON service (deadline);
    CREATE TRIGGER service_entered AFTER INSERT ON service BEGIN
        UPDATE registry SET services = services + 1;
    END;
    CREATE TRIGGER service_left AFTER DELETE ON service BEGIN
        UPDATE registry SET services = services - 1, hosted_changes = hosted_changes + (OLD.deadline IS NULL);
    END;
    CREATE TRIGGER service_changed AFTER UPDATE OF heartbeat_timeout ON service
    WHEN OLD.deadline IS NULL AND NEW.heartbeat_timeout <> OLD.heartbeat_timeout BEGIN
        UPDATE registry SET hosted_changes = hosted_changes + 1;
    END;
    CREATE TABLE service_tag (
        tag TEXT NOT NULL,
        service_id TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
        PRIMARY KEY (tag, service_id)
    ) WITHOUT ROWID;
    CREATE INDEX service_tag_service ON service_tag (service_id);
";

const LOG: &str = "
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

/// What an older file has to say about services. They enter the new one by themselves.
const OUTDATED: &str = "
    DROP TABLE service_tag;
    DROP TABLE service;
    DROP TABLE registry;
";

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Nothing.
    Empty,
    /// What an earlier version of this program made.
    Outdated,
    /// What this program makes.
    Current,
}

impl Format {
    /// # Errors
    /// When the file is not ours, or of a format that we do not know.
    pub(super) fn of(file: &Connection) -> Result<Self, Fault> {
        let number = |pragma: &str| file.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        // The header has four bytes for each, which SQLite reads as signed.
        let unsigned = |number: i64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
        let application_id = unsigned(number("application_id")?);
        if application_id == APPLICATION_ID {
            return match unsigned(number("user_version")?) {
                FORMAT => Ok(Self::Current),
                found if found > FORMAT => Err(Fault::Because(Cause::Newer { found, known: FORMAT })),
                _ => Ok(Self::Outdated),
            };
        }
        let tables: i64 = file.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application_id != 0 || tables != 0 {
            return Err(Fault::Because(Cause::Foreign { application_id }));
        }
        Ok(Self::Empty)
    }
}

/// Gives the file the current format, whatever it has had.
pub(super) fn make(connection: &mut Connection) -> Result<(), Fault> {
    let file = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let created = match Format::of(&file)? {
        Format::Current => return Ok(()),
        Format::Empty => {
            file.execute_batch(LOG)?;
            Ticks::now()
        }
        Format::Outdated => {
            let created = file.query_row("SELECT created FROM registry", [], |row| row.get(0).map(Ticks))?;
            file.execute_batch(OUTDATED)?;
            created
        }
    };
    file.execute_batch(SERVICES)?;
    file.execute("INSERT INTO registry VALUES (?1, 0, 0, 0)", [created.0])?;
    file.pragma_update(None, "application_id", APPLICATION_ID)?;
    file.pragma_update(None, "user_version", FORMAT)?;
    Ok(file.commit()?)
}
