//! Members' own switches: muted and deafened.

use antiphon_core::{engine::Command, gateway::SetVoiceState, ids::StreamId};

use super::{
    Rooms,
    admit::not_joined,
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
        let mut room_turn = room.turn.lock().await;
        let change = VoiceChange { muted: request.muted, deafened: request.deafened };
        let (membership, user, known) = (&self.inner.membership, presence.user.id, room.applied());
        let shared = membership.set_voice(room.id, user, presence.id, change, known.as_ref());
        let node = membership.node();
        let set = self.step(room, shared, |alone| alone.set_voice(node, user, presence.id, change, None)).await?;
        self.take_change(room, set.ok_or_else(not_joined)?.news).await;
        // Somebody else may have removed the last member here meanwhile.
        self.close_if_empty(room, &mut room_turn).await;
        Ok(())
    }

    /// Changes the switches of a member who is here, and in the media worker, within the room's turn.
    pub(super) async fn set_switches(&self, room: &Room, stream: StreamId, set: impl FnOnce(&mut Switches)) {
        let flags = {
            let mut live = room.live_mut();
            let Some(member) = live.members.get_mut(&stream) else { return };
            set(&mut member.switches);
            member.switches.flags()
        };
        self.inner.media.send(room.home, Command::SetMemberFlags { channel: room.id, stream, flags }).await;
        self.follow_deafened(room, stream, flags.deafened).await;
    }
}
