//! Logins: the tokens that were handed out, and patience with those who get it wrong.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::accounts::{Accounts, TenantId};
use crate::model::Timestamp;

/// How long the answer to a failed login takes: less than any client's patience.
const PENALTY: Duration = Duration::from_millis(200);
/// So many may fail in a row from one place under one name;
const MOST_FAILURES: u32 = 10;
/// one of them is forgiven each time that this passes. Until then no other login is looked at.
const FORGIVEN_EVERY: Duration = Duration::from_secs(1);
/// How many failures are remembered: when there are more, somebody makes up names.
const MOST_REMEMBERED: usize = 10_000;

pub(super) struct Sessions {
    lifetime: Duration,
    grants: RwLock<Grants>,
    failures: Mutex<HashMap<Source, Failures>>,
}

#[derive(Default)]
struct Grants {
    by_token: HashMap<String, Grant>,
    /// The latest token of each user: whoever logs in at every request gets the same one.
    latest: HashMap<String, String>,
}

/// A token, and what it is good for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) token: String,
    pub(super) username: String,
    pub(super) tenant: TenantId,
    pub(super) expires_at: Timestamp,
    expires: Instant,
}

/// Where a login comes from.
type Source = (IpAddr, String);

struct Failures {
    count: u32,
    /// When those were counted.
    at: Instant,
}

impl Failures {
    /// How many are not forgiven yet.
    fn left(&self, now: Instant) -> u32 {
        let forgiven = (now - self.at).as_secs() / FORGIVEN_EVERY.as_secs();
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

/// Why there was no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Wrong,
    TooMany,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, grants: RwLock::default(), failures: Mutex::default() }
    }

    /// Checks a name and a key. After too many failures, not before some time has passed; whoever has the right key
    /// by then gets in at once.
    pub(super) async fn authenticate(
        &self,
        accounts: &Accounts,
        from: IpAddr,
        username: &str,
        key: &str,
    ) -> Result<TenantId, Denied> {
        let source = (from, username.to_owned());
        if self.failures().get(&source).is_some_and(|failed| failed.left(Instant::now()) >= MOST_FAILURES) {
            return Err(Denied::TooMany);
        }
        if let Some(account) = accounts.check(username, key) {
            self.failures().remove(&source);
            return Ok(account.tenant.clone());
        }
        self.failed(source);
        tokio::time::sleep(PENALTY).await;
        Err(Denied::Wrong)
    }

    /// A token for who has been authenticated.
    pub(super) fn grant(&self, username: &str, tenant: &TenantId) -> Grant {
        let now = Instant::now();
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.by_token.retain(|_, grant| grant.expires > now);
        let latest = grants.latest.get(username).and_then(|token| grants.by_token.get(token));
        if let Some(grant) = latest.filter(|grant| grant.expires - now > self.lifetime / 2) {
            return grant.clone();
        }
        let grant = self.new_grant(username, tenant, now);
        grants.latest.insert(username.to_owned(), grant.token.clone());
        grants.by_token.insert(grant.token.clone(), grant.clone());
        grant
    }

    /// A token that nobody will ask for.
    pub(super) fn empty_grant(&self, username: &str, tenant: &TenantId) -> Grant {
        self.new_grant(username, tenant, Instant::now())
    }

    fn new_grant(&self, username: &str, tenant: &TenantId, now: Instant) -> Grant {
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        Grant {
            token: Uuid::new_v4().simple().to_string(),
            username: username.to_owned(),
            tenant: tenant.clone(),
            expires_at: Timestamp::from_millis(Timestamp::now().as_millis().saturating_add(lifetime)),
            expires: now + self.lifetime,
        }
    }

    /// What a token is good for, if it is still good for something.
    pub(super) fn find(&self, token: &str) -> Option<Grant> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        grants.by_token.get(token).filter(|grant| grant.expires > Instant::now()).cloned()
    }

    /// The accounts have changed: only the tokens of those that have not stay good.
    pub(super) fn keep_only(&self, before: &Accounts, now: &Accounts) {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.by_token.retain(|_, grant| {
            let account = now.account(&grant.username);
            account.is_some() && account == before.account(&grant.username)
        });
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Source, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: Source) {
        let now = Instant::now();
        let mut failures = self.failures();
        if failures.len() >= MOST_REMEMBERED {
            failures.retain(|_, failed| failed.left(now) > 0);
        }
        if failures.len() >= MOST_REMEMBERED {
            failures.clear();
        }
        let count = failures.get(&source).map_or(0, |failed| failed.left(now)) + 1;
        failures.insert(source, Failures { count, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn tenant() -> TenantId {
        "7777".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn after_many_failures_no_login_is_looked_at_for_a_while() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let accounts = Accounts::default();
        let log_in = |username: &'static str| sessions.authenticate(&accounts, HERE, username, "x");
        let start = Instant::now();
        let mut wrong = 0;
        while log_in("ops").await == Err(Denied::Wrong) {
            wrong += 1;
        }
        assert!((MOST_FAILURES..2 * MOST_FAILURES).contains(&wrong), "{wrong}");
        assert!(start.elapsed() >= PENALTY * MOST_FAILURES);
        assert_eq!(log_in("somebody else").await, Err(Denied::Wrong));
        tokio::time::advance(FORGIVEN_EVERY).await;
        assert_eq!(log_in("ops").await, Err(Denied::Wrong));
        assert_eq!(log_in("ops").await, Err(Denied::TooMany));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_try_many_at_a_time_are_turned_away() {
        let sessions = std::sync::Arc::new(Sessions::new(Duration::from_secs(60)));
        let tries = (0..1000).map(|_| {
            let sessions = std::sync::Arc::clone(&sessions);
            tokio::spawn(async move { sessions.authenticate(&Accounts::default(), HERE, "ops", "x").await })
        });
        let mut turned_away = 0;
        for attempt in tries.collect::<Vec<_>>() {
            turned_away += u32::from(attempt.await.unwrap() == Err(Denied::TooMany));
        }
        assert_eq!(turned_away, 1000 - MOST_FAILURES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_again_until_half_of_its_life_is_over_and_then_expires() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let first = sessions.grant("ops", &tenant());
        assert_eq!(sessions.grant("ops", &tenant()).token, first.token);
        tokio::time::advance(Duration::from_secs(31)).await;
        let second = sessions.grant("ops", &tenant());
        assert_ne!(second.token, first.token);
        assert!(sessions.find(&first.token).is_some());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(sessions.find(&first.token).is_none() && sessions.find(&second.token).is_some());
    }
}
