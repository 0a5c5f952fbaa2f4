//! The login: once, shared by all calls, and again when the registry no longer takes what came of it.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::answer;
use crate::registry::http::{Answer, Http, HttpCause, key};
use crate::registry::{AuthUrl, Credentials, Error};

/// The answer to a login has the whole service catalogue of an account.
const LONGEST: usize = 1 << 20;

/// What a login gives.
pub(super) struct Pass {
    /// Goes into a header, as a secret.
    pub(super) token: HeaderValue,
    /// Whose services are meant, unless the registry's URL says so.
    pub(super) tenant: String,
}

/// A login, made at the first call that needs one.
pub(super) struct Session {
    credentials: Credentials,
    auth_url: AuthUrl,
    /// Locked while a login is under way: whoever comes in the meantime shares what comes of it.
    pass: Mutex<Option<Arc<Pass>>>,
}

impl Session {
    pub(super) fn new(credentials: Credentials, auth_url: AuthUrl) -> Self {
        Self { credentials, auth_url, pass: Mutex::default() }
    }

    /// The pass at hand, or a new one. Never `refused`, if that is given.
    pub(super) async fn pass(
        &self,
        http: &Http,
        registry: &str,
        refused: Option<&Arc<Pass>>,
    ) -> Result<Arc<Pass>, Error> {
        let mut slot = self.pass.lock().await;
        if let Some(pass) = &*slot
            && !refused.is_some_and(|refused| Arc::ptr_eq(pass, refused))
        {
            return Ok(Arc::clone(pass));
        }
        *slot = None;
        let pass = self.log_in(http).await.map_err(|(class, cause)| {
            let source = HttpCause::Login { url: self.auth_url.to_string(), source: Box::new(cause) }.into();
            let registry = registry.to_owned();
            match class {
                Class::Refused => Error::Unauthorized { registry, source },
                Class::Passing => Error::Unavailable { registry, source },
                Class::Lasting => Error::Invalid { registry, source },
            }
        })?;
        Ok(Arc::clone(slot.insert(Arc::new(pass))))
    }

    /// The next call logs in anew.
    pub(super) async fn forget(&self) {
        *self.pass.lock().await = None;
    }

    /// The login with this key.
    pub(super) fn request(&self, key: &str) -> Result<Request, HttpCause> {
        let body = json!({"auth": {"RAX-KSKEY:apiKeyCredentials": {
            "username": self.credentials.username, "apiKey": key,
        }}});
        let url = format!("{}/tokens", self.auth_url);
        let url = Url::parse(&url).map_err(|error| HttpCause::Client(error.to_string()))?;
        let mut request = Request::new(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
        Ok(request)
    }

    async fn log_in(&self, http: &Http) -> Result<Pass, (Class, HttpCause)> {
        let passing = |cause| (Class::Passing, cause);
        let key = key::read(&self.credentials.api_key).await.map_err(|cause| (Class::Refused, cause))?;
        let request = self.request(key.expose()).map_err(passing)?;
        let answer = http.send(request, LONGEST).await.map_err(passing)?;
        match answer.status {
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => read(&answer).map_err(passing),
            // A key that cannot be one is answered with 400.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let status = answer.status.as_u16();
                Err((Class::Refused, HttpCause::Status { status, message: String::new() }))
            }
            status if status.is_redirection() => Err((Class::Lasting, answer::cause(&answer))),
            _ => Err(passing(answer::cause(&answer))),
        }
    }
}

/// What a failed login means for the call that needed it.
enum Class {
    Refused,
    Passing,
    Lasting,
}

fn read(answer: &Answer) -> Result<Pass, HttpCause> {
    let nonsense = |what: &str| HttpCause::Nonsense(what.to_owned());
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|error| HttpCause::Nonsense(error.to_string()))?;
    let access = &body["access"];
    let token = access["token"]["id"].as_str().ok_or_else(|| nonsense("it has no token"))?;
    let mut token = HeaderValue::from_str(token).map_err(|_| nonsense("its token cannot be sent"))?;
    token.set_sensitive(true);
    let tenant = tenant(access).ok_or_else(|| nonsense("it names no tenant"))?;
    Ok(Pass { token, tenant })
}

/// The token's tenant, or else the one of an endpoint in the service catalogue; there, numbers come first, as other
/// products have names of their own.
fn tenant(access: &Value) -> Option<String> {
    let usable = |tenant: &String| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !tenant.is_empty() && tenant.bytes().all(allowed) && !tenant.bytes().all(|byte| byte == b'.')
    };
    if let Some(tenant) = text(&access["token"]["tenant"]["id"]).filter(usable) {
        return Some(tenant);
    }
    let catalogue = access["serviceCatalog"].as_array()?.iter().filter_map(|entry| {
        let endpoint = &entry["endpoints"][0];
        let last_segment =
            |url: &str| url.trim_end_matches('/').rsplit_once('/').map(|(_, last)| last.to_owned());
        text(&endpoint["tenantId"]).or_else(|| endpoint["publicURL"].as_str().and_then(last_segment))
    });
    let tenants: Vec<String> = catalogue.filter(usable).collect();
    let is_number = |tenant: &&String| tenant.bytes().all(|byte| byte.is_ascii_digit());
    tenants.iter().find(is_number).or(tenants.first()).cloned()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: Vec<u8>) -> Answer {
        let path = "/v2.0/tokens".to_owned();
        Answer {
            path,
            status: StatusCode::OK,
            body,
            location: None,
            retry_after: None,
            date: None,
            headers: reqwest::header::HeaderMap::new(),
        }
    }

    fn tenant_of(access: &Value) -> Option<String> {
        let body = json!({"access": access}).to_string().into_bytes();
        read(&answer(body)).ok().map(|pass| pass.tenant)
    }

    #[test]
    fn the_tenant_is_the_tokens_or_one_of_the_catalogue() {
        let expected = Some("7777".to_owned());
        assert_eq!(tenant_of(&json!({"token": {"id": "t", "tenant": {"id": "7777"}}})), expected);
        assert_eq!(tenant_of(&json!({"token": {"id": "t", "tenant": {"id": 7777}}})), expected);
        let catalogue = json!([
            {"name": "cloudFiles", "endpoints": [{"tenantId": "MossoCloudFS_1"}]},
            {"name": "cloudServers", "endpoints": [{"tenantId": "7777"}]},
        ]);
        assert_eq!(tenant_of(&json!({"token": {"id": "t"}, "serviceCatalog": catalogue})), expected);
        let catalogue = json!([{"endpoints": [{"publicURL": "https://host/v1.0/7777/"}]}]);
        assert_eq!(tenant_of(&json!({"token": {"id": "t"}, "serviceCatalog": catalogue})), expected);
    }

    #[test]
    fn what_is_no_login_is_nonsense() {
        for access in [
            json!({}),
            json!({"token": {"id": "t"}}),
            json!({"token": {"id": "t", "tenant": {"id": "../x"}}}),
            json!({"token": {"id": "a\nb", "tenant": {"id": "1"}}}),
        ] {
            assert_eq!(tenant_of(&access), None, "{access}");
        }
    }

    #[test]
    fn a_pass_does_not_show_its_token() {
        let body = br#"{"access":{"token":{"id":"sesame","tenant":{"id":"1"}}}}"#.to_vec();
        assert!(!format!("{:?}", read(&answer(body)).ok().unwrap().token).contains("sesame"));
    }
}
