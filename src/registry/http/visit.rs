//! A page looked at from outside: only whether it is there counts.

use reqwest::header::{CONNECTION, HeaderValue};
use reqwest::{Method, Request};
use url::Url;

use super::{Http, HttpCause, Kind, PATIENCE, Peer, Route, Tls};

/// Somebody who asks for pages, and keeps neither their content nor a connection: a server with few of them has all for
/// its clients.
pub(crate) struct Visitor {
    http: Http,
}

impl Visitor {
    /// One that takes any certificate: nothing is confided to the server, and it is often asked by another name than its
    /// certificate has.
    pub(crate) fn new() -> Self {
        let tls = Tls { peer: Peer::Anybody, ..Tls::default() };
        Self { http: Http::by(Route::Direct, &tls, None) }
    }

    /// The status of its answer. A redirect is an answer like any other.
    pub(crate) async fn visit(&self, url: &Url) -> Result<u16, HttpCause> {
        let client = self.http.client(Kind::of(url)).await?;
        let mut request = Request::new(Method::GET, url.clone());
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let response = client.execute(request).await.map_err(|error| HttpCause::of(&error, PATIENCE))?;
        Ok(response.status().as_u16())
    }
}
