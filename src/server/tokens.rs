//! Tokens of logins: signed, so that nobody has to remember them, and every server with the same secret knows them.
//!
//! A token has in it who it is for and until when, and an HMAC-SHA-256 over that and the account as it is in the file: it
//! is good for as long as the account's key and tenant stay the same. Its expiry is by the wall clock, as it is told to
//! the client.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::hmac;

use super::accounts::{Account, Accounts};
use crate::model::Timestamp;

/// How long an HMAC-SHA-256 is.
const TAG: usize = 32;
/// How long the time in front is.
const TIME: usize = 8;

/// What tokens are signed with.
pub(super) struct Signer(hmac::Key);

impl Signer {
    /// One whose tokens are those of every server that has this secret.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A token for the user of an account.
    pub(super) fn sign(&self, username: &str, account: &Account, expires_at: Timestamp) -> String {
        let mut token = expires_at.as_millis().to_be_bytes().to_vec();
        token.extend(username.as_bytes());
        let tag = hmac::sign(&self.0, &signed(&token, account));
        token.extend(tag.as_ref());
        BASE64.encode(token)
    }

    /// Whose a token is, and until when it is good: only what we have signed, for an account that is still the same.
    pub(super) fn read<'a>(&self, token: &str, accounts: &'a Accounts) -> Option<Signed<'a>> {
        let bytes = BASE64.decode(token).ok()?;
        let (claim, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        let (time, username) = claim.split_first_chunk::<TIME>()?;
        let (username, account) = accounts.entry(std::str::from_utf8(username).ok()?)?;
        hmac::verify(&self.0, &signed(claim, account), tag).ok()?;
        Some(Signed { username, account, expires_at: Timestamp::from_millis(u64::from_be_bytes(*time)) })
    }
}

/// What a token says.
pub(super) struct Signed<'a> {
    pub(super) username: &'a str,
    pub(super) account: &'a Account,
    pub(super) expires_at: Timestamp,
}

/// What the signature is over. The account's part has the same length always, so that no claim passes for another.
fn signed(claim: &[u8], account: &Account) -> Vec<u8> {
    [&account.fingerprint()[..], claim].concat()
}
