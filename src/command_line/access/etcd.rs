use super::tls::Variables;
use super::{AccessArguments, AccessError, Said, key};
use crate::command_line::origins::{Login, Origins, Sources};
use crate::registry::{Access, ApiKey, Credentials, EtcdUrl, Peer, RegistryUrl, Secret};

// What etcd's own client reads.
const ENDPOINTS: &str = "ETCDCTL_ENDPOINTS";
const USER: &str = "ETCDCTL_USER";
const PASSWORD: &str = "ETCDCTL_PASSWORD";
const SKIP_VERIFY: &str = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";
const TLS: Variables =
    Variables { ca_cert: "ETCDCTL_CACERT", client_cert: "ETCDCTL_CERT", client_key: "ETCDCTL_KEY" };

/// The registry that is meant: where the URL of a cluster leaves that open, the one that etcd's own variable names.
pub(super) fn located(registry: RegistryUrl) -> Result<RegistryUrl, AccessError> {
    let (RegistryUrl::Etcd(url), Some(said)) = (&registry, Said::in_variable(ENDPOINTS)) else {
        return Ok(registry);
    };
    let url = url.clone().or_at(&said.value);
    url.map(RegistryUrl::Etcd).map_err(|source| AccessError::Url { origin: said.origin, source })
}

impl AccessArguments {
    /// How to get in at an etcd cluster, whose URL was said at `origin`.
    pub(super) fn etcd_access(
        self,
        sources: Sources<'_>,
        url: &EtcdUrl,
        origin: String,
    ) -> Result<(Access, Origins), AccessError> {
        let (mut tls, ca_certificates) = self.tls(sources, Some(&TLS))?;
        if Said::in_variable(SKIP_VERIFY).is_some_and(|said| is_true(&said.value)) {
            tls.peer = Peer::Anybody;
        }
        let (credentials, login) = self.etcd_login(sources, url)?;
        let origins = Origins { registry: origin, login, auth_url: None, ca_certificates };
        Ok((Access { credentials, tls, ..Access::default() }, origins))
    }

    /// A name and a password, each from where it was said first: in the URL, as an argument, in etcd's own variables.
    fn etcd_login(
        self,
        sources: Sources<'_>,
        url: &EtcdUrl,
    ) -> Result<(Option<Credentials>, Login), AccessError> {
        let in_url = || "the registry's URL".to_owned();
        let (variable, its_password) = user_in_variable();
        let user = url.user().map(|user| Said { value: user.to_owned(), origin: in_url() });
        let said = self.username.filter(|name| !name.is_empty()).map(Said::at(sources.origin("username")));
        // A password goes with the name that stands beside it.
        let is_its_user = user.is_none() && said.is_none();
        let user = user.or(said).or(variable);
        let its_password = its_password.filter(|_| is_its_user);
        let password = url.password().map(|password| (ApiKey::Given(password.clone()), in_url()));
        // Those of the old client are for another kind of registry.
        let is_said = self.api_key.is_some() || self.api_key_file.is_some();
        let password =
            password.or_else(|| is_said.then(|| key(self.api_key, self.api_key_file, sources)).flatten());
        let given = |said: Said| (ApiKey::Given(Secret::new(said.value)), said.origin);
        let variable = its_password.or_else(|| Said::in_variable(PASSWORD)).filter(|_| user.is_some());
        let password = password.or_else(|| variable.map(given));
        match (user, password) {
            (Some(Said { value: username, origin }), Some((api_key, key_origin))) => {
                let login = if url.user().is_some() && url.password().is_some() {
                    Login::InUrl
                } else {
                    Login::Said { username: origin, api_key: key_origin }
                };
                Ok((Some(Credentials { username, api_key }), login))
            }
            (None, None) => Ok((None, Login::Unsaid)),
            (Some(_), None) => Err(AccessError::NoKey),
            (None, Some(_)) => Err(AccessError::NoUsername),
        }
    }
}

/// `name[:password]`, in its parts.
fn user_in_variable() -> (Option<Said>, Option<Said>) {
    let Some(Said { value, .. }) = Said::in_variable(USER) else { return (None, None) };
    match value.split_once(':') {
        Some((name, password)) => {
            (Some(Said::at(USER)(name.to_owned())), Some(Said::at(USER)(password.to_owned())))
        }
        None => (Some(Said::at(USER)(value)), None),
    }
}

/// As Go reads it.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
