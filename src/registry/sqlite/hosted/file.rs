//! What a host reads and writes that nobody else does.

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::model::{EventKind, HeartbeatTimeout, ServiceId, Timestamp};
use crate::registry::hosted::leases::Lease;
use crate::registry::hosted::token::Seed;
use crate::registry::sqlite::events;
use crate::registry::sqlite::fault::Fault;
use crate::registry::sqlite::uptime_millis;

/// Lets everybody else know that hosted services are looked after.
pub(super) fn note_host(file: &Connection) -> Result<(), Fault> {
    file.prepare_cached("UPDATE registry SET host_seen = ?1")?.execute([uptime_millis()?])?;
    Ok(())
}

/// Goes up whenever a hosted service leaves the file or gets another timeout, by whomever.
pub(super) fn hosted_changes(file: &Connection) -> Result<i64, Fault> {
    Ok(file.prepare_cached("SELECT hosted_changes FROM registry")?.query_row([], |row| row.get(0))?)
}

/// The hosted services.
pub(super) fn hosted(file: &Connection) -> Result<Vec<(ServiceId, Lease)>, Fault> {
    let sql = "SELECT id, token, heartbeat_timeout, instance FROM service WHERE deadline IS NULL";
    let mut statement = file.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, String>(3)?))
    })?;
    rows.map(|row| {
        let (id, seed, timeout, instance) = row?;
        let timeout = HeartbeatTimeout::from_secs(timeout)?;
        Ok((ServiceId::new(id)?, Lease::new(Seed::read(&seed), timeout, instance.parse().ok())))
    })
    .collect()
}

/// Takes a dead service out, with its `service.timeout`, unless another life has its id by now. Says how many
/// that were.
pub(super) fn settle(file: &Connection, id: &ServiceId, seed: Seed) -> Result<usize, Fault> {
    let sql = "DELETE FROM service WHERE id = ?1 AND token = ?2 AND deadline IS NULL RETURNING registration";
    let mut statement = file.prepare_cached(sql)?;
    let removed = statement
        .query_row([id.as_str(), seed.written().as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(registration) = &removed {
        events::append_raw(file, EventKind::ServiceTimeout, registration)?;
    }
    Ok(removed.iter().count())
}

/// When hosted services were last seen.
pub(super) fn note_seen(file: &Connection, seen: &[(ServiceId, Timestamp)]) -> Result<(), Fault> {
    let sql = "UPDATE service SET last_seen = :time WHERE id = :id AND deadline IS NULL";
    let mut statement = file.prepare_cached(sql)?;
    for (id, time) in seen {
        statement.execute(named_params! { ":id": id.as_str(), ":time": time.as_millis() })?;
    }
    Ok(())
}
