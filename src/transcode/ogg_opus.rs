//! Ogg Opus (RFC 7845), written.
//!
//! ```text
//! page 1:  "OpusHead" | version 1 | channels (1) | pre-skip (2) | input rate (4) | gain (2) | mapping family (1)
//! page 2:  "OpusTags" | vendor length (4) | vendor | comment count (4) | { length (4) | comment }
//! pages:   Opus packets; a page's granule position is the samples at 48 kHz through its last packet
//! ```

use std::io::{self, Write};

use ogg::{PacketWriteEndInfo, PacketWriter};

use super::SAMPLE_RATE_HZ;

/// A page is closed after so many samples: a second, which is what a player that seeks reads too much at most.
const PAGE_SAMPLES: u64 = SAMPLE_RATE_HZ as u64;

/// Tells streams in one file apart (RFC 3533 section 6); ours hold one, so that any number will do.
const STREAM_SERIAL: u32 = 0x414e_5450;

/// Writes a file packet by packet.
pub(super) struct OggOpus<W: Write> {
    packets: PacketWriter<'static, W>,
    /// Held back by one, since the last packet of a stream is marked.
    pending: Option<Vec<u8>>,
    /// Samples at 48 kHz through the pending packet.
    granule: u64,
    /// The same at the end of the last page.
    page_end: u64,
}

impl<W: Write> OggOpus<W> {
    /// Writes both headers; a decoder is to leave out `pre_skip` samples.
    pub(super) fn new(writer: W, channels: u8, pre_skip: u16) -> io::Result<Self> {
        let mut packets = PacketWriter::new(writer);
        packets.write_packet(head(channels, pre_skip), STREAM_SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        packets.write_packet(tags(&[]), STREAM_SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self { packets, pending: None, granule: 0, page_end: 0 })
    }

    /// Appends a packet of so many samples.
    pub(super) fn write(&mut self, packet: Vec<u8>, samples: u64) -> io::Result<()> {
        if let Some(previous) = self.pending.replace(packet) {
            let full = self.granule - self.page_end >= PAGE_SAMPLES;
            let end = if full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.packets.write_packet(previous, STREAM_SERIAL, end, self.granule)?;
            if full {
                self.page_end = self.granule;
            }
        }
        self.granule += samples;
        Ok(())
    }

    /// Ends the stream at `granule`, within its last packet: what is behind is left out (RFC 7845 section 4.4).
    pub(super) fn finish(mut self, granule: u64) -> io::Result<()> {
        if let Some(last) = self.pending.take() {
            self.packets.write_packet(last, STREAM_SERIAL, PacketWriteEndInfo::EndStream, granule)?;
        }
        self.packets.into_inner().flush()
    }
}

/// The first packet of a stream; a decoder is to leave out `pre_skip` samples.
#[must_use]
pub fn head(channels: u8, pre_skip: u16) -> Vec<u8> {
    let mut packet = b"OpusHead\x01".to_vec();
    packet.push(channels);
    packet.extend(pre_skip.to_le_bytes());
    packet.extend(SAMPLE_RATE_HZ.to_le_bytes());
    packet.extend(0_i16.to_le_bytes());
    packet.push(0);
    packet
}

/// The second one: names who wrote it, and what the comments (`NAME=value`) say.
#[must_use]
pub fn tags(comments: &[String]) -> Vec<u8> {
    let vendor = concat!("antiphon ", env!("CARGO_PKG_VERSION"));
    let mut packet = b"OpusTags".to_vec();
    packet.extend((vendor.len() as u32).to_le_bytes());
    packet.extend(vendor.as_bytes());
    packet.extend((comments.len() as u32).to_le_bytes());
    for comment in comments {
        packet.extend((comment.len() as u32).to_le_bytes());
        packet.extend(comment.as_bytes());
    }
    packet
}
