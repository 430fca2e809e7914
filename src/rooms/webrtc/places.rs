//! Places among those who publish in a room: as many as its maker wished, counted over all nodes at once.
//!
//! A member takes one before anything is published and has it until nothing is, or until they leave; it moves with their session. Who
//! publishes in a room that goes on alone is counted among those known here, and nobody loses a place when nodes agree again.

use std::sync::Arc;

use antiphon_core::{
    gateway::{ErrorCode, PeerRole},
    ids::{SessionId, StreamId, UserId},
};

use super::{
    super::{
        Rooms,
        admit::not_joined,
        presence::{Place, Presence},
        room::Room,
    },
    publish::key_of_stream,
};
use crate::{
    cluster::{Publishing, Unavailable},
    error::AppError,
    media::webrtc::PeerCommand,
};

/// Whose place it is.
#[derive(Clone, Copy)]
struct Whose {
    user: UserId,
    session: SessionId,
    stream: StreamId,
}

impl Rooms {
    /// Takes a place for a member who wants to publish; who has one keeps it.
    ///
    /// # Errors
    /// When as many publish as may, or the session is no longer in the room.
    pub(super) async fn take_publishing_place(&self, presence: &Presence, place: &Place) -> Result<(), AppError> {
        // Where the database is away, what was known of the room holds, and people go on talking.
        if let Ok(terms) = self.inner.store.room_terms(place.room.id).await {
            let most = terms.map(|terms| terms.max_publishers).filter(|most| *most > 0);
            place.room.live_mut().publishers_max = most;
        }
        let Some(most) = place.room.live().publishers_max else { return Ok(()) };
        let _turn = place.room.turn.lock().await;
        let whose = Whose { user: presence.user.id, session: presence.id, stream: place.stream };
        match self.set_place(&place.room, whose, Some(most)).await? {
            Publishing::Done => Ok(()),
            Publishing::Full => {
                let message = format!("as many publish in this room as may ({most}): wait until one has stopped");
                Err(AppError::new(ErrorCode::LimitReached, message))
            }
            Publishing::None => Err(not_joined()),
        }
    }

    /// Gives a place back that was taken for nothing: what was to be published could not be.
    pub(super) async fn return_place(&self, place: &Place) {
        let _turn = place.room.turn.lock().await;
        let publishes = place.room.live().publishes.contains_key(&place.stream);
        self.follow_place(&place.room, place.stream, publishes).await;
    }

    /// A member has begun to publish, or publishes nothing any more: theirs is the place, or it is free. Within the room's turn. Who
    /// began again just after giving the place back and finds it taken is cut off.
    pub(super) async fn follow_place(&self, room: &Arc<Room>, stream: StreamId, publishes: bool) {
        let (most, whose, has) = {
            let live = room.live();
            let (Some(most), Some(member)) = (live.publishers_max, live.members.get(&stream)) else { return };
            let (user, session) = (member.presence.user.id, member.presence.id);
            let has = live.roster.get(stream).is_some_and(|listed| listed.member.publishes);
            (most, Whose { user, session, stream }, has)
        };
        if has == publishes {
            return;
        }
        let outcome = self.set_place(room, whose, publishes.then_some(most)).await;
        if outcome == Ok(Publishing::Full) {
            let key = key_of_stream(room.id, stream, PeerRole::Publisher);
            self.inner.media.send_to_peers(room.home, PeerCommand::Close { key }).await;
        }
    }

    async fn set_place(&self, room: &Room, whose: Whose, most: Option<u32>) -> Result<Publishing, Unavailable> {
        let Whose { user, session, stream } = whose;
        let membership = &self.inner.membership;
        let (shared, node) = (membership.publish(room.id, user, session, most), membership.node());
        let outcome = self.step(room, shared, |alone| alone.publish(node, user, session, most)).await?;
        if outcome == Publishing::Done
            && let Some(listed) = room.live_mut().roster.get_mut(stream)
        {
            listed.member.publishes = most.is_some();
        }
        Ok(outcome)
    }
}
