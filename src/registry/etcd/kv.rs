//! etcd's keys: reading them in pages, and changing several at once or none.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Client, Rights};
use super::fault::Failure;
use super::lease::LeaseId;
use super::wire::{Header, KeyValue, encoded, end_of};
use crate::model::printable;
use crate::registry::{HttpCause, Result};

/// How many keys are asked for at a time: more make an answer too long, and etcd busy.
const PAGE: usize = 1000;
/// How often a list is begun again that has become too old to be gone on with.
const RESTARTS: usize = 3;

/// Which keys are wanted.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Range {
    /// The first.
    pub(in crate::registry) key: Vec<u8>,
    /// Where they end, exclusive; none where one key is wanted.
    pub(in crate::registry) end: Option<Vec<u8>>,
    /// How many at most.
    pub(in crate::registry) limit: usize,
    /// As they were at this revision of the store; 0 is now.
    pub(in crate::registry) revision: i64,
}

impl Range {
    pub(in crate::registry) fn one(key: &str) -> Self {
        Self { key: key.as_bytes().to_owned(), end: None, limit: 1, revision: 0 }
    }

    /// All keys that begin with `prefix`, a page at most.
    pub(in crate::registry) fn prefix(prefix: &str) -> Self {
        let end = Some(end_of(prefix.as_bytes()));
        Self { key: prefix.as_bytes().to_owned(), end, limit: PAGE, revision: 0 }
    }

    /// Those of them from `key` on.
    pub(in crate::registry) fn from(self, key: &str) -> Self {
        Self { key: self.key.max(key.as_bytes().to_owned()), ..self }
    }

    pub(super) fn body(&self) -> Value {
        let mut body = json!({"key": encoded(&self.key), "limit": self.limit.to_string()});
        if let Some(end) = &self.end {
            body["range_end"] = encoded(end).into();
        }
        if self.revision != 0 {
            body["revision"] = self.revision.to_string().into();
        }
        body
    }
}

/// Whether what was found is not enough.
pub(in crate::registry) type GoesOn<'a> = dyn Fn(&[KeyValue]) -> bool + Send + Sync + 'a;

/// Keys, and of which revision.
#[derive(Debug, Default, Deserialize)]
pub(in crate::registry) struct Listing {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    pub(in crate::registry) kvs: Vec<KeyValue>,
    /// Whether there are more in the range.
    #[serde(default, rename = "more")]
    pub(in crate::registry) has_more: bool,
}

impl Listing {
    /// The revision of the store when it was looked at.
    pub(in crate::registry) fn revision(&self) -> i64 {
        self.header.revision
    }
}

/// Changes that are made all together, if the conditions hold.
#[derive(Debug, Default)]
pub(in crate::registry) struct Txn {
    compare: Vec<Value>,
    success: Vec<Value>,
    failure: Vec<Value>,
}

/// What came of them.
#[derive(Debug, Default, Deserialize)]
pub(in crate::registry) struct Outcome {
    #[cfg(feature = "server")]
    #[serde(default)]
    header: Header,
    /// Whether the conditions held, and all is done.
    #[serde(default, rename = "succeeded")]
    pub(in crate::registry) is_done: bool,
    #[serde(default)]
    responses: Vec<Map<String, Value>>,
}

impl Outcome {
    /// The revision of the store since.
    #[cfg(feature = "server")]
    pub(super) fn revision(&self) -> i64 {
        self.header.revision
    }

    /// What was found under each of the keys that were to be [looked at](Txn::or_get) otherwise, in that order.
    #[cfg(feature = "server")]
    pub(super) fn all_found(&self) -> Vec<Option<KeyValue>> {
        let listing =
            |response: &Map<String, Value>| Listing::deserialize(response.get("response_range")?).ok();
        let found = |response| listing(response).and_then(|listing| listing.kvs.into_iter().next());
        self.responses.iter().map(found).collect()
    }

    /// What was found under the one key that was to be [looked at](Txn::or_get) otherwise.
    pub(in crate::registry) fn found(&self) -> Option<KeyValue> {
        let response = self.responses.first()?.get("response_range")?;
        let listing = Listing::deserialize(response).ok()?;
        listing.kvs.into_iter().next()
    }
}

impl Txn {
    /// If the key is not there.
    pub(in crate::registry) fn if_absent(self, key: &str) -> Self {
        self.compare(key, "CREATE", json!({"create_revision": "0"}))
    }

    /// If the key is there.
    pub(in crate::registry) fn if_there(mut self, key: &str) -> Self {
        self.compare.push(json!({
            "key": encoded(key), "target": "CREATE", "result": "GREATER", "create_revision": "0",
        }));
        self
    }

    /// If the key was last written at `revision`.
    pub(in crate::registry) fn if_unchanged(self, key: &str, revision: i64) -> Self {
        self.compare(key, "MOD", json!({"mod_revision": revision.to_string()}))
    }

    /// If the key is on this lease.
    pub(in crate::registry) fn if_on_lease(self, key: &str, lease: LeaseId) -> Self {
        self.compare(key, "LEASE", json!({"lease": lease.get().to_string()}))
    }

    /// If the key has this value.
    pub(in crate::registry) fn if_value(self, key: &str, value: &[u8]) -> Self {
        self.compare(key, "VALUE", json!({"value": encoded(value)}))
    }

    /// If the key is there, and its value comes before this one in the order of bytes.
    #[cfg(feature = "server")]
    pub(super) fn if_value_below(mut self, key: &str, value: &[u8]) -> Self {
        self.compare.push(json!({
            "key": encoded(key), "target": "VALUE", "result": "LESS", "value": encoded(value),
        }));
        self
    }

    /// If of the keys that begin with `prefix` none was created after `revision`.
    #[cfg(feature = "server")]
    pub(super) fn if_none_since(mut self, prefix: &str, revision: i64) -> Self {
        self.compare.push(json!({
            "key": encoded(prefix), "range_end": encoded(end_of(prefix.as_bytes())),
            "target": "CREATE", "result": "LESS", "create_revision": (revision + 1).to_string(),
        }));
        self
    }

    /// Deletes the keys from `from` on, up to `to`, exclusive.
    #[cfg(feature = "server")]
    pub(super) fn delete_between(mut self, from: &str, to: &str) -> Self {
        self.success.push(json!({
            "request_delete_range": {"key": encoded(from), "range_end": encoded(to)},
        }));
        self
    }

    fn compare(mut self, key: &str, target: &str, with: Value) -> Self {
        let mut compare = json!({"key": encoded(key), "target": target, "result": "EQUAL"});
        if let (Value::Object(compare), Value::Object(with)) = (&mut compare, with) {
            compare.extend(with);
        }
        self.compare.push(compare);
        self
    }

    /// Writes a key, on a lease or for good.
    pub(in crate::registry) fn put(
        mut self,
        key: &str,
        value: impl AsRef<[u8]>,
        lease: Option<LeaseId>,
    ) -> Self {
        self.success.push(put(key, value.as_ref(), lease));
        self
    }

    /// Otherwise writes a key for good.
    pub(in crate::registry) fn or_put(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.failure.push(put(key, value.as_ref(), None));
        self
    }

    /// Deletes a key.
    pub(in crate::registry) fn delete(mut self, key: &str) -> Self {
        self.success.push(json!({"request_delete_range": {"key": encoded(key)}}));
        self
    }

    /// As it goes over the wire.
    pub(super) fn body(self) -> Value {
        let Self { compare, success, failure } = self;
        json!({"compare": compare, "success": success, "failure": failure})
    }

    /// Otherwise looks at what is there.
    pub(in crate::registry) fn or_get(mut self, key: &str) -> Self {
        self.failure.push(json!({"request_range": {"key": encoded(key)}}));
        self
    }
}

fn put(key: &str, value: &[u8], lease: Option<LeaseId>) -> Value {
    let mut put = json!({"key": encoded(key), "value": encoded(value)});
    if let Some(lease) = lease {
        put["lease"] = lease.get().to_string().into();
    }
    json!({"request_put": put})
}

impl Client {
    pub(in crate::registry) async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.call("kv/txn", &txn.body()).await
    }

    pub(in crate::registry) async fn range(&self, range: &Range) -> Result<Listing> {
        self.call("kv/range", &range.body()).await
    }

    /// One key.
    pub(in crate::registry) async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.range(&Range::one(key)).await?.kvs.into_iter().next())
    }

    /// All keys that begin with `prefix`, as they were at one moment.
    pub(in crate::registry) async fn list(&self, prefix: &str) -> Result<Listing> {
        self.list_while(Range::prefix(prefix), &|_| true).await
    }

    /// The keys of `range` as they were at one moment, whatever its limit: page by page, until there are no more or
    /// `goes_on` has seen enough of them.
    pub(in crate::registry) async fn list_while(
        &self,
        range: Range,
        goes_on: &GoesOn<'_>,
    ) -> Result<Listing> {
        let mut restarts = 0;
        loop {
            match self.pages(range.clone(), goes_on).await {
                Ok(listing) => return Ok(listing),
                // Somebody has compacted the store since the first page.
                Err(Failure::Refused(fault)) if fault.is_compacted() && restarts < RESTARTS => restarts += 1,
                Err(failure) => return Err(self.error(failure)),
            }
        }
    }

    async fn pages(&self, mut range: Range, goes_on: &GoesOn<'_>) -> std::result::Result<Listing, Failure> {
        let mut all = Listing::default();
        loop {
            let answer = self.ask("kv/range", &range.body().to_string(), Rights::Needed).await?;
            let page = Listing::deserialize(answer)
                .map_err(|error| HttpCause::Nonsense(printable(&error.to_string())))?;
            if all.kvs.is_empty() {
                all.header = page.header;
            }
            all.has_more = page.has_more;
            all.kvs.extend(page.kvs);
            let Some(last) = all.kvs.last().filter(|_| all.has_more && goes_on(&all.kvs)) else {
                return Ok(all);
            };
            range.key = [&last.key[..], &[0]].concat();
            range.revision = all.header.revision;
        }
    }
}
