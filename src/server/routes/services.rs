use axum::extract::Path;
use axum::http::header::{CONNECTION, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::HeartbeatToken;
use crate::model::{InstanceId, PageRequest, ServiceId, Tag};
use crate::registry::{Claim, IfTaken, Owner, ServiceQuery};
use crate::server::answer::json;
use crate::server::fault::Refusal;
use crate::server::page::{Query, listing};
use crate::server::request::{Asking, Document, Target, Whose};
use crate::server::rules::{self, told};

pub(super) async fn create(
    Whose(tenant): Whose,
    target: Target,
    asking: Asking,
    Document(body): Document,
) -> Result<Response, Refusal> {
    let registration = rules::registration(&body)?;
    let claim = Claim {
        // Whoever does not say who it is, is somebody new each time.
        instance: asking.instance.unwrap_or_else(InstanceId::unique),
        holder: asking.holder.unwrap_or_else(|| "a client of the API".to_owned()),
        if_taken: IfTaken::Refuse,
    };
    let location = target.location(&format!("/services/{}", registration.id))?;
    let token = tenant.registry.register(&registration, &claim).await?;
    Ok((StatusCode::CREATED, [(LOCATION, location)], json(&HeartbeatToken { token })).into_response())
}

pub(super) async fn list(Whose(tenant): Whose, target: Target) -> Result<Response, Refusal> {
    let query = Query::of(&target);
    let marker = query.marker(255)?;
    let tag = query.first("tag").map(tag).transpose()?;
    let told = marker.as_ref().map(|marker| marker.as_str().to_owned());
    let page = PageRequest { marker, limit: query.limit()? };
    let page = tenant.registry.services(&ServiceQuery { tag, page }).await?;
    listing(&target, &query, told, page)
}

pub(super) async fn show(Whose(tenant): Whose, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(json(&tenant.registry.service(&service_id(id)?).await?))
}

pub(super) async fn update(
    Whose(tenant): Whose,
    target: Target,
    Path(id): Path<String>,
    Document(body): Document,
) -> Result<Response, Refusal> {
    let id = service_id(id)?;
    let update = rules::update(&body)?;
    tenant.registry.update(&id, &update).await?;
    let location = target.location(&format!("/services/{id}"))?;
    Ok((StatusCode::NO_CONTENT, [(LOCATION, location)]).into_response())
}

pub(super) async fn remove(
    Whose(tenant): Whose,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    tenant.registry.deregister(&service_id(id)?, owner(&asking)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn heartbeat(
    Whose(tenant): Whose,
    asking: Asking,
    Path(id): Path<String>,
    Document(body): Document,
) -> Result<Response, Refusal> {
    let id = service_id(id)?;
    let token = rules::heartbeat(&body)?;
    let token = tenant.registry.heartbeat(&id, &token, owner(&asking)).await?;
    let keep_alive = [(CONNECTION, HeaderValue::from_static("keep-alive"))];
    Ok((keep_alive, json(&HeartbeatToken { token })).into_response())
}

fn owner(asking: &Asking) -> Owner {
    asking.instance.map_or(Owner::Anyone, Owner::Instance)
}

fn service_id(text: String) -> Result<ServiceId, Refusal> {
    ServiceId::new(text).map_err(|error| Refusal::invalid_parameter("serviceId", told(&error)))
}

/// Any legal tag can be asked for, but for those that no sane client sends.
fn tag(text: &str) -> Result<Tag, Refusal> {
    let refuse = |details| Refusal::invalid_parameter("tag", details);
    if text.chars().any(|character| character.is_control() || matches!(character, '\'' | '"')) {
        return Err(refuse("Invalid characters".to_owned()));
    }
    Tag::new(text).map_err(|error| refuse(told(&error)))
}
