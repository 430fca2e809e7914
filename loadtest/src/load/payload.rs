//! What the load tester's speakers say: frames that prove themselves.
//!
//! ```text
//! Opus TOC (1): CELT, full band, 20 ms, mono, one frame | speaker (4) | sequence (4) | sent at, ns since 1970 (8) | fill
//! ```
//!
//! The fill follows from speaker and sequence, so that a frame that arrives altered, cut, or under another's name is
//! told from the right one.

/// RFC 6716 section 3.1: configuration 31, mono, code 0. What follows is noise to a decoder but a valid packet.
const TOC: u8 = 31 << 3;

/// A frame of comfort noise: the same packet without content, as an encoder makes it in pauses (RFC 6716, 2.1.9).
pub(super) const COMFORT: &[u8] = &[TOC];

const FILL_AT: usize = 17;

/// The shortest frame that holds all of it and a word of fill.
pub(super) const FRAME_BYTES_MIN: usize = FILL_AT + 8;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// Who speaks, as the load tester counts.
    pub(super) speaker: u32,
    /// The speaker's frames from 0 on.
    pub(super) sequence: u32,
    /// When it left.
    pub(super) sent_ns: u64,
}

impl Payload {
    /// Writes the frame over all of `frame`, which is at least [`FRAME_BYTES_MIN`] long.
    pub(super) fn write(&self, frame: &mut [u8]) {
        frame[0] = TOC;
        frame[1..5].copy_from_slice(&self.speaker.to_be_bytes());
        frame[5..9].copy_from_slice(&self.sequence.to_be_bytes());
        frame[9..17].copy_from_slice(&self.sent_ns.to_be_bytes());
        for (chunk, word) in frame[FILL_AT..].chunks_mut(8).zip(self.fill()) {
            chunk.copy_from_slice(&word.to_be_bytes()[..chunk.len()]);
        }
    }

    /// Reads and verifies a frame; `None` when it is not what was sent.
    pub(super) fn verify(frame: &[u8], length: usize) -> Option<Self> {
        if frame.len() != length || frame[0] != TOC {
            return None;
        }
        let payload = Self {
            speaker: u32::from_be_bytes(*frame[1..].first_chunk()?),
            sequence: u32::from_be_bytes(*frame[5..].first_chunk()?),
            sent_ns: u64::from_be_bytes(*frame[9..].first_chunk()?),
        };
        let (words, rest) = frame[FILL_AT..].as_chunks::<8>();
        let mut fill = payload.fill();
        let right = words.iter().zip(&mut fill).all(|(word, expected)| u64::from_be_bytes(*word) == expected)
            && fill.next().is_some_and(|expected| rest == &expected.to_be_bytes()[..rest.len()]);
        right.then_some(payload)
    }

    /// Words that differ from frame to frame (splitmix64's finaliser over a counter).
    fn fill(&self) -> impl Iterator<Item = u64> {
        let seed = (u64::from(self.speaker) << 32 | u64::from(self.sequence)) ^ self.sent_ns.rotate_left(17);
        (1_u64..).map(move |index| {
            let mut word = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        })
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::opus_packet;

    use super::*;

    const PAYLOAD: Payload = Payload { speaker: 7, sequence: 1_000, sent_ns: 1_800_000_000_123_456_789 };

    #[test]
    fn what_is_written_is_verified_and_a_valid_opus_packet() {
        for length in [FRAME_BYTES_MIN, 80, 81, 1_100] {
            let mut frame = vec![0; length];
            PAYLOAD.write(&mut frame);
            assert_eq!(Payload::verify(&frame, length), Some(PAYLOAD));
            assert_eq!(opus_packet::validate(&frame), Ok(()));
        }
        assert_eq!(opus_packet::validate(COMFORT), Ok(()));
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let mut frame = vec![0; 80];
        PAYLOAD.write(&mut frame);
        for at in 0..frame.len() {
            let mut altered = frame.clone();
            altered[at] ^= 1;
            assert_eq!(Payload::verify(&altered, 80), None, "byte {at}");
        }
        assert_eq!(Payload::verify(&frame[..79], 80), None);
    }
}
