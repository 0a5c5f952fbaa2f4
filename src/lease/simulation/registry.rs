//! A registry as all of them are at heart: who holds an id, until when, and what a heartbeat has to present.

use std::time::Duration;

use super::plan::{Arrival, Data, Departure, Style, Time};
use crate::registry::IfTaken;

/// What is asked of a registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ask {
    Login,
    Register(IfTaken),
    Heartbeat(u64),
    Deregister,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reply {
    /// The login, by its number.
    LoggedIn(u32),
    /// The token of the next heartbeat.
    Token(u64),
    Deregistered,
    Unavailable,
    NotFound,
    Conflict(Duration),
    Unauthorized,
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Ours,
    Rival,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) holder: Holder,
    pub(super) deadline: Time,
    token: u64,
    /// Accepted as well: the answer that replaced it may have been lost.
    previous: Option<u64>,
    /// The first of its tokens, where a restarted registry accepts all of them.
    any_since: Option<u64>,
    first_token: u64,
}

pub(super) struct Registry {
    style: Style,
    timeout: Duration,
    /// By client: each has an id of its own.
    entries: Vec<Option<Entry>>,
    pub(super) login: u32,
    last_token: u64,
}

impl Registry {
    pub(super) fn new(style: Style, timeout: Duration, clients: usize) -> Self {
        let entries = (0..clients).map(|_| None).collect();
        Self { style, timeout, entries, login: 0, last_token: 0 }
    }

    pub(super) fn entry(&self, id: usize) -> Option<&Entry> {
        self.entries[id].as_ref()
    }

    pub(super) fn is_held_by(&self, id: usize, holder: Holder) -> bool {
        self.entry(id).is_some_and(|entry| entry.holder == holder)
    }

    /// Answers one of ours, who is logged in by `login`.
    pub(super) fn answer(&mut self, id: usize, ask: Ask, login: u32, now: Time) -> Reply {
        if ask == Ask::Login {
            return Reply::LoggedIn(self.login);
        }
        if login != self.login {
            return Reply::Unauthorized;
        }
        match ask {
            Ask::Login => Reply::LoggedIn(self.login),
            Ask::Register(if_taken) => self.register(id, Holder::Ours, if_taken, now),
            Ask::Heartbeat(token) => self.heartbeat(id, token, now),
            Ask::Deregister if self.is_held_by(id, Holder::Ours) => {
                self.entries[id] = None;
                Reply::Deregistered
            }
            Ask::Deregister => Reply::NotFound,
        }
    }

    fn register(&mut self, id: usize, holder: Holder, if_taken: IfTaken, now: Time) -> Reply {
        let deadline = now + self.timeout;
        self.last_token += 1;
        let mut token = self.last_token;
        let mut first_token = token;
        if let Some(entry) = &self.entries[id] {
            if entry.holder != holder && if_taken == IfTaken::Refuse {
                return Reply::Conflict(entry.deadline.saturating_sub(now));
            }
            if entry.holder == holder {
                first_token = entry.first_token;
                if self.style == Style::Sessions {
                    token = entry.token;
                }
            }
        }
        let (previous, any_since) = (None, None);
        self.entries[id] = Some(Entry { holder, deadline, token, previous, any_since, first_token });
        Reply::Token(token)
    }

    fn heartbeat(&mut self, id: usize, presented: u64, now: Time) -> Reply {
        let Some(entry) = &mut self.entries[id] else { return Reply::NotFound };
        let is_current = entry.token == presented
            || entry.any_since.is_some_and(|first| (first..=entry.token).contains(&presented));
        if entry.holder != Holder::Ours || !(is_current || entry.previous == Some(presented)) {
            return Reply::NotFound;
        }
        entry.deadline = now + self.timeout;
        if is_current && self.style == Style::OneTimeTokens {
            self.last_token += 1;
            entry.previous = Some(presented);
            entry.any_since = None;
            entry.token = self.last_token;
        }
        Reply::Token(entry.token)
    }

    /// The deadline of an entry has come: it is dead unless it was renewed.
    pub(super) fn expire(&mut self, id: usize, now: Time) -> Option<Holder> {
        let entry = self.entries[id].take_if(|entry| entry.deadline <= now)?;
        Some(entry.holder)
    }

    pub(super) fn forget(&mut self, id: usize) -> bool {
        self.entries[id].take().is_some()
    }

    /// It is up again.
    pub(super) fn restart(&mut self, data: Data, now: Time) {
        for slot in &mut self.entries {
            match slot {
                Some(entry) if data == Data::Kept => {
                    entry.deadline = now + self.timeout;
                    entry.any_since = Some(entry.first_token);
                }
                _ => *slot = None,
            }
        }
    }

    /// It registers, or sends its heartbeat, which here is the same.
    pub(super) fn rival_comes(&mut self, arrival: Arrival, now: Time) {
        let if_taken = match arrival {
            Arrival::ByForce => IfTaken::TakeOver,
            Arrival::IfFree => IfTaken::Refuse,
        };
        self.register(0, Holder::Rival, if_taken, now);
    }

    pub(super) fn rival_goes(&mut self, departure: Departure) {
        if departure == Departure::Deregisters {
            self.entries[0].take_if(|entry| entry.holder == Holder::Rival);
        }
    }
}
