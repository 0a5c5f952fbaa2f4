//! Who may use the server: the file of accounts.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::message::Hint;
use crate::model::printable;
use crate::registry::Limits;

/// A customer, whose services nobody else sees: 1 to 20 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TenantId(String);

impl TenantId {
    /// The one of a server without accounts.
    #[must_use]
    pub fn open() -> Self {
        Self("0".to_owned())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = NotATenant;
    fn from_str(text: &str) -> Result<Self, NotATenant> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for TenantId {
    type Error = NotATenant;
    fn try_from(text: String) -> Result<Self, NotATenant> {
        let legal = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if legal { Ok(Self(text)) } else { Err(NotATenant(text)) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no tenant.
#[derive(Debug, thiserror::Error)]
#[error("tenant `{}` is not 1 to 20 digits", printable(.0))]
pub struct NotATenant(String);

/// Why a file of accounts is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// It cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has what an account does not have.
    #[error("`{}`, line {line}: {message}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong, in one line.
        message: String,
    },
    /// An account is not what it has to be.
    #[error("`{}`: account `{}` {fault}", .path.display(), printable(.username))]
    Account {
        /// The file.
        path: PathBuf,
        /// Whose account.
        username: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// It has no account.
    #[error("`{}` has no account", .0.display())]
    Empty(PathBuf),
    /// It has keys, and others can read them.
    #[error("`{}` holds keys, and others than its owner can read it (mode {mode:03o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Hint for AccountsError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exposed { path, .. } => {
                format!("chmod 600 {}, or replace each api_key by its api_key_sha256", path.display())
            }
            Self::Read { .. } => return None,
            Self::Malformed { .. } | Self::Account { .. } | Self::Empty(_) => {
                "an account is [[account]] with username, api_key or api_key_sha256 (hexadecimal), and tenant (digits)"
                    .to_owned()
            }
        })
    }
}

/// Every account, by username.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    by_username: BTreeMap<String, Account>,
    limits: BTreeMap<TenantId, LimitsEntry>,
}

/// Whoever may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) tenant: TenantId,
    key: KeyHash,
}

/// How much a tenant may have, and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// What its registry takes.
    pub resources: Limits,
    /// How many requests it may send in 24 hours; none for as many as it likes.
    pub requests_per_day: Option<u64>,
}

/// The SHA-256 of a key. Keys are long and random, so that a fast hash is enough: what cannot be guessed cannot be
/// found by trying.
#[derive(Clone, PartialEq, Eq)]
struct KeyHash([u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

impl KeyHash {
    fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl Accounts {
    /// Reads a file of accounts.
    ///
    /// # Errors
    /// When it cannot be read, is not what it has to be, or shows its keys to others.
    pub fn read(path: &Path) -> Result<Self, AccountsError> {
        let cannot_read = |source| AccountsError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(cannot_read)?;
        let mode = std::fs::metadata(path).map_err(cannot_read)?.permissions().mode() & 0o777;
        let file: AccountsFile = toml::from_str(&text).map_err(|error| malformed(path, &text, &error))?;
        if mode & 0o077 != 0 && file.account.iter().any(|account| account.api_key.is_some()) {
            return Err(AccountsError::Exposed { path: path.to_owned(), mode });
        }
        if file.account.is_empty() {
            return Err(AccountsError::Empty(path.to_owned()));
        }
        let mut accounts = Self::default();
        for entry in file.account {
            let username = entry.username.clone();
            accounts.add(entry).map_err(|fault| AccountsError::Account {
                path: path.to_owned(),
                username,
                fault,
            })?;
        }
        Ok(accounts)
    }

    fn add(&mut self, entry: Entry) -> Result<(), &'static str> {
        let key = match (entry.api_key, entry.api_key_sha256) {
            (Some(key), None) if !key.is_empty() => KeyHash::of(&key),
            (None, Some(hash)) => {
                KeyHash::parse(&hash).ok_or("has an api_key_sha256 that is not 64 hexadecimal digits")?
            }
            (Some(_), Some(_)) => return Err("has both api_key and api_key_sha256"),
            _ => return Err("has no api_key"),
        };
        if entry.username.is_empty() {
            return Err("has no username");
        }
        if let Some(limits) = entry.limits
            && *self.limits.entry(entry.tenant.clone()).or_insert(limits) != limits
        {
            return Err("has other limits than another account of its tenant");
        }
        let account = Account { tenant: entry.tenant, key };
        match self.by_username.insert(entry.username, account) {
            None => Ok(()),
            Some(_) => Err("is there twice"),
        }
    }

    /// Each tenant, with its limits, or where it has none of its own, these.
    pub(super) fn tenants(&self, limits: AccountLimits) -> BTreeMap<TenantId, AccountLimits> {
        let limits = |tenant| self.limits.get(tenant).map_or(limits, |entry| entry.or(limits));
        self.by_username.values().map(|account| (account.tenant.clone(), limits(&account.tenant))).collect()
    }

    /// The account, if that is its key. Takes the same time whether there is one, and whatever the key.
    pub(super) fn check(&self, username: &str, key: &str) -> Option<&Account> {
        const NOBODY: &KeyHash = &KeyHash([0; 32]);
        let account = self.by_username.get(username);
        let expected = account.map_or(NOBODY, |account| &account.key);
        let is_right: bool = expected.0.ct_eq(&KeyHash::of(key).0).into();
        account.filter(|_| is_right)
    }

    /// The account of this name, and the name.
    pub(super) fn entry(&self, username: &str) -> Option<(&str, &Account)> {
        self.by_username.get_key_value(username).map(|(username, account)| (username.as_str(), account))
    }
}

impl Account {
    /// Another one where its key or its tenant is another.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        let text = [&self.key.0[..], self.tenant.as_str().as_bytes()].concat();
        fingerprint.copy_from_slice(digest(&SHA256, &text).as_ref());
        fingerprint
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    #[serde(default)]
    account: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    username: String,
    api_key: Option<String>,
    api_key_sha256: Option<String>,
    tenant: TenantId,
    limits: Option<LimitsEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    services: Option<u64>,
    configuration_values: Option<u64>,
    requests_per_day: Option<u64>,
}

impl LimitsEntry {
    fn or(self, others: AccountLimits) -> AccountLimits {
        AccountLimits {
            resources: Limits {
                services: self.services.or(others.resources.services),
                configuration_values: self.configuration_values.or(others.resources.configuration_values),
            },
            requests_per_day: self.requests_per_day.or(others.requests_per_day),
        }
    }
}

/// What is wrong, and in which line; never the line itself, which may hold a key.
fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> AccountsError {
    let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
    let line = before.matches('\n').count() + 1;
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    AccountsError::Malformed { path: path.to_owned(), line, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, mode: u32) -> Result<Accounts, AccountsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        Accounts::read(file.path())
    }

    #[test]
    fn a_key_or_its_hash_is_as_good() {
        // printf %s sesame | sha256sum
        let hash = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
        let text = format!("[[account]]\nusername = 'ops'\napi_key_sha256 = '{hash}'\ntenant = '7777'\n");
        let accounts = read(&text, 0o644).unwrap();
        assert_eq!(accounts.check("ops", "sesame").unwrap().tenant.as_str(), "7777");
        assert!(accounts.check("ops", "open").is_none() && accounts.check("nobody", "sesame").is_none());
    }

    #[test]
    fn a_file_with_keys_is_its_owners_alone() {
        let text = "[[account]]\nusername = 'ops'\napi_key = 'sesame'\ntenant = '7777'\n";
        assert!(read(text, 0o600).is_ok());
        for mode in [0o644, 0o640, 0o604] {
            assert!(matches!(read(text, mode), Err(AccountsError::Exposed { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_shows_no_key() {
        for text in [
            "[[account]]\nusername = 'ops'\napi_key = sesame\n",
            "[[account]]\nusername = 'ops'\napi_key = 'sesame'\ntenant = 7777\n",
            "[[account]]\nusername = 'ops'\napi_key = 'sesame'\n",
            "[[account]]\nusername = 'ops'\napi_key = 'sesame'\ntenant = 'x'\n",
            "[[account]]\nusername = 'ops'\napi_key = 'sesame'\ntenant = '1'\nadmin = true\n",
            "[[account]]\nusername = 'ops'\ntenant = '1'\n",
            "[[account]]\nusername = 'ops'\napi_key_sha256 = 'sesame'\ntenant = '1'\n",
            "",
        ] {
            let error = read(text, 0o600).unwrap_err();
            let told = format!("{error} {:?}", error.hint());
            assert!(!told.contains("sesame") && !told.contains('\n'), "{told}");
        }
    }
}
