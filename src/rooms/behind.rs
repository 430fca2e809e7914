//! What others decided of a channel and stored is read from the database: when word of it comes, and after a time in which none
//! could. Where the database does not answer then, the room is behind, and all of it is read again until it could be.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{gateway::UserView, ids::ChannelId};

use super::{Rooms, room::Room};
use crate::{error::AppError, telemetry::metrics::metrics};

/// How long between two attempts to bring rooms up to what is stored.
const AGAIN: Duration = Duration::from_secs(2);

impl Rooms {
    /// Brings a room up to everything that is stored of it: settings, rights, mutes, bans, and who may be there.
    pub(super) async fn catch_up(&self, room: &Arc<Room>) {
        let read = self.read_stored(room).await;
        self.or_fall_behind(room.id, read);
    }

    async fn read_stored(&self, room: &Arc<Room>) -> Result<(), AppError> {
        self.refresh_settings(room.id).await?;
        self.refresh_priorities(room).await?;
        self.catch_up_with_moderation(room).await?;
        self.review_present(room.id).await
    }

    /// Notes that a room is behind, where what is stored of it could not be read.
    pub(super) fn or_fall_behind(&self, channel: ChannelId, read: Result<(), AppError>) {
        let (Err(error), Some(room)) = (read, self.room(channel)) else { return };
        metrics().rooms.stored_unread.increment(1);
        if !room.is_behind.swap(true, Ordering::AcqRel) {
            tracing::warn!(%channel, %error, "what was decided and stored of a channel is not done yet: it is tried again");
        }
        if !self.inner.catches_up.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().catch_up_with_all());
        }
    }

    /// Tries again for one room after the other, until none is behind.
    async fn catch_up_with_all(self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            for room in self.rooms_behind() {
                // What happens from now on is not read for certain.
                room.is_behind.store(false, Ordering::Release);
                if let Err(error) = self.read_stored(&room).await {
                    tracing::debug!(channel = %room.id, %error, "still behind");
                    metrics().rooms.stored_unread.increment(1);
                    room.is_behind.store(true, Ordering::Release);
                }
            }
            if !self.rooms_behind().is_empty() {
                continue;
            }
            self.inner.catches_up.store(false, Ordering::Release);
            // One may have fallen behind in between.
            if self.rooms_behind().is_empty() || self.inner.catches_up.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    fn rooms_behind(&self) -> Vec<Arc<Room>> {
        let mut rooms = self.all_rooms();
        rooms.retain(|room| room.is_behind.load(Ordering::Acquire));
        rooms
    }

    /// Does to the members here what was decided, and stored, while nobody could tell this node.
    async fn catch_up_with_moderation(&self, room: &Room) -> Result<(), AppError> {
        let users: Vec<UserView> = {
            let live = room.live();
            let here = live.members.values().filter(|member| !member.departing);
            here.map(|member| member.presence.user.clone()).collect()
        };
        let mutes = self.inner.store.server_mutes(room.id).await?;
        if self.inner.store.channel(room.id).await?.is_none() {
            return Ok(());
        }
        let unwelcome = self.unwelcome(room.id, users.clone()).await?;
        for UserView { id: user, .. } in users {
            if let Some(leave) = unwelcome.get(&user) {
                self.remove(room.id, leave.clone()).await?;
            } else if let Some(by) = mutes.get(&user) {
                self.set_server_mute(room.id, user, true, *by).await?;
            }
        }
        Ok(())
    }
}
