//! TLS on the server's own ports: the certificate, which is read again when its files change, and the handshakes, which
//! are bounded in time and number.
//!
//! One process, one certificate: whoever needs several has a proxy in front. `Strict-Transport-Security` is not sent: it
//! would bind every other service of the host's name, which is not this server's to decide.

mod certificate;
mod handshakes;
mod reload;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(crate) use self::{
    certificate::{Certificate, TlsError},
    handshakes::{HANDSHAKE_TIMEOUT, Handshake, Handshakes, speaks_tls},
    reload::keep_current,
};
use crate::{settings::Settings, telemetry::metrics::metrics};

/// What the ports speak inside TLS (RFC 7301): a client that wants HTTP/2 alone is refused in the handshake.
const PROTOCOL: &[u8] = b"http/1.1";

/// TLS with a certificate that can change. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    /// What the files were when the certificate in force was read from them.
    read: reload::Stamp,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    handshakes: Handshakes,
    /// Wakes whoever keeps the certificate current.
    wanted: Notify,
}

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    /// Those that are set, if TLS is.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let server = &settings.server;
        let (certificate, key) = server.tls_certificate.as_ref().zip(server.tls_key.as_ref())?;
        Some(Self { certificate: certificate.clone(), key: key.clone() })
    }

    pub(crate) fn each(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

impl Tls {
    /// Reads and checks what is set; nothing where TLS is not. A certificate that has run out is served all the same, with
    /// a warning: voice goes on, and whoever does not check it is not turned away.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let Some(files) = Files::of(settings) else { return Ok(None) };
        // Taken first, so that a change while it is read is seen later.
        let read = reload::Stamp::of(&files);
        let certificate = Certificate::read(&files)?;
        if certificate.has_run_out() {
            tracing::warn!(file = %files.certificate.display(), "the certificate has run out: clients will refuse it");
        }
        certificate.show();
        let current = Arc::new(Current(RwLock::new(certificate.key)));
        let config = config(Arc::clone(&current)).map_err(TlsError::Config)?;
        let inner = Inner {
            files,
            read,
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Handshakes::default(),
            wanted: Notify::new(),
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Has the files read again soon, whether they have changed or not.
    pub(crate) fn reload_soon(&self) {
        self.inner.wanted.notify_one();
    }

    /// A place among the handshakes under way.
    pub(crate) fn begin_handshake(&self) -> Handshake<'_> {
        self.inner.handshakes.begin()
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept<Io: AsyncRead + AsyncWrite + Unpin>(&self, io: Io) -> io::Result<TlsStream<Io>> {
        self.inner.acceptor.accept(io).await
    }

    /// Reads the files and serves what is in them from now on. Whatever is wrong with it, the one before stays; connections
    /// are not touched.
    fn reload(&self) -> Result<(), TlsError> {
        let certificate = Certificate::read(&self.inner.files)?;
        if certificate.has_run_out() {
            return Err(TlsError::RunOut { path: self.inner.files.certificate.clone() });
        }
        certificate.show();
        *self.inner.current.0.write() = certificate.key;
        Ok(())
    }
}

impl Certificate {
    /// Tells the metrics when it runs out.
    fn show(&self) {
        metrics().tls.certificate_expiry.set(self.expires_at.unix_timestamp() as f64);
    }
}

/// The certificate of now, for each handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

fn config(current: Arc<Current>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(current);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// The one library of ciphers.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
