//! Those who meet on other nodes: what they publish, and their pictures, as the relay brings them; and ours for them.
//!
//! What somebody publishes is told at once when it changes and every half a second besides; it is forgotten when it is not heard
//! of for three. So nothing needs to be asked for, and nothing of a node that died is left.

use std::sync::Arc;

use antiphon_core::{
    clock::Micros,
    gateway::PublishKind,
    ids::{ChannelId, StreamId},
    relay::RelayCommand,
    video::{MEETING_BYTES_MAX, Meeting, Numbers, PICTURE_HEAD_BYTES, PictureHead},
};
use str0m::rtp::Ssrc;

use super::{
    Peers,
    subscribing::{PicturePacket, SourceKey},
    video::{Begins, Origin},
};

/// How long what another node told is believed.
const LIFETIME: Micros = Micros::from_secs(3);
/// A packet that is further from the newest than this is of a stream that began anew.
const FAR: u32 = 1_000;
/// So many numbers are before a stream's first packet, for those that come after it and were sent before.
const BEFORE_FIRST: u64 = 1 << 32;
/// How far apart the numbers of two sources are for other nodes, at least: they do not learn which source a packet is of, nor from which
/// node it is.
const SOURCES_APART: u32 = 1 << 16;

/// Something for the relay.
pub(in crate::media) enum ToRelay {
    /// A packet of a picture.
    Picture { channel: ChannelId, head: [u8; PICTURE_HEAD_BYTES], payload: Arc<[u8]> },
    /// A word of those who meet.
    Meeting { channel: ChannelId, bytes: [u8; MEETING_BYTES_MAX], length: usize },
    /// An order.
    Command(RelayCommand),
}

/// Which packets of a stream came, so that each is forwarded once. Their numbers wrap around at any time, since each source's begin
/// elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Without its wrap-arounds.
    newest: u64,
    /// Which of the 64 up to the newest came: none before the first.
    bits: u64,
}

/// What a packet is to those that came of its stream before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    First,
    Again,
    /// The stream began anew with it.
    Anew,
}

impl Seen {
    /// Takes note of a packet: what it is, and its number without wrap-arounds.
    pub(super) fn note(&mut self, sequence: u32) -> (Arrival, u64) {
        let from_newest = sequence.wrapping_sub(self.newest as u32) as i32;
        let is_anew = self.bits != 0 && from_newest.unsigned_abs() > FAR;
        if self.bits == 0 || is_anew {
            *self = Self { newest: BEFORE_FIRST + u64::from(sequence), bits: 1 };
            return (if is_anew { Arrival::Anew } else { Arrival::First }, self.newest);
        }
        let sequence = self.newest.wrapping_add_signed(from_newest.into());
        if let Some(step) = sequence.checked_sub(self.newest) {
            self.bits = u32::try_from(step).ok().and_then(|step| self.bits.checked_shl(step)).unwrap_or(0);
            self.newest = sequence;
        }
        let bit = u32::try_from(self.newest - sequence).ok().and_then(|back| 1_u64.checked_shl(back)).unwrap_or(0);
        let is_first = self.bits & bit == 0 && bit != 0;
        self.bits |= bit;
        (if is_first { Arrival::First } else { Arrival::Again }, sequence)
    }
}

impl Peers {
    /// What the relay is to be given, in place of what `room` is emptied of: nothing is set aside anew in each turn.
    pub(in crate::media) fn take_for_relay(&mut self, room: &mut Vec<ToRelay>) {
        room.clear();
        std::mem::swap(&mut self.to_relay, room);
    }

    pub(super) fn tell_nodes(&mut self, channel: ChannelId, meeting: &Meeting) {
        if self.setup.is_relayed {
            let (bytes, length) = meeting.write();
            self.to_relay.push(ToRelay::Meeting { channel, bytes, length });
        }
    }

    /// Whether somebody here may see other nodes' pictures.
    pub(super) fn tell_interest(&mut self, channel: ChannelId) {
        if self.setup.is_relayed {
            let wanted = self.rooms.get(&channel).is_some_and(|room| !room.subscribers.is_empty());
            self.to_relay.push(ToRelay::Command(RelayCommand::SetPictures { channel, wanted }));
        }
    }

    /// A packet of a picture of somebody here, for the other nodes.
    pub(super) fn send_picture(
        &mut self,
        channel: ChannelId,
        source: SourceKey,
        ssrc: Ssrc,
        packet: &PicturePacket<'_>,
    ) {
        if !self.setup.is_relayed {
            return;
        }
        let head = PictureHead {
            stream: source.0,
            is_screen: source.1 == PublishKind::Screen,
            codec: packet.codec,
            layer: packet.layer,
            marker: packet.marker,
            is_keyframe: packet.is_keyframe,
            sequence: (packet.numbers.sequence as u32).wrapping_add((*ssrc).wrapping_mul(SOURCES_APART)),
            timestamp: packet.numbers.timestamp,
        };
        self.to_relay.push(ToRelay::Picture { channel, head: head.write(), payload: Arc::clone(packet.payload) });
    }

    /// The relay brings something of those who meet on another node.
    pub(in crate::media) fn remote_record(&mut self, now: Micros, channel: ChannelId, is_picture: bool, body: &[u8]) {
        if is_picture {
            if let Some((head, payload)) = PictureHead::read(body) {
                self.remote_picture(now, channel, &head, payload);
            }
            return;
        }
        match Meeting::read(body) {
            Some(Meeting::Publishes { stream, kinds }) => self.remote_publishes(now, channel, stream, kinds),
            Some(Meeting::WantsKeyframe { stream, is_screen, layer }) => {
                let source = (stream, kind_of(is_screen));
                let video = self.rooms.get(&channel).and_then(|room| room.videos.get(&source));
                if video.is_some_and(|video| matches!(video.origin, Origin::Here(_))) {
                    self.want_keyframe(now, channel, source, layer);
                }
            }
            None => {}
        }
    }

    fn remote_publishes(&mut self, now: Micros, channel: ChannelId, stream: StreamId, kinds: Vec<PublishKind>) {
        let room = self.rooms.entry(channel).or_default();
        if let Some(publisher) = room.publishers.get(&stream) {
            // Somebody who is here now was there before; but for those who are on their way from here to there.
            if !publisher.departs || kinds.is_empty() {
                return;
            }
            room.publishers.remove(&stream);
        }
        if kinds.is_empty() {
            room.elsewhere.remove(&stream)
        } else {
            room.elsewhere.insert(stream, now)
        };
        self.tell_publishes(channel, stream, kinds, false);
    }

    fn remote_picture(&mut self, now: Micros, channel: ChannelId, head: &PictureHead, payload: &[u8]) {
        let source = (head.stream, kind_of(head.is_screen));
        let Some(room) = self.rooms.get_mut(&channel).filter(|room| !room.subscribers.is_empty()) else { return };
        if room.publishers.contains_key(&head.stream) {
            return;
        }
        let (video, is_new) = room.video_from(Origin::There(now), source);
        let layer = &mut video.layers[head.layer];
        let (arrival, sequence) = layer.seen.note(head.sequence);
        if arrival == Arrival::Again {
            return;
        }
        let begins = match layer.begins_anew(None, head.codec) || arrival == Arrival::Anew {
            _ if is_new => Begins::All,
            true => Begins::Layer,
            false => Begins::Nothing,
        };
        let packet = PicturePacket {
            codec: head.codec,
            layer: head.layer,
            is_keyframe: head.is_keyframe,
            numbers: Numbers { sequence, timestamp: head.timestamp },
            marker: head.marker,
            payload: &payload.into(),
        };
        self.carry_picture(now, channel, source, &packet, begins);
    }

    /// Somebody here has moved to another node with their session. What they publish is told here until that node does: it is theirs to
    /// tell from then on, also when it ends here.
    pub(super) fn depart(&mut self, channel: ChannelId, stream: StreamId) {
        let publisher = self.rooms.get_mut(&channel).and_then(|room| room.publishers.get_mut(&stream));
        if let Some(publisher) = publisher {
            publisher.departs = true;
        }
    }

    /// Half a second is over: what is published here is told, and what was not heard of is forgotten.
    pub(super) fn refresh_elsewhere(&mut self, now: Micros) {
        if !self.setup.is_relayed {
            return;
        }
        let (mut told, mut forgotten) = (Vec::new(), Vec::new());
        for (channel, room) in &mut self.rooms {
            for stream in room.publishers.keys() {
                told.extend(room.told.get(stream).map(|kinds| (*channel, *stream, kinds.clone())));
            }
            room.videos.retain(|_, video| match video.origin {
                Origin::Here(_) => true,
                Origin::There(at) => now.since(at) < LIFETIME,
            });
            room.elsewhere.retain(|stream, at| {
                let lives = now.since(*at) < LIFETIME;
                if !lives {
                    forgotten.push((*channel, *stream));
                }
                lives
            });
        }
        for (channel, stream, kinds) in told {
            self.tell_nodes(channel, &Meeting::Publishes { stream, kinds });
        }
        for (channel, stream) in forgotten {
            self.tell_publishes(channel, stream, Vec::new(), false);
        }
    }
}

fn kind_of(is_screen: bool) -> PublishKind {
    if is_screen { PublishKind::Screen } else { PublishKind::Video }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_new_once_and_a_stream_may_begin_anew() {
        use Arrival::{Again, Anew, First};
        let mut seen = Seen::default();
        let arrivals = [5_000, 5_000, 5_002, 5_001, 5_001, 5_090, 5_002, 7, 7, 8, 1_008, 2_009].map(|n| seen.note(n).0);
        let expected = [First, Again, First, First, Again, First, Again, Anew, Again, First, First, Anew];
        assert_eq!(arrivals, expected);
    }

    #[test]
    fn a_stream_goes_on_where_its_numbers_wrap_around() {
        use Arrival::{Again, First};
        let mut seen = Seen::default();
        let notes = [u32::MAX - 1, 0, u32::MAX, 0, 1, u32::MAX - 2].map(|n| seen.note(n));
        assert_eq!(notes.map(|(arrival, _)| arrival), [First, First, First, Again, First, First]);
        // By how much each is behind the one that was sent first.
        let steps = notes.map(|(_, number)| number - notes[5].1);
        assert_eq!(steps, [1, 3, 2, 3, 4, 0]);
    }
}
