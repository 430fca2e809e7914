//! Rooms: channels that somebody makes for a meeting, and that end some time after everybody has left.

use antiphon_core::{
    gateway::{ErrorCode, RoomView, UserView},
    ids::ChannelId,
};
use time::OffsetDateTime;

use super::{
    Rooms,
    directory::{ChannelRequest, Directory},
};
use crate::{error::AppError, store::RoomTerms};

/// What somebody asks of a new room; what is absent is the server's choice.
#[derive(Clone, Debug, Default)]
pub struct RoomRequest {
    /// Unique, without regard to case.
    pub name: String,
    /// How many may publish at once; 0 for all.
    pub max_publishers: Option<u32>,
    /// How many may be in it at once.
    pub max_users: Option<u32>,
}

impl Directory {
    /// Makes a room.
    ///
    /// # Errors
    /// As [`Directory::create`].
    pub async fn create_room(&self, caller: &UserView, request: RoomRequest) -> Result<RoomView, AppError> {
        let RoomRequest { name, max_publishers, max_users } = request;
        let channel = self.create(caller, ChannelRequest { name, max_users, ..ChannelRequest::default() }).await?;
        let max_publishers = max_publishers.unwrap_or(0);
        let terms = RoomTerms { max_publishers, expires_at: OffsetDateTime::now_utc() + self.rooms().room_ttl() };
        if let Err(error) = self.store().set_room_terms(channel.id, terms).await {
            // Without its terms it would stay for ever.
            _ = self.store().delete_channel(channel.id).await;
            return Err(error.into());
        }
        self.room(channel.id).await
    }

    /// A room, or any public channel as one.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`.
    pub async fn room(&self, id: ChannelId) -> Result<RoomView, AppError> {
        let gone = || AppError::new(ErrorCode::ChannelNotFound, "there is no room with this id, or it has ended");
        let channel = self.store().channel(id).await?.filter(|channel| !channel.is_private).ok_or_else(gone)?;
        let terms = self.store().room_terms(id).await?;
        Ok(channel.room_view(terms, self.rooms().occupancy(id).await))
    }
}

impl Rooms {
    fn room_ttl(&self) -> std::time::Duration {
        self.inner.config.room_ttl
    }

    /// Keeps rooms that somebody here is in, or hears or reads in, from ending: to be called several times while one lasts.
    pub async fn keep(&self) {
        let occupied: Vec<ChannelId> =
            self.all_rooms().iter().filter(|room| !room.live().is_empty()).map(|room| room.id).collect();
        let until = OffsetDateTime::now_utc() + self.room_ttl();
        if let Err(error) = self.inner.store.keep_rooms(&occupied, until).await {
            tracing::warn!(%error, "rooms that people are in were not kept");
        }
    }
}
