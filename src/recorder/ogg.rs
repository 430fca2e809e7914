//! Pages of an Ogg stream that holds one speaker's Opus packets as they came (RFC 3533, RFC 7845), written so that all but
//! the last moment of it can be read whatever happens to the process. That takes pages that are written over by the ones after
//! them, which the library's writer does not do.
//!
//! ```text
//! "OggS" | version (1) | flags (1) | granule (8) | serial (4) | number (4) | check sum (4) | count (1) | lengths | bytes
//! ```

use std::io::{self, Seek, SeekFrom, Write};

use crate::transcode::{head, tags};

/// Everything of a page before the lengths of what it holds.
const HEADER_BYTES: usize = 27;

/// Entries of a page's table of lengths: a packet has one for each 255 bytes, and one.
const LENGTHS_MAX: usize = 255;

/// Samples at 48 kHz that a decoder is to leave out at a stream's begin: what libopus' encoder looks ahead, so that what is
/// heard is where it was said.
pub(super) const PRE_SKIP: u16 = 312;

/// Flags of a page.
const CONTINUED: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;

/// Tells streams in one file apart; ours hold one.
const SERIAL: u32 = 0x414e_5452;

/// The check sum's table (RFC 3533 section 6, polynomial 0x04c11db7, no reflection).
const CHECK: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 0x8000_0000 == 0 { value << 1 } else { (value << 1) ^ 0x04c1_1db7 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

fn check_sum(page: &[u8]) -> u32 {
    page.iter().fold(0, |sum: u32, byte| (sum << 8) ^ CHECK[usize::from((sum >> 24) as u8 ^ byte)])
}

/// Writes pages.
pub(super) struct Pages<W> {
    writer: W,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    page: Vec<u8>,
    number: u32,
    /// Samples through the last packet of the page that grows.
    granule: u64,
    /// Bytes written.
    written: u64,
}

impl<W: Write + Seek> Pages<W> {
    /// Writes the two heads: a stream of so many channels.
    pub(super) fn begin(writer: W, channels: u8) -> io::Result<Self> {
        let mut pages = Self {
            writer,
            lengths: Vec::with_capacity(LENGTHS_MAX),
            bytes: Vec::new(),
            page: Vec::new(),
            number: 0,
            granule: 0,
            written: 0,
        };
        // The second names who wrote it, and nothing of who is heard in it.
        for head in [head(channels, PRE_SKIP), tags(&[])] {
            pages.add(&head, 0)?;
            pages.flush()?;
        }
        Ok(pages)
    }

    /// Appends a packet, with which the stream has so many samples. A page that is full is written.
    pub(super) fn add(&mut self, packet: &[u8], granule: u64) -> io::Result<()> {
        let lengths = packet.len() / 255 + 1;
        if self.lengths.len() + lengths > LENGTHS_MAX {
            self.flush()?;
        }
        self.lengths.extend(std::iter::repeat_n(255, lengths - 1));
        self.lengths.push((packet.len() % 255) as u8);
        self.bytes.extend_from_slice(packet);
        self.granule = granule;
        Ok(())
    }

    /// Writes what waits as a page, if anything does.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.lengths.is_empty() { Ok(()) } else { self.write(0) }
    }

    /// Writes what waits as a page that the next one takes the place of: so it can be read whatever happens, and costs no page
    /// of its own.
    pub(super) fn show(&mut self) -> io::Result<()> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        self.build(0);
        self.writer.write_all(&self.page)?;
        let back = i64::try_from(self.page.len()).unwrap_or(0);
        self.writer.seek(SeekFrom::Current(-back)).map(|_| ())
    }

    /// Ends the stream: its last page says that it is the last.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.is_waiting() {
            self.write(LAST)?;
            return Ok(self.writer);
        }
        let back = i64::try_from(self.page.len()).unwrap_or(0);
        self.writer.seek(SeekFrom::Current(-back))?;
        self.writer.write_all(&marked_last(std::mem::take(&mut self.page)))?;
        Ok(self.writer)
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether anything waits to be written.
    pub(super) fn is_waiting(&self) -> bool {
        !self.lengths.is_empty()
    }

    fn write(&mut self, flags: u8) -> io::Result<()> {
        self.build(flags);
        self.writer.write_all(&self.page)?;
        self.number += 1;
        self.written += self.page.len() as u64;
        self.lengths.clear();
        self.bytes.clear();
        Ok(())
    }

    /// Makes a page of what waits.
    fn build(&mut self, flags: u8) {
        let flags = if self.number == 0 { flags | FIRST } else { flags };
        self.page.clear();
        self.page.extend_from_slice(b"OggS\0");
        self.page.push(flags);
        self.page.extend_from_slice(&self.granule.to_le_bytes());
        self.page.extend_from_slice(&SERIAL.to_le_bytes());
        self.page.extend_from_slice(&self.number.to_le_bytes());
        self.page.extend_from_slice(&[0; 4]);
        self.page.push(self.lengths.len() as u8);
        self.page.extend_from_slice(&self.lengths);
        self.page.extend_from_slice(&self.bytes);
        let sum = check_sum(&self.page);
        self.page[22..26].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What is whole of a stream that was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Bytes of its whole pages.
    pub(super) bytes: u64,
    /// Samples of them.
    pub(super) granule: u64,
    /// Whether its last page says that it is the last.
    pub(super) is_ended: bool,
    /// Where the last whole page begins.
    last_at: usize,
    /// How many pages there are.
    pub(super) pages: u32,
}

/// Reads whole pages from the begin of `stream` up to the first that is torn or damaged.
pub(super) fn whole(stream: &[u8]) -> Whole {
    let mut found = Whole { bytes: 0, granule: 0, is_ended: false, last_at: 0, pages: 0 };
    let mut at = 0;
    while let Some(length) = page_length(&stream[at..]).filter(|_| !found.is_ended) {
        let page = &stream[at..at + length];
        let granule = page[6..14].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        found = Whole {
            bytes: (at + length) as u64,
            granule: granule.max(found.granule),
            is_ended: page[5] & LAST != 0,
            last_at: at,
            pages: found.pages + 1,
        };
        at += length;
    }
    found
}

/// How long the page at the begin of `bytes` is, if it is whole and as it was written.
fn page_length(bytes: &[u8]) -> Option<usize> {
    let header =
        bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(b"OggS\0") && header[5] & CONTINUED == 0)?;
    let lengths = bytes.get(HEADER_BYTES..HEADER_BYTES + usize::from(header[26]))?;
    let body: usize = lengths.iter().map(|length| usize::from(*length)).sum();
    let length = HEADER_BYTES + lengths.len() + body;
    let page = bytes.get(..length)?;
    let mut blank = page.to_vec();
    blank[22..26].fill(0);
    (check_sum(&blank).to_le_bytes() == page[22..26]).then_some(length)
}

/// The last whole page of a stream once more, saying that it is the last; and where it begins.
pub(super) fn ending(stream: &[u8], whole: &Whole) -> (u64, Vec<u8>) {
    let end = usize::try_from(whole.bytes).unwrap_or(0);
    (whole.last_at as u64, marked_last(stream[whole.last_at..end].to_vec()))
}

fn marked_last(mut page: Vec<u8>) -> Vec<u8> {
    page[5] |= LAST;
    page[22..26].fill(0);
    let sum = check_sum(&page);
    page[22..26].copy_from_slice(&sum.to_le_bytes());
    page
}

/// Pages of the heads.
pub(super) const HEAD_PAGES: u32 = 2;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn stream(packets: u64) -> Vec<u8> {
        let mut pages = Pages::begin(Cursor::new(Vec::new()), 1).expect("memory");
        for number in 1..=packets {
            pages.add(&vec![number as u8; 200 + number as usize], number * 960).expect("memory");
            pages.flush().expect("memory");
        }
        pages.writer.into_inner()
    }

    /// The packets of a stream, by the reader that others use.
    fn packets(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = ogg::PacketReader::new(Cursor::new(stream));
        std::iter::from_fn(|| reader.read_packet().expect("well formed")).map(|packet| packet.data).collect()
    }

    #[test]
    fn a_stream_is_read_as_it_was_written() {
        let mut pages = Pages::begin(Cursor::new(Vec::new()), 2).expect("memory");
        let said: Vec<Vec<u8>> = (0..600_usize).map(|number| vec![number as u8; number * 3 % 1_300 + 1]).collect();
        for (number, packet) in said.iter().enumerate() {
            pages.add(packet, (number as u64 + 1) * 960).expect("memory");
        }
        let stream = pages.finish().expect("memory").into_inner();
        let read = packets(&stream);
        assert_eq!((&read[0][..9], read[0][9], &read[1][..8]), (&b"OpusHead\x01"[..], 2, &b"OpusTags"[..]));
        assert!(read[2..] == said);
        let whole = whole(&stream);
        assert_eq!((whole.bytes, whole.granule, whole.is_ended), (stream.len() as u64, 600 * 960, true));
    }

    #[test]
    fn a_stream_that_is_broken_off_anywhere_is_read_up_to_its_last_whole_page() {
        let all = stream(5);
        for end in 0..all.len() {
            let torn = &all[..end];
            let found = whole(torn);
            assert!(found.bytes <= end as u64 && !found.is_ended);
            if found.pages <= HEAD_PAGES {
                continue;
            }
            let (at, page) = ending(torn, &found);
            let mut mended = torn[..usize::try_from(found.bytes).expect("short")].to_vec();
            mended.truncate(usize::try_from(at).expect("short"));
            mended.extend(page);
            let again = whole(&mended);
            assert_eq!((again.bytes, again.granule, again.is_ended), (found.bytes, found.granule, true));
            assert_eq!(packets(&mended).len() as u64, found.granule / 960 + 2);
        }
    }

    #[test]
    fn a_stream_that_ends_with_nothing_left_to_write_says_so_all_the_same() {
        let mut pages = Pages::begin(Cursor::new(Vec::new()), 1).expect("memory");
        pages.add(&[1, 2, 3], 960).expect("memory");
        pages.flush().expect("memory");
        let stream = pages.finish().expect("memory").into_inner();
        let found = whole(&stream);
        assert_eq!((found.bytes, found.granule, found.is_ended), (stream.len() as u64, 960, true));
        assert_eq!(packets(&stream)[2], [1, 2, 3]);
    }

    #[test]
    fn what_was_shown_can_be_read_and_is_written_over() {
        let mut pages = Pages::begin(Cursor::new(Vec::new()), 1).expect("memory");
        for number in 1..=3_u8 {
            pages.add(&[number; 100], u64::from(number) * 960).expect("memory");
            pages.show().expect("memory");
            let found = whole(pages.writer.get_ref());
            assert_eq!((found.granule, found.pages), (u64::from(number) * 960, HEAD_PAGES + 1));
        }
        let stream = pages.finish().expect("memory").into_inner();
        assert_eq!(packets(&stream).len(), 5);
        assert!(whole(&stream).is_ended);
    }

    #[test]
    fn a_damaged_page_ends_what_is_whole() {
        let mut all = stream(3);
        let end = all.len() - 10;
        all[end] ^= 1;
        assert_eq!(whole(&all).granule, 2 * 960);
    }
}
