//! Who speaks: told by the media workers, who hear it, or announced by the speaker.

use antiphon_core::{
    gateway::{AudioStarted, AudioStopped, ErrorCode},
    ids::{ChannelId, StreamId},
};
use parking_lot::RwLockWriteGuard;

use super::{Rooms, admit::not_joined, outlet::Shared, presence::Presence, room::Room};
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
        Ok(())
    }

    /// Tells everyone in the channel that a talk spurt began or ended, once.
    pub(super) fn set_speaking(&self, room: &Room, stream: StreamId, speaking: bool) {
        let mut live = room.live_mut();
        let Some(listed) = live.roster.get_mut(stream) else { return };
        if listed.speaking == speaking {
            return;
        }
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
