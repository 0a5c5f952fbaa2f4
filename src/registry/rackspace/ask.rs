use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Request};
use serde_json::{Value, json};
use url::Url;

use super::session::Pass;
use super::{service_path, value_path};
use crate::api;
use crate::model::{ConfigurationId, PageRequest, Registration, ServiceId, Token};
use crate::registry::http::HttpCause;
use crate::registry::{ApiUrl, Claim, Owner};

/// Bounds for answers: a thousand services, each described in a request of at most 5000 bytes, fit.
const LONGEST_LIST: usize = 8 << 20;
const LONGEST: usize = 64 << 10;

/// A request, but for what it owes to the login.
pub(super) struct Ask {
    method: Method,
    /// Below the tenant, with a slash at its front.
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    headers: Vec<(&'static str, String)>,
    /// How many bytes of the answer are read.
    longest: usize,
}

impl Ask {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: vec![], body: None, headers: vec![], longest: LONGEST }
    }

    pub(super) fn value(id: &ConfigurationId) -> Self {
        Self::new(Method::GET, value_path(id))
    }

    pub(super) fn registration(registration: &Registration, claim: &Claim) -> Self {
        Self::new(Method::POST, "/services").body(json!(registration)).claiming(claim)
    }

    pub(super) fn heartbeat(id: &ServiceId, token: &Token, whose: Owner) -> Self {
        let path = service_path(id) + "/heartbeat";
        Self::new(Method::POST, path).body(json!({"token": token})).for_owner(whose)
    }

    pub(super) fn deregistration(id: &ServiceId, whose: Owner) -> Self {
        Self::new(Method::DELETE, service_path(id)).for_owner(whose)
    }

    /// Asks for a page of a list.
    pub(super) fn list<M: ToString>(path: impl Into<String>, page: &PageRequest<M>) -> Self {
        let marker = page.marker.as_ref().map(|marker| ("marker", marker.to_string()));
        let query = marker.into_iter().chain([("limit", page.limit.get().to_string())]).collect();
        Self { query, longest: LONGEST_LIST, ..Self::new(Method::GET, path) }
    }

    /// Adds to the query, if there is something to add.
    pub(super) fn with(mut self, name: &'static str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (name, value)));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Says for whom it is asked.
    pub(super) fn for_owner(mut self, whose: Owner) -> Self {
        if let Owner::Instance(instance) = whose {
            self.headers.push((api::INSTANCE, instance.to_string()));
        }
        self
    }

    /// Says who registers.
    pub(super) fn claiming(self, claim: &Claim) -> Self {
        let mut ask = self.for_owner(Owner::Instance(claim.instance));
        ask.headers.push((api::HOLDER, printable(&claim.holder)));
        ask
    }

    pub(super) fn query(&self) -> &[(&'static str, String)] {
        &self.query
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// As it is sent to the registry at `base`, by whoever has `pass`. The tenant of the login comes into the path
    /// unless `base` names one.
    pub(super) fn request(&self, base: &ApiUrl, pass: Option<&Pass>) -> Result<Request, HttpCause> {
        let url = match (base.tenant(), pass) {
            (None, Some(pass)) => format!("{}/{}{}", base.as_str(), pass.tenant, self.path),
            _ => format!("{}{}", base.as_str(), self.path),
        };
        let mut url = Url::parse(&url).map_err(|error| HttpCause::Client(error.to_string()))?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        let mut request = Request::new(self.method.clone(), url);
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_static(name), header(value)?);
        }
        if let Some(pass) = pass {
            headers.insert(HeaderName::from_static(api::AUTH_TOKEN), pass.token.clone());
            let tenant = base.tenant().unwrap_or(&pass.tenant);
            headers.insert(HeaderName::from_static(api::TENANT), header(tenant)?);
        }
        if let Some(body) = &self.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }
}

fn header(value: &str) -> Result<HeaderValue, HttpCause> {
    HeaderValue::from_str(value).map_err(|error| HttpCause::Client(error.to_string()))
}

/// A header takes no line breaks, and only some servers take more than ASCII.
fn printable(text: &str) -> String {
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { '?' }).collect()
}
