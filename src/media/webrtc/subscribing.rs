//! What a client gets by its subscribing connection: whose voice and picture each media section carries, and how it is
//! offered.

use std::{
    collections::HashMap,
    mem::offset_of,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::{PublishKind, VideoQuality},
    ids::StreamId,
    prefetch::{prefetch, prefetch_front},
    rtp::{self, transport_number},
    video::{Numbers, Rewriter, VideoCodec, Way},
    voice::{ExtensionId, Mid as VoiceMid, Terms, VoiceStream},
};
use str0m::{
    Rtc,
    change::SdpPendingOffer,
    format::Codec,
    media::{Direction, MediaKind, Mid, Pt},
    rtp::{Extension, RtpWrite, Ssrc, StreamTx},
};

use super::api::{OfferedTrack, Wish};

/// Media sections of one subscriber for voices, and for pictures. Whoever finds none is heard once another has gone. A browser's answer has 0.5 KiB
/// for each of the one and 1.4 KiB for each of the others in JSON, and must be within the 64 KiB of a message.
const VOICES_MAX: usize = 64;
const PICTURES_MAX: usize = 18;
/// Those of them that cameras take: the others are for screens.
const CAMERAS_MAX: usize = 16;
/// Sections of a subscriber.
pub const SECTIONS_MAX: usize = VOICES_MAX + PICTURES_MAX;
/// Offers follow each other no sooner, unless their client asks for one. Who hears many gets an offer whenever one of them comes or goes, and making it and
/// reading its answer take milliseconds; so four a second are answered whole within what the control plane reads of an account.
pub(super) const OFFERS_APART: Micros = Micros::from_millis(250);

/// A connection that its client offered has one section for all voices: it follows another speaker after so much silence.
const SPEAKER_HELD: Micros = Micros::from_millis(300);

/// What may be sent again of a picture, and how much of all that is sent that may be: the library's own figures.
const SENT_AGAIN_PACKETS: usize = 2_000;
const SENT_AGAIN_WITHIN: Duration = Duration::from_secs(3);
const SENT_AGAIN_SHARE: f32 = 0.15;

/// The header extension by which packets are numbered over all streams (draft-holmer-rmcat-transport-wide-cc-extensions-01).
const TRANSPORT_NUMBER: &str = "draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Whose and what.
pub(super) type SourceKey = (StreamId, PublishKind);

/// A media section; first what each packet of a voice needs.
#[repr(C, align(64))]
pub(super) struct Track {
    /// Its packets are sealed by this alone: the library never sends any for the source of a voice.
    pub(super) voice: VoiceStream,
    pub(super) heard_at: Micros,
    /// What its source is called in reports.
    pub(super) cname: Box<str>,
    /// What it carries; `None` while it is nobody's.
    pub(super) of: Option<SourceKey>,
    /// The client knows of it, and takes what is sent.
    sends: Option<Ssrc>,
    media: MediaKind,
    pub(super) mid: Mid,
    negotiated: bool,
    pub(super) picture: Picture,
}

/// A picture on its way to one subscriber.
#[derive(Default)]
pub(super) struct Picture {
    rewriter: Rewriter,
    /// The layer that is sent, and the one that is to be, by their place at the publisher.
    pub(super) current: Option<usize>,
    pub(super) target: Option<usize>,
    pub(super) quality: VideoQuality,
    pt: Option<(VideoCodec, Option<Pt>)>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Sent,
    /// And the subscriber went over to its layer by it.
    Switched,
    /// The layer is not the one that is sent.
    Passed,
    /// The subscriber does not know the coding.
    Unknown,
}

/// The receiving side of a subscriber; first what each packet of a voice needs.
#[repr(C)]
pub(super) struct Subscribing {
    pub(super) desired_bps: u64,
    /// Its client offered it, and takes whoever speaks.
    pub(super) follows_speakers: bool,
    pub(super) deafened: bool,
    pub(super) tracks: Vec<Track>,
    /// The voice that was heard last, and which of them has it.
    latest: Option<(StreamId, usize)>,
    /// All voices: few, and looked up for each packet of another one.
    voices: Vec<(StreamId, usize)>,
    /// What is wished for is not all offered.
    pub(super) behind: bool,
    /// When something was offered last.
    offered_at: Option<Micros>,
    by_source: HashMap<SourceKey, usize>,
    wishes: Vec<Wish>,
    pub(super) pending: Option<SdpPendingOffer>,
    /// When its connection came to stand.
    pub(super) connected_at: Option<Micros>,
    pub(super) way: Way,
    /// What it is sent of pictures, in bits per second; at their best it would be `desired_bps`.
    pub(super) pictures_bps: u64,
    /// The header extension by which pictures are numbered over all streams, as negotiated.
    transport_number: Option<u8>,
}

impl Subscribing {
    /// So much of it voice needs.
    pub(super) const FRONT_BYTES: usize = offset_of!(Self, voices);

    pub(super) fn new(follows_speakers: bool, deafened: bool) -> Self {
        Self {
            tracks: Vec::new(),
            by_source: HashMap::new(),
            voices: Vec::new(),
            latest: None,
            wishes: Vec::new(),
            pending: None,
            behind: false,
            offered_at: None,
            follows_speakers,
            deafened,
            connected_at: None,
            way: Way::default(),
            pictures_bps: 0,
            desired_bps: 0,
            transport_number: None,
        }
    }

    pub(super) fn wish(&mut self, wishes: Vec<Wish>) {
        self.wishes = wishes;
        self.behind = true;
    }

    /// A media section of a connection that the client offered.
    pub(super) fn added(&mut self, mid: Mid, media: MediaKind) {
        self.tracks.push(Track::new(mid, media, None));
    }

    pub(super) fn track_of(&mut self, source: SourceKey) -> Option<&mut Track> {
        let index = *self.by_source.get(&source)?;
        self.tracks.get_mut(index)
    }

    pub(super) fn track_by_mid(&mut self, mid: Mid) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.mid == mid)
    }

    /// When what is wished for may be offered: not while an offer waits for its answer, and not soon after another. `None` where
    /// there is nothing to offer.
    pub(super) fn offers_at(&self) -> Option<Micros> {
        let may_offer = self.behind && self.pending.is_none() && !self.follows_speakers;
        may_offer.then(|| self.offered_at.map_or(Micros::ZERO, |at| at + OFFERS_APART))
    }

    /// Brings the media sections up to the wishes, as a change that is to be offered; `None` where nothing changes. An
    /// offer that was not answered is taken back.
    pub(super) fn plan(&mut self, now: Micros, rtc: &mut Rtc, restart: bool) -> Option<Planned> {
        self.behind = false;
        self.pending = None;
        self.tracks.retain(|track| track.negotiated);
        let freed: Vec<Mid> = self.release_unwished();
        let wishes = self.wishes.clone();
        let mut changes = rtc.sdp_api();
        freed.iter().for_each(|mid| changes.set_direction(*mid, Direction::Inactive));
        for wish in wishes {
            let source = (wish.stream, wish.kind);
            let media = media_of(wish.kind);
            if let Some(track) = self.tracks.iter_mut().find(|track| track.of == Some(source)) {
                track.picture.quality = wish.quality;
                continue;
            }
            let is_camera = |track: &Track| matches!(track.of, Some((_, PublishKind::Video)));
            if wish.kind == PublishKind::Video
                && self.tracks.iter().filter(|track| is_camera(track)).count() >= CAMERAS_MAX
            {
                continue;
            }
            let most = if media == MediaKind::Audio { VOICES_MAX } else { PICTURES_MAX };
            if let Some(free) = self.tracks.iter_mut().find(|track| track.of.is_none() && track.media == media) {
                changes.set_direction(free.mid, Direction::SendOnly);
                free.become_of(source, wish.quality);
            } else if self.tracks.iter().filter(|track| track.media == media).count() < most {
                let mid = changes.add_media(media, Direction::SendOnly, None, None, None);
                let mut track = Track::new(mid, media, Some(source));
                track.picture.quality = wish.quality;
                self.tracks.push(track);
            }
        }
        let restart = restart.then(|| changes.ice_restart(true));
        let planned = changes.apply();
        self.index();
        let (offer, pending) = planned?;
        self.pending = Some(pending);
        self.offered_at = Some(now);
        Some(Planned { sdp: unmeasured_by_voices(&offer.to_sdp_string()), restart })
    }

    /// Sections whose publisher is not wished for any more.
    fn release_unwished(&mut self) -> Vec<Mid> {
        let Self { tracks, wishes, .. } = self;
        let wished = |source: SourceKey| wishes.iter().any(|wish| (wish.stream, wish.kind) == source);
        let unwished = tracks.iter_mut().filter(|track| track.of.is_some_and(|source| !wished(source)));
        unwished
            .map(|track| {
                track.of = None;
                track.mid
            })
            .collect()
    }

    fn index(&mut self) {
        let indexed = self.tracks.iter().enumerate().filter_map(|(index, track)| Some((track.of?, index)));
        self.by_source = indexed.collect();
        let voices = self.by_source.iter().filter(|((_, kind), _)| *kind == PublishKind::Audio);
        self.voices = voices.map(|((stream, _), index)| (*stream, *index)).collect();
        self.latest = None;
    }

    /// The description is agreed upon: which sections the client takes, and under which numbers.
    pub(super) fn settle(&mut self, rtc: &mut Rtc) {
        for track in &mut self.tracks {
            let sends = rtc.media(track.mid).is_some_and(|media| media.direction().is_sending());
            let stream = rtc.direct_api().stream_tx_by_mid(track.mid, None).map(|stream| stream.ssrc());
            track.negotiated = true;
            track.sends = stream.filter(|_| sends);
            track.picture.pt = None;
            if track.media == MediaKind::Video {
                let extensions = rtc.media(track.mid).map(|media| media.remote_extmap());
                let number = extensions.and_then(|known| known.id_of(Extension::TransportSequenceNumber));
                self.transport_number = number.or(self.transport_number);
            }
            if track.media == MediaKind::Audio {
                track.voice.agree(track.sends.and_then(|ssrc| terms(rtc, track.mid, ssrc)));
                track.cname = rtc.media(track.mid).map(|media| media.cname().into()).unwrap_or_default();
            }
        }
    }

    /// Whether it may be sent pictures.
    pub(super) fn has_pictures(&self) -> bool {
        self.tracks.iter().any(|track| track.media == MediaKind::Video && track.is_open())
    }

    /// The library sends a packet; false where it is not to go.
    pub(super) fn sends(&mut self, now: Micros, packet: &[u8]) -> bool {
        if self.way.settles() && self.is_left_over(packet) {
            return false;
        }
        if let Some(number) = self.transport_number.and_then(|id| transport_number(packet, id)) {
            self.way.sent(now, number, packet.len());
        }
        true
    }

    /// Whether a packet is of a layer that is sent no more, of a picture that has stopped or begun anew since it was written: congestion
    /// control has held it back, and it would only take the room of voices.
    fn is_left_over(&self, packet: &[u8]) -> bool {
        let Some((ssrc, number)) = rtp::source(packet).zip(rtp::sequence(packet)) else { return false };
        let is_its = |track: &&Track| track.media == MediaKind::Video && track.sends.is_some_and(|its| *its == ssrc);
        let track = self.tracks.iter().find(is_its);
        track.is_some_and(|Track { picture, .. }| picture.current.is_none() || picture.rewriter.is_past(number))
    }

    /// The section whose voice is sent under a source.
    pub(super) fn voice_by_ssrc(&mut self, ssrc: u32) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|track| track.voice.ssrc() == Some(ssrc))
    }

    /// Whose the sections are.
    pub(super) fn offered(&self) -> Vec<OfferedTrack> {
        let offered = |track: &Track| {
            let (stream, kind) = track.of?;
            Some(OfferedTrack { mid: track.mid.to_string(), stream, kind })
        };
        self.tracks.iter().filter_map(offered).collect()
    }

    /// The section that a frame of voice goes to.
    pub(super) fn voice_track(&mut self, now: Micros, stream: StreamId) -> Option<&mut Track> {
        if !self.follows_speakers {
            let index = self.voice_index(stream)?;
            self.latest = Some((stream, index));
            return self.tracks.get_mut(index);
        }
        let track = self.tracks.iter_mut().find(|track| track.media == MediaKind::Audio)?;
        let source = Some((stream, PublishKind::Audio));
        if track.of != source {
            if track.of.is_some() && now.since(track.heard_at) < SPEAKER_HELD {
                return None;
            }
            track.of = source;
            track.voice.switch();
        }
        Some(track)
    }

    fn voice_index(&self, stream: StreamId) -> Option<usize> {
        let is_it = |(of, _): &&(StreamId, usize)| *of == stream;
        let found = self.latest.as_ref().filter(is_it).or_else(|| self.voices.iter().find(is_it));
        found.map(|(_, index)| *index)
    }

    /// Has what the section of a voice is looked up by fetched from memory, as far as it is not at the front: it is needed soon.
    pub(super) fn prefetch_voices(&self, stream: StreamId) {
        if self.latest.is_none_or(|(latest, _)| latest != stream) {
            self.voices.first().into_iter().for_each(prefetch);
        }
    }

    /// The section that a frame of voice is probably going to.
    pub(super) fn expected_track(&self, stream: StreamId) -> Option<&Track> {
        if self.follows_speakers { self.tracks.first() } else { self.tracks.get(self.voice_index(stream)?) }
    }

    /// A section that takes any picture takes the first there is.
    pub(super) fn follow_pictures(&mut self, pictures: impl Iterator<Item = SourceKey> + Clone) {
        if !self.follows_speakers {
            return;
        }
        let is_there = |source: &SourceKey| pictures.clone().any(|other| other == *source);
        for track in self.tracks.iter_mut().filter(|track| track.media == MediaKind::Video) {
            if track.of.is_none_or(|source| !is_there(&source)) {
                let next = pictures.clone().max_by_key(|(stream, kind)| (*kind == PublishKind::Screen, stream.0));
                if track.of != next {
                    track.of = next;
                    track.picture.stop();
                }
            }
        }
        self.index();
    }
}

/// A change that is to be offered.
pub(super) struct Planned {
    pub(super) sdp: String,
    /// The credentials that the library drew for a new way.
    pub(super) restart: Option<str0m::IceCreds>,
}

/// A description whose sections of voice do not have what ways are measured by: voices are numbered by themselves.
fn unmeasured_by_voices(sdp: &str) -> String {
    let mut is_voice = false;
    let is_kept = |line: &&str| {
        is_voice = if line.starts_with("m=") { line.starts_with("m=audio") } else { is_voice };
        !(is_voice && line.starts_with("a=extmap:") && line.contains(TRANSPORT_NUMBER))
    };
    sdp.split_inclusive('\n').filter(is_kept).collect()
}

fn media_of(kind: PublishKind) -> MediaKind {
    if kind == PublishKind::Audio { MediaKind::Audio } else { MediaKind::Video }
}

impl Track {
    /// So much of it voice needs.
    pub(super) const FRONT_BYTES: usize = offset_of!(Self, mid);

    fn new(mid: Mid, media: MediaKind, of: Option<SourceKey>) -> Self {
        Self {
            mid,
            media,
            of,
            sends: None,
            negotiated: false,
            voice: VoiceStream::default(),
            cname: Box::default(),
            heard_at: Micros::ZERO,
            picture: Picture::default(),
        }
    }

    fn become_of(&mut self, source: SourceKey, quality: VideoQuality) {
        self.of = Some(source);
        self.voice.switch();
        self.picture.stop();
        self.picture.quality = quality;
    }

    /// Has what voice needs of it fetched from memory.
    pub(super) fn prefetch_front(&self) {
        prefetch_front(self, Self::FRONT_BYTES);
    }

    /// Whether anything can be sent in it.
    pub(super) fn is_open(&self) -> bool {
        self.sends.is_some()
    }

    /// What was sent of a picture that stopped for want of room is not sent again: it would stand in the way of voices.
    pub(super) fn forget_sent(&self, rtc: &mut Rtc) {
        let Some(ssrc) = self.sends else { return };
        if let Some(stream) = rtc.direct_api().stream_tx(&ssrc) {
            forget_sent(stream);
        }
    }

    /// Sends a packet of a picture where it is of the layer that is sent, or begins the one that is to be.
    pub(super) fn write_picture(
        &mut self,
        rtc: &mut Rtc,
        (now, at): (Micros, Instant),
        packet: &PicturePacket<'_>,
    ) -> Fate {
        let Some(ssrc) = self.sends else { return Fate::Passed };
        let Picture { rewriter, current, target, pt, .. } = &mut self.picture;
        let begins = *target == Some(packet.layer) && *current != *target && packet.is_keyframe;
        if *current != Some(packet.layer) && !begins {
            return Fate::Passed;
        }
        let pt = match pt {
            Some((codec, pt)) if *codec == packet.codec => *pt,
            _ => {
                let found = payload_type(rtc, self.mid, |codec| codec == as_codec(packet.codec));
                *pt = Some((packet.codec, found));
                found
            }
        };
        let Some(pt) = pt else { return Fate::Unknown };
        if begins {
            rewriter.switch(now, packet.codec, packet.numbers, packet.payload);
            *current = Some(packet.layer);
        }
        let mut payload = Arc::clone(packet.payload);
        let Some(numbers) = rewriter.forward(now, packet.codec, packet.numbers, &mut payload) else {
            return Fate::Passed;
        };
        let mut direct = rtc.direct_api();
        let Some(stream) = direct.stream_tx(&ssrc) else { return Fate::Passed };
        let write = RtpWrite::new(pt, numbers.sequence.into(), numbers.timestamp, at, payload);
        stream.write_rtp(write.marker(packet.marker).nackable(true));
        if begins { Fate::Switched } else { Fate::Sent }
    }
}

impl Picture {
    /// `target` is to be sent from its next whole picture on; what goes on until then ends at once where it is too much.
    pub(super) fn aim_at(&mut self, target: Option<usize>, is_too_much: bool) {
        let changes = self.current.is_some() && self.current != target;
        if changes && (target.is_none() || is_too_much) {
            self.stop();
        }
        self.target = target;
    }

    /// Nothing is sent until a whole picture begins.
    pub(super) fn stop(&mut self) {
        self.rewriter.pause();
        self.current = None;
    }
}

/// Has what was sent of a packet's picture not sent again: it was not sent itself, and none of what may be comes after it.
pub(super) fn forget_before(rtc: &mut Rtc, packet: &[u8]) {
    let mut direct = rtc.direct_api();
    if let Some(stream) = rtp::source(packet).and_then(|ssrc| direct.stream_tx(&ssrc.into())) {
        forget_sent(stream);
    }
}

fn forget_sent(stream: &mut StreamTx) {
    stream.set_rtx_cache(SENT_AGAIN_PACKETS, SENT_AGAIN_WITHIN, Some(SENT_AGAIN_SHARE));
}

/// How a client takes a voice in a section; `None` where it does not know Opus.
fn terms(rtc: &Rtc, mid: Mid, ssrc: Ssrc) -> Option<Terms> {
    let payload_type = *payload_type(rtc, mid, |codec| codec == Codec::Opus)?;
    let extensions = rtc.media(mid)?.remote_extmap();
    let id = |extension| extensions.id_of(extension).and_then(ExtensionId::new);
    let (level_id, mid_id) = (id(Extension::AudioLevel), id(Extension::RtpMid));
    Some(Terms { ssrc: *ssrc, payload_type, level_id, mid: mid_id.zip(VoiceMid::new(&mid)) })
}

/// A packet of a picture on its way.
pub(super) struct PicturePacket<'a> {
    pub(super) codec: VideoCodec,
    pub(super) layer: usize,
    pub(super) is_keyframe: bool,
    pub(super) numbers: Numbers,
    pub(super) marker: bool,
    pub(super) payload: &'a Arc<[u8]>,
}

/// The payload type that a client takes a codec under in a section.
fn payload_type(rtc: &Rtc, mid: Mid, is: impl Fn(Codec) -> bool) -> Option<Pt> {
    let media = rtc.media(mid)?;
    let taken = rtc.codec_config().params().iter().filter(|params| media.remote_pts().contains(&params.pt()));
    taken.filter(|params| is(params.spec().codec)).map(|params| params.pt()).next()
}

pub(super) fn as_codec(codec: VideoCodec) -> Codec {
    match codec {
        VideoCodec::Vp8 => Codec::Vp8,
        VideoCodec::Vp9 => Codec::Vp9,
        VideoCodec::H264 => Codec::H264,
        VideoCodec::Av1 => Codec::Av1,
    }
}

/// The codec of a payload type that a client publishes under.
pub(super) fn codec_of(rtc: &Rtc, pt: Pt) -> Option<VideoCodec> {
    let params = rtc.codec_config().params().iter().find(|params| params.pt() == pt)?;
    VideoCodec::ALL.into_iter().find(|codec| as_codec(*codec) == params.spec().codec)
}

#[cfg(test)]
mod tests {
    use antiphon_core::video::Sight;

    use super::*;

    const SSRC: u32 = 77;

    fn packet(number: u64) -> Vec<u8> {
        [&[0x80, 96][..], &(number as u16).to_be_bytes(), &[0; 4], &SSRC.to_be_bytes(), &[7; 20]].concat()
    }

    /// Writes so many packets of a layer; the numbers that they are sent under.
    fn writes(picture: &mut Picture, layer: usize, count: u64) -> Vec<u64> {
        let at = Micros::from_secs(9);
        let numbers = |sequence| Numbers { sequence, timestamp: 0 };
        let Picture { rewriter, current, .. } = picture;
        if *current != Some(layer) {
            rewriter.switch(at, VideoCodec::H264, numbers(500), &[]);
            *current = Some(layer);
        }
        let mut payload: Arc<[u8]> = Arc::new([]);
        let sent = (500..500 + count).map(|at_source| {
            let sent = rewriter.forward(at, VideoCodec::H264, numbers(at_source), &mut payload);
            sent.expect("it is not from before the switch").sequence
        });
        sent.collect()
    }

    #[test]
    fn what_was_held_back_of_a_picture_that_stopped_is_not_sent_before_it_begins_again_nor_after() {
        let mut side = Subscribing::new(false, false);
        side.tracks.push(Track { sends: Some(SSRC.into()), ..Track::new("v".into(), MediaKind::Video, None) });
        let at = Micros::from_secs(10);
        let sends = |side: &mut Subscribing, number: u64| side.sends(at, &packet(number));
        // So many that the numbers of 16 bits come round meanwhile.
        let high = writes(&mut side.tracks[0].picture, 2, 70_000);
        let [.., first, second, third] = high[..] else { panic!("some were written") };
        assert!(sends(&mut side, first));
        side.tracks[0].picture.stop();
        assert!(sends(&mut side, second), "it has stopped for another reason than its way");
        // The way shrinks.
        side.way.measured(Some(1_000_000));
        let sight = Sight { is_measured: true, newest_bps: Some(100_000), pictures_bps: 900_000, desired_bps: 900_000 };
        assert!(side.way.seen(at, sight));
        side.way.seen(at, sight);
        assert!(side.way.settles());
        assert!(!sends(&mut side, third));
        let low = writes(&mut side.tracks[0].picture, 0, 3);
        assert!(!sends(&mut side, third), "it is of the layer that stopped");
        assert!(low.iter().all(|number| sends(&mut side, *number)));
    }
}
