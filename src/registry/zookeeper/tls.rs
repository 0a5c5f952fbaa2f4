//! Encrypted connections: trust and certificates as for registries over HTTP.

use std::error::Error as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::ZookeeperCause;
use super::connection::Stream;
use crate::registry::url::Server;
use crate::registry::{self, Peer};

/// How connections are encrypted: set up at the first.
pub(super) struct Tls {
    settings: registry::Tls,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(settings: &registry::Tls) -> Self {
        Self { settings: settings.clone(), config: OnceCell::new() }
    }

    pub(super) async fn encrypt(
        &self,
        stream: TcpStream,
        server: &Server,
    ) -> Result<Pin<Box<dyn Stream>>, ZookeeperCause> {
        let config = self.config.get_or_try_init(|| self.set_up()).await?;
        let host = server.host.to_string();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| ZookeeperCause::Tls(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        Ok(Box::pin(stream.map_err(|error| cause(server, &error))?))
    }

    /// Off the runtime's thread: the system's certificates are files.
    async fn set_up(&self) -> Result<Arc<ClientConfig>, ZookeeperCause> {
        let settings = self.settings.clone();
        let work = tokio::task::spawn_blocking(move || config(&settings));
        work.await.unwrap_or_else(|error| Err(error.to_string())).map(Arc::new).map_err(ZookeeperCause::Tls)
    }
}

fn cause(server: &Server, error: &std::io::Error) -> ZookeeperCause {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let server = server.to_string();
    match fault {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            ZookeeperCause::Untrusted { server, reason: fault.to_string() }
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            ZookeeperCause::Connect { server, reason: "it does not speak TLS".to_owned() }
        }
        _ => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            ZookeeperCause::Connect { server, reason }
        }
    }
}

fn config(settings: &registry::Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(settings, provider)?);
    match &settings.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(files) => {
            let key = PrivateKeyDer::from_pem_file(&files.key);
            let key = key.map_err(|error| format!("`{}`: {error}", files.key.display()))?;
            builder
                .with_client_auth_cert(certificates(&files.certificate)?, key)
                .map_err(|error| error.to_string())
        }
    }
}

fn verifier(
    settings: &registry::Tls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if settings.peer == Peer::Anybody {
        return Ok(Arc::new(Trusting(provider.signature_verification_algorithms)));
    }
    let extra = settings.ca_certificates.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(extra, provider).map_err(|error| error.to_string())?;
    Ok(Arc::new(verifier))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("`{}`: {error}", path.display()))
}

/// Trusts anybody, but still wants signatures that are right.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
