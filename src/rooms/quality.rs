//! What speakers are told of how to encode, and when to capture.

use antiphon_core::{
    e_model::Path,
    gateway::QualityHint,
    ids::{ChannelId, MediaSessionId, StreamId},
    quality::Hint,
    wire::control::ReportBlock,
};

use super::{Rooms, outlet::Shared, room::Room};
use crate::{media::webrtc::PeerKey, telemetry::metrics::metrics};

/// The usual length of a frame, and so the grid on which speakers capture.
const GRID_US: u64 = 20_000;

/// Bits per second to speak with where nothing is lost: RFC 7587 (3.1.1) gives 28 to 40 kbit/s for full-band speech,
/// and 64 to 128 for stereo.
pub(super) const fn bitrate(channels: u8) -> u32 {
    if channels == 2 { 64_000 } else { 32_000 }
}

/// Where in the grid a channel's speakers capture: the same for all of one channel, so that their frames share
/// datagrams, and spread evenly over channels, so that the node's load is.
fn phase_us(channel: ChannelId) -> u32 {
    // FNV-1a over the id's bytes: the same on every node and in every release.
    let hash =
        channel.0.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    u32::try_from(hash % GRID_US).unwrap_or(0)
}

fn message(channel: ChannelId, hint: Hint) -> Shared {
    Shared::new(QualityHint {
        channel_id: channel,
        bitrate: hint.bitrate,
        fec: hint.fec,
        dtx: hint.dtx,
        expected_loss: hint.expected_loss,
        phase_us: phase_us(channel),
    })
}

/// What a member should encode with now; `None` when the member has left.
pub(super) fn quality_hint(room: &Room, stream: StreamId) -> Option<Shared> {
    let hint = room.live().members.get(&stream)?.advisor.current();
    Some(message(room.id, hint))
}

/// All mixes of a channel are one stream in its statistics: one of its listeners decides no more than one of a speaker's.
/// No stream has this number.
const MIXES: StreamId = StreamId(0);

impl Rooms {
    /// Takes in what a client reports of one stream it hears, and tells the speaker where that changes the advice.
    pub(super) fn reported(&self, session: MediaSessionId, block: &ReportBlock) {
        let owner = self.inner.udp_sessions.get(&session).and_then(|udp| udp.owner.upgrade());
        let Some(owner) = owner else { return };
        let places: Vec<_> = owner.state().places.values().cloned().collect();
        if let Some(place) = places.iter().find(|place| place.mix == Some(block.stream)) {
            // It tells of the way, but of no speaker's encoder.
            place.room.totals.reported(self.inner.media.now(), place.stream, &ReportBlock { stream: MIXES, ..*block });
            return show(block);
        }
        let heard_in = places.iter().find(|place| place.room.live().roster.get(block.stream).is_some());
        if let Some(place) = heard_in {
            self.reported_in(&place.room, place.stream, block);
        }
    }

    /// Likewise what is reported by WebRTC.
    pub(super) fn peer_reported(&self, key: PeerKey, block: &ReportBlock) {
        if let Some(room) = self.room(key.channel) {
            self.reported_in(&room, key.stream, block);
        }
    }

    fn reported_in(&self, room: &Room, listener: StreamId, block: &ReportBlock) {
        let now = self.inner.media.now();
        let mut live = room.live_mut();
        let Some(speaker) = live.members.get_mut(&block.stream) else { return };
        // Nobody hears themselves, so that only a lie can say how.
        if listener == block.stream {
            return;
        }
        room.totals.reported(now, listener, block);
        show(block);
        speaker.advisor.report(now, listener, block);
        if let Some(hint) = speaker.advisor.poll(now) {
            speaker.outlet.send(&message(room.id, hint));
        }
    }

    /// Lets old reports be forgotten: advice grows better again when those who complained have left.
    pub(super) fn review_quality(&self, room: &Room) {
        let now = self.inner.media.now();
        for member in room.live_mut().members.values_mut() {
            if let Some(hint) = member.advisor.poll(now) {
                member.outlet.send(&message(room.id, hint));
            }
        }
    }
}

/// Lets a report count in the metrics. One about no frames at all says nothing.
fn show(block: &ReportBlock) {
    if block.received == 0 && block.lost_fraction == 0 {
        return;
    }
    let loss = f64::from(block.lost_fraction) / 65_536.0;
    let (round_trip_ms, jitter_ms) = (f64::from(block.round_trip_ms), f64::from(block.jitter_us) / 1e3);
    let voice = &metrics().voice;
    voice.loss.record(loss);
    voice.jitter.record(jitter_ms / 1e3);
    voice.round_trip.record(round_trip_ms / 1e3);
    voice.rating.record(Path { round_trip_ms, jitter_ms, loss }.rating());
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_channels_phase_is_fixed_and_channels_are_spread() {
        assert_eq!(phase_us(ChannelId(Uuid::from_u128(1))), phase_us(ChannelId(Uuid::from_u128(1))));
        let mut quarters = [0; 4];
        for channel in 0..4_000 {
            let phase = phase_us(ChannelId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + channel)));
            quarters[phase as usize / 5_000] += 1;
        }
        assert!(quarters.iter().all(|count| (800..=1_200).contains(count)), "{quarters:?}");
    }
}
