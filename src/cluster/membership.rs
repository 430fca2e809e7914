//! Membership of channels with their journals, for a node on its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::{LeaveReason, MediaTransport, Position, ServerMessage, UserView},
    ids::{ChannelId, SessionId, StreamId, UserId},
};
use dashmap::DashMap;
use uuid::Uuid;

use super::channel::ChannelState;

/// Limits of what is kept.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// How many events each channel's journal keeps.
    pub journal_events: usize,
    /// How long an empty channel's journal is kept.
    pub empty_ttl: Duration,
}

impl Default for MembershipConfig {
    /// 512 events of about 500 bytes outlast the resume grace of 30 s at 17 changes a second in one channel; two hours
    /// are the default life of a room.
    fn default() -> Self {
        Self { journal_events: 512, empty_ttl: Duration::from_secs(7_200) }
    }
}

/// A member of a channel's voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserView,
    /// Through which gateway session.
    pub session: SessionId,
    /// Their stream.
    pub stream: StreamId,
    /// How their voice travels.
    pub media: MediaTransport,
    /// Muted themselves.
    pub muted: bool,
    /// Deafened themselves.
    pub deafened: bool,
    /// Muted by a moderator.
    pub server_muted: bool,
}

/// Somebody who wants to be a member.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Who.
    pub user: UserView,
    /// Through which gateway session.
    pub session: SessionId,
    /// The stream id to have, drawn at random: it must differ from every other in the channel.
    pub stream: StreamId,
    /// How their voice travels.
    pub media: MediaTransport,
}

/// Why somebody did not become a member. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    /// All places are taken.
    Full,
    /// The stream id is another's; draw again.
    StreamTaken,
}

/// Somebody became a member.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who, as they are now.
    pub member: Member,
    /// The same user through an older session, who left in the same step, just before.
    pub replaced: Option<Left>,
    /// The `UserJoined`.
    pub event: Arc<ServerMessage>,
    /// Everyone, the new one included.
    pub members: Vec<Member>,
    /// The place of `event`.
    pub position: Position,
}

/// Somebody is no longer a member.
#[derive(Clone, Debug)]
pub struct Left {
    /// Who, as they were.
    pub member: Member,
    /// The `UserLeft`.
    pub event: Arc<ServerMessage>,
}

/// One's own switches; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceChange {
    /// Nothing of theirs is to be forwarded.
    pub muted: Option<bool>,
    /// Nothing is to be sent to them.
    pub deafened: Option<bool>,
}

/// A channel at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Everyone in it.
    pub members: Vec<Member>,
    /// The newest event's place.
    pub position: Position,
    /// Every event after the place asked for; `None` when that cannot be said.
    pub missed: Option<Vec<Arc<ServerMessage>>>,
}

/// Who is in which channel, and what happened there.
///
/// Every operation that changes something is one atomic step: it holds for all nodes at once, counts places exactly,
/// and its journal entry is part of it. An operation on behalf of a session changes nothing once another session has
/// taken the member over.
#[derive(Clone, Debug)]
pub struct Membership {
    channels: Arc<DashMap<ChannelId, ChannelState>>,
    config: MembershipConfig,
}

impl Membership {
    /// Nobody is anywhere.
    #[must_use]
    pub fn new(config: MembershipConfig) -> Self {
        Self { channels: Arc::default(), config }
    }

    /// Makes somebody a member if there are fewer than `max_users`, or if they are one through another session, which
    /// they then leave in the same step.
    ///
    /// # Errors
    /// When no place is free or the stream id is taken.
    pub async fn join(&self, channel: ChannelId, max_users: u32, new: NewMember) -> Result<Joined, JoinRefused> {
        self.channels
            .entry(channel)
            .or_insert_with(|| ChannelState::new(new_epoch(), self.config.journal_events, Instant::now()))
            .join(channel, max_users, new)
    }

    /// Ends a membership that is `session`'s, or anybody's when that is `None`. `None` when there is none.
    pub async fn leave(
        &self,
        channel: ChannelId,
        user: UserId,
        session: Option<SessionId>,
        reason: LeaveReason,
    ) -> Option<Left> {
        self.channels.get_mut(&channel)?.leave(channel, user, session, reason, Instant::now())
    }

    /// Sets a member's own switches, if the member is `session`'s. Yields the member as it is now and, where something
    /// changed, the `VoiceStateChanged`.
    pub async fn set_voice(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
    ) -> Option<(Member, Option<Arc<ServerMessage>>)> {
        self.channels.get_mut(&channel)?.set_voice(channel, user, session, change)
    }

    /// Mutes or unmutes somebody for everyone; it holds when they leave and come back, and before they first come.
    /// `None` when it was so already; else the member and the `VoiceStateChanged`, if they are in.
    pub async fn set_server_mute(
        &self,
        channel: ChannelId,
        user: UserId,
        muted: bool,
        by: UserId,
    ) -> Option<Option<(Member, Arc<ServerMessage>)>> {
        self.channels
            .entry(channel)
            .or_insert_with(|| ChannelState::new(new_epoch(), self.config.journal_events, Instant::now()))
            .set_server_mute(channel, user, muted, by)
    }

    /// Everyone in the channel now, with what happened after `since`. `None` when nothing is known of the channel.
    pub async fn snapshot(&self, channel: ChannelId, since: Option<&Position>) -> Option<Snapshot> {
        Some(self.channels.get(&channel)?.snapshot(since))
    }

    /// How many are in the channel now.
    #[must_use]
    pub fn occupancy(&self, channel: ChannelId) -> u32 {
        let members = self.channels.get(&channel).map_or(0, |state| state.occupancy());
        u32::try_from(members).unwrap_or(u32::MAX)
    }

    /// Forgets a deleted channel, once everyone has left.
    pub async fn forget(&self, channel: ChannelId) {
        self.channels.remove_if(&channel, |_, state| state.occupancy() == 0);
    }

    /// Forgets channels that have been empty for longer than they are kept. To be called now and then.
    pub async fn sweep(&self) {
        let Some(deadline) = Instant::now().checked_sub(self.config.empty_ttl) else { return };
        self.channels.retain(|_, state| !state.is_stale(deadline));
    }
}

/// Text that no earlier journal has had: 64 random bits are enough to tell one channel's journals apart.
fn new_epoch() -> String {
    format!("{:016x}", Uuid::new_v4().as_u64_pair().0)
}

#[cfg(test)]
mod tests {
    use antiphon_core::gateway::Role;

    use super::*;

    const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(0xC0));

    fn membership(journal_events: usize) -> Membership {
        Membership::new(MembershipConfig { journal_events, empty_ttl: Duration::ZERO })
    }

    fn user(number: u128) -> UserView {
        UserView {
            id: UserId(Uuid::from_u128(number)),
            username: format!("user{number}"),
            display_name: format!("User {number}"),
            role: Role::User,
            is_active: true,
            is_guest: false,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn session(number: u128) -> SessionId {
        SessionId(Uuid::from_u128(number))
    }

    fn new(who: u128, through: u128, stream: u32) -> NewMember {
        NewMember { user: user(who), session: session(through), stream: StreamId(stream), media: MediaTransport::Udp }
    }

    #[tokio::test]
    async fn exactly_as_many_as_there_are_places() {
        let membership = membership(8);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..40_u32 {
            let membership = membership.clone();
            let new = new(number.into(), number.into(), number);
            tasks.spawn(async move { membership.join(CHANNEL, 10, new).await.is_ok() });
        }
        let joined = tasks.join_all().await.into_iter().filter(|joined| *joined).count();
        assert_eq!((joined, membership.occupancy(CHANNEL)), (10, 10));
        let position = membership.snapshot(CHANNEL, None).await.expect("known").position;
        assert_eq!(position.offset, 10, "those refused left nothing behind");
    }

    #[tokio::test]
    async fn a_second_session_takes_over_in_one_step_even_when_full() {
        let membership = membership(8);
        let first = membership.join(CHANNEL, 1, new(1, 1, 1)).await.expect("joins");
        let second = membership.join(CHANNEL, 1, new(1, 2, 2)).await.expect("takes over");
        assert_eq!(second.replaced.expect("the older leaves").member, first.member);
        assert_eq!(second.position.offset, 3, "joined, left, joined");
        assert_eq!(second.members.len(), 1);
        let late = membership.leave(CHANNEL, UserId(Uuid::from_u128(1)), Some(session(1)), LeaveReason::Left).await;
        assert!(late.is_none(), "the older session no longer speaks for the member");
        assert_eq!(membership.occupancy(CHANNEL), 1);
    }

    #[tokio::test]
    async fn stream_ids_are_unique() {
        let membership = membership(8);
        membership.join(CHANNEL, 9, new(1, 1, 7)).await.expect("joins");
        let refused = membership.join(CHANNEL, 9, new(2, 2, 7)).await.map(|_| ());
        assert_eq!(refused, Err(JoinRefused::StreamTaken));
        assert_eq!(membership.occupancy(CHANNEL), 1);
    }

    #[tokio::test]
    async fn a_moderators_mute_survives_leaving() {
        let membership = membership(8);
        let who = UserId(Uuid::from_u128(1));
        assert!(matches!(membership.set_server_mute(CHANNEL, who, true, who).await, Some(None)), "before they came");
        assert!(membership.set_server_mute(CHANNEL, who, true, who).await.is_none(), "muted already");
        membership.sweep().await;
        for through in 1..3 {
            let joined = membership.join(CHANNEL, 9, new(1, through, 1)).await.expect("joins");
            assert!(joined.member.server_muted);
            membership.leave(CHANNEL, who, None, LeaveReason::Left).await.expect("leaves");
        }
        assert!(matches!(membership.set_server_mute(CHANNEL, who, false, who).await, Some(None)));
        let joined = membership.join(CHANNEL, 9, new(1, 4, 1)).await.expect("joins");
        assert!(!joined.member.server_muted);
    }

    #[tokio::test]
    async fn switches_that_change_nothing_make_no_event() {
        let membership = membership(8);
        membership.join(CHANNEL, 9, new(1, 1, 1)).await.expect("joins");
        let who = UserId(Uuid::from_u128(1));
        let mute = VoiceChange { muted: Some(true), deafened: None };
        let (member, event) = membership.set_voice(CHANNEL, who, session(1), mute).await.expect("a member");
        assert!(member.muted && !member.deafened && event.is_some());
        let (_, event) = membership.set_voice(CHANNEL, who, session(1), mute).await.expect("a member");
        assert!(event.is_none());
        assert!(membership.set_voice(CHANNEL, who, session(2), mute).await.is_none(), "another session's member");
    }

    #[tokio::test]
    async fn a_snapshot_has_all_that_was_missed_or_none() {
        let membership = membership(2);
        let own = membership.join(CHANNEL, 9, new(1, 1, 1)).await.expect("joins").position;
        membership.join(CHANNEL, 9, new(2, 2, 2)).await.expect("joins");
        let missed = membership.snapshot(CHANNEL, Some(&own)).await.expect("known").missed.expect("all of it");
        assert!(matches!(&*missed[0], ServerMessage::UserJoined(joined) if joined.position.offset == 2));
        membership.join(CHANNEL, 9, new(3, 3, 3)).await.expect("joins");
        membership.join(CHANNEL, 9, new(4, 4, 4)).await.expect("joins");
        let snapshot = membership.snapshot(CHANNEL, Some(&own)).await.expect("known");
        assert!(snapshot.missed.is_none(), "the journal keeps two events");
        assert_eq!((snapshot.members.len(), snapshot.position.offset), (4, 4));
    }

    #[tokio::test]
    async fn an_empty_channel_is_forgotten_and_begins_a_new_epoch() {
        let membership = membership(8);
        let first = membership.join(CHANNEL, 9, new(1, 1, 1)).await.expect("joins").position;
        membership.sweep().await;
        assert_eq!(membership.occupancy(CHANNEL), 1, "somebody is in");
        membership.leave(CHANNEL, UserId(Uuid::from_u128(1)), None, LeaveReason::Left).await.expect("leaves");
        membership.sweep().await;
        assert!(membership.snapshot(CHANNEL, None).await.is_none());
        let second = membership.join(CHANNEL, 9, new(1, 1, 1)).await.expect("joins").position;
        assert_ne!(first.epoch, second.epoch);
    }
}
