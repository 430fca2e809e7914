//! Frames: what Media datagrams hold back to back.

use crate::ids::StreamId;

/// A frame without its bytes.
pub const FRAME_HEADER_BYTES: usize = 14;
/// RFC 6464: the level of silence, and the highest there is.
pub const LEVEL_SILENCE: u8 = 127;

/// Everything of a frame but its bytes.
///
/// ```text
///  stream id (4) | sequence (2) | timestamp (4) | kind and flags (1) | level (1) | length (2) | bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whose voice, in which channel.
    pub stream: StreamId,
    /// Grows by one with each frame of the stream.
    pub sequence: u16,
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// Kind (low 4 bits) and flags (high 4 bits).
    pub kind_flags: u8,
    /// RFC 6464 level, 0 to 127 as -dBov; 127 is silence.
    pub level: u8,
}

/// What a frame says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// One Opus packet, at least a byte.
    Audio = 0,
    /// The first frame of a talk spurt; its bytes are an Opus packet, or empty.
    AudioStart = 1,
    /// The end of a talk spurt; its bytes are the last Opus packet, or empty.
    AudioStop = 2,
    /// Comfort noise between spurts, or empty.
    Silence = 3,
}

impl FrameKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Audio, Self::AudioStart, Self::AudioStop, Self::Silence];

    /// Whether a frame of this kind and `level` is sound: what is silent, or ends a spurt, speaks for nobody.
    #[must_use]
    pub const fn is_sound(self, level: u8) -> bool {
        match self {
            Self::AudioStart => true,
            Self::Audio => level < LEVEL_SILENCE,
            Self::AudioStop | Self::Silence => false,
        }
    }

    /// Whether a frame of this kind may come without bytes.
    #[must_use]
    pub const fn may_be_empty(self) -> bool {
        !matches!(self, Self::Audio)
    }
}

impl FrameHeader {
    /// Two channels.
    pub const FLAG_STEREO: u8 = 0x10;
    /// The bytes are end-to-end encrypted: nobody between the ends decodes them.
    pub const FLAG_ENCRYPTED: u8 = 0x20;
    /// A redundant earlier frame precedes (RFC 2198 style).
    pub const FLAG_REDUNDANT: u8 = 0x40;
    /// A priority speaker; only the server sets it.
    pub const FLAG_PRIORITY: u8 = 0x80;

    const KIND_MASK: u8 = 0x0f;

    /// The kind, or `None` for one this version does not know: such a frame is dropped.
    #[must_use]
    pub const fn kind(&self) -> Option<FrameKind> {
        match self.kind_flags & Self::KIND_MASK {
            0 => Some(FrameKind::Audio),
            1 => Some(FrameKind::AudioStart),
            2 => Some(FrameKind::AudioStop),
            3 => Some(FrameKind::Silence),
            _ => None,
        }
    }

    /// The same header with another kind.
    #[must_use]
    pub const fn with_kind(mut self, kind: FrameKind) -> Self {
        self.kind_flags = self.flags() | kind as u8;
        self
    }

    /// The flags alone.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.kind_flags & !Self::KIND_MASK
    }

    /// Whether all of `flag`'s bits are set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.kind_flags & flag == flag
    }

    /// The same header with a flag set or cleared.
    #[must_use]
    pub const fn with_flag(mut self, flag: u8, set: bool) -> Self {
        if set {
            self.kind_flags |= flag;
        } else {
            self.kind_flags &= !flag;
        }
        self
    }

    /// Whether the kind is known and `bytes` is what it allows.
    #[must_use]
    pub const fn allows(&self, bytes: &[u8]) -> bool {
        match self.kind() {
            Some(kind) => !bytes.is_empty() || kind.may_be_empty(),
            None => false,
        }
    }

    /// Writes the header of a frame of `length` bytes.
    pub fn write(&self, length: u16, out: &mut [u8; FRAME_HEADER_BYTES]) {
        let [s0, s1, s2, s3] = self.stream.0.to_be_bytes();
        let [q0, q1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        let level = self.level.min(LEVEL_SILENCE);
        *out = [s0, s1, s2, s3, q0, q1, t0, t1, t2, t3, self.kind_flags, level, l0, l1];
    }

    /// Reads a header and the length of the bytes that follow. A level over 127 is taken as 127.
    #[must_use]
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> (Self, u16) {
        let [s0, s1, s2, s3, q0, q1, t0, t1, t2, t3, kind_flags, level, l0, l1] = *bytes;
        let header = Self {
            stream: StreamId(u32::from_be_bytes([s0, s1, s2, s3])),
            sequence: u16::from_be_bytes([q0, q1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            kind_flags,
            level: level.min(LEVEL_SILENCE),
        };
        (header, u16::from_be_bytes([l0, l1]))
    }
}

/// The frames of an opened Media datagram, in order. Ends at the first that does not fit.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Reads the plaintext of a Media datagram.
    #[must_use]
    pub const fn new(plaintext: &'a [u8]) -> Self {
        Self { rest: plaintext }
    }

    /// What has not been read. At the end of the iteration: empty, or the frame that did not fit.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (FrameHeader, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (head, tail) = self.rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let (header, length) = FrameHeader::parse(head);
        let (bytes, rest) = tail.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some((header, bytes))
    }
}

impl std::iter::FusedIterator for Frames<'_> {}

/// Writes one frame at the front of `out`. Returns its length, or `None`, with `out` unchanged, when it does not fit.
#[must_use]
pub fn write_frame(header: &FrameHeader, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let length = u16::try_from(bytes.len()).ok()?;
    let total = FRAME_HEADER_BYTES + bytes.len();
    let (head, body) = out.get_mut(..total)?.split_first_chunk_mut::<FRAME_HEADER_BYTES>()?;
    header.write(length, head);
    body.copy_from_slice(bytes);
    Some(total)
}

/// Writes frames back to back into a slice of fixed size: the plaintext of one Media datagram.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut [u8],
    written: usize,
}

impl<'a> FrameWriter<'a> {
    /// Writes at the front of `out` and never past its end.
    #[must_use]
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out, written: 0 }
    }

    /// Appends a frame. False, with nothing written, when it does not fit.
    #[must_use]
    pub fn push(&mut self, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some(length) = write_frame(header, bytes, &mut self.out[self.written..]) else { return false };
        self.written += length;
        true
    }

    /// How many bytes have been written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.written
    }

    /// Whether nothing has been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.written == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FrameHeader = FrameHeader {
        stream: StreamId(0x0102_0304),
        sequence: 0x0506,
        timestamp: 0x0708_090a,
        kind_flags: FrameKind::AudioStart as u8 | FrameHeader::FLAG_STEREO,
        level: 30,
    };

    #[test]
    fn lies_as_drawn() {
        let mut out = [0; 17];
        assert_eq!(write_frame(&HEADER, &[0xaa, 0xbb, 0xcc], &mut out), Some(17));
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x11, 30, 0, 3, 0xaa, 0xbb, 0xcc]);
    }

    #[test]
    fn several_frames_round_trip() {
        let mut out = [0; 100];
        let mut writer = FrameWriter::new(&mut out);
        assert!(writer.is_empty());
        let second = FrameHeader { sequence: 0xffff, kind_flags: FrameKind::Silence as u8, ..HEADER };
        assert!(writer.push(&HEADER, &[1, 2, 3]));
        assert!(writer.push(&second, &[]));
        let length = writer.len();
        let mut frames = Frames::new(&out[..length]);
        assert_eq!(frames.next(), Some((HEADER, &[1_u8, 2, 3][..])));
        assert_eq!(frames.next(), Some((second, &[][..])));
        assert_eq!(frames.next(), None);
        assert!(frames.rest().is_empty());
    }

    #[test]
    fn a_frame_that_does_not_fit_is_not_written() {
        let mut out = [0xee; FRAME_HEADER_BYTES + 2];
        let mut writer = FrameWriter::new(&mut out);
        assert!(!writer.push(&HEADER, &[1, 2, 3]));
        assert_eq!(writer.len(), 0);
        assert!(writer.push(&HEADER, &[1, 2]));
        assert!(!writer.push(&HEADER, &[]));
        let too_long = vec![0; usize::from(u16::MAX) + 1];
        assert_eq!(write_frame(&HEADER, &too_long, &mut vec![0; too_long.len() + FRAME_HEADER_BYTES]), None);
    }

    #[test]
    fn parsing_ends_at_a_frame_that_does_not_fit() {
        let mut out = [0; 64];
        let first = write_frame(&HEADER, &[1], &mut out).expect("fits");
        let second = write_frame(&HEADER, &[2, 3], &mut out[first..]).expect("fits");
        let mut frames = Frames::new(&out[..first + second - 1]);
        assert!(frames.next().is_some());
        assert_eq!(frames.next(), None);
        assert_eq!(frames.next(), None);
        assert_eq!(frames.rest().len(), second - 1);
    }

    #[test]
    fn levels_over_127_are_127() {
        let mut out = [0; FRAME_HEADER_BYTES];
        FrameHeader { level: 200, ..HEADER }.write(0, &mut out);
        assert_eq!(out[11], LEVEL_SILENCE);
        out[11] = 255;
        assert_eq!(FrameHeader::parse(&out).0.level, LEVEL_SILENCE);
    }

    #[test]
    fn kinds_flags_and_what_they_allow() {
        for kind in FrameKind::ALL {
            let header = FrameHeader { kind_flags: kind as u8 | 0xf0, ..HEADER };
            assert_eq!((header.kind(), header.flags()), (Some(kind), 0xf0));
            assert!(header.allows(&[0]));
            assert_eq!(header.allows(&[]), kind != FrameKind::Audio);
        }
        let unknown = FrameHeader { kind_flags: 4, ..HEADER };
        assert_eq!(unknown.kind(), None);
        assert!(!unknown.allows(&[0]));
        let marked = HEADER.with_flag(FrameHeader::FLAG_PRIORITY, true);
        assert!(marked.has(FrameHeader::FLAG_PRIORITY) && marked.has(FrameHeader::FLAG_STEREO));
        assert_eq!(marked.with_flag(FrameHeader::FLAG_PRIORITY, false), HEADER);
    }
}
