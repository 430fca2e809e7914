//! 48 kHz samples into an Ogg Opus file.

use std::io::Write;

use opus::{Application, Bitrate, Channels, Encoder};

use super::{Quality, SAMPLE_RATE_HZ, TranscodeError, ogg_opus::OggOpus};

/// Samples of a packet: 20 ms, beyond which bigger packets save next to nothing.
const FRAME_SAMPLES: usize = 960;

/// The longest packet of one frame (RFC 6716 section 3.2.1).
const PACKET_BYTES_MAX: usize = 1_275;

/// How hard the encoder tries, of 10. A file is made once and heard often; 10 takes twice the time and nobody hears it.
const COMPLEXITY: i32 = 9;

/// An Ogg Opus file that grows.
pub(super) struct OpusFile<'w> {
    file: OggOpus<&'w mut dyn Write>,
    encoder: Encoder,
    channels: usize,
    pre_skip: u16,
    /// What is not yet a whole frame.
    waiting: Vec<f32>,
    /// Samples that came in.
    samples: u64,
    packet: Vec<u8>,
}

impl<'w> OpusFile<'w> {
    /// Writes the file's head.
    pub(super) fn new(writer: &'w mut dyn Write, quality: Quality, channels: u16) -> Result<Self, TranscodeError> {
        let layout = if channels == 1 { Channels::Mono } else { Channels::Stereo };
        let mut encoder = Encoder::new(SAMPLE_RATE_HZ, layout, Application::Audio).map_err(failed)?;
        encoder.set_bitrate(Bitrate::Bits(quality.bits_per_second(channels))).map_err(failed)?;
        encoder.set_complexity(COMPLEXITY).map_err(failed)?;
        let pre_skip = u16::try_from(encoder.get_lookahead().map_err(failed)?).unwrap_or(312);
        let file = OggOpus::new(writer, if channels == 1 { 1 } else { 2 }, pre_skip)?;
        let packet = vec![0; PACKET_BYTES_MAX];
        Ok(Self { file, encoder, channels: channels.into(), pre_skip, waiting: Vec::new(), samples: 0, packet })
    }

    /// Interleaved samples.
    pub(super) fn add(&mut self, samples: &[f32]) -> Result<(), TranscodeError> {
        self.samples += (samples.len() / self.channels) as u64;
        self.waiting.extend_from_slice(samples);
        let wanted = FRAME_SAMPLES * self.channels;
        let whole = self.waiting.len() / wanted * wanted;
        for from in (0..whole).step_by(wanted) {
            self.encode(from)?;
        }
        self.waiting.drain(..whole);
        Ok(())
    }

    /// Writes what waits, as far as the decoder's delay reaches, and where the sound ends to the sample.
    pub(super) fn finish(mut self) -> Result<(), TranscodeError> {
        let end = self.samples + u64::from(self.pre_skip);
        let wanted = FRAME_SAMPLES * self.channels;
        let mut written = self.samples - (self.waiting.len() / self.channels) as u64;
        while written < end {
            self.waiting.resize(wanted, 0.0);
            self.encode(0)?;
            self.waiting.clear();
            written += FRAME_SAMPLES as u64;
        }
        Ok(self.file.finish(end)?)
    }

    fn encode(&mut self, from: usize) -> Result<(), TranscodeError> {
        let frame = &self.waiting[from..from + FRAME_SAMPLES * self.channels];
        let bytes = self.encoder.encode_float(frame, &mut self.packet).map_err(failed)?;
        Ok(self.file.write(self.packet[..bytes].to_vec(), FRAME_SAMPLES as u64)?)
    }
}

fn failed(error: opus::Error) -> TranscodeError {
    TranscodeError::Undecodable(format!("it cannot be encoded: {error}"))
}
