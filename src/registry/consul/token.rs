use std::sync::Arc;

use reqwest::header::HeaderValue;
use tokio::sync::Mutex;

use crate::registry::ApiKey;
use crate::registry::http::{HttpCause, key};

/// The token that every request carries, read when it is first needed.
pub(super) struct TokenSlot {
    source: Option<ApiKey>,
    current: Mutex<Option<Arc<HeaderValue>>>,
}

impl TokenSlot {
    pub(super) fn new(source: Option<ApiKey>) -> Self {
        Self { source, current: Mutex::default() }
    }

    /// Whether there is one to be had.
    pub(super) fn is_given(&self) -> bool {
        self.source.is_some()
    }

    /// The token at hand; none where everybody may do everything, or so we are told.
    pub(super) async fn current(&self) -> Result<Option<Arc<HeaderValue>>, HttpCause> {
        let Some(source) = &self.source else { return Ok(None) };
        let mut slot = self.current.lock().await;
        if slot.is_none() {
            *slot = Some(Arc::new(read(source).await?));
        }
        Ok(slot.clone())
    }

    /// Another token than `refused`, if its file has one by now.
    pub(super) async fn other_than(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<Arc<HeaderValue>>, HttpCause> {
        let Some(source @ ApiKey::File(_)) = &self.source else { return Ok(None) };
        let token = Arc::new(read(source).await?);
        if Some(&*token) == refused {
            return Ok(None);
        }
        self.set(Arc::clone(&token)).await;
        Ok(Some(token))
    }

    /// The token that is in its file now; none where there is no file, or nothing of use in it: the one at hand may be
    /// good for as long as nobody refuses it.
    pub(super) async fn in_file(&self) -> Option<Arc<HeaderValue>> {
        match &self.source {
            Some(source @ ApiKey::File(_)) => read(source).await.ok().map(Arc::new),
            _ => None,
        }
    }

    /// The next request carries this one.
    pub(super) async fn set(&self, token: Arc<HeaderValue>) {
        *self.current.lock().await = Some(token);
    }

    /// The next request reads it again.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }
}

async fn read(source: &ApiKey) -> Result<HeaderValue, HttpCause> {
    let key = key::read(source).await?;
    let mut value = HeaderValue::from_str(key.expose())
        .map_err(|_| HttpCause::Client("the token has characters that no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
