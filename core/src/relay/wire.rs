//! What a relay datagram holds: records back to back, each of some channel.
//!
//! The datagram has the media header and its sealing ([`crate::wire::datagram`], [`crate::seal`]); in the header the type
//! is Media, the key id the sending worker, the id the sender's number in the upper 24 bits and the receiving worker
//! in the lowest 8. Integers are big-endian.
//!
//! ```text
//!  record      channel (16) | kind (4 bits) hop (4 bits) | length (2) | bytes
//!
//!  0 Audio       stream (4) | sequence (2) | timestamp (4) | kind and flags (1) | level (1) | Opus
//!  1 Interest    epoch (8) | owner (4) | max speakers (4) | 1: wanted, 0: no longer; +2: astray; +4: pictures, too (1)
//!  2 NodeSet     epoch (8) | owner (4) | node numbers (4 each)
//!  3 SpeakerSet  1: there is room for more, 0: there is none (1) | streams (4 each)
//!  4 Level       stream (4) | loudness, 1/256 dB (2) | 1: priority (1)
//!  5 Heartbeat   oldest version (1) | newest version (1) | epoch (8); its channel is 0
//!  6 Picture     an RTP packet of a picture (`crate::video`)
//!  7 Meeting     what somebody publishes, or that a whole picture is needed (likewise)
//! ```
//!
//! `hop` says how far a frame, a picture or a word of a meeting is on its way: 0 to the owner, 1 from the owner, 2 from edge
//! to edge without it. It is 0 in everything else. A record of an unknown kind is skipped, and bytes after those known are ignored, so that a later release
//! may add some. A record that does not fit ends the reading.

use uuid::Uuid;

use super::Versions;
use crate::{
    ids::{ChannelId, NodeNumber, StreamId},
    speech::select::Loudness,
    wire::{
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_USUAL_MAX},
        frame::{FRAME_HEADER_BYTES, FrameHeader},
    },
};

/// A record without its bytes.
pub const RECORD_HEADER_BYTES: usize = 19;
/// A frame's header in a record, which has its length already.
pub const AUDIO_HEADER_BYTES: usize = FRAME_HEADER_BYTES - 2;
/// The longest plaintext of several records, so that datagrams stay within 1,200 bytes.
pub const BUNDLE_BYTES_MAX: usize = DATAGRAM_BYTES_USUAL_MAX - DATAGRAM_BYTES_MIN;
/// The longest plaintext there is: one long record on its own.
pub(super) const PLAINTEXT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - DATAGRAM_BYTES_MIN;
/// The most numbers, of nodes or streams, that a set tells: as many as fit beside its other fields within
/// [`BUNDLE_BYTES_MAX`].
pub const SET_MAX: usize = (BUNDLE_BYTES_MAX - RECORD_HEADER_BYTES - CLAIM_BYTES) / 4;

/// The longest body of a record.
pub const RELAYED_BODY_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - RECORD_HEADER_BYTES;

/// The most bytes that a frame can have and still fit into a relay datagram.
pub const RELAYED_FRAME_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - RECORD_HEADER_BYTES - AUDIO_HEADER_BYTES;

/// Who should own a channel: the front of Interest and NodeSet.
pub const CLAIM_BYTES: usize = 12;
/// The body of Interest.
pub const INTEREST_BYTES: usize = CLAIM_BYTES + 5;
/// The body of Heartbeat.
pub const HEARTBEAT_BYTES: usize = 10;
const WANTED: u8 = 1;
const ASTRAY: u8 = 2;
const PICTURES: u8 = 4;
const ROOM: u8 = 1;
const PRIORITY: u8 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A frame.
    Audio = 0,
    /// An edge has listeners, or no longer.
    Interest = 1,
    /// The owner tells which nodes have listeners.
    NodeSet = 2,
    /// The owner tells who is forwarded.
    SpeakerSet = 3,
    /// An edge tells how loud somebody is who is not forwarded.
    Level = 4,
    /// A node lives.
    Heartbeat = 5,
    /// A packet of a picture.
    Picture = 6,
    /// What is told of those who meet.
    Meeting = 7,
}

impl Kind {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Audio),
            1 => Some(Self::Interest),
            2 => Some(Self::NodeSet),
            3 => Some(Self::SpeakerSet),
            4 => Some(Self::Level),
            5 => Some(Self::Heartbeat),
            6 => Some(Self::Picture),
            7 => Some(Self::Meeting),
            _ => None,
        }
    }
}

/// How far a frame is on its way. No frame is forwarded twice: only the first of these hops is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Hop {
    /// From an edge to the owner.
    ToOwner = 0,
    /// From the owner to an edge.
    FromOwner = 1,
    /// From an edge to another, while the owner is not heard.
    Direct = 2,
}

impl Hop {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::ToOwner),
            1 => Some(Self::FromOwner),
            2 => Some(Self::Direct),
            _ => None,
        }
    }
}

/// A record as it lies in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Of which channel.
    pub channel: ChannelId,
    /// What it is; `None` for a kind of a later release.
    pub kind: Option<Kind>,
    /// How far it is on its way; `None` for one of a later release.
    pub hop: Option<Hop>,
    /// The rest.
    pub body: &'a [u8],
}

/// The records of an opened datagram, in order. Ends at the first that does not fit.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Reads a plaintext.
    #[must_use]
    pub const fn new(plaintext: &'a [u8]) -> Self {
        Self { rest: plaintext }
    }

    /// What has not been read. At the end of the iteration: empty, or the record that did not fit.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (head, tail) = self.rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
        let (channel, [kind_hop, l0, l1]) = head
            .split_first_chunk::<16>()
            .and_then(|(channel, rest)| rest.first_chunk::<3>().map(|rest| (channel, *rest)))?;
        let (body, rest) = tail.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        self.rest = rest;
        Some(Record {
            channel: ChannelId(Uuid::from_bytes(*channel)),
            kind: Kind::from_bits(kind_hop >> 4),
            hop: Hop::from_bits(kind_hop & 0x0f),
            body,
        })
    }
}

/// Writes a record, whose body is `head` and then `tail`, at the front of `out`. Returns its length, or `None`, with `out`
/// unchanged, when it does not fit.
pub(super) fn write_record(
    out: &mut [u8],
    channel: ChannelId,
    (kind, hop): (Kind, Hop),
    head: &[u8],
    tail: &[u8],
) -> Option<usize> {
    let length = u16::try_from(head.len() + tail.len()).ok()?;
    let total = RECORD_HEADER_BYTES + usize::from(length);
    let out = out.get_mut(..total)?;
    out[..16].copy_from_slice(channel.0.as_bytes());
    out[16] = ((kind as u8) << 4) | hop as u8;
    out[17..19].copy_from_slice(&length.to_be_bytes());
    let (first, second) = out[RECORD_HEADER_BYTES..].split_at_mut(head.len());
    first.copy_from_slice(head);
    second.copy_from_slice(tail);
    Some(total)
}

/// A frame's header without its length.
pub(super) fn audio_head(header: &FrameHeader) -> [u8; AUDIO_HEADER_BYTES] {
    let mut with_length = [0; FRAME_HEADER_BYTES];
    header.write(0, &mut with_length);
    let mut head = [0; AUDIO_HEADER_BYTES];
    head.copy_from_slice(&with_length[..AUDIO_HEADER_BYTES]);
    head
}

/// The frame in an Audio record; `None` when it is none that this release knows.
pub(super) fn read_audio(body: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let (head, bytes) = body.split_first_chunk::<AUDIO_HEADER_BYTES>()?;
    let mut with_length = [0; FRAME_HEADER_BYTES];
    with_length[..AUDIO_HEADER_BYTES].copy_from_slice(head);
    let (header, _) = FrameHeader::parse(&with_length);
    header.allows(bytes).then_some((header, bytes))
}

/// Who should own a channel by the ring of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) epoch: u64,
    /// Number 0 is no node's.
    pub(super) owner: NodeNumber,
}

impl Claim {
    pub(super) fn write(self) -> [u8; CLAIM_BYTES] {
        let mut out = [0; CLAIM_BYTES];
        out[..8].copy_from_slice(&self.epoch.to_be_bytes());
        out[8..].copy_from_slice(&self.owner.0.to_be_bytes());
        out
    }

    fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let (epoch, rest) = body.split_first_chunk::<8>()?;
        let (owner, rest) = rest.split_first_chunk::<4>()?;
        Some((Self { epoch: u64::from_be_bytes(*epoch), owner: NodeNumber(u32::from_be_bytes(*owner)) }, rest))
    }
}

/// An edge's interest in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    pub(super) claim: Claim,
    pub(super) max_speakers: u32,
    pub(super) wanted: bool,
    /// The node that should own the channel is lost to the edge, and perhaps to no other.
    pub(super) astray: bool,
    /// Somebody there may see pictures.
    pub(super) pictures: bool,
}

impl Interest {
    pub(super) fn write(self) -> [u8; INTEREST_BYTES] {
        let mut out = [0; INTEREST_BYTES];
        out[..CLAIM_BYTES].copy_from_slice(&self.claim.write());
        out[CLAIM_BYTES..CLAIM_BYTES + 4].copy_from_slice(&self.max_speakers.to_be_bytes());
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        out[CLAIM_BYTES + 4] = flag(self.wanted, WANTED) | flag(self.astray, ASTRAY) | flag(self.pictures, PICTURES);
        out
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (claim, rest) = Claim::read(body)?;
        let (max_speakers, rest) = rest.split_first_chunk::<4>()?;
        let flags = rest.first()?;
        let (wanted, astray, pictures) = (flags & WANTED != 0, flags & ASTRAY != 0, flags & PICTURES != 0);
        Some(Self { claim, max_speakers: u32::from_be_bytes(*max_speakers), wanted, astray, pictures })
    }
}

/// The numbers at the end of a set; what is left over is ignored.
pub(super) fn read_numbers(body: &[u8]) -> impl Iterator<Item = u32> {
    body.as_chunks::<4>().0.iter().map(|number| u32::from_be_bytes(*number))
}

/// A node set's claim, and the bytes of its node numbers.
pub(super) fn read_node_set(body: &[u8]) -> Option<(Claim, &[u8])> {
    Claim::read(body)
}

/// The first byte of a speaker set.
pub(super) const fn speaker_set_head(room: bool) -> [u8; 1] {
    [if room { ROOM } else { 0 }]
}

/// Whether there is room for more, and the bytes of the streams.
pub(super) fn read_speaker_set(body: &[u8]) -> Option<(bool, &[u8])> {
    body.split_first().map(|(flags, streams)| (flags & ROOM != 0, streams))
}

/// How loud a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) stream: StreamId,
    pub(super) loudness: Loudness,
    pub(super) priority: bool,
}

impl Level {
    pub(super) fn write(self) -> [u8; 7] {
        let [s0, s1, s2, s3] = self.stream.0.to_be_bytes();
        let [l0, l1] = self.loudness.to_bits().to_be_bytes();
        [s0, s1, s2, s3, l0, l1, if self.priority { PRIORITY } else { 0 }]
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [s0, s1, s2, s3, l0, l1, flags] = *body.first_chunk::<7>()?;
        Some(Self {
            stream: StreamId(u32::from_be_bytes([s0, s1, s2, s3])),
            loudness: Loudness::from_bits(u16::from_be_bytes([l0, l1])),
            priority: flags & PRIORITY != 0,
        })
    }
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub(super) versions: Versions,
    pub(super) epoch: u64,
}

impl Heartbeat {
    pub(super) fn write(self) -> [u8; HEARTBEAT_BYTES] {
        let mut out = [0; HEARTBEAT_BYTES];
        out[0] = self.versions.min;
        out[1] = self.versions.max;
        out[2..].copy_from_slice(&self.epoch.to_be_bytes());
        out
    }

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [min, max, epoch @ ..] = *body.first_chunk::<HEARTBEAT_BYTES>()?;
        Some(Self { versions: Versions { min, max }, epoch: u64::from_be_bytes(epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(number: u128) -> ChannelId {
        ChannelId(Uuid::from_u128(number))
    }

    #[test]
    fn a_frame_comes_out_as_it_went_in() {
        let header = FrameHeader { stream: StreamId(7), sequence: 65_535, timestamp: 9, kind_flags: 0x80, level: 30 };
        let mut out = [0; 200];
        let kind = (Kind::Audio, Hop::FromOwner);
        let length = write_record(&mut out, channel(5), kind, &audio_head(&header), &[1; 80]).expect("fits");
        assert_eq!(length, RECORD_HEADER_BYTES + AUDIO_HEADER_BYTES + 80);
        let mut records = Records::new(&out[..length]);
        let record = records.next().expect("a record");
        assert_eq!((record.channel, record.kind, record.hop), (channel(5), Some(Kind::Audio), Some(Hop::FromOwner)));
        assert_eq!(read_audio(record.body), Some((header, &[1; 80][..])));
        assert!(records.next().is_none() && records.rest().is_empty());
        assert_eq!(write_record(&mut out[..length - 1], channel(5), kind, &audio_head(&header), &[1; 80]), None);
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over() {
        let mut out = vec![0xf9; RECORD_HEADER_BYTES];
        out[17..].copy_from_slice(&[0, 3]);
        out.extend([1, 2, 3]);
        let mut level =
            Level { stream: StreamId(3), loudness: Loudness::from_bits(9), priority: true }.write().to_vec();
        level.push(0xaa);
        let mut record = [0; 64];
        let length = write_record(&mut record, channel(1), (Kind::Level, Hop::ToOwner), &level, &[]).expect("fits");
        out.extend(&record[..length]);
        let records: Vec<_> = Records::new(&out).collect();
        assert_eq!((records[0].kind, records[0].hop, records[0].body), (None, None, &[1, 2, 3][..]));
        assert_eq!(Level::read(records[1].body).expect("a level").stream, StreamId(3));
    }

    #[test]
    fn every_body_comes_out_as_it_went_in() {
        let claim = Claim { epoch: 1 << 40, owner: NodeNumber::MAX };
        for wanted in [false, true] {
            let interest = Interest { claim, max_speakers: 3, wanted, astray: !wanted, pictures: wanted };
            assert_eq!(Interest::read(&interest.write()), Some(interest));
            let level = Level { stream: StreamId(u32::MAX), loudness: Loudness::from_bits(32_512), priority: wanted };
            assert_eq!(Level::read(&level.write()), Some(level));
            assert_eq!(read_speaker_set(&speaker_set_head(wanted)), Some((wanted, &[][..])));
        }
        let heartbeat = Heartbeat { versions: Versions { min: 1, max: 2 }, epoch: 9 };
        assert_eq!(Heartbeat::read(&heartbeat.write()), Some(heartbeat));
        assert_eq!(read_node_set(&claim.write()), Some((claim, &[][..])));
        assert_eq!(read_numbers(&[0, 0, 0, 1, 0, 0, 1, 0, 9]).collect::<Vec<_>>(), [1, 256]);
    }

    #[test]
    fn a_set_of_the_most_numbers_fits_a_bundle() {
        let mut out = [0; PLAINTEXT_BYTES_MAX];
        let claim = Claim { epoch: 1, owner: NodeNumber(1) }.write();
        let numbers = vec![0; SET_MAX * 4];
        let written = write_record(&mut out, channel(1), (Kind::NodeSet, Hop::ToOwner), &claim, &numbers);
        assert!(written.is_some_and(|length| length <= BUNDLE_BYTES_MAX && length + 4 > BUNDLE_BYTES_MAX));
    }
}
