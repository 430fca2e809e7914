//! A speaker as the mix hears them: a jitter buffer, a decoder, and what is decoded and not mixed yet.

use super::{
    codec::{Decoder, FRAME_SAMPLES, PACKET_SAMPLES_MAX},
    stats::{MixCounter, MixStats},
};
use crate::{
    clock::Micros,
    ids::StreamId,
    jitter::{JitterBuffer, JitterConfig, Playout},
    opus_packet,
    speech::select::Loudness,
};

/// Decoded samples that may wait: less than a tick, and one packet more.
const HELD_MAX: usize = FRAME_SAMPLES + PACKET_SAMPLES_MAX;
/// A sample from this size on is sound: -60 dB of full scale.
const SOUND: u16 = 33;
/// A pause of up to this belongs to what is said.
pub(super) const PAUSE: Micros = Micros::from_millis(400);
/// Who was not heard for so long is forgotten.
pub(super) const FORGOTTEN_AFTER: Micros = Micros::from_secs(30);

/// A speaker.
pub(super) struct Speaker<D> {
    pub(super) stream: StreamId,
    pub(super) jitter: JitterBuffer,
    pub(super) loudness: Loudness,
    /// When a frame of theirs last came.
    pub(super) heard_at: Micros,
    decoder: D,
    held: Box<[i16; HELD_MAX]>,
    held_samples: usize,
    /// What they say in this tick, if anything.
    frame: Box<[i16; FRAME_SAMPLES]>,
    is_playing: bool,
    /// When there last was sound in it.
    sounded_at: Option<Micros>,
}

impl<D: Decoder> Speaker<D> {
    pub(super) fn new(now: Micros, stream: StreamId, config: JitterConfig, decoder: D) -> Self {
        Self {
            stream,
            jitter: JitterBuffer::new(config),
            loudness: Loudness::default(),
            heard_at: now,
            decoder,
            held: Box::new([0; HELD_MAX]),
            held_samples: 0,
            frame: Box::new([0; FRAME_SAMPLES]),
            is_playing: false,
            sounded_at: None,
        }
    }

    pub(super) fn into_decoder(self) -> D {
        self.decoder
    }

    /// Takes the next 20 ms out of the buffer.
    pub(super) fn advance(&mut self, now: Micros, stats: &mut MixStats) {
        while self.held_samples < FRAME_SAMPLES && self.decode_next(now, stats) {}
        self.is_playing = self.held_samples > 0;
        if !self.is_playing {
            return;
        }
        let taken = self.held_samples.min(FRAME_SAMPLES);
        self.frame[..taken].copy_from_slice(&self.held[..taken]);
        self.frame[taken..].fill(0);
        self.held.copy_within(taken..self.held_samples, 0);
        self.held_samples -= taken;
        if self.frame.iter().any(|sample| sample.unsigned_abs() >= SOUND) {
            self.sounded_at = Some(now);
        }
    }

    /// Decodes what is next to be played; false when nothing is.
    fn decode_next(&mut self, now: Micros, stats: &mut MixStats) -> bool {
        let room = &mut self.held[self.held_samples..];
        match self.jitter.pop(now) {
            Playout::Silence => return false,
            Playout::Play(frame) => {
                // A decoder of libopus makes as many samples as the packet says, however many there is room for.
                let fits = opus_packet::duration_samples(frame.bytes).is_ok();
                let decoded = if fits { self.decoder.decode(frame.bytes, room) } else { None };
                stats.count(if decoded.is_some() { MixCounter::Decoded } else { MixCounter::Undecodable });
                self.held_samples += decoded.unwrap_or_else(|| silence(room, frame.samples));
            }
            Playout::Conceal { samples } => {
                let samples = (samples as usize).min(PACKET_SAMPLES_MAX);
                let room = &mut room[..samples];
                // What is too long to be there as a copy is made up anyway.
                if let Some(next) = self.jitter.following() {
                    stats.count(MixCounter::Recovered);
                    self.decoder.recover(next, room);
                } else {
                    stats.count(MixCounter::Concealed);
                    self.decoder.conceal(room);
                }
                self.held_samples += samples;
            }
        }
        true
    }

    /// What they say in this tick; `None` when they say nothing.
    pub(super) fn frame(&self) -> Option<&[i16; FRAME_SAMPLES]> {
        self.is_playing.then_some(&self.frame)
    }

    /// Whether they are in the middle of saying something.
    pub(super) fn speaks(&self, now: Micros) -> bool {
        self.sounded_at.is_some_and(|at| now.since(at) < PAUSE)
    }

    /// Nothing of theirs is left to be mixed, nor was anything heard of them for long.
    pub(super) fn is_gone(&self, now: Micros) -> bool {
        !self.is_playing && self.jitter.depth() == 0 && now.since(self.heard_at) >= FORGOTTEN_AFTER
    }
}

/// In the place of a packet that is none: as much silence.
fn silence(room: &mut [i16], samples: u32) -> usize {
    let samples = (samples as usize).min(PACKET_SAMPLES_MAX);
    room[..samples].fill(0);
    samples
}
