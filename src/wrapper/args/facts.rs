//! What placeholders stand for, as far as that is known before the command is started.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::address::{self, AddressError};
use super::port::Port;
use super::template::{KNOWN, Placeholder, Template};
use super::version::{self, VersionError};
use crate::message::Hint;
use crate::model::printable;
use crate::registry::RegistryUrl;

/// Why there is nothing to fill in.
#[derive(Debug, thiserror::Error)]
pub(super) enum FactError {
    #[error("`{{env:{}}}`: there is no such variable", printable(.0))]
    NoVariable(String),
    #[error("`{{env:{}}}`: the variable is no UTF-8", printable(.0))]
    NotText(String),
    #[error("`{{env:{}}}`: what everybody can read in the registry is no secret any more", printable(.0))]
    Secret(String),
    #[error("`{{port}}`: there is no port")]
    NoPort,
    #[error("`{placeholder}`")]
    Address {
        placeholder: Placeholder,
        #[source]
        source: AddressError,
    },
    #[error("`{placeholder}`")]
    Version {
        placeholder: Placeholder,
        #[source]
        source: VersionError,
    },
}

impl Hint for FactError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoVariable(_) | Self::NotText(_) => Some("set it for the wrapper".to_owned()),
            Self::Secret(_) => Some(format!("there are {KNOWN}")),
            Self::NoPort => Some("give it with --port".to_owned()),
            Self::Address { source, .. } => source.hint(),
            Self::Version { source, .. } => source.hint(),
        }
    }
}

/// Where the facts are.
pub(super) struct Facts<'a> {
    pub(super) registries: &'a [&'a RegistryUrl],
    /// Where the service can be reached, if that was said.
    pub(super) host: Option<String>,
    pub(super) port: Option<Port>,
    /// Variables that nobody may see.
    pub(super) secrets: &'a [&'static str],
    /// What is known already.
    pub(super) known: BTreeMap<Placeholder, String>,
}

impl Facts<'_> {
    /// Fills in what is known.
    pub(super) fn fill(&mut self, template: &Template) -> Result<Template, FactError> {
        template.filled(|placeholder| {
            if let Some(known) = self.known.get(placeholder) {
                return Ok(Some(known.clone()));
            }
            let value = self.find(placeholder)?;
            // The same everywhere: no second look at a clock, no second run of a command.
            self.known.extend(value.clone().map(|value| (placeholder.clone(), value)));
            Ok(value)
        })
    }

    /// None for what is known only when the command runs.
    fn find(&self, placeholder: &Placeholder) -> Result<Option<String>, FactError> {
        let found = match placeholder {
            Placeholder::Hostname => {
                nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
            }
            Placeholder::Ip => self.ip(placeholder)?,
            Placeholder::IpOf(interface) => {
                located(placeholder, address::of_interface(interface))?.to_string()
            }
            Placeholder::Port => match self.port.ok_or(FactError::NoPort)? {
                Port::Number(port) => port.to_string(),
                Port::Auto => return Ok(None),
            },
            Placeholder::Pid => return Ok(None),
            Placeholder::Env(name) => self.variable(name)?,
            Placeholder::Started => humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            Placeholder::Version(command) => version::first_line(command, self.secrets)
                .map_err(|source| FactError::Version { placeholder: placeholder.clone(), source })?,
        };
        Ok(Some(found))
    }

    /// What --address came to, unless that is a name.
    fn ip(&self, placeholder: &Placeholder) -> Result<String, FactError> {
        match &self.host {
            Some(host) if host.parse::<IpAddr>().is_ok() => Ok(host.clone()),
            _ => located(placeholder, address::own(self.registries)).map(|address| address.to_string()),
        }
    }

    fn variable(&self, name: &str) -> Result<String, FactError> {
        if self.secrets.contains(&name) {
            return Err(FactError::Secret(name.to_owned()));
        }
        let value = std::env::var_os(name).ok_or_else(|| FactError::NoVariable(name.to_owned()))?;
        value.into_string().map_err(|_| FactError::NotText(name.to_owned()))
    }
}

fn located(placeholder: &Placeholder, address: Result<IpAddr, AddressError>) -> Result<IpAddr, FactError> {
    address.map_err(|source| FactError::Address { placeholder: placeholder.clone(), source })
}
