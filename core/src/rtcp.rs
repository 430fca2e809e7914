//! What senders and receivers of RTP report to each other (RFC 3550, 6.4): as much of it as voice needs.

const HEADER_BYTES: usize = 4;
const BLOCK_BYTES: usize = 24;
const SENDER_INFO_BYTES: usize = 20;
/// A sender report without blocks, and a description with the longest name: its item, an end and what fills up four bytes.
pub const SENDER_REPORT_BYTES_MAX: usize = 28 + 8 + 2 + CNAME_BYTES_MAX + 4;
const CNAME_BYTES_MAX: usize = 64;

const VERSION: u8 = 2 << 6;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const EXTENDED_REPORT: u8 = 207;
/// The item of a description that names a source's endpoint.
const CNAME: u8 = 1;

/// Seconds from the beginning of 1900, which NTP counts from, to that of 1970.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// A time since 1970 as NTP writes it: seconds, and parts of one in 2^32.
#[must_use]
pub const fn ntp(unix_us: u64) -> u64 {
    let seconds = unix_us / 1_000_000 + NTP_TO_UNIX_S;
    let part = ((unix_us % 1_000_000) << 32) / 1_000_000;
    (seconds << 32) | part
}

/// What a sender says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// Whose.
    pub ssrc: u32,
    /// Now, as [`ntp`] makes it.
    pub ntp: u64,
    /// The same moment by the stream's clock.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Bytes of payload in them.
    pub bytes: u32,
    /// Names the endpoint: sources of one name are played together. Of a longer name so much as there is room for.
    pub cname: &'a str,
}

impl SenderReport<'_> {
    /// Writes it with the description that goes with it (RFC 3550, 6.1); its length, a multiple of four.
    pub fn write(&self, out: &mut [u8; SENDER_REPORT_BYTES_MAX]) -> usize {
        *out = [0; SENDER_REPORT_BYTES_MAX];
        let cname = &self.cname.as_bytes()[..self.cname.len().min(CNAME_BYTES_MAX)];
        // Its source, the item and the zero that ends the items.
        let description_bytes = (HEADER_BYTES + 4 + 2 + cname.len() + 1).next_multiple_of(4);
        let report_bytes = HEADER_BYTES + 4 + SENDER_INFO_BYTES;
        let (report, description) = out.split_at_mut(report_bytes);
        head(report, 0, SENDER_REPORT, report_bytes);
        report[4..8].copy_from_slice(&self.ssrc.to_be_bytes());
        report[8..16].copy_from_slice(&self.ntp.to_be_bytes());
        let numbers = [self.timestamp, self.packets, self.bytes];
        report[16..]
            .chunks_exact_mut(4)
            .zip(numbers)
            .for_each(|(out, number)| out.copy_from_slice(&number.to_be_bytes()));
        head(description, 1, DESCRIPTION, description_bytes);
        description[4..8].copy_from_slice(&self.ssrc.to_be_bytes());
        description[8..10].copy_from_slice(&[CNAME, cname.len() as u8]);
        description[10..10 + cname.len()].copy_from_slice(cname);
        report_bytes + description_bytes
    }
}

fn head(out: &mut [u8], count: u8, kind: u8, bytes: usize) {
    out[..2].copy_from_slice(&[VERSION | count, kind]);
    out[2..4].copy_from_slice(&((bytes / 4 - 1) as u16).to_be_bytes());
}

/// What a receiver says of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Which.
    pub ssrc: u32,
    /// Of the packets since the report before, in 256ths.
    pub lost_256ths: u8,
    /// Since it began; fewer than none where packets came twice.
    pub lost: i32,
    /// The highest sequence number that came, with its wrap-arounds as the receiver counts them.
    pub highest: u32,
    /// Of their coming, by the stream's clock.
    pub jitter: u32,
    /// The middle of the time in the newest sender report that came; 0 before the first.
    pub report: u32,
    /// How long ago that came, in 65,536ths of a second.
    pub since_report: u32,
}

impl Reception {
    fn read(block: &[u8; BLOCK_BYTES]) -> Self {
        let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        // Signed and of 24 bits.
        let lost = (word(4) << 8) as i32 >> 8;
        let (highest, jitter, report, since_report) = (word(8), word(12), word(16), word(20));
        Self { ssrc: word(0), lost_256ths: block[4], lost, highest, jitter, report, since_report }
    }

    /// The time there and back, of a report that came at `ntp` as [`ntp`] makes it; `None` of a receiver that has got no sender report, and of
    /// more than a minute.
    #[must_use]
    pub fn round_trip_ms(&self, ntp: u64) -> Option<u16> {
        let now = (ntp >> 16) as u32;
        let passed = now.wrapping_sub(self.report).wrapping_sub(self.since_report) as i32;
        let ms = i64::from(passed) * 1_000 / 65_536;
        // Clocks' grain makes a very short one come out below nothing.
        u16::try_from(ms.max(0)).ok().filter(|_| self.report != 0)
    }
}

/// Takes RTCP apart: each stream's report goes to `take`. True when that was all that is in it but what only describes: names, and
/// reports that ask for none of this (RFC 3611).
pub fn read_reports(mut compound: &[u8], mut take: impl FnMut(Reception)) -> bool {
    let mut is_all = true;
    while let [first, kind, l0, l1, ..] = *compound {
        let bytes = (usize::from(u16::from_be_bytes([l0, l1])) + 1) * 4;
        let Some((packet, rest)) = compound.split_at_checked(bytes) else { return false };
        compound = rest;
        let blocks_at = match kind {
            SENDER_REPORT => HEADER_BYTES + 4 + SENDER_INFO_BYTES,
            RECEIVER_REPORT => HEADER_BYTES + 4,
            DESCRIPTION | EXTENDED_REPORT => continue,
            _ => {
                is_all = false;
                continue;
            }
        };
        is_all &= kind == RECEIVER_REPORT;
        let blocks = packet.get(blocks_at..).unwrap_or_default().as_chunks().0;
        blocks.iter().take(usize::from(first & 0x1f)).for_each(|block| take(Reception::read(block)));
    }
    is_all && compound.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_seconds_and_their_parts() {
        assert_eq!(ntp(0), NTP_TO_UNIX_S << 32);
        assert_eq!(ntp(1_500_000), ((NTP_TO_UNIX_S + 1) << 32) + (1 << 31));
    }

    #[test]
    fn a_sender_report_is_whole_whatever_the_name() {
        for length in 0..80 {
            let name: String = "abcdefghij".chars().cycle().take(length).collect();
            let report = SenderReport { ssrc: 7, ntp: 1 << 40, timestamp: 2, packets: 3, bytes: 4, cname: &name };
            let mut out = [0xff; SENDER_REPORT_BYTES_MAX];
            let bytes = report.write(&mut out);
            assert_eq!(bytes % 4, 0);
            assert_eq!(out[..8], [0x80, 200, 0, 6, 0, 0, 0, 7]);
            assert_eq!(out[16..28], [0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
            assert_eq!(out[28..30], [0x81, 202]);
            assert_eq!((usize::from(out[31]) + 1) * 4 + 28, bytes);
            let said = length.min(CNAME_BYTES_MAX);
            assert_eq!((out[36], usize::from(out[37])), (1, said));
            assert_eq!(out[38..38 + said], name.as_bytes()[..said]);
            assert!(out[38 + said..bytes].iter().all(|byte| *byte == 0) && 38 + said < bytes);
        }
    }

    fn receiver_report(blocks: &[(u32, u8, i32)]) -> Vec<u8> {
        let mut packet = vec![0x80 | blocks.len() as u8, 201, 0, 1 + 6 * blocks.len() as u8, 0, 0, 0, 1];
        for (ssrc, lost_256ths, lost) in blocks {
            packet.extend(ssrc.to_be_bytes());
            packet.push(*lost_256ths);
            packet.extend(&lost.to_be_bytes()[1..]);
            packet.extend([0, 0, 1, 0, 0, 0, 0, 9, 0, 2, 0x80, 0, 0, 0, 0x80, 0]);
        }
        packet
    }

    #[test]
    fn reports_are_read_and_whatever_else_there_is_is_said() {
        let mut taken = Vec::new();
        let mut compound = receiver_report(&[(5, 128, 70), (6, 0, -2)]);
        compound.extend([0x81, 202, 0, 1, 0, 0, 0, 5]);
        assert!(read_reports(&compound, |report| taken.push(report)));
        let reports = [(5, 128, 70), (6, 0, -2)];
        let reception = |(ssrc, lost_256ths, lost)| {
            let (highest, jitter, report, since_report) = (256, 9, 0x0002_8000, 0x8000);
            Reception { ssrc, lost_256ths, lost, highest, jitter, report, since_report }
        };
        assert_eq!(taken, reports.map(reception));
        for other in [[0x81, 206, 0, 1, 0, 0, 0, 5], [0x80, 203, 0, 1, 0, 0, 0, 5]] {
            assert!(!read_reports(&[&compound[..], &other].concat(), |_| ()));
        }
    }

    #[test]
    fn a_round_trip_is_what_passed_since_a_sender_report_but_for_the_receivers_part() {
        let reception = |report, since_report| Reception { report, since_report, ..Reception::default() };
        // Sent at 2.5 s, and reported on half a second after it came.
        let round_trip = |at_ms: u64| reception(0x0002_8000, 0x8000).round_trip_ms((at_ms << 32) / 1_000);
        assert_eq!([3_000, 3_125, 2_999, 70_000].map(round_trip), [Some(0), Some(125), Some(0), None]);
        // The seconds' end comes round.
        assert_eq!(reception(0xffff_8000, 0x4000).round_trip_ms(0x1_0000_4000 << 16), Some(500));
        assert_eq!(reception(0, 0x8000).round_trip_ms(3 << 32), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read_past_its_end() {
        let compound = receiver_report(&[(5, 1, 1), (6, 1, 1)]);
        for length in 1..compound.len() {
            assert!(!read_reports(&compound[..length], |_| panic!("there is no whole report")), "{length}");
        }
        let mut lies = receiver_report(&[(5, 1, 1)]);
        lies[0] = 0x9f;
        let mut taken = 0;
        assert!(read_reports(&lies, |_| taken += 1));
        assert_eq!(taken, 1);
    }
}
