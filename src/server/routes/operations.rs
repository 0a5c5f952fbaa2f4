//! For those who run the server, and for Prometheus.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::model::{Limit, Marker, Metadata, PageRequest, Registration, Tag};
use crate::registry::ServiceQuery;
use crate::server::Server;
use crate::server::answer::json as document;
use crate::server::fault::Refusal;
use crate::server::request::{Connection, Credentials, Whose, authorize, origin};
use crate::server::rules::told;
use crate::server::tenants::{Rate, Tenant};

pub(super) async fn home() -> Html<&'static str> {
    Html(
        "<!DOCTYPE html><html lang=\"en\"><title>Service Registry</title><h1>Service Registry</h1>\
         <p>The API is at <code>/v1.0</code>, logins are at <code>/v2.0/tokens</code>; \
         <a href=\"/health\">health</a>, <a href=\"/metrics\">metrics</a>.</p></html>\n",
    )
}

pub(super) async fn health() -> Response {
    document(&json!({"status": "ok"}))
}

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], server.metrics.text(&server.tenants())).into_response()
}

pub(super) async fn limits(Whose(tenant): Whose, Extension(rate): Extension<Rate>) -> Response {
    let resources = tenant.limits.resources;
    let most = |limit: Option<u64>| limit.unwrap_or(Rate::AS_MANY_AS_YOU_LIKE);
    document(&json!({
        "resource": {
            "service": most(resources.services),
            "configuration_value": most(resources.configuration_values),
        },
        "rate": {"/.*": {"limit": rate.limit, "used": rate.used, "window": "24.0 hours"}},
    }))
}

/// Where to scrape what is wrapped: <https://prometheus.io/docs/prometheus/latest/http_sd/>
pub(super) async fn http_sd(
    State(server): State<Arc<Server>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refusal> {
    let origin = origin(&server, connection, request.headers());
    let credentials = Credentials::of(&request);
    let tenant = authorize(&server, connection, credentials, None, &origin).await?;
    let query = request.uri().query().unwrap_or_default();
    let tag = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "tag");
    let tag = tag.map(|(_, value)| Tag::new(value)).transpose();
    let tag = tag.map_err(|error| Refusal::invalid_parameter("tag", told(&error)))?;
    Ok(document(&target_groups(&tenant, tag).await?))
}

async fn target_groups(tenant: &Tenant, tag: Option<Tag>) -> Result<Vec<Value>, Refusal> {
    let mut groups = Vec::new();
    let mut page = PageRequest { marker: None, limit: Limit::MAX };
    loop {
        let query = ServiceQuery { tag: tag.clone(), page: page.clone() };
        let services = tenant.registry.services(&query).await?;
        groups.extend(services.values.iter().filter_map(|service| target_group(&service.registration)));
        page.marker = services.next_marker.map(Marker::from);
        if page.marker.is_none() {
            return Ok(groups);
        }
    }
}

/// None for a service that does not say where it is.
fn target_group(service: &Registration) -> Option<Value> {
    let metadata = &service.metadata;
    let mut endpoint = service.endpoint()?;
    endpoint.port = metadata.get("metrics_port").map(str::to_owned).or(endpoint.port);
    endpoint.port.as_ref()?;
    Some(json!({"targets": [endpoint.to_string()], "labels": labels(service, metadata)}))
}

fn labels(service: &Registration, metadata: &Metadata) -> Map<String, Value> {
    const PREFIX: &str = "__meta_service_registry";
    let mut labels = Map::new();
    let mut add = |name: String, value: &str| labels.insert(name, value.into());
    add(format!("{PREFIX}_id"), service.id.as_str());
    // With a comma on both sides of each, so that `.*,api,.*` finds one.
    let tags = service.tags.iter().flat_map(|tag| [tag.as_str(), ","]);
    add(format!("{PREFIX}_tags"), &std::iter::once(",").chain(tags).collect::<String>());
    for (key, value) in metadata.iter() {
        let is_legal = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let key: String =
            key.chars().map(|character| if is_legal(character) { character } else { '_' }).collect();
        add(format!("{PREFIX}_metadata_{key}"), value);
    }
    for (key, label) in [("metrics_path", "__metrics_path__"), ("metrics_scheme", "__scheme__")] {
        if let Some(value) = metadata.get(key) {
            add(label.to_owned(), value);
        }
    }
    labels
}
