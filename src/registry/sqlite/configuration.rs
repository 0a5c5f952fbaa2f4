use rusqlite::{Connection, OptionalExtension, named_params};

use super::events;
use super::fault::Fault;
use crate::model::{ConfigurationId, ConfigurationValue, EventBody, Marker, Namespace, Page};
use crate::registry::{ConfigurationQuery, Object};

/// The statement that reads a value.
pub(super) const GET: &str = "SELECT value FROM configuration_value WHERE id = ?1";

pub(super) fn get(file: &Connection, id: &ConfigurationId) -> Result<ConfigurationValue, Fault> {
    let value = current(file, id)?.ok_or_else(|| no_value(id))?;
    Ok(ConfigurationValue::new(id.clone(), value)?)
}

pub(super) fn list(
    file: &Connection,
    query: &ConfigurationQuery,
) -> Result<Page<ConfigurationValue, ConfigurationId>, Fault> {
    // `0` is the character after `/`: what lies between is in the namespace.
    let sql = "SELECT id, value FROM configuration_value
               WHERE id >= :marker
                 AND (:namespace IS NULL OR id = :namespace
                      OR (id >= :namespace || '/' AND id < :namespace || '0'))
               ORDER BY id LIMIT :limit";
    let mut statement = file.prepare(sql)?;
    let rows = statement.query_map(
        named_params! {
            ":marker": query.page.marker.as_ref().map_or("", Marker::as_str),
            ":namespace": query.namespace.as_ref().map(Namespace::as_str),
            ":limit": query.page.limit.get() + 1,
        },
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    )?;
    let values = rows
        .map(|row| {
            let (id, value) = row?;
            Ok(ConfigurationValue::new(ConfigurationId::new(id)?, value)?)
        })
        .collect::<Result<_, Fault>>()?;
    Ok(Page::from_lookahead(values, query.page.limit, |value: &ConfigurationValue| value.id.clone()))
}

/// Sets a value; a new one only while there are less than `limit`.
pub(super) fn set(file: &Connection, value: &ConfigurationValue, limit: Option<u64>) -> Result<(), Fault> {
    let old_value = current(file, &value.id)?;
    if old_value.is_none() {
        make_sure_of_room(file, limit)?;
    }
    if old_value.as_deref() == Some(value.value()) {
        return Ok(());
    }
    file.execute(
        "INSERT INTO configuration_value (id, value) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET value = excluded.value",
        [value.id.as_str(), value.value()],
    )?;
    let new_value = value.value().to_owned();
    let configuration_value_id = value.id.clone();
    events::append(file, &EventBody::ConfigurationUpdate { old_value, new_value, configuration_value_id })
}

pub(super) fn remove(file: &Connection, id: &ConfigurationId) -> Result<(), Fault> {
    let sql = "DELETE FROM configuration_value WHERE id = ?1 RETURNING value";
    let removed = file.query_row(sql, [id.as_str()], |row| row.get(0)).optional()?;
    let old_value = removed.ok_or_else(|| no_value(id))?;
    events::append(file, &EventBody::ConfigurationRemove { old_value, configuration_value_id: id.clone() })
}

fn current(file: &Connection, id: &ConfigurationId) -> Result<Option<String>, Fault> {
    Ok(file.query_row(GET, [id.as_str()], |row| row.get(0)).optional()?)
}

fn make_sure_of_room(file: &Connection, limit: Option<u64>) -> Result<(), Fault> {
    let Some(limit) = limit else { return Ok(()) };
    let count: u64 = file.query_row("SELECT count(*) FROM configuration_value", [], |row| row.get(0))?;
    if count < limit {
        return Ok(());
    }
    Err(Fault::LimitReached { object: Object::ConfigurationValue, limit })
}

fn no_value(id: &ConfigurationId) -> Fault {
    Fault::NotFound { object: Object::ConfigurationValue, id: id.to_string() }
}
