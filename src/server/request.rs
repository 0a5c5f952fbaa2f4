//! What every request goes through before it is anybody's business: who asks, for what, and in which form.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, HeaderValue};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Server;
use super::accounts::TenantId;
use super::fault::Refusal;
use super::tenants::{Rate, Tenant};
use crate::api;
use crate::model::InstanceId;

/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    pub(super) peer: IpAddr,
    pub(super) scheme: &'static str,
}

/// The path that was asked for, before anything was taken out of it.
#[derive(Debug, Clone)]
pub(super) struct RequestedPath(pub(super) String);

/// What an API request is about, as its URL told it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    origin: String,
    tenant: TenantId,
    /// What comes after the tenant, beginning with a slash.
    pub(super) path: String,
    pub(super) query: Option<String>,
}

impl Target {
    /// The URL of something in the same tenant.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/v1.0/{}{path}", self.origin, self.tenant)
    }

    /// The value of a `Location` header.
    pub(super) fn location(&self, path: &str) -> Result<HeaderValue, Refusal> {
        HeaderValue::try_from(self.url(path)).map_err(|_| Refusal::bad_request("Bad request", "Bad host"))
    }
}

/// Where the server is for this client: as it said, or as a proxy before us did.
pub(super) fn origin(server: &Server, connection: Connection, headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        Some("http") => "http",
        _ => connection.scheme,
    };
    format!("{scheme}://{}", text(HOST.as_str()).unwrap_or(&server.address))
}

/// Lets an API request in: says whose it is and what it is about, and takes the tenant out of its path.
pub(super) async fn admit(
    server: &Server,
    connection: Connection,
    request: &mut Request,
) -> Result<Rate, Refusal> {
    let (named, path) = split_tenant(request.uri().path());
    let path = path.to_owned();
    let origin = origin(server, connection, request.headers());
    let named = named_tenant(request.headers(), named);
    let credentials = Credentials::of(request);
    let tenant = authorize(server, connection, credentials, named.as_ref(), &origin).await?;
    let rate = tenant.count_request().map_err(|wait| {
        Refusal::rate_limit_reached(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
    })?;
    check_form(request)?;
    // An open server has one tenant, whatever a client calls it.
    let id = named.unwrap_or_else(|| tenant.id.clone());
    let query = request.uri().query().map(str::to_owned);
    *request.uri_mut() = rewritten(&path, query.as_deref())?;
    request.extensions_mut().insert(Target { origin, tenant: id, path, query });
    request.extensions_mut().insert(tenant);
    Ok(rate)
}

/// Whether a path is one of the registry's API.
pub(super) fn is_api(path: &str) -> bool {
    path.strip_prefix("/v1.0").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The tenant in `/v1.0[/tenant]/…`, and what comes after it.
pub(super) fn split_tenant(path: &str) -> (Option<&str>, &str) {
    let rest = path.strip_prefix("/v1.0").unwrap_or(path);
    let first = rest.strip_prefix('/').map(|rest| rest.split('/').next().unwrap_or_default());
    match first {
        Some(first) if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) => {
            (Some(first), &rest[1 + first.len()..])
        }
        _ => (None, rest),
    }
}

fn rewritten(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let text = match query {
        Some(query) => format!("/v1.0{path}?{query}"),
        None => format!("/v1.0{path}"),
    };
    let target: Result<PathAndQuery, _> = text.parse();
    target.map(Uri::from).map_err(|_| Refusal::no_page(path))
}

fn named_tenant(headers: &HeaderMap, in_path: Option<&str>) -> Option<TenantId> {
    let in_header = headers.get(api::TENANT).and_then(|value| value.to_str().ok());
    in_header.or(in_path).and_then(|text| text.parse().ok())
}

/// Whose request it is, by what it shows; `named` is whose it says it is.
pub(super) async fn authorize(
    server: &Server,
    connection: Connection,
    credentials: Option<Credentials>,
    named: Option<&TenantId>,
    origin: &str,
) -> Result<Arc<Tenant>, Refusal> {
    if let Some(tenant) = server.open_tenant() {
        return Ok(tenant);
    }
    let refuse = |details| Err(Refusal::unauthorized(details, &format!("{origin}/v2.0")));
    let Some(credentials) = credentials else { return refuse("No authentication token provided") };
    let invalid = "Invalid or expired authentication token";
    let Some(tenant) = credentials.tenant(server, connection.peer).await else { return refuse(invalid) };
    match named {
        Some(named) if *named != tenant => refuse(invalid),
        _ => server.tenant(&tenant).map_or_else(|| refuse(invalid), Ok),
    }
}

/// What a request shows to prove whose it is.
pub(super) enum Credentials {
    Token(String),
    /// A username and its key (`Authorization: Basic`): for programs that cannot log in first.
    Key(String, String),
}

impl Credentials {
    pub(super) fn of(request: &Request) -> Option<Self> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let in_query = || {
            let query = request.uri().query().unwrap_or_default();
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == api::AUTH_TOKEN).map(|(_, token)| token.into_owned())
        };
        let token = header(api::AUTH_TOKEN).map(str::to_owned).or_else(in_query);
        token.filter(|token| !token.is_empty()).map(Self::Token).or_else(|| {
            let (scheme, rest) = header(AUTHORIZATION.as_str())?.split_once(' ')?;
            match scheme.to_ascii_lowercase().as_str() {
                "bearer" => Some(Self::Token(rest.trim().to_owned())),
                "basic" => {
                    let bytes = BASE64_STANDARD.decode(rest.trim()).ok()?;
                    let text = String::from_utf8(bytes).ok()?;
                    let (username, key) = text.split_once(':')?;
                    Some(Self::Key(username.to_owned(), key.to_owned()))
                }
                _ => None,
            }
        })
    }

    async fn tenant(&self, server: &Server, peer: IpAddr) -> Option<TenantId> {
        match self {
            Self::Token(token) => server.sessions.find(&server.accounts(), token).map(|grant| grant.tenant),
            Self::Key(username, key) => {
                let accounts = server.accounts();
                server.sessions.authenticate(&accounts, peer, username, key).await.ok()
            }
        }
    }
}

/// Whether it is a request that the API understands: in JSON, with a path that is text.
pub(super) fn check_form(request: &Request) -> Result<(), Refusal> {
    if let Some(value) = request.headers().get(CONTENT_TYPE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let text = format!("Unsupported content type: {essence}");
            return Err(Refusal::bad_request(text.clone(), text));
        }
    }
    let path = request.uri().path();
    let escapes = path.split('%').skip(1);
    let is_escape = |text: &str| text.len() >= 2 && text.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !escapes.into_iter().all(is_escape) || percent_decode_str(path).decode_utf8().is_err() {
        return Err(Refusal::bad_request("URI malformed", "URI malformed"));
    }
    Ok(())
}

impl<S: Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().ok_or_else(|| Refusal::no_page(parts.uri.path()))
    }
}

/// Whose registry a request is for.
pub(super) struct Whose(pub(super) Arc<Tenant>);

impl<S: Sync> FromRequestParts<S> for Whose {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| Refusal::no_page(parts.uri.path()))
    }
}

/// Which life of which program asks, where it says so.
pub(super) struct Asking {
    pub(super) instance: Option<InstanceId>,
    pub(super) holder: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let instance = text(api::INSTANCE).and_then(|value| value.parse().ok());
        let holder = text(api::HOLDER).map(|value| value.chars().take(255).collect());
        Ok(Self { instance, holder })
    }
}

/// A request's body. An empty one is an empty object.
pub(super) struct Document(pub(super) Value);

impl<S: Sync> FromRequest<S> for Document {
    type Rejection = Refusal;
    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length >= api::BODY_LIMIT as u64) {
            return Err(Refusal::too_large());
        }
        let bytes = tokio::time::timeout(BODY_TIMEOUT, whole(request.into_body()));
        let bytes = bytes.await.map_err(|_| Refusal::too_slow())??;
        if bytes.is_empty() {
            return Ok(Self(Value::Object(serde_json::Map::new())));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!("Failed to parse request body: {error}");
            Refusal::bad_request(text.clone(), text)
        })?;
        let is_nothing = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if is_nothing {
            return Err(Refusal::bad_request("Empty Request Body", "Empty Request Body"));
        }
        Ok(Self(value))
    }
}

async fn whole(body: Body) -> Result<axum::body::Bytes, Refusal> {
    match Limited::new(body, api::BODY_LIMIT - 1).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large()),
        Err(error) => {
            let text = format!("Failed to read request body: {error}");
            Err(Refusal::bad_request(text.clone(), text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_what_stands_in_digits_after_the_version() {
        for (path, expected) in [
            ("/v1.0/7777/services", (Some("7777"), "/services")),
            ("/v1.0/services", (None, "/services")),
            ("/v1.0/7777", (Some("7777"), "")),
            ("/v1.0", (None, "")),
            ("/v1.0/", (None, "/")),
            ("/v1.0/77a/services", (None, "/77a/services")),
            ("/v1.0//7777/services", (None, "//7777/services")),
            ("/v1.0/7777//services", (Some("7777"), "//services")),
            ("/v1.0/7777/configuration//prod/key", (Some("7777"), "/configuration//prod/key")),
        ] {
            assert_eq!(split_tenant(path), expected, "{path}");
        }
    }
}
