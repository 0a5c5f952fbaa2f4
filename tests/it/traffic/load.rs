//! A consumer that follows the registry: it looks every so often who is listed, and asks whoever was when it last
//! looked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use service_registry_wrapper::model::Service;
use service_registry_wrapper::registry::{Access, ServiceQuery, connect};

use super::protocol::Protocol;
use crate::support::wait_until;

/// From one look at the registry to the next: a short time beside the drain, a long one beside a request.
const LOOK: Duration = Duration::from_millis(500);
/// From one request of a thread to the next.
const REST: Duration = Duration::from_millis(10);

/// Asks all that are listed, in several threads. Dropped, it stops.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    registry: String,
    protocol: Protocol,
    book: Mutex<Book>,
    stop: Condvar,
}

#[derive(Default)]
struct Book {
    listed: BTreeMap<String, SocketAddr>,
    looks: usize,
    answered: BTreeMap<String, usize>,
    failures: Vec<String>,
    is_over: bool,
}

impl Load {
    pub(super) fn on(registry: String, protocol: Protocol) -> Self {
        let (book, stop) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { registry, protocol, book, stop });
        let run = |work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared))
        };
        let threads = vec![run(Shared::follow), run(Shared::ask), run(Shared::ask)];
        Self { shared, threads }
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.shared.book.lock().unwrap().listed.contains_key(id)
    }

    /// The requests that failed, and why.
    pub(super) fn failures(&self) -> Vec<String> {
        self.shared.book.lock().unwrap().failures.clone()
    }

    /// The number of requests that were answered.
    pub(super) fn answered(&self) -> usize {
        self.shared.book.lock().unwrap().answered.values().sum()
    }

    /// Returns as soon as it has looked at the registry `number` times more.
    #[track_caller]
    pub(super) fn wait_for_looks(&self, number: usize) {
        let looks = || self.shared.book.lock().unwrap().looks;
        let before = looks();
        wait_until("a look at the registry", || looks() >= before + number);
    }

    /// Returns as soon as this service has answered some requests more.
    #[track_caller]
    pub(super) fn wait_for_answers(&self, id: &str) {
        let answers = || self.shared.book.lock().unwrap().answered.get(id).copied().unwrap_or_default();
        let before = answers();
        wait_until("answers", || answers() > before + 20);
    }
}

impl Shared {
    fn follow(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let registry = connect(&self.registry.parse().unwrap(), &Access::default());
        while self.goes_on_after(LOOK) {
            // What cannot be read leaves it with what it has.
            let Ok(page) = runtime.block_on(registry.services(&ServiceQuery::default())) else { continue };
            let mut book = self.book.lock().unwrap();
            book.listed = page.values.iter().map(place_of).collect();
            book.looks += 1;
        }
    }

    fn ask(&self) {
        while self.goes_on_after(REST) {
            let ids: Vec<String> = self.book.lock().unwrap().listed.keys().cloned().collect();
            for id in ids {
                // Not there any more: it has looked again.
                let Some(&address) = self.book.lock().unwrap().listed.get(&id) else { continue };
                let answer = self.protocol.ask(address);
                let mut book = self.book.lock().unwrap();
                match answer {
                    Ok(()) => *book.answered.entry(id).or_default() += 1,
                    Err(error) => book.failures.push(format!("{id}: {error}")),
                }
            }
        }
    }

    fn goes_on_after(&self, span: Duration) -> bool {
        let book = self.book.lock().unwrap();
        !self.stop.wait_timeout_while(book, span, |book| !book.is_over).unwrap().0.is_over
    }
}

fn place_of(service: &Service) -> (String, SocketAddr) {
    let endpoint = service.registration.endpoint().unwrap();
    let address = format!("{}:{}", endpoint.host, endpoint.port.unwrap());
    (service.registration.id.to_string(), address.parse().unwrap())
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.book.lock().unwrap().is_over = true;
        self.shared.stop.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
