//! What every registry can tell about maintenance: who is drained is among its configuration values.

use super::{Error, Registry, Result};
use crate::model::{ConfigurationValue, Drained, ServiceId};

/// Whether somebody keeps the service out of the registry, and why. One request.
///
/// # Errors
/// When the registry cannot say: it keeps no configuration, we may not read it, or it does not answer.
pub async fn drained(registry: &dyn Registry, service: &ServiceId) -> Result<Option<Drained>> {
    read(service, registry.configuration()?.value(&Drained::key(service)).await)
}

/// What the value says that was looked for.
pub(super) fn read(service: &ServiceId, value: Result<ConfigurationValue>) -> Result<Option<Drained>> {
    match value {
        Ok(value) => Ok(Drained::read(&value).filter(|drained| drained.service == *service)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
