//! What a client sends by its publishing connection: which of its media sections is what, and where its packets belong.

use std::{ops::Range, sync::Arc};

use antiphon_core::{
    gateway::PublishKind,
    ids::{ChannelId, StreamId},
    red::Blocks,
    rtp::FrameNumbers,
    video::LAYERS_MAX,
    wire::frame::{FrameHeader, FrameKind, LEVEL_SILENCE},
};
use str0m::{
    Rtc,
    media::{Direction, MediaKind, Mid, Pt, Rid},
    rtp::{RtpPacket, Ssrc},
};

/// The level of a packet that names none: as loud as ordinary speech.
const USUAL_LEVEL: u8 = 30;
/// The RTP streams that one client may send: a voice, a camera and a screen in three layers each, and as many again that
/// took their places.
const SOURCES_MAX: usize = 16;
/// An Opus packet's bit for stereo (RFC 6716, 3.1).
const OPUS_STEREO: u8 = 0x04;

/// A media section.
struct Section {
    mid: Mid,
    kind: PublishKind,
    sends: bool,
    /// Its layers' names in the order they were heard of; one that has none is `None`.
    layers: Vec<Option<Rid>>,
}

/// An RTP stream.
enum Source {
    Voice(Voice),
    Picture {
        kind: PublishKind,
        layer: usize,
    },
    /// More than there may be, or of a section that is not there.
    Ignored,
}

struct Voice {
    numbers: FrameNumbers,
    /// The payload type of redundant audio.
    red: Option<Pt>,
    newest: u64,
    /// Which of the 64 packets up to the newest came.
    seen: u64,
}

/// A frame of voice that came.
pub(in crate::media) struct Arrived {
    pub(in crate::media) channel: ChannelId,
    pub(in crate::media) header: FrameHeader,
    payload: Arc<[u8]>,
    part: Range<usize>,
}

impl Arrived {
    pub(in crate::media) fn bytes(&self) -> &[u8] {
        &self.payload[self.part.clone()]
    }
}

/// What a packet is.
pub(super) enum Packet {
    Voice,
    Picture { kind: PublishKind, layer: usize },
    Ignored,
}

/// The sending side of a publishing connection.
pub(super) struct Publishing {
    sections: Vec<Section>,
    sources: Vec<(Ssrc, Source)>,
    /// What media sections that are new are.
    pub(super) new_kind: PublishKind,
}

impl Publishing {
    pub(super) fn new(new_kind: PublishKind) -> Self {
        Self { sections: Vec::new(), sources: Vec::new(), new_kind }
    }

    /// Takes note of the media sections that an answer speaks of.
    pub(super) fn agreed(&mut self, rtc: &Rtc, answer: &str) {
        let mids = answer.lines().filter_map(|line| line.trim_end().strip_prefix("a=mid:"));
        for media in mids.filter_map(|mid| rtc.media(mid.into())) {
            match self.sections.iter_mut().find(|section| section.mid == media.mid()) {
                Some(section) => section.sends = media.direction().is_receiving(),
                None => self.added(media.mid(), media.kind(), media.direction()),
            }
        }
    }

    fn added(&mut self, mid: Mid, media: MediaKind, direction: Direction) {
        let kind = match (media, self.new_kind) {
            (MediaKind::Audio, _) => PublishKind::Audio,
            (MediaKind::Video, PublishKind::Screen) => PublishKind::Screen,
            (MediaKind::Video, _) => PublishKind::Video,
        };
        self.sections.push(Section { mid, kind, sends: direction.is_receiving(), layers: Vec::new() });
    }

    /// What is published.
    pub(super) fn kinds(&self) -> Vec<PublishKind> {
        let mut kinds: Vec<_> =
            self.sections.iter().filter(|section| section.sends).map(|section| section.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// What a packet is; its stream is looked up when it is new. `next` tells the number that the member's next frame has.
    pub(super) fn packet(&mut self, rtc: &mut Rtc, packet: &RtpPacket, next: impl FnOnce() -> u16) -> Packet {
        let ssrc = packet.header.ssrc;
        let known = self.sources.iter().position(|(known, _)| *known == ssrc);
        let index = known.unwrap_or_else(|| {
            let source = self.new_source(rtc, packet, next);
            if self.sources.len() == SOURCES_MAX {
                self.sources.remove(0);
            }
            self.sources.push((ssrc, source));
            self.sources.len() - 1
        });
        match &self.sources[index].1 {
            Source::Voice(_) => Packet::Voice,
            Source::Picture { kind, layer } => Packet::Picture { kind: *kind, layer: *layer },
            Source::Ignored => Packet::Ignored,
        }
    }

    fn new_source(&mut self, rtc: &mut Rtc, packet: &RtpPacket, next: impl FnOnce() -> u16) -> Source {
        let of = rtc.direct_api().stream_rx(&packet.header.ssrc).map(|stream| (stream.mid(), stream.rid()));
        let section = of.and_then(|(mid, _)| self.sections.iter_mut().find(|section| section.mid == mid));
        let (Some((_, rid)), Some(section)) = (of, section) else { return Source::Ignored };
        if section.kind == PublishKind::Audio {
            let red = rtc.codec_config().params().iter().find_map(|params| params.red());
            let newest = *packet.seq_no;
            return Source::Voice(Voice { numbers: FrameNumbers::new(newest, next()), red, newest, seen: 0 });
        }
        let layer = section.layers.iter().position(|known| *known == rid).unwrap_or(section.layers.len());
        if layer == LAYERS_MAX {
            return Source::Ignored;
        }
        if layer == section.layers.len() {
            section.layers.push(rid);
        }
        Source::Picture { kind: section.kind, layer }
    }

    /// The frames in a packet of voice that were not had before, the oldest first.
    pub(super) fn frames(
        &mut self,
        packet: &RtpPacket,
        (channel, stream): (ChannelId, StreamId),
        mut take: impl FnMut(Arrived, bool),
    ) {
        let ssrc = packet.header.ssrc;
        let source = self.sources.iter_mut().find(|(known, _)| *known == ssrc).map(|(_, source)| source);
        let Some(Source::Voice(voice)) = source else { return };
        let level = packet.header.ext_vals.audio_level.map_or(USUAL_LEVEL, |level| level.unsigned_abs());
        let mut give = |voice: &mut Voice, back: u64, earlier: u32, part: Range<usize>, marker| {
            let Some(sequence) = packet.seq_no.checked_sub(back).and_then(|rtp| voice.take(rtp)) else { return };
            let bytes = &packet.payload[part.clone()];
            let timestamp = packet.header.timestamp.wrapping_sub(earlier);
            let kind = voice.numbers.kind(marker, bytes);
            let level = if kind == FrameKind::Silence { LEVEL_SILENCE } else { level };
            let stereo = bytes.first().is_some_and(|first| first & OPUS_STEREO != 0);
            let header = FrameHeader { stream, sequence, timestamp, kind_flags: 0, level }
                .with_kind(kind)
                .with_flag(FrameHeader::FLAG_STEREO, stereo);
            take(Arrived { channel, header, payload: Arc::clone(&packet.payload), part }, back > 0);
        };
        if voice.red != Some(packet.header.payload_type) {
            return give(voice, 0, 0, 0..packet.payload.len(), packet.header.marker);
        }
        let Some(blocks) = Blocks::parse(&packet.payload) else { return };
        let count = blocks.as_slice().len();
        for (index, block) in blocks.as_slice().iter().enumerate() {
            let back = (count - 1 - index) as u64;
            let begin = block.bytes.as_ptr() as usize - packet.payload.as_ptr() as usize;
            let marker = back == 0 && packet.header.marker;
            give(voice, back, block.earlier.into(), begin..begin + block.bytes.len(), marker);
        }
    }
}

impl Voice {
    /// The number of a packet's frame if it was not had before.
    fn take(&mut self, rtp: u64) -> Option<u16> {
        let sequence = self.numbers.sequence(rtp)?;
        if rtp > self.newest {
            self.seen = self.seen.checked_shl((rtp - self.newest).min(64) as u32).unwrap_or(0);
            self.newest = rtp;
        }
        let bit = 1_u64.checked_shl((self.newest - rtp).min(64) as u32)?;
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new.then_some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_once_however_it_comes() {
        let mut voice = Voice { numbers: FrameNumbers::new(100, 7), red: None, newest: 100, seen: 0 };
        let taken: Vec<_> = [100, 100, 102, 101, 101, 103, 99, 300, 103].map(|rtp| voice.take(rtp)).to_vec();
        assert_eq!(taken, [Some(7), None, Some(9), Some(8), None, Some(10), None, Some(207), None]);
    }
}
