//! What little of a video packet's payload the server reads: whether a whole picture begins, and VP8's numbers.

/// How video is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum VideoCodec {
    /// RFC 7741.
    Vp8 = 0,
    /// RFC 9628.
    Vp9 = 1,
    /// RFC 6184.
    H264 = 2,
    /// The AV1 RTP payload format.
    Av1 = 3,
}

impl VideoCodec {
    /// All of them, by their number.
    pub const ALL: [Self; 4] = [Self::Vp8, Self::Vp9, Self::H264, Self::Av1];

    /// The codec of a number on the wire between nodes.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether a packet begins a picture that needs none before it. Bytes that are no such payload begin none.
    #[must_use]
    pub fn begins_keyframe(self, payload: &[u8]) -> bool {
        match self {
            Self::Vp8 => vp8_keyframe(payload),
            Self::Vp9 => vp9_keyframe(payload),
            Self::H264 => h264_keyframe(payload),
            // Z: goes on with an OBU of the packet before; N: first of a coded video sequence.
            Self::Av1 => payload.first().map(|header| header & 0x88 == 0x08),
        }
        .unwrap_or(false)
    }
}

/// Where VP8's numbers lie in a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vp8Descriptor {
    /// The picture's number: its place and whether it has 15 bits instead of 7.
    pub(super) picture_id: Option<(usize, bool)>,
    /// The number of the last picture of the lowest temporal layer.
    pub(super) tl0_index: Option<usize>,
    /// Where the coded picture begins.
    length: usize,
    starts_partition: bool,
}

impl Vp8Descriptor {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor = Self { starts_partition: first & 0x17 == 0x10, length: 1, ..Self::default() };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let extensions = *payload.get(1)?;
        descriptor.length = 2;
        if extensions & 0x80 != 0 {
            let is_long = payload.get(descriptor.length)? & 0x80 != 0;
            descriptor.picture_id = Some((descriptor.length, is_long));
            descriptor.length += if is_long { 2 } else { 1 };
        }
        if extensions & 0x40 != 0 {
            descriptor.tl0_index = Some(descriptor.length);
            descriptor.length += 1;
        }
        if extensions & 0x30 != 0 {
            descriptor.length += 1;
        }
        (payload.len() >= descriptor.length).then_some(descriptor)
    }
}

fn vp8_keyframe(payload: &[u8]) -> Option<bool> {
    let descriptor = Vp8Descriptor::parse(payload)?;
    let picture = payload.get(descriptor.length)?;
    Some(descriptor.starts_partition && picture & 1 == 0)
}

fn vp9_keyframe(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (has_picture_id, is_predicted, has_layers, begins) =
        (first & 0x80 != 0, first & 0x40 != 0, first & 0x20 != 0, first & 0x08 != 0);
    let mut at = 1;
    if has_picture_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let spatial_layer = if has_layers { payload.get(at)? >> 1 & 7 } else { 0 };
    Some(begins && !is_predicted && spatial_layer == 0)
}

/// A parameter set comes before each whole picture; where it was sent apart, the picture itself counts.
fn h264_keyframe(payload: &[u8]) -> Option<bool> {
    const IDR: u8 = 5;
    const PARAMETERS: u8 = 7;
    const AGGREGATE: u8 = 24;
    const FRAGMENT: u8 = 28;
    let begins = |unit: u8| matches!(unit & 0x1f, IDR | PARAMETERS);
    match payload.first()? & 0x1f {
        AGGREGATE => {
            let mut rest = &payload[1..];
            while let Some(([l0, l1], units)) = rest.split_first_chunk::<2>() {
                let (unit, after) = units.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
                if unit.first().is_some_and(|unit| begins(*unit)) {
                    return Some(true);
                }
                rest = after;
            }
            Some(false)
        }
        FRAGMENT => payload.get(1).map(|header| header & 0x80 != 0 && begins(*header)),
        unit => Some(begins(unit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_their_codecs() {
        for codec in VideoCodec::ALL {
            assert_eq!(VideoCodec::from_number(codec as u8), Some(codec));
        }
        assert_eq!(VideoCodec::from_number(4), None);
    }

    #[test]
    fn whole_pictures_are_known_by_their_first_packet() {
        for (codec, payload, begins) in [
            (VideoCodec::Vp8, &[0x10, 0x00][..], true),
            (VideoCodec::Vp8, &[0x10, 0x01], false),
            (VideoCodec::Vp8, &[0x00, 0x00], false),
            (VideoCodec::Vp8, &[0x11, 0x00], false),
            (VideoCodec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x20, 0x00], true),
            (VideoCodec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x20, 0x01], false),
            (VideoCodec::Vp9, &[0x8c, 0x92, 0x34], true),
            (VideoCodec::Vp9, &[0xcc, 0x92, 0x34], false),
            (VideoCodec::Vp9, &[0xac, 0x12, 0x00], true),
            (VideoCodec::Vp9, &[0xac, 0x12, 0x02], false),
            (VideoCodec::Vp9, &[0x84, 0x12], false),
            (VideoCodec::H264, &[0x67, 1], true),
            (VideoCodec::H264, &[0x65, 1], true),
            (VideoCodec::H264, &[0x61, 1], false),
            (VideoCodec::H264, &[0x78, 0, 1, 0x09, 0, 2, 0x67, 1], true),
            (VideoCodec::H264, &[0x78, 0, 1, 0x09, 0, 2, 0x61, 1], false),
            (VideoCodec::H264, &[0x7c, 0x85, 1], true),
            (VideoCodec::H264, &[0x7c, 0x05, 1], false),
            (VideoCodec::Av1, &[0x18, 1], true),
            (VideoCodec::Av1, &[0x98, 1], false),
            (VideoCodec::Av1, &[0x10, 1], false),
        ] {
            assert_eq!(codec.begins_keyframe(payload), begins, "{codec:?} {payload:02x?}");
        }
    }

    #[test]
    fn no_bytes_of_any_length_are_more_than_no_keyframe() {
        for codec in VideoCodec::ALL {
            for first in 0..=u8::MAX {
                for second in [0x00, 0x80, 0xff] {
                    (0..3).for_each(|length| _ = codec.begins_keyframe(&[first, second, 0xff][..length]));
                }
            }
        }
    }
}
