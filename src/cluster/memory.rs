//! The form in memory: of a node on its own, or of several nodes in one process.
//!
//! Several nodes see of each other what separate processes would: each has its own handle and its own bounded queue of
//! notices, and can be cut off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::{Position, ServerMessage},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, UserId},
};
use dashmap::{DashMap, DashSet};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    channel::ChannelState,
    entry::{
        Appended, Changed, JoinRefused, Joined, Leave, Member, NewMember, News, Notice, Publishing, Snapshot,
        Unavailable, VoiceChange, Written,
    },
    listening::ListeningNews,
    membership::Membership,
    sessions::{ClaimRefused, Moves, SessionNotice, SessionRecord, SessionRecords, TokenHashes, Whereabouts},
};
use crate::telemetry::metrics::metrics;

/// Limits of what is kept.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// How many events each channel's journal keeps.
    pub journal_events: usize,
    /// How long an empty channel's journal is kept.
    pub empty_ttl: Duration,
    /// How many notices may wait for a node; where more come, it reads everything anew.
    pub notices: usize,
}

impl Default for MembershipConfig {
    /// 4,096 events of about 500 bytes outlast 20 s of 200 messages a second in one channel, and the resume grace of
    /// 30 s at 136; two hours are the default life of a room.
    fn default() -> Self {
        Self { journal_events: 4_096, empty_ttl: Duration::from_secs(7_200), notices: 1_024 }
    }
}

/// The only node, where there is one.
const ALONE: NodeNumber = NodeNumber(1);

/// What nodes in one process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channels: DashMap<ChannelId, ChannelState>,
    sessions: DashMap<SessionId, OwnedRecord>,
    whereabouts: DashMap<(UserId, NodeNumber), Whereabouts>,
    nodes: RwLock<Vec<Arc<Node>>>,
    /// Made for a single node: there are no others to think of.
    is_single: bool,
    config: MembershipConfig,
}

#[derive(Debug)]
struct OwnedRecord {
    node: NodeNumber,
    record: SessionRecord,
}

/// One node, as the others reach it.
#[derive(Debug)]
struct Node {
    number: NodeNumber,
    watched: DashSet<ChannelId>,
    notices: Mailbox<Notice>,
    session_notices: Mailbox<SessionNotice>,
    reachable: AtomicBool,
}

/// A node's membership and records, with the notices of both.
#[derive(Debug)]
pub struct MemoryNode {
    /// Who is in which channel.
    pub membership: Membership,
    /// What the node hears of channels.
    pub notices: mpsc::Receiver<Notice>,
    /// Which node has which session.
    pub records: SessionRecords,
    /// What the node hears of sessions.
    pub session_notices: mpsc::Receiver<SessionNotice>,
}

impl MemoryCluster {
    /// Nobody is anywhere.
    #[must_use]
    pub fn new(config: MembershipConfig) -> Self {
        Self::with(config, false)
    }

    fn with(config: MembershipConfig, is_single: bool) -> Self {
        let (channels, sessions, nodes) = (DashMap::new(), DashMap::new(), RwLock::default());
        let whereabouts = DashMap::new();
        Self { shared: Arc::new(Shared { channels, sessions, whereabouts, nodes, is_single, config }) }
    }

    /// A node on its own.
    #[must_use]
    pub fn single(config: MembershipConfig) -> MemoryNode {
        let node = Self::with(config, true).join_as(ALONE);
        MemoryNode { records: SessionRecords::Alone, ..node }
    }

    /// A node among others, whose number none of them has.
    #[must_use]
    pub fn join_as(&self, number: NodeNumber) -> MemoryNode {
        let (notices, heard) = Mailbox::new(self.shared.config.notices, Notice::Reconnected);
        let (session_notices, heard_of_sessions) = Mailbox::new(self.shared.config.notices, SessionNotice::Reconnected);
        let (watched, reachable) = (DashSet::new(), AtomicBool::new(true));
        let node = Arc::new(Node { number, watched, notices, session_notices, reachable });
        self.shared.nodes.write().push(Arc::clone(&node));
        let (membership, records) = (
            MemoryMembership { shared: Arc::clone(&self.shared), node: Arc::clone(&node) },
            MemoryRecords { shared: Arc::clone(&self.shared), node },
        );
        MemoryNode {
            membership: Membership::Memory(membership),
            notices: heard,
            records: SessionRecords::Memory(records),
            session_notices: heard_of_sessions,
        }
    }

    /// Cuts a node off from what all share, or lets it back.
    pub fn set_reachable(&self, number: NodeNumber, reachable: bool) {
        let nodes = self.shared.nodes.read();
        let Some(node) = nodes.iter().find(|node| node.number == number) else { return };
        if node.reachable.swap(reachable, Ordering::AcqRel) != reachable && reachable {
            node.notices.overflow();
            node.session_notices.overflow();
        }
    }

    /// Forgets everything, as a store does that loses its data.
    pub fn lose_everything(&self) {
        self.shared.channels.clear();
        self.shared.sessions.clear();
        self.shared.whereabouts.clear();
    }
}

impl Shared {
    /// Does `act` for every node that can be reached but one.
    fn others(&self, except: NodeNumber, act: impl Fn(&Node)) {
        if self.is_single {
            return;
        }
        let nodes = self.nodes.read();
        let reached = |node: &&Arc<Node>| node.number != except && node.reachable.load(Ordering::Acquire);
        nodes.iter().filter(reached).for_each(|node| act(node));
    }
}

/// A bounded queue that says so when it lost something.
#[derive(Debug)]
struct Mailbox<N> {
    sender: mpsc::Sender<N>,
    /// What says that something was lost.
    lost: N,
    /// It waits for room already.
    losing: Arc<AtomicBool>,
}

impl<N: Clone + Send + 'static> Mailbox<N> {
    fn new(size: usize, lost: N) -> (Self, mpsc::Receiver<N>) {
        let (sender, receiver) = mpsc::channel(size);
        (Self { sender, lost, losing: Arc::default() }, receiver)
    }

    fn send(&self, notice: N) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(notice) {
            metrics().rooms.notices_dropped.increment(1);
            self.overflow();
        }
    }

    /// Says that something was lost as soon as there is room.
    fn overflow(&self) {
        if self.losing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (sender, lost, losing) = (self.sender.clone(), self.lost.clone(), Arc::clone(&self.losing));
        tokio::spawn(async move {
            if let Ok(room) = sender.reserve().await {
                // What is lost from now on is lost after this, and said again.
                losing.store(false, Ordering::Release);
                room.send(lost);
            }
        });
    }
}

/// Membership in memory, as one node reaches it.
#[derive(Clone, Debug)]
pub struct MemoryMembership {
    shared: Arc<Shared>,
    node: Arc<Node>,
}

impl MemoryMembership {
    pub(super) fn node(&self) -> NodeNumber {
        self.node.number
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.shared.is_single
    }

    pub(super) fn join(
        &self,
        channel: ChannelId,
        max_users: u32,
        new: NewMember,
        known: Option<&Position>,
    ) -> Result<Joined, JoinRefused> {
        self.check().map_err(|Unavailable| JoinRefused::Unavailable)?;
        self.step(channel, |state| state.join(self.node.number, max_users, new, known))
    }

    pub(super) fn leave(
        &self,
        channel: ChannelId,
        leave: &Leave,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        self.check()?;
        Ok(self.step_of_known(channel, |state| state.leave(self.node.number, leave, known)))
    }

    pub(super) fn set_voice(
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

    pub(super) fn publish(
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

    pub(super) fn set_server_mute(
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

    pub(super) fn adopt(
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

    pub(super) fn restore(
        &self,
        channel: ChannelId,
        ours: Vec<Member>,
    ) -> Result<(Vec<Member>, Position), Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.restore(self.node.number, ours)))
    }

    pub(super) fn append(
        &self,
        channel: ChannelId,
        previous: MessageId,
        written: &[Written],
        known: Option<&Position>,
    ) -> Result<Appended, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.append(previous, written, known)))
    }

    pub(super) fn tell(
        &self,
        channel: ChannelId,
        event: &ServerMessage,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.tell(event, known)))
    }

    pub(super) fn snapshot(
        &self,
        channel: ChannelId,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        self.check()?;
        Ok(self.shared.channels.get(&channel).map(|state| state.snapshot(since)))
    }

    pub(super) fn occupancy(&self, channels: &[ChannelId]) -> Result<Vec<u32>, Unavailable> {
        self.check()?;
        let count = |channel| self.shared.channels.get(channel).map_or(0, |state| state.occupancy());
        Ok(channels.iter().map(|channel| u32::try_from(count(channel)).unwrap_or(u32::MAX)).collect())
    }

    pub(super) fn watch(&self, channel: ChannelId) -> Result<(), Unavailable> {
        self.check()?;
        self.node.watched.insert(channel);
        Ok(())
    }

    pub(super) fn unwatch(&self, channel: ChannelId) {
        self.node.watched.remove(&channel);
    }

    pub(super) fn announce(&self, notice: &Notice) {
        if self.check().is_ok() {
            self.shared.others(self.node.number, |node| node.notices.send(notice.clone()));
        }
    }

    pub(super) fn forget(&self, channel: ChannelId) {
        if self.check().is_ok() {
            self.shared.channels.remove_if(&channel, |_, state| state.occupancy() == 0);
        }
    }

    pub(super) fn sweep(&self) {
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
                    entries.iter().for_each(|entry| node.notices.send(Notice::Entry { channel, entry: entry.clone() }));
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

/// Session records in memory, as one node reaches them.
#[derive(Clone, Debug)]
pub struct MemoryRecords {
    shared: Arc<Shared>,
    node: Arc<Node>,
}

impl MemoryRecords {
    pub(super) fn set_whereabouts(&self, user: UserId, whereabouts: Option<Whereabouts>) -> Result<(), Unavailable> {
        self.check()?;
        match whereabouts {
            Some(whereabouts) => self.shared.whereabouts.insert((user, self.node.number), whereabouts),
            None => self.shared.whereabouts.remove(&(user, self.node.number)).map(|(_, before)| before),
        };
        Ok(())
    }

    pub(super) fn whereabouts(&self, users: &[UserId]) -> Result<Vec<Vec<Whereabouts>>, Unavailable> {
        self.check()?;
        let others: Vec<NodeNumber> = {
            let nodes = self.shared.nodes.read();
            nodes.iter().map(|node| node.number).filter(|number| *number != self.node.number).collect()
        };
        let at =
            |user: &UserId, node: &NodeNumber| self.shared.whereabouts.get(&(*user, *node)).map(|found| found.clone());
        Ok(users.iter().map(|user| others.iter().filter_map(|node| at(user, node)).collect()).collect())
    }

    pub(super) fn open(&self, session: SessionId, record: SessionRecord) -> Result<(), Unavailable> {
        self.check()?;
        self.shared.sessions.insert(session, OwnedRecord { node: self.node.number, record });
        Ok(())
    }

    pub(super) fn refresh(&self, session: SessionId, record: SessionRecord) -> Result<bool, Unavailable> {
        self.check()?;
        let node = self.node.number;
        let mut known = match self.shared.sessions.entry(session) {
            dashmap::Entry::Occupied(known) => known,
            dashmap::Entry::Vacant(lost) => {
                lost.insert(OwnedRecord { node, record });
                return Ok(true);
            }
        };
        let is_ours = known.get().node == node && known.get().record.moves <= record.moves;
        if is_ours {
            known.get_mut().record = record;
        }
        Ok(is_ours)
    }

    pub(super) fn claim(
        &self,
        session: SessionId,
        offered: [u8; 32],
        tokens: TokenHashes,
    ) -> Result<SessionRecord, ClaimRefused> {
        self.check().map_err(|Unavailable| ClaimRefused::Unavailable)?;
        let mut owned = self.shared.sessions.get_mut(&session).ok_or(ClaimRefused::Unknown)?;
        if !owned.record.tokens.admit(&offered) {
            return Err(ClaimRefused::WrongToken);
        }
        let before = std::mem::replace(&mut owned.node, self.node.number);
        owned.record.tokens = tokens;
        self.shared.others(self.node.number, |node| {
            if node.number == before {
                node.session_notices.send(SessionNotice::Claimed(session));
            }
        });
        owned.record.moves.0 += 1;
        Ok(owned.record.clone())
    }

    pub(super) fn release(&self, session: SessionId) {
        if self.check().is_ok() {
            self.shared.sessions.remove_if(&session, |_, owned| owned.node == self.node.number);
        }
    }

    pub(super) fn account_disabled(&self, user: UserId) {
        if self.check().is_ok() {
            let tell = |node: &Node| node.session_notices.send(SessionNotice::AccountDisabled(user));
            self.shared.others(self.node.number, tell);
        }
    }

    pub(super) fn tell_of_listening(&self, to: NodeNumber, news: &ListeningNews) {
        if self.check().is_ok() {
            self.shared.others(self.node.number, |node| {
                if node.number == to {
                    node.session_notices.send(SessionNotice::Listening(news.clone()));
                }
            });
        }
    }

    fn check(&self) -> Result<(), Unavailable> {
        if self.node.reachable.load(Ordering::Acquire) { Ok(()) } else { Err(Unavailable) }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        gateway::{LeaveReason, MediaTransport, RecordingFinished, Role, UserView},
        ids::{RecordingId, StreamId, UserId},
    };

    use super::{
        super::entry::{About, Entry},
        *,
    };

    const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(0xC0));

    fn config(journal_events: usize) -> MembershipConfig {
        MembershipConfig { journal_events, empty_ttl: Duration::ZERO, notices: 4 }
    }

    fn membership(journal_events: usize) -> Membership {
        MemoryCluster::single(config(journal_events)).membership
    }

    fn who(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    fn user(number: u128) -> UserView {
        UserView {
            id: who(number),
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

    async fn join(membership: &Membership, new: NewMember) -> Joined {
        membership.join(CHANNEL, 9, new, None).await.expect("joins")
    }

    async fn leave(membership: &Membership, number: u128) -> Option<Changed> {
        let leave = Leave::own(who(number), None, LeaveReason::Left);
        membership.leave(CHANNEL, &leave, None).await.expect("reached")
    }

    async fn set_server_mute(membership: &Membership, number: u128, muted: bool) -> Option<Option<Changed>> {
        membership.set_server_mute(CHANNEL, who(number), muted, who(9), None).await.expect("reached")
    }

    async fn occupancy(membership: &Membership) -> u32 {
        membership.occupancy(&[CHANNEL]).await.expect("reached")[0]
    }

    fn entries(news: News) -> Vec<Entry> {
        match news {
            News::Entries(entries) => entries,
            News::State { .. } => panic!("the journal is long enough"),
        }
    }

    #[tokio::test]
    async fn exactly_as_many_as_there_are_places() {
        let membership = membership(8);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..40_u32 {
            let membership = membership.clone();
            let new = new(number.into(), number.into(), number);
            tasks.spawn(async move { membership.join(CHANNEL, 10, new, None).await.is_ok() });
        }
        let joined = tasks.join_all().await.into_iter().filter(|joined| *joined).count();
        assert_eq!((joined, occupancy(&membership).await), (10, 10));
        let position = membership.snapshot(CHANNEL, None).await.expect("reached").expect("known").position;
        assert_eq!(position.offset, 10, "those refused left nothing behind");
    }

    #[tokio::test]
    async fn a_second_session_takes_over_in_one_step_even_when_full() {
        let membership = membership(8);
        let first = membership.join(CHANNEL, 1, new(1, 1, 1), None).await.expect("joins");
        let second = membership.join(CHANNEL, 1, new(1, 2, 2), Some(&first.position)).await.expect("takes over");
        assert_eq!((second.position.offset, second.members.len()), (3, 1), "joined, left, joined");
        let [left, joined] = &entries(second.news)[..] else { panic!("two entries") };
        assert!(matches!(&*left.event, ServerMessage::UserLeft(left) if left.reason == LeaveReason::Replaced));
        let (of_left, of_joined) = (left.member().expect("of a member"), joined.member().expect("of a member"));
        assert_eq!((of_left.session, of_left.by), (session(1), Some(who(1))));
        assert_eq!((of_joined.session, &joined.position), (session(2), &second.position));
        let late = Leave::own(who(1), Some(session(1)), LeaveReason::Left);
        let late = membership.leave(CHANNEL, &late, None).await.expect("reached");
        assert!(late.is_none(), "the older session no longer speaks for the member");
        assert_eq!(occupancy(&membership).await, 1);
    }

    #[tokio::test]
    async fn stream_ids_are_unique() {
        let membership = membership(8);
        join(&membership, new(1, 1, 7)).await;
        let refused = membership.join(CHANNEL, 9, new(2, 2, 7), None).await.map(|_| ());
        assert_eq!(refused, Err(JoinRefused::StreamTaken));
        assert_eq!(occupancy(&membership).await, 1);
    }

    #[tokio::test]
    async fn a_moderators_mute_survives_leaving() {
        let membership = membership(8);
        assert!(matches!(set_server_mute(&membership, 1, true).await, Some(None)), "before they came");
        assert!(set_server_mute(&membership, 1, true).await.is_none(), "muted already");
        membership.sweep().await;
        for through in 1..3 {
            let joined = join(&membership, new(1, through, 1)).await;
            assert!(
                joined.member.server_muted && entries(joined.news)[0].member().is_some_and(|about| about.server_muted)
            );
            leave(&membership, 1).await.expect("leaves");
        }
        assert!(matches!(set_server_mute(&membership, 1, false).await, Some(None)));
        assert!(!join(&membership, new(1, 4, 1)).await.member.server_muted);
    }

    #[tokio::test]
    async fn switches_that_change_nothing_make_no_entry() {
        let membership = membership(8);
        let joined = join(&membership, new(1, 1, 1)).await;
        let mute = VoiceChange { muted: Some(true), deafened: None };
        let set = async |through, known: &Position| {
            membership.set_voice(CHANNEL, who(1), session(through), mute, Some(known)).await.expect("reached")
        };
        let changed = set(1, &joined.position).await.expect("a member");
        assert!(changed.member.muted && !changed.member.deafened);
        let entries_then = entries(changed.news);
        assert_eq!(entries_then.len(), 1);
        let again = set(1, &entries_then[0].position).await.expect("a member");
        assert_eq!(again.news, News::Entries(Vec::new()));
        assert!(set(2, &joined.position).await.is_none(), "another session's member");
    }

    #[tokio::test]
    async fn news_are_everything_after_the_place_known_or_the_state() {
        let membership = membership(2);
        let own = join(&membership, new(1, 1, 1)).await.position;
        join(&membership, new(2, 2, 2)).await;
        let snapshot = membership.snapshot(CHANNEL, Some(&own)).await.expect("reached").expect("known");
        assert_eq!(snapshot.missed.expect("all of it")[0].position.offset, 2);
        let third = membership.join(CHANNEL, 9, new(3, 3, 3), Some(&own)).await.expect("joins");
        assert_eq!(entries(third.news).len(), 2);
        let fourth = membership.join(CHANNEL, 9, new(4, 4, 4), Some(&own)).await.expect("joins");
        let News::State { members, position } = fourth.news else { panic!("the journal keeps two entries") };
        assert_eq!((members, position), (fourth.members, fourth.position));
        assert_eq!(entries(join(&membership, new(5, 5, 5)).await.news).len(), 1, "its own, where none was known");
    }

    #[tokio::test]
    async fn no_more_have_a_place_to_publish_than_there_are() {
        let membership = membership(8);
        join(&membership, new(1, 1, 1)).await;
        join(&membership, new(2, 2, 2)).await;
        let publish = async |number: u128, most| {
            membership.publish(CHANNEL, who(number), session(number), most).await.expect("reached")
        };
        assert_eq!(publish(1, Some(1)).await, Publishing::Done);
        assert_eq!(publish(1, Some(1)).await, Publishing::Done, "who has a place keeps it");
        assert_eq!(publish(2, Some(1)).await, Publishing::Full);
        assert_eq!(publish(3, Some(1)).await, Publishing::None);
        assert_eq!(publish(1, None).await, Publishing::Done);
        assert_eq!(publish(2, Some(1)).await, Publishing::Done);
        membership.leave(CHANNEL, &Leave::own(who(2), None, LeaveReason::Left), None).await.expect("reached");
        assert_eq!(publish(1, Some(1)).await, Publishing::Done);
    }

    #[tokio::test]
    async fn what_is_told_of_a_channel_has_its_place_among_the_others() {
        let membership = membership(8);
        let (channel_id, recording_id) = (CHANNEL, RecordingId(Uuid::from_u128(7)));
        let event = ServerMessage::from(RecordingFinished { channel_id, recording_id, tracks: 1, position: None });
        let told = entries(membership.tell(CHANNEL, &event, None).await.expect("reached")).remove(0);
        assert_eq!((told.position.offset, &told.about), (1, &About::Channel));
        assert!(
            matches!(&*told.event, ServerMessage::RecordingFinished(event) if event.position.as_ref() == Some(&told.position))
        );
        let known = join(&membership, new(1, 1, 1)).await.position;
        let news = membership.tell(CHANNEL, &event, Some(&known)).await.expect("reached");
        assert_eq!(entries(news).iter().map(|entry| entry.position.offset).collect::<Vec<_>>(), [3]);
    }

    #[tokio::test]
    async fn an_empty_channel_is_forgotten_and_begins_a_new_epoch() {
        let membership = membership(8);
        let first = join(&membership, new(1, 1, 1)).await.position;
        membership.sweep().await;
        assert_eq!(occupancy(&membership).await, 1, "somebody is in");
        leave(&membership, 1).await.expect("leaves");
        membership.sweep().await;
        assert!(membership.snapshot(CHANNEL, None).await.expect("reached").is_none());
        assert_ne!(join(&membership, new(1, 1, 1)).await.position.epoch, first.epoch);
    }

    #[tokio::test]
    async fn a_session_that_moved_is_its_new_nodes_alone() {
        let cluster = MemoryCluster::new(config(8));
        let (one, two) = (cluster.join_as(NodeNumber(1)).membership, cluster.join_as(NodeNumber(2)).membership);
        let position = join(&one, new(1, 1, 1)).await.position;
        let adopt = async |through| two.adopt(CHANNEL, who(1), session(through), Moves(1), Some(&position)).await;
        assert!(adopt(9).await.expect("reached").is_none(), "no session of a member");
        let snapshot = adopt(1).await.expect("reached").expect("a member");
        assert_eq!((snapshot.members[0].node, snapshot.position), (NodeNumber(2), position.clone()));
        let own = Leave::own(who(1), Some(session(1)), LeaveReason::Timeout);
        assert!(one.leave(CHANNEL, &own, None).await.expect("reached").is_none());
        let change = VoiceChange { muted: Some(true), deafened: None };
        assert!(one.set_voice(CHANNEL, who(1), session(1), change, None).await.expect("reached").is_none());
        let stale = vec![Member { node: NodeNumber(1), muted: true, ..snapshot.members[0].clone() }];
        assert_eq!(one.restore(CHANNEL, stale).await, Ok((snapshot.members, position)));
        assert!(two.leave(CHANNEL, &own, None).await.expect("reached").is_some());
    }

    #[tokio::test]
    async fn restoring_says_exactly_who_is_there_through_a_node() {
        let cluster = MemoryCluster::new(config(8));
        let (one, two) = (cluster.join_as(NodeNumber(1)).membership, cluster.join_as(NodeNumber(2)).membership);
        let stays = join(&one, new(1, 1, 1)).await.member;
        join(&one, new(2, 2, 2)).await;
        let others = join(&two, new(3, 3, 3)).await;
        let known = Some(&others.position);
        let came = Member { user: user(4), session: session(4), stream: StreamId(4), muted: true, ..stays.clone() };
        let replaced = Member { user: user(3), session: session(5), stream: StreamId(5), ..stays.clone() };
        let taken = Member { user: user(6), session: session(6), stream: StreamId(3), ..stays.clone() };
        let ours = vec![Member { muted: true, ..stays.clone() }, came.clone(), replaced, taken];
        let restored = one.restore(CHANNEL, ours.clone()).await.expect("reached");
        let now = two.snapshot(CHANNEL, known).await.expect("reached").expect("known");
        let entries = now.missed.expect("all of it");
        let names: Vec<_> = entries.iter().map(|entry| entry.event.name()).collect();
        assert_eq!(names, ["UserLeft", "VoiceStateChanged", "UserJoined", "VoiceStateChanged"]);
        assert_eq!(restored, (now.members, now.position));
        assert_eq!(restored.0, [Member { muted: true, ..stays }, others.member, came]);
        assert_eq!(one.restore(CHANNEL, ours).await.expect("reached"), restored, "once is enough");
    }

    #[tokio::test]
    async fn who_left_and_came_back_unheard_is_there_with_the_newer_stream() {
        let membership = membership(8);
        let before = join(&membership, new(1, 1, 1)).await;
        let again = Member { stream: StreamId(2), ..before.member };
        let (members, position) = membership.restore(CHANNEL, vec![again.clone()]).await.expect("reached");
        assert_eq!((members, position.offset), (vec![again], before.position.offset + 2), "left, joined");
    }

    #[tokio::test]
    async fn a_node_hears_of_what_it_watches_and_of_what_it_missed() {
        let cluster = MemoryCluster::new(config(8));
        let (one, mut two) = (cluster.join_as(NodeNumber(1)).membership, cluster.join_as(NodeNumber(2)));
        join(&one, new(1, 1, 1)).await;
        two.membership.watch(CHANNEL).await.expect("reached");
        let second = join(&one, new(2, 2, 2)).await;
        let entry = entries(second.news).remove(0);
        assert_eq!(two.notices.recv().await, Some(Notice::Entry { channel: CHANNEL, entry }));
        // More than its queue takes.
        for number in 3..9 {
            join(&one, new(number.into(), number.into(), number)).await;
        }
        for _ in 0..4 {
            assert!(matches!(two.notices.recv().await, Some(Notice::Entry { .. })));
        }
        assert_eq!(two.notices.recv().await, Some(Notice::Reconnected));
        two.membership.unwatch(CHANNEL).await;
        leave(&one, 1).await.expect("leaves");
        one.announce(Notice::ChannelChanged { channel: CHANNEL }).await;
        assert_eq!(two.notices.recv().await, Some(Notice::ChannelChanged { channel: CHANNEL }));
        cluster.set_reachable(NodeNumber(2), false);
        assert!(two.membership.snapshot(CHANNEL, None).await.is_err());
        cluster.set_reachable(NodeNumber(2), true);
        assert_eq!(two.notices.recv().await, Some(Notice::Reconnected));
    }

    #[tokio::test]
    async fn a_session_is_claimed_once_with_its_token() {
        let cluster = MemoryCluster::new(config(8));
        let (mut one, two) = (cluster.join_as(NodeNumber(1)), cluster.join_as(NodeNumber(2)));
        let tokens = |current: u8, before: Option<u8>| TokenHashes {
            current: [current; 32],
            before: before.map(|byte| [byte; 32]),
        };
        let record = |tokens| SessionRecord {
            user: user(1),
            tokens,
            places: Vec::new(),
            texts: Vec::new(),
            entries: Vec::new(),
            moves: Moves::default(),
        };
        one.records.open(session(1), record(tokens(1, None))).await.expect("reached");
        let claim = async |offered: u8, next| two.records.claim(session(1), [offered; 32], next).await.map(|_| ());
        assert_eq!(claim(7, tokens(8, None)).await, Err(ClaimRefused::WrongToken));
        assert_eq!(claim(1, tokens(2, Some(1))).await, Ok(()));
        assert_eq!(one.session_notices.recv().await, Some(SessionNotice::Claimed(session(1))));
        assert_eq!(one.records.refresh(session(1), record(tokens(1, None))).await, Ok(false));
        one.records.release(session(1)).await;
        assert_eq!(claim(1, tokens(3, None)).await, Ok(()), "the one before still holds");
        assert_eq!(claim(1, tokens(4, None)).await, Err(ClaimRefused::WrongToken), "no longer");
        two.records.release(session(1)).await;
        assert_eq!(claim(3, tokens(4, None)).await, Err(ClaimRefused::Unknown));
        assert_eq!(one.records.refresh(session(1), record(tokens(1, None))).await, Ok(true), "a lost record");
    }
}
