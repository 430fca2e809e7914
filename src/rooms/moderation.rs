//! What moderators and the channel's owner do takes effect here; whether they may is decided before.
//!
//! A change that also is in the database is made there first. It then raises the count of changes, so that a join which
//! looked before is decided anew.

use std::sync::{Arc, atomic::Ordering};

use antiphon_core::{
    engine::Command,
    gateway::{LeaveReason, Removed},
    ids::{ChannelId, UserId},
};

use super::{
    Rooms,
    outlet::Shared,
    room::{Room, Turn},
};
use crate::store::Channel;

impl Rooms {
    /// Removes somebody from a channel's voice. False when they are not in it.
    pub async fn kick(&self, channel: ChannelId, target: UserId, by: UserId, reason: Option<String>) -> bool {
        self.remove(channel, target, LeaveReason::Kicked, Some(by), reason).await
    }

    /// Removes somebody who was banned from a channel. False when they are not in its voice.
    pub async fn ban(&self, channel: ChannelId, target: UserId, by: UserId, reason: Option<String>) -> bool {
        self.remove(channel, target, LeaveReason::Banned, Some(by), reason).await
    }

    async fn remove(
        &self,
        channel: ChannelId,
        target: UserId,
        reason: LeaveReason,
        by: Option<UserId>,
        message: Option<String>,
    ) -> bool {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        let Some((room, mut turn)) = self.turn_of(channel).await else { return false };
        let Some(left) = self.inner.membership.leave(channel, target, None, reason).await else { return false };
        let farewell = Removed { channel_id: channel, reason, by, message };
        self.take_out(&room, &left, Some(&Shared::new(farewell))).await;
        self.close_if_empty(&room, &mut turn).await;
        true
    }

    /// Mutes or unmutes somebody in a channel for everyone, after it was stored; it holds when they leave and come back.
    /// False when it was so already.
    pub async fn set_server_mute(&self, channel: ChannelId, target: UserId, muted: bool, by: UserId) -> bool {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        let (room, mut turn) = self.turn_of_new(channel).await;
        let changed = self.apply_server_mute(&room, target, muted, by).await;
        self.close_if_empty(&room, &mut turn).await;
        changed
    }

    /// The same within the room's turn.
    pub(super) async fn apply_server_mute(&self, room: &Room, target: UserId, muted: bool, by: UserId) -> bool {
        let set = self.inner.membership.set_server_mute(room.id, target, muted, by).await;
        if let Some(Some((member, event))) = &set {
            self.set_switches(room, member.stream, |switches| switches.server_muted = muted).await;
            room.broadcast(&Shared::event(event), None);
        }
        set.is_some()
    }

    /// Gives or takes the right to be heard first where speakers are limited, after it was stored.
    pub async fn set_priority(&self, channel: ChannelId, user: UserId, priority: bool) {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        let Some((room, _turn)) = self.turn_of(channel).await else { return };
        let stream = room.live().stream_of(user);
        if let Some(stream) = stream {
            self.set_switches(&room, stream, |switches| switches.priority = priority).await;
        }
    }

    /// Takes over a channel's changed settings, after they were stored. Whoever is in stays, also when there are now
    /// fewer places.
    pub async fn channel_changed(&self, channel: Channel) {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        let Some((room, turn)) = self.turn_of(channel.id).await else { return };
        if *turn == Turn::New {
            return;
        }
        let max_speakers = channel.max_speakers;
        let before = room.live_mut().channel.replace(channel);
        if before.is_none_or(|before| before.max_speakers != max_speakers) {
            self.inner.media.send(room.home, Command::SetMaxSpeakers { channel: room.id, max_speakers }).await;
        }
    }

    /// Removes everyone from a channel that was deleted, and forgets it.
    pub async fn channel_deleted(&self, channel: ChannelId) {
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        if let Some((room, mut turn)) = self.turn_of(channel).await {
            self.empty(&room).await;
            self.close_if_empty(&room, &mut turn).await;
        }
        self.inner.membership.forget(channel).await;
        self.inner.totals.remove(&channel);
    }

    async fn empty(&self, room: &Arc<Room>) {
        let users: Vec<UserId> = room.live().members.values().map(|member| member.presence.user.id).collect();
        for user in users {
            let left = self.inner.membership.leave(room.id, user, None, LeaveReason::Kicked).await;
            if let Some(left) = left {
                let message = Some("the channel was deleted".to_owned());
                let farewell = Removed { channel_id: room.id, reason: LeaveReason::Kicked, by: None, message };
                self.take_out(room, &left, Some(&Shared::new(farewell))).await;
            }
        }
    }
}
