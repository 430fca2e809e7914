//! What to speak: a file as a stream of frames.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use antiphon_core::opus_packet;
use opus::{Channels, Decoder};

use super::{
    EncoderHint, FRAME_SAMPLES, FrameEncoder, LEVEL_SILENCE, OggOpusError, OggOpusReader, PACKET_SAMPLES_MAX,
    Resampler, SAMPLE_RATE_HZ, WavError, WavReader, level_of,
};

/// Why a file cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file could not be opened or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Neither Ogg nor WAV.
    #[error("neither an Ogg Opus nor a WAV file")]
    Unknown,
    /// A broken or unfit Ogg Opus file.
    #[error(transparent)]
    Ogg(#[from] OggOpusError),
    /// A broken or unfit WAV file.
    #[error(transparent)]
    Wav(#[from] WavError),
    /// libopus refused.
    #[error("libopus: {0}")]
    Opus(#[from] opus::Error),
}

/// One frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame {
    /// One Opus packet, or `None` for a pause in which nothing need be sent (DTX).
    pub packet: Option<Vec<u8>>,
    /// How long it lasts, at 48 kHz.
    pub samples: u32,
    /// Its RFC 6464 level.
    pub level: u8,
}

/// A file being read.
pub enum Source {
    /// Packets as they are.
    Opus(Box<OpusSource>),
    /// Samples, encoded as they are read.
    Pcm(Box<PcmSource>),
}

impl Source {
    /// Opens a file; its first bytes tell what it is.
    ///
    /// # Errors
    /// When it cannot be read or is neither Ogg Opus nor WAV.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        match magic.as_slice() {
            b"OggS" => Ok(Self::Opus(Box::new(OpusSource::new(OggOpusReader::new(file)?)?))),
            b"RIFF" => Ok(Self::Pcm(Box::new(PcmSource::new(WavReader::new(file)?)?))),
            _ => Err(SourceError::Unknown),
        }
    }

    /// 1 or 2.
    pub fn channels(&self) -> u8 {
        match self {
            Self::Opus(source) => source.channels,
            Self::Pcm(source) => source.channels,
        }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn next_frame(&mut self) -> Result<Option<SourceFrame>, SourceError> {
        match self {
            Self::Opus(source) => source.next_frame(),
            Self::Pcm(source) => source.next_frame(),
        }
    }

    /// Encodes as the server asks, where there is something to encode; ready packets stay as they are.
    ///
    /// # Errors
    /// When libopus refuses.
    pub fn apply(&mut self, hint: EncoderHint) -> Result<(), SourceError> {
        if let Self::Pcm(source) = self {
            source.encoder.apply(hint)?;
        }
        Ok(())
    }
}

/// An Ogg Opus file: packets pass through; they are decoded only to learn their level.
pub struct OpusSource {
    reader: OggOpusReader<BufReader<File>>,
    channels: u8,
    decoder: Decoder,
    samples: Vec<f32>,
}

impl OpusSource {
    fn new(reader: OggOpusReader<BufReader<File>>) -> Result<Self, SourceError> {
        let decoder = Decoder::new(SAMPLE_RATE_HZ, Channels::Mono)?;
        Ok(Self { channels: reader.head().channels, reader, decoder, samples: vec![0.0; PACKET_SAMPLES_MAX] })
    }

    fn next_frame(&mut self) -> Result<Option<SourceFrame>, SourceError> {
        let Some(packet) = self.reader.next_packet()? else { return Ok(None) };
        let samples = opus_packet::duration_samples(&packet).unwrap_or(FRAME_SAMPLES as u32);
        // A packet that libopus cannot decode still passes through: its level is unknown, its bytes are not ours.
        let decoded = self.decoder.decode_float(&packet, &mut self.samples, false).unwrap_or(0);
        let level = level_of(&self.samples[..decoded]);
        Ok(Some(SourceFrame { packet: Some(packet), samples, level }))
    }
}

/// A WAV file, resampled and encoded 20 ms at a time.
pub struct PcmSource {
    reader: WavReader<BufReader<File>>,
    channels: u8,
    resampler: Resampler,
    encoder: FrameEncoder,
    input: Vec<f32>,
    /// At 48 kHz, interleaved, not encoded yet.
    ready: Vec<f32>,
    ended: bool,
}

impl PcmSource {
    /// How much of the file is read at a time, in samples of each channel.
    const READ_SAMPLES: usize = 4_096;

    fn new(reader: WavReader<BufReader<File>>) -> Result<Self, SourceError> {
        let format = reader.format();
        let channels = if format.channels == 2 { 2 } else { 1 };
        Ok(Self {
            reader,
            channels,
            resampler: Resampler::new(format.rate_hz, usize::from(channels)),
            encoder: FrameEncoder::new(channels, EncoderHint::speech(channels))?,
            input: Vec::new(),
            ready: Vec::new(),
            ended: false,
        })
    }

    fn next_frame(&mut self) -> Result<Option<SourceFrame>, SourceError> {
        let frame = FRAME_SAMPLES * usize::from(self.channels);
        while self.ready.len() < frame && !self.ended {
            self.read_more()?;
        }
        if self.ready.is_empty() {
            return Ok(None);
        }
        // The last frame is filled up with silence.
        self.ready.resize(self.ready.len().max(frame), 0.0);
        let level = level_of(&self.ready[..frame]);
        let packet = self.encoder.encode(&self.ready[..frame])?.map(<[u8]>::to_vec);
        self.ready.drain(..frame);
        let level = if packet.is_some() { level } else { LEVEL_SILENCE };
        Ok(Some(SourceFrame { packet, samples: FRAME_SAMPLES as u32, level }))
    }

    fn read_more(&mut self) -> Result<(), SourceError> {
        self.input.clear();
        if self.reader.read(Self::READ_SAMPLES, &mut self.input)? > 0 {
            self.resampler.push(&self.input, &mut self.ready);
            return Ok(());
        }
        self.ended = true;
        self.resampler.finish(&mut self.ready);
        // What the encoder looks ahead must be pushed out by as much silence.
        let lookahead = self.encoder.lookahead()? * usize::from(self.channels);
        self.ready.extend(std::iter::repeat_n(0.0, lookahead));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{OggOpusWriter, OpusHead, PRE_SKIP_SAMPLES, WavWriter};

    fn frames(path: &Path) -> Vec<SourceFrame> {
        let mut source = Source::open(path).expect("opens");
        std::iter::from_fn(|| source.next_frame().expect("reads")).collect()
    }

    #[test]
    fn a_wav_becomes_frames_and_an_ogg_gives_the_same_ones_back() {
        let directory = std::env::temp_dir().join(format!("antiphon-source-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("temporary directory");
        let (wav, ogg) = (directory.join("tone.wav"), directory.join("tone.ogg"));

        let tone: Vec<f32> = (0..48_000).map(|n| (n as f32 * 0.05).sin() * 0.5).collect();
        let mut writer = WavWriter::new(File::create(&wav).expect("creates"), 1).expect("writes");
        writer.write(&tone).expect("writes");
        writer.finish().expect("writes");
        let encoded = frames(&wav);
        // 50 frames of sound and one for what the encoder looks ahead.
        assert_eq!(encoded.len(), 51);
        assert!(encoded[10..40].iter().all(|frame| (8..=10).contains(&frame.level)), "a sine at half scale is -9 dBov");

        let head = OpusHead { channels: 1, pre_skip: PRE_SKIP_SAMPLES, input_rate_hz: 48_000 };
        let mut writer = OggOpusWriter::new(File::create(&ogg).expect("creates"), head, &[]).expect("writes");
        for frame in &encoded {
            writer.write(frame.packet.as_ref().expect("no DTX by default")).expect("writes");
        }
        writer.finish().expect("writes");
        let passed = frames(&ogg);
        assert_eq!(passed.len(), encoded.len());
        assert!(passed.iter().zip(&encoded).all(|(a, b)| a.packet == b.packet && a.samples == 960));
        assert!(passed[10..40].iter().all(|frame| (7..=11).contains(&frame.level)));
        std::fs::remove_dir_all(&directory).expect("removes");
    }

    #[test]
    fn another_file_says_what_would_do() {
        let path = std::env::temp_dir().join(format!("antiphon-source-{}.txt", std::process::id()));
        std::fs::write(&path, "hello").expect("writes");
        let error = Source::open(&path).err().expect("refused").to_string();
        std::fs::remove_file(&path).expect("removes");
        assert!(error.contains("Ogg Opus") && error.contains("WAV"), "{error}");
    }
}
