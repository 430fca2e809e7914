//! Membership in memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use antiphon_core::{
    gateway::{Position, ServerMessage},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, UserId},
};
use uuid::Uuid;

use super::{
    super::{
        channel::ChannelState,
        entry::{
            Appended, Changed, JoinRefused, Joined, Leave, Member, NewMember, News, Notice, Publishing, Snapshot,
            Unavailable, VoiceChange, Written,
        },
        sessions::Moves,
    },
    Node, Shared,
};

/// Membership in memory, as one node reaches it.
#[derive(Clone, Debug)]
pub struct MemoryMembership {
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
}

impl MemoryMembership {
    pub(in crate::cluster) fn node(&self) -> NodeNumber {
        self.node.number
    }

    pub(in crate::cluster) fn is_shared(&self) -> bool {
        !self.shared.is_single
    }

    pub(in crate::cluster) fn join(
        &self,
        channel: ChannelId,
        max_users: u32,
        new: NewMember,
        known: Option<&Position>,
    ) -> Result<Joined, JoinRefused> {
        self.check().map_err(|Unavailable| JoinRefused::Unavailable)?;
        self.step(channel, |state| state.join(self.node.number, max_users, new, known))
    }

    pub(in crate::cluster) fn leave(
        &self,
        channel: ChannelId,
        leave: &Leave,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        self.check()?;
        Ok(self.step_of_known(channel, |state| state.leave(self.node.number, leave, known)))
    }

    pub(in crate::cluster) fn set_voice(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        self.check()?;
        Ok(self.step_of_known(channel, |state| state.set_voice(self.node.number, user, session, change, known)))
    }

    pub(in crate::cluster) fn publish(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        most: Option<u32>,
    ) -> Result<Publishing, Unavailable> {
        self.check()?;
        let step = |state: &mut ChannelState| Some(state.publish(self.node.number, user, session, most));
        Ok(self.step_of_known(channel, step).unwrap_or(Publishing::None))
    }

    pub(in crate::cluster) fn set_server_mute(
        &self,
        channel: ChannelId,
        user: UserId,
        muted: bool,
        by: UserId,
        known: Option<&Position>,
    ) -> Result<Option<Option<Changed>>, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.set_server_mute(user, muted, by, known)))
    }

    pub(in crate::cluster) fn adopt(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        moves: Moves,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        self.check()?;
        let node = self.node.number;
        Ok(self.step_of_known(channel, |state| state.adopt(node, user, session, moves).map(|()| state.snapshot(since))))
    }

    pub(in crate::cluster) fn restore(
        &self,
        channel: ChannelId,
        ours: Vec<Member>,
    ) -> Result<(Vec<Member>, Position), Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.restore(self.node.number, ours)))
    }

    pub(in crate::cluster) fn append(
        &self,
        channel: ChannelId,
        previous: MessageId,
        written: &[Written],
        known: Option<&Position>,
    ) -> Result<Appended, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.append(previous, written, known)))
    }

    pub(in crate::cluster) fn tell(
        &self,
        channel: ChannelId,
        event: &ServerMessage,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.tell(event, known)))
    }

    pub(in crate::cluster) fn snapshot(
        &self,
        channel: ChannelId,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        self.check()?;
        Ok(self.shared.channels.get(&channel).map(|state| state.snapshot(since)))
    }

    pub(in crate::cluster) fn occupancy(&self, channels: &[ChannelId]) -> Result<Vec<u32>, Unavailable> {
        self.check()?;
        let count = |channel| self.shared.channels.get(channel).map_or(0, |state| state.occupancy());
        Ok(channels.iter().map(|channel| u32::try_from(count(channel)).unwrap_or(u32::MAX)).collect())
    }

    pub(in crate::cluster) fn watch(&self, channel: ChannelId) -> Result<(), Unavailable> {
        self.check()?;
        self.node.watched.insert(channel);
        Ok(())
    }

    pub(in crate::cluster) fn unwatch(&self, channel: ChannelId) {
        self.node.watched.remove(&channel);
    }

    pub(in crate::cluster) fn announce(&self, notice: &Notice) {
        if self.check().is_ok() {
            self.shared.others(self.node.number, |node| node.tell(notice.clone()));
        }
    }

    pub(in crate::cluster) fn forget(&self, channel: ChannelId) {
        if self.check().is_ok() {
            self.shared.channels.remove_if(&channel, |_, state| state.occupancy() == 0);
        }
    }

    pub(in crate::cluster) fn sweep(&self) {
        let Some(deadline) = Instant::now().checked_sub(self.shared.config.empty_ttl) else { return };
        self.shared.channels.retain(|_, state| !state.is_stale(deadline));
    }

    fn check(&self) -> Result<(), Unavailable> {
        if self.node.reachable.load(Ordering::Acquire) { Ok(()) } else { Err(Unavailable) }
    }

    /// Changes a channel, which is made where there is none, and tells the other nodes.
    fn step<T>(&self, channel: ChannelId, change: impl FnOnce(&mut ChannelState) -> T) -> T {
        let new = || ChannelState::new(channel, new_epoch(), self.shared.config.journal_events, Instant::now());
        let mut state = self.shared.channels.entry(channel).or_insert_with(new);
        self.tell_of(channel, &mut state, change)
    }

    fn step_of_known<T>(&self, channel: ChannelId, change: impl FnOnce(&mut ChannelState) -> Option<T>) -> Option<T> {
        let mut state = self.shared.channels.get_mut(&channel)?;
        self.tell_of(channel, &mut state, change)
    }

    /// Within the channel's lock, so that all hear of changes in their order.
    fn tell_of<T>(
        &self,
        channel: ChannelId,
        state: &mut ChannelState,
        change: impl FnOnce(&mut ChannelState) -> T,
    ) -> T {
        let before = state.position();
        let outcome = change(state);
        if self.is_shared() && state.position() != before {
            let entries = state.since(&before).unwrap_or_default();
            self.shared.others(self.node.number, |node| {
                if node.watched.contains(&channel) {
                    entries.iter().for_each(|entry| node.tell(Notice::Entry { channel, entry: entry.clone() }));
                }
            });
        }
        outcome
    }
}

/// Text that no earlier journal has had: 64 random bits are enough to tell one channel's journals apart.
fn new_epoch() -> String {
    format!("{:016x}", Uuid::new_v4().as_u64_pair().0)
}
