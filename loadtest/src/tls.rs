//! Which certificates servers are believed by, for the whole process: the system's authorities, others from a file, or
//! any at all.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use crate::gateway::install_crypto_provider;

/// Decided once, before the first connection.
static CHOSEN: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Why a choice cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read or holds no certificate.
    #[error("{}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A choice was made before.
    #[error("which certificates are believed was decided before")]
    Decided,
}

/// Believes servers whose certificates these authorities have signed, or who have one of the file's certificates themselves, as
/// where it is self-signed, and no others; the file is PEM.
///
/// # Errors
/// When the file holds no certificate, or a choice was made before.
pub fn trust_authorities(file: &Path) -> Result<(), TrustError> {
    Believed::listed(file)?.decide()
}

/// Believes any server, whoever it is: for tests of one's own servers.
///
/// # Errors
/// When a choice was made before.
pub fn trust_anyone() -> Result<(), TrustError> {
    Believed::Anyone.decide()
}

/// What was chosen; `None` leaves it to the system's authorities.
pub(crate) fn chosen() -> Option<Arc<ClientConfig>> {
    CHOSEN.get().cloned()
}

/// Whose certificates are believed.
#[derive(Debug)]
enum Believed {
    /// Anybody's.
    Anyone,
    /// Those of a file, and whose they have signed.
    Listed { certificates: Vec<CertificateDer<'static>>, authorities: Arc<WebPkiServerVerifier> },
}

impl Believed {
    fn listed(file: &Path) -> Result<Self, TrustError> {
        let wrong = |reason: String| TrustError::File { file: file.to_owned(), reason };
        let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
        let certificates = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| wrong(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(wrong("it holds no certificate in PEM".to_owned()));
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
        Ok(Self::Listed { certificates, authorities: authorities.map_err(|error| wrong(error.to_string()))? })
    }

    fn decide(self) -> Result<(), TrustError> {
        install_crypto_provider();
        let verifier = Verifier { believed: self, provider: provider() };
        let config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        CHOSEN.set(Arc::new(config)).map_err(|_| TrustError::Decided)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Checks that a server is believed, and that it has the key of its certificate.
#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.believed {
            Believed::Anyone => Ok(ServerCertVerified::assertion()),
            // Self-signed certificates are mostly made as authorities, which may not be servers' own. Who lists one means it.
            Believed::Listed { certificates, .. } if certificates.iter().any(|listed| listed == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Believed::Listed { authorities, .. } => {
                authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_authority_is_named() {
        let file = std::env::temp_dir().join(format!("antiphon-loadtest-{}.pem", uuid::Uuid::new_v4()));
        assert!(Believed::listed(&file).expect_err("no file").to_string().contains("antiphon-loadtest-"));
        std::fs::write(&file, "no certificate").expect("written");
        let error = Believed::listed(&file).expect_err("none in it").to_string();
        std::fs::remove_file(&file).expect("removed");
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
