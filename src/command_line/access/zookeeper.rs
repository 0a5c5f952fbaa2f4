use super::{AccessArguments, AccessError, Said, key};
use crate::command_line::origins::{Login, Origins, Sources};
use crate::registry::{Access, ApiKey, Credentials, Secret, ZookeeperUrl};

/// What clients of ZooKeeper read: a scheme, and what it needs, as in `digest:user:password`.
const AUTH: &str = "ZK_AUTH";

impl AccessArguments {
    /// How to get in at an ensemble, whose URL was said at `origin`.
    pub(super) fn zookeeper_access(
        self,
        sources: Sources<'_>,
        url: &ZookeeperUrl,
        origin: String,
    ) -> Result<(Access, Origins), AccessError> {
        let (tls, ca_certificates) = self.tls(sources, None)?;
        let (credentials, login) = if url.credentials().is_some() {
            (None, Login::InUrl)
        } else {
            match self.user_and_password(sources)?.map_or_else(in_variable, |said| Ok(Some(said)))? {
                Some((credentials, login)) => (Some(credentials), login),
                None => (None, Login::Unsaid),
            }
        };
        let origins = Origins { registry: origin, login, auth_url: None, ca_certificates };
        Ok((Access { credentials, tls, ..Access::default() }, origins))
    }

    fn user_and_password(self, sources: Sources<'_>) -> Result<Option<(Credentials, Login)>, AccessError> {
        let has_key = self.api_key.as_ref().is_some_and(|key| !key.is_empty()) || self.api_key_file.is_some();
        match self.username.filter(|name| !name.is_empty()) {
            None if has_key => Err(AccessError::NoUsername),
            None => Ok(None),
            Some(_) if !has_key => Err(AccessError::NoKey),
            Some(username) => {
                let Some((api_key, key_origin)) = key(self.api_key, self.api_key_file, sources) else {
                    return Err(AccessError::NoKey);
                };
                let login = Login::Said { username: sources.origin("username"), api_key: key_origin };
                Ok(Some((Credentials { username, api_key }, login)))
            }
        }
    }
}

fn in_variable() -> Result<Option<(Credentials, Login)>, AccessError> {
    let Some(Said { value, origin }) = Said::in_variable(AUTH) else { return Ok(None) };
    let user_and_password = value.strip_prefix("digest:").and_then(|rest| rest.split_once(':'));
    let Some((username, password)) =
        user_and_password.filter(|(user, key)| !user.is_empty() && !key.is_empty())
    else {
        return Err(AccessError::Form { origin, expected: "digest:user:password" });
    };
    let api_key = ApiKey::Given(Secret::new(password));
    let login = Login::Said { username: origin.clone(), api_key: origin };
    Ok(Some((Credentials { username: username.to_owned(), api_key }, login)))
}
