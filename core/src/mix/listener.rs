//! Whoever hears a mix: the numbering of their stream, levels of their own, and an encoder of their own while they need one.

use super::{
    MixTo,
    codec::{Encoder, FRAME_SAMPLES, MIX_BYTES_MAX},
    limiter::Limiter,
    stats::{MixCounter, MixStats},
};
use crate::{
    clock::Micros,
    ids::StreamId,
    wire::frame::{FrameKind, LEVEL_SILENCE},
};

/// Who spoke a moment ago goes on with an encoder of their own for so long: each change of encoders can be heard a little.
const OWN_FOR: Micros = Micros::from_secs(1);
/// How many speakers a listener may have levels of their own for.
pub const LEVELS_MAX: usize = 64;

/// How loud a speaker is in a mix, in percent: 0 is silence, 100 as they are, 200 twice as loud (6 dB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gain(u16);

impl Gain {
    /// As they are.
    pub const USUAL: Self = Self(100);
    /// The most there can be.
    pub const PERCENT_MAX: u16 = 200;

    /// A gain of so many percent; `None` above 200.
    #[must_use]
    pub const fn from_percent(percent: u16) -> Option<Self> {
        if percent > Self::PERCENT_MAX { None } else { Some(Self(percent)) }
    }

    /// What is to be added to a sample that is in a sum already.
    fn difference(self, sample: i16) -> i32 {
        i32::from(sample) * (i32::from(self.0) - 100) / 100
    }
}

/// What one encoder needs beside the sum.
pub(super) struct Mix<E> {
    encoder: E,
    limiter: Limiter,
    samples: Box<[i16; FRAME_SAMPLES]>,
    packet: Box<[u8; MIX_BYTES_MAX]>,
    length: usize,
    level: u8,
}

impl<E: Encoder> Mix<E> {
    pub(super) fn new(encoder: E) -> Self {
        Self {
            encoder,
            limiter: Limiter::default(),
            samples: Box::new([0; FRAME_SAMPLES]),
            packet: Box::new([0; MIX_BYTES_MAX]),
            length: 0,
            level: LEVEL_SILENCE,
        }
    }

    pub(super) fn into_encoder(self) -> E {
        self.encoder
    }

    /// Encodes a sum; false when that fails.
    pub(super) fn encode(
        &mut self,
        sum: &[i32; FRAME_SAMPLES],
        complexity: u8,
        (counter, stats): (MixCounter, &mut MixStats),
    ) -> bool {
        self.limiter.limit(sum, &mut self.samples);
        self.level = level_of(&*self.samples);
        self.encoder.set_complexity(complexity);
        let length = self.encoder.encode(&self.samples, &mut self.packet);
        stats.count(if length.is_some() { counter } else { MixCounter::CodecFailed });
        self.length = length.unwrap_or(0).min(MIX_BYTES_MAX);
        self.length > 0
    }

    /// The packet last made.
    pub(super) fn packet(&self) -> &[u8] {
        &self.packet[..self.length]
    }

    /// Its RFC 6464 level.
    pub(super) fn level(&self) -> u8 {
        self.level
    }
}

/// A listener.
pub(super) struct Listener<E> {
    /// Their own stream, by which they are known.
    pub(super) member: StreamId,
    /// The stream of their mix.
    mix: StreamId,
    sequence: u16,
    pub(super) in_spurt: bool,
    pub(super) deafened: bool,
    /// Of speakers who are not as loud as they are.
    pub(super) levels: Vec<(StreamId, Gain)>,
    pub(super) own: Option<Mix<E>>,
    own_until: Option<Micros>,
}

impl<E> Listener<E> {
    pub(super) fn new(member: StreamId, mix: StreamId) -> Self {
        Self {
            member,
            mix,
            sequence: 0,
            in_spurt: false,
            deafened: false,
            levels: Vec::new(),
            own: None,
            own_until: None,
        }
    }

    /// Sets how loud they hear a speaker; false when they have levels for as many as they may.
    pub(super) fn set_level(&mut self, speaker: StreamId, gain: Gain) -> bool {
        self.levels.retain(|(known, _)| *known != speaker);
        if gain == Gain::USUAL {
            return true;
        }
        let has_room = self.levels.len() < LEVELS_MAX;
        if has_room {
            self.levels.push((speaker, gain));
        }
        has_room
    }

    /// What is to be done to a speaker's share of the sum for them, if anything.
    pub(super) fn gain_of(&self, speaker: StreamId) -> Option<Gain> {
        if speaker == self.member {
            // Nobody hears themselves.
            return Some(Gain(0));
        }
        self.levels.iter().find(|(known, _)| *known == speaker).map(|(_, gain)| *gain)
    }

    /// Whether they need an encoder of their own now, since what they hear is nobody else's.
    pub(super) fn needs_own(&mut self, now: Micros, speaks: bool, has_levels: bool) -> bool {
        if speaks || has_levels {
            self.own_until = Some(now + OWN_FOR);
        }
        self.own_until.is_some_and(|until| now < until)
    }

    /// The number of their next frame.
    pub(super) fn next(&mut self, kind: FrameKind) -> MixTo {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.in_spurt = kind != FrameKind::AudioStop;
        MixTo { member: self.member, mix: self.mix, sequence, kind }
    }

    /// The next frame with sound.
    pub(super) fn next_sound(&mut self) -> MixTo {
        self.next(if self.in_spurt { FrameKind::Audio } else { FrameKind::AudioStart })
    }
}

/// Adds what a listener's own levels make of a speaker.
pub(super) fn apply_gain(sum: &mut [i32; FRAME_SAMPLES], frame: &[i16; FRAME_SAMPLES], gain: Gain) {
    for (sum, sample) in sum.iter_mut().zip(frame) {
        *sum += gain.difference(*sample);
    }
}

/// RFC 6464's level of samples: their mean energy as -dBov.
#[must_use]
pub fn level_of(samples: &[i16]) -> u8 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample) * f64::from(*sample)).sum();
    let mean = energy / (samples.len().max(1) as f64) / (32_768.0 * 32_768.0);
    if mean <= 0.0 {
        return LEVEL_SILENCE;
    }
    (-10.0 * mean.log10()).round().clamp(0.0, f64::from(LEVEL_SILENCE)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_mean_energy() {
        assert_eq!(level_of(&[32_767; 960]), 0);
        assert_eq!(level_of(&[3_277; 960]), 20);
        assert_eq!(level_of(&[0; 960]), LEVEL_SILENCE);
        assert_eq!(level_of(&[]), LEVEL_SILENCE);
    }

    #[test]
    fn gains_are_percent_of_a_sample() {
        let changed = |percent, sample: i16| {
            i32::from(sample) + Gain::from_percent(percent).expect("up to 200").difference(sample)
        };
        assert_eq!([0, 50, 100, 200].map(|percent| changed(percent, 1_000)), [0, 500, 1_000, 2_000]);
        assert_eq!(changed(0, i16::MIN), 0);
        assert_eq!(Gain::from_percent(201), None);
    }

    #[test]
    fn a_listener_has_levels_for_so_many() {
        let mut listener = Listener::<()>::new(StreamId(1), StreamId(2));
        let half = Gain::from_percent(50).expect("a gain");
        let set = (0..100).filter(|speaker| listener.set_level(StreamId(10 + speaker), half)).count();
        assert_eq!(set, LEVELS_MAX);
        assert!(listener.set_level(StreamId(10), Gain::USUAL), "one less");
        assert!(listener.set_level(StreamId(10), half), "has room again");
    }

    #[test]
    fn spurts_begin_with_a_start_and_numbers_go_on() {
        let mut listener = Listener::<()>::new(StreamId(1), StreamId(2));
        let kinds = [listener.next_sound(), listener.next_sound(), listener.next(FrameKind::AudioStop)]
            .map(|to| (to.sequence, to.kind));
        assert_eq!(kinds, [(0, FrameKind::AudioStart), (1, FrameKind::Audio), (2, FrameKind::AudioStop)]);
        assert_eq!(listener.next_sound().kind, FrameKind::AudioStart);
    }
}
