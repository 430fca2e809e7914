//! A stream of voice to one receiver by RTP: frames in, sealed packets out, and the reports that go with them.
//!
//! **No index is sealed twice.** A packet's nonce is its source and its index, and frames that come late or twice may be given an
//! index that was used: each is looked up among those that were, and what is older than those is not sent. A stream keeps what
//! it remembers as long as it lives, whatever is negotiated anew meanwhile, and nobody else seals for its source.

use crate::{
    clock::Micros,
    ids::StreamId,
    replay::ReplayWindow,
    rtcp::{Reception, SenderReport},
    rtp::{PacketNumbers, TICKS_PER_MS},
    srtp::Srtp,
    wire::{
        control::ReportBlock,
        frame::{FrameHeader, LEVEL_SILENCE},
    },
};

/// How often a receiver is told by which clock a stream runs: with the first packet, and then as browsers do.
const REPORT_INTERVAL: Micros = Micros::from_secs(5);
/// How often what a receiver reports counts, as with native clients: browsers report of a voice about every five seconds.
const HEARD_INTERVAL: Micros = Micros::from_millis(500);
const FIXED_HEADER_BYTES: usize = 12;
/// What says that header extensions of one byte follow (RFC 8285, 4.2).
const ONE_BYTE_EXTENSIONS: u16 = 0xbede;
/// The longest name of a media section that these can carry.
const MID_BYTES_MAX: usize = 16;
const MARKER: u8 = 0x80;
/// Version 2, with header extensions.
const VERSION: u8 = 0x80;
const EXTENDED: u8 = 0x10;

/// How a receiver takes a stream, as negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The synchronization source.
    pub ssrc: u32,
    /// Opus'.
    pub payload_type: u8,
    /// The header extension that says how loud it is (RFC 6464).
    pub level_id: Option<ExtensionId>,
    /// The header extension that says which media section it is (RFC 8843), and what it says.
    pub mid: Option<(ExtensionId, Mid)>,
}

/// A header extension of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionId(u8);

impl ExtensionId {
    /// `None` for what is none of one byte.
    #[must_use]
    pub fn new(id: u8) -> Option<Self> {
        (1..=14).contains(&id).then_some(Self(id))
    }
}

/// The name of a media section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mid {
    bytes: [u8; MID_BYTES_MAX],
    length: u8,
}

impl Mid {
    /// `None` for one that is longer than a header extension, or empty.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; MID_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.is_empty()).then_some(Self { bytes, length: name.len() as u8 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The newest packet that was sent.
#[derive(Clone, Copy, Debug)]
struct Newest {
    at: Micros,
    timestamp: u32,
}

/// One stream.
#[derive(Clone, Debug, Default)]
pub struct VoiceStream {
    terms: Option<Terms>,
    numbers: PacketNumbers,
    /// Indices that were sealed.
    used: ReplayWindow<3>,
    newest: Option<Newest>,
    packets: u32,
    bytes: u32,
    reported_at: Option<Micros>,
    /// The receiver has said that it knows the source: its media section need not be named any more.
    is_known: bool,
    lost: i32,
    /// The highest number that was reported, when that last counted.
    highest: (u32, Option<Micros>),
}

impl VoiceStream {
    /// It was negotiated; `None` when the receiver takes nothing.
    pub fn agree(&mut self, terms: Option<Terms>) {
        self.is_known &= self.terms == terms;
        self.terms = terms;
    }

    /// The synchronization source, where the receiver takes any.
    #[must_use]
    pub fn ssrc(&self) -> Option<u32> {
        self.terms.map(|terms| terms.ssrc)
    }

    /// The frames that follow are another member's.
    pub fn switch(&mut self) {
        self.numbers.switch();
    }

    /// Seals a frame as a packet: its length, or `None` where there is nothing to send.
    pub fn seal(
        &mut self,
        now: Micros,
        srtp: &Srtp,
        (header, bytes): (&FrameHeader, &[u8]),
        out: &mut [u8],
    ) -> Option<usize> {
        let terms = self.terms.as_ref()?;
        let numbers = self.numbers.next(now, header, bytes)?;
        if !self.used.check(numbers.sequence) {
            return None;
        }
        // Before anything can fail: what was begun is not begun again.
        self.used.accept(numbers.sequence);
        let mid = if self.is_known { None } else { terms.mid.as_ref() };
        let head = Head { terms, mid, level: header.level.min(LEVEL_SILENCE) };
        let marked = terms.payload_type | if numbers.marker { MARKER } else { 0 };
        let header_bytes = head.write(marked, numbers.sequence as u16, numbers.timestamp, out)?;
        out.get_mut(header_bytes..header_bytes + bytes.len())?.copy_from_slice(bytes);
        let length = srtp.seal_rtp(numbers.sequence, out, (header_bytes, bytes.len()))?;
        self.newest = Some(Newest { at: now, timestamp: numbers.timestamp });
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes.len() as u32);
        Some(length)
    }

    /// The report that the receiver is to get now, if it is: to be asked for after each packet. `ntp` is the time.
    pub fn report<'a>(&mut self, now: Micros, ntp: impl FnOnce() -> u64, cname: &'a str) -> Option<SenderReport<'a>> {
        if self.reported_at.is_some_and(|at| now.since(at) < REPORT_INTERVAL) {
            return None;
        }
        let (ssrc, newest) = (self.ssrc()?, self.newest?);
        self.reported_at = Some(now);
        let passed = now.since(newest.at).0 * TICKS_PER_MS / 1_000;
        let timestamp = newest.timestamp.wrapping_add(passed as u32);
        Some(SenderReport { ssrc, ntp: ntp(), timestamp, packets: self.packets, bytes: self.bytes, cname })
    }

    /// The receiver reports of it: how many packets it lost since it last did.
    pub fn received(&mut self, reception: &Reception) -> u64 {
        self.is_known = true;
        let lost = i64::from(reception.lost) - i64::from(self.lost);
        self.lost = self.lost.max(reception.lost);
        u64::try_from(lost).unwrap_or(0)
    }

    /// The same report as a native client would make of `stream`, which it is the voice of. `None` for one that says nothing of the way there
    /// and back, and for one too soon after another.
    pub fn heard(&mut self, (now, ntp): (Micros, u64), stream: StreamId, reception: &Reception) -> Option<ReportBlock> {
        let round_trip_ms = reception.round_trip_ms(ntp)?;
        let (before, at) = self.highest;
        if at.is_some_and(|at| now.since(at) < HEARD_INTERVAL) {
            return None;
        }
        self.highest = (reception.highest, Some(now));
        // More than were sent cannot have been expected, whatever is said.
        let expected = reception.highest.wrapping_sub(before).min(self.packets);
        let lost = u64::from(expected) * u64::from(reception.lost_256ths) / 256;
        Some(ReportBlock {
            stream,
            lost_fraction: u16::from(reception.lost_256ths) << 8,
            round_trip_ms,
            jitter_us: u32::try_from(u64::from(reception.jitter) * 1_000 / TICKS_PER_MS).unwrap_or(u32::MAX),
            received: expected - lost as u32,
        })
    }
}

struct Head<'a> {
    terms: &'a Terms,
    mid: Option<&'a (ExtensionId, Mid)>,
    level: u8,
}

impl Head<'_> {
    /// Writes a packet's header (RFC 3550, 5.1); its length.
    fn write(&self, marked_type: u8, sequence: u16, timestamp: u32, out: &mut [u8]) -> Option<usize> {
        let is_extended = self.terms.level_id.is_some() || self.mid.is_some();
        let [s0, s1] = sequence.to_be_bytes();
        let first = VERSION | if is_extended { EXTENDED } else { 0 };
        out.get_mut(..4)?.copy_from_slice(&[first, marked_type, s0, s1]);
        out.get_mut(4..8)?.copy_from_slice(&timestamp.to_be_bytes());
        out.get_mut(8..FIXED_HEADER_BYTES)?.copy_from_slice(&self.terms.ssrc.to_be_bytes());
        if !is_extended {
            return Some(FIXED_HEADER_BYTES);
        }
        let extensions = out.get_mut(FIXED_HEADER_BYTES + 4..)?;
        let mut length = 0;
        if let Some(id) = self.terms.level_id {
            length += write_extension(id, &[self.level], extensions.get_mut(length..)?)?;
        }
        if let Some((id, mid)) = self.mid {
            length += write_extension(*id, mid.as_bytes(), extensions.get_mut(length..)?)?;
        }
        let filled = length.next_multiple_of(4);
        extensions.get_mut(length..filled)?.fill(0);
        let [k0, k1] = ONE_BYTE_EXTENSIONS.to_be_bytes();
        out[FIXED_HEADER_BYTES..FIXED_HEADER_BYTES + 4].copy_from_slice(&[k0, k1, 0, (filled / 4) as u8]);
        Some(FIXED_HEADER_BYTES + 4 + filled)
    }
}

fn write_extension(id: ExtensionId, value: &[u8], out: &mut [u8]) -> Option<usize> {
    let (head, rest) = out.split_first_mut()?;
    *head = id.0 << 4 | (value.len() as u8).wrapping_sub(1);
    rest.get_mut(..value.len())?.copy_from_slice(value);
    Some(1 + value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::StreamId,
        prng::Prng,
        srtp::{Profile, Side},
        wire::frame::FrameKind,
    };

    fn terms() -> Terms {
        let id = |id| ExtensionId::new(id).expect("one byte");
        let mid = Mid::new("abc").expect("short");
        Terms { ssrc: 0x0102_0304, payload_type: 111, level_id: Some(id(1)), mid: Some((id(4), mid)) }
    }

    fn srtp() -> Srtp {
        Srtp::new(Profile::Aes128Gcm, &[7; 56], Side::Server).expect("long enough")
    }

    fn frame(sequence: u16, kind: FrameKind) -> FrameHeader {
        let timestamp = u32::from(sequence).wrapping_mul(960);
        FrameHeader { stream: StreamId(1), sequence, timestamp, kind_flags: 0, level: 30 }.with_kind(kind)
    }

    fn seal(stream: &mut VoiceStream, ms: u64, frame: &FrameHeader) -> Option<Vec<u8>> {
        let mut out = [0xff; 200];
        let length = stream.seal(Micros::from_millis(ms), &srtp(), (frame, &[1, 2, 3]), &mut out)?;
        Some(out[..length].to_vec())
    }

    fn begun() -> VoiceStream {
        let mut stream = VoiceStream::default();
        stream.agree(Some(terms()));
        stream
    }

    #[test]
    fn a_packet_names_its_section_until_the_receiver_knows_it() {
        let mut stream = begun();
        let first = seal(&mut stream, 0, &frame(5, FrameKind::AudioStart)).expect("sent");
        assert_eq!(first[..12], [0x90, 0x80 | 111, 0, 1, 0, 0, 0x12, 0xc0, 1, 2, 3, 4]);
        assert_eq!(first[12..24], [0xbe, 0xde, 0, 2, 0x10, 30, 0x42, b'a', b'b', b'c', 0, 0]);
        assert_eq!(first.len(), 24 + 3 + 16);
        stream.received(&Reception::default());
        let second = seal(&mut stream, 20, &frame(6, FrameKind::Audio)).expect("sent");
        assert_eq!(second[..4], [0x90, 111, 0, 2]);
        assert_eq!(second[12..20], [0xbe, 0xde, 0, 1, 0x10, 30, 0, 0]);
        stream.agree(Some(Terms { level_id: None, mid: None, ..terms() }));
        let third = seal(&mut stream, 40, &frame(7, FrameKind::Audio)).expect("sent");
        assert_eq!((third[0], third.len()), (0x80, 12 + 3 + 16));
    }

    #[test]
    fn no_index_is_sealed_twice_whatever_comes() {
        for seed in 0..20 {
            let (mut stream, mut prng) = (begun(), Prng::new(seed));
            let mut used = std::collections::HashSet::new();
            // Too few for sequence numbers to come round.
            for step in 0..1_000_u64 {
                // Frames come late, twice, after gaps and of another member.
                let sequence = (step as u16).wrapping_add(prng.below(140) as u16);
                let kind = if prng.chance(0.1) { FrameKind::AudioStart } else { FrameKind::Audio };
                if prng.chance(0.02) {
                    stream.switch();
                }
                if prng.chance(0.02) {
                    stream.agree(None);
                    stream.agree(Some(terms()));
                }
                let Some(packet) = seal(&mut stream, step * 20, &frame(sequence, kind)) else { continue };
                let number = [packet[2], packet[3]];
                assert!(used.insert(number), "{number:?} at step {step} of {seed}");
            }
            assert!(used.len() > 300, "{}", used.len());
        }
    }

    #[test]
    fn a_frame_that_was_sent_or_is_too_late_is_not_sent() {
        let mut stream = begun();
        for sequence in 1..=10 {
            assert!(seal(&mut stream, 0, &frame(sequence, FrameKind::Audio)).is_some());
        }
        assert!(seal(&mut stream, 0, &frame(10, FrameKind::Audio)).is_none());
        assert!(seal(&mut stream, 0, &frame(4, FrameKind::Audio)).is_none());
        assert!(seal(&mut stream, 0, &frame(12, FrameKind::Audio)).is_some());
        assert!(seal(&mut stream, 0, &frame(11, FrameKind::Audio)).is_some(), "late, but not sent before");
        assert!(seal(&mut stream, 0, &frame(11, FrameKind::Audio)).is_none());
    }

    #[test]
    fn reports_come_with_the_first_packet_and_then_now_and_then() {
        let mut stream = begun();
        let asked = |stream: &mut VoiceStream, ms| stream.report(Micros::from_millis(ms), || 9, "name");
        assert_eq!(asked(&mut stream, 0), None, "nothing was sent");
        seal(&mut stream, 0, &frame(1, FrameKind::AudioStart));
        let first = SenderReport { ssrc: terms().ssrc, ntp: 9, timestamp: 960, packets: 1, bytes: 3, cname: "name" };
        assert_eq!(asked(&mut stream, 0), Some(first));
        seal(&mut stream, 20, &frame(2, FrameKind::Audio));
        assert_eq!(asked(&mut stream, 4_999), None);
        let later = SenderReport { timestamp: 1_920 + 48 * 4_980, packets: 2, bytes: 6, ..first };
        assert_eq!(asked(&mut stream, 5_000), Some(later));
    }

    #[test]
    fn losses_are_told_once() {
        let mut stream = begun();
        let told = [3, 3, 10, 8, 11].map(|lost| stream.received(&Reception { lost, ..Reception::default() }));
        assert_eq!(told, [3, 0, 7, 0, 1]);
    }

    #[test]
    fn a_report_counts_as_a_native_clients_but_not_too_often() {
        let mut stream = begun();
        for sequence in 0..400 {
            seal(&mut stream, u64::from(sequence) * 20, &frame(sequence, FrameKind::Audio));
        }
        let reception =
            Reception { highest: 200, lost_256ths: 64, jitter: 96, report: 1, since_report: 0, ..Reception::default() };
        let heard = |stream: &mut VoiceStream, ms, reception| {
            stream.heard((Micros::from_millis(ms), 0x4001 << 16), StreamId(9), &reception)
        };
        let block = ReportBlock {
            stream: StreamId(9),
            lost_fraction: 0x4000,
            round_trip_ms: 250,
            jitter_us: 2_000,
            received: 150,
        };
        assert_eq!(heard(&mut stream, 4_000, reception), Some(block));
        assert_eq!(heard(&mut stream, 4_400, Reception { highest: 220, ..reception }), None);
        let next = Reception { highest: 400, lost_256ths: 0, ..reception };
        assert_eq!(heard(&mut stream, 8_000, next), Some(ReportBlock { lost_fraction: 0, received: 200, ..block }));
        let lies = heard(&mut stream, 9_000, Reception { highest: 7, ..next }).expect("told");
        assert_eq!(lies.received, 400, "no more than were sent");
        assert_eq!(heard(&mut stream, 9_900, Reception { report: 0, ..next }), None);
    }

    #[test]
    fn what_has_no_room_is_not_sent_and_not_begun_again() {
        let mut stream = begun();
        let short = &mut [0; 30];
        assert_eq!(stream.seal(Micros::ZERO, &srtp(), (&frame(1, FrameKind::Audio), &[1; 9]), short), None);
        assert!(seal(&mut stream, 0, &frame(1, FrameKind::Audio)).is_none());
        assert!(seal(&mut stream, 0, &frame(2, FrameKind::Audio)).is_some());
    }
}
