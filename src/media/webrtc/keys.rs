//! The keys that a connection's DTLS agrees upon, for the voice that is sealed here.
//!
//! The library makes its DTLS by a provider, and gives the keys that come out of it to its own SRTP alone. Ours makes the same
//! DTLS and listens for them. Which connection a DTLS is made for no provider is told: it is made while [`build`] makes the
//! connection, in the same thread, and leaves where its keys are found for it to take.
//!
//! It also shares what all connections' DTLS is configured with. The library would make that anew for each, and its cryptography
//! proves itself each time, with signatures and agreements over every curve: a fifth or more of what a join cost.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Instant,
};

use antiphon_core::srtp::{Profile, Side, Srtp};
use dimpl::{Config, Dtls};
use str0m::{
    Rtc, RtcConfig,
    crypto::{
        CryptoError, CryptoProvider,
        dtls::{
            DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial,
            ProtocolVersion, SrtpProfile,
        },
        from_feature_flags,
    },
};

/// What both ways of a connection are sealed under.
pub(super) struct Keys {
    pub(super) outgoing: Srtp,
    pub(super) incoming: Srtp,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Where a connection's keys are found once there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreed(Arc<Mutex<Option<Keys>>>);

impl Agreed {
    /// Keys that were agreed upon since this was last asked.
    pub(super) fn take(&self) -> Option<Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, material: &KeyingMaterial, profile: SrtpProfile, is_client: bool) {
        let keys = keys(material, profile, is_client);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

thread_local! {
    /// Where the keys of the DTLS that this thread made last are found.
    static MADE: RefCell<Option<Agreed>> = const { RefCell::new(None) };
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(CryptoProvider { dtls_provider: &Listening, ..from_feature_flags() }));

/// Makes a connection; where its keys will be found.
pub(super) fn build(config: RtcConfig, now: Instant) -> (Rtc, Agreed) {
    let rtc = config.set_crypto_provider(Arc::clone(&PROVIDER)).build(now);
    // One that made no DTLS would have no keys: its listener hears nothing, and no other's keys are taken for its own.
    (rtc, MADE.take().unwrap_or_default())
}

fn keys(material: &KeyingMaterial, profile: SrtpProfile, is_client: bool) -> Option<Keys> {
    let profile = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1,
        SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
        _ => return None,
    };
    let (ours, theirs) = if is_client { (Side::Client, Side::Server) } else { (Side::Server, Side::Client) };
    let way = |side| Srtp::new(profile, material, side);
    Some(Keys { outgoing: way(ours)?, incoming: way(theirs)? })
}

/// The library's DTLS, listened to.
#[derive(Debug)]
struct Listening;

impl DtlsProvider for Listening {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let refused = |why: &dyn fmt::Display| CryptoError::Other(format!("DTLS cannot be made: {why}"));
        if version != DtlsVersion::Dtls12 {
            return Err(refused(&"of that version there is none here"));
        }
        let config = shared_config(mtu).map_err(|error| refused(&error))?;
        let agreed = Agreed::default();
        MADE.set(Some(agreed.clone()));
        Ok(Box::new(Heard { inner: Dtls::new_12(config, certificate.clone(), now), agreed }))
    }
}

/// What all connections' DTLS is configured with: as the library does it. Its clients' addresses are proved by ICE, no cookie is
/// needed.
fn shared_config(mtu: Option<usize>) -> Result<Arc<Config>, dimpl::Error> {
    static SHARED: Mutex<Option<(Option<usize>, Arc<Config>)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, config)) = shared.as_ref().filter(|(of, _)| *of == mtu) {
        return Ok(Arc::clone(config));
    }
    let builder = Config::builder().use_server_cookie(false);
    let builder = match mtu {
        Some(mtu) => builder.mtu(mtu),
        None => builder,
    };
    let config = Arc::new(builder.build()?);
    *shared = Some((mtu, Arc::clone(&config)));
    Ok(config)
}

/// One connection's DTLS.
struct Heard {
    inner: Dtls,
    agreed: Agreed,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard(..)")
    }
}

impl DtlsInstance for Heard {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.inner.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            self.agreed.note(material, *profile, self.inner.is_active());
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
