//! Certificates of a test's own authority, in files as a server is given them.

use std::{fs, path::PathBuf, sync::Arc};

use antiphon::settings::Settings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, client::Resumption, pki_types::CertificateDer};
use time::{Duration, OffsetDateTime};

use crate::support::process::Scratch;

/// An authority, and a folder for a certificate of its making with the key.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: Scratch,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Self { issuer, files: Scratch::new() };
        fs::write(authority.ca_file(), authority.issuer.pem()).expect("our folder");
        authority
    }

    /// Its own certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.files.path().join("certificate.pem")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.files.path().join("key.pem")
    }

    /// Makes a certificate of this machine that is valid for so long, puts it and its key in place, and gives it.
    pub(crate) fn issue(&self, valid: Duration) -> CertificateDer<'static> {
        let (certificate, pem, key) = self.make(valid);
        fs::write(self.certificate_file(), pem).expect("our folder");
        fs::write(self.key_file(), key).expect("our folder");
        certificate
    }

    /// A certificate, its PEM and its key's.
    pub(crate) fn make(&self, valid: Duration) -> (CertificateDer<'static>, String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
        params.not_after = OffsetDateTime::now_utc() + valid;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.der().clone(), certificate.pem(), key.serialize_pem())
    }

    /// The files as settings.
    pub(crate) fn set(&self, settings: &mut Settings) {
        settings.server.tls_certificate = Some(self.certificate_file());
        settings.server.tls_key = Some(self.key_file());
    }

    /// A client that trusts it.
    pub(crate) fn http(&self) -> reqwest::Client {
        // An error says that it was installed before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = reqwest::Certificate::from_der(self.issuer.der()).expect("a certificate");
        reqwest::Client::builder().tls_certs_only([root]).build().expect("a client")
    }

    /// A TLS client that trusts it and speaks one version.
    pub(crate) fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        let mut config = builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
        // A resumed session shows no certificate but remembers the one before.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}
