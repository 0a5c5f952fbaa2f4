use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde_json::json;

use super::configuration;
use super::events;
use super::fault::Fault;
use super::uptime_millis;
use crate::model::{
    Drained, EventKind, HeartbeatTimeout, Marker, Page, Registration, Service, ServiceId, ServiceUpdate,
    Tags, Timestamp, Token,
};
use crate::registry::clock::{self, Ticks, living};
use crate::registry::rehearsal::{DRAINED, Rehearsal, Rehearsed, Step, TOKEN};
use crate::registry::{Claim, IfTaken, Object, Owner, ServiceQuery};

/// Who is alive at a time, as bounds for SQL, in milliseconds since boot.
struct Living {
    /// The deadlines of the living.
    deadlines: RangeInclusive<i64>,
    /// When a host was last seen that counts as running.
    hosts: RangeInclusive<i64>,
}

impl Living {
    /// How long hosted services stay listed when nothing is heard of their host. While it is away they cannot renew
    /// themselves; for ever, they cannot be told from the dead.
    const HOST_GRACE: Duration = Duration::from_secs(3600);

    fn at(now: i64) -> Self {
        let grace = clock::millis(Self::HOST_GRACE);
        // A host that was seen in the future was seen before the last boot: it has its time since then.
        let hosts = if now > grace { now - grace..=now } else { i64::MIN..=i64::MAX };
        Self { deadlines: living(now), hosts }
    }

    fn bounds(&self) -> [i64; 4] {
        [*self.deadlines.start(), *self.deadlines.end(), *self.hosts.start(), *self.hosts.end()]
    }
}

/// Whether a service has died that has not been settled.
pub(super) fn anyone_died(file: &Connection) -> Result<bool, Fault> {
    anyone_died_at(file, &Living::at(uptime_millis()?))
}

fn anyone_died_at(file: &Connection, living: &Living) -> Result<bool, Fault> {
    // Each of its own, so that each is a look into the index.
    let sql = "SELECT EXISTS (SELECT 1 FROM service WHERE deadline < ?1)
                   OR EXISTS (SELECT 1 FROM service WHERE deadline > ?2)
                   OR ((SELECT host_seen NOT BETWEEN ?3 AND ?4 FROM registry)
                       AND EXISTS (SELECT 1 FROM service WHERE deadline IS NULL))";
    Ok(file.prepare_cached(sql)?.query_row(living.bounds(), |row| row.get(0))?)
}

/// Removes the dead, with one `service.timeout` for each: their deadline has passed, or they are hosted and their host
/// is gone for good. Says how many there were.
pub(super) fn settle_the_dead(file: &Connection) -> Result<usize, Fault> {
    settle_the_dead_at(file, &Living::at(uptime_millis()?))
}

fn settle_the_dead_at(file: &Connection, living: &Living) -> Result<usize, Fault> {
    if !anyone_died_at(file, living)? {
        return Ok(0);
    }
    let sql = "DELETE FROM service
               WHERE deadline < ?1 OR deadline > ?2
                  OR (deadline IS NULL AND (SELECT host_seen NOT BETWEEN ?3 AND ?4 FROM registry))
               RETURNING registration";
    let mut statement = file.prepare(sql)?;
    let dead = statement.query_map(living.bounds(), |row| row.get::<_, String>(0))?;
    let dead = dead.collect::<Result<Vec<_>, _>>()?;
    for registration in &dead {
        events::append_raw(file, EventKind::ServiceTimeout, registration)?;
    }
    Ok(dead.len())
}

/// Enters a service.
const ENTER: &str =
    "INSERT INTO service (id, registration, heartbeat_timeout, deadline, token, instance, holder)
     VALUES (:id, :registration, :heartbeat_timeout, :deadline, :token, :instance, :holder)
     ON CONFLICT (id) DO UPDATE SET
         registration = excluded.registration, heartbeat_timeout = excluded.heartbeat_timeout,
         deadline = excluded.deadline, token = excluded.token, previous_token = NULL";
/// Renews it.
const RENEW: &str = "UPDATE service
     SET deadline = :uptime + 1000 * heartbeat_timeout, last_seen = :now, previous_token = :token,
         token = CASE token WHEN :token THEN :next ELSE token END
     WHERE id = :id AND (token = :token OR (previous_token = :token AND instance = :instance))
     RETURNING token";

/// Takes it out.
const REMOVE: &str = "DELETE FROM service WHERE id = ?1";

/// What would be done in the file at `path`, each with its event in the same transaction.
pub(super) fn rehearsal(path: &str, registration: &Registration, claim: &Claim) -> Rehearsal {
    let (id, instance) = (&registration.id, claim.instance.to_string());
    let row = json!({
        "id": id, "registration": registration, "heartbeat_timeout": registration.heartbeat_timeout.as_secs(),
        "deadline": "<now + heartbeat_timeout>", "token": TOKEN, "instance": instance, "holder": claim.holder,
    });
    let renewed =
        json!({"id": id, "token": TOKEN, "next": "<next token>", "instance": instance, "uptime": "<now>"});
    let look = json!({"id": Drained::key(id)});
    let requests = [
        (Step::Registration, configuration::GET, look, DRAINED),
        (Step::Registration, ENTER, row, "with its event service.join, unless the id is taken"),
        (Step::Heartbeat, RENEW, renewed, ""),
        (
            Step::Deregistration,
            REMOVE,
            json!({"id": id}),
            "with its event service.remove, if it is still ours",
        ),
    ];
    let rehearsed = |(step, sql, values, note): (Step, &str, serde_json::Value, _)| {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        Rehearsed::new(step, "execute", path.to_owned(), json!({"sql": sql, "values": values}), note)
    };
    Rehearsal { requests: requests.map(rehearsed).into(), stand_ins: Vec::new() }
}

/// Who has an id.
struct Holding {
    registration: String,
    instance: String,
    holder: String,
    /// None for a hosted service.
    deadline: Option<i64>,
}

fn holding(file: &Connection, id: &ServiceId) -> Result<Option<Holding>, Fault> {
    let sql = "SELECT registration, instance, holder, deadline FROM service WHERE id = ?1";
    let found = file.query_row(sql, [id.as_str()], |row| {
        Ok(Holding {
            registration: row.get(0)?,
            instance: row.get(1)?,
            holder: row.get(2)?,
            deadline: row.get(3)?,
        })
    });
    Ok(found.optional()?)
}

/// How the life of a service is kept.
pub(super) struct Keeping {
    /// What its next heartbeat presents; of a hosted service, what its tokens are made with.
    pub(super) token: Token,
    /// When it is dead, in milliseconds since boot; none where its host keeps the time.
    pub(super) deadline: Option<i64>,
    /// How many services the registry takes.
    pub(super) limit: Option<u64>,
}

impl Keeping {
    /// In the file alone.
    pub(super) fn in_file(timeout: HeartbeatTimeout) -> Result<Self, Fault> {
        let deadline = uptime_millis()? + clock::millis(timeout.as_duration());
        Ok(Self { token: issue_token(), deadline: Some(deadline), limit: None })
    }
}

pub(super) fn register(
    file: &Connection,
    registration: &Registration,
    claim: &Claim,
    keeping: &Keeping,
) -> Result<(), Fault> {
    let id = &registration.id;
    let mut is_new = true;
    if let Some(held) = holding(file, id)? {
        if held.instance == claim.instance.to_string() {
            is_new = false;
        } else if claim.if_taken == IfTaken::TakeOver {
            remove(file, id, &held.registration)?;
        } else {
            let now = uptime_millis()?;
            let left = |deadline| Duration::from_millis(u64::try_from(deadline - now).unwrap_or_default());
            let frees_in = held.deadline.map(left);
            return Err(Fault::Conflict { id: id.clone(), holder: held.holder, frees_in });
        }
    }
    if is_new {
        make_sure_of_room(file, keeping.limit)?;
    }
    let json = serde_json::to_string(registration)?;
    file.execute(
        ENTER,
        named_params! {
            ":id": id.as_str(),
            ":registration": json,
            ":heartbeat_timeout": registration.heartbeat_timeout.as_secs(),
            ":deadline": keeping.deadline,
            ":token": keeping.token.as_str(),
            ":instance": claim.instance.to_string(),
            ":holder": claim.holder,
        },
    )?;
    set_tags(file, id, &registration.tags)?;
    if is_new {
        events::append_raw(file, EventKind::ServiceJoin, &json)?;
    }
    Ok(())
}

fn make_sure_of_room(file: &Connection, limit: Option<u64>) -> Result<(), Fault> {
    let Some(limit) = limit else { return Ok(()) };
    if count(file)? < limit {
        return Ok(());
    }
    Err(Fault::LimitReached { object: Object::Service, limit })
}

/// How many services there are.
pub(super) fn count(file: &Connection) -> Result<u64, Fault> {
    Ok(file.prepare_cached("SELECT services FROM registry")?.query_row([], |row| row.get(0))?)
}

pub(super) fn heartbeat(
    file: &Connection,
    id: &ServiceId,
    token: &Token,
    whose: Owner,
) -> Result<Token, Fault> {
    let instance = match whose {
        Owner::Anyone => None,
        Owner::Instance(instance) => Some(instance.to_string()),
    };
    // Presented again, the token before the current one gets the same answer: the first one was lost.
    let next = file.prepare_cached(RENEW)?.query_row(
        named_params! {
            ":uptime": uptime_millis()?,
            ":now": Timestamp::now().as_millis(),
            ":token": token.as_str(),
            ":next": issue_token().as_str(),
            ":instance": instance,
            ":id": id.as_str(),
        },
        |row| row.get::<_, String>(0),
    );
    match next.optional()? {
        Some(next) => Ok(Token::new(next)),
        None => Err(not_found(file, id)?),
    }
}

pub(super) fn deregister(file: &Connection, id: &ServiceId, whose: Owner) -> Result<(), Fault> {
    let held = holding(file, id)?.filter(|held| match whose {
        Owner::Anyone => true,
        Owner::Instance(instance) => held.instance == instance.to_string(),
    });
    match held {
        Some(held) => remove(file, id, &held.registration),
        None => Err(no_service(id)),
    }
}

pub(super) fn update(file: &Connection, id: &ServiceId, update: ServiceUpdate) -> Result<(), Fault> {
    let held = holding(file, id)?.ok_or_else(|| no_service(id))?;
    let mut registration: Registration = serde_json::from_str(&held.registration)?;
    registration.heartbeat_timeout = update.heartbeat_timeout.unwrap_or(registration.heartbeat_timeout);
    registration.metadata = update.metadata.unwrap_or(registration.metadata);
    registration.tags = update.tags.unwrap_or(registration.tags);
    file.execute(
        "UPDATE service SET registration = ?2, heartbeat_timeout = ?3 WHERE id = ?1",
        (id.as_str(), serde_json::to_string(&registration)?, registration.heartbeat_timeout.as_secs()),
    )?;
    set_tags(file, id, &registration.tags)
}

pub(super) fn get(file: &Connection, id: &ServiceId) -> Result<Service, Fault> {
    let sql = "SELECT registration, last_seen FROM service WHERE id = ?1";
    let found = file.query_row(sql, [id.as_str()], columns).optional()?;
    service(found.ok_or_else(|| no_service(id))?)
}

pub(super) fn list(file: &Connection, query: &ServiceQuery) -> Result<Page<Service, ServiceId>, Fault> {
    let sql = "SELECT registration, last_seen FROM service
               WHERE id >= :marker
                 AND (:tag IS NULL OR id IN (SELECT service_id FROM service_tag WHERE tag = :tag))
               ORDER BY id LIMIT :limit";
    let mut statement = file.prepare(sql)?;
    let rows = statement.query_map(
        named_params! {
            ":marker": query.page.marker.as_ref().map_or("", Marker::as_str),
            ":tag": query.tag.as_ref().map(crate::model::Tag::as_str),
            ":limit": query.page.limit.get() + 1,
        },
        columns,
    )?;
    let services = rows.map(|row| service(row?)).collect::<Result<_, Fault>>()?;
    Ok(Page::from_lookahead(services, query.page.limit, |service: &Service| service.registration.id.clone()))
}

fn columns(row: &Row<'_>) -> rusqlite::Result<(String, Option<u64>)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn service((registration, last_seen): (String, Option<u64>)) -> Result<Service, Fault> {
    let last_seen = last_seen.map(Timestamp::from_millis);
    Ok(Service { registration: serde_json::from_str(&registration)?, last_seen })
}

fn remove(file: &Connection, id: &ServiceId, registration: &str) -> Result<(), Fault> {
    file.execute(REMOVE, [id.as_str()])?;
    events::append_raw(file, EventKind::ServiceRemove, registration)
}

fn set_tags(file: &Connection, id: &ServiceId, tags: &Tags) -> Result<(), Fault> {
    file.execute("DELETE FROM service_tag WHERE service_id = ?1", [id.as_str()])?;
    let mut statement =
        file.prepare("INSERT OR IGNORE INTO service_tag (tag, service_id) VALUES (?1, ?2)")?;
    for tag in tags.iter() {
        statement.execute([tag.as_str(), id.as_str()])?;
    }
    Ok(())
}

/// Tokens are version 1 UUIDs, as the API has them.
fn issue_token() -> Token {
    Token::new(Ticks::now().uuid().to_string())
}

fn no_service(id: &ServiceId) -> Fault {
    Fault::NotFound { object: Object::Service, id: id.to_string() }
}

fn not_found(file: &Connection, id: &ServiceId) -> Result<Fault, Fault> {
    let is_listed = holding(file, id)?.is_some();
    let object = if is_listed { Object::HeartbeatToken } else { Object::Service };
    Ok(Fault::NotFound { object, id: id.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceId;
    use crate::registry::sqlite::format;

    /// How many of one hosted service are settled at `now`, its host last seen at `seen`.
    fn settled(seen: i64, now: i64) -> usize {
        let mut file = Connection::open_in_memory().unwrap();
        format::make(&mut file).unwrap();
        let json = serde_json::json!({"id": "web1", "heartbeat_timeout": 3});
        let registration: Registration = serde_json::from_value(json).unwrap();
        let (instance, holder) = (InstanceId::unique(), "the test".to_owned());
        let claim = Claim { instance, holder, if_taken: IfTaken::Refuse };
        let keeping = Keeping { token: issue_token(), deadline: None, limit: None };
        register(&file, &registration, &claim, &keeping).unwrap();
        file.execute("UPDATE registry SET host_seen = ?1", [seen]).unwrap();
        settle_the_dead_at(&file, &Living::at(now)).unwrap()
    }

    #[test]
    fn hosted_services_outlive_their_host_by_an_hour() {
        const HOUR: i64 = 3_600_000;
        assert_eq!(settled(5 * HOUR, 6 * HOUR), 0);
        assert_eq!(settled(5 * HOUR, 6 * HOUR + 1), 1);
        // Seen before the last boot.
        assert_eq!(settled(50 * HOUR, HOUR), 0);
        assert_eq!(settled(50 * HOUR, HOUR + 1), 1);
    }
}
