//! What nobody has said of a service, and those who look it up want to know.

use std::ffi::OsString;
use std::path::Path;

use super::address;
use crate::model::{Metadata, Registration};
use crate::registry::RegistryUrl;

/// The registration for `registry`. Where services are found by name and address, it has both: without a name, the
/// service is called as its first tag, or as its command; without an address, it is where this machine is.
pub(super) fn completed(
    registration: &Registration,
    registry: &RegistryUrl,
    command: &[OsString],
) -> Registration {
    let mut completed = registration.clone();
    if !registry.is_for_discovery() {
        return completed;
    }
    if registration.metadata.get("name").is_none()
        && let Some(name) = name(registration, command)
    {
        add(&mut completed.metadata, "name", name);
    }
    if registration.endpoint().is_none()
        && !registry.knows_this_machine()
        && let Some(address) = address::presumed(registry)
    {
        add(&mut completed.metadata, "host", address.to_string());
    }
    completed
}

fn name(registration: &Registration, command: &[OsString]) -> Option<String> {
    let tag = registration.tags.iter().next().map(|tag| tag.as_str().to_owned());
    let program = || Some(Path::new(command.first()?).file_name()?.to_str()?.to_owned());
    tag.filter(|tag| is_plain(tag)).or_else(|| program().filter(|name| is_plain(name)))
}

/// Whether it can be part of a path, or a label in DNS.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().all(is_plain) && name.bytes().any(|byte| byte != b'.')
}

/// Where there is room.
fn add(metadata: &mut Metadata, key: &str, value: String) {
    let pairs = metadata.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    if let Ok(more) = Metadata::new(pairs.chain([(key.to_owned(), value)])) {
        *metadata = more;
    }
}
