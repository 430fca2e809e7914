//! One listener's Ogg Opus (RFC 7845): its own headers, its own page numbers, and a granule position that begins with them.
//! Whatever a listener misses is not in their file, so that for a player nothing is ever missing.

use antiphon_core::opus_packet::pad_to;
use bytes::Bytes;
use ogg::{PacketWriteEndInfo, PacketWriter};

use crate::{
    mixer::SILENCE,
    random,
    transcode::{head, tags},
};

/// Samples of a packet.
const PACKET_SAMPLES: u64 = 960;
/// Whoever begins within a stream leaves out 80 ms, by when a decoder has caught up (RFC 7845, section 4.6).
const PRE_SKIP: u16 = 3_840;
/// Packets in a second.
const PACKETS_PER_S: u32 = 50;

pub(super) struct LiveOgg {
    packets: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    granule: u64,
    /// What every packet is filled up to, in bytes.
    floor: usize,
}

impl LiveOgg {
    /// With what the file says of itself (`NAME=value`); packets are filled up to `floor_bps`.
    pub(super) fn new(comments: &[String], floor_bps: u32) -> Self {
        let floor = usize::try_from(floor_bps / 8 / PACKETS_PER_S).unwrap_or(0);
        let mut ogg = Self { packets: PacketWriter::new(Vec::new()), serial: random::number(), granule: 0, floor };
        ogg.write(head(1, PRE_SKIP), PacketWriteEndInfo::EndPage);
        ogg.write(tags(comments), PacketWriteEndInfo::EndPage);
        ogg
    }

    /// A page with these packets; what was written before and not taken is in front of it.
    pub(super) fn page(&mut self, packets: &[Vec<u8>]) -> Bytes {
        for (index, packet) in packets.iter().enumerate() {
            let last = index + 1 == packets.len();
            self.append(packet, if last { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket });
        }
        self.take()
    }

    /// The last page: the file is whole, and a player that wants more asks anew.
    pub(super) fn end(&mut self) -> Bytes {
        self.append(&SILENCE, PacketWriteEndInfo::EndStream);
        self.take()
    }

    /// What was written and not taken.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(self.packets.inner_mut()).into()
    }

    fn append(&mut self, packet: &[u8], end: PacketWriteEndInfo) {
        let mut padded = Vec::with_capacity(packet.len().max(self.floor));
        pad_to(packet, self.floor, &mut padded);
        self.granule += PACKET_SAMPLES;
        self.write(padded, end);
    }

    fn write(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo) {
        let written = self.packets.write_packet(packet, self.serial, end, self.granule);
        debug_assert!(written.is_ok(), "memory takes everything");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ogg::PacketReader;

    use super::*;

    #[test]
    fn a_listeners_file_begins_with_headers_goes_on_without_gaps_and_ends() {
        let mut ogg = LiveOgg::new(&["TITLE=Lobby".to_owned()], 64_000);
        let mut file = ogg.take().to_vec();
        file.extend(ogg.page(&vec![SILENCE.to_vec(); 5]));
        file.extend(ogg.page(&[vec![0xf8; 200], SILENCE.to_vec()]));
        file.extend(ogg.end());
        let mut reader = PacketReader::new(Cursor::new(file));
        let mut packets = Vec::new();
        while let Some(packet) = reader.read_packet().expect("Ogg") {
            packets.push(packet);
        }
        assert_eq!(packets.len(), 2 + 5 + 2 + 1);
        assert!(packets[0].data.starts_with(b"OpusHead\x01\x01\x00\x0f"), "{:?}", packets[0].data);
        assert!(packets[1].data.starts_with(b"OpusTags") && packets[1].data.ends_with(b"TITLE=Lobby"));
        assert!(packets.iter().take(2).all(|packet| packet.absgp_page() == 0));
        let lengths: Vec<usize> = packets[2..].iter().map(|packet| packet.data.len()).collect();
        assert_eq!(lengths, [160, 160, 160, 160, 160, 200, 160, 160], "filled up, and never cut");
        let positions: Vec<u64> = packets[2..].iter().map(ogg::Packet::absgp_page).collect();
        assert_eq!(positions, [4_800, 4_800, 4_800, 4_800, 4_800, 6_720, 6_720, 7_680]);
        assert!(packets.last().expect("some").last_in_stream());
    }
}
