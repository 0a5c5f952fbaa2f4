//! What is where. A handler reads the request, calls the tenant's registry, and answers.

mod configuration;
mod events;
mod identity;
mod operations;
mod services;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};

use super::Server;
use super::fault::Refusal;
use super::request::RequestedPath;

/// The way to every handler. API paths have lost their tenant by then.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(operations::home))
        .route("/health", get(operations::health))
        .route("/metrics", get(operations::metrics))
        .route("/http_sd", get(operations::http_sd))
        .route("/v2.0/tokens", post(identity::log_in))
        .route("/v2.0/tokens/", post(identity::log_in))
        .route("/v1.0/limits", get(operations::limits))
        .route("/v1.0/services", get(services::list).post(services::create))
        .route("/v1.0/services/{id}", get(services::show).put(services::update).delete(services::remove))
        .route("/v1.0/services/{id}/heartbeat", post(services::heartbeat))
        .route("/v1.0/configuration", get(configuration::list_all))
        .route("/v1.0/configuration/", get(configuration::list_all))
        .route(
            "/v1.0/configuration/{*id}",
            get(configuration::show).put(configuration::set).delete(configuration::remove),
        )
        .route("/v1.0/events", get(events::list))
        .fallback(no_page)
        .method_not_allowed_fallback(no_page)
        .with_state(server)
}

async fn no_page(Extension(RequestedPath(path)): Extension<RequestedPath>) -> Refusal {
    Refusal::no_page(&path)
}
