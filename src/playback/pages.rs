//! Finding a place in an Ogg file by the heads of some of its pages (RFC 3533 section 6), however long the file is: no file has a table of
//! where they are.
//!
//! ```text
//! first page of sound ──────────────────────── all that is left ──────────────────────── end
//!                        a page in the middle tells which half the place is in
//!                              ... until some pages are left, which are gone through
//! ```

use std::io::{self, Read, Seek, SeekFrom};

/// Pages of headers, which every file begins with (RFC 7845 section 3).
pub(super) const HEADERS: u8 = 2;

/// What every page begins with.
const MARK: &[u8] = b"OggS";

/// Everything of a page before the lengths of what it holds.
const HEAD_BYTES: usize = 27;

/// A head with the most lengths there can be.
const HEAD_BYTES_MAX: usize = HEAD_BYTES + 255;

/// The longest page there can be.
const PAGE_BYTES_MAX: u64 = HEAD_BYTES_MAX as u64 + 255 * 255;

/// What is left is gone through page by page once it is no more than this: a second of the highest quality, or some of the lowest.
const NEAR_BYTES: u64 = 16 * 1_024;

/// Read at once where the next page is looked for.
const LOOKED_THROUGH_BYTES: usize = 4 * 1_024;

/// A page's flag: its first packet began on the page before.
const CONTINUED: u8 = 1;

/// A page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// Samples of the file before it.
    pub(super) samples: u64,
}

/// What a page says of itself.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Which stream it is of.
    serial: u32,
    /// Whether its first packet began on the page before.
    is_continued: bool,
    /// Whether its last packet ends with it.
    is_whole: bool,
    /// Samples through the last packet that ends on it; `None` where none does.
    granule: Option<u64>,
    /// How long it is.
    bytes: u64,
}

/// The last page that begins with a packet no later than `to`, in samples; `None` where the file has no sound.
pub(super) fn page_before(mut file: impl Read + Seek, to: u64) -> io::Result<Option<Page>> {
    let (mut page, mut serial) = (Page { offset: 0, samples: 0 }, 0);
    for _ in 0..HEADERS {
        let Some(head) = head_at(&mut file, page.offset)? else { return Ok(None) };
        (page.offset, serial) = (page.offset + head.bytes, head.serial);
    }
    let (mut page, mut found) = (nearby(&mut file, page, serial, to)?, None);
    while page.samples <= to {
        let Some(head) = head_at(&mut file, page.offset)? else { break };
        if !head.is_continued {
            found = Some(page);
        }
        page = head.next_of(page);
    }
    Ok(found)
}

/// A page that begins with a packet no later than `to`, and no more than some pages before the last such. `page` is one.
fn nearby(file: &mut (impl Read + Seek), mut page: Page, serial: u32, to: u64) -> io::Result<Page> {
    let mut until = file.seek(SeekFrom::End(0))?;
    while until.saturating_sub(page.offset) > NEAR_BYTES {
        let middle = page.offset + (until - page.offset) / 2;
        match telling_page(file, (middle, until), serial)? {
            Some(next) if next.samples <= to => page = next,
            _ => until = middle,
        }
    }
    Ok(page)
}

/// The page behind the first between two places that says where it ends and ends with a packet: it begins with one, and is known to begin
/// where the other ends.
fn telling_page(file: &mut (impl Read + Seek), (from, until): (u64, u64), serial: u32) -> io::Result<Option<Page>> {
    let Some(offset) = look_for_page(file, (from, until), serial)? else { return Ok(None) };
    let mut page = Page { offset, samples: 0 };
    while page.offset < until
        && let Some(head) = head_at(file, page.offset)?
    {
        page = head.next_of(page);
        if head.is_whole && head.granule.is_some() {
            return Ok(Some(page));
        }
    }
    Ok(None)
}

/// Where the first page of the stream begins from there on. What looks like one within a packet has no other behind it.
fn look_for_page(file: &mut (impl Read + Seek), (from, until): (u64, u64), serial: u32) -> io::Result<Option<u64>> {
    let (mut at, until) = (from, until.min(from + PAGE_BYTES_MAX));
    while at < until {
        let bytes = read_at(file, at, LOOKED_THROUGH_BYTES)?;
        for place in bytes.windows(MARK.len()).enumerate().filter_map(|(place, found)| (found == MARK).then_some(place))
        {
            let offset = at + place as u64;
            if let Some(head) = Head::of(&read_at(file, offset, HEAD_BYTES_MAX)?)
                && head.serial == serial
                && matches!(read_at(file, offset + head.bytes, MARK.len())?.as_slice(), [] | MARK)
            {
                return Ok(Some(offset));
            }
        }
        // A mark may begin with the last of them.
        let passed = bytes.len().saturating_sub(MARK.len() - 1);
        if passed == 0 {
            break;
        }
        at += passed as u64;
    }
    Ok(None)
}

/// The head of the page that begins there; `None` at the file's end.
fn head_at(file: &mut (impl Read + Seek), offset: u64) -> io::Result<Option<Head>> {
    let bytes = read_at(file, offset, HEAD_BYTES_MAX)?;
    if bytes.len() < HEAD_BYTES {
        return Ok(None);
    }
    let none = || io::Error::new(io::ErrorKind::InvalidData, "a page is not where the one before it ends");
    Head::of(&bytes).map(Some).ok_or_else(none)
}

/// So many bytes from there on, or as many as there are.
fn read_at(file: &mut (impl Read + Seek), offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most);
    file.seek(SeekFrom::Start(offset))?;
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [b'O', b'g', b'g', b'S', 0, flags, numbers @ .., count] = bytes.first_chunk::<HEAD_BYTES>()? else {
            return None;
        };
        let lengths = bytes[HEAD_BYTES..].get(..usize::from(*count))?;
        let (granule, rest) = numbers.split_first_chunk()?;
        let granule = Some(u64::from_le_bytes(*granule)).filter(|granule| *granule != u64::MAX);
        Some(Self {
            serial: u32::from_le_bytes(*rest.first_chunk()?),
            is_continued: flags & CONTINUED != 0,
            is_whole: lengths.last().is_none_or(|length| *length < 255),
            granule,
            bytes: (HEAD_BYTES + lengths.len()) as u64 + lengths.iter().map(|length| u64::from(*length)).sum::<u64>(),
        })
    }

    /// The page behind the one whose head this is. Where no packet ends, there are no more samples.
    fn next_of(&self, page: Page) -> Page {
        Page { offset: page.offset + self.bytes, samples: self.granule.unwrap_or(page.samples) }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Cursor};

    use ogg::{PacketWriteEndInfo, PacketWriter};

    use super::*;

    /// What has been read of a file.
    #[derive(Default)]
    struct Cost {
        reads: Cell<u64>,
        bytes: Cell<u64>,
    }

    /// A file whose reads are counted.
    struct Counted<'a>(Cursor<&'a [u8]>, &'a Cost);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.reads.update(|reads| reads + 1);
            self.1.bytes.update(|bytes| bytes + count as u64);
            Ok(count)
        }
    }

    impl Seek for Counted<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    /// Packets of 20 ms of what `packet` says, `per_page` to a page.
    fn file(packets: u32, per_page: u32, packet: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
        let mut writer = PacketWriter::new(Vec::new());
        for header in ["OpusHead", "OpusTags"] {
            writer.write_packet(header.as_bytes(), 1, PacketWriteEndInfo::EndPage, 0).expect("writes");
        }
        for number in 0..packets {
            let is_last = number % per_page == per_page - 1;
            let end = if is_last { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            writer.write_packet(packet(number), 1, end, u64::from(number + 1) * 960).expect("writes");
        }
        writer.into_inner()
    }

    /// All pages that begin with a packet, one after the other.
    fn pages(file: &[u8]) -> Vec<Page> {
        let (mut file, mut page, mut pages) = (Cursor::new(file), Page { offset: 0, samples: 0 }, Vec::new());
        while let Some(head) = head_at(&mut file, page.offset).expect("a page") {
            if !head.is_continued {
                pages.push(page);
            }
            page = head.next_of(page);
        }
        pages.split_off(HEADERS.into())
    }

    /// The last page is found for places all over a file, as by going through all.
    fn check(file: &[u8], samples: u64) {
        let pages = pages(file);
        for step in 0..=200 {
            let to = samples * step / 190;
            let expected = pages.iter().rfind(|page| page.samples <= to).copied();
            assert_eq!(page_before(Cursor::new(file), to).expect("reads"), expected, "{to} of {samples}");
        }
    }

    #[test]
    fn a_seek_in_three_hours_reads_little_of_them() {
        const PACKETS: u32 = 3 * 3_600 * 50;
        let file = file(PACKETS, 50, |number| vec![number as u8; 60]);
        for second in [0_u64, 1, 3_600, 7_201, 10_798, 10_799] {
            let cost = Cost::default();
            let counted = Counted(Cursor::new(&file), &cost);
            let page = page_before(counted, second * 48_000 + 20_000).expect("reads").expect("sound");
            assert_eq!(page.samples, second * 48_000);
            let (reads, bytes) = (cost.reads.get(), cost.bytes.get());
            println!("second {second}: {reads} reads of {bytes} bytes, of {}", file.len());
            assert!(reads < 150 && bytes < 150_000, "{reads} reads of {bytes} bytes");
        }
        check(&file, u64::from(PACKETS) * 960);
    }

    #[test]
    fn a_place_is_found_among_pages_that_go_on_with_packets_and_packets_that_look_like_pages() {
        // Every packet is longer than a page, so that pages begin within packets and some have no place.
        let long = file(40, 3, |number| vec![number as u8; 100_000]);
        check(&long, 40 * 960);
        // A page's head within each packet, of the stream's own serial, with nothing behind it.
        let mut head = file(1, 1, |_| vec![1; 300]).split_off(28 + 8 + 28 + 8)[..29].to_vec();
        assert!(Head::of(&head).is_some_and(|head| head.serial == 1 && head.granule == Some(960)));
        head.extend([7; 200]);
        let deceiving = file(1_000, 20, |_| head.clone());
        check(&deceiving, 1_000 * 960);
    }

    #[test]
    fn what_is_no_file_of_sound_has_no_page_of_it() {
        let file = file(10, 10, |_| vec![1; 10]);
        for length in [0, 20, 28 + 8 + 28 + 8] {
            assert_eq!(page_before(Cursor::new(&file[..length]), 0).expect("reads"), None, "{length}");
        }
        assert_eq!(page_before(Cursor::new(&file[1..]), 0).expect_err("no page").kind(), io::ErrorKind::InvalidData);
    }
}
