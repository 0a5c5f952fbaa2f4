//! Who looks at a registry all the time, so that nothing that disappears for a moment goes unseen.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::Laboratory;

/// How often.
const PERIOD: Duration = Duration::from_millis(100);

/// Looks until it is dropped.
pub(crate) struct Observer {
    shared: Arc<Shared>,
    looking: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    book: Mutex<Book>,
    stop: Condvar,
}

#[derive(Default)]
struct Book {
    /// What the registry listed, and when it was asked. Nothing while it did not say.
    looks: Vec<(Instant, BTreeSet<String>)>,
    is_over: bool,
}

impl Observer {
    pub(crate) fn of(laboratory: Arc<Laboratory>) -> Self {
        let shared = Arc::new(Shared::default());
        let looking = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.look(&laboratory)
        });
        Self { shared, looking: Some(looking) }
    }

    /// Whether a service was listed when the registry last said anything, which has to be after `since`.
    pub(crate) fn lists(&self, id: &str, since: Instant) -> bool {
        let book = self.shared.book.lock().unwrap();
        book.looks.last().is_some_and(|(at, listed)| *at > since && listed.contains(id))
    }

    /// Likewise, whether it was not.
    pub(crate) fn misses(&self, id: &str, since: Instant) -> bool {
        let book = self.shared.book.lock().unwrap();
        book.looks.last().is_some_and(|(at, listed)| *at > since && !listed.contains(id))
    }

    /// When a service was first not listed after `since`.
    pub(crate) fn first_missed(&self, id: &str, since: Instant) -> Option<Duration> {
        let book = self.shared.book.lock().unwrap();
        let mut looks = book.looks.iter().filter(|(at, _)| *at > since);
        looks.find(|(_, listed)| !listed.contains(id)).map(|(at, _)| *at - since)
    }
}

impl Shared {
    fn look(&self, laboratory: &Laboratory) {
        loop {
            let at = Instant::now();
            let listed = laboratory.listed();
            let mut book = self.book.lock().unwrap();
            book.looks.extend(listed.map(|listed| (at, listed)));
            let (book, _) = self.stop.wait_timeout_while(book, PERIOD, |book| !book.is_over).unwrap();
            if book.is_over {
                return;
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.book.lock().unwrap().is_over = true;
        self.shared.stop.notify_all();
        let _ = self.looking.take().map(JoinHandle::join);
    }
}
