//! What moderators and the channel's owner do takes effect here; whether they may is decided before.
//!
//! A change that also is in the database is made there first. It then raises the count of changes, so that a join which
//! looked before is decided anew, and is announced to the other nodes. Members of other nodes are removed and muted by
//! the journal's entries; whoever reads and writes there without voice is in no journal, so the other nodes are told of
//! their removal ([`Notice::Removed`]).

use std::sync::Arc;

use antiphon_core::{
    engine::Command,
    gateway::LeaveReason,
    ids::{ChannelId, UserId},
};

use super::{
    Rooms,
    room::{Room, Turn},
};
use crate::{
    cluster::{Changed, Leave, Notice, Unavailable},
    error::AppError,
    store::Channel,
};

impl Rooms {
    /// Removes somebody from a channel, whether they are in its voice or read and write there alone. False when they are
    /// not in its voice, and no session of theirs on this node reads and writes there.
    ///
    /// # Errors
    /// When they may be on another node, and what all nodes share cannot be reached.
    pub async fn kick(
        &self,
        channel: ChannelId,
        target: UserId,
        by: UserId,
        reason: Option<String>,
    ) -> Result<bool, AppError> {
        self.note_change();
        let leave = Leave::forced(target, LeaveReason::Kicked, Some(by), reason);
        let was_reading = self.remove_texts(channel, &leave).await;
        Ok(self.remove(channel, leave).await? || was_reading)
    }

    /// Removes somebody who was banned from a channel, on all nodes. False as for [`Rooms::kick`].
    ///
    /// # Errors
    /// As [`Rooms::kick`]. The ban holds all the same.
    pub async fn ban(
        &self,
        channel: ChannelId,
        target: UserId,
        by: UserId,
        reason: Option<String>,
    ) -> Result<bool, AppError> {
        self.note_change();
        let leave = Leave::forced(target, LeaveReason::Banned, Some(by), reason);
        let was_reading = self.remove_texts(channel, &leave).await;
        // Releases that know no removals look who may be there.
        self.inner.membership.announce(Notice::ChannelChanged { channel }).await;
        Ok(self.remove(channel, leave).await? || was_reading)
    }

    /// Takes a user out of a channel of their own accord, whatever session of theirs is in it. False when none is.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn leave_as(&self, channel: ChannelId, user: UserId) -> Result<bool, AppError> {
        self.remove(channel, Leave::own(user, None, LeaveReason::Left)).await
    }

    /// Ends a membership of a channel's voice, whichever node has it. False when there is none.
    pub(super) async fn remove(&self, channel: ChannelId, leave: Leave) -> Result<bool, AppError> {
        let (room, mut turn) = self.turn_of_new(channel).await;
        let removed = self.end_membership(&room, &leave).await;
        self.close_if_empty(&room, &mut turn).await;
        Ok(removed?)
    }

    /// Mutes or unmutes somebody in a channel for everyone, after it was stored; it holds when they leave and come back.
    /// False when it was so already.
    ///
    /// # Errors
    /// As [`Rooms::kick`].
    pub async fn set_server_mute(
        &self,
        channel: ChannelId,
        target: UserId,
        muted: bool,
        by: UserId,
    ) -> Result<bool, AppError> {
        self.note_change();
        let (room, mut turn) = self.turn_of_new(channel).await;
        let set = self.mute_within(&room, target, muted, by).await;
        self.close_if_empty(&room, &mut turn).await;
        Ok(set?)
    }

    /// The same within the room's turn.
    pub(super) async fn mute_within(
        &self,
        room: &Arc<Room>,
        target: UserId,
        muted: bool,
        by: UserId,
    ) -> Result<bool, Unavailable> {
        let known = room.applied();
        let shared = self.inner.membership.set_server_mute(room.id, target, muted, by, known.as_ref());
        let set = self.step_about(room, target, shared, |alone| alone.set_server_mute(target, muted, by, None)).await?;
        let Some(changed) = set else { return Ok(false) };
        self.take_mute(room, changed, known.is_some()).await;
        Ok(true)
    }

    /// Mutes somebody who enters: what is known of members may have begun anew since, and the database remembers. They
    /// need not be in yet, so a room alone can do it.
    pub(super) async fn mute_entering(&self, room: &Arc<Room>, user: UserId, by: UserId) -> Result<(), Unavailable> {
        let known = room.applied();
        let shared = self.inner.membership.set_server_mute(room.id, user, true, by, known.as_ref());
        let set = self.step(room, shared, |alone| alone.set_server_mute(user, true, by, None)).await?;
        self.take_mute(room, set.flatten(), known.is_some()).await;
        Ok(())
    }

    async fn take_mute(&self, room: &Arc<Room>, changed: Option<Changed>, is_followed: bool) {
        if let Some(changed) = changed.filter(|_| is_followed) {
            self.take_change(room, changed.news).await;
        }
    }

    /// Gives or takes the right to be heard first where speakers are limited, after it was stored.
    pub async fn set_priority(&self, channel: ChannelId, user: UserId, priority: bool) {
        self.note_change();
        self.take_priority(channel, user, priority).await;
        self.review_texts(channel).await;
        self.inner.membership.announce(Notice::StandingChanged { channel, user }).await;
    }

    pub(super) async fn take_priority(&self, channel: ChannelId, user: UserId, priority: bool) {
        let Some((room, _turn)) = self.turn_of(channel).await else { return };
        let stream = room.live().roster.stream_of(user);
        if let Some(stream) = stream {
            self.set_switches(&room, stream, |switches| switches.priority = priority).await;
        }
    }

    /// Takes over a channel's changed settings, after they were stored. Whoever is in stays, also when there are now
    /// fewer places.
    pub async fn channel_changed(&self, channel: Channel) {
        let id = channel.id;
        self.note_change();
        self.take_settings(channel).await;
        self.review_texts(id).await;
        self.inner.membership.announce(Notice::ChannelChanged { channel: id }).await;
    }

    pub(super) async fn take_settings(&self, channel: Channel) {
        let Some((room, turn)) = self.turn_of(channel.id).await else { return };
        if !turn.is_open() {
            return;
        }
        let max_speakers = channel.max_speakers;
        let before = room.live_mut().channel.replace(channel);
        if *turn == Turn::Open && before.is_none_or(|before| before.max_speakers != max_speakers) {
            self.inner.media.send(room.home, Command::SetMaxSpeakers { channel: room.id, max_speakers }).await;
        }
    }

    /// Removes everyone from a channel that was deleted, on all nodes, and forgets it.
    pub async fn channel_deleted(&self, channel: ChannelId) {
        self.note_change();
        self.empty(channel).await;
        self.inner.membership.announce(Notice::ChannelChanged { channel }).await;
        self.inner.membership.forget(channel).await;
    }

    /// Removes everyone from a channel that is no more. Where that cannot be said to the other nodes, each does it with
    /// its own members when it hears of the deletion, or reads its channels anew.
    pub(super) async fn empty(&self, channel: ChannelId) {
        let everyone: Vec<UserId> = match self.inner.membership.snapshot(channel, None).await {
            Ok(found) => found.into_iter().flat_map(|found| found.members).map(|member| member.user.id).collect(),
            Err(Unavailable) => {
                let room = self.room(channel);
                room.map_or(Vec::new(), |room| room.live().roster.members().map(|member| member.user.id).collect())
            }
        };
        for user in everyone {
            if self.remove(channel, deleted(user)).await.is_err() {
                tracing::warn!(%channel, "a member of a deleted channel could not be removed on another node yet");
            }
        }
        self.review_texts(channel).await;
        self.inner.totals.remove(&channel);
    }
}

/// Why somebody leaves a channel that is no more.
pub(super) fn deleted(user: UserId) -> Leave {
    Leave::forced(user, LeaveReason::Kicked, None, Some("the channel was deleted".to_owned()))
}
