//! The servers of one registry: which is asked, and which next when it does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The servers of one registry, any of which will do. One is asked until it fails.
#[derive(Debug)]
pub(super) struct Endpoints<T> {
    servers: Vec<T>,
    current: AtomicUsize,
}

impl<T> Endpoints<T> {
    /// `servers` in the order in which they are tried. There has to be one.
    pub(super) fn new(servers: Vec<T>) -> Self {
        debug_assert!(!servers.is_empty(), "a registry is somewhere");
        Self { servers, current: AtomicUsize::new(0) }
    }

    /// Likewise, in an order of our own: many clients of the same list spread over its servers.
    pub(super) fn shuffled(mut servers: Vec<T>) -> Self {
        fastrand::shuffle(&mut servers);
        Self::new(servers)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.servers.len()
    }

    /// An attempt at the current one.
    pub(super) fn attempt(&self) -> Attempt<'_, T> {
        let index = self.current.load(Ordering::Relaxed) % self.servers.len();
        Attempt { endpoints: self, index, has_answered: false }
    }
}

/// An attempt at one server. Unless it is said to have been [answered](Self::answered), the next attempt goes to the
/// next server: also where the attempt was given up, and dropped.
pub(super) struct Attempt<'a, T> {
    endpoints: &'a Endpoints<T>,
    index: usize,
    has_answered: bool,
}

impl<'a, T> Attempt<'a, T> {
    /// Which server.
    pub(super) fn server(&self) -> &'a T {
        &self.endpoints.servers[self.index]
    }

    /// It has answered, and can be asked again.
    pub(super) fn answered(mut self) {
        self.has_answered = true;
    }
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if !self.has_answered {
            let next = (self.index + 1) % self.endpoints.servers.len();
            // Somebody else's attempt may have moved on already.
            let _ = self.endpoints.current.compare_exchange(
                self.index,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_until_it_fails() {
        let endpoints = Endpoints::new(vec!['a', 'b', 'c']);
        let ask = || endpoints.attempt();
        ask().answered();
        let (one, other) = (ask(), ask());
        assert_eq!((*one.server(), *other.server()), ('a', 'a'));
        drop(one);
        drop(other);
        let attempt = ask();
        assert_eq!(*attempt.server(), 'b', "two that failed together move on once");
        attempt.answered();
        drop(ask());
        drop(ask());
        assert_eq!(*ask().server(), 'a', "after the last comes the first");
    }
}
