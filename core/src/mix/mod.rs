//! Mixing: of the speakers of one channel, a stream for each listener who wants one instead of many.
//!
//! ```text
//!  frames ─► jitter buffer ─► decoder ─┐                 ┌─► limiter ─► encoder ─► every silent listener, once
//!  frames ─► jitter buffer ─► decoder ─┼─► sum of all ───┤
//!  frames ─► jitter buffer ─► decoder ─┘                 └─ less one's own ─► limiter ─► encoder ─► each who speaks
//! ```
//!
//! Everybody hears all others and never themselves: what they say is subtracted from the sum, which is one of whole
//! numbers, so that nothing of it is left. Those who say nothing hear the same and share one encoder. Who speaks, or hears
//! some louder or softer than they are, has one of their own meanwhile.
//!
//! Driven by frames, a tick every 20 ms and the time; the codec is the caller's ([`Codec`]). While nobody is heard nothing
//! is encoded and nothing sent.

mod codec;
mod limiter;
mod listener;
mod shed;
mod speaker;
mod stats;

use crate::{
    clock::Micros,
    ids::StreamId,
    jitter::{Arrival, JitterConfig, JitterStats},
    red::Blocks,
    speech::select::{Candidate, Loudness, Selector},
    wire::frame::{FrameHeader, FrameKind, LEVEL_SILENCE},
};
use listener::{Listener, Mix, apply_gain};
use speaker::{PAUSE, Speaker};

pub use codec::{Codec, Decoder, Encoder, FRAME_SAMPLES, MIX_BYTES_MAX, PACKET_SAMPLES_MAX};
pub use limiter::{CEILING, LIMIT, Limiter};
pub use listener::{Gain, LEVELS_MAX, level_of};
pub use shed::{Shed, Shedder};
pub use stats::{MixCounter, MixFamily, MixStats};

/// How often a mix is made.
pub const TICK: Micros = Micros::from_millis(20);
/// The most listeners that one output names.
pub const TOGETHER_MAX: usize = 32;

/// How a channel is mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixConfig {
    /// How speakers' frames are waited for.
    pub jitter: JitterConfig,
    /// How many speakers are mixed at once, at least one: the loudest so many.
    pub speakers_max: u32,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self { jitter: JitterConfig::mixing(), speakers_max: 16 }
    }
}

/// One listener of a frame of the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixTo {
    /// Whom it is for, by their own stream.
    pub member: StreamId,
    /// The stream that it is a frame of.
    pub mix: StreamId,
    /// Its number there.
    pub sequence: u16,
    /// What it is.
    pub kind: FrameKind,
}

impl MixTo {
    /// Nobody: fills the rest of a list.
    pub const NOBODY: Self = Self { member: StreamId(0), mix: StreamId(0), sequence: 0, kind: FrameKind::Silence };

    /// The frame's header.
    #[must_use]
    pub const fn header(&self, timestamp: u32, level: u8) -> FrameHeader {
        FrameHeader { stream: self.mix, sequence: self.sequence, timestamp, kind_flags: self.kind as u8, level }
    }
}

/// Takes what is mixed, during a tick.
pub trait MixOutput {
    /// One packet, or nothing at the end of a spurt, for up to [`TOGETHER_MAX`] listeners.
    fn mixed(&mut self, to: &[MixTo], timestamp: u32, level: u8, bytes: &[u8]);
}

/// The mix of one channel.
pub struct ChannelMix<C: Codec> {
    config: MixConfig,
    speakers: Vec<Speaker<C::Decoder>>,
    listeners: Vec<Listener<C::Encoder>>,
    selector: Selector,
    /// For all who are silent.
    shared: Option<Mix<C::Encoder>>,
    /// When somebody last needed it.
    shared_at: Micros,
    sum: Box<[i32; FRAME_SAMPLES]>,
    own_sum: Box<[i32; FRAME_SAMPLES]>,
    together: Vec<MixTo>,
    timestamp: u32,
}

impl<C: Codec> ChannelMix<C> {
    /// A mix without speakers and listeners.
    #[must_use]
    pub fn new(config: MixConfig) -> Self {
        Self {
            selector: Selector::new(config.speakers_max.max(1)),
            config,
            speakers: Vec::new(),
            listeners: Vec::new(),
            shared: None,
            shared_at: Micros::ZERO,
            sum: Box::new([0; FRAME_SAMPLES]),
            own_sum: Box::new([0; FRAME_SAMPLES]),
            together: Vec::with_capacity(TOGETHER_MAX),
            timestamp: 0,
        }
    }

    /// A member hears the mix from now on, as the stream `mix`. One who does already begins anew.
    pub fn add_listener(&mut self, member: StreamId, mix: StreamId, codec: &mut C) {
        self.remove_listener(member, codec);
        self.listeners.push(Listener::new(member, mix));
    }

    /// A member does so no longer.
    pub fn remove_listener(&mut self, member: StreamId, codec: &mut C) {
        let Some(index) = self.listeners.iter().position(|listener| listener.member == member) else { return };
        if let Some(own) = self.listeners.swap_remove(index).own {
            codec.keep_encoder(own.into_encoder());
        }
    }

    /// Whether a member wants to hear anything.
    pub fn set_deafened(&mut self, member: StreamId, deafened: bool) {
        if let Some(listener) = self.listener_mut(member) {
            listener.deafened = deafened;
            // What comes after it is a new spurt.
            listener.in_spurt = false;
        }
    }

    /// How loud a member hears a speaker. False when there is no such listener, or when they have set as many as they may.
    pub fn set_level(&mut self, member: StreamId, speaker: StreamId, gain: Gain) -> bool {
        self.listener_mut(member).is_some_and(|listener| listener.set_level(speaker, gain))
    }

    /// How many hear it.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// How many speakers have a buffer.
    #[must_use]
    pub fn speakers(&self) -> usize {
        self.speakers.len()
    }

    /// How long what is in each speaker's buffer lasts, as far as they have anything there, in frames.
    pub fn depths(&self) -> impl Iterator<Item = usize> {
        self.speakers.iter().map(|speaker| speaker.jitter.depth()).filter(|depth| *depth > 0)
    }

    /// What a speaker's buffer has seen and done.
    #[must_use]
    pub fn jitter(&self, speaker: StreamId) -> Option<JitterStats> {
        self.speakers.iter().find(|known| known.stream == speaker).map(|known| known.jitter.stats())
    }

    /// A frame of a speaker arrived, which is not end-to-end encrypted.
    pub fn push(&mut self, now: Micros, header: FrameHeader, bytes: &[u8], codec: &mut C, stats: &mut MixStats) {
        let Some(index) = self.speaker_for(now, &header, codec, stats) else { return };
        let speaker = &mut self.speakers[index];
        speaker.heard_at = now;
        let plain = header.with_flag(FrameHeader::FLAG_REDUNDANT, false);
        let blocks = header.has(FrameHeader::FLAG_REDUNDANT).then(|| Blocks::parse(bytes)).flatten();
        let Some(blocks) = blocks else {
            return note_arrival(speaker.jitter.push(now, plain, bytes), stats);
        };
        let newest = blocks.as_slice().len().saturating_sub(1);
        for (place, block) in blocks.as_slice().iter().enumerate() {
            let behind = newest - place;
            let header = FrameHeader {
                sequence: plain.sequence.wrapping_sub(behind as u16),
                timestamp: plain.timestamp.wrapping_sub(block.earlier.into()),
                ..plain
            };
            let header = if behind == 0 { header } else { header.with_kind(FrameKind::Audio) };
            let arrival = speaker.jitter.push(now, header, block.bytes);
            // That an earlier one is there already is as it should be.
            if behind == 0 {
                note_arrival(arrival, stats);
            }
        }
    }

    /// The speaker of a frame, made where there is room for one; `None` when others are louder.
    fn speaker_for(&mut self, now: Micros, header: &FrameHeader, codec: &mut C, stats: &mut MixStats) -> Option<usize> {
        let known = self.speakers.iter().position(|speaker| speaker.stream == header.stream);
        let before = known.map_or_else(Loudness::default, |index| self.speakers[index].loudness);
        let (candidate, is_admitted) = self.ask_for_seat(now, header, before)?;
        if !is_admitted && candidate.sounding {
            stats.count(MixCounter::NotSelected);
        }
        match known {
            // Who has a buffer ends what they say in it.
            Some(index) => {
                self.speakers[index].loudness = candidate.loudness;
                (is_admitted || !candidate.sounding).then_some(index)
            }
            None if is_admitted => self.new_speaker(now, candidate, codec, stats),
            None => None,
        }
    }

    /// Whether a frame's speaker is among those who are mixed now; `None` for a frame of no known kind.
    fn ask_for_seat(&mut self, now: Micros, header: &FrameHeader, before: Loudness) -> Option<(Candidate, bool)> {
        let kind = header.kind()?;
        let sounding = kind.is_sound(header.level);
        let mut loudness = before;
        loudness.hear(if sounding { header.level } else { LEVEL_SILENCE });
        let priority = header.has(FrameHeader::FLAG_PRIORITY);
        let candidate = Candidate { stream: header.stream, priority, loudness, sounding };
        let is_admitted = self.selector.admit(now, candidate);
        if kind == FrameKind::AudioStop {
            self.selector.release(header.stream);
        }
        Some((candidate, is_admitted))
    }

    fn new_speaker(&mut self, now: Micros, candidate: Candidate, codec: &mut C, stats: &mut MixStats) -> Option<usize> {
        self.make_room(now, codec);
        let Some(decoder) = codec.decoder() else {
            stats.count(MixCounter::CodecFailed);
            return None;
        };
        let mut speaker = Speaker::new(now, candidate.stream, self.config.jitter.clone(), decoder);
        speaker.loudness = candidate.loudness;
        self.speakers.push(speaker);
        Some(self.speakers.len() - 1)
    }

    /// Buffers are kept for those with a seat and as many again, so that who comes back soon is known.
    fn make_room(&mut self, now: Micros, codec: &mut C) {
        let most = 2 * self.config.speakers_max.max(1) as usize;
        while self.speakers.len() >= most {
            let longest = self.speakers.iter().enumerate().max_by_key(|(_, speaker)| now.since(speaker.heard_at));
            let Some((index, _)) = longest else { return };
            codec.keep_decoder(self.speakers.swap_remove(index).into_decoder());
        }
    }

    /// So many ticks were left out for lack of time: the mix's clock goes on, what is in the buffers is caught up with.
    pub fn skip(&mut self, ticks: u64) {
        let samples = ticks.wrapping_mul(FRAME_SAMPLES as u64);
        self.timestamp = self.timestamp.wrapping_add(samples as u32);
    }

    /// 20 ms have passed: gives everybody what they hear in them.
    pub fn tick(&mut self, now: Micros, complexity: u8, codec: &mut C, out: &mut impl MixOutput, stats: &mut MixStats) {
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        self.advance_speakers(now, codec, stats);
        // Whoever is still within a pause, in case there is only one: who hears nobody else is not sent anything.
        let (first, second) = {
            let mut speaking = self.speakers.iter().filter(|speaker| speaker.speaks(now)).map(|speaker| speaker.stream);
            (speaking.next(), speaking.next())
        };
        self.add_up();
        let mut shared_made = None;
        for index in 0..self.listeners.len() {
            let member = self.listeners[index].member;
            let hears_somebody = second.is_some() || first.is_some_and(|only| only != member);
            if self.listeners[index].deafened {
                self.end_own(index, codec);
            } else if !hears_somebody {
                self.fall_silent(index, codec, out);
            } else if self.needs_own(now, index) {
                self.mix_own(index, complexity, codec, out, stats);
            } else {
                self.end_own(index, codec);
                let is_made = *shared_made.get_or_insert_with(|| self.mix_shared(now, complexity, codec, stats));
                if is_made {
                    let to = self.listeners[index].next_sound();
                    self.together.push(to);
                }
                if self.together.len() == TOGETHER_MAX {
                    self.give_together(out, stats);
                }
            }
        }
        self.give_together(out, stats);
        if now.since(self.shared_at) >= PAUSE
            && let Some(shared) = self.shared.take()
        {
            codec.keep_encoder(shared.into_encoder());
        }
    }

    /// Gives everything back that came from the codec.
    pub fn close(mut self, codec: &mut C) {
        for speaker in self.speakers.drain(..) {
            codec.keep_decoder(speaker.into_decoder());
        }
        let own = self.listeners.drain(..).filter_map(|listener| listener.own);
        for mix in own.chain(self.shared.take()) {
            codec.keep_encoder(mix.into_encoder());
        }
    }

    fn advance_speakers(&mut self, now: Micros, codec: &mut C, stats: &mut MixStats) {
        for index in (0..self.speakers.len()).rev() {
            let speaker = &mut self.speakers[index];
            let skipped = speaker.jitter.stats().skipped;
            speaker.advance(now, stats);
            stats.add(MixCounter::Skipped, speaker.jitter.stats().skipped - skipped);
            if speaker.is_gone(now) {
                codec.keep_decoder(self.speakers.swap_remove(index).into_decoder());
            }
        }
    }

    fn add_up(&mut self) {
        self.sum.fill(0);
        for frame in self.speakers.iter().filter_map(Speaker::frame) {
            for (sum, sample) in self.sum.iter_mut().zip(frame) {
                *sum += i32::from(*sample);
            }
        }
    }

    fn needs_own(&mut self, now: Micros, index: usize) -> bool {
        let Self { speakers, listeners, .. } = self;
        let listener = &mut listeners[index];
        let is_heard = |stream: StreamId| {
            speakers
                .iter()
                .any(|speaker| speaker.stream == stream && (speaker.frame().is_some() || speaker.speaks(now)))
        };
        let has_levels = listener.levels.iter().any(|(speaker, _)| is_heard(*speaker));
        let speaks = is_heard(listener.member);
        listener.needs_own(now, speaks, has_levels)
    }

    /// The sum without a listener's own voice and with their own levels, encoded for them alone.
    fn mix_own(&mut self, index: usize, complexity: u8, codec: &mut C, out: &mut impl MixOutput, stats: &mut MixStats) {
        let Self { speakers, listeners, sum, own_sum, timestamp, .. } = self;
        let listener = &mut listeners[index];
        own_sum.copy_from_slice(&**sum);
        for speaker in speakers.iter() {
            if let (Some(frame), Some(gain)) = (speaker.frame(), listener.gain_of(speaker.stream)) {
                apply_gain(own_sum, frame, gain);
            }
        }
        if listener.own.is_none() {
            listener.own = codec.encoder().map(Mix::new);
        }
        let encoded = listener.own.as_mut().map(|own| own.encode(own_sum, complexity, (MixCounter::EncodedOwn, stats)));
        match encoded {
            Some(true) => {
                let to = [listener.next_sound()];
                if let Some(own) = &listener.own {
                    out.mixed(&to, *timestamp, own.level(), own.packet());
                    stats.count(MixCounter::FramesMixed);
                }
            }
            // It has counted why.
            Some(false) => {}
            None => stats.count(MixCounter::CodecFailed),
        }
    }

    /// Encodes what all who are silent hear; false when that fails.
    fn mix_shared(&mut self, now: Micros, complexity: u8, codec: &mut C, stats: &mut MixStats) -> bool {
        self.shared_at = now;
        if self.shared.is_none() {
            self.shared = codec.encoder().map(Mix::new);
        }
        let Some(shared) = &mut self.shared else {
            stats.count(MixCounter::CodecFailed);
            return false;
        };
        shared.encode(&self.sum, complexity, (MixCounter::EncodedShared, stats))
    }

    /// Gives the shared packet to those who are gathered.
    fn give_together(&mut self, out: &mut impl MixOutput, stats: &mut MixStats) {
        if let (false, Some(shared)) = (self.together.is_empty(), &self.shared) {
            out.mixed(&self.together, self.timestamp, shared.level(), shared.packet());
            stats.add(MixCounter::FramesMixed, self.together.len() as u64);
        }
        self.together.clear();
    }

    /// Nobody whom a listener hears speaks: their spurt ends.
    fn fall_silent(&mut self, index: usize, codec: &mut C, out: &mut impl MixOutput) {
        self.end_own(index, codec);
        let listener = &mut self.listeners[index];
        if listener.in_spurt {
            let to = [listener.next(FrameKind::AudioStop)];
            out.mixed(&to, self.timestamp, LEVEL_SILENCE, &[]);
        }
    }

    fn end_own(&mut self, index: usize, codec: &mut C) {
        if let Some(own) = self.listeners[index].own.take() {
            codec.keep_encoder(own.into_encoder());
        }
    }

    fn listener_mut(&mut self, member: StreamId) -> Option<&mut Listener<C::Encoder>> {
        self.listeners.iter_mut().find(|listener| listener.member == member)
    }
}

fn note_arrival(arrival: Arrival, stats: &mut MixStats) {
    if arrival != Arrival::Queued {
        stats.count(MixCounter::NotBuffered);
    }
}

#[cfg(test)]
mod tests;
