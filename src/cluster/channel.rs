//! One channel's members and journal: the steps themselves, as plain code on plain data.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use antiphon_core::{
    gateway::{LeaveReason, Position, ServerMessage, UserJoined, UserLeft, VoiceStateChanged},
    ids::{ChannelId, SessionId, UserId},
    journal::Journal,
};

use super::membership::{JoinRefused, Joined, Left, Member, NewMember, Snapshot, VoiceChange};

/// What is known of a channel.
#[derive(Debug)]
pub(super) struct ChannelState {
    members: HashMap<UserId, Member>,
    /// Whom a moderator muted; it outlives their leaving.
    server_muted: HashSet<UserId>,
    journal: Journal<Arc<ServerMessage>>,
    /// Since when nobody is in it.
    empty_since: Instant,
}

impl ChannelState {
    pub(super) fn new(epoch: String, journal_events: usize, now: Instant) -> Self {
        Self {
            members: HashMap::new(),
            server_muted: HashSet::new(),
            journal: Journal::new(epoch, journal_events),
            empty_since: now,
        }
    }

    pub(super) fn occupancy(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing is lost by forgetting the channel: it has been empty since before `deadline`, and no mute waits
    /// for somebody's return.
    pub(super) fn is_stale(&self, deadline: Instant) -> bool {
        self.members.is_empty() && self.server_muted.is_empty() && self.empty_since < deadline
    }

    pub(super) fn join(&mut self, channel: ChannelId, max_users: u32, new: NewMember) -> Result<Joined, JoinRefused> {
        let replaces = self.members.contains_key(&new.user.id);
        if !replaces && self.members.len() >= usize::try_from(max_users).unwrap_or(usize::MAX) {
            return Err(JoinRefused::Full);
        }
        if self.members.values().any(|member| member.stream == new.stream) {
            return Err(JoinRefused::StreamTaken);
        }
        let replaced = self.remove(channel, new.user.id, LeaveReason::Replaced);
        let member = Member {
            server_muted: self.server_muted.contains(&new.user.id),
            user: new.user,
            session: new.session,
            stream: new.stream,
            media: new.media,
            muted: false,
            deafened: false,
        };
        let event = self.record(|position| {
            UserJoined {
                channel_id: channel,
                user_id: member.user.id,
                stream_id: member.stream,
                user: member.user.clone(),
                media: member.media,
                position,
            }
            .into()
        });
        self.members.insert(member.user.id, member.clone());
        Ok(Joined { member, replaced, event, members: self.members(), position: self.journal.position() })
    }

    /// Removes a member if it is still `session`'s, or anybody's when that is `None`.
    pub(super) fn leave(
        &mut self,
        channel: ChannelId,
        user: UserId,
        session: Option<SessionId>,
        reason: LeaveReason,
        now: Instant,
    ) -> Option<Left> {
        let member = self.members.get(&user)?;
        if session.is_some_and(|session| session != member.session) {
            return None;
        }
        let left = self.remove(channel, user, reason);
        if self.members.is_empty() {
            self.empty_since = now;
        }
        left
    }

    pub(super) fn set_voice(
        &mut self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
    ) -> Option<(Member, Option<Arc<ServerMessage>>)> {
        let member = self.members.get_mut(&user).filter(|member| member.session == session)?;
        let before = (member.muted, member.deafened);
        member.muted = change.muted.unwrap_or(member.muted);
        member.deafened = change.deafened.unwrap_or(member.deafened);
        let member = member.clone();
        let changed = before != (member.muted, member.deafened);
        let event = changed.then(|| self.record_voice(channel, &member, user));
        Some((member, event))
    }

    /// Mutes or unmutes for everyone, also whoever is not in. `None` when it was so already.
    pub(super) fn set_server_mute(
        &mut self,
        channel: ChannelId,
        user: UserId,
        muted: bool,
        by: UserId,
    ) -> Option<Option<(Member, Arc<ServerMessage>)>> {
        let changed = if muted { self.server_muted.insert(user) } else { self.server_muted.remove(&user) };
        if !changed {
            return None;
        }
        let Some(member) = self.members.get_mut(&user) else { return Some(None) };
        member.server_muted = muted;
        let member = member.clone();
        let event = self.record_voice(channel, &member, by);
        Some(Some((member, event)))
    }

    pub(super) fn snapshot(&self, since: Option<&Position>) -> Snapshot {
        Snapshot {
            members: self.members(),
            position: self.journal.position(),
            missed: since.and_then(|position| Some(self.journal.since(position)?.cloned().collect())),
        }
    }

    fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        // v7 ids sort by age, so everyone sees the same order.
        members.sort_unstable_by_key(|member| member.user.id);
        members
    }

    fn remove(&mut self, channel: ChannelId, user: UserId, reason: LeaveReason) -> Option<Left> {
        let member = self.members.remove(&user)?;
        let event = self.record(|position| {
            UserLeft { channel_id: channel, user_id: user, stream_id: member.stream, reason, position }.into()
        });
        Some(Left { member, event })
    }

    fn record_voice(&mut self, channel: ChannelId, member: &Member, by: UserId) -> Arc<ServerMessage> {
        self.record(|position| {
            VoiceStateChanged {
                user_id: member.user.id,
                channel_id: channel,
                muted: member.muted,
                deafened: member.deafened,
                server_muted: member.server_muted,
                by,
                position,
            }
            .into()
        })
    }

    fn record(&mut self, make: impl FnOnce(Position) -> ServerMessage) -> Arc<ServerMessage> {
        Arc::clone(self.journal.append(|position| Arc::new(make(position))))
    }
}
