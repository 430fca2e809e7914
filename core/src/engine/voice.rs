//! What a channel knows of a member's voice: which frames pass, and how they arrive.

use super::{
    Counter, GatewayFrame, MemberTraffic,
    bundle::FRAME_BYTES_MAX,
    pace::FrameRate,
    sequence::{Order, SequenceWindow},
    speaking::Speaking,
};
use crate::{
    clock::Micros,
    ids::StreamId,
    interarrival::InterarrivalJitter,
    opus_packet::{USUAL_SAMPLES, duration_samples},
    speech::{select::Loudness, spurt::QUIET},
    wire::frame::{FrameHeader, FrameKind, LEVEL_SILENCE},
};

/// Comfort noise is forwarded at most so often (docs/protocol.md, 2.3).
const SILENCE_INTERVAL: Micros = Micros::from_millis(400);

/// The newest frame of a stream.
#[derive(Clone, Copy, Debug)]
struct LastFrame {
    at: Micros,
    timestamp: u32,
    samples: u32,
}

/// A frame that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) kind: FrameKind,
    /// Newer than all before it: it tells of the speaker's state.
    pub(super) newest: bool,
}

/// The sending side of a member.
#[derive(Debug, Default)]
pub(super) struct Voice {
    sequence: SequenceWindow,
    rate: FrameRate,
    last: Option<LastFrame>,
    last_silence: Option<Micros>,
    pub(super) jitter: InterarrivalJitter,
    pub(super) loudness: Loudness,
    pub(super) speaking: Speaking,
    /// Frames before the next one were kept from the listeners on purpose: to them it is the first of a spurt.
    withheld: bool,
    /// Something was heard since the channel's traffic was last told.
    pub(super) heard: bool,
    /// Frames missing between those accepted, and not counted as lost yet: any may still come late.
    pub(super) missing: u32,
    /// What was accepted and not told yet.
    pub(super) accepted: MemberTraffic,
}

impl Voice {
    /// A stream that goes on after a sequence number, if one is known.
    pub(super) fn new(last_sequence: Option<u16>) -> Self {
        Self { sequence: SequenceWindow::new(last_sequence), ..Self::default() }
    }

    /// Checks a frame and takes it in.
    pub(super) fn check(
        &mut self,
        now: Micros,
        muted: bool,
        header: &FrameHeader,
        bytes: &[u8],
    ) -> Result<Passed, Counter> {
        let kind = header.kind().filter(|_| header.allows(bytes)).ok_or(Counter::FrameMalformed)?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Counter::FrameTooLong);
        }
        if !self.rate.allow(now) {
            return Err(Counter::FrameRate);
        }
        let (newest, missing) = match self.sequence.note(header.sequence) {
            Order::Duplicate => return Err(Counter::FrameDuplicate),
            Order::Late => (false, 0),
            // What is missing before a spurt was not sent (docs/protocol.md, 2.3).
            Order::Newest { .. } if kind == FrameKind::AudioStart => (true, 0),
            Order::Newest { missing } => (true, missing),
        };
        if newest {
            self.take_in_newest(now, kind, header, bytes);
        }
        if muted {
            self.withhold();
            return Err(Counter::FrameMuted);
        }
        if kind == FrameKind::Silence && self.last_silence.is_some_and(|last| now.since(last) < SILENCE_INTERVAL) {
            // Listeners who get none of it cannot know that the gap is one beside silence.
            if newest {
                self.withhold();
            }
            return Err(Counter::FrameSurplusSilence);
        }
        if kind == FrameKind::Silence {
            self.last_silence = Some(now);
        }
        self.missing = if newest { self.missing + u32::from(missing) } else { self.missing.saturating_sub(1) };
        Ok(Passed { kind, newest })
    }

    /// The frames that are missing and not counted yet.
    pub(super) fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing).into()
    }

    /// A frame is not forwarded although it came: listeners must not take the gap for loss.
    pub(super) fn withhold(&mut self) {
        self.withheld = true;
    }

    /// The header as a frame that passed is forwarded: the first sound after withheld frames begins a spurt.
    pub(super) fn forwarded(&mut self, passed: Passed, header: FrameHeader) -> FrameHeader {
        // Neither a gap before an AudioStart nor one next to a Silence counts as loss, whatever is missing.
        if !self.withheld || !passed.newest || passed.kind == FrameKind::AudioStop {
            return header;
        }
        self.withheld = false;
        if passed.kind == FrameKind::Audio { header.with_kind(FrameKind::AudioStart) } else { header }
    }

    /// A frame of the stream came by way of another node, where its speaker was before or is now.
    pub(super) fn note_elsewhere(&mut self, sequence: u16) -> Order {
        self.sequence.note(sequence)
    }

    fn take_in_newest(&mut self, now: Micros, kind: FrameKind, header: &FrameHeader, bytes: &[u8]) {
        let samples = duration_samples(bytes).unwrap_or(USUAL_SAMPLES);
        self.last = Some(LastFrame { at: now, timestamp: header.timestamp, samples });
        if matches!(kind, FrameKind::Audio | FrameKind::AudioStart) {
            self.loudness.hear(header.level);
            self.jitter.arrived(now, header.timestamp);
            self.heard = true;
        } else {
            self.loudness.hear(LEVEL_SILENCE);
        }
    }

    /// The number after the newest.
    pub(super) fn next_sequence(&self) -> u16 {
        self.sequence.next()
    }

    /// The header of a frame from the gateway, with what it lacks: the next number, and a timestamp that follows the
    /// last frame's within a talk spurt and the clock between spurts.
    pub(super) fn number(&self, now: Micros, stream: StreamId, frame: &GatewayFrame) -> FrameHeader {
        let timestamp = frame.timestamp.unwrap_or_else(|| self.next_timestamp(now));
        FrameHeader {
            stream,
            sequence: frame.sequence.unwrap_or_else(|| self.sequence.next()),
            timestamp,
            kind_flags: frame.kind,
            level: frame.level.min(LEVEL_SILENCE),
        }
    }

    fn next_timestamp(&self, now: Micros) -> u32 {
        let Some(last) = self.last else { return samples_of(now) };
        let passed = now.since(last.at);
        let step = if passed < QUIET { last.samples } else { samples_of(passed).max(last.samples) };
        last.timestamp.wrapping_add(step)
    }
}

/// Microseconds on the 48 kHz sample clock, which wraps.
fn samples_of(time: Micros) -> u32 {
    (time.0.wrapping_mul(48) / 1_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of contents of an Opus packet of 20 ms (config 1: SILK, narrowband, 20 ms).
    const OPUS_20_MS: u8 = 1 << 3;

    fn header(sequence: u16, kind_flags: u8) -> FrameHeader {
        FrameHeader { stream: StreamId(1), sequence, timestamp: u32::from(sequence) * 960, kind_flags, level: 30 }
    }

    fn check(voice: &mut Voice, ms: u64, sequence: u16, kind: u8, bytes: &[u8]) -> Result<Passed, Counter> {
        voice.check(Micros::from_millis(ms), false, &header(sequence, kind), bytes)
    }

    #[test]
    fn each_reason_to_drop() {
        let mut voice = Voice::default();
        assert_eq!(check(&mut voice, 0, 0, 0, &[]), Err(Counter::FrameMalformed));
        assert_eq!(check(&mut voice, 0, 0, 4, &[1]), Err(Counter::FrameMalformed));
        assert_eq!(check(&mut voice, 0, 0, 0, &[1; FRAME_BYTES_MAX + 1]), Err(Counter::FrameTooLong));
        let passed = Passed { kind: FrameKind::Audio, newest: true };
        assert_eq!(check(&mut voice, 0, 0, 0, &[1]), Ok(passed));
        assert_eq!(check(&mut voice, 0, 0, 0, &[1]), Err(Counter::FrameDuplicate));
        assert_eq!((check(&mut voice, 0, 4, 0, &[1]), voice.missing), (Ok(passed), 3));
        let late = Passed { newest: false, ..passed };
        assert_eq!((check(&mut voice, 0, 2, 0, &[1]), voice.missing), (Ok(late), 2), "it is not lost after all");
        let muted = voice.check(Micros::ZERO, true, &header(5, 0), &[1]);
        assert_eq!(muted, Err(Counter::FrameMuted));
        assert_eq!(
            (check(&mut voice, 0, 6, 0, &[1]), voice.missing),
            (Ok(passed), 2),
            "frames while muted are not missing"
        );
    }

    #[test]
    fn comfort_noise_passes_every_400_ms() {
        let mut voice = Voice::default();
        let passed = (0..100).filter(|n| check(&mut voice, u64::from(*n) * 20, *n, 3, &[]).is_ok()).count();
        assert_eq!(passed, 5);
    }

    #[test]
    fn sound_after_comfort_noise_that_did_not_pass_begins_a_spurt() {
        let mut voice = Voice::default();
        let mut forwarded = Vec::new();
        // A short sound between two silences: the second of them is left out, next to no other that listeners get.
        for (sequence, kind) in (0..).zip([3, 0, 0, 3, 0, 0]) {
            let Ok(passed) = check(&mut voice, 20 * u64::from(sequence), sequence, kind, &[OPUS_20_MS, 1]) else {
                continue;
            };
            forwarded.push((sequence, voice.forwarded(passed, header(sequence, kind)).kind().expect("known")));
        }
        use FrameKind::{Audio, AudioStart, Silence};
        assert_eq!(forwarded, [(0, Silence), (1, Audio), (2, Audio), (4, AudioStart), (5, Audio)]);
    }

    #[test]
    fn the_first_sound_after_withheld_frames_begins_a_spurt() {
        let mut voice = Voice::default();
        let mut kinds = Vec::new();
        for (sequence, kind_flags, muted) in [
            (0, 0x10, false),
            (1, 0, true),
            (2, 2, false),
            (3, 0x10, false),
            (4, 0, false),
            (5, 0, true),
            (6, 3, false),
        ] {
            let header = header(sequence, kind_flags);
            if let Ok(passed) = voice.check(Micros::from_millis(0), muted, &header, &[OPUS_20_MS]) {
                kinds.push((sequence, voice.forwarded(passed, header).kind_flags));
            }
        }
        assert_eq!(kinds, [(0, 0x10), (2, 2), (3, 0x11), (4, 0), (6, 3)]);
    }

    #[test]
    fn nothing_is_missing_before_a_spurt() {
        let mut voice = Voice::default();
        check(&mut voice, 0, 0, 0, &[1]).expect("passes");
        check(&mut voice, 0, 9, 1, &[1]).expect("passes");
        assert_eq!(voice.missing, 0);
        check(&mut voice, 0, 19, 0, &[1]).expect("passes");
        assert_eq!(voice.missing, 9);
    }

    #[test]
    fn a_flood_is_cut() {
        let mut voice = Voice::default();
        let passed = (0..2_000).filter(|n| check(&mut voice, 0, *n, 0, &[1]).is_ok()).count();
        assert_eq!(passed, 1_001);
    }

    #[test]
    fn frames_without_numbers_follow_the_last() {
        let frame = GatewayFrame { sequence: None, timestamp: None, kind: 0, level: 200, bytes: vec![OPUS_20_MS] };
        let mut voice = Voice::default();
        check(&mut voice, 1_000, u16::MAX, 0, &[OPUS_20_MS]).expect("passes");
        let last = u32::from(u16::MAX) * 960;
        let next = voice.number(Micros::from_millis(1_035), StreamId(1), &frame);
        assert_eq!((next.sequence, next.timestamp, next.level), (0, last + 960, 127));
        let later = voice.number(Micros::from_millis(2_000), StreamId(1), &frame);
        assert_eq!(later.timestamp, last + 48_000);
        let own = GatewayFrame { sequence: Some(9), timestamp: Some(8), ..frame };
        let own = voice.number(Micros::from_millis(2_000), StreamId(1), &own);
        assert_eq!((own.sequence, own.timestamp), (9, 8));
    }
}
