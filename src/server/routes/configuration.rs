use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

use crate::model::{ConfigurationId, Namespace, PageRequest};
use crate::registry::{ConfigurationQuery, ConfigurationStore};
use crate::server::answer::json;
use crate::server::fault::Refusal;
use crate::server::page::{Query, listing};
use crate::server::request::{Document, Target, Whose};
use crate::server::rules::{self, told};
use crate::server::tenants::Tenant;

pub(super) async fn list_all(Whose(tenant): Whose, target: Target) -> Result<Response, Refusal> {
    list(&tenant, &target, None).await
}

/// One value; or, with a slash at its end, what is in a namespace.
pub(super) async fn show(
    Whose(tenant): Whose,
    target: Target,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    if path.ends_with('/') {
        let namespace = Namespace::new(&path).map_err(|error| invalid_id(&error))?;
        return list(&tenant, &target, Some(namespace)).await;
    }
    Ok(json(&store(&tenant)?.value(&id(&path)?).await?))
}

pub(super) async fn set(
    Whose(tenant): Whose,
    target: Target,
    Path(path): Path<String>,
    Document(body): Document,
) -> Result<Response, Refusal> {
    let value = rules::configuration_value(&id(&path)?, &body)?;
    store(&tenant)?.set(&value).await?;
    let location = target.location(&format!("/configuration/{}", value.id))?;
    Ok((StatusCode::NO_CONTENT, [(LOCATION, location)]).into_response())
}

pub(super) async fn remove(Whose(tenant): Whose, Path(path): Path<String>) -> Result<StatusCode, Refusal> {
    store(&tenant)?.remove(&id(&path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(tenant: &Tenant, target: &Target, namespace: Option<Namespace>) -> Result<Response, Refusal> {
    let query = Query::of(target);
    // As long as the longest id: it must be possible to go on from there.
    let marker = query.marker(500)?;
    let told = marker.as_ref().map(|marker| marker.as_str().to_owned());
    let page = PageRequest { marker, limit: query.limit()? };
    let page = store(tenant)?.values(&ConfigurationQuery { namespace, page }).await?;
    listing(target, &query, told, page)
}

fn store(tenant: &Tenant) -> Result<&dyn ConfigurationStore, Refusal> {
    Ok(tenant.registry.configuration()?)
}

/// What stands after `/configuration/`. Clients send an id in a namespace with its slash, so that there are two;
/// the documentation leaves it out.
fn id(path: &str) -> Result<ConfigurationId, Refusal> {
    let is_in_namespace = path.contains('/') && !path.starts_with('/');
    let text = if is_in_namespace { format!("/{path}") } else { path.to_owned() };
    ConfigurationId::new(text).map_err(|error| invalid_id(&error))
}

fn invalid_id(error: &crate::model::Error) -> Refusal {
    Refusal::invalid_parameter("configurationId", told(error))
}
