//! How connections are set up: what we code, which header extensions we know, and whose certificate they get.

use std::time::{Duration, Instant};

use str0m::{IceCreds, Rtc, RtcConfig, bwe::Bitrate, config::DtlsCert, crypto::from_feature_flags};

/// What a subscriber's way is taken to carry before anything was measured: a small picture at once.
const FIRST_ESTIMATE: Bitrate = Bitrate::kbps(800);

/// How often a subscriber's way is looked at. What the library tells by itself is an average over three seconds, in which a
/// way that has become narrow loses voices.
const WAY_SEEN_EVERY: Duration = Duration::from_millis(100);

/// A certificate for this node's connections while it runs (RFC 8827, 6.5: self-signed, known by its fingerprint).
pub(in crate::media) fn certificate() -> Option<DtlsCert> {
    from_feature_flags().dtls_provider.generate_certificate()
}

/// A connection that a client publishes by.
pub(super) fn publisher(now: Instant, certificate: &DtlsCert, credentials: IceCreds) -> Rtc {
    // Redundant audio is taken apart here; whoever sends it survives more loss.
    coded(certificate, credentials).enable_opus(true, true).build(now)
}

/// A connection that a client hears and sees by.
pub(super) fn subscriber(now: Instant, certificate: &DtlsCert, credentials: IceCreds) -> Rtc {
    coded(certificate, credentials)
        .enable_opus(true, false)
        .enable_bwe(Some(FIRST_ESTIMATE))
        .set_stats_interval(Some(WAY_SEEN_EVERY))
        .build(now)
}

fn coded(certificate: &DtlsCert, credentials: IceCreds) -> RtcConfig {
    RtcConfig::new()
        .set_rtp_mode(true)
        .set_ice_lite(true)
        .set_dtls_cert(certificate.clone())
        .set_local_ice_credentials(credentials)
        .clear_codecs()
        .enable_vp8(true)
        .enable_h264(true)
        .enable_vp9(true)
        .enable_av1(true)
}
