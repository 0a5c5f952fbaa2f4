//! Logins: who gets a token, and patience with those who get it wrong.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::accounts::{Accounts, TenantId};
use super::tokens::Signer;
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
    signer: Signer,
    /// The latest token of each user: whoever logs in at every request gets the same one.
    latest: Mutex<HashMap<String, Grant>>,
    failures: Mutex<HashMap<Source, Failures>>,
}

/// A token, and what it is good for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) token: String,
    pub(super) username: String,
    pub(super) tenant: TenantId,
    pub(super) expires_at: Timestamp,
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
    /// `secret` is what servers have in common that know one another's tokens.
    pub(super) fn new(lifetime: Duration, secret: &[u8]) -> Self {
        let signer = Signer::new(secret);
        Self { lifetime, signer, latest: Mutex::default(), failures: Mutex::default() }
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

    /// A token for who has been authenticated; none where the account has gone since.
    pub(super) fn grant(&self, accounts: &Accounts, username: &str) -> Option<Grant> {
        self.grant_at(accounts, username, Timestamp::now())
    }

    fn grant_at(&self, accounts: &Accounts, username: &str, now: Timestamp) -> Option<Grant> {
        let (username, account) = accounts.entry(username)?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|_, grant| grant.expires_at > now);
        let half_way = Self::expiry(now, self.lifetime / 2);
        let known = latest.get(username).filter(|grant| grant.expires_at > half_way);
        if let Some(grant) = known.filter(|grant| self.find_at(accounts, &grant.token, now).is_some()) {
            return Some(grant.clone());
        }
        let expires_at = Self::expiry(now, self.lifetime);
        let token = self.signer.sign(username, account, expires_at);
        let grant =
            Grant { token, username: username.to_owned(), tenant: account.tenant.clone(), expires_at };
        latest.insert(username.to_owned(), grant.clone());
        Some(grant)
    }

    /// A token that nobody will ask for.
    pub(super) fn empty_grant(&self, username: &str, tenant: &TenantId) -> Grant {
        Grant {
            token: Uuid::new_v4().simple().to_string(),
            username: username.to_owned(),
            tenant: tenant.clone(),
            expires_at: Self::expiry(Timestamp::now(), self.lifetime),
        }
    }

    /// What a token is good for, if it is still good for something.
    pub(super) fn find(&self, accounts: &Accounts, token: &str) -> Option<Grant> {
        self.find_at(accounts, token, Timestamp::now())
    }

    fn find_at(&self, accounts: &Accounts, token: &str, now: Timestamp) -> Option<Grant> {
        let signed = self.signer.read(token, accounts).filter(|signed| signed.expires_at > now)?;
        Some(Grant {
            token: token.to_owned(),
            username: signed.username.to_owned(),
            tenant: signed.account.tenant.clone(),
            expires_at: signed.expires_at,
        })
    }

    fn expiry(now: Timestamp, lifetime: Duration) -> Timestamp {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_add(lifetime))
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

    #[tokio::test(start_paused = true)]
    async fn after_many_failures_no_login_is_looked_at_for_a_while() {
        let sessions = Sessions::new(Duration::from_secs(60), b"secret");
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
        let sessions = std::sync::Arc::new(Sessions::new(Duration::from_secs(60), b"secret"));
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

    fn accounts(key: char) -> Accounts {
        let hash = key.to_string().repeat(64);
        let text = format!("[[account]]\nusername = 'ops'\napi_key_sha256 = '{hash}'\ntenant = '7777'\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Accounts::read(file.path()).unwrap()
    }

    #[test]
    fn a_token_is_used_again_until_half_of_its_life_is_over_and_then_expires() {
        let sessions = Sessions::new(Duration::from_secs(60), b"secret");
        let (accounts, start) = (accounts('a'), Timestamp::now());
        let after = |seconds: u64| Timestamp::from_millis(start.as_millis() + 1000 * seconds);
        let first = sessions.grant_at(&accounts, "ops", start).unwrap();
        assert_eq!(sessions.grant_at(&accounts, "ops", after(29)).unwrap().token, first.token);
        let second = sessions.grant_at(&accounts, "ops", after(31)).unwrap();
        assert_ne!(second.token, first.token);
        assert!(sessions.find_at(&accounts, &first.token, after(59)).is_some());
        assert!(sessions.find_at(&accounts, &first.token, after(60)).is_none());
        let found = sessions.find_at(&accounts, &second.token, after(61)).unwrap();
        assert_eq!((found.username.as_str(), found.tenant.as_str()), ("ops", "7777"));
    }

    #[test]
    fn a_token_is_good_where_the_secret_and_the_account_are_the_same() {
        let servers = ["secret", "secret", "other"]
            .map(|secret| Sessions::new(Duration::from_secs(60), secret.as_bytes()));
        let token = servers[0].grant(&accounts('a'), "ops").unwrap().token;
        assert!(servers[1].find(&accounts('a'), &token).is_some());
        assert!(servers[1].find(&accounts('b'), &token).is_none(), "the key is another");
        assert!(servers[1].find(&Accounts::default(), &token).is_none(), "the account is gone");
        assert!(servers[2].find(&accounts('a'), &token).is_none());
        assert!(servers[0].grant(&accounts('a'), "nobody").is_none());
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(servers[0].find(&accounts('a'), &forged).is_none(), "{forged}");
        }
        for nonsense in ["", "A", "....", "AAAA", &token[..20]] {
            assert!(servers[0].find(&accounts('a'), nonsense).is_none());
        }
    }
}
