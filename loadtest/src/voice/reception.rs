//! What is heard of each stream: duplicates dropped, losses and jitter counted for the reports.

use std::collections::HashMap;

use antiphon_core::{
    clock::Micros,
    ids::StreamId,
    interarrival::InterarrivalJitter,
    replay::ReplayWindow,
    wire::{
        control::ReportBlock,
        frame::{FrameHeader, FrameKind},
    },
};

/// How far a sequence may jump back or ahead before it counts as begun anew, not as late or lost: 20 s of frames.
const JUMP_MAX: i64 = 1_000;

/// How many sequences are told apart, in words of 64 and one to spare: 5 s of frames. One that comes later than that
/// counts as heard before; nobody would play it any more.
const SEEN_WORDS: usize = 5;

/// A stream in mid-spurt that is silent for so long has stalled.
const STALL_AFTER: Micros = Micros::from_millis(200);

/// A stall matters for so long; then whoever spoke is taken to be gone.
const STALL_FOR: Micros = Micros::from_secs(10);

/// Streams not heard for so long are forgotten.
const FORGET_AFTER: Micros = Micros::from_secs(120);

/// Streams remembered at once; the node only sends those of our channels, so this bounds a node gone wrong.
const STREAMS_MAX: usize = 4_096;

/// Totals since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceptionCounters {
    /// Frames heard for the first time.
    pub fresh: u64,
    /// Frames heard before.
    pub duplicates: u64,
    /// Frames missing between those heard, less those that came late.
    pub lost: u64,
}

/// Every stream's reception.
#[derive(Debug, Default)]
pub(super) struct Reception {
    streams: HashMap<StreamId, Stream>,
    counters: ReceptionCounters,
}

#[derive(Debug)]
struct Stream {
    /// The newest sequence, continued beyond 16 bits.
    newest: i64,
    seen: ReplayWindow<SEEN_WORDS>,
    heard_at: Micros,
    in_spurt: bool,
    jitter: InterarrivalJitter,
    /// Since the last report.
    received: u32,
    expected: i64,
}

impl Stream {
    fn new(now: Micros, header: &FrameHeader) -> Self {
        // A full turn in front leaves room for late frames before the first.
        let newest = 0x1_0000 + i64::from(header.sequence);
        let mut seen = ReplayWindow::new();
        seen.accept(newest.unsigned_abs());
        let mut jitter = InterarrivalJitter::default();
        jitter.arrived(now, header.timestamp);
        Self { newest, seen, heard_at: now, in_spurt: continues(header), jitter, received: 1, expected: 1 }
    }

    /// Jitter is measured between neighbours of one spurt.
    fn measure_jitter(&mut self, now: Micros, header: &FrameHeader, follows: bool) {
        if !follows {
            self.jitter.interrupt();
        }
        self.jitter.arrived(now, header.timestamp);
    }

    fn stalled(&self, now: Micros) -> bool {
        let silent = now - self.heard_at;
        self.in_spurt && silent >= STALL_AFTER && silent < STALL_FOR
    }
}

/// Whether numbers missing before a frame say nothing: the node keeps some back on purpose (docs/protocol.md, 2.3).
fn gap_is_no_loss(header: &FrameHeader) -> bool {
    matches!(header.kind(), Some(FrameKind::AudioStart | FrameKind::Silence))
}

/// Whether more is to follow at once.
fn continues(header: &FrameHeader) -> bool {
    matches!(header.kind(), Some(FrameKind::Audio | FrameKind::AudioStart))
}

impl Reception {
    /// Takes note of a frame; false when it was heard before.
    pub(super) fn heard(&mut self, now: Micros, header: &FrameHeader) -> bool {
        let Some(stream) = self.streams.get_mut(&header.stream) else {
            if self.streams.len() < STREAMS_MAX {
                self.streams.insert(header.stream, Stream::new(now, header));
            }
            self.counters.fresh += 1;
            return true;
        };
        let ahead = i64::from(header.sequence.wrapping_sub(stream.newest as u16).cast_signed());
        if ahead.abs() > JUMP_MAX {
            let mut jitter = stream.jitter;
            jitter.interrupt();
            jitter.arrived(now, header.timestamp);
            *stream = Stream { jitter, ..Stream::new(now, header) };
            self.counters.fresh += 1;
            return true;
        }
        let sequence = stream.newest + ahead;
        if !stream.seen.check(sequence.unsigned_abs()) {
            self.counters.duplicates += 1;
            return false;
        }
        stream.seen.accept(sequence.unsigned_abs());
        stream.received += 1;
        self.counters.fresh += 1;
        if ahead > 0 {
            stream.measure_jitter(now, header, ahead == 1 && stream.in_spurt && continues(header));
            let missing = if gap_is_no_loss(header) { 0 } else { ahead - 1 };
            self.counters.lost += missing.unsigned_abs();
            stream.expected += missing + 1;
            stream.newest = sequence;
            stream.in_spurt = continues(header);
        } else {
            self.counters.lost = self.counters.lost.saturating_sub(1);
        }
        stream.heard_at = now;
        true
    }

    /// A stream is over.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// Whether a stream has stopped in the middle of a spurt a short while ago.
    pub(super) fn stalled(&self, now: Micros) -> bool {
        self.streams.values().any(|stream| stream.stalled(now))
    }

    /// A block for each stream heard since the last report.
    pub(super) fn report(&mut self, now: Micros, round_trip: Option<Micros>, blocks: &mut Vec<ReportBlock>) {
        let round_trip_ms = round_trip.map_or(0, |time| u16::try_from(time.0 / 1_000).unwrap_or(u16::MAX));
        self.streams.retain(|_, stream| (now - stream.heard_at) < FORGET_AFTER);
        for (id, stream) in &mut self.streams {
            let expected = u32::try_from(stream.expected).unwrap_or(0);
            if stream.received == 0 && expected == 0 {
                continue;
            }
            let lost = expected.saturating_sub(stream.received);
            blocks.push(ReportBlock {
                stream: *id,
                lost_fraction: ReportBlock::fraction(lost, expected),
                round_trip_ms,
                jitter_us: stream.jitter.micros(),
                received: stream.received,
            });
            (stream.received, stream.expected) = (0, 0);
        }
    }

    pub(super) fn counters(&self) -> ReceptionCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u16, kind: FrameKind) -> FrameHeader {
        FrameHeader {
            stream: StreamId(7),
            sequence,
            timestamp: u32::from(sequence) * 960,
            kind_flags: kind as u8,
            level: 30,
        }
    }

    fn at(index: u64) -> Micros {
        Micros::from_millis(index * 20)
    }

    #[test]
    fn duplicates_are_told_across_the_wrap_and_late_ones_are_not_lost() {
        let mut reception = Reception::default();
        for (index, sequence) in [65_533, 65_534, 1, 65_535, 65_534, 0, 1, 2].into_iter().enumerate() {
            reception.heard(at(index as u64), &frame(sequence, FrameKind::Audio));
        }
        let expected = ReceptionCounters { fresh: 6, duplicates: 2, lost: 0 };
        assert_eq!(reception.counters(), expected);
    }

    #[test]
    fn reports_tell_loss_since_the_last_one() {
        let mut reception = Reception::default();
        for sequence in (0..100).filter(|sequence| sequence % 4 != 1) {
            reception.heard(at(sequence), &frame(sequence as u16, FrameKind::Audio));
        }
        let mut blocks = Vec::new();
        reception.report(at(100), Some(Micros::from_millis(31)), &mut blocks);
        let block = blocks[0];
        assert_eq!((block.stream, block.round_trip_ms, block.received), (StreamId(7), 31, 75));
        assert_eq!(block.lost_fraction, 16_384, "25 of 100");
        blocks.clear();
        reception.report(at(101), None, &mut blocks);
        assert!(blocks.is_empty(), "nothing was heard since");
        reception.heard(at(102), &frame(100, FrameKind::Audio));
        reception.report(at(103), None, &mut blocks);
        assert_eq!((blocks[0].received, blocks[0].lost_fraction), (1, 0));
    }

    #[test]
    fn steady_frames_have_no_jitter_and_uneven_ones_have() {
        let jitter = |offset_us: fn(u64) -> u64| {
            let mut reception = Reception::default();
            for sequence in 0..200_u64 {
                let now = Micros(sequence * 20_000 + offset_us(sequence));
                reception.heard(now, &frame(sequence as u16, FrameKind::Audio));
            }
            let mut blocks = Vec::new();
            reception.report(at(200), None, &mut blocks);
            blocks[0].jitter_us
        };
        assert_eq!(jitter(|_| 500), 0);
        let uneven = jitter(|sequence| (sequence % 2) * 4_000);
        assert!((3_900..=4_000).contains(&uneven), "{uneven}");
    }

    #[test]
    fn a_spurt_cut_short_stalls_and_an_ended_one_does_not() {
        let mut reception = Reception::default();
        reception.heard(at(0), &frame(0, FrameKind::AudioStart));
        assert!(!reception.stalled(at(5)));
        assert!(reception.stalled(at(10)));
        assert!(!reception.stalled(at(501)), "whoever spoke is gone");
        reception.heard(at(502), &frame(1, FrameKind::AudioStop));
        assert!(!reception.stalled(at(520)));
    }

    #[test]
    fn what_the_node_kept_back_is_no_loss() {
        let mut reception = Reception::default();
        for (index, (sequence, kind)) in
            [(0, FrameKind::Audio), (9, FrameKind::AudioStart), (10, FrameKind::Audio), (30, FrameKind::Silence)]
                .into_iter()
                .enumerate()
        {
            reception.heard(at(index as u64), &frame(sequence, kind));
        }
        assert_eq!(reception.counters(), ReceptionCounters { fresh: 4, duplicates: 0, lost: 0 });
        let mut blocks = Vec::new();
        reception.report(at(4), None, &mut blocks);
        assert_eq!((blocks[0].received, blocks[0].lost_fraction), (4, 0));
        reception.heard(at(5), &frame(33, FrameKind::Audio));
        assert_eq!(reception.counters().lost, 2);
    }

    #[test]
    fn a_jump_is_a_new_beginning_not_a_loss() {
        let mut reception = Reception::default();
        reception.heard(at(0), &frame(10, FrameKind::Audio));
        reception.heard(at(1), &frame(20_000, FrameKind::AudioStart));
        reception.heard(at(2), &frame(20_001, FrameKind::Audio));
        reception.heard(at(3), &frame(20_001, FrameKind::Audio));
        assert_eq!(reception.counters(), ReceptionCounters { fresh: 3, duplicates: 1, lost: 0 });
    }
}
