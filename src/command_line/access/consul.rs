use std::path::PathBuf;

use super::tls::Variables;
use super::{AccessArguments, AccessError, KEY, Said, file_in, key};
use crate::command_line::origins::{Login, Origins, Sources};
use crate::model::printable;
use crate::registry::{Access, ApiKey, ConsulUrl, Credentials, Peer, RegistryUrl, Secret, Tls};

// What Consul's own programs read.
const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const SSL: &str = "CONSUL_HTTP_SSL";
const VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";
const AUTH: &str = "CONSUL_HTTP_AUTH";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const CA_DIRECTORY: &str = "CONSUL_CAPATH";
const SERVER_NAME: &str = "CONSUL_TLS_SERVER_NAME";
const NAMESPACE: &str = "CONSUL_NAMESPACE";
const PARTITION: &str = "CONSUL_PARTITION";
const TLS: Variables = Variables {
    ca_cert: "CONSUL_CACERT",
    client_cert: "CONSUL_CLIENT_CERT",
    client_key: "CONSUL_CLIENT_KEY",
};

/// The registry that is meant: what the URL of an agent leaves open, Consul's own variables say.
pub(super) fn located(registry: RegistryUrl) -> Result<RegistryUrl, AccessError> {
    let RegistryUrl::Consul(mut url) = registry else { return Ok(registry) };
    if is_set(SSL)? == Some(true) {
        url = url.or_over_tls();
    }
    if let Some(said) = Said::in_variable(ADDRESS) {
        let origin = said.origin;
        url = url.or_at(&said.value).map_err(|source| AccessError::Url { origin, source })?;
    }
    let value = |variable| Said::in_variable(variable).map(|said| said.value);
    Ok(RegistryUrl::Consul(url.or_within(value(NAMESPACE), value(PARTITION))))
}

/// What those variables say that is not done, or better not done.
pub(super) fn warnings(url: &ConsulUrl, access: &Access) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_socket = url.as_str().starts_with("consul+unix:");
    if !url.is_tls() && !is_socket && matches!(is_set(SSL), Ok(Some(true))) {
        let warning = format!(
            "{url} is not encrypted, although {SSL} is set: use a consul+https:// URL",
            url = url.as_str()
        );
        warnings.push(warning);
    }
    if url.is_tls() && access.tls.peer == Peer::Anybody {
        let warning = format!("{VERIFY} is off: anybody may be at {}", url.as_str());
        warnings.push(warning);
    }
    warnings
}

/// What was typed although an agent has no use for it.
pub(super) fn unused(sources: Sources<'_>) -> Vec<String> {
    let typed = ["username", "auth_url", "region"].into_iter().filter(|field| sources.is_typed(field));
    let warning = |field: &str| {
        format!("{} is of no use to a Consul agent: the login there is a token", sources.origin(field))
    };
    typed.map(warning).collect()
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
        let (tls, ca_certificates) = with_variables(tls, ca_certificates)?;
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
        Ok((Access { token, tls, credentials: credentials(), ..Access::default() }, origins))
    }
}

/// What only variables say of an encrypted connection.
fn with_variables(
    mut tls: Tls,
    mut ca_certificates: Option<String>,
) -> Result<(Tls, Option<String>), AccessError> {
    if tls.ca_certificates.is_none()
        && let Some(said) = Said::in_variable(CA_DIRECTORY)
    {
        let path = PathBuf::from(said.value);
        std::fs::read_dir(&path).map_err(|source| AccessError::File {
            flag: CA_DIRECTORY,
            path: path.clone(),
            source,
        })?;
        (tls.ca_certificates, ca_certificates) = (Some(path), Some(said.origin));
    }
    if is_set(VERIFY)? == Some(false) {
        tls.peer = Peer::Anybody;
    }
    if let Some(said) = Said::in_variable(SERVER_NAME) {
        let is_name = matches!(url::Host::parse(&said.value), Ok(url::Host::Domain(_)));
        if !is_name {
            return Err(AccessError::Variable {
                name: SERVER_NAME,
                value: said.value,
                expected: "a host name",
            });
        }
        tls.server_name = Some(said.value);
    }
    Ok((tls, ca_certificates))
}

/// A name and a password, for a server that stands before the agent.
fn credentials() -> Option<Credentials> {
    let said = Said::in_variable(AUTH)?.value;
    let (username, password) = said.split_once(':').unwrap_or((&said, ""));
    Some(Credentials { username: username.to_owned(), api_key: ApiKey::Given(Secret::new(password)) })
}

/// What a variable says that is on or off, in the words that Consul's programs know; none where it says nothing.
fn is_set(variable: &'static str) -> Result<Option<bool>, AccessError> {
    let Some(said) = Said::in_variable(variable) else { return Ok(None) };
    match said.value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
        _ => Err(AccessError::Variable { name: variable, value: said.value, expected: "true or false" }),
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
