//! Whether a page is there.

use url::Url;

use super::Reason;
use crate::message::chain;
use crate::registry::Visitor;

pub(in crate::wrapper) struct Probe {
    url: Url,
    visitor: Visitor,
}

impl Probe {
    pub(super) fn new(url: Url) -> Self {
        Self { url, visitor: Visitor::new() }
    }

    pub(super) async fn look(&self) -> Result<(), Reason> {
        match self.visitor.visit(&self.url).await {
            Ok(200..=399) => Ok(()),
            Ok(status) => Err(Reason::new(format!("{} answers with {status}", self.url.path()))),
            Err(error) => Err(Reason::new(format!("{}: {}", self.url.path(), chain(&error)))),
        }
    }
}
