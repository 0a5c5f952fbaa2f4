use std::path::PathBuf;

use super::ZookeeperCause;
use crate::model::printable;
use crate::registry::{ApiKey, Credentials, Secret};

/// Who we are, as ZooKeeper's scheme `digest` has it.
pub(super) struct Login(Credentials);

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self(credentials)
    }

    /// User and password. A file is read each time: a new password is picked up with the next connection.
    pub(super) async fn secret(&self) -> Result<Secret, ZookeeperCause> {
        let password = match &self.0.api_key {
            ApiKey::Given(password) => password.clone(),
            ApiKey::File(path) => {
                let path = path.clone();
                let work = tokio::task::spawn_blocking(move || password_in(path));
                work.await.unwrap_or_else(|error| Err(ZookeeperCause::Key(error.to_string())))?
            }
        };
        Ok(Secret::new(format!("{}:{}", self.0.username, password.expose())))
    }
}

fn password_in(path: PathBuf) -> Result<Secret, ZookeeperCause> {
    let shown = printable(&path.to_string_lossy());
    let text = std::fs::read_to_string(path)
        .map_err(|error| ZookeeperCause::Key(format!("cannot read `{shown}`: {error}")))?;
    match text.lines().next().map(str::trim) {
        Some(password) if !password.is_empty() => Ok(Secret::new(password)),
        _ => Err(ZookeeperCause::Key(format!("`{shown}` holds no key"))),
    }
}
