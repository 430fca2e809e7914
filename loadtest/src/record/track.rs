//! One speaker's jitter buffer and what it plays into: a file of their packets, or the mix of all.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use antiphon_core::{
    clock::Micros,
    jitter::{JitterBuffer, JitterConfig, PlayedFrame, Playout},
    opus_packet,
};
use opus::{Channels, Decoder};

use super::RecordError;
use crate::audio::{
    FRAME_SAMPLES, OggOpusWriter, OpusHead, PACKET_SAMPLES_MAX, PRE_SKIP_SAMPLES, SAMPLE_RATE_HZ, WavWriter,
};

/// The longest pause that is written as packets without content; more says that the sender's clock has jumped.
const PAUSE_SAMPLES_MAX: u32 = SAMPLE_RATE_HZ * 600;

/// One speaker.
pub(super) struct Track {
    pub(super) jitter: JitterBuffer,
    /// Samples played beyond the last tick.
    owed: u32,
    pub(super) writer: TrackWriter,
}

pub(super) enum TrackWriter {
    Ogg(OggTrack),
    Mix(MixTrack),
}

impl Track {
    pub(super) fn new(writer: TrackWriter) -> Self {
        Self { jitter: JitterBuffer::new(JitterConfig::recording()), owed: 0, writer }
    }

    /// Plays one tick's worth.
    pub(super) fn play(&mut self, now: Micros) -> Result<(), RecordError> {
        while self.owed < FRAME_SAMPLES as u32 {
            let samples = match self.jitter.pop(now) {
                Playout::Play(frame) => {
                    match &mut self.writer {
                        TrackWriter::Ogg(track) => track.play(&frame)?,
                        TrackWriter::Mix(track) => track.decode(Some(frame.bytes), frame.samples)?,
                    }
                    frame.samples
                }
                Playout::Conceal { samples } => {
                    if let TrackWriter::Mix(track) = &mut self.writer {
                        track.decode(None, samples)?;
                    }
                    samples
                }
                Playout::Silence => {
                    self.owed = 0;
                    return Ok(());
                }
            };
            self.owed += samples;
        }
        self.owed -= FRAME_SAMPLES as u32;
        Ok(())
    }
}

/// One speaker's packets.
pub(super) struct OggTrack {
    pub(super) path: PathBuf,
    username: String,
    file: Option<OpenOgg>,
}

struct OpenOgg {
    writer: OggOpusWriter<BufWriter<File>>,
    /// The timestamp at which the next frame follows without a gap.
    next_timestamp: u32,
    /// The last packet's first byte, which says how its like would be concealed.
    toc: u8,
}

impl OggTrack {
    pub(super) fn new(path: PathBuf, username: String) -> Self {
        Self { path, username, file: None }
    }

    fn play(&mut self, frame: &PlayedFrame<'_>) -> Result<(), RecordError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOgg::create(&self.path, &self.username, frame)?),
        };
        let gap = frame.header.timestamp.wrapping_sub(file.next_timestamp);
        if gap > 0 && gap <= PAUSE_SAMPLES_MAX {
            file.writer.write_gap(&[file.toc], gap)?;
        }
        file.writer.write(frame.bytes)?;
        file.next_timestamp = frame.header.timestamp.wrapping_add(frame.samples);
        file.toc = frame.bytes.first().copied().unwrap_or(file.toc);
        Ok(())
    }

    /// The file, when anything was written.
    pub(super) fn finish(self) -> Result<Option<PathBuf>, RecordError> {
        let Some(file) = self.file else { return Ok(None) };
        file.writer.finish()?;
        Ok(Some(self.path))
    }
}

impl OpenOgg {
    fn create(path: &Path, username: &str, first: &PlayedFrame<'_>) -> Result<Self, RecordError> {
        let channels = if opus_packet::is_stereo(first.bytes) { 2 } else { 1 };
        let head = OpusHead { channels, pre_skip: PRE_SKIP_SAMPLES, input_rate_hz: SAMPLE_RATE_HZ };
        let file = BufWriter::new(File::create(path)?);
        let writer = OggOpusWriter::new(file, head, &[format!("ARTIST={username}")])?;
        Ok(Self { writer, next_timestamp: first.header.timestamp, toc: first.bytes.first().copied().unwrap_or(0) })
    }
}

/// One speaker's samples, stereo, on their way into the mix.
pub(super) struct MixTrack {
    decoder: Decoder,
    decoded: Vec<f32>,
    ready: Vec<f32>,
}

impl MixTrack {
    pub(super) fn new() -> Result<Self, RecordError> {
        let decoder = Decoder::new(SAMPLE_RATE_HZ, Channels::Stereo)?;
        Ok(Self { decoder, decoded: vec![0.0; 2 * PACKET_SAMPLES_MAX], ready: Vec::new() })
    }

    /// Decodes a packet, or conceals `samples` where there is none.
    fn decode(&mut self, packet: Option<&[u8]>, samples: u32) -> Result<(), RecordError> {
        let room = match packet {
            Some(_) => self.decoded.len(),
            None => self.decoded.len().min(2 * samples as usize),
        };
        let decoded = self.decoder.decode_float(packet.unwrap_or_default(), &mut self.decoded[..room], false);
        // What libopus cannot decode is heard as silence.
        let decoded = decoded.unwrap_or_else(|_| {
            self.decoded[..room].fill(0.0);
            room.min(2 * samples as usize) / 2
        });
        self.ready.extend_from_slice(&self.decoded[..2 * decoded]);
        Ok(())
    }
}

/// Everyone in one file.
pub(super) struct Mix {
    pub(super) file: WavWriter<BufWriter<File>>,
    tick: Vec<f32>,
}

impl Mix {
    pub(super) fn create(path: &Path) -> Result<Self, RecordError> {
        let file = WavWriter::new(BufWriter::new(File::create(path)?), 2)?;
        Ok(Self { file, tick: vec![0.0; 2 * FRAME_SAMPLES] })
    }

    pub(super) fn write<'a>(&mut self, tracks: impl Iterator<Item = &'a mut Track>) -> Result<(), RecordError> {
        self.tick.fill(0.0);
        for track in tracks {
            let TrackWriter::Mix(track) = &mut track.writer else { continue };
            let count = track.ready.len().min(self.tick.len());
            for (sum, sample) in self.tick.iter_mut().zip(track.ready.drain(..count)) {
                *sum += sample;
            }
        }
        Ok(self.file.write(&self.tick)?)
    }
}
