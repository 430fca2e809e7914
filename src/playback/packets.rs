//! The packets of an Ogg Opus file in their order, each with where it is, how long it lasts and how loud it is.

use std::io::{self, Read, Seek, SeekFrom};

use antiphon_core::{
    mix::{PACKET_SAMPLES_MAX, level_of},
    opus_packet::duration_samples,
};
use ogg::PacketReader;

use super::pages::{HEADERS, Page};

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
    use crate::playback::pages::page_before;

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
    fn packets_go_on_from_a_page_with_where_they_are() {
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
    }
}
