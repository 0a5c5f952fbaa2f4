//! Logins: the tokens that were handed out, and patience with those who get it wrong.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::accounts::{Accounts, TenantId};
use crate::model::Timestamp;

/// What a failed login costs the next one from the same place under the same name: it doubles with each.
const FIRST_PENALTY: Duration = Duration::from_millis(250);
const LONGEST_PENALTY: Duration = Duration::from_secs(4);
/// Who would have to wait for longer than this is turned away.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a failure is remembered.
const MEMORY: Duration = Duration::from_secs(300);
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
    last: Instant,
    /// When the next login may be looked at.
    next: Instant,
}

impl Failures {
    fn penalty(&self) -> Duration {
        FIRST_PENALTY.saturating_mul(1 << (self.count - 1).min(16)).min(LONGEST_PENALTY)
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

    /// Checks a name and a key; after failures, not before some time has passed.
    pub(super) async fn authenticate(
        &self,
        accounts: &Accounts,
        from: IpAddr,
        username: &str,
        key: &str,
    ) -> Result<TenantId, Denied> {
        let source = (from, username.to_owned());
        let wait = self.wait(&source);
        if wait > LONGEST_WAIT {
            return Err(Denied::TooMany);
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(account) = accounts.check(username, key) {
            self.failures().remove(&source);
            return Ok(account.tenant.clone());
        }
        self.failed(source);
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

    /// How long this login is to wait for its turn; whoever comes next waits behind it.
    fn wait(&self, source: &Source) -> Duration {
        let now = Instant::now();
        let mut failures = self.failures();
        let Some(failed) = failures.get_mut(source) else { return Duration::ZERO };
        let turn = failed.next.max(now);
        let wait = turn - now;
        if wait <= LONGEST_WAIT {
            failed.next = turn + failed.penalty();
        }
        wait
    }

    fn failed(&self, source: Source) {
        let now = Instant::now();
        let mut failures = self.failures();
        if failures.len() >= MOST_REMEMBERED {
            failures.retain(|_, failed| now - failed.last < MEMORY);
        }
        if failures.len() >= MOST_REMEMBERED {
            failures.clear();
        }
        let failed = failures.entry(source).or_insert(Failures { count: 0, last: now, next: now });
        failed.count = failed.count.saturating_add(1);
        failed.last = now;
        failed.next = failed.next.max(now + failed.penalty());
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
    async fn each_failure_makes_the_next_login_wait_longer() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let accounts = Accounts::default();
        let start = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            let before = Instant::now();
            assert_eq!(sessions.authenticate(&accounts, HERE, "ops", "x").await, Err(Denied::Wrong));
            waits.push(before.elapsed());
        }
        assert!(waits[0].is_zero() && waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!(start.elapsed() > Duration::from_secs(7), "{waits:?}");
        let before = Instant::now();
        let _ = sessions.authenticate(&accounts, HERE, "somebody else", "x").await;
        assert!(before.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_try_many_at_a_time_are_turned_away() {
        let sessions = std::sync::Arc::new(Sessions::new(Duration::from_secs(60)));
        let tries = (0..1000).map(|_| {
            let sessions = std::sync::Arc::clone(&sessions);
            tokio::spawn(async move { sessions.authenticate(&Accounts::default(), HERE, "ops", "x").await })
        });
        let _ = sessions.authenticate(&Accounts::default(), HERE, "ops", "x").await;
        let mut turned_away = 0;
        for attempt in tries.collect::<Vec<_>>() {
            turned_away += usize::from(attempt.await.unwrap() == Err(Denied::TooMany));
        }
        assert!(turned_away > 900, "{turned_away}");
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
