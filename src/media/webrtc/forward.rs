//! What publishers send on its way: voice to the engine, pictures to subscribers, and which layer each gets.

use antiphon_core::{
    clock::Micros,
    engine::Engine,
    gateway::{PeerRole, PublishKind, VideoQuality},
    ids::{ChannelId, StreamId},
    video::{LAYERS_MAX, Meeting, Numbers, Sight, Step, Track as LayerTrack, allocate, desired_bps},
    wire::datagram::DATAGRAM_BYTES_MAX,
};
use str0m::{
    media::{KeyframeRequestKind, Mid},
    net::Protocol,
    rtp::RtpPacket,
    stats::PeerStats,
};

use super::{
    Address, PeerRoom, Peers,
    api::{PeerEvent, PeerKey},
    counters::PeerCounter,
    peer::{Peer, Side},
    publishing::Packet,
    subscribing::{Fate, PicturePacket, SourceKey, Subscribing, codec_of},
    video::{Begins, Origin},
};

/// What is kept of a way's estimate for what is sent beside pictures: lost packets again, and reports.
const KEPT_FOR_VIDEO_PERCENT: u64 = 95;

/// How long measuring a way takes, and what it is taken to carry at least until then: a picture of middling quality, which
/// shows soonest what it does carry.
const MEASURED_AFTER: Micros = Micros::from_secs(3);
const UNMEASURED_BPS: u64 = 2_500_000;
/// A layer that takes so much of what there is for it is not sent on while a lower one is waited for.
const TOO_MUCH_PERCENT: u64 = 120;

impl Peers {
    /// An RTP packet of a publisher.
    pub(super) fn packet(&mut self, now: Micros, number: u32, packet: RtpPacket, engine: &Engine) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let (channel, stream) = (peer.key.channel, peer.key.stream);
        let Side::Publishing(side) = &mut peer.side else { return };
        let next = || engine.next_sequence(channel, stream).unwrap_or(0);
        match side.packet(&mut peer.rtc, &packet, next) {
            Packet::Voice => {
                let (arrived, stats) = (&mut self.arrived, &mut self.stats);
                stats.count(PeerCounter::AudioIn);
                side.frames(&packet, (channel, stream), |frame, recovered| {
                    if recovered {
                        stats.count(PeerCounter::AudioRecovered);
                    }
                    arrived.push(frame);
                });
            }
            Packet::Picture { kind, layer } => {
                self.stats.count(PeerCounter::VideoIn);
                self.picture(now, number, (stream, kind), layer, &packet);
            }
            Packet::Ignored => {}
        }
    }

    fn picture(&mut self, now: Micros, number: u32, source: SourceKey, layer: usize, packet: &RtpPacket) {
        let Some(peer) = self.peers.get(&number) else { return };
        let channel = peer.key.channel;
        let Some(codec) = codec_of(&peer.rtc, packet.header.payload_type) else { return };
        let is_publisher =
            |room: &&mut PeerRoom| room.publishers.get(&source.0).is_some_and(|one| one.number == number);
        // What comes of somebody who publishes on another node by now would only disturb what comes from there.
        let Some(room) = self.rooms.get_mut(&channel).filter(is_publisher) else { return };
        let ssrc = packet.header.ssrc;
        let (video, is_new) = room.video_from(Origin::Here(number), source);
        let begins = match video.layers[layer].begins_anew(Some(ssrc), codec) {
            _ if is_new => Begins::All,
            true => Begins::Layer,
            false => Begins::Nothing,
        };
        let picture = PicturePacket {
            codec,
            layer,
            is_keyframe: codec.begins_keyframe(&packet.payload),
            numbers: Numbers { sequence: *packet.seq_no, timestamp: packet.header.timestamp },
            marker: packet.header.marker,
            payload: &packet.payload,
        };
        self.send_picture(channel, source, ssrc, &picture);
        self.carry_picture(now, channel, source, &picture, begins);
    }

    /// Forwards a packet with which something may begin: whoever was sent what went on until then gets nothing of it before a whole
    /// picture, by which its numbers follow theirs.
    pub(super) fn carry_picture(
        &mut self,
        now: Micros,
        channel: ChannelId,
        source: SourceKey,
        packet: &PicturePacket<'_>,
        begins: Begins,
    ) {
        let mut waits = false;
        match begins {
            Begins::Nothing => {}
            Begins::Layer => waits = self.stop_picture(channel, source, Some(packet.layer)) && !packet.is_keyframe,
            Begins::All => {
                self.stop_picture(channel, source, None);
                self.pictures_changed(now, channel);
            }
        }
        self.forward_picture(now, channel, source, packet);
        if waits {
            self.want_keyframe(now, channel, source, packet.layer);
        }
    }

    /// Stops a picture, or one layer of it, for all subscribers; true where any was sent it.
    fn stop_picture(&mut self, channel: ChannelId, source: SourceKey, layer: Option<usize>) -> bool {
        let Some(room) = self.rooms.get(&channel) else { return false };
        let mut stopped = false;
        for number in &room.subscribers {
            let Some(Side::Subscribing(side)) = self.peers.get_mut(number).map(|peer| &mut peer.side) else { continue };
            let Some(picture) = side.track_of(source).map(|track| &mut track.picture) else { continue };
            if picture.current.is_some() && (layer.is_none() || picture.current == layer) {
                picture.stop();
                stopped = true;
            }
        }
        stopped
    }

    /// Sends a packet of a picture to whoever gets its layer.
    pub(super) fn forward_picture(
        &mut self,
        now: Micros,
        channel: ChannelId,
        source: SourceKey,
        packet: &PicturePacket<'_>,
    ) {
        let at = self.instant(now);
        let Some(room) = self.rooms.get_mut(&channel) else { return };
        let Some(video) = room.videos.get_mut(&source) else { return };
        let layer = &mut video.layers[packet.layer];
        layer.rate.add(packet.payload.len());
        if packet.is_keyframe {
            layer.requests.begun();
        }
        let mut marked = std::mem::take(&mut self.marked);
        for number in &room.subscribers {
            let Some(peer) = self.peers.get_mut(number).filter(|peer| peer.connected) else { continue };
            let Side::Subscribing(side) = &mut peer.side else { continue };
            let Some(track) = side.track_of(source) else { continue };
            match track.write_picture(&mut peer.rtc, (now, at), packet) {
                Fate::Passed => continue,
                Fate::Unknown => self.stats.count(PeerCounter::NoCodec),
                Fate::Switched => self.stats.count(PeerCounter::LayerSwitches),
                Fate::Sent => {}
            }
            self.stats.count(PeerCounter::VideoOut);
            marked.push(*number);
        }
        marked.drain(..).for_each(|number| self.mark(number));
        self.marked = marked;
    }

    /// A subscriber cannot go on without a whole picture.
    pub(super) fn picture_wanted(&mut self, now: Micros, number: u32, mid: Mid) {
        self.stats.count(PeerCounter::KeyframesWanted);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let channel = peer.key.channel;
        let Side::Subscribing(side) = &mut peer.side else { return };
        let Some(track) = side.track_by_mid(mid) else { return };
        let (Some(source), Some(layer)) = (track.of, track.picture.current.or(track.picture.target)) else { return };
        self.want_keyframe(now, channel, source, layer);
    }

    pub(super) fn want_keyframe(&mut self, now: Micros, channel: ChannelId, source: SourceKey, layer: usize) {
        let video = self.rooms.get_mut(&channel).and_then(|room| room.videos.get_mut(&source));
        if let Some(video) = video.filter(|_| layer < LAYERS_MAX) {
            video.layers[layer].requests.want();
            self.ask_for_keyframes(now, channel, source);
        }
    }

    fn ask_for_keyframes(&mut self, now: Micros, channel: ChannelId, source: SourceKey) {
        let Some(video) = self.rooms.get_mut(&channel).and_then(|room| room.videos.get_mut(&source)) else { return };
        let Origin::Here(number) = video.origin else {
            let asked: Vec<usize> = (0..LAYERS_MAX).filter(|layer| video.layers[*layer].requests.poll(now)).collect();
            let (stream, is_screen) = (source.0, source.1 == PublishKind::Screen);
            for layer in asked {
                self.tell_nodes(channel, &Meeting::WantsKeyframe { stream, is_screen, layer });
            }
            return;
        };
        for layer in &mut video.layers {
            let Some(ssrc) = layer.ssrc.filter(|_| layer.requests.poll(now)) else { continue };
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            if let Some(stream) = peer.rtc.direct_api().stream_rx(&ssrc) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
                self.stats.count(PeerCounter::KeyframesAsked);
            }
        }
        self.mark(number);
    }

    /// Half a second is over: rates are measured, layers chosen anew, requests repeated that were not met, and told what was
    /// reported.
    pub(super) fn measure(&mut self, now: Micros) {
        self.refresh_elsewhere(now);
        self.tell_reported();
        let (mut sources, mut subscribers) = (Vec::new(), Vec::new());
        for (channel, room) in &mut self.rooms {
            for (source, video) in &mut room.videos {
                video.measure();
                sources.push((*channel, *source));
            }
            // Once more when the last is gone: nothing of it is desired any more.
            let has_videos = !room.videos.is_empty();
            if has_videos || room.had_videos {
                subscribers.extend_from_slice(&room.subscribers);
            }
            room.had_videos = has_videos;
        }
        for number in subscribers {
            self.choose_layers(now, number);
        }
        for (channel, source) in sources {
            self.ask_for_keyframes(now, channel, source);
        }
    }

    /// A look at a subscriber's way, ten times a second. Where it shows first that pictures are too much for it, voices may have been lost
    /// as well.
    pub(super) fn way_seen(&mut self, now: Micros, number: u32, stats: &PeerStats) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if let Some(pair) = &stats.selected_candidate_pair {
            peer.nominated = Some((pair.protocol, pair.remote.addr));
        }
        let Peer { side: Side::Subscribing(side), nominated, repeats, .. } = &mut **peer else { return };
        let sight = Sight {
            is_measured: is_measured(side, now),
            newest_bps: stats.bwe_tx.map(|bitrate| bitrate.as_u64()),
            pictures_bps: side.pictures_bps,
            desired_bps: side.desired_bps,
        };
        let is_changed = side.way.seen(now, sight);
        let shrank = is_changed && side.way.is_full(now);
        if let (true, Some((Protocol::Udp, _)), Some(bps)) = (shrank, *nominated, sight.newest_bps) {
            repeats.begin(now, side.way.doubtful_since(now), bps);
        }
        if let Some(step) = side.way.tries(now, sight) {
            peer.tell_estimator(step);
            self.mark(number);
            if step == Step::Desire(sight.desired_bps) {
                self.stats.count(PeerCounter::WaysTried);
            }
        }
        if is_changed {
            self.choose_layers(now, number);
        }
        if shrank {
            self.mark(number);
        }
    }

    /// A subscriber tells how packets of pictures crossed its way. Once it has become too narrow for them they stop at once, as each that
    /// is sent on is a voice that is not heard; and the voices that were lost so far are sent again.
    pub(super) fn fed_back(&mut self, now: Micros, number: u32, from: Address, datagram: &[u8]) {
        let mut packet = [0; DATAGRAM_BYTES_MAX];
        let Some(packet) = packet.get_mut(..datagram.len()).filter(|_| is_feedback(datagram)) else { return };
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Peer { side: Side::Subscribing(side), sealing: Some(sealing), nominated, repeats, .. } = &mut **peer else {
            return;
        };
        if *nominated != Some(from) || !side.has_pictures() {
            return;
        }
        packet.copy_from_slice(datagram);
        let Some(compound) = sealing.open_rtcp(packet) else { return };
        let Some(step) = side.way.fed_back(now, compound, side.pictures_bps) else { return };
        if let (Protocol::Udp, Step::Anew(bps)) = (from.0, step) {
            repeats.begin(now, side.way.doubtful_since(now), bps);
        }
        peer.tell_estimator(step);
        self.stats.count(PeerCounter::WaysShrank);
        self.choose_layers(now, number);
    }

    /// Chooses the layer of each picture that a subscriber gets.
    pub(super) fn choose_layers(&mut self, now: Micros, number: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let channel = peer.key.channel;
        let Side::Subscribing(side) = &mut peer.side else { return };
        let Some(room) = self.rooms.get(&channel) else { return };
        let mut wanted = Vec::new();
        let mut layers = Vec::new();
        for (index, track) in side.tracks.iter().enumerate().filter(|(_, track)| track.is_open()) {
            let Some((source, video)) = track.of.and_then(|source| Some((source, room.videos.get(&source)?))) else {
                continue;
            };
            layers.push(LayerTrack {
                layers_bps: video.rates_bps(),
                wanted: best_rank(track.picture.quality),
                current: track.picture.current.map(|layer| video.rank_of(layer)),
                target: None,
            });
            wanted.push((index, source));
        }
        if layers.is_empty() {
            (side.pictures_bps, side.desired_bps) = (0, 0);
            return;
        }
        let budget_bps = budget_bps(side, now);
        allocate(budget_bps, &mut layers);
        side.pictures_bps = layers.iter().filter_map(|layer| Some(layer.layers_bps[layer.target?])).sum();
        side.desired_bps = desired_bps(&layers);
        // While what waits goes through nothing is tried either.
        let desired_bps = if side.way.is_full(now) { 0 } else { side.desired_bps };
        peer.tell_estimator(Step::Desire(desired_bps));
        let Side::Subscribing(side) = &mut peer.side else { return };
        let mut keyframes = Vec::new();
        for ((index, source), chosen) in wanted.into_iter().zip(layers) {
            let Some(video) = room.videos.get(&source) else { continue };
            let target = first_or(chosen.target, &chosen).map(|rank| video.layer_at(rank));
            let picture = &mut side.tracks[index].picture;
            let was_sent = picture.current.is_some();
            picture.aim_at(target, is_too_much(&chosen, budget_bps));
            if target.is_none() && was_sent {
                self.stats.count(PeerCounter::VideoPauses);
            }
            if let Some(layer) = target.filter(|_| picture.current != target) {
                keyframes.push((source, layer));
            }
            if was_sent && picture.current.is_none() {
                side.tracks[index].forget_sent(&mut peer.rtc);
            }
        }
        self.mark(number);
        for (source, layer) in keyframes {
            self.want_keyframe(now, channel, source, layer);
        }
    }

    /// Pictures came or went in a channel.
    pub(super) fn pictures_changed(&mut self, now: Micros, channel: ChannelId) {
        let Some(room) = self.rooms.get(&channel) else { return };
        let sources: Vec<SourceKey> = room.videos.keys().copied().collect();
        for number in room.subscribers.clone() {
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            let own = peer.key.stream;
            if let Side::Subscribing(side) = &mut peer.side {
                side.follow_pictures(sources.iter().copied().filter(|(stream, _)| *stream != own));
            }
            self.choose_layers(now, number);
        }
    }

    /// What a publisher sends may be something else than before.
    pub(super) fn publishes_differently(&mut self, number: u32) {
        let Some(peer) = self.peers.get(&number) else { return };
        let PeerKey { channel, stream, role } = peer.key;
        let Side::Publishing(side) = &peer.side else { return };
        debug_assert_eq!(role, PeerRole::Publisher);
        self.tell_publishes(channel, stream, side.kinds(), true);
    }

    /// Takes note of what somebody publishes, and tells the control plane and, of somebody here, the other nodes.
    pub(super) fn tell_publishes(
        &mut self,
        channel: ChannelId,
        stream: StreamId,
        kinds: Vec<PublishKind>,
        is_here: bool,
    ) {
        let Some(room) = self.rooms.get_mut(&channel) else { return };
        room.videos.retain(|(of, kind), _| *of != stream || kinds.contains(kind));
        let before = if kinds.is_empty() { room.told.remove(&stream) } else { room.told.insert(stream, kinds.clone()) };
        if before.unwrap_or_default() == kinds {
            return;
        }
        self.tell(PeerEvent::Publishes { channel, stream, kinds: kinds.clone() });
        if is_here {
            self.tell_nodes(channel, &Meeting::Publishes { stream, kinds });
        }
        let now = self.setup.clock.now();
        self.pictures_changed(now, channel);
    }
}

/// RTCP that tells of packets of pictures begins with that: receivers send it by itself.
fn is_feedback(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 205, ..])
}

/// A picture of which nothing was measured yet is begun with whatever comes first.
fn first_or(target: Option<usize>, track: &LayerTrack) -> Option<usize> {
    let unmeasured = track.layers_bps == [0; LAYERS_MAX] && track.wanted.is_some();
    target.or((unmeasured && track.current.is_none()).then_some(0)).or(track.current.filter(|_| unmeasured))
}

/// Whether what is estimated of a subscriber's way means something by now.
fn is_measured(side: &Subscribing, now: Micros) -> bool {
    side.connected_at.is_some_and(|at| now.since(at) >= MEASURED_AFTER)
}

/// What a subscriber's way carries beside voices, which congestion control sees as others' traffic.
fn budget_bps(side: &Subscribing, now: Micros) -> u64 {
    side.way.carries_bps().map_or(u64::MAX, |estimate| {
        let estimate = if is_measured(side, now) || estimate == 0 { estimate } else { estimate.max(UNMEASURED_BPS) };
        estimate * KEPT_FOR_VIDEO_PERCENT / 100
    })
}

/// What is sent is so much more than the way carries that it would stand in the way of a lower layer.
fn is_too_much(track: &LayerTrack, budget_bps: u64) -> bool {
    let limit = budget_bps.saturating_mul(TOO_MUCH_PERCENT);
    track.current.is_some_and(|rank| track.layers_bps[rank] * 100 > limit)
}

/// The best place in a picture's order that is asked for.
fn best_rank(quality: VideoQuality) -> Option<usize> {
    match quality {
        VideoQuality::Off => None,
        VideoQuality::Low => Some(0),
        VideoQuality::Medium => Some(1),
        VideoQuality::High => Some(LAYERS_MAX - 1),
    }
}
