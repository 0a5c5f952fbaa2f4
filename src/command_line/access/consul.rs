use super::tls::Variables;
use super::{AccessArguments, AccessError, KEY, Said, file_in, key};
use crate::command_line::origins::{Login, Origins, Sources};
use crate::model::printable;
use crate::registry::{Access, ApiKey, ConsulUrl, RegistryUrl, Secret};

// What Consul's own programs read.
const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const TLS: Variables = Variables {
    ca_cert: "CONSUL_CACERT",
    client_cert: "CONSUL_CLIENT_CERT",
    client_key: "CONSUL_CLIENT_KEY",
};

/// The registry that is meant: where the URL of an agent leaves that open, the one that Consul's own variable names.
pub(super) fn located(registry: RegistryUrl) -> Result<RegistryUrl, AccessError> {
    let (RegistryUrl::Consul(url), Some(said)) = (&registry, Said::in_variable(ADDRESS)) else {
        return Ok(registry);
    };
    let url = url.clone().or_at(&said.value);
    url.map(RegistryUrl::Consul).map_err(|source| AccessError::Url { origin: said.origin, source })
}

impl AccessArguments {
    /// How to get in at a Consul agent, whose URL was said at `origin`.
    pub(super) fn consul_access(
        self,
        sources: Sources<'_>,
        url: &ConsulUrl,
        origin: String,
    ) -> Result<(Access, Origins), AccessError> {
        let (tls, ca_certificates) = self.tls(sources, Some(&TLS))?;
        let (token, login) = if url.token().is_some() {
            (None, Login::InUrl)
        } else {
            match key(self.api_key, self.api_key_file, sources) {
                Some(given) => Some(given),
                None => token_in_variable()?,
            }
            .map_or((None, Login::Unsaid), |(token, origin)| (Some(token), Login::Token(origin)))
        };
        let origins = Origins { registry: origin, login, auth_url: None, ca_certificates };
        Ok((Access { token, tls, ..Access::default() }, origins))
    }
}

/// As for Consul's own programs, the file comes first.
fn token_in_variable() -> Result<Option<(ApiKey, String)>, AccessError> {
    if let Some((path, origin)) = file_in(TOKEN_FILE, KEY)? {
        let origin = format!("{origin} `{}`", printable(&path.to_string_lossy()));
        return Ok(Some((ApiKey::File(path), origin)));
    }
    let said = Said::in_variable(TOKEN);
    Ok(said.map(|said| (ApiKey::Given(Secret::new(said.value)), said.origin)))
}
