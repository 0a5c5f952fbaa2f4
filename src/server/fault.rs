//! Why a request comes to nothing, as the API tells it.

use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::json as document;
use crate::api::{self, FaultKind};
use crate::message::chain;
use crate::model::{self, MarkerFault};
use crate::registry::{self, Cause, Object};

/// A refusal. It becomes a [`Fault`](api::Fault) when it is known which request it belongs to: see
/// [`signed`](Self::signed).
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    kind: FaultKind,
    status: StatusCode,
    message: String,
    details: Value,
    holder: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(
        kind: FaultKind,
        status: StatusCode,
        message: impl Into<String>,
        details: impl Into<Value>,
    ) -> Self {
        let (message, details) = (message.into(), details.into());
        Self { kind, status, message, details, holder: None, headers: Vec::new() }
    }

    pub(super) fn bad_request(message: impl Into<String>, details: impl Into<Value>) -> Self {
        Self::new(FaultKind::BadRequest, StatusCode::BAD_REQUEST, message, details)
    }

    /// What is wrong with `key` of a body.
    pub(super) fn invalid_key(key: &str, details: impl Into<String>) -> Self {
        Self::bad_request(format!("Validation error for key '{key}'"), details.into())
    }

    /// What is wrong with a part of the path or the query.
    pub(super) fn invalid_parameter(name: &str, details: impl Into<String>) -> Self {
        Self::bad_request(format!("Invalid value for '{name}' query string parameter"), details.into())
    }

    pub(super) fn invalid_limit(details: String) -> Self {
        Self::new(FaultKind::InvalidLimit, StatusCode::BAD_REQUEST, "Invalid limit", details)
    }

    pub(super) fn unauthorized(details: &str, identity_url: &str) -> Self {
        let mut refusal =
            Self::new(FaultKind::UnauthorizedError, StatusCode::UNAUTHORIZED, "forbidden", details);
        refusal.add_header(WWW_AUTHENTICATE, format!("Keystone uri=\"{identity_url}\""));
        refusal
    }

    pub(super) fn rate_limit_reached(seconds: u64) -> Self {
        let (kind, status) = (FaultKind::RateLimitReached, StatusCode::BAD_REQUEST);
        let details = format!("It is lifted in {seconds} seconds.");
        let mut refusal = Self::new(kind, status, "Rate limit has been reached.", details);
        refusal.add_header(RETRY_AFTER, seconds.to_string());
        // What the original called it.
        refusal.add_header(HeaderName::from_static("reply-after"), seconds.to_string());
        refusal
    }

    pub(super) fn no_page(path: &str) -> Self {
        let details = json!({"requested_path": path});
        Self::new(FaultKind::NotFoundError, StatusCode::NOT_FOUND, "The page cannot be found.", details)
    }

    pub(super) fn too_large() -> Self {
        let (kind, status) = (FaultKind::RequestTooLargeError, StatusCode::PAYLOAD_TOO_LARGE);
        let details = format!("A request has less than {} bytes.", api::BODY_LIMIT);
        let mut refusal = Self::new(kind, status, "Request is too large", details);
        refusal.add_header(CONNECTION, "close".to_owned());
        refusal
    }

    pub(super) fn too_slow() -> Self {
        let details = "The request's body did not come in time.";
        let mut refusal =
            Self::new(FaultKind::BadRequest, StatusCode::REQUEST_TIMEOUT, "Request timed out", details);
        refusal.add_header(CONNECTION, "close".to_owned());
        refusal
    }

    /// Nobody outside is told what went wrong inside.
    fn internal(kind: FaultKind, status: StatusCode) -> Self {
        Self::new(kind, status, "Internal Error", "Internal Error")
    }

    /// One that `rule` asked for, in the form that this status comes in otherwise.
    pub(super) fn on_purpose(status: u16, rule: &impl std::fmt::Display) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let kind = match status.as_u16() {
            401 => FaultKind::UnauthorizedError,
            403 => FaultKind::ForbiddenError,
            404 => FaultKind::NotFoundError,
            413 => FaultKind::RequestTooLargeError,
            429 => FaultKind::RateLimitReached,
            501 => FaultKind::NotImplementedError,
            503 => FaultKind::SystemFailureError,
            _ if status.is_server_error() => FaultKind::InternalError,
            _ => FaultKind::BadRequest,
        };
        let details = format!("The server was started with --chaos {rule}");
        let mut refusal = Self::new(kind, status, "Failed on purpose", details);
        match status {
            StatusCode::UNAUTHORIZED => refusal.add_header(WWW_AUTHENTICATE, "Keystone".to_owned()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                refusal.add_header(RETRY_AFTER, "1".to_owned());
            }
            _ => {}
        }
        refusal
    }

    fn not_found(object: Object, id: &str) -> Self {
        let object = match object {
            Object::Service => "Service",
            Object::HeartbeatToken => "HeartbeatMarker",
            Object::ConfigurationValue => "ConfigurationValue",
        };
        let details = format!("Object \"{object}\" with key \"{id}\" does not exist");
        Self::new(FaultKind::NotFoundError, StatusCode::NOT_FOUND, "object does not exist", details)
    }

    fn limit_reached(object: Object, limit: u64) -> Self {
        let resource = match object {
            Object::ConfigurationValue => "configuration_value",
            Object::Service | Object::HeartbeatToken => "service",
        };
        let details =
            format!("Limit for resource {resource} has been reached. Maximum allowed objects: {limit}");
        let (kind, status) = (FaultKind::LimitReached, StatusCode::BAD_REQUEST);
        Self::new(kind, status, "Resource limit has been reached", details)
    }

    fn broken_rule(rule: &model::Error) -> Self {
        let model::Error::Marker { fault, .. } = rule else {
            return Self::bad_request("Bad request", rule.to_string());
        };
        match fault {
            MarkerFault::NotTimeBased => Self::invalid_parameter("marker", "UUID is not version 1"),
            MarkerFault::InTheFuture => {
                let text = "from parameter must be smaller than the current time";
                Self::bad_request(text, text)
            }
            MarkerFault::BeforeTheLog => {
                let text = "from parameter must be greater than or equal to the account creation date";
                Self::bad_request(text, text)
            }
        }
    }

    fn add_header(&mut self, name: HeaderName, value: String) {
        self.headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    }

    /// The response, with the number of the request in it.
    pub(super) fn signed(self, txn_id: &str) -> Response {
        let fault = api::Fault {
            kind: self.kind,
            code: self.status.as_u16(),
            message: self.message,
            details: self.details,
            txn_id: txn_id.to_owned(),
            holder: self.holder,
        };
        let mut response = document(&fault);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A response without a body that carries the refusal to where it is signed.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<registry::Error> for Refusal {
    fn from(error: registry::Error) -> Self {
        match error {
            registry::Error::NotFound { object, id, .. } => Self::not_found(object, &id),
            registry::Error::Conflict { id, holder, frees_in } => {
                let text = format!("Service with id {id} already exists.");
                let (kind, status) = (FaultKind::ServiceWithThisIdExists, StatusCode::BAD_REQUEST);
                let mut refusal = Self::new(kind, status, text.clone(), text);
                refusal.holder = Some(holder);
                if let Some(span) = frees_in {
                    refusal.add_header(RETRY_AFTER, span.as_millis().div_ceil(1000).to_string());
                }
                refusal
            }
            registry::Error::LimitReached { object, limit, .. } => Self::limit_reached(object, limit),
            registry::Error::Invalid { source: Cause::Rule(rule), .. } => Self::broken_rule(&rule),
            registry::Error::Unsupported { .. } => {
                Self::internal(FaultKind::NotImplementedError, StatusCode::NOT_IMPLEMENTED)
            }
            error @ registry::Error::Unavailable { .. } => {
                tracing::warn!(error = chain(&error), "the registry is not available");
                let mut refusal =
                    Self::internal(FaultKind::SystemFailureError, StatusCode::SERVICE_UNAVAILABLE);
                refusal.add_header(RETRY_AFTER, "1".to_owned());
                refusal
            }
            error @ (registry::Error::Unauthorized { .. } | registry::Error::Invalid { .. }) => {
                tracing::error!(error = chain(&error), "the registry fails");
                Self::internal(FaultKind::InternalError, StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}
