//! How connections are set up: what we code, which header extensions we know, and whose certificate they get.

use std::time::{Duration, Instant};

use str0m::{
    IceCreds, Rtc, RtcConfig,
    bwe::Bitrate,
    config::DtlsCert,
    crypto::from_feature_flags,
    format::{Codec, FormatParams},
    media::Frequency,
    rtp::Extension,
};

use super::keys::{self, Agreed};

/// What a subscriber's way is taken to carry before anything was measured: a small picture at once.
const FIRST_ESTIMATE: Bitrate = Bitrate::kbps(800);

/// How often a subscriber's way is looked at. What the library tells by itself is an average over three seconds, in which a
/// way that has become narrow loses voices.
const WAY_SEEN_EVERY: Duration = Duration::from_millis(100);

/// What H.264 and VP9 are offered under, and what is sent again of them: the library's own numbers for these forms.
const H264: (u8, u8) = (108, 109);
const VP9: (u8, u8) = (98, 99);
/// The form of H.264 that every browser has: constrained baseline, level 3.1 (RFC 7742, 6.2; RFC 6184, 8.1).
const CONSTRAINED_BASELINE: u32 = 0x42_e0_1f;

/// How loud a voice is, by what ways are measured, and which section a packet is of.
const OFFERED_EXTENSIONS: [(u8, Extension); 3] =
    [(1, Extension::AudioLevel), (3, Extension::TransportSequenceNumber), (4, Extension::RtpMid)];

/// And what is taken of one who sends: when each packet left, and of which layer it is. Not how a picture is to be turned: that does not get to
/// others, and a client that cannot tell sends it turned.
const TAKEN_EXTENSIONS: [(u8, Extension); 6] = [
    (1, Extension::AudioLevel),
    (2, Extension::AbsoluteSendTime),
    (3, Extension::TransportSequenceNumber),
    (4, Extension::RtpMid),
    (10, Extension::RtpStreamId),
    (11, Extension::RepairedRtpStreamId),
];

/// Longer than any connection lasts: the library reports of no voice, which it does not send.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A certificate for this node's connections while it runs (RFC 8827, 6.5: self-signed, known by its fingerprint).
pub(in crate::media) fn certificate() -> Option<DtlsCert> {
    let certificate = from_feature_flags().dtls_provider.generate_certificate()?;
    // The library reads the system's clock once, with its first connection, and reports of pictures by it. We do when the workers
    // start, and report of voices: should the clock be set in between, they would be played apart. So it is to be now.
    drop(keys::build(coded(&certificate, IceCreds::new()), Instant::now()));
    Some(certificate)
}

/// A connection that a client publishes by.
pub(super) fn publisher(now: Instant, certificate: &DtlsCert, credentials: IceCreds) -> (Rtc, Agreed) {
    // Redundant audio is taken apart here; whoever sends it survives more loss.
    let (rtc, _) = keys::build(coded(certificate, credentials).enable_opus(true, true), now);
    (rtc, Agreed::default())
}

/// A connection that a client hears and sees by, and that we offer: with nothing that is of no use, since a client repeats all of it for
/// each section, and its answer must be within a message. Of each coding there is one form: pictures are sent in the first that is agreed
/// upon, whichever form their publisher's are of.
pub(super) fn subscriber(now: Instant, certificate: &DtlsCert, credentials: IceCreds) -> (Rtc, Agreed) {
    let mut config = coded(certificate, credentials).enable_h264(false).enable_vp9(false);
    config = with_extensions(config, OFFERED_EXTENSIONS);
    let codecs = config.codec_config();
    codecs.add_h264(H264.0.into(), Some(H264.1.into()), true, CONSTRAINED_BASELINE);
    let most_widely = FormatParams { profile_id: Some(0), ..FormatParams::default() };
    codecs.add_config(VP9.0.into(), Some(VP9.1.into()), Codec::Vp9, Frequency::NINETY_KHZ, None, most_widely);
    // Ways are measured by transport-wide numbers.
    codecs.iter_mut().for_each(|params| params.set_fb_remb(false));
    receiving(now, config)
}

/// Likewise one that its client offers, whatever form of a coding it names.
pub(super) fn player(now: Instant, certificate: &DtlsCert, credentials: IceCreds) -> (Rtc, Agreed) {
    receiving(now, coded(certificate, credentials))
}

fn receiving(now: Instant, config: RtcConfig) -> (Rtc, Agreed) {
    let mut config = config
        .enable_opus(true, false)
        .enable_bwe(Some(FIRST_ESTIMATE))
        .set_rtcp_report_interval_audio(NEVER)
        .set_stats_interval(Some(WAY_SEEN_EVERY));
    // Voices are sent whatever the way carries, and nothing is measured by them.
    let opus = config.codec_config().iter_mut().filter(|params| params.spec().codec == Codec::Opus);
    opus.for_each(|params| params.set_fb_transport_cc(false));
    keys::build(config, now)
}

fn with_extensions(config: RtcConfig, extensions: impl IntoIterator<Item = (u8, Extension)>) -> RtcConfig {
    let set = |config: RtcConfig, (id, extension)| config.set_extension(id, extension);
    extensions.into_iter().fold(config.clear_extension_map(), set)
}

fn coded(certificate: &DtlsCert, credentials: IceCreds) -> RtcConfig {
    with_extensions(RtcConfig::new(), TAKEN_EXTENSIONS)
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
