//! The speaker limit of a channel: who is loud enough to be forwarded, as far as this node hears.
//!
//! At a channel's owner that is everyone, so what it decides is what counts. At an edge it is the members here: that
//! decides while the owner's decision is not known.

use crate::{
    clock::Micros,
    hash::IdMap,
    ids::StreamId,
    speech::select::{Candidate, Loudness, Selector},
    wire::frame::{FrameHeader, FrameKind, LEVEL_SILENCE},
};

/// How many streams' loudness is remembered; a channel has as many members who speak at about the same time at most.
const VOICES_MAX: usize = 1_024;
/// A stream that is not heard for this long is forgotten when there is no room.
const FORGOTTEN: Micros = Micros::from_secs(10);
/// A candidate's level is told at most so often: every third usual frame.
const LEVEL_INTERVAL: Micros = Micros::from_millis(60);

#[derive(Clone, Copy, Debug, Default)]
struct Voice {
    loudness: Loudness,
    heard_at: Micros,
    level_at: Option<Micros>,
}

/// The limit and the streams that were heard.
#[derive(Debug, Default)]
pub(super) struct Limit {
    max_speakers: u32,
    selector: Selector,
    voices: IdMap<StreamId, Voice>,
}

impl Limit {
    pub(super) fn is_set(&self) -> bool {
        self.max_speakers > 0
    }

    pub(super) fn set_max_speakers(&mut self, now: Micros, max_speakers: u32) {
        if self.max_speakers != max_speakers {
            self.max_speakers = max_speakers;
            self.selector.set_max_speakers(now, max_speakers, self.voices.len());
        }
    }

    /// Whether a frame is among those forwarded.
    pub(super) fn admit(&mut self, now: Micros, header: &FrameHeader) -> bool {
        let sounding = header.kind().is_some_and(|kind| kind.is_sound(header.level));
        let Some(voice) = self.voice(now, header.stream) else { return false };
        let heard = matches!(header.kind(), Some(FrameKind::Audio | FrameKind::AudioStart));
        voice.loudness.hear(if heard { header.level } else { LEVEL_SILENCE });
        let loudness = voice.loudness;
        let priority = header.has(FrameHeader::FLAG_PRIORITY);
        let admitted = self.selector.admit(now, Candidate { stream: header.stream, priority, loudness, sounding });
        if header.kind() == Some(FrameKind::AudioStop) {
            self.selector.release(header.stream);
        }
        admitted
    }

    /// An edge tells how loud a candidate is. It may win a seat.
    pub(super) fn level(&mut self, now: Micros, stream: StreamId, loudness: Loudness, priority: bool) {
        let Some(voice) = self.voice(now, stream) else { return };
        voice.loudness = loudness;
        self.selector.admit(now, Candidate { stream, priority, loudness, sounding: true });
    }

    /// How loud a stream is, if that is to be told now.
    pub(super) fn level_to_tell(&mut self, now: Micros, header: &FrameHeader) -> Option<Loudness> {
        if !header.kind().is_some_and(|kind| kind.is_sound(header.level)) {
            return None;
        }
        let voice = self.voices.get_mut(&header.stream)?;
        if voice.level_at.is_some_and(|told| now.since(told) < LEVEL_INTERVAL) {
            return None;
        }
        voice.level_at = Some(now);
        Some(voice.loudness)
    }

    pub(super) fn speakers(&self) -> impl ExactSizeIterator<Item = StreamId> {
        self.selector.speakers()
    }

    /// From when on the first sound of anyone is forwarded.
    pub(super) fn room_at(&self) -> Micros {
        self.selector.room_at()
    }

    fn voice(&mut self, now: Micros, stream: StreamId) -> Option<&mut Voice> {
        if !self.voices.contains_key(&stream) {
            if self.voices.len() >= VOICES_MAX {
                self.voices.retain(|_, voice| now.since(voice.heard_at) < FORGOTTEN);
            }
            if self.voices.len() >= VOICES_MAX {
                return None;
            }
            self.voices.insert(stream, Voice::default());
            self.selector.reserve(self.voices.len());
        }
        let voice = self.voices.get_mut(&stream)?;
        voice.heard_at = now;
        Some(voice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u32, kind: FrameKind, level: u8) -> FrameHeader {
        FrameHeader { stream: StreamId(stream), sequence: 0, timestamp: 0, kind_flags: kind as u8, level }
    }

    fn ms(count: u64) -> Micros {
        Micros::from_millis(count)
    }

    #[test]
    fn a_candidate_wins_by_its_level_alone() {
        let mut limit = Limit::default();
        limit.set_max_speakers(ms(0), 1);
        let mut edge = Limit::default();
        edge.set_max_speakers(ms(0), 1);
        for step in 0..60 {
            let now = ms(step * 20);
            limit.admit(now, &frame(1, FrameKind::Audio, 60));
            edge.admit(now, &frame(2, FrameKind::Audio, 20));
            if let Some(loudness) = edge.level_to_tell(now, &frame(2, FrameKind::Audio, 20)) {
                limit.level(now, StreamId(2), loudness, false);
            }
        }
        assert_eq!(limit.speakers().collect::<Vec<_>>(), [StreamId(2)]);
        assert!(!limit.admit(ms(1_200), &frame(1, FrameKind::Audio, 60)));
    }

    #[test]
    fn levels_are_told_every_third_frame_and_only_of_sound() {
        let mut limit = Limit::default();
        limit.set_max_speakers(ms(0), 1);
        let told = (0..30).filter(|step| {
            let now = ms(step * 20);
            limit.admit(now, &frame(1, FrameKind::Audio, 20));
            limit.level_to_tell(now, &frame(1, FrameKind::Audio, 20)).is_some()
        });
        assert_eq!(told.count(), 10);
        assert_eq!(limit.level_to_tell(ms(9_000), &frame(1, FrameKind::Silence, 20)), None);
        assert_eq!(limit.level_to_tell(ms(9_000), &frame(1, FrameKind::Audio, LEVEL_SILENCE)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_comes_back() {
        let mut limit = Limit::default();
        limit.set_max_speakers(ms(0), 1);
        for stream in 0..5_000 {
            limit.admit(ms(0), &frame(stream, FrameKind::Audio, 20));
        }
        assert_eq!(limit.voices.len(), VOICES_MAX);
        assert!(!limit.admit(ms(1_000), &frame(9_999, FrameKind::Audio, 20)), "no room");
        assert!(limit.admit(ms(11_000), &frame(9_999, FrameKind::Audio, 20)));
    }

    #[test]
    fn a_stop_frees_the_seat_and_passes_itself() {
        let mut limit = Limit::default();
        limit.set_max_speakers(ms(0), 1);
        assert!(limit.admit(ms(0), &frame(1, FrameKind::Audio, 20)));
        assert_ne!(limit.room_at(), Micros::ZERO);
        assert!(limit.admit(ms(20), &frame(1, FrameKind::AudioStop, 127)));
        assert_eq!((limit.room_at(), limit.speakers().len()), (Micros::ZERO, 0));
    }
}
