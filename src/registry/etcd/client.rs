//! etcd v3 over its JSON gateway: one call at a time to whichever server of the cluster answers.
//!
//! * A server is asked until it fails, does not answer within [`PATIENCE`], or the call is dropped: then the next.
//! * A call that is refused for want of a login, or for an old one, is sent again once after another.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fault::{EtcdCause, Failure, Fault};
use super::kv::Range;
use super::login::Login;
use super::servers::{Ask, Place, Reply, Servers, Shape};
use crate::model::{Timestamp, printable};
use crate::registry::http::{HttpCause, Stream};
use crate::registry::rehearsal;
use crate::registry::{Access, Error, EtcdUrl, Result};

/// How long a server is waited for before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// A cluster, as a client sees it. It is connected to at the first call, and each call can be dropped at any await.
pub(in crate::registry) struct Client {
    servers: Arc<Servers>,
    login: Login,
    /// The registry's URL, for messages.
    shown: String,
}

/// Whether a call needs a login.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// It does, where there is one to be had.
    Needed,
    /// It is for everybody: no reason to log in.
    NotNeeded,
}

impl Client {
    pub(in crate::registry) fn new(url: &EtcdUrl, access: &Access) -> Self {
        let servers = Arc::new(Servers::new(url, &access.tls));
        Self {
            login: Login::new(url.credentials(access), Arc::clone(&servers)),
            servers,
            shown: url.as_str().to_owned(),
        }
    }

    /// The next call logs in anew.
    pub(in crate::registry) fn renew_credentials(&self) {
        self.login.forget();
    }

    /// The time by the clock of the server that answers, who has to let us read what is under `prefix`.
    pub(in crate::registry) async fn clock(&self, prefix: &str) -> Result<Option<Timestamp>> {
        let body = Range { limit: 1, ..Range::prefix(prefix) }.body().to_string();
        let reply = self.send("kv/range", &body, Shape::Whole, Rights::Needed).await;
        match reply.map_err(|failure| self.error(failure))? {
            Reply::Whole(_, date) => Ok(date),
            Reply::Open(..) => Ok(None),
        }
    }

    pub(super) async fn call<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let answer = self.ask(path, &body.to_string(), Rights::Needed).await;
        self.parse(answer.map_err(|failure| self.error(failure))?)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, answer: Value) -> Result<T> {
        serde_json::from_value(answer)
            .map_err(|error| self.error(HttpCause::Nonsense(printable(&error.to_string())).into()))
    }

    pub(super) async fn ask(
        &self,
        path: &str,
        body: &str,
        rights: Rights,
    ) -> std::result::Result<Value, Failure> {
        self.send(path, body, Shape::Whole, rights).await.map(Reply::into_value)
    }

    /// Opens an answer without an end; its first line has come.
    pub(super) async fn open(
        &self,
        path: &str,
        body: &Value,
    ) -> std::result::Result<(Box<Stream>, Place, Value), Failure> {
        match self.send(path, &body.to_string(), Shape::Open, Rights::Needed).await? {
            Reply::Open(stream, place, first) => Ok((stream, place, first)),
            Reply::Whole(..) => Err(HttpCause::Nonsense("it has come to its end".to_owned()).into()),
        }
    }

    /// Asks, and once more after a login where the last is not good any more.
    async fn send(
        &self,
        path: &str,
        body: &str,
        shape: Shape,
        rights: Rights,
    ) -> std::result::Result<Reply, Failure> {
        let ticket = match rights {
            Rights::Needed => self.login.ticket().await?,
            Rights::NotNeeded => self.login.at_hand(),
        };
        let ask = Ask { path, body, ticket, shape, patience: PATIENCE };
        match self.servers.at_any(&ask).await {
            Err(Failure::Refused(fault)) if fault.is_stale_login() => {
                let ticket = self.login.other_than(&ask.ticket).await?;
                self.servers.at_any(&Ask { ticket, ..ask }).await
            }
            answer => answer,
        }
    }

    /// What would be told to log in; none where there is no login.
    pub(super) fn login_body(&self) -> Option<String> {
        self.login.rehearsed()
    }

    /// What would be sent, with the token of the login hidden.
    pub(super) fn rehearsed(&self, path: &str, body: &str) -> Result<reqwest::Request> {
        let ticket = self.login.rehearsed().map(|_| Arc::new(rehearsal::hidden()));
        let ask = Ask { path, body, ticket, shape: Shape::Whole, patience: PATIENCE };
        self.servers.rehearsed(&ask).map_err(|failure| self.error(failure))
    }

    /// Asks the server at `place`, and no other.
    pub(super) async fn ask_at(
        &self,
        place: &Place,
        path: &str,
        body: &Value,
    ) -> std::result::Result<Value, Failure> {
        let (body, ticket) = (body.to_string(), self.login.ticket().await?);
        let ask = Ask { path, body: &body, ticket, shape: Shape::Whole, patience: PATIENCE };
        self.servers.at(place, &ask).await
    }

    /// The next call goes to another server than this one.
    pub(super) fn move_on_from(&self, place: &Place) {
        self.servers.move_on_from(place);
    }

    pub(super) fn error(&self, failure: Failure) -> Error {
        let registry = self.shown.clone();
        match failure {
            Failure::Refused(fault) => {
                let (is_denied, is_final) = (fault.is_denied(), fault.is_final());
                let Fault { code, message } = fault;
                let source = EtcdCause::Refused { code, message }.into();
                match (is_denied, is_final) {
                    (true, _) => Error::Unauthorized { registry, source },
                    (false, true) => Error::Invalid { registry, source },
                    (false, false) => Error::Unavailable { registry, source },
                }
            }
            Failure::Etcd(cause @ (EtcdCause::Login { .. } | EtcdCause::NoLogin)) => {
                Error::Unauthorized { registry, source: cause.into() }
            }
            Failure::Etcd(cause) => Error::Invalid { registry, source: cause.into() },
            Failure::Http(cause) => match cause {
                HttpCause::File { .. }
                | HttpCause::NoKey { .. }
                | HttpCause::Status { status: 401 | 403, .. } => {
                    Error::Unauthorized { registry, source: cause.into() }
                }
                HttpCause::Redirect { .. } | HttpCause::Status { status: 400 | 405 | 413, .. } => {
                    Error::Invalid { registry, source: cause.into() }
                }
                cause => Error::Unavailable { registry, source: cause.into() },
            },
        }
    }
}
