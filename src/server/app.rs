//! Every request, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::debug;
use uuid::Uuid;

use super::chaos::{self, Fate, Unanswered};
use super::fault::Refusal;
use super::metrics::Resource;
use super::request::{self, Connection, RequestedPath, Target};
use super::tenants::{Rate, Tenant};
use super::{Server, routes};
use crate::api;
use crate::model::Timestamp;

/// The server, and the way to its handlers.
pub(super) struct App {
    pub(super) server: Arc<Server>,
    router: Router,
    txn_ids: TxnIds,
}

impl App {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { router: routes::router(Arc::clone(&server)), server, txn_ids: TxnIds::new() }
    }

    /// Answers a request, whatever it is, unless it is to have no answer.
    pub(super) async fn answer(
        &self,
        connection: Connection,
        mut request: Request,
    ) -> Result<Response, Unanswered> {
        let started = Instant::now();
        let txn_id = self.txn_ids.next();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut fate = match &self.server.chaos {
            // In a box, so that a request to a server in earnest takes up no more memory.
            Some(chaos) if chaos::concerns(&path) => {
                Box::pin(chaos.befall(&mut request, &self.server.metrics)).await?
            }
            _ => Fate::default(),
        };
        let (mut response, rate) = match fate.refusal() {
            Some(refusal) => (refusal.into_response(), None),
            None => self.route(connection, request, &mut fate).await,
        };
        if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
            response = refusal.signed(&txn_id);
        }
        if let Some(rate) = rate {
            tell_rate(response.headers_mut(), rate);
        }
        if let Ok(value) = HeaderValue::try_from(&txn_id) {
            response.headers_mut().insert(api::RESPONSE_ID, value);
        }
        let (status, took) = (response.status(), started.elapsed());
        self.server.metrics.answered(Resource::of(&path), &method, status, took);
        // Without the query, which may hold a token.
        debug!(%method, path, status = status.as_u16(), ?took, peer = %connection.peer, txn_id, "answered");
        fate.told(response)
    }

    async fn route(
        &self,
        connection: Connection,
        mut request: Request,
        fate: &mut Fate,
    ) -> (Response, Option<Rate>) {
        let path = RequestedPath(request.uri().path().to_owned());
        request.extensions_mut().insert(path);
        request.extensions_mut().insert(connection);
        let mut rate = None;
        if request::is_api(request.uri().path()) {
            match request::admit(&self.server, connection, &mut request).await {
                Ok(admitted) => {
                    request.extensions_mut().insert(admitted);
                    rate = Some(admitted);
                    let extensions = request.extensions();
                    if let (Some(tenant), Some(target)) =
                        (extensions.get::<Arc<Tenant>>(), extensions.get::<Target>())
                    {
                        fate.forget(tenant, &target.path, &self.server.metrics).await;
                    }
                }
                Err(refusal) => return (refusal.into_response(), None),
            }
        }
        let answered = self.router.clone().oneshot(request).await;
        (answered.unwrap_or_else(|never| match never {}), rate)
    }
}

fn tell_rate(headers: &mut HeaderMap, rate: Rate) {
    headers.insert(HeaderName::from_static("x-ratelimit-path-regex"), HeaderValue::from_static("/.*"));
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), rate.limit.into());
    headers.insert(HeaderName::from_static("x-ratelimit-used"), rate.used.into());
    headers.insert(HeaderName::from_static("x-ratelimit-window"), HeaderValue::from_static("86400 seconds"));
}

/// Numbers for requests, in the form that the original gave them. Different for every request of every server.
struct TxnIds {
    prefix: String,
    count: AtomicU64,
}

impl TxnIds {
    fn new() -> Self {
        let random = Uuid::new_v4().simple().to_string();
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host: String = host
            .to_string_lossy()
            .chars()
            .map(
                |character| {
                    if character.is_ascii_alphanumeric() || character == '-' { character } else { '-' }
                },
            )
            .collect();
        Self {
            prefix: format!(".rh-{}.h-{host}.r-{}", &random[..4], &random[4..12]),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{}.c-{count}.ts-{}.v-0.1", self.prefix, Timestamp::now().as_millis())
    }
}
