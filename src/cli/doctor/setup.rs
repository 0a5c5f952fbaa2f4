//! What can be told without asking anybody.

use super::{Check, shown};
use crate::command_line::{Login, Target};
use crate::model::{HeartbeatTimeout, printable};
use crate::registry;

/// Below this, a third of the timeout is less than networks are sometimes away for.
const SHORT_SECS: u64 = 10;

pub(super) fn registry(target: &Target) -> Check {
    Check::ok("registry", format!("{} ({})", target.registry, target.origins.registry))
}

/// Where the login comes from; the key itself is never told.
pub(super) fn credentials(target: &Target) -> Check {
    let mut parts = match &target.origins.login {
        Login::NotNeeded => vec!["not needed".to_owned()],
        Login::Unsaid => vec!["no login".to_owned()],
        Login::InUrl => login(target, "the registry's URL", "the registry's URL"),
        #[cfg(feature = "http")]
        Login::Token(origin) => vec![format!("token from {origin}")],
        Login::Said { username, api_key } => login(target, username, api_key),
    };
    if let (Some(path), Some(origin)) = (&target.access.tls.ca_certificates, &target.origins.ca_certificates)
    {
        parts.push(format!("also trusts `{}` ({origin})", printable(&path.to_string_lossy())));
    }
    let found = parts.join(", ");
    if target.warnings.is_empty() {
        Check::ok("credentials", found)
    } else {
        Check::warn("credentials", found, target.warnings.join("; "))
    }
}

fn login(target: &Target, username_origin: &str, key_origin: &str) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(username) = username(target) {
        parts.push(format!("user `{}` ({username_origin})", printable(username)));
    }
    parts.push(format!("key from {key_origin}"));
    if let Some(url) = registry::auth_url(&target.registry, &target.access) {
        let origin = target.origins.auth_url.as_deref().unwrap_or("default");
        parts.push(format!("login at {url} ({origin})"));
    }
    parts
}

fn username(target: &Target) -> Option<&str> {
    let said = target.access.credentials.as_ref().map(|credentials| credentials.username.as_str());
    target.registry.username().or(said)
}

/// Whether a lease of this length outlives what usually happens.
pub(super) fn interval(target: &Target, interval: HeartbeatTimeout) -> Check {
    let span = humantime::format_duration(interval.as_duration());
    let found = format!("{span}: a heartbeat about every {}", shown(interval.as_duration() / 3));
    let is_remote = !matches!(target.origins.login, Login::NotNeeded);
    if is_remote && interval.as_secs() < SHORT_SECS {
        let remedy = "choose --interval=10s or more: a third of it has to cover an outage of the network";
        Check::warn("interval", found, remedy)
    } else {
        Check::ok("interval", found)
    }
}
