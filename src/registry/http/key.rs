use std::path::PathBuf;

use super::HttpCause;
use crate::model::printable;
use crate::registry::{ApiKey, Secret};

/// The key itself.
pub(in crate::registry) async fn read(source: &ApiKey) -> Result<Secret, HttpCause> {
    match source {
        ApiKey::Given(key) => Ok(key.clone()),
        ApiKey::File(path) => {
            let path = path.clone();
            let work = tokio::task::spawn_blocking(move || key_in(path));
            work.await.unwrap_or_else(|error| Err(HttpCause::Client(error.to_string())))
        }
    }
}

fn key_in(path: PathBuf) -> Result<Secret, HttpCause> {
    let shown = printable(&path.to_string_lossy());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) => return Err(HttpCause::File { path: shown, source }),
    };
    match text.lines().next().map(str::trim) {
        Some(key) if !key.is_empty() => Ok(Secret::new(key)),
        _ => Err(HttpCause::NoKey { path: shown }),
    }
}
