//! A certificate with its key, from PEM files, checked before anything is served with it.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    InconsistentKeys,
    client::verify_server_name,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use x509_cert::{Certificate as X509, der::Decode};

use super::{Files, provider};

/// Why TLS cannot be had with the files that are set.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot use {} ({setting}): {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Each file is right and they are not of one pair.
    #[error("the key in {} (server.tls_key) does not belong to the certificate in {} (server.tls_certificate), \
             which must be the first in its file", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// It is no longer valid.
    #[error("the certificate in {} (server.tls_certificate) has run out", path.display())]
    RunOut {
        /// Its file.
        path: PathBuf,
    },
    /// The library takes no such configuration.
    #[error("TLS cannot be set up: {0}")]
    Config(rustls::Error),
}

/// A certificate and the key that belongs to it.
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// When it is no longer valid, or one of those in its file that signed it, whichever comes first.
    pub(crate) expires_at: OffsetDateTime,
}

impl Certificate {
    /// Reads both files, which are small.
    pub(crate) fn read(files: &Files) -> Result<Self, TlsError> {
        let wrong =
            |why: String| TlsError::File { path: files.certificate.clone(), setting: "server.tls_certificate", why };
        let wrong_key = |why: String| TlsError::File { path: files.key.clone(), setting: "server.tls_key", why };
        let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| wrong(reason(&error, "certificate")))?;
        let expires_at = chain.iter().map(not_after).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let expires_at = expires_at.into_iter().min().ok_or_else(|| wrong(nothing("certificate")))?;
        let key = PrivateKeyDer::from_pem_file(&files.key);
        let key = key.map_err(|error| wrong_key(reason(&error, "private key without a password")))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
            }
            error => wrong_key(error.to_string()),
        })?;
        Ok(Self { key: Arc::new(key), expires_at })
    }

    /// Whether clients that ask for this host take it.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let parsed = self.key.end_entity_cert().and_then(ParsedCertificate::try_from);
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']'));
        parsed.is_ok_and(|parsed| name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok()))
    }

    pub(crate) fn has_run_out(&self) -> bool {
        self.expires_at <= OffsetDateTime::now_utc()
    }
}

fn reason(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => nothing(wanted),
        pem::Error::Io(error) => error.to_string(),
        error => format!("it is no PEM: {error}"),
    }
}

fn nothing(wanted: &str) -> String {
    format!("it holds no {wanted} in PEM form")
}

/// When a certificate is no longer valid (RFC 5280, 4.1.2.5).
fn not_after(certificate: &CertificateDer<'_>) -> Result<OffsetDateTime, String> {
    let wrong = |error: x509_cert::der::Error| format!("it holds a certificate that cannot be read: {error}");
    let parsed = X509::from_der(certificate).map_err(wrong)?;
    let seconds = parsed.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
    let moment = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    // The last moment there is: such a certificate does not run out.
    Ok(moment.unwrap_or(OffsetDateTime::new_utc(time::Date::MAX, time::Time::MIDNIGHT)))
}
