//! Sound in files: Ogg Opus and WAV, read as frames to send and written from frames heard.

mod encoder;
mod level;
mod ogg_opus;
mod resample;
mod source;
mod wav;

pub use encoder::{EncoderHint, FrameEncoder};
pub use level::{LEVEL_SILENCE, level_of};
pub use ogg_opus::{OggOpusError, OggOpusReader, OggOpusWriter, OpusHead, PRE_SKIP_SAMPLES};
pub use resample::Resampler;
pub use source::{Source, SourceError, SourceFrame};
pub use wav::{WavError, WavFormat, WavReader, WavWriter};

/// The rate of everything that is sent, and of every timestamp and granule position.
pub const SAMPLE_RATE_HZ: u32 = 48_000;

/// What a WAV file is encoded in: 20 ms.
pub const FRAME_SAMPLES: usize = 960;

/// The longest Opus packet: 120 ms (RFC 6716 section 2.1.4).
pub const PACKET_SAMPLES_MAX: usize = 5_760;
