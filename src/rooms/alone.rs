//! Rooms while what all nodes share cannot be reached, and their return.
//!
//! ```text
//!  shared ──a call fails, and there are members here──► alone: a journal of the room's own, epoch `local-…`
//!    ▲                                                      │
//!    └──the state, once the others have written theirs ◄──settling◄── Notice::Reconnected: this node's members are
//!                                                                     written back
//! ```
//!
//! A room alone knows the members of other nodes as they were, and counts them. What concerns one of them is refused. A
//! store that lost its data is filled by each node in turn: until all had the time to, a room does not take its word for
//! who has left.

use std::sync::{Arc, atomic::Ordering};

use antiphon_core::{
    gateway::{ErrorCode, LeaveReason, Position},
    ids::{ChannelId, UserId},
};

use super::{
    Rooms,
    room::{Alone, Room, Turn},
};
use crate::{
    cluster::{ChannelState, Entry, Leave, Member, News, Unavailable},
    error::AppError,
    random,
    telemetry::metrics::metrics,
};

/// How often a room looks at a channel that began anew until it believes that whoever is not there has left: other nodes
/// may take some seconds to notice that they can write theirs back.
const LOOKS_ANEW: u32 = 4;

/// When to try again. What all nodes share is tried for all the time, so it is back soon after it can be.
const RETRY_AFTER_S: u64 = 2;

/// What the epoch of a room's own journal begins with.
const LOCAL_EPOCH: &str = "local-";

/// Whether a journal is that of a room alone.
pub(super) fn is_local(epoch: &str) -> bool {
    epoch.starts_with(LOCAL_EPOCH)
}

impl From<Unavailable> for AppError {
    fn from(_: Unavailable) -> Self {
        let message = "what all nodes share cannot be reached; this concerns more than this node, so try again soon";
        Self::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_AFTER_S)
    }
}

impl Rooms {
    /// Makes a change to a room's channel within its turn: for all nodes, or where they cannot be reached and there are
    /// members here, for this one.
    pub(super) async fn step<T>(
        &self,
        room: &Room,
        shared: impl Future<Output = Result<T, Unavailable>>,
        alone: impl FnOnce(&mut ChannelState) -> T,
    ) -> Result<T, Unavailable> {
        if !room.is_alone() {
            match shared.await {
                Err(Unavailable) if self.go_alone(room) => {}
                outcome => return outcome,
            }
        }
        let live = &mut *room.live_mut();
        // It may have got another number meanwhile.
        live.set_node(self.inner.membership.node());
        live.alone.as_mut().map(|known| alone(&mut known.state)).ok_or(Unavailable)
    }

    /// Likewise for a change that concerns `user`, who must be a member here where the change is made for this node.
    pub(super) async fn step_about<T>(
        &self,
        room: &Room,
        user: UserId,
        shared: impl Future<Output = Result<T, Unavailable>>,
        alone: impl FnOnce(&mut ChannelState) -> T,
    ) -> Result<T, Unavailable> {
        if room.live().has_here(user) {
            return self.step(room, shared, alone).await;
        }
        if room.is_alone() { Err(Unavailable) } else { shared.await }
    }

    /// Lets a room go on by itself from what it knows. False when it has no members to go on with.
    pub(super) fn go_alone(&self, room: &Room) -> bool {
        let live = &mut *room.live_mut();
        let Some(since) = live.roster.applied().filter(|_| !live.is_empty()).cloned() else { return false };
        if live.alone.is_none() {
            let epoch = format!("{LOCAL_EPOCH}{:016x}", u64::from_be_bytes(random::bytes()));
            let members = live.roster.members().cloned();
            let state =
                ChannelState::with_members(room.id, epoch, self.inner.config.membership.journal_events, members);
            live.roster.advance(state.position());
            live.alone = Some(Alone { state, since });
            metrics().rooms.degradations.increment(1);
            metrics().rooms.degraded.increment(1.0);
            tracing::warn!(channel = %room.id, "the channel goes on by itself on this node");
        }
        true
    }

    /// Notes that a room closes: what nobody could be told of it is told as soon as that can be done, which is at once
    /// where the room only waited for the others.
    pub(super) fn close_alone(&self, room: &Room) {
        if room.live_mut().alone.take().is_some() {
            metrics().rooms.degraded.decrement(1.0);
            self.inner.left_alone.insert(room.id);
            self.settle_soon(room.id);
        }
    }

    fn settle_soon(&self, channel: ChannelId) {
        let rooms = self.clone();
        tokio::spawn(async move { rooms.settle_closed(channel).await });
    }

    /// Everything may have changed unheard: each room writes its members back and reads on.
    pub(super) fn reconcile_all(&self) {
        self.all_rooms().iter().for_each(|room| self.reconcile_soon(room));
        self.settle_all();
    }

    fn settle_all(&self) {
        let closed: Vec<ChannelId> = self.inner.left_alone.iter().map(|channel| *channel).collect();
        closed.into_iter().for_each(|channel| self.settle_soon(channel));
    }

    /// Tries again for rooms that are still alone, should the word that all is well again have been lost.
    pub(super) fn reconcile_degraded(&self) {
        self.all_rooms().iter().filter(|room| room.is_alone()).for_each(|room| self.reconcile_soon(room));
        self.settle_all();
    }

    pub(super) fn reconcile_soon(&self, room: &Arc<Room>) {
        if room.waits_to_reconcile.swap(true, Ordering::AcqRel) {
            return;
        }
        let (rooms, room) = (self.clone(), Arc::clone(room));
        tokio::spawn(async move {
            // Closed never: it is not closed anywhere.
            let Ok(permit) = rooms.inner.reconciling.acquire().await else { return };
            // Whatever happens from now on is not read for certain, and needs another reading.
            room.waits_to_reconcile.store(false, Ordering::Release);
            let looks = rooms.write_back(&room).await;
            rooms.catch_up(&room).await;
            rooms.finish_chat(room.id).await;
            drop(permit);
            for left in (0..looks).rev() {
                tokio::time::sleep(rooms.inner.config.settle).await;
                if rooms.return_to_all(&room, left == 0).await {
                    return;
                }
            }
        });
    }

    /// Reads what happened unheard. Yields how often the state is to be looked at, after a time each, until it is
    /// believed: never, when that is all or cannot be done. Else the members here had to be written back, because the room
    /// was alone, the channel began anew, or they were taken for dead: that is done, and the room goes on by itself until
    /// the others have had their turn.
    async fn write_back(&self, room: &Arc<Room>) -> u32 {
        let mut turn = room.turn.lock().await;
        if !turn.is_open() {
            return 0;
        }
        let since = room.shared_place();
        // Where it cannot be reached, word will come again.
        let Ok(found) = self.inner.membership.snapshot(room.id, since.as_ref()).await else { return 0 };
        let looks = match found.and_then(|found| found.missed) {
            Some(missed) if !room.is_alone() && !room.live().took_for_dead(&missed) => {
                self.take_in(room, News::Entries(missed)).await;
                self.renumber(room).await;
                0
            }
            missed => {
                let looks = if missed.is_some() { 1 } else { LOOKS_ANEW };
                self.go_alone(room);
                self.honour(room, missed.unwrap_or_default()).await;
                if self.restore(room).await.is_ok() { looks } else { 0 }
            }
        };
        self.close_if_empty(room, &mut turn).await;
        looks
    }

    /// Ends a room's time alone: what it did meanwhile is written, and what the others did is told to its members. False
    /// when the others have not written all of theirs back, and are still given time to.
    async fn return_to_all(&self, room: &Arc<Room>, is_last_look: bool) -> bool {
        let mut turn = room.turn.lock().await;
        if !turn.is_open() || !room.is_alone() {
            return true;
        }
        let since = room.shared_place();
        let Ok(found) = self.inner.membership.snapshot(room.id, since.as_ref()).await else { return true };
        self.honour(room, found.and_then(|found| found.missed).unwrap_or_default()).await;
        // Before the state is read, so that its place is behind what those here were told.
        if let Err(error) = self.append_told_alone(room).await {
            tracing::debug!(channel = %room.id, %error, "what was written is appended later");
        }
        let Ok((members, position)) = self.restore(room).await else { return true };
        if !is_last_look && room.live().misses_any(&members) {
            return false;
        }
        if room.live_mut().alone.take().is_some() {
            metrics().rooms.degraded.decrement(1.0);
            tracing::info!(channel = %room.id, "the channel is that of all nodes again");
        }
        self.agree(room, members, position).await;
        self.close_if_empty(room, &mut turn).await;
        true
    }

    /// Says to all nodes who is in the channel through this one; yields everyone.
    async fn restore(&self, room: &Room) -> Result<(Vec<Member>, Position), Unavailable> {
        let ours = room.live().ours();
        let restored = self.inner.membership.restore(room.id, ours).await?;
        let live = &mut *room.live_mut();
        live.set_node(self.inner.membership.node());
        if let Some(alone) = &mut live.alone {
            alone.since = restored.1.clone();
        }
        Ok(restored)
    }

    /// A node that the others took for dead has another number when it is back: its members are under the old one, and
    /// would be removed with it. Where that cannot be said now, word will come again.
    async fn renumber(&self, room: &Arc<Room>) {
        let is_renumbered = room.live().ours().iter().any(|member| member.node != self.inner.membership.node());
        if is_renumbered && let Ok((members, position)) = self.restore(room).await {
            self.agree(room, members, position).await;
        }
    }

    /// Does to members here what others did to them while the room was alone: restoring them would undo it.
    async fn honour(&self, room: &Arc<Room>, missed: Vec<Entry>) {
        for entry in missed {
            let news = room.live_mut().alone.as_mut().and_then(|alone| alone.state.honour(&entry));
            if let Some(news) = news {
                self.take_in(room, news).await;
            }
        }
    }

    /// Takes the members of a room that closed while it was alone out of what all nodes share.
    async fn settle_closed(&self, channel: ChannelId) {
        let Ok(_permit) = self.inner.reconciling.acquire().await else { return };
        let (room, mut turn) = self.turn_of_new(channel).await;
        let is_settled = match *turn {
            // It has opened again meanwhile.
            Turn::Open | Turn::Text => self.remove_ghosts(&room).await,
            Turn::New | Turn::Closed => self.inner.membership.restore(channel, Vec::new()).await.map(|_| ()),
        };
        if is_settled.is_ok() {
            self.inner.left_alone.remove(&channel);
        }
        self.close_if_empty(&room, &mut turn).await;
    }

    /// Takes those out of a room who are in it through this node as far as the others know, but not here. Within the
    /// room's turn.
    async fn remove_ghosts(&self, room: &Arc<Room>) -> Result<(), Unavailable> {
        if room.is_alone() {
            // Its return says who is there.
            return Ok(());
        }
        let ghosts = room.live().ghosts(self.inner.membership.node());
        for ghost in ghosts {
            // Nobody else's, should the session be another node's by now.
            let leave = Leave::own(ghost.user.id, Some(ghost.session), LeaveReason::Timeout);
            let known = room.applied();
            if let Some(left) = self.inner.membership.leave(room.id, &leave, known.as_ref()).await? {
                self.take_change(room, left.news).await;
            }
        }
        Ok(())
    }
}
