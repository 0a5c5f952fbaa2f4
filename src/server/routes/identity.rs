//! The identity service, as far as the clients of the registry need it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::model::Timestamp;
use crate::server::Server;
use crate::server::accounts::TenantId;
use crate::server::answer::json as document;
use crate::server::fault::Refusal;
use crate::server::request::{Connection, Document, check_form, origin};
use crate::server::sessions::{Denied, Grant};

pub(super) async fn log_in(
    State(server): State<Arc<Server>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refusal> {
    check_form(&request)?;
    let origin = origin(&server, connection, request.headers());
    let Document(body) = Document::from_request(request, &()).await?;
    let Some(login) = Login::read(&body) else { return Ok(malformed()) };
    let granted = match login {
        _ if server.is_open() => {
            let username = login.username();
            Ok(server.sessions.empty_grant(username, &TenantId::open()))
        }
        Login::Key { username, key } => {
            let accounts = server.accounts();
            let tenant = server.sessions.authenticate(&accounts, connection.peer, username, key).await;
            tenant.and_then(|_| server.sessions.grant(&accounts, username).ok_or(Denied::Wrong))
        }
        Login::Token { token, tenant } => {
            let grant = server.sessions.find(&server.accounts(), token);
            let is_of = |grant: &Grant| tenant.is_none_or(|tenant| grant.tenant.as_str() == tenant);
            grant.filter(is_of).ok_or(Denied::Wrong)
        }
    };
    Ok(match granted {
        Ok(grant) => document(&access(&grant, &origin)),
        Err(Denied::Wrong) => {
            told(StatusCode::UNAUTHORIZED, "unauthorized", "Username or api key is invalid.")
        }
        Err(Denied::TooMany) => {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, 1.into());
            let too_many = told(StatusCode::TOO_MANY_REQUESTS, "overLimit", "Too many failed logins.");
            (headers, too_many).into_response()
        }
    })
}

/// What a client logs in with.
enum Login<'a> {
    Key {
        username: &'a str,
        key: &'a str,
    },
    /// Asks whether a token is good, for this tenant.
    Token {
        token: &'a str,
        tenant: Option<&'a str>,
    },
}

impl<'a> Login<'a> {
    fn read(body: &'a Value) -> Option<Self> {
        let auth = body.get("auth")?;
        let text = |of: &'a Value, key: &str| of.get(key).and_then(Value::as_str);
        if let Some(login) = auth.get("RAX-KSKEY:apiKeyCredentials") {
            return Some(Self::Key { username: text(login, "username")?, key: text(login, "apiKey")? });
        }
        if let Some(login) = auth.get("passwordCredentials") {
            return Some(Self::Key { username: text(login, "username")?, key: text(login, "password")? });
        }
        let tenant = text(auth, "tenantName").or_else(|| text(auth, "tenantId"));
        Some(Self::Token { token: text(auth.get("token")?, "id")?, tenant })
    }

    fn username(&self) -> &'a str {
        match self {
            Self::Key { username, .. } => username,
            Self::Token { .. } => "anybody",
        }
    }
}

/// Everything that a client was ever seen to read: each finds its tenant in another place.
fn access(grant: &Grant, origin: &str) -> Value {
    let tenant = grant.tenant.as_str();
    let endpoints = json!([{"tenantId": tenant, "publicURL": format!("{origin}/v1.0/{tenant}")}]);
    json!({"access": {
        "token": {
            "id": grant.token,
            "expires": expiry(grant.expires_at),
            "tenant": {"id": tenant, "name": tenant},
        },
        "serviceCatalog": [
            {"name": "cloudServers", "type": "compute", "endpoints": endpoints},
            {"name": "cloudMonitoring", "type": "rax:monitor", "endpoints": endpoints},
        ],
        "user": {"id": grant.username, "name": grant.username, "roles": []},
    }})
}

/// In the one time zone that every client can read.
fn expiry(time: Timestamp) -> String {
    const OFFSET_HOURS: u64 = 5;
    let local = Timestamp::from_millis(time.as_millis().saturating_sub(OFFSET_HOURS * 3_600_000));
    format!("{}-0{OFFSET_HOURS}:00", local.to_string().trim_end_matches('Z'))
}

fn malformed() -> Response {
    told(StatusCode::BAD_REQUEST, "badRequest", "Expecting apiKeyCredentials with username and apiKey.")
}

/// The identity service has faults of its own shape.
fn told(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, document(&json!({kind: {"code": status.as_u16(), "message": message}}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_in_a_time_zone_that_java_reads() {
        assert_eq!(expiry(Timestamp::from_millis(1_700_000_000_123)), "2023-11-14T17:13:20.123-05:00");
    }
}
