//! Heartbeat tokens that can be checked without having been written down.
//!
//! A token is a version 1 UUID, as the API has it: its time is the deadline of the service, and where others have
//! a node and a clock sequence there are 62 bits of HMAC-SHA-256 over that time. The key is made at random for
//! each registration and is in the file: so a host that was killed knows the tokens that it handed out, and
//! those of an earlier life under the same id are worth nothing.

use ring::hmac;
use uuid::{Timestamp, Uuid};

use crate::model::Token;
use crate::registry::clock::Ticks;

/// What the tokens of one registration are made with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Seed(Uuid);

impl Seed {
    pub(in crate::registry) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// As the file has it. What cannot be read makes tokens that nobody holds.
    pub(in crate::registry) fn read(text: &str) -> Self {
        Uuid::parse_str(text).map_or_else(|_| Self::random(), Self)
    }

    pub(in crate::registry) fn of(key: Uuid) -> Self {
        Self(key)
    }

    pub(in crate::registry) fn key(self) -> Uuid {
        self.0
    }

    pub(in crate::registry) fn written(self) -> Token {
        Token::new(self.0.to_string())
    }

    /// The token whose time is `deadline`.
    pub(in crate::registry) fn token(self, deadline: Ticks) -> Uuid {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let ticks = u64::try_from(deadline.0).unwrap_or_default();
        let tag = hmac::sign(&key, &ticks.to_be_bytes());
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(byte, tag)| *byte = *tag);
        let [high, low, node @ ..] = bytes;
        let sequence = u16::from_be_bytes([high, low]);
        Uuid::new_v1(Timestamp::from_gregorian_time(ticks, sequence), &node)
    }

    /// The time of a token that was made with this.
    pub(in crate::registry) fn deadline_of(self, token: &Uuid) -> Option<Ticks> {
        Ticks::of(token).ok().filter(|deadline| self.token(*deadline) == *token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_the_seed_it_was_made_with_and_by_no_other() {
        let (ours, other) = (Seed::random(), Seed::random());
        let token = ours.token(Ticks::now());
        assert_eq!(token.get_version_num(), 1);
        assert_eq!(Seed::read(ours.written().as_str()).deadline_of(&token), ours.deadline_of(&token));
        assert!(ours.deadline_of(&token).is_some());
        assert_eq!(other.deadline_of(&token), None);
        assert_eq!(ours.deadline_of(&Uuid::new_v4()), None);
        let later = Ticks(Ticks::now().0 + 1);
        assert_ne!(ours.token(later), token);
    }
}
