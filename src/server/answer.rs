//! What an answer looks like.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A document, in the type that the API's clients compare with.
pub(super) fn json(document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let kind = HeaderValue::from_static("application/json; charset=UTF-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        // What we answer has string keys and no failing parts.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
