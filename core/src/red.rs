//! Redundant audio (RFC 2198): one packet that carries a frame and, before it, copies of earlier ones.
//!
//! ```text
//!  for each earlier frame   1 | payload type (7) | timestamp offset (14) | length (10)
//!  for the newest           0 | payload type (7)
//!  then the frames' bytes in the same order; the newest has what is left
//! ```

/// How many earlier frames a packet may carry: browsers send one or two, at most.
pub const REDUNDANCY_MAX: usize = 4;

/// A frame in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// What it is.
    pub payload_type: u8,
    /// How much earlier than the packet's own timestamp; 0 for the newest.
    pub earlier: u16,
    /// One frame.
    pub bytes: &'a [u8],
}

/// A packet's frames, the oldest first and the newest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks<'a> {
    blocks: [Block<'a>; REDUNDANCY_MAX + 1],
    count: usize,
}

impl<'a> Blocks<'a> {
    /// Takes a payload apart; `None` when it is none, or carries more than [`REDUNDANCY_MAX`] earlier frames.
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut headers = [(0, 0, 0); REDUNDANCY_MAX + 1];
        let (mut rest, mut count) = (payload, 0);
        while *rest.first()? & 0x80 != 0 {
            let ([first, b1, b2, b3], after) = rest.split_first_chunk::<4>()?;
            let offset_and_length = u32::from_be_bytes([0, *b1, *b2, *b3]);
            let (earlier, length) = ((offset_and_length >> 10) as u16, (offset_and_length & 0x3ff) as usize);
            *headers.get_mut(count).filter(|_| count < REDUNDANCY_MAX)? = (first & 0x7f, earlier, length);
            (rest, count) = (after, count + 1);
        }
        let (newest, mut rest) = rest.split_first()?;
        let mut blocks = [Block { payload_type: *newest, earlier: 0, bytes: &[] }; REDUNDANCY_MAX + 1];
        for (block, (payload_type, earlier, length)) in blocks.iter_mut().zip(&headers[..count]) {
            let (bytes, after) = rest.split_at_checked(*length)?;
            *block = Block { payload_type: *payload_type, earlier: *earlier, bytes };
            rest = after;
        }
        blocks[count].bytes = rest;
        Some(Self { blocks, count: count + 1 })
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Block<'a>] {
        &self.blocks[..self.count]
    }
}

/// A payload's newest frame; `None` when it is none.
#[must_use]
pub fn newest(payload: &[u8]) -> Option<&[u8]> {
    Some(Blocks::parse(payload)?.as_slice().last()?.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(redundant: &[(u16, &[u8])], newest: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        for (earlier, bytes) in redundant {
            let word = (u32::from(*earlier) << 10) | bytes.len() as u32;
            packet.push(0x80 | 111);
            packet.extend(&word.to_be_bytes()[1..]);
        }
        packet.push(111);
        redundant.iter().for_each(|(_, bytes)| packet.extend(*bytes));
        packet.extend(newest);
        packet
    }

    #[test]
    fn frames_come_out_oldest_first() {
        let packet = packet(&[(1_920, &[1, 2, 3]), (960, &[4])], &[5, 6]);
        let blocks = Blocks::parse(&packet).expect("a packet");
        let read: Vec<_> = blocks.as_slice().iter().map(|block| (block.earlier, block.bytes)).collect();
        assert_eq!(read, [(1_920, &[1, 2, 3][..]), (960, &[4]), (0, &[5, 6])]);
        assert!(blocks.as_slice().iter().all(|block| block.payload_type == 111));
        assert_eq!(newest(&packet), Some(&[5, 6][..]));
        assert_eq!(newest(&packet[..7]), None);
    }

    #[test]
    fn a_packet_without_redundancy_is_one_frame() {
        let packet = packet(&[], &[9; 80]);
        assert_eq!(Blocks::parse(&packet).expect("a packet").as_slice().len(), 1);
    }

    #[test]
    fn what_is_cut_off_or_too_much_is_none() {
        let whole = packet(&[(960, &[1, 2, 3])], &[]);
        for length in [0, 3, 4, 7] {
            assert_eq!(Blocks::parse(&whole[..length]), None, "{length} bytes");
        }
        assert!(Blocks::parse(&whole).is_some());
        let most: Vec<(u16, &[u8])> = vec![(960, &[1]); REDUNDANCY_MAX];
        assert!(Blocks::parse(&packet(&most, &[2])).is_some());
        let more: Vec<(u16, &[u8])> = vec![(960, &[1]); REDUNDANCY_MAX + 1];
        assert_eq!(Blocks::parse(&packet(&more, &[2])), None);
    }
}
