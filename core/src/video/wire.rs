//! What nodes tell each other of pictures: the bodies of the relay's records Picture and Meeting.
//!
//! ```text
//!  Picture   stream (4) | source (1): 1 screen | codec (1) | layer (1) | flags (1): 1 marker, 2 begins a keyframe
//!            | sequence (4) | timestamp (4) | RTP payload
//!  Meeting   0: publishes | stream (4) | what (1): 1 audio, 2 video, 4 screen
//!            1: wants a keyframe | stream (4) | source (1) | layer (1)
//! ```

use super::{LAYERS_MAX, VideoCodec};
use crate::{gateway::PublishKind, ids::StreamId};

/// A Picture's bytes before its payload.
pub const PICTURE_HEAD_BYTES: usize = 16;
/// The longest Meeting.
pub const MEETING_BYTES_MAX: usize = 7;

const SCREEN: u8 = 1;
const MARKER: u8 = 1;
const KEYFRAME: u8 = 2;
const PUBLISHES: u8 = 0;
const WANTS_KEYFRAME: u8 = 1;

/// A packet of a picture without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureHead {
    /// Whose.
    pub stream: StreamId,
    /// Their screen, not their camera.
    pub is_screen: bool,
    /// How it is coded.
    pub codec: VideoCodec,
    /// Which of its layers, below [`LAYERS_MAX`].
    pub layer: usize,
    /// The last packet of a picture.
    pub marker: bool,
    /// The first packet of a whole picture.
    pub is_keyframe: bool,
    /// Grows by one with each packet that the publisher sends of a layer, and leaps where they are another source's than before.
    pub sequence: u32,
    /// 90 kHz.
    pub timestamp: u32,
}

impl PictureHead {
    /// Its bytes.
    #[must_use]
    pub fn write(&self) -> [u8; PICTURE_HEAD_BYTES] {
        let mut out = [0; PICTURE_HEAD_BYTES];
        out[..4].copy_from_slice(&self.stream.0.to_be_bytes());
        out[4] = if self.is_screen { SCREEN } else { 0 };
        out[5] = self.codec as u8;
        out[6] = self.layer as u8;
        out[7] = if self.marker { MARKER } else { 0 } | if self.is_keyframe { KEYFRAME } else { 0 };
        out[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        out[12..].copy_from_slice(&self.timestamp.to_be_bytes());
        out
    }

    /// Reads a body: the head and the payload. `None` for what this release does not know.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, payload) = body.split_first_chunk::<PICTURE_HEAD_BYTES>()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let layer = usize::from(head[6]);
        let head = Self {
            stream: StreamId(word(0)),
            is_screen: head[4] & SCREEN != 0,
            codec: VideoCodec::from_number(head[5])?,
            layer,
            marker: head[7] & MARKER != 0,
            is_keyframe: head[7] & KEYFRAME != 0,
            sequence: word(8),
            timestamp: word(12),
        };
        (layer < LAYERS_MAX).then_some((head, payload))
    }
}

/// What nodes tell each other of a meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// What somebody on the sending node publishes; repeated every half second.
    Publishes {
        /// Whose stream.
        stream: StreamId,
        /// All of it.
        kinds: Vec<PublishKind>,
    },
    /// Somebody on the sending node needs a whole picture.
    WantsKeyframe {
        /// Whose picture.
        stream: StreamId,
        /// Their screen, not their camera.
        is_screen: bool,
        /// Of which layer, below [`LAYERS_MAX`].
        layer: usize,
    },
}

const KINDS: [(PublishKind, u8); 3] = [(PublishKind::Audio, 1), (PublishKind::Video, 2), (PublishKind::Screen, 4)];

impl Meeting {
    /// Its bytes, and how many of them count.
    #[must_use]
    pub fn write(&self) -> ([u8; MEETING_BYTES_MAX], usize) {
        let mut out = [0; MEETING_BYTES_MAX];
        let (kind, stream, length) = match self {
            Self::Publishes { stream, kinds } => {
                let bits = KINDS.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, bit)| bit);
                out[5] = bits.sum();
                (PUBLISHES, stream, 6)
            }
            Self::WantsKeyframe { stream, is_screen, layer } => {
                out[5] = if *is_screen { SCREEN } else { 0 };
                out[6] = *layer as u8;
                (WANTS_KEYFRAME, stream, 7)
            }
        };
        out[0] = kind;
        out[1..5].copy_from_slice(&stream.0.to_be_bytes());
        (out, length)
    }

    /// Reads a body; `None` for what this release does not know.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let stream = StreamId(u32::from_be_bytes(*stream));
        let first = *rest.first()?;
        match *kind {
            PUBLISHES => {
                let kinds = KINDS.iter().filter(|(_, bit)| first & bit != 0).map(|(kind, _)| *kind).collect();
                Some(Self::Publishes { stream, kinds })
            }
            WANTS_KEYFRAME => {
                let layer = usize::from(*rest.get(1)?);
                let wants = Self::WantsKeyframe { stream, is_screen: first & SCREEN != 0, layer };
                (layer < LAYERS_MAX).then_some(wants)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let head = PictureHead {
            stream: StreamId(0x0102_0304),
            is_screen: true,
            codec: VideoCodec::H264,
            layer: 2,
            marker: true,
            is_keyframe: false,
            sequence: u32::MAX,
            timestamp: 90,
        };
        let mut body = head.write().to_vec();
        body.extend([7, 8]);
        assert_eq!(PictureHead::read(&body), Some((head, &[7, 8][..])));
        for meeting in [
            Meeting::Publishes { stream: StreamId(9), kinds: vec![PublishKind::Audio, PublishKind::Screen] },
            Meeting::Publishes { stream: StreamId(9), kinds: Vec::new() },
            Meeting::WantsKeyframe { stream: StreamId(9), is_screen: false, layer: 1 },
        ] {
            let (bytes, length) = meeting.write();
            assert_eq!(Meeting::read(&bytes[..length]), Some(meeting));
        }
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_passed_over() {
        let head = [0, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(PictureHead::read(&head), None, "a codec of a later release");
        assert_eq!(PictureHead::read(&head[..15]), None);
        assert_eq!(PictureHead::read(&[0, 0, 0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "a layer too many");
        for body in [&[][..], &[0, 0, 0, 0, 1], &[1, 0, 0, 0, 1, 0], &[1, 0, 0, 0, 1, 0, 3], &[2, 0, 0, 0, 1, 0, 0]] {
            assert_eq!(Meeting::read(body), None, "{body:?}");
        }
    }
}
