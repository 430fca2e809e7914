//! Members who hear one mix instead of the others' streams (`mode: mixed`): their place with the mixer, how loud they hear
//! whom, and their mix over the gateway where UDP does not reach them.

use std::collections::HashMap;

use antiphon_core::{
    engine::FrameBytes,
    gateway::{AudioBytes, AudioFrame, ErrorCode, JoinChannel, MediaMode, MediaTransport, SetMixGain},
    ids::{ChannelId, StreamId, UserId},
    mix::{Gain, LEVELS_MAX},
    wire::frame::FrameHeader,
};
use uuid::Uuid;

use super::{
    Rooms,
    admit::not_joined,
    join::new_stream_id,
    outlet::Shared,
    presence::Presence,
    room::{Room, Switches},
};
use crate::{
    error::AppError,
    mixer::{MixSeat, Mixer, Sitter},
};

/// What a member with a mix has of it.
#[derive(Debug)]
pub(super) struct MixPlace {
    /// The stream of their mix.
    pub(super) stream: StreamId,
    /// Speakers whom they do not hear as loud as they are.
    gains: HashMap<UserId, Gain>,
    /// Theirs as long as they hear it.
    _seat: MixSeat,
}

impl Rooms {
    pub(super) fn mixer(&self) -> Option<&Mixer> {
        self.inner.config.mixer.as_ref()
    }

    /// Whether whoever asks for a mix could be given one at all.
    pub(super) fn check_mode(&self, request: &JoinChannel) -> Result<(), AppError> {
        let invalid = |message: &str| Err(AppError::new(ErrorCode::InvalidInput, message));
        match (request.mode, request.media, self.mixer()) {
            (MediaMode::Mixed, MediaTransport::Webrtc, _) => invalid(
                "mode `mixed` goes with media `udp` or `websocket`: by `webrtc` each speaker is a track of their own",
            ),
            (MediaMode::Mixed, _, None) => {
                invalid("mode `mixed` is not offered by this server (mixer.threads is 0): use `forward`")
            }
            (MediaMode::Mixed | MediaMode::Forward, ..) => Ok(()),
        }
    }

    /// A seat with the mixer for whoever asks for a mix. Only who may enter the channel learns whether there is one.
    pub(super) fn seat_for(&self, presence: &Presence, request: &JoinChannel) -> Result<Option<MixSeat>, AppError> {
        let mixer = self.mixer().filter(|_| request.mode == MediaMode::Mixed);
        mixer.map(|mixer| mixer.take_seat(request.channel_id, Some(presence.sitter()))).transpose()
    }

    /// A seat for a member who had a mix on another node; `None` where nothing is mixed, or too much: they hear streams then.
    pub(super) fn seat_to_take_over(&self, presence: &Presence, mode: MediaMode) -> Option<MixSeat> {
        self.mixer().filter(|_| mode == MediaMode::Mixed)?.take_over_seat(presence.sitter())
    }

    /// The place of a member who takes a seat: their mix has a stream id that is none of the channel's and none of their own.
    pub(super) fn mix_place(&self, presence: &Presence, room: &Room, seat: MixSeat) -> MixPlace {
        let stream = loop {
            let stream = new_stream_id(presence);
            if room.live().roster.get(stream).is_none() {
                break stream;
            }
        };
        MixPlace { stream, gains: HashMap::new(), _seat: seat }
    }

    /// The mixer mixes for a member from now on.
    pub(super) async fn begin_mix(&self, room: &Room, member: StreamId, mix: &MixPlace, switches: Switches) {
        let Some(mixer) = self.mixer() else { return };
        mixer.add(room.id, room.home, member, mix.stream).await;
        if switches.deafened {
            mixer.set_deafened(room.id, member, true).await;
        }
    }

    /// It does so no longer.
    pub(super) async fn end_mix(&self, room: &Room, member: StreamId) {
        if let Some(mixer) = self.mixer() {
            mixer.remove(room.id, member).await;
        }
    }

    /// A member's switches have changed.
    pub(super) async fn follow_deafened(&self, room: &Room, member: StreamId, deafened: bool) {
        let has_mix = room.live().members.get(&member).is_some_and(|member| member.mix.is_some());
        if let Some(mixer) = self.mixer().filter(|_| has_mix) {
            mixer.set_deafened(room.id, member, deafened).await;
        }
    }

    /// Sets how loud a member hears another in their mix, also when that one comes back.
    ///
    /// # Errors
    /// When the session is not in the channel or hears no mix there, names itself, a gain above 200 or more speakers than it
    /// may.
    pub async fn set_mix_gain(&self, presence: &Presence, request: &SetMixGain) -> Result<(), AppError> {
        let invalid = |message: String| AppError::new(ErrorCode::InvalidInput, message);
        let (percent, most) = (request.gain_percent, Gain::PERCENT_MAX);
        let gain = Gain::from_percent(percent)
            .ok_or_else(|| invalid(format!("gain_percent must be from 0 (silent) to {most}, not {percent}")))?;
        if request.user_id == presence.user.id {
            return Err(invalid("nobody hears themselves in their mix: name another user".to_owned()));
        }
        let place = presence.place(request.channel_id).ok_or_else(not_joined)?;
        // Whoever comes or goes meanwhile has their levels set in the same order.
        let _turn = place.room.turn.lock().await;
        let speaker = {
            let live = &mut *place.room.live_mut();
            let member = live.members.get_mut(&place.stream).ok_or_else(not_joined)?;
            let mix = member.mix.as_mut().ok_or_else(|| {
                invalid("this session hears each speaker's own stream there: join with `mode` `mixed`".to_owned())
            })?;
            mix.set_gain(request.user_id, gain).map_err(invalid)?;
            live.roster.stream_of(request.user_id)
        };
        if let (Some(mixer), Some(speaker)) = (self.mixer(), speaker) {
            mixer.set_level(place.room.id, place.stream, speaker, gain).await;
        }
        Ok(())
    }

    /// Somebody came: those who set how loud they hear them do so again, whatever stream they have now.
    pub(super) async fn apply_gains_to(&self, room: &Room, speaker: UserId, stream: StreamId) {
        self.set_levels(room, speaker, stream, |gain| gain).await;
    }

    /// Somebody has gone: their stream does not come again, and its level would take another's place.
    pub(super) async fn forget_levels_of(&self, room: &Room, speaker: UserId, stream: StreamId) {
        self.set_levels(room, speaker, stream, |_| Gain::USUAL).await;
    }

    async fn set_levels(&self, room: &Room, speaker: UserId, stream: StreamId, level: impl Fn(Gain) -> Gain) {
        let Some(mixer) = self.mixer() else { return };
        let set: Vec<(StreamId, Gain)> = {
            let live = room.live();
            let gain_of = |(member, local): (&StreamId, &super::room::LocalMember)| {
                Some((*member, *local.mix.as_ref()?.gains.get(&speaker)?))
            };
            live.members.iter().filter_map(gain_of).collect()
        };
        for (member, gain) in set {
            mixer.set_level(room.id, member, stream, level(gain)).await;
        }
    }

    /// Sends a frame of a member's mix over the gateway.
    pub(super) fn tunnelled_mix(&self, channel: ChannelId, member: StreamId, header: &FrameHeader, bytes: &FrameBytes) {
        let Some(room) = self.room(channel) else { return };
        let live = room.live();
        let Some(listener) = live.members.get(&member).filter(|member| member.is_tunnelled()) else { return };
        listener.outlet.send_audio(&Shared::new(AudioFrame {
            channel_id: channel,
            // A mix is nobody's.
            user_id: UserId(Uuid::nil()),
            stream_id: header.stream,
            data: AudioBytes(bytes.as_slice().to_vec()),
            sequence: header.sequence,
            timestamp: header.timestamp,
            kind: header.kind_flags,
            level: header.level,
        }));
    }
}

impl Presence {
    /// Whose seat with the mixer it is.
    fn sitter(&self) -> Sitter {
        Sitter { user: self.user.id, address: self.state().link.address }
    }
}

impl MixPlace {
    fn set_gain(&mut self, speaker: UserId, gain: Gain) -> Result<(), String> {
        if gain == Gain::USUAL {
            self.gains.remove(&speaker);
            return Ok(());
        }
        if self.gains.len() >= LEVELS_MAX && !self.gains.contains_key(&speaker) {
            return Err(format!(
                "levels of {LEVELS_MAX} speakers are set, the most allowed: set one back to 100 first"
            ));
        }
        self.gains.insert(speaker, gain);
        Ok(())
    }
}
