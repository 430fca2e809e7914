//! Membership of channels with their journals, whatever keeps it.

use antiphon_core::{
    gateway::{Position, ServerMessage},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, UserId},
};

use super::{
    entry::{
        Appended, Changed, JoinRefused, Joined, Leave, Member, NewMember, News, Notice, Publishing, Snapshot,
        Unavailable, VoiceChange, Written,
    },
    memory::MemoryMembership,
    redis::RedisMembership,
    sessions::Moves,
};

/// Who is in which channel, and what happened there, as one node reaches it. Cheap to clone.
///
/// Every operation that changes something is one atomic step: it holds for all nodes at once, counts places exactly,
/// and its journal entries are part of it. An operation on behalf of a session changes nothing once another session has
/// taken the member over, or another node the session.
///
/// `known` is the newest place in the channel's journal that the caller has taken in; it gets what came after that, so
/// that one call both changes something and brings the caller up to the change. `None` is for callers who follow no
/// journal. After an operation failed as [`Unavailable`], and after notices may have been lost, the node hears
/// [`Notice::Reconnected`] as soon as operations work again.
#[derive(Clone, Debug)]
pub enum Membership {
    /// In this process's memory.
    Memory(MemoryMembership),
    /// In Redis, which the nodes of a cluster share.
    Redis(RedisMembership),
}

impl Membership {
    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeNumber {
        match self {
            Self::Memory(memory) => memory.node(),
            Self::Redis(redis) => redis.node(),
        }
    }

    /// Whether there may be other nodes.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Memory(memory) => memory.is_shared(),
            Self::Redis(_) => true,
        }
    }

    /// Makes somebody a member if there are fewer than `max_users`, or if they are one through another session, which
    /// they then leave in the same step.
    ///
    /// # Errors
    /// When no place is free or the stream id is taken: nothing has changed then.
    pub async fn join(
        &self,
        channel: ChannelId,
        max_users: u32,
        new: NewMember,
        known: Option<&Position>,
    ) -> Result<Joined, JoinRefused> {
        match self {
            Self::Memory(memory) => memory.join(channel, max_users, new, known),
            Self::Redis(redis) => redis.join(channel, max_users, new, known).await,
        }
    }

    /// Ends a membership. `None` when there is none, or it is another session's than the one named.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn leave(
        &self,
        channel: ChannelId,
        leave: &Leave,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.leave(channel, leave, known),
            Self::Redis(redis) => redis.leave(channel, leave, known).await,
        }
    }

    /// Sets a member's own switches, if the member is `session`'s. Where nothing changes nothing is written.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn set_voice(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.set_voice(channel, user, session, change, known),
            Self::Redis(redis) => redis.set_voice(channel, user, session, change, known).await,
        }
    }

    /// Gives `session`'s member one of the `most` places that the channel has for those who publish, unless others have them all, or
    /// with `None` takes it back. It goes with the member, and moves with their session. Nobody is told; there is no journal entry.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn publish(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        most: Option<u32>,
    ) -> Result<Publishing, Unavailable> {
        match self {
            Self::Memory(memory) => memory.publish(channel, user, session, most),
            Self::Redis(redis) => redis.publish(channel, user, session, most).await,
        }
    }

    /// Mutes or unmutes somebody for everyone; it holds when they leave and come back, and before they first come.
    /// `None` when it was so already; else the member, if they are in.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn set_server_mute(
        &self,
        channel: ChannelId,
        user: UserId,
        muted: bool,
        by: UserId,
        known: Option<&Position>,
    ) -> Result<Option<Option<Changed>>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.set_server_mute(channel, user, muted, by, known),
            Self::Redis(redis) => redis.set_server_mute(channel, user, muted, by, known).await,
        }
    }

    /// Makes `session`'s member this node's, which the session has moved to. Nobody is told; there is no journal entry.
    /// Yields the channel as it is then, with what happened after `since`; `None` when the session is not in it,
    /// or has moved again since it moved here by `moves`.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn adopt(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        moves: Moves,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.adopt(channel, user, session, moves, since),
            Self::Redis(redis) => redis.adopt(channel, user, session, moves, since).await,
        }
    }

    /// Says again, after a time without what all nodes share, who is in the channel through this node: exactly `ours`.
    /// Who is missing is put back whatever the number of places, switches become what they are in `ours`, and members
    /// of this node that are not in `ours` leave. Where a user or a stream is another session's or node's by now, that
    /// one stays. Every change has its journal entry. Yields everyone, and the newest place.
    ///
    /// # Errors
    /// When what all nodes share still cannot be reached.
    pub async fn restore(&self, channel: ChannelId, ours: Vec<Member>) -> Result<(Vec<Member>, Position), Unavailable> {
        match self {
            Self::Memory(memory) => memory.restore(channel, ours),
            Self::Redis(redis) => redis.restore_all(channel, ours).await,
        }
    }

    /// Appends what was written in a channel, if `previous` is the number of the newest that the journal has, or the journal
    /// has none yet: whatever node finds something missing can append it, and nothing is doubled or out of order. With
    /// nothing `written` it yields how things are. A channel that has no journal gets one.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn append(
        &self,
        channel: ChannelId,
        previous: MessageId,
        written: &[Written],
        known: Option<&Position>,
    ) -> Result<Appended, Unavailable> {
        match self {
            Self::Memory(memory) => memory.append(channel, previous, written, known),
            Self::Redis(redis) => redis.append(channel, previous, written, known).await,
        }
    }

    /// Tells everyone in a channel something about the channel itself: `event`, which gets its place. A channel that has no
    /// journal gets one. Yields what happened, the event last.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn tell(
        &self,
        channel: ChannelId,
        event: &ServerMessage,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        match self {
            Self::Memory(memory) => memory.tell(channel, event, known),
            Self::Redis(redis) => redis.tell(channel, event, known).await,
        }
    }

    /// Everyone in the channel now, with what happened after `since`. `None` when nothing is known of the channel.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn snapshot(
        &self,
        channel: ChannelId,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.snapshot(channel, since),
            Self::Redis(redis) => redis.snapshot(channel, since).await,
        }
    }

    /// How many are in each of the channels now, in the order asked for.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn occupancy(&self, channels: &[ChannelId]) -> Result<Vec<u32>, Unavailable> {
        match self {
            Self::Memory(memory) => memory.occupancy(channels),
            Self::Redis(redis) => redis.occupancy(channels).await,
        }
    }

    /// Makes this node hear of everything that happens in the channel from now on. To watch it twice is no error.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn watch(&self, channel: ChannelId) -> Result<(), Unavailable> {
        match self {
            Self::Memory(memory) => memory.watch(channel),
            Self::Redis(redis) => redis.watch(channel).await,
        }
    }

    /// Ends that. What is not watched may be unwatched.
    pub async fn unwatch(&self, channel: ChannelId) {
        match self {
            Self::Memory(memory) => memory.unwatch(channel),
            Self::Redis(redis) => redis.unwatch(channel).await,
        }
    }

    /// Tells all other nodes of a change in the database, [`Notice::ChannelChanged`] or [`Notice::StandingChanged`], of
    /// somebody who was put out, [`Notice::Removed`], or of something for single people, [`Notice::Direct`].
    /// It gets lost while what all nodes share cannot be reached; then [`Notice::Reconnected`] makes them look.
    pub async fn announce(&self, notice: Notice) {
        match self {
            Self::Memory(memory) => memory.announce(&notice),
            Self::Redis(redis) => redis.announce(notice).await,
        }
    }

    /// Forgets a deleted channel, once everyone has left.
    pub async fn forget(&self, channel: ChannelId) {
        match self {
            Self::Memory(memory) => memory.forget(channel),
            Self::Redis(redis) => redis.forget(channel).await,
        }
    }

    /// Forgets channels that have been empty for longer than they are kept. To be called now and then.
    pub async fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep(),
            // Redis lets them expire.
            Self::Redis(_) => {}
        }
    }
}
