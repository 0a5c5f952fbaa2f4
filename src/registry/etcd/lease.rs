//! etcd's leases: a time to live, and the keys that end with it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Rights};
use super::fault::Failure;
use super::wire::{bytes, number};
use crate::registry::Result;
use crate::registry::http::HttpCause;

/// A lease's number, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::registry) struct LeaseId(i64);

impl LeaseId {
    /// The lease that a key is on; none where it stays until it is deleted.
    pub(in crate::registry) fn of_key(number: i64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// One that nobody has.
    pub(super) fn random() -> Self {
        Self(fastrand::i64(1..))
    }

    /// As it goes over the wire.
    pub(in crate::registry) fn get(self) -> i64 {
        self.0
    }
}

/// As etcdctl writes it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for LeaseId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        i64::from_str_radix(text, 16).map(Self)
    }
}

/// How a lease fares.
#[derive(Debug)]
pub(in crate::registry) struct Remaining {
    /// How long it has got.
    pub(in crate::registry) left: Duration,
    /// How long a renewal makes it.
    pub(in crate::registry) granted: Duration,
}

#[derive(Deserialize)]
struct Renewed {
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    ttl: i64,
    #[serde(default, rename = "grantedTTL", deserialize_with = "number")]
    granted: i64,
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key(#[serde(deserialize_with = "bytes")] Vec<u8>);

/// What a new lease is asked for with.
pub(super) fn grant_body(id: LeaseId, ttl: Duration) -> String {
    json!({"TTL": ttl.as_secs().max(1).to_string(), "ID": id.get().to_string()}).to_string()
}

/// What a lease is renewed or ended with.
pub(super) fn body(id: LeaseId) -> String {
    json!({"ID": id.get().to_string()}).to_string()
}

impl Client {
    /// A new lease. Very short ones are made longer by etcd. Its number is ours to choose, so that a grant sent again
    /// because its answer was lost is no second one.
    pub(in crate::registry) async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let id = LeaseId::random();
        match self.ask("lease/grant", &grant_body(id, ttl), Rights::Needed).await {
            Ok(_) => Ok(id),
            Err(Failure::Refused(fault)) if fault.is_lease_there() => Ok(id),
            Err(failure) => Err(self.error(failure)),
        }
    }

    /// Renews a lease. False where there is none.
    pub(in crate::registry) async fn keep_alive(&self, id: LeaseId) -> Result<bool> {
        Ok(self.keep_all_alive(&[id]).await?.first().copied().unwrap_or_default())
    }

    /// Renews many leases in one call: for each, in order, whether there is one.
    pub(in crate::registry) async fn keep_all_alive(&self, ids: &[LeaseId]) -> Result<Vec<bool>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let body: String = ids.iter().copied().map(body).collect();
        let answer = self.ask("lease/keepalive", &body, Rights::NotNeeded).await;
        let answers = match answer.map_err(|failure| self.error(failure))? {
            Value::Array(answers) => answers,
            answer => vec![answer],
        };
        if answers.len() != ids.len() {
            let fault = format!("{} answers to {} renewals", answers.len(), ids.len());
            return Err(self.error(HttpCause::Nonsense(fault).into()));
        }
        let renewed = |mut answer: Value| {
            let renewed: Renewed = self.parse(answer["result"].take())?;
            // An unknown lease is told by what is not there.
            Ok(renewed.ttl > 0)
        };
        answers.into_iter().map(renewed).collect()
    }

    /// Ends a lease, and with it its keys. False where there is none.
    pub(in crate::registry) async fn revoke(&self, id: LeaseId) -> Result<bool> {
        match self.ask("lease/revoke", &body(id), Rights::Needed).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(fault)) if fault.is_no_lease() => Ok(false),
            Err(failure) => Err(self.error(failure)),
        }
    }

    /// How a lease fares; none where there is none.
    pub(in crate::registry) async fn time_to_live(&self, id: LeaseId) -> Result<Option<Remaining>> {
        let told = self.told(json!({"ID": id.get().to_string()})).await?;
        let seconds = |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(told.map(|told| Remaining { left: seconds(told.ttl), granted: seconds(told.granted) }))
    }

    /// What ends with a lease; none where there is none. Whoever asks has to have the right to read all of it.
    pub(in crate::registry) async fn keys_on(&self, id: LeaseId) -> Result<Option<Vec<Vec<u8>>>> {
        let told = self.told(json!({"ID": id.get().to_string(), "keys": true})).await?;
        Ok(told.map(|told| told.keys.into_iter().map(|key| key.0).collect()))
    }

    async fn told(&self, body: Value) -> Result<Option<Told>> {
        match self.ask("lease/timetolive", &body.to_string(), Rights::Needed).await {
            Ok(answer) => Ok(Some(self.parse::<Told>(answer)?).filter(|told| told.ttl >= 0)),
            Err(Failure::Refused(fault)) if fault.is_no_lease() => Ok(None),
            Err(failure) => Err(self.error(failure)),
        }
    }
}
