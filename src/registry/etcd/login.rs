//! The token that a user's name and password are good for.
//!
//! A login costs etcd some 70 ms of computing, so there is one only when a token is first needed, or is refused. Where
//! many log in at a time, etcd works on all of them together: whoever gives up and asks again only adds to that, and in
//! the end nobody gets through. A login is therefore gone on with when the call that asked for it is given up, is waited
//! for longer than other calls, and when it fails, the next one waits, each time longer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde_json::json;
use tokio::task::JoinHandle;
use tracing::debug;

use super::fault::{EtcdCause, Failure};
use super::servers::{Ask, Reply, Servers, Shape};
use crate::registry::Credentials;
use crate::registry::http::{HttpCause, key};
use crate::registry::rehearsal::HIDDEN;

/// How long the first login may take; each that fails doubles that.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long any may take at most.
const LONGEST_PATIENCE: Duration = Duration::from_secs(25);
/// How long one waits at most that comes after others have failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who we are, and the token that we got for it.
pub(super) struct Login {
    credentials: Option<Credentials>,
    servers: Arc<Servers>,
    ticket: Mutex<Option<Ticket>>,
    under_way: tokio::sync::Mutex<Option<JoinHandle<Result<Ticket, Failure>>>>,
    /// How many logins in a row have come to nothing for want of time.
    failures: AtomicU32,
}

/// What a request carries; none where etcd asks for no login.
pub(super) type Ticket = Option<Arc<HeaderValue>>;

fn body(user: &str, password: &str) -> String {
    json!({"name": user, "password": password}).to_string()
}

impl Login {
    pub(super) fn new(credentials: Option<Credentials>, servers: Arc<Servers>) -> Self {
        Self {
            credentials,
            servers,
            ticket: Mutex::default(),
            under_way: tokio::sync::Mutex::default(),
            failures: AtomicU32::new(0),
        }
    }

    /// What is told to log in, with the password hidden; none where there is no login.
    pub(super) fn rehearsed(&self) -> Option<String> {
        Some(body(&self.credentials.as_ref()?.username, HIDDEN))
    }

    /// What is at hand, without asking anybody for it.
    pub(super) fn at_hand(&self) -> Ticket {
        self.current().clone().flatten()
    }

    fn current(&self) -> MutexGuard<'_, Option<Ticket>> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests are to carry: of the last login, or of a new one.
    pub(super) async fn ticket(&self) -> Result<Ticket, Failure> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let current = self.current().clone();
        if let Some(ticket) = current {
            return Ok(ticket);
        }
        let mut under_way = self.under_way.lock().await;
        let current = self.current().clone();
        if let Some(ticket) = current {
            return Ok(ticket);
        }
        let login = under_way.get_or_insert_with(|| {
            let failures = self.failures.load(Ordering::Relaxed);
            tokio::spawn(log_in(credentials.clone(), Arc::clone(&self.servers), failures))
        });
        let ended = login.await.unwrap_or_else(|error| Err(HttpCause::Client(error.to_string()).into()));
        *under_way = None;
        match &ended {
            Err(Failure::Http(HttpCause::TimedOut(_))) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
            Ok(ticket) => {
                self.failures.store(0, Ordering::Relaxed);
                *self.current() = Some(ticket.clone());
            }
        }
        ended
    }

    /// Likewise, but not `refused` again.
    pub(super) async fn other_than(&self, refused: &Ticket) -> Result<Ticket, Failure> {
        if self.credentials.is_none() {
            return Err(Failure::Etcd(EtcdCause::NoLogin));
        }
        self.current().take_if(|current| current == refused);
        self.ticket().await
    }

    /// The next request logs in anew.
    pub(super) fn forget(&self) {
        *self.current() = None;
    }
}

/// A login that comes after so many that failed.
async fn log_in(credentials: Credentials, servers: Arc<Servers>, failures: u32) -> Result<Ticket, Failure> {
    let span = PATIENCE.saturating_mul(1 << failures.min(5));
    if failures > 0 {
        tokio::time::sleep(span.min(LONGEST_PAUSE).mul_f64(fastrand::f64())).await;
    }
    let user = credentials.username;
    let password = key::read(&credentials.api_key).await?;
    let body = body(&user, password.expose());
    let patience = span.min(LONGEST_PATIENCE);
    let ask = Ask { path: "auth/authenticate", body: &body, ticket: None, shape: Shape::Whole, patience };
    match servers.at_any(&ask).await.map(Reply::into_value) {
        Ok(answer) => {
            let token = answer["token"].as_str().unwrap_or_default();
            let mut token = HeaderValue::from_str(token)
                .map_err(|_| HttpCause::Nonsense("its token has characters that no token has".to_owned()))?;
            token.set_sensitive(true);
            debug!(user, "logged in to etcd");
            Ok(Some(Arc::new(token)))
        }
        Err(Failure::Refused(fault)) if fault.is_login_off() => {
            debug!(user, "etcd asks for no login");
            Ok(None)
        }
        Err(Failure::Refused(fault)) if fault.is_wrong_login() => {
            Err(Failure::Etcd(EtcdCause::Login { user, message: fault.message }))
        }
        Err(failure) => Err(failure),
    }
}
