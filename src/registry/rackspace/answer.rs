//! What a server answered, as a value or as one of our errors.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::FaultKind;
use crate::model::{self, MarkerFault, printable};
use crate::registry::http::{Answer, HttpCause};
use crate::registry::{Cause, Error, Object};

/// What a call was about: it decides what a "not found" means.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    /// One thing, which may not be there.
    One(Object, &'a str),
    /// A heartbeat of the service with this id.
    Heartbeat(&'a str),
    /// A page of the event log, from this marker.
    Events(Option<uuid::Uuid>),
    /// A page that is always there.
    Page,
}

/// A fault as servers tell it, ours and others': whatever is missing is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fault {
    #[serde(rename = "type")]
    kind: Option<FaultKind>,
    message: String,
    details: Value,
    holder: Option<String>,
}

/// Somebody else has the id.
#[derive(Debug)]
pub(super) struct Taken {
    /// Who, where the server tells.
    pub(super) holder: Option<String>,
    pub(super) frees_in: Option<Duration>,
}

/// Whether the answer is that the id is taken.
pub(super) fn taken(answer: &Answer) -> Option<Taken> {
    let fault = Fault::of(answer);
    let is_taken = answer.status.is_client_error() && fault.kind == Some(FaultKind::ServiceWithThisIdExists);
    is_taken.then(|| Taken {
        holder: fault.holder.map(|holder| printable(&holder)),
        frees_in: answer.retry_after,
    })
}

/// The body of a success.
pub(super) fn read<T: DeserializeOwned>(registry: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let cause = HttpCause::Nonsense(printable(&error.to_string()));
        Error::Unavailable { registry: registry.to_owned(), source: cause.into() }
    })
}

/// What an answer other than a success means.
pub(super) fn failure(registry: &str, about: About<'_>, answer: &Answer) -> Error {
    let fault = Fault::of(answer);
    let registry = registry.to_owned();
    match answer.status {
        StatusCode::NOT_FOUND => not_found(registry, about, answer, &fault),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::Unauthorized { registry, source: cause(answer).into() }
        }
        status if is_passing(status, fault.kind) => {
            Error::Unavailable { registry, source: cause(answer).into() }
        }
        _ => {
            // A token that the server cannot even read is one that it does not know.
            if let (About::Heartbeat(id), "Validation error for key 'token'") = (about, &*fault.message) {
                return Error::NotFound { registry, object: Object::HeartbeatToken, id: id.to_owned() };
            }
            if let Some((object, limit)) = limit(&fault) {
                return Error::LimitReached { registry, object, limit };
            }
            let source = match about {
                About::Events(Some(marker)) => marker_fault(marker, &fault),
                _ => None,
            };
            Error::Invalid { registry, source: source.unwrap_or_else(|| cause(answer).into()) }
        }
    }
}

/// Whether it may pass by itself.
fn is_passing(status: StatusCode, kind: Option<FaultKind>) -> bool {
    status.is_server_error()
        || kind == Some(FaultKind::RateLimitReached)
        || matches!(status.as_u16(), 408 | 425 | 429)
        // A success where something else was expected is no answer to what we asked.
        || status.is_success() || status.is_informational()
}

/// What lies behind a refusal.
pub(super) fn cause(answer: &Answer) -> HttpCause {
    let status = answer.status.as_u16();
    match answer.status {
        StatusCode::NOT_FOUND => HttpCause::NoPage { path: printable(&answer.path) },
        status_code if status_code.is_redirection() => {
            HttpCause::Redirect { status, location: answer.location.as_deref().map(without_secrets) }
        }
        _ => HttpCause::Status { status, message: Fault::of(answer).told() },
    }
}

fn not_found(registry: String, about: About<'_>, answer: &Answer, fault: &Fault) -> Error {
    let is_of_the_api = fault.kind == Some(FaultKind::NotFoundError) && !fault.details.is_object();
    let (object, id) = match about {
        About::Heartbeat(id) => (Object::Service, id),
        About::One(object, id) if is_of_the_api => (object, id),
        _ => {
            return Error::Unavailable { registry, source: cause(answer).into() };
        }
    };
    let details = fault.details.as_str().unwrap_or_default();
    let object = if details.contains("HeartbeatMarker") { Object::HeartbeatToken } else { object };
    Error::NotFound { registry, object, id: id.to_owned() }
}

/// `Limit for resource service has been reached. Maximum allowed objects: 200`
fn limit(fault: &Fault) -> Option<(Object, u64)> {
    if fault.kind != Some(FaultKind::LimitReached) {
        return None;
    }
    let details = fault.details.as_str()?;
    let object = if details.contains("configuration") { Object::ConfigurationValue } else { Object::Service };
    let digits =
        details.rsplit(|character: char| !character.is_ascii_digit()).find(|word| !word.is_empty())?;
    Some((object, digits.parse().ok()?))
}

fn marker_fault(marker: uuid::Uuid, fault: &Fault) -> Option<Cause> {
    let details = fault.details.as_str()?;
    let fault = if details.contains("UUID") {
        MarkerFault::NotTimeBased
    } else if details.contains("smaller than the current time") {
        MarkerFault::InTheFuture
    } else if details.contains("account creation date") {
        MarkerFault::BeforeTheLog
    } else {
        return None;
    };
    Some(Cause::Rule(model::Error::Marker { marker, fault }))
}

impl Fault {
    fn of(answer: &Answer) -> Self {
        if answer.status.is_success() {
            return Self::default();
        }
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Its message, and its details where they tell more.
    fn told(&self) -> String {
        match self.details.as_str().filter(|details| !details.is_empty() && *details != self.message) {
            Some(details) if self.message.is_empty() => printable(details),
            Some(details) => format!("{}: {}", printable(&self.message), printable(details)),
            None => printable(&self.message),
        }
    }
}

/// A URL that a server named, without what may be a secret in it.
fn without_secrets(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let location = &location[..end];
    match (location.find("//"), location.rfind('@')) {
        (Some(slashes), Some(at)) if slashes < at => {
            printable(&format!("{}{}", &location[..slashes + 2], &location[at + 1..]))
        }
        _ => printable(location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Hint, chain};
    use crate::registry::Recourse;

    const SERVICE: About<'_> = About::One(Object::Service, "web1");

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        let path = "/v1.0/services".to_owned();
        Answer {
            path,
            status,
            body: body.into(),
            location: None,
            retry_after: None,
            date: None,
            headers: reqwest::header::HeaderMap::new(),
        }
    }

    fn told(about: About<'_>, status: u16, body: &str) -> Error {
        failure("http://host/v1.0", about, &answer(status, body))
    }

    fn fault(kind: &str, details: &str) -> String {
        serde_json::json!({"type": kind, "code": 400, "message": "m", "details": details, "txnId": "t"})
            .to_string()
    }

    #[test]
    fn what_may_pass_is_sent_again_and_what_will_not_is_not() {
        for status in [408, 425, 429, 500, 502, 503, 504, 599, 204] {
            assert_eq!(told(SERVICE, status, "").recourse(), Recourse::Retry, "{status}");
        }
        assert_eq!(told(SERVICE, 400, &fault("rateLimitReached", "")).recourse(), Recourse::Retry);
        for status in [400, 405, 409, 410, 413, 415, 422, 301, 302, 307] {
            assert_eq!(told(SERVICE, status, "<html>").recourse(), Recourse::None, "{status}");
        }
        for status in [401, 403] {
            assert_eq!(told(SERVICE, status, "").recourse(), Recourse::Authenticate, "{status}");
        }
    }

    #[test]
    fn a_404_is_a_missing_thing_only_where_the_api_says_so() {
        let missing = fault("notFoundError", "Object \"Service\" with key \"web1\" does not exist");
        let marker = fault("notFoundError", "Object \"HeartbeatMarker\" with key \"x\" does not exist");
        let page = r#"{"type":"notFoundError","message":"The page cannot be found.","details":{"requested_path":"/"}}"#;
        assert!(matches!(told(SERVICE, 404, &missing), Error::NotFound { object: Object::Service, .. }));
        for body in [page, "<html>"] {
            let error = told(SERVICE, 404, body);
            assert_eq!(error.recourse(), Recourse::Retry, "{body}");
            assert!(error.hint().unwrap().contains("/v1.0"));
            assert_eq!(
                chain(&error),
                "registry http://host/v1.0 is not available: it has no page /v1.0/services"
            );
        }
        assert_eq!(told(About::Page, 404, &missing).recourse(), Recourse::Retry);
        for body in [&missing, page, "<html>"] {
            let error = told(About::Heartbeat("web1"), 404, body);
            assert!(matches!(error, Error::NotFound { object: Object::Service, .. }), "{error:?}");
        }
        let error = told(About::Heartbeat("web1"), 404, &marker);
        assert!(matches!(error, Error::NotFound { object: Object::HeartbeatToken, .. }), "{error:?}");
    }

    #[test]
    fn a_limit_is_read_from_the_details() {
        let details = "Limit for resource service has been reached. Maximum allowed objects: 200";
        let error = told(About::Page, 400, &fault("limitReached", details));
        assert!(
            matches!(error, Error::LimitReached { limit: 200, object: Object::Service, .. }),
            "{error:?}"
        );
        let details =
            "Limit for resource configuration_value has been reached. Maximum allowed objects: 1000";
        let error = told(About::Page, 400, &fault("limitReached", details));
        assert!(matches!(error, Error::LimitReached { limit: 1000, object: Object::ConfigurationValue, .. }));
        assert!(matches!(told(About::Page, 400, &fault("limitReached", "full")), Error::Invalid { .. }));
    }

    #[test]
    fn a_marker_that_is_refused_is_a_broken_rule() {
        let marker = uuid::Uuid::nil();
        for (details, fault_kind) in [
            ("UUID is not version 1", MarkerFault::NotTimeBased),
            ("Invalid UUID", MarkerFault::NotTimeBased),
            ("from parameter must be smaller than the current time", MarkerFault::InTheFuture),
            (
                "from parameter must be greater than or equal to the account creation date",
                MarkerFault::BeforeTheLog,
            ),
        ] {
            let error = told(About::Events(Some(marker)), 400, &fault("badRequest", details));
            let Error::Invalid { source: Cause::Rule(rule), .. } = error else { panic!("{error:?}") };
            assert_eq!(rule, model::Error::Marker { marker, fault: fault_kind });
        }
    }

    #[test]
    fn a_refusal_says_what_the_server_said_on_one_line() {
        let error = told(SERVICE, 400, &fault("badRequest", "a\nb\u{1b}[2J"));
        assert_eq!(
            chain(&error),
            "registry http://host/v1.0 cannot do this: it answered 400 Bad Request: m: a\\nb\\u{1b}[2J"
        );
        let error = told(SERVICE, 503, "<html>");
        assert_eq!(
            chain(&error),
            "registry http://host/v1.0 is not available: it answered 503 Service Unavailable"
        );
    }

    #[test]
    fn a_redirect_is_told_without_its_secrets() {
        let location = Some("https://me:sesame@other/v1.0?token=sesame".to_owned());
        let moved = Answer { location, ..answer(302, "") };
        let error = failure("http://host/v1.0", SERVICE, &moved);
        assert_eq!(
            chain(&error),
            "registry http://host/v1.0 cannot do this: it redirects (302) to https://other/v1.0"
        );
    }

    #[test]
    fn an_id_that_is_taken_is_told_with_its_holder() {
        let body = r#"{"type":"serviceWithThisIdExists","code":400,"message":"m","details":"d","holder":"pid 1 on a\n"}"#;
        assert_eq!(taken(&answer(400, body)).unwrap().holder.as_deref(), Some("pid 1 on a\\n"));
        assert!(taken(&answer(400, &fault("serviceWithThisIdExists", ""))).unwrap().holder.is_none());
        assert!(taken(&answer(400, &fault("badRequest", ""))).is_none());
        assert!(taken(&answer(201, body)).is_none());
    }
}
