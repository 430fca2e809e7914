//! One channel's members and journal: the steps themselves, as plain code on plain data.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use antiphon_core::{
    gateway::{LeaveReason, Position, ServerMessage, UserJoined, UserLeft, VoiceStateChanged},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, StreamId, UserId},
    journal::Journal,
};

use super::{
    entry::{
        About, AboutChat, AboutMember, Appended, Changed, Entry, JoinRefused, Joined, Leave, Member, NewMember, News,
        Publishing, Snapshot, VoiceChange, Written,
    },
    sessions::Moves,
};

/// What is known of a channel. The form in memory keeps one for each channel; a room keeps one of its own while what all
/// nodes share cannot be reached.
#[derive(Debug)]
pub struct ChannelState {
    channel: ChannelId,
    members: HashMap<UserId, Member>,
    /// Whom a moderator muted; it outlives their leaving.
    server_muted: HashSet<UserId>,
    /// Of members whose session has moved, how often it had.
    moves: HashMap<SessionId, Moves>,
    journal: Journal<Entry>,
    /// The number of the newest thing written that the journal has, or had when it began.
    chat: Option<MessageId>,
    /// Since when nobody is in it.
    empty_since: Instant,
}

impl ChannelState {
    /// An empty channel whose journal begins now.
    pub(super) fn new(channel: ChannelId, epoch: String, journal_events: usize, now: Instant) -> Self {
        Self {
            channel,
            members: HashMap::new(),
            server_muted: HashSet::new(),
            moves: HashMap::new(),
            journal: Journal::new(epoch, journal_events),
            chat: None,
            empty_since: now,
        }
    }

    /// A channel with `members` whose journal begins now, under an `epoch` of its own.
    #[must_use]
    pub fn with_members(
        channel: ChannelId,
        epoch: String,
        journal_events: usize,
        members: impl IntoIterator<Item = Member>,
    ) -> Self {
        let mut state = Self::new(channel, epoch, journal_events, Instant::now());
        state.members.extend(members.into_iter().map(|member| (member.user.id, member)));
        let muted = state.members.values().filter(|member| member.server_muted).map(|member| member.user.id);
        state.server_muted = muted.collect();
        state
    }

    pub(super) fn occupancy(&self) -> usize {
        self.members.len()
    }

    /// The newest entry's place.
    #[must_use]
    pub fn position(&self) -> Position {
        self.journal.position()
    }

    /// Whether nothing is lost by forgetting the channel: it has been empty since before `deadline`, and no mute waits
    /// for somebody's return.
    pub(super) fn is_stale(&self, deadline: Instant) -> bool {
        self.members.is_empty() && self.server_muted.is_empty() && self.empty_since < deadline
    }

    /// As `Membership::join`, for a session of `node`.
    ///
    /// # Errors
    /// When no place is free or the stream id is taken.
    pub fn join(
        &mut self,
        node: NodeNumber,
        max_users: u32,
        new: NewMember,
        known: Option<&Position>,
    ) -> Result<Joined, JoinRefused> {
        let replaces = self.members.contains_key(&new.user.id);
        if !replaces && self.members.len() >= usize::try_from(max_users).unwrap_or(usize::MAX) {
            return Err(JoinRefused::Full);
        }
        if self.is_taken(new.stream) {
            return Err(JoinRefused::StreamTaken);
        }
        let before = self.journal.position();
        self.remove(&Leave::own(new.user.id, None, LeaveReason::Replaced));
        let member = Member {
            server_muted: self.server_muted.contains(&new.user.id),
            user: new.user,
            session: new.session,
            node,
            stream: new.stream,
            media: new.media,
            muted: false,
            deafened: false,
            publishes: false,
        };
        self.insert(member.clone());
        let (members, position) = (self.members(), self.journal.position());
        Ok(Joined { member, members, position, news: self.news(known.unwrap_or(&before)) })
    }

    /// As `Membership::leave`.
    pub fn leave(&mut self, node: NodeNumber, leave: &Leave, known: Option<&Position>) -> Option<Changed> {
        let member = self.members.get(&leave.user)?;
        if leave.session.is_some_and(|session| !member.is_of(session, node)) {
            return None;
        }
        let before = self.journal.position();
        let member = self.remove(leave)?;
        Some(Changed { member, news: self.news(known.unwrap_or(&before)) })
    }

    /// As `Membership::set_voice`.
    pub fn set_voice(
        &mut self,
        node: NodeNumber,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
        known: Option<&Position>,
    ) -> Option<Changed> {
        let before = self.journal.position();
        let member = self.members.get_mut(&user).filter(|member| member.is_of(session, node))?;
        let was = (member.muted, member.deafened);
        member.muted = change.muted.unwrap_or(member.muted);
        member.deafened = change.deafened.unwrap_or(member.deafened);
        let member = member.clone();
        if was != (member.muted, member.deafened) {
            self.record_voice(&member, user);
        }
        Some(Changed { member, news: self.news(known.unwrap_or(&before)) })
    }

    /// As `Membership::publish`.
    pub fn publish(&mut self, node: NodeNumber, user: UserId, session: SessionId, most: Option<u32>) -> Publishing {
        let others = self.members.values().filter(|member| member.publishes && member.user.id != user).count();
        let Some(member) = self.members.get_mut(&user).filter(|member| member.is_of(session, node)) else {
            return Publishing::None;
        };
        let is_full = most.is_some_and(|most| others >= usize::try_from(most).unwrap_or(usize::MAX));
        if is_full && !member.publishes {
            return Publishing::Full;
        }
        member.publishes = most.is_some();
        Publishing::Done
    }

    /// As `Membership::set_server_mute`.
    pub fn set_server_mute(
        &mut self,
        user: UserId,
        muted: bool,
        by: UserId,
        known: Option<&Position>,
    ) -> Option<Option<Changed>> {
        let changed = if muted { self.server_muted.insert(user) } else { self.server_muted.remove(&user) };
        if !changed {
            return None;
        }
        let before = self.journal.position();
        let Some(member) = self.members.get_mut(&user) else { return Some(None) };
        member.server_muted = muted;
        let member = member.clone();
        self.record_voice(&member, by);
        Some(Some(Changed { member, news: self.news(known.unwrap_or(&before)) }))
    }

    /// As `Membership::adopt`.
    pub(super) fn adopt(&mut self, node: NodeNumber, user: UserId, session: SessionId, moves: Moves) -> Option<()> {
        let member = self.members.get_mut(&user).filter(|member| member.session == session)?;
        let newest = self.moves.entry(session).or_default();
        if moves < *newest {
            return None;
        }
        (*newest, member.node) = (moves, node);
        Some(())
    }

    /// Notes that a member's node has another number.
    pub fn set_node(&mut self, user: UserId, node: NodeNumber) {
        if let Some(member) = self.members.get_mut(&user) {
            member.node = node;
        }
    }

    /// Takes over from another journal what others did to a member: removed, replaced, muted or unmuted them. Yields the
    /// news of that; `None` where it changes nothing.
    pub fn honour(&mut self, entry: &Entry) -> Option<News> {
        match &*entry.event {
            ServerMessage::UserLeft(left) => {
                let (member, about) = (self.members.get(&left.user_id)?, entry.member()?);
                let is_theirs = (member.session, member.stream) == (about.session, left.stream_id);
                let was_removed =
                    matches!(left.reason, LeaveReason::Kicked | LeaveReason::Banned | LeaveReason::Replaced);
                if !is_theirs || !was_removed {
                    return None;
                }
                let (user, session, message) = (left.user_id, None, about.message.clone());
                let leave = Leave { user, session, reason: left.reason, by: about.by, message };
                Some(self.leave(member.node, &leave, None)?.news)
            }
            ServerMessage::VoiceStateChanged(changed) => {
                let is_theirs = self.members.get(&changed.user_id)?.session == entry.member()?.session;
                let set = || self.set_server_mute(changed.user_id, changed.server_muted, changed.by, None);
                is_theirs.then(set)??.map(|changed| changed.news)
            }
            _ => None,
        }
    }

    /// As `Membership::restore`.
    pub(super) fn restore(&mut self, node: NodeNumber, ours: Vec<Member>) -> (Vec<Member>, Position) {
        // A session that left and came back meanwhile has another stream, and is another member.
        let kept: HashSet<(SessionId, StreamId)> = ours.iter().map(|member| (member.session, member.stream)).collect();
        let is_gone = |member: &&Member| member.node == node && !kept.contains(&(member.session, member.stream));
        let gone = self.members.values().filter(is_gone);
        let gone: Vec<UserId> = gone.map(|member| member.user.id).collect();
        for user in gone {
            self.remove(&Leave::own(user, None, LeaveReason::Left));
        }
        for member in ours {
            self.put_back(node, member);
        }
        (self.members(), self.journal.position())
    }

    /// Makes a member that only its node knows of what the node says, unless the user or the stream is another's here.
    fn put_back(&mut self, node: NodeNumber, ours: Member) {
        let Some(member) = self.members.get_mut(&ours.user.id) else {
            if !self.is_taken(ours.stream) {
                if ours.server_muted {
                    self.server_muted.insert(ours.user.id);
                }
                let member = Member { node, ..ours };
                self.insert(member.clone());
                // Whoever hears of a join takes the member for neither muted nor deafened.
                if member.switches() != (false, false, false) {
                    self.record_voice(&member, member.user.id);
                }
            }
            return;
        };
        let is_same = member.is_of(ours.session, node) && member.stream == ours.stream;
        if is_same {
            member.publishes = ours.publishes;
        }
        if !is_same || member.switches() == ours.switches() {
            return;
        }
        (member.muted, member.deafened, member.server_muted) = ours.switches();
        let member = member.clone();
        match member.server_muted {
            true => self.server_muted.insert(member.user.id),
            false => self.server_muted.remove(&member.user.id),
        };
        self.record_voice(&member, member.user.id);
    }

    /// As `Membership::append`.
    pub fn append(&mut self, previous: MessageId, written: &[Written], known: Option<&Position>) -> Appended {
        let before = self.journal.position();
        let mut newest = *self.chat.get_or_insert(previous);
        let is_done = newest == previous || written.is_empty();
        for Written { number, event } in written.iter().filter(|_| is_done) {
            let about = AboutChat { number: *number, previous: newest };
            self.journal.append(|position| Entry {
                event: Arc::new(event.clone().placed(&position)),
                position,
                about: About::Chat(about),
            });
            newest = *number;
        }
        self.chat = Some(newest);
        let news = self.news(known.unwrap_or(&before));
        Appended { is_done, newest, news, position: self.journal.position() }
    }

    /// As `Membership::tell`.
    pub fn tell(&mut self, event: &ServerMessage, known: Option<&Position>) -> News {
        let before = self.journal.position();
        self.journal.append(|position| Entry {
            event: Arc::new(event.clone().placed(&position)),
            position,
            about: About::Channel,
        });
        self.news(known.unwrap_or(&before))
    }

    pub(super) fn snapshot(&self, since: Option<&Position>) -> Snapshot {
        Snapshot {
            members: self.members(),
            position: self.journal.position(),
            missed: since.and_then(|position| self.since(position)),
        }
    }

    /// Every event after `position`, or `None` when that cannot be said.
    #[must_use]
    pub fn missed(&self, position: &Position) -> Option<Vec<Arc<ServerMessage>>> {
        Some(self.journal.since(position)?.map(|entry| Arc::clone(&entry.event)).collect())
    }

    /// Every entry after `position`, or `None` when that cannot be said.
    pub(super) fn since(&self, position: &Position) -> Option<Vec<Entry>> {
        Some(self.journal.since(position)?.cloned().collect())
    }

    fn news(&self, known: &Position) -> News {
        match self.since(known) {
            Some(entries) => News::Entries(entries),
            None => News::State { members: self.members(), position: self.journal.position() },
        }
    }

    fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        // v7 ids sort by age, so everyone sees the same order.
        members.sort_unstable_by_key(|member| member.user.id);
        members
    }

    fn is_taken(&self, stream: StreamId) -> bool {
        self.members.values().any(|member| member.stream == stream)
    }

    fn insert(&mut self, member: Member) {
        self.record(&member, Some(member.user.id), None, |channel_id, position| {
            UserJoined {
                channel_id,
                user_id: member.user.id,
                stream_id: member.stream,
                user: member.user.clone(),
                media: member.media,
                position,
            }
            .into()
        });
        self.members.insert(member.user.id, member);
    }

    fn remove(&mut self, leave: &Leave) -> Option<Member> {
        let member = self.members.remove(&leave.user)?;
        self.moves.remove(&member.session);
        if self.members.is_empty() {
            self.empty_since = Instant::now();
        }
        let (user_id, reason, stream_id) = (leave.user, leave.reason, member.stream);
        self.record(&member, leave.by, leave.message.clone(), |channel_id, position| {
            UserLeft { channel_id, user_id, stream_id, reason, position }.into()
        });
        Some(member)
    }

    fn record_voice(&mut self, member: &Member, by: UserId) {
        self.record(member, Some(by), None, |channel_id, position| member.voice_state(channel_id, by, position).into());
    }

    fn record(
        &mut self,
        about: &Member,
        by: Option<UserId>,
        message: Option<String>,
        event: impl FnOnce(ChannelId, Position) -> ServerMessage,
    ) {
        let channel = self.channel;
        self.journal.append(|position| Entry {
            event: Arc::new(event(channel, position.clone())),
            position,
            about: About::Member(AboutMember {
                session: about.session,
                node: about.node,
                server_muted: about.server_muted,
                by,
                message,
            }),
        });
    }
}

impl Member {
    /// Whether `session` on `node` speaks for the member.
    fn is_of(&self, session: SessionId, node: NodeNumber) -> bool {
        self.session == session && self.node == node
    }

    /// Muted, deafened, muted by a moderator.
    #[must_use]
    pub fn switches(&self) -> (bool, bool, bool) {
        (self.muted, self.deafened, self.server_muted)
    }

    /// The switches as members are told.
    #[must_use]
    pub fn voice_state(&self, channel_id: ChannelId, by: UserId, position: Position) -> VoiceStateChanged {
        let (muted, deafened, server_muted) = self.switches();
        VoiceStateChanged { user_id: self.user.id, channel_id, muted, deafened, server_muted, by, position }
    }
}
