//! Pages of lists: which one is asked for, and how it is answered.

use axum::response::Response;
use serde::Serialize;
use url::form_urlencoded;

use super::answer::json;
use super::fault::Refusal;
use super::request::Target;
use super::rules::told;
use crate::api::{Listing, Paging};
use crate::model::{Limit, Marker, Page};

/// The query of a list's URL.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn of(target: &Target) -> Self {
        let query = target.query.as_deref().unwrap_or_default();
        Self { pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect() }
    }

    /// Every value that was given under a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn limit(&self) -> Result<Limit, Refusal> {
        let Some(text) = self.first("limit") else { return Ok(Limit::default()) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::invalid_limit("Limit must be a number".to_owned()));
        }
        text.parse().map_err(|_| {
            let text = text.trim_start_matches('0');
            let shown = if text.is_empty() { "0" } else { text };
            let most = Limit::MAX.get();
            Refusal::invalid_limit(format!(
                "Invalid limit {shown}. Minimum limit is 1 and maximum limit is {most}."
            ))
        })
    }

    /// An id, or anything that can stand between two, of at most so many characters.
    pub(super) fn marker(&self, most: usize) -> Result<Option<Marker>, Refusal> {
        let refuse = |details| Refusal::invalid_parameter("marker", details);
        match self.first("marker") {
            Some(text) if text.len() > most => Err(refuse(format!("String is not in range (0..{most})"))),
            text => text.map(Marker::new).transpose().map_err(|error| refuse(told(&error))),
        }
    }

    /// The same list from another place on.
    fn from(&self, marker: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        // A token has no place in what is passed around.
        let kept = self.pairs.iter().filter(|(key, _)| key != "marker" && key != "x-auth-token");
        query.extend_pairs(kept).append_pair("marker", marker);
        query.finish()
    }
}

/// Answers with a page. `marker` is where it was asked to begin, as it is to be told.
pub(super) fn listing<T: Serialize, M: ToString>(
    target: &Target,
    query: &Query,
    marker: Option<String>,
    page: Page<T, M>,
) -> Result<Response, Refusal> {
    let next_marker = page.next_marker.map(|marker| marker.to_string());
    let next_href =
        next_marker.as_ref().map(|next| format!("{}?{}", target.url(&target.path), query.from(next)));
    let metadata =
        Paging { count: page.values.len(), limit: query.limit()?.get(), marker, next_marker, next_href };
    Ok(json(&Listing { values: page.values, metadata }))
}
