//! How an encrypted connection is made, as flags and the variables of a registry's own programs have it.

use std::path::PathBuf;

use super::{AccessArguments, AccessError, CERTIFICATE, PRIVATE_KEY, file_in};
use crate::command_line::origins::Sources;
use crate::registry::{ClientCertificate, Peer, Tls};

/// What a registry's own programs read where nothing else was said.
pub(super) struct Variables {
    pub(super) ca_cert: &'static str,
    pub(super) client_cert: &'static str,
    pub(super) client_key: &'static str,
}

/// A file, and where it was named.
type Given = (PathBuf, String);

impl AccessArguments {
    /// What was said, and where the certificates to trust were. What the command line leaves out, `variables` may say.
    pub(super) fn tls(
        &self,
        sources: Sources<'_>,
        variables: Option<&Variables>,
    ) -> Result<(Tls, Option<String>), AccessError> {
        let said = |path: &Option<PathBuf>, field| path.clone().map(|path| (path, sources.origin(field)));
        let mut ca_cert = said(&self.ca_cert, "ca_cert");
        let mut certificate = said(&self.client_cert, "client_cert");
        let mut key = said(&self.client_key, "client_key");
        if let Some(variables) = variables {
            if ca_cert.is_none() {
                ca_cert = file_in(variables.ca_cert, CERTIFICATE)?;
            }
            if certificate.is_none() && key.is_none() {
                certificate = file_in(variables.client_cert, CERTIFICATE)?;
                key = file_in(variables.client_key, PRIVATE_KEY)?;
            }
        }
        let client_certificate = pair(certificate, key)?;
        let (ca_certificates, origin) = ca_cert.unzip();
        Ok((Tls { ca_certificates, client_certificate, peer: Peer::Certified, server_name: None }, origin))
    }
}

fn pair(certificate: Option<Given>, key: Option<Given>) -> Result<Option<ClientCertificate>, AccessError> {
    match (certificate, key) {
        (Some((certificate, _)), Some((key, _))) => Ok(Some(ClientCertificate { certificate, key })),
        (None, None) => Ok(None),
        (Some((_, given)), None) => Err(AccessError::Half { given, missing: "--client-key" }),
        (None, Some((_, given))) => Err(AccessError::Half { given, missing: "--client-cert" }),
    }
}
