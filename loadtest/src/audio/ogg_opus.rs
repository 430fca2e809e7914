//! Ogg Opus (RFC 7845): packets out of a file as they are, and into one.
//!
//! ```text
//! page 1:  "OpusHead" | version 1 | channels (1) | pre-skip (2) | input rate (4) | gain (2) | mapping family (1)
//! page 2:  "OpusTags" | vendor length (4) | vendor | comment count (4) | { length (4) | comment }
//! pages:   Opus packets; a page's granule position is the samples at 48 kHz through its last packet
//! ```

use std::io::{self, Read, Seek, Write};

use antiphon_core::opus_packet;
use ogg::{OggReadError, PacketReader, PacketWriteEndInfo, PacketWriter};

use super::SAMPLE_RATE_HZ;

/// Samples a decoder discards at the start: libopus' look-ahead at 48 kHz, 6.5 ms.
pub const PRE_SKIP_SAMPLES: u16 = 312;

/// A page is closed after so many samples: a second, so that a recording cut short loses no more.
const PAGE_SAMPLES: u64 = SAMPLE_RATE_HZ as u64;

/// Tells streams in one file apart (RFC 3533 section 6); ours hold one, so that any number will do.
const STREAM_SERIAL: u32 = 0x414e_5450;

/// What is wrong with an Ogg Opus file.
#[derive(Debug, thiserror::Error)]
pub enum OggOpusError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not an intact Ogg file.
    #[error("not an Ogg file: {0}")]
    Container(String),
    /// An Ogg file without what RFC 7845 demands.
    #[error("not an Ogg Opus file: {0}")]
    Malformed(&'static str),
    /// Something that RFC 7845 allows and voice has no use for.
    #[error("unsupported Ogg Opus file: {0}")]
    Unsupported(String),
}

impl From<OggReadError> for OggOpusError {
    fn from(error: OggReadError) -> Self {
        match error {
            OggReadError::ReadError(error) => Self::Io(error),
            other => Self::Container(other.to_string()),
        }
    }
}

/// The identification header (RFC 7845 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusHead {
    /// 1 or 2.
    pub channels: u8,
    /// Samples at 48 kHz that a decoder discards at the start.
    pub pre_skip: u16,
    /// What was recorded at; informative.
    pub input_rate_hz: u32,
}

impl OpusHead {
    const MAGIC: &[u8; 8] = b"OpusHead";
    const BYTES: usize = 19;

    fn parse(packet: &[u8]) -> Result<Self, OggOpusError> {
        if packet.len() < Self::BYTES || &packet[..8] != Self::MAGIC {
            return Err(OggOpusError::Malformed("its first packet is no OpusHead"));
        }
        // The upper half is the major version; a different one cannot be read (RFC 7845 section 5.1).
        if packet[8] >> 4 != 0 {
            return Err(OggOpusError::Unsupported(format!("version {}", packet[8])));
        }
        let (channels, family) = (packet[9], packet[18]);
        if family != 0 || !(1..=2).contains(&channels) {
            let what = format!("{channels} channels, mapping family {family}; voice is mono or stereo of family 0");
            return Err(OggOpusError::Unsupported(what));
        }
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes([packet[10], packet[11]]),
            input_rate_hz: u32::from_le_bytes([packet[12], packet[13], packet[14], packet[15]]),
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut packet = Self::MAGIC.to_vec();
        packet.push(1);
        packet.push(self.channels);
        packet.extend(self.pre_skip.to_le_bytes());
        packet.extend(self.input_rate_hz.to_le_bytes());
        packet.extend(0_i16.to_le_bytes());
        packet.push(0);
        packet
    }
}

fn opus_tags(comments: &[String]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let vendor = concat!("antiphon ", env!("CARGO_PKG_VERSION"));
    let mut packet = b"OpusTags".to_vec();
    packet.extend(length(vendor));
    packet.extend(vendor.as_bytes());
    packet.extend(u32::try_from(comments.len()).unwrap_or(0).to_le_bytes());
    for comment in comments {
        packet.extend(length(comment));
        packet.extend(comment.as_bytes());
    }
    packet
}

/// Reads a file's packets one by one.
pub struct OggOpusReader<R: Read + Seek> {
    packets: PacketReader<R>,
    head: OpusHead,
    serial: u32,
    ended: bool,
}

impl<R: Read + Seek> OggOpusReader<R> {
    /// Reads both headers.
    ///
    /// # Errors
    /// When this is no Ogg Opus file of one or two channels.
    pub fn new(reader: R) -> Result<Self, OggOpusError> {
        let mut packets = PacketReader::new(reader);
        let first = packets.read_packet()?.ok_or(OggOpusError::Malformed("it is empty"))?;
        let head = OpusHead::parse(&first.data)?;
        let tags = packets.read_packet()?.ok_or(OggOpusError::Malformed("it ends after its first packet"))?;
        if !tags.data.starts_with(b"OpusTags") {
            return Err(OggOpusError::Malformed("its second packet is no OpusTags"));
        }
        Ok(Self { packets, head, serial: first.stream_serial(), ended: false })
    }

    /// The identification header.
    pub fn head(&self) -> OpusHead {
        self.head
    }

    /// The next Opus packet, bit for bit; `None` at the end of the stream. Other streams in the file are passed over.
    ///
    /// # Errors
    /// When the file is broken or a packet is no Opus packet.
    pub fn next_packet(&mut self) -> Result<Option<Vec<u8>>, OggOpusError> {
        while !self.ended {
            let Some(packet) = self.packets.read_packet()? else { break };
            if packet.stream_serial() != self.serial {
                continue;
            }
            self.ended = packet.last_in_stream();
            // Some muxers end a stream with an empty packet (a page without one).
            if packet.data.is_empty() {
                continue;
            }
            if opus_packet::duration_samples(&packet.data).is_err() {
                return Err(OggOpusError::Malformed("one of its packets is no Opus packet (RFC 6716 section 3)"));
            }
            return Ok(Some(packet.data));
        }
        Ok(None)
    }
}

/// Writes packets as they are.
pub struct OggOpusWriter<W: Write> {
    packets: PacketWriter<'static, W>,
    /// Held back by one, since the last packet of a stream is marked.
    pending: Option<Vec<u8>>,
    /// Samples at 48 kHz through the pending packet.
    granule: u64,
    /// The same at the end of the last page.
    page_end: u64,
}

impl<W: Write> OggOpusWriter<W> {
    /// Writes both headers; `comments` are `NAME=value` texts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(writer: W, head: OpusHead, comments: &[String]) -> Result<Self, OggOpusError> {
        let mut packets = PacketWriter::new(writer);
        packets.write_packet(head.write(), STREAM_SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        packets.write_packet(opus_tags(comments), STREAM_SERIAL, PacketWriteEndInfo::EndPage, 0)?;
        Ok(Self { packets, pending: None, granule: 0, page_end: 0 })
    }

    /// Appends one packet.
    ///
    /// # Errors
    /// When it is no Opus packet or the file cannot be written.
    pub fn write(&mut self, packet: &[u8]) -> Result<(), OggOpusError> {
        let samples =
            opus_packet::duration_samples(packet).map_err(|_| OggOpusError::Malformed("no Opus packet to write"))?;
        if let Some(previous) = self.pending.take() {
            let full = self.granule - self.page_end >= PAGE_SAMPLES;
            let end = if full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.packets.write_packet(previous, STREAM_SERIAL, end, self.granule)?;
            if full {
                self.page_end = self.granule;
                self.packets.inner_mut().flush()?;
            }
        }
        self.granule += u64::from(samples);
        self.pending = Some(packet.to_vec());
        Ok(())
    }

    /// Appends what stands for `samples` of lost or unsent sound, so that what follows keeps its time: packets of the
    /// same configuration as `neighbour` with nothing in them, which ask a decoder to conceal (RFC 7845 section 4.1).
    /// Returns how many were written.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_gap(&mut self, neighbour: &[u8], samples: u32) -> Result<u32, OggOpusError> {
        // One frame (code 0) of no bytes: the TOC byte alone (RFC 6716 section 3.2.1).
        let Some(toc) = neighbour.first().map(|toc| toc & 0b1111_1100) else { return Ok(0) };
        let frame_samples = opus_packet::duration_samples(&[toc]).unwrap_or(super::FRAME_SAMPLES as u32);
        let count = samples / frame_samples;
        for _ in 0..count {
            self.write(&[toc])?;
        }
        Ok(count)
    }

    /// Samples written so far, at 48 kHz.
    pub fn samples(&self) -> u64 {
        self.granule
    }

    /// Marks the end of the stream and gives the writer back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<W, OggOpusError> {
        if let Some(last) = self.pending.take() {
            self.packets.write_packet(last, STREAM_SERIAL, PacketWriteEndInfo::EndStream, self.granule)?;
        }
        let mut writer = self.packets.into_inner();
        writer.flush()?;
        Ok(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HEAD: OpusHead = OpusHead { channels: 1, pre_skip: PRE_SKIP_SAMPLES, input_rate_hz: 48_000 };

    /// CELT, full band, 20 ms, mono, one frame.
    fn packet(seed: u8, bytes: usize) -> Vec<u8> {
        let mut packet = vec![31 << 3];
        packet.extend((1..bytes).map(|n| seed.wrapping_mul(31).wrapping_add(n as u8)));
        packet
    }

    fn write_all(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = OggOpusWriter::new(Cursor::new(Vec::new()), HEAD, &["ARTIST=ann".to_owned()]).expect("writes");
        for packet in packets {
            writer.write(packet).expect("writes");
        }
        writer.finish().expect("writes").into_inner()
    }

    #[test]
    fn packets_come_back_bit_for_bit_and_granules_count_samples() {
        let packets: Vec<_> = (0..175).map(|n| packet(n, 40 + usize::from(n))).collect();
        let file = write_all(&packets);
        let mut reader = OggOpusReader::new(Cursor::new(&file)).expect("opens");
        assert_eq!(reader.head(), HEAD);
        let mut read = Vec::new();
        while let Some(packet) = reader.next_packet().expect("reads") {
            read.push(packet);
        }
        assert_eq!(read, packets);

        let mut pages = PacketReader::new(Cursor::new(&file));
        let mut granules = Vec::new();
        while let Some(packet) = pages.read_packet().expect("reads") {
            if packet.last_in_page() {
                granules.push((packet.absgp_page(), packet.last_in_stream()));
            }
        }
        // Two header pages, a page for each second, and the rest, which ends the stream.
        assert_eq!(
            granules,
            [(0, false), (0, false), (48_000, false), (96_000, false), (144_000, false), (168_000, true)]
        );
    }

    #[test]
    fn gaps_keep_time_and_read_as_packets_without_content() {
        let mut writer = OggOpusWriter::new(Cursor::new(Vec::new()), HEAD, &[]).expect("writes");
        let speech = packet(1, 60);
        writer.write(&speech).expect("writes");
        assert_eq!(writer.write_gap(&speech, 3 * 960).expect("writes"), 3);
        writer.write(&speech).expect("writes");
        assert_eq!(writer.samples(), 5 * 960);
        let file = writer.finish().expect("writes").into_inner();
        let mut reader = OggOpusReader::new(Cursor::new(file)).expect("opens");
        let mut sizes = Vec::new();
        while let Some(packet) = reader.next_packet().expect("reads") {
            sizes.push(packet.len());
        }
        assert_eq!(sizes, [60, 1, 1, 1, 60]);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let cases: [(&[u8], &str); 2] = [(b"RIFF....WAVE and so on, long enough for a page", "Ogg"), (b"", "Ogg")];
        for (bytes, reason) in cases {
            let error = OggOpusReader::new(Cursor::new(bytes)).err().expect("refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
        let surround = OpusHead { channels: 6, ..HEAD };
        let file =
            OggOpusWriter::new(Cursor::new(Vec::new()), surround, &[]).expect("writes").finish().expect("writes");
        let error = OggOpusReader::new(Cursor::new(file.into_inner())).err().expect("refused").to_string();
        assert!(error.contains("mono or stereo"), "{error}");
    }
}
