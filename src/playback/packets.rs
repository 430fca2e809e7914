//! The packets of an Ogg Opus file in their order, each with where it is, how long it lasts and how loud it is.

use std::io::{self, Read, Seek, SeekFrom};

use antiphon_core::{
    mix::{PACKET_SAMPLES_MAX, level_of},
    opus_packet::duration_samples,
};
use ogg::PacketReader;

/// Pages of headers, which every file begins with (RFC 7845 section 3).
const HEADERS: u8 = 2;

/// Everything of a page before the lengths of what it holds (RFC 3533 section 6).
const PAGE_HEAD_BYTES: usize = 27;

/// A page's flag: its first packet began on the page before.
const CONTINUED: u8 = 1;

/// A packet as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// At 48 kHz.
    pub(super) samples: u32,
    /// RFC 6464 level of what it decodes to.
    pub(super) level: u8,
    /// Samples of the file before it.
    pub(super) at: u64,
}

/// A page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Where it begins, in bytes.
    offset: u64,
    /// Samples of the file before it.
    samples: u64,
}

/// The last page that begins no later than `to`, in samples, reading no more than the heads of pages; `None` where the file has no
/// sound.
pub(super) fn page_before(mut file: impl Read + Seek, to: u64) -> io::Result<Option<Page>> {
    let (mut found, mut page, mut number) = (None, Page { offset: 0, samples: 0 }, 0_u64);
    while page.samples <= to {
        let (mut head, mut lengths) = ([0; PAGE_HEAD_BYTES], [0; 255]);
        file.seek(SeekFrom::Start(page.offset))?;
        match file.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let [b'O', b'g', b'g', b'S', _, flags, granule @ .., count] = head else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a page is not where the one before it ends"));
        };
        let lengths = &mut lengths[..count.into()];
        file.read_exact(lengths)?;
        let is_sound = number >= u64::from(HEADERS);
        if is_sound && flags & CONTINUED == 0 {
            found = Some(page);
        }
        // A page on which no packet ends has no position.
        let granule = granule.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if is_sound && granule != u64::MAX {
            page.samples = granule;
        }
        page.offset +=
            (PAGE_HEAD_BYTES + lengths.len()) as u64 + lengths.iter().map(|length| u64::from(*length)).sum::<u64>();
        number += 1;
    }
    Ok(found)
}

/// Reads a file of our own making from its beginning.
pub(super) struct Packets<R: Read + Seek> {
    reader: PacketReader<R>,
    decoder: opus::Decoder,
    samples: Vec<i16>,
    /// Headers that are still to come.
    headers: u8,
    /// Samples of the file so far.
    at: u64,
}

impl<R: Read + Seek> Packets<R> {
    pub(super) fn new(file: R) -> io::Result<Self> {
        // To one channel, which is enough to say how loud it is.
        let decoder = opus::Decoder::new(48_000, opus::Channels::Mono).map_err(io::Error::other)?;
        Ok(Self {
            reader: PacketReader::new(file),
            decoder,
            samples: vec![0; PACKET_SAMPLES_MAX],
            headers: HEADERS,
            at: 0,
        })
    }

    /// Goes on with the first packet of a page.
    pub(super) fn go_to(&mut self, page: Page) -> io::Result<()> {
        self.reader.seek_bytes(SeekFrom::Start(page.offset)).map_err(io::Error::other)?;
        (self.headers, self.at) = (0, page.samples);
        Ok(())
    }

    /// The next packet; `None` at the file's end.
    pub(super) fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            let Some(packet) = self.reader.read_packet().map_err(io::Error::other)? else { return Ok(None) };
            if self.headers > 0 {
                self.headers -= 1;
                continue;
            }
            let samples = duration_samples(&packet.data).map_err(io::Error::other)?;
            let decoded = self.decoder.decode(&packet.data, &mut self.samples, false).map_err(io::Error::other)?;
            let level = level_of(&self.samples[..decoded]);
            let at = self.at;
            self.at += u64::from(samples);
            return Ok(Some(Packet { bytes: packet.data, samples, level, at }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ogg::{PacketWriteEndInfo, PacketWriter};

    use super::*;

    /// Packets of SILK, 20 ms each, that tell their number; ten to a page.
    fn file(packets: u16) -> Vec<u8> {
        let mut writer = PacketWriter::new(Vec::new());
        for header in ["OpusHead", "OpusTags"] {
            writer.write_packet(header.as_bytes(), 1, PacketWriteEndInfo::EndPage, 0).expect("writes");
        }
        for number in 0..packets {
            let end = if number % 10 == 9 { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            let [high, low] = number.to_be_bytes();
            writer.write_packet(vec![0x08, high, low, 1], 1, end, u64::from(number + 1) * 960).expect("writes");
        }
        writer.into_inner()
    }

    #[test]
    fn a_place_is_found_by_heads_of_pages_alone() {
        let file = file(100);
        for (to, first) in
            [(0, 0_u64), (1, 0), (9_599, 0), (9_600, 10), (50 * 960, 50), (99 * 960, 90), (1_000_000, 90)]
        {
            let page = page_before(Cursor::new(&file), to).expect("reads").expect("sound");
            let mut packets = Packets::new(Cursor::new(&file)).expect("a decoder");
            packets.go_to(page).expect("is there");
            let packet = packets.next().expect("reads").expect("a packet");
            assert_eq!((packet.at, packet.bytes[2]), (first * 960, first as u8), "{to}");
        }
        assert_eq!(page_before(Cursor::new(&file[..20]), 0).expect("reads"), None);
        assert_eq!(page_before(Cursor::new(&file[1..]), 0).expect_err("no page").kind(), io::ErrorKind::InvalidData);
    }
}
