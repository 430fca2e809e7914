//! Members' own switches: muted and deafened.

use antiphon_core::{engine::Command, gateway::SetVoiceState, ids::StreamId};

use super::{
    Rooms,
    admit::not_joined,
    outlet::Shared,
    presence::Presence,
    room::{Room, Switches},
};
use crate::{cluster::VoiceChange, error::AppError};

impl Rooms {
    /// Sets a member's own switches and tells everyone in the channel, the member included, where something changed.
    ///
    /// # Errors
    /// When the session is not in the channel.
    pub async fn set_voice_state(&self, presence: &Presence, request: &SetVoiceState) -> Result<(), AppError> {
        let _turn = presence.turn.lock().await;
        let place = presence.place(request.channel_id).ok_or_else(not_joined)?;
        let room = &place.room;
        let _room_turn = room.turn.lock().await;
        let change = VoiceChange { muted: request.muted, deafened: request.deafened };
        let set = self.inner.membership.set_voice(room.id, presence.user.id, presence.id, change).await;
        let (member, event) = set.ok_or_else(not_joined)?;
        if let Some(event) = event {
            let set = |switches: &mut Switches| {
                switches.muted = member.muted;
                switches.deafened = member.deafened;
            };
            self.set_switches(room, member.stream, set).await;
            room.broadcast(&Shared::event(&event), None);
        }
        Ok(())
    }

    /// Changes a member's switches here and in the media worker, within the room's turn.
    pub(super) async fn set_switches(&self, room: &Room, stream: StreamId, set: impl FnOnce(&mut Switches)) {
        let flags = {
            let mut live = room.live_mut();
            let Some(member) = live.members.get_mut(&stream) else { return };
            set(&mut member.switches);
            member.switches.flags()
        };
        self.inner.media.send(room.home, Command::SetMemberFlags { channel: room.id, stream, flags }).await;
        if flags.muted {
            self.set_speaking(room, stream, false);
        }
    }
}
