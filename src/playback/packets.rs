//! The packets of an Ogg Opus file in their order, each with how long it lasts and how loud it is.

use std::io::{self, Read, Seek};

use antiphon_core::{
    mix::{PACKET_SAMPLES_MAX, level_of},
    opus_packet::duration_samples,
};
use ogg::PacketReader;

/// A packet as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// At 48 kHz.
    pub(super) samples: u32,
    /// RFC 6464 level of what it decodes to.
    pub(super) level: u8,
}

/// Reads a file of our own making from its beginning.
pub(super) struct Packets<R: Read + Seek> {
    reader: PacketReader<R>,
    decoder: opus::Decoder,
    samples: Vec<i16>,
    /// Headers that are still to come.
    headers: u8,
}

impl<R: Read + Seek> Packets<R> {
    pub(super) fn new(file: R) -> io::Result<Self> {
        // To one channel, which is enough to say how loud it is.
        let decoder = opus::Decoder::new(48_000, opus::Channels::Mono).map_err(io::Error::other)?;
        Ok(Self { reader: PacketReader::new(file), decoder, samples: vec![0; PACKET_SAMPLES_MAX], headers: 2 })
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
            return Ok(Some(Packet { bytes: packet.data, samples, level }));
        }
    }
}
