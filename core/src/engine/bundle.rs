//! Frames that wait to leave together: the plaintext of a channel's next datagram.

use crate::slab::SlabKey;
use crate::{
    clock::Micros,
    wire::{
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_USUAL_MAX},
        frame::{FRAME_HEADER_BYTES, FrameHeader, write_frame},
    },
};

/// The longest plaintext of several frames, so that datagrams stay within 1,200 bytes.
const BUNDLE_BYTES_MAX: usize = DATAGRAM_BYTES_USUAL_MAX - DATAGRAM_BYTES_MIN;
/// The longest plaintext there is: one long frame on its own.
const PLAINTEXT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - DATAGRAM_BYTES_MIN;
/// The most frames of a bundle: all of them empty.
pub(super) const FRAMES_MAX: usize = BUNDLE_BYTES_MAX / FRAME_HEADER_BYTES;

/// The most bytes that a frame can have and still fit into a datagram.
pub const FRAME_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - FRAME_HEADER_BYTES;

/// A frame in a bundle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bundled {
    /// Whose; `None` for a member on another node.
    pub(super) member: Option<SlabKey>,
    /// Where it begins in the plaintext.
    start: u16,
    /// Where it ends.
    end: u16,
}

/// Frames back to back, and whose they are. Its memory is set aside once.
#[derive(Debug)]
pub(super) struct Bundle {
    plaintext: Box<[u8; PLAINTEXT_BYTES_MAX]>,
    length: usize,
    frames: Vec<Bundled>,
    since: Micros,
}

impl Bundle {
    pub(super) fn new() -> Self {
        Self {
            plaintext: Box::new([0; PLAINTEXT_BYTES_MAX]),
            length: 0,
            frames: Vec::with_capacity(FRAMES_MAX),
            since: Micros::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When the first frame came.
    pub(super) fn since(&self) -> Micros {
        self.since
    }

    pub(super) fn frames(&self) -> &[Bundled] {
        &self.frames
    }

    /// Whether a frame of so many bytes may join those that wait. An empty bundle takes any frame up to
    /// [`FRAME_BYTES_MAX`].
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.is_empty() || self.length + FRAME_HEADER_BYTES + bytes <= BUNDLE_BYTES_MAX
    }

    /// Appends a frame that there is room for.
    pub(super) fn push(&mut self, now: Micros, member: Option<SlabKey>, header: &FrameHeader, bytes: &[u8]) {
        if self.is_empty() {
            self.since = now;
        }
        let Some(written) = write_frame(header, bytes, &mut self.plaintext[self.length..]) else { return };
        let start = self.length;
        self.length += written;
        let place = |at: usize| u16::try_from(at).expect("within a datagram");
        self.frames.push(Bundled { member, start: place(start), end: place(self.length) });
    }

    /// Copies all frames to the front of `out`; their length.
    pub(super) fn copy_all(&self, out: &mut [u8]) -> usize {
        out[..self.length].copy_from_slice(&self.plaintext[..self.length]);
        self.length
    }

    /// Copies all frames but one member's to the front of `out`; their number and length.
    pub(super) fn copy_without(&self, member: SlabKey, out: &mut [u8]) -> (usize, usize) {
        let (mut count, mut length) = (0, 0);
        for frame in self.frames.iter().filter(|frame| frame.member != Some(member)) {
            let bytes = &self.plaintext[usize::from(frame.start)..usize::from(frame.end)];
            out[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
            count += 1;
        }
        (count, length)
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;
    use crate::{ids::StreamId, wire::frame::Frames};

    fn header(stream: u32) -> FrameHeader {
        FrameHeader { stream: StreamId(stream), sequence: 0, timestamp: 0, kind_flags: 0, level: 30 }
    }

    #[test]
    fn full_bundles_make_datagrams_of_at_most_1200_bytes() {
        let member = Some(Slab::default().insert(()));
        for bytes in [0, 1, 80, 200, 570, 571] {
            let mut bundle = Bundle::new();
            while bundle.has_room(bytes) {
                bundle.push(Micros(7), member, &header(1), &vec![0; bytes]);
            }
            let mut out = [0; DATAGRAM_BYTES_MAX];
            let length = bundle.copy_all(&mut out);
            let datagram = DATAGRAM_BYTES_MIN + length;
            assert!(datagram <= 1_200 && datagram + FRAME_HEADER_BYTES + bytes > 1_200, "{bytes}: {datagram}");
            assert_eq!(Frames::new(&out[..length]).count(), bundle.frames().len());
            assert!(bundle.frames().len() <= FRAMES_MAX && bundle.since() == Micros(7));
        }
    }

    #[test]
    fn the_longest_frame_travels_alone() {
        let member = Some(Slab::default().insert(()));
        let mut bundle = Bundle::new();
        assert!(bundle.has_room(FRAME_BYTES_MAX));
        bundle.push(Micros::ZERO, member, &header(1), &[7; FRAME_BYTES_MAX]);
        assert!(!bundle.has_room(0));
        let mut out = [0; DATAGRAM_BYTES_MAX];
        assert_eq!(DATAGRAM_BYTES_MIN + bundle.copy_all(&mut out), DATAGRAM_BYTES_MAX);
    }

    #[test]
    fn a_members_own_frames_can_be_left_out() {
        let mut slab = Slab::default();
        let (one, two) = (slab.insert(()), slab.insert(()));
        let mut bundle = Bundle::new();
        for (member, stream) in [(one, 1), (two, 2), (one, 1)] {
            bundle.push(Micros::ZERO, Some(member), &header(stream), &[9; 10]);
        }
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let (count, length) = bundle.copy_without(one, &mut out);
        let streams: Vec<_> = Frames::new(&out[..length]).map(|(header, _)| header.stream.0).collect();
        assert_eq!((count, streams), (1, vec![2]));
        bundle.clear();
        assert!(bundle.is_empty() && bundle.copy_all(&mut out) == 0);
    }
}
