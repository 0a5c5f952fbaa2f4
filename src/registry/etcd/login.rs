//! The token that a user's name and password are good for.
//!
//! A login costs etcd some 70 ms of computing, so there is one only when a token is first needed, or is refused.

use std::sync::Arc;

use reqwest::header::HeaderValue;
use serde_json::json;
use tokio::sync::Mutex;
use tracing::debug;

use super::client::Client;
use super::fault::{EtcdCause, Failure};
use crate::registry::Credentials;
use crate::registry::http::{HttpCause, key};

/// Who we are, and the token that we got for it.
pub(super) struct Login {
    credentials: Option<Credentials>,
    current: Mutex<Standing>,
}

/// What a request carries; none where etcd asks for no login.
pub(super) type Ticket = Option<Arc<HeaderValue>>;

#[derive(Default)]
enum Standing {
    #[default]
    NotLoggedIn,
    LoggedIn(Ticket),
}

impl Login {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, current: Mutex::default() }
    }

    /// What is at hand, without asking anybody for it.
    pub(super) async fn at_hand(&self) -> Ticket {
        match &*self.current.lock().await {
            Standing::LoggedIn(ticket) => ticket.clone(),
            Standing::NotLoggedIn => None,
        }
    }

    /// What requests are to carry: of the last login, or of a new one.
    pub(super) async fn ticket(&self, client: &Client) -> Result<Ticket, Failure> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let mut current = self.current.lock().await;
        if let Standing::LoggedIn(ticket) = &*current {
            return Ok(ticket.clone());
        }
        let ticket = authenticate(credentials, client).await?;
        *current = Standing::LoggedIn(ticket.clone());
        Ok(ticket)
    }

    /// Likewise, but not `refused` again.
    pub(super) async fn other_than(&self, refused: &Ticket, client: &Client) -> Result<Ticket, Failure> {
        if self.credentials.is_none() {
            return Err(Failure::Etcd(EtcdCause::NoLogin));
        }
        {
            let mut current = self.current.lock().await;
            if matches!(&*current, Standing::LoggedIn(ticket) if ticket == refused) {
                *current = Standing::NotLoggedIn;
            }
        }
        self.ticket(client).await
    }

    /// The next request logs in anew.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = Standing::NotLoggedIn;
    }
}

async fn authenticate(credentials: &Credentials, client: &Client) -> Result<Ticket, Failure> {
    let user = &credentials.username;
    let password = key::read(&credentials.api_key).await?;
    match client.authenticate(&json!({"name": user, "password": password.expose()})).await {
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
            Err(Failure::Etcd(EtcdCause::Login { user: user.clone(), message: fault.message }))
        }
        Err(failure) => Err(failure),
    }
}
