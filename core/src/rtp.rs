//! Voice between frames and RTP: the same Opus packets under other numbers.

use crate::{
    clock::Micros,
    opus_packet::USUAL_SAMPLES,
    wire::frame::{FrameHeader, FrameKind},
};

/// Ticks of Opus's RTP clock (RFC 7587) in a millisecond.
pub(crate) const TICKS_PER_MS: u64 = 48;
/// A larger step of a stream's sequence is a jump and no loss, as in the engine: one second of 20 ms frames.
const GAP_MAX: i16 = 50;
/// What Opus sends while a speaker is silent (DTX) has no more bytes than this (RFC 6716, 3.1: a frame of at most one byte).
const SILENCE_BYTES_MAX: usize = 2;

const FIXED_HEADER_BYTES: usize = 12;
const SEQUENCE_AT: usize = 2;
const SSRC_AT: usize = 8;
/// What says that header extensions of one byte follow (RFC 8285, 4.2).
const ONE_BYTE_EXTENSIONS: [u8; 2] = [0xbe, 0xde];

/// Whether a packet is RTP, and no RTCP beside it (RFC 5761, 4; RFC 7983, 7).
const fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [0x80..=0xbf, kind, ..] if !matches!(*kind, 192..=223))
}

/// The source (SSRC) of an RTP packet; `None` for RTCP.
#[must_use]
pub fn source(packet: &[u8]) -> Option<u32> {
    field(packet, SSRC_AT).map(u32::from_be_bytes)
}

/// The number that an RTP packet has in its stream; `None` for RTCP.
#[must_use]
pub fn sequence(packet: &[u8]) -> Option<u16> {
    field(packet, SEQUENCE_AT).map(u16::from_be_bytes)
}

fn field<const BYTES: usize>(packet: &[u8], at: usize) -> Option<[u8; BYTES]> {
    packet.get(at..).filter(|_| is_rtp(packet))?.first_chunk().copied()
}

/// The number that a packet has over all streams of its connection: a header extension of one byte under `id`, which SRTP leaves
/// readable. `None` for RTCP, and for a packet that has none.
#[must_use]
pub fn transport_number(packet: &[u8], id: u8) -> Option<u16> {
    let first = packet.first().filter(|first| is_rtp(packet) && *first & 0x10 != 0)?;
    let extended = packet.get(FIXED_HEADER_BYTES + 4 * usize::from(first & 0x0f)..)?;
    let (head, rest) = extended.split_first_chunk::<4>()?;
    let bytes = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
    let mut extensions = rest.get(..bytes).filter(|_| head[..2] == ONE_BYTE_EXTENSIONS)?;
    while let [head, rest @ ..] = extensions {
        // A zero fills up.
        let length = if *head == 0 { 0 } else { usize::from(head & 0x0f) + 1 };
        let (value, rest) = rest.split_at_checked(length)?;
        if *head != 0 && head >> 4 == id {
            return value.try_into().ok().map(u16::from_be_bytes);
        }
        extensions = rest;
    }
    None
}

/// What an RTP packet says of its Opus packet's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpNumbers {
    /// The sequence number without its wrap-arounds.
    pub sequence: u64,
    /// 48 kHz.
    pub timestamp: u32,
    /// The first of a talk spurt (RFC 3551, 4.1).
    pub marker: bool,
}

/// Numbers the frames of one RTP stream as frames of a member's stream, which goes on from what was known of it.
#[derive(Clone, Copy, Debug)]
pub struct FrameNumbers {
    first: u64,
    base: u16,
    begun: bool,
}

impl FrameNumbers {
    /// A stream whose first packet has the sequence number `first` and is to be frame `next`.
    #[must_use]
    pub fn new(first: u64, next: u16) -> Self {
        Self { first, base: next, begun: false }
    }

    /// The sequence number of a packet's frame; `None` for a packet from before the first.
    #[must_use]
    pub fn sequence(&self, rtp_sequence: u64) -> Option<u16> {
        let ahead = rtp_sequence.checked_sub(self.first)?;
        Some(self.base.wrapping_add(ahead as u16))
    }

    /// What kind of frame a packet's is: the first begins a talk spurt, and so does one after silence.
    pub fn kind(&mut self, marker: bool, bytes: &[u8]) -> FrameKind {
        if bytes.len() <= SILENCE_BYTES_MAX {
            return FrameKind::Silence;
        }
        let begins = marker || !self.begun;
        self.begun = true;
        if begins { FrameKind::AudioStart } else { FrameKind::Audio }
    }
}

/// The newest that was sent.
#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Micros,
    /// As the frame had it.
    frame: (u16, u32),
    sent: (u64, u32),
    is_silence: bool,
}

/// Numbers the frames of members' streams as packets of one RTP stream, in an order without gaps but those of real losses.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketNumbers {
    newest: Option<Newest>,
    switched: bool,
}

impl PacketNumbers {
    /// The frames that follow are another stream's.
    pub fn switch(&mut self) {
        self.switched = true;
    }

    /// A packet's numbers, or `None` for a frame that has nothing to send: its number is passed over.
    pub fn next(&mut self, now: Micros, header: &FrameHeader, bytes: &[u8]) -> Option<RtpNumbers> {
        let frame = (header.sequence, header.timestamp);
        let is_silence = header.kind() == Some(FrameKind::Silence);
        let Some(newest) = &mut self.newest else {
            if bytes.is_empty() {
                return None;
            }
            self.newest = Some(Newest { at: now, frame, sent: (1, header.timestamp), is_silence });
            return Some(RtpNumbers { sequence: 1, timestamp: header.timestamp, marker: true });
        };
        let ahead = header.sequence.wrapping_sub(newest.frame.0) as i16;
        if bytes.is_empty() {
            if !self.switched && (1..=GAP_MAX).contains(&ahead) {
                newest.frame.0 = header.sequence;
            }
            return None;
        }
        let starts = header.kind() == Some(FrameKind::AudioStart);
        let jumps = std::mem::take(&mut self.switched) || ahead > GAP_MAX || ahead <= -GAP_MAX;
        let timestamp = match jumps {
            true => follow_on(newest, now),
            false => newest.sent.1.wrapping_add(header.timestamp.wrapping_sub(newest.frame.1)),
        };
        // What is missing before a spurt or beside silence was left out on purpose (docs/protocol.md, 2.3).
        let misses_nothing = starts || is_silence || newest.is_silence;
        let step = if jumps || (misses_nothing && ahead > 0) { 1 } else { i64::from(ahead) };
        let sequence = newest.sent.0.checked_add_signed(step).filter(|sequence| *sequence > 0)?;
        if step > 0 {
            *newest = Newest { at: now, frame, sent: (sequence, timestamp), is_silence };
        }
        Some(RtpNumbers { sequence, timestamp, marker: starts || jumps })
    }
}

/// A timestamp by the clock, where the stream's own says nothing.
fn follow_on(newest: &Newest, now: Micros) -> u32 {
    let passed = (now.since(newest.at).0 / 1_000 * TICKS_PER_MS) as u32;
    newest.sent.1.wrapping_add(passed.max(USUAL_SAMPLES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;

    fn frame(sequence: u16, timestamp: u32, kind: FrameKind) -> FrameHeader {
        FrameHeader { stream: StreamId(1), sequence, timestamp, kind_flags: 0, level: 30 }.with_kind(kind)
    }

    fn next(numbers: &mut PacketNumbers, ms: u64, sequence: u16, kind: FrameKind) -> Option<(u64, u32, bool)> {
        let header = frame(sequence, u32::from(sequence).wrapping_mul(960), kind);
        let bytes: &[u8] = if kind == FrameKind::AudioStop { &[] } else { &[1, 2, 3] };
        numbers.next(Micros::from_millis(ms), &header, bytes).map(|sent| (sent.sequence, sent.timestamp, sent.marker))
    }

    #[test]
    fn a_transport_wide_number_is_found_among_other_extensions() {
        let packet = |extensions: &[u8], count: u8| {
            let mut packet = vec![0x91, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 1, 1];
            packet.extend([0xbe, 0xde, 0, count]);
            packet.extend(extensions);
            packet
        };
        let found = packet(&[0x12, 9, 9, 9, 0, 0x31, 0x12, 0x34], 2);
        assert_eq!(transport_number(&found, 3), Some(0x1234));
        assert_eq!(transport_number(&found, 2), None);
        assert_eq!(transport_number(&packet(&[0x30, 7, 0, 0], 1), 3), None, "of another length");
        assert_eq!(transport_number(&packet(&[0x3f, 7, 0, 0], 1), 3), None, "longer than there is");
        for length in 0..found.len() {
            assert_eq!(transport_number(&found[..length], 3), None);
        }
        assert_eq!((source(&found), source(&found[..11])), (Some(9), None));
        let mut report = found;
        report[1] = 201;
        assert_eq!((transport_number(&report, 3), source(&report)), (None, None));
    }

    #[test]
    fn frames_of_a_member_go_on_from_the_last_known() {
        let mut numbers = FrameNumbers::new(70_000, 65_534);
        let sequences: Vec<_> = (70_000..70_004).map(|rtp| numbers.sequence(rtp)).collect();
        assert_eq!(sequences, [Some(65_534), Some(65_535), Some(0), Some(1)]);
        assert_eq!(numbers.sequence(69_999), None);
        let kinds = [(false, 80), (false, 80), (false, 1), (true, 80), (false, 2)];
        let kinds = kinds.map(|(marker, bytes)| numbers.kind(marker, &vec![0; bytes]));
        use FrameKind::{Audio, AudioStart, Silence};
        assert_eq!(kinds, [AudioStart, Audio, Silence, AudioStart, Silence]);
    }

    #[test]
    fn losses_stay_and_late_frames_find_their_place() {
        let mut numbers = PacketNumbers::default();
        assert_eq!(next(&mut numbers, 0, 9, FrameKind::Audio), Some((1, 8_640, true)));
        assert_eq!(next(&mut numbers, 20, 10, FrameKind::Audio), Some((2, 9_600, false)));
        assert_eq!(next(&mut numbers, 60, 12, FrameKind::Audio), Some((4, 11_520, false)));
        assert_eq!(next(&mut numbers, 61, 11, FrameKind::Audio), Some((3, 10_560, false)));
        assert_eq!(next(&mut numbers, 80, 13, FrameKind::Audio), Some((5, 12_480, false)));
    }

    #[test]
    fn what_was_not_sent_on_purpose_is_no_loss() {
        let mut numbers = PacketNumbers::default();
        next(&mut numbers, 0, 1, FrameKind::AudioStart);
        assert_eq!(next(&mut numbers, 20, 2, FrameKind::AudioStop), None);
        assert_eq!(next(&mut numbers, 40, 3, FrameKind::Audio), Some((2, 2_880, false)));
        assert_eq!(next(&mut numbers, 80, 20, FrameKind::AudioStart), Some((3, 19_200, true)), "muted in between");
        // The node passes on no more of silence than listeners need.
        assert_eq!(next(&mut numbers, 100, 22, FrameKind::Silence), Some((4, 21_120, false)));
        assert_eq!(next(&mut numbers, 500, 24, FrameKind::Silence), Some((5, 23_040, false)));
        assert_eq!(next(&mut numbers, 520, 26, FrameKind::Audio), Some((6, 24_960, false)));
        assert_eq!(next(&mut numbers, 560, 28, FrameKind::Audio), Some((8, 26_880, false)), "lost");
    }

    #[test]
    fn a_jump_or_another_speaker_goes_on_by_the_clock() {
        let mut numbers = PacketNumbers::default();
        next(&mut numbers, 0, 1, FrameKind::Audio);
        assert_eq!(next(&mut numbers, 1_000, 5_000, FrameKind::Audio), Some((2, 960 + 48_000, true)));
        assert_eq!(next(&mut numbers, 1_020, 5_001, FrameKind::Audio), Some((3, 1_920 + 48_000, false)));
        numbers.switch();
        let (sequence, timestamp, marker) = next(&mut numbers, 1_120, 5_002, FrameKind::Audio).expect("sent");
        assert_eq!((sequence, timestamp, marker), (4, 1_920 + 48_000 + 4_800, true));
    }
}
