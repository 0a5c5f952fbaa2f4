//! The certificate that the server shows, and its key.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::message::Hint;

/// Where the certificate and its key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to one that clients know, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why they are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("--{flag}: cannot read `{}`", .path.display())]
    Read {
        /// Which option named it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The file of certificates has none.
    #[error("--tls-cert: `{}` has no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// What the file has is none that can be shown.
    #[error("--tls-cert: `{}` has no valid certificate in it", .path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// They do not fit together.
    #[error("--tls-cert and --tls-key do not fit together")]
    Unfit(#[source] rustls::Error),
}

impl Hint for TlsError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { source: pem::Error::Io(_), .. } => return None,
            Self::Read { .. } | Self::NoCertificate(_) => {
                "both files are PEM: text with BEGIN CERTIFICATE and BEGIN PRIVATE KEY in it".to_owned()
            }
            Self::BadCertificate { .. } => {
                "what is between BEGIN CERTIFICATE and END CERTIFICATE is an X.509 certificate in base64"
                    .to_owned()
            }
            Self::Unfit(_) => "name the key that the first certificate of the file was made for".to_owned(),
        })
    }
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let cannot_read = |flag, path: &PathBuf| {
            let path = path.clone();
            move |source| TlsError::Read { flag, path, source }
        };
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(cannot_read("tls-cert", &self.certificate))?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(cannot_read("tls-key", &self.key))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unfit)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|source| match source {
                rustls::Error::InvalidCertificate(_) => {
                    TlsError::BadCertificate { path: self.certificate.clone(), source }
                }
                source => TlsError::Unfit(source),
            })?;
        Ok(Arc::new(config))
    }
}
