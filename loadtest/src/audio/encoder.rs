//! Samples into Opus packets, as the server's hints ask.

use antiphon_core::gateway::QualityHint;
use opus::{Application, Bitrate, Channels, Encoder};

use super::{FRAME_SAMPLES, SAMPLE_RATE_HZ};

/// The largest packet that leaves room for the headers in a datagram of 1,200 bytes.
const PACKET_BYTES_MAX: usize = 1_100;

/// A packet of up to this many bytes says "nothing to hear": it need not be sent (libopus, `opus_encode`).
const DTX_BYTES_MAX: usize = 2;

/// What of a [`QualityHint`] an encoder can follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderHint {
    /// Bits per second.
    pub bitrate: u32,
    /// In-band forward error correction.
    pub fec: bool,
    /// Discontinuous transmission.
    pub dtx: bool,
    /// The share of frames to expect lost, 0 to 1.
    pub expected_loss: f32,
}

impl EncoderHint {
    /// What speech is encoded with before the server has said anything.
    #[must_use]
    pub const fn speech(channels: u8) -> Self {
        Self { bitrate: if channels == 2 { 48_000 } else { 32_000 }, fec: false, dtx: false, expected_loss: 0.0 }
    }
}

impl From<&QualityHint> for EncoderHint {
    fn from(hint: &QualityHint) -> Self {
        Self { bitrate: hint.bitrate, fec: hint.fec, dtx: hint.dtx, expected_loss: hint.expected_loss }
    }
}

/// Encodes 20 ms frames at 48 kHz.
pub struct FrameEncoder {
    encoder: Encoder,
    channels: usize,
    packet: [u8; PACKET_BYTES_MAX],
}

impl FrameEncoder {
    /// An encoder for one or two interleaved channels.
    ///
    /// # Errors
    /// When libopus refuses.
    pub fn new(channels: u8, hint: EncoderHint) -> Result<Self, opus::Error> {
        let layout = if channels == 2 { Channels::Stereo } else { Channels::Mono };
        let encoder = Encoder::new(SAMPLE_RATE_HZ, layout, Application::Voip)?;
        let mut this = Self { encoder, channels: usize::from(channels), packet: [0; PACKET_BYTES_MAX] };
        this.apply(hint)?;
        Ok(this)
    }

    /// Follows a hint from the next frame on.
    ///
    /// # Errors
    /// When libopus refuses; values out of its range are brought into it first.
    pub fn apply(&mut self, hint: EncoderHint) -> Result<(), opus::Error> {
        // 500 to 512,000 bit/s is what libopus takes.
        let bitrate = i32::try_from(hint.bitrate.clamp(6_000, 510_000)).unwrap_or(i32::MAX);
        let loss_percent = (hint.expected_loss.clamp(0.0, 1.0) * 100.0).round() as i32;
        self.encoder.set_bitrate(Bitrate::Bits(bitrate))?;
        self.encoder.set_inband_fec(hint.fec)?;
        self.encoder.set_packet_loss_perc(loss_percent)?;
        self.encoder.set_dtx(hint.dtx)
    }

    /// Samples by which the packets lag the input, at 48 kHz.
    ///
    /// # Errors
    /// When libopus refuses.
    pub fn lookahead(&mut self) -> Result<usize, opus::Error> {
        self.encoder.get_lookahead().map(|samples| usize::try_from(samples).unwrap_or(0))
    }

    /// One packet of 20 ms of interleaved samples, or `None` when DTX says that it need not be sent.
    ///
    /// # Errors
    /// When libopus refuses.
    ///
    /// # Panics
    /// When `samples` isn't 20 ms long.
    pub fn encode(&mut self, samples: &[f32]) -> Result<Option<&[u8]>, opus::Error> {
        assert_eq!(samples.len(), FRAME_SAMPLES * self.channels, "one 20 ms frame");
        let length = self.encoder.encode_float(samples, &mut self.packet)?;
        Ok((length > DTX_BYTES_MAX).then(|| &self.packet[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speech_like(frame: usize) -> Vec<f32> {
        (0..FRAME_SAMPLES)
            .map(|n| {
                let t = (frame * FRAME_SAMPLES + n) as f32 / 48_000.0;
                let pulse = (t * 120.0).fract() * 2.0 - 1.0;
                pulse * 0.2 + (t * 440.0 * std::f32::consts::TAU).sin() * 0.3
            })
            .collect()
    }

    fn mean_bytes(hint: EncoderHint) -> usize {
        let mut encoder = FrameEncoder::new(1, hint).expect("libopus");
        let total: usize =
            (0..100).map(|n| encoder.encode(&speech_like(n)).expect("encodes").map_or(0, <[u8]>::len)).sum();
        total / 100
    }

    #[test]
    fn the_bitrate_follows_the_hint() {
        let low = mean_bytes(EncoderHint { bitrate: 12_000, ..EncoderHint::speech(1) });
        let high = mean_bytes(EncoderHint { bitrate: 64_000, ..EncoderHint::speech(1) });
        assert!(low < 50 && high > 120, "{low} and {high} bytes a frame");
    }

    #[test]
    fn silence_need_not_be_sent_with_dtx() {
        let sent = |dtx| {
            let mut encoder = FrameEncoder::new(1, EncoderHint { dtx, ..EncoderHint::speech(1) }).expect("libopus");
            let silence = [0.0; FRAME_SAMPLES];
            (0..200).filter(|_| encoder.encode(&silence).expect("encodes").is_some()).count()
        };
        assert_eq!(sent(false), 200);
        assert!(sent(true) < 60, "{} of 200 frames of silence were sent", sent(true));
    }
}
