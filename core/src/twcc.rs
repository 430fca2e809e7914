//! What a receiver tells of packets that are numbered over all streams of a connection: which came, and when
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).

/// What the receiver's clock counts in: 250 µs. Its time comes round after twelve days.
pub const TICKS_PER_MS: u32 = 4;

const TRANSPORT_FEEDBACK: u8 = 205;
const FORMAT: u8 = 15;
const HEAD_BYTES: usize = 20;
/// Ticks in a step of a report's own time, which is 64 ms.
const TICKS_PER_STEP: u32 = 64 * TICKS_PER_MS;
/// Packets that a datagram's reports may tell of: more than any receiver puts into one on a way that works.
const PACKETS_MAX: usize = 2_048;
/// Symbols in a chunk of one bit each, and of two.
const SINGLE: usize = 14;
const DOUBLE: usize = 7;

/// Takes RTCP apart and gives `take` each packet that it tells of, in the order of their numbers: when it came, in ticks of the
/// receiver's clock, or `None` where it had not. Of a report that is cut off, what can be read is taken; of one that would tell of more
/// than there may be, with those before it, nothing.
pub fn read_feedback(mut compound: &[u8], mut take: impl FnMut(u16, Option<u32>)) {
    let mut room = PACKETS_MAX;
    while let [first, kind, l0, l1, ..] = *compound {
        let bytes = (usize::from(u16::from_be_bytes([l0, l1])) + 1) * 4;
        let Some((packet, rest)) = compound.split_at_checked(bytes) else { return };
        compound = rest;
        if kind == TRANSPORT_FEEDBACK && first & 0x1f == FORMAT {
            read_report(packet, &mut room, &mut take);
        }
    }
}

fn read_report(packet: &[u8], room: &mut usize, take: &mut impl FnMut(u16, Option<u32>)) -> Option<()> {
    let (head, body) = packet.split_first_chunk::<HEAD_BYTES>()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (first, count) = (word(12), usize::from(word(14)));
    let mut now = u32::from_be_bytes([0, head[16], head[17], head[18]]).wrapping_mul(TICKS_PER_STEP);
    let left = room.checked_sub(count)?;
    let (chunks, mut deltas) = body.split_at(chunks_bytes(body, count)?);
    *room = left;
    let chunks = chunks.as_chunks().0.iter().map(|chunk| Chunk(u16::from_be_bytes(*chunk)));
    let symbols = chunks.flat_map(|chunk| (0..chunk.count()).map(move |place| chunk.symbol(place)));
    for (place, symbol) in symbols.take(count).enumerate() {
        let delta = match symbol {
            0 => None,
            1 => deltas.split_off_first().map(|delta| Some(u32::from(*delta)))?,
            2 => {
                let (delta, rest) = deltas.split_first_chunk()?;
                deltas = rest;
                Some(i32::from(i16::from_be_bytes(*delta)) as u32)
            }
            // It came, but nothing says when.
            _ => continue,
        };
        now = now.wrapping_add(delta.unwrap_or(0));
        take(first.wrapping_add(place as u16), delta.map(|_| now));
    }
    Some(())
}

/// What the chunks for so many packets take; `None` when there are fewer.
fn chunks_bytes(body: &[u8], count: usize) -> Option<usize> {
    let (mut told, mut bytes) = (0, 0);
    for chunk in body.as_chunks().0 {
        if told >= count {
            break;
        }
        told += Chunk(u16::from_be_bytes(*chunk)).count();
        bytes += 2;
    }
    (told >= count).then_some(bytes)
}

/// Symbols of packets that follow each other.
#[derive(Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    const fn is_run(self) -> bool {
        self.0 & 0x8000 == 0
    }

    const fn is_double(self) -> bool {
        self.0 & 0x4000 != 0
    }

    const fn count(self) -> usize {
        match (self.is_run(), self.is_double()) {
            (true, _) => (self.0 & 0x1fff) as usize,
            (false, false) => SINGLE,
            (false, true) => DOUBLE,
        }
    }

    const fn symbol(self, place: usize) -> u16 {
        match (self.is_run(), self.is_double()) {
            (true, _) => self.0 >> 13 & 3,
            (false, false) => self.0 >> (SINGLE - 1 - place) & 1,
            (false, true) => self.0 >> (2 * (DOUBLE - 1 - place)) & 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    /// A report that begins with packet 65,534 at the second step of the receiver's clock.
    fn report(count: u16, chunks: &[u16], deltas: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe];
        packet.extend(count.to_be_bytes());
        packet.extend([0, 0, 2, 0]);
        packet.extend(chunks.iter().flat_map(|chunk| chunk.to_be_bytes()));
        packet.extend(deltas);
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet[3] = (packet.len() / 4 - 1) as u8;
        packet
    }

    fn read(compound: &[u8]) -> Vec<(u16, Option<u32>)> {
        let mut told = Vec::new();
        read_feedback(compound, |number, at| told.push((number, at)));
        told
    }

    #[test]
    fn each_kind_of_chunk_tells_of_its_packets() {
        // Three that came; of 14 the first and the last; of seven one that came before the others did.
        let chunks = [0x2003, 0x8000 | 1 << 13 | 1, 0xc000 | 2 << 12];
        let packet = report(19, &chunks, &[4, 0, 8, 1, 2, 0xff, 0xf1]);
        let told = read(&packet);
        assert_eq!(told.len(), 19);
        assert_eq!(told[..3], [(65_534, Some(516)), (65_535, Some(516)), (0, Some(524))]);
        let came: Vec<_> = told.iter().filter_map(|(number, at)| at.map(|at| (*number, at))).skip(3).collect();
        assert_eq!(came, [(1, 525), (14, 527), (15, 512)]);
    }

    #[test]
    fn what_else_there_is_is_passed_over_and_what_is_cut_off_is_not_read_past_its_end() {
        let packet = report(3, &[0x2003], &[1, 1, 1]);
        let other = [0x81, 205, 0, 1, 0, 0, 0, 5];
        assert_eq!(read(&[&other[..], &packet, &other].concat()).len(), 3);
        for length in 0..packet.len() {
            assert_eq!(read(&packet[..length]), []);
        }
        assert_eq!(read(&report(9, &[0x2009], &[1, 1])).len(), 2, "as many as there are times for");
        assert_eq!(read(&report(9, &[0x2003], &[])), [], "chunks for all of them are missing");
        assert_eq!(read(&report(u16::MAX, &[0x1fff; 9], &[])), [], "more than there can be");
    }

    #[test]
    fn reports_of_one_datagram_share_its_bound() {
        let missing = |count: u16| report(count, &[count], &[]);
        let half = PACKETS_MAX as u16 / 2;
        let reports = [missing(half), missing(half - 1), missing(2), missing(1), missing(1)].concat();
        assert_eq!(read(&reports).len(), PACKETS_MAX, "all but the third and the last");
    }

    #[test]
    fn rubbish_is_bounded() {
        let mut prng = Prng::new(1);
        for _ in 0..10_000 {
            let mut packet = report(prng.below(3_000) as u16, &[0; 20], &[0; 20]);
            prng.fill(&mut packet[HEAD_BYTES..]);
            assert!(read(&packet).len() <= PACKETS_MAX);
        }
    }
}
