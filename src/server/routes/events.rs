use axum::response::Response;
use uuid::Uuid;

use crate::model::{EventKind, PageRequest};
use crate::registry::EventQuery;
use crate::server::fault::Refusal;
use crate::server::page::{Query, listing};
use crate::server::request::{Target, Whose};
use crate::server::rules;

pub(super) async fn list(Whose(tenant): Whose, target: Target) -> Result<Response, Refusal> {
    let query = Query::of(&target);
    let page = PageRequest { marker: marker(&query)?, limit: query.limit()? };
    let page = tenant.registry.events()?.events(&EventQuery { kind: kind(&query)?, page }).await?;
    // The original never told where an event list was asked to begin.
    listing(&target, &query, None, page)
}

fn marker(query: &Query) -> Result<Option<Uuid>, Refusal> {
    let marker = query.first("marker").map(rules::time_based).transpose();
    marker.map_err(|text| Refusal::invalid_parameter("marker", text))
}

fn kind(query: &Query) -> Result<Option<EventKind>, Refusal> {
    let given: Vec<_> = query.all("type").collect();
    let invalid = || {
        let valid = EventKind::ALL.map(EventKind::as_str).join(",");
        let text = format!("Invalid type: {}. Valid types are: {valid}", given.join(","));
        Refusal::bad_request(text.clone(), text)
    };
    match given[..] {
        [] => Ok(None),
        [one] => one.parse().map(Some).map_err(|_| invalid()),
        _ => Err(invalid()),
    }
}
