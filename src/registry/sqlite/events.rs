use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params};
use uuid::Uuid;

use super::fault::Fault;
use crate::model::{self, Event, EventBody, EventKind, MarkerFault, Page};
use crate::registry::EventQuery;
use crate::registry::clock::Ticks;

/// How long events are kept.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far back a list without a marker goes.
const RECENT: Duration = Duration::from_secs(3600);

pub(super) fn append(file: &Connection, body: &EventBody) -> Result<(), Fault> {
    let payload = serde_json::to_value(body)?["payload"].to_string();
    append_raw(file, body.kind(), &payload)
}

/// Appends an event whose payload is JSON already. Its time is after that of every other event, even when the
/// wall clock was put back: the log never grows behind a marker that somebody holds.
pub(super) fn append_raw(file: &Connection, kind: EventKind, payload: &str) -> Result<(), Fault> {
    let now = Ticks::now();
    let ticks = latest(file)?.map_or(now, |Ticks(last)| now.max(Ticks(last + 1)));
    file.execute(
        "INSERT INTO event (ticks, id, type, payload) VALUES (?1, ?2, ?3, ?4)",
        (ticks.0, ticks.uuid().to_string(), kind.as_str(), payload),
    )?;
    file.execute("DELETE FROM event WHERE ticks < ?1", [now.before(RETENTION).0])?;
    Ok(())
}

pub(super) fn list(file: &Connection, query: &EventQuery) -> Result<Page<Event, Uuid>, Fault> {
    let from = match &query.page.marker {
        Some(marker) => within_log(file, marker)?,
        None => Ticks::now().before(RECENT),
    };
    let sql = "SELECT ticks, id, type, payload FROM event
               WHERE ticks >= :from AND (:type IS NULL OR type = :type)
               ORDER BY ticks LIMIT :limit";
    let mut statement = file.prepare(sql)?;
    let rows = statement.query_map(
        named_params! {
            ":from": from.0,
            ":type": query.kind.map(EventKind::as_str),
            ":limit": query.page.limit.get() + 1,
        },
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let events = rows.map(|row| event(row?)).collect::<Result<_, Fault>>()?;
    Ok(Page::from_lookahead(events, query.page.limit, |event: &Event| event.id))
}

fn event((ticks, id, kind, payload): (i64, String, String, String)) -> Result<Event, Fault> {
    let payload: serde_json::Value = serde_json::from_str(&payload)?;
    let timestamp = Ticks(ticks).timestamp();
    let event = serde_json::json!({"id": id, "timestamp": timestamp, "type": kind, "payload": payload});
    Ok(serde_json::from_value(event)?)
}

fn latest(file: &Connection) -> Result<Option<Ticks>, Fault> {
    let sql = "SELECT ticks FROM event ORDER BY ticks DESC LIMIT 1";
    Ok(file.query_row(sql, [], |row| row.get(0).map(Ticks)).optional()?)
}

/// The time of a marker, which must lie between the registry's making and now.
fn within_log(file: &Connection, marker: &Uuid) -> Result<Ticks, Fault> {
    let refuse = |fault| Err(Fault::from(model::Error::Marker { marker: *marker, fault }));
    let from = Ticks::of(marker)?;
    // The latest event can be ahead of a clock that was put back.
    if from > latest(file)?.map_or(Ticks::now(), |latest| latest.max(Ticks::now())) {
        return refuse(MarkerFault::InTheFuture);
    }
    let created = file.query_row("SELECT created FROM registry", [], |row| row.get(0).map(Ticks))?;
    if from < created {
        return refuse(MarkerFault::BeforeTheLog);
    }
    Ok(from)
}
