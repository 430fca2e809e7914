//! Who speaks: told by the media workers, who hear it, or announced by the speaker.

use std::sync::Arc;

use antiphon_core::{
    gateway::{AudioStarted, AudioStopped, ErrorCode},
    ids::{ChannelId, StreamId},
};
use parking_lot::RwLockWriteGuard;

use super::{
    Rooms,
    admit::not_joined,
    outlet::Shared,
    presence::Presence,
    room::{LocalMember, Room},
};
use crate::error::AppError;

impl Rooms {
    /// Announces that a member is about to speak, or has ended; it makes no frame.
    ///
    /// # Errors
    /// When the session is not in the channel, or is muted there and wants to speak.
    pub fn announce(&self, presence: &Presence, channel: ChannelId, speaking: bool) -> Result<(), AppError> {
        let place = presence.place(channel).ok_or_else(not_joined)?;
        let switches = place.room.live().members.get(&place.stream).map(|member| member.switches);
        let switches = switches.ok_or_else(not_joined)?;
        if speaking && switches.server_muted {
            return Err(AppError::new(ErrorCode::PermissionDenied, "a moderator has muted you in this channel"));
        }
        if speaking && switches.muted {
            let message = "you are muted in this channel: send SetVoiceState with `muted` false first";
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        self.set_speaking(&place.room, place.stream, speaking);
        if speaking {
            self.end_without_sound(&place.room, place.stream);
        }
        Ok(())
    }

    /// The media worker hears that a talk spurt began or ended.
    pub(super) fn sounds(&self, room: &Room, stream: StreamId, speaking: bool) {
        if let Some(member) = room.live_mut().members.get_mut(&stream) {
            member.sounding = speaking;
        }
        self.set_speaking(room, stream, speaking);
    }

    /// Ends an announced spurt after a while, unless there is sound by then: its end is then heard. A later
    /// announcement takes the place of an earlier one, so that a member has one such task.
    fn end_without_sound(&self, room: &Arc<Room>, stream: StreamId) {
        let mut live = room.live_mut();
        let Some(member) = live.members.get_mut(&stream).filter(|member| !member.sounding) else { return };
        let (rooms, room, patience) = (self.clone(), Arc::downgrade(room), self.inner.config.announced_for);
        let waiting = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(room) = room.upgrade() {
                rooms.set_speaking_where(&room, stream, false, |member| member.is_some_and(|member| !member.sounding));
            }
        });
        if let Some(earlier) = member.announced.replace(waiting.abort_handle()) {
            earlier.abort();
        }
    }

    /// Tells everyone in the channel that a talk spurt began or ended, once.
    pub(super) fn set_speaking(&self, room: &Room, stream: StreamId, speaking: bool) {
        self.set_speaking_where(room, stream, speaking, |_| true);
    }

    /// Likewise, of a member who is as `wanted` at that moment; one of another node is nobody here.
    fn set_speaking_where(
        &self,
        room: &Room,
        stream: StreamId,
        speaking: bool,
        wanted: impl FnOnce(Option<&LocalMember>) -> bool,
    ) {
        let mut live = room.live_mut();
        let Some(listed) = live.roster.get(stream) else { return };
        if listed.speaking == speaking || !wanted(live.members.get(&stream)) {
            return;
        }
        if !speaking && let Some(announced) = live.members.get_mut(&stream).and_then(|member| member.announced.take()) {
            announced.abort();
        }
        let Some(listed) = live.roster.get_mut(stream) else { return };
        listed.speaking = speaking;
        let user_id = listed.member.user.id;
        let message = if speaking {
            Shared::new(AudioStarted { user_id, channel_id: room.id })
        } else {
            Shared::new(AudioStopped { user_id, channel_id: room.id })
        };
        // Not let go of in between: everybody gets the changes in the order in which they were made.
        let live = RwLockWriteGuard::downgrade(live);
        for member in live.members.values() {
            member.outlet.send(&message);
        }
    }
}
