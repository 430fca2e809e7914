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
    gateway::Position,
    ids::{ChannelId, NodeNumber, SessionId, UserId},
};
use dashmap::{DashMap, DashSet};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    channel::ChannelState,
    entry::{Changed, JoinRefused, Joined, Leave, Member, NewMember, News, Notice, Snapshot, Unavailable, VoiceChange},
    membership::Membership,
    sessions::{ClaimRefused, SessionNotice, SessionRecord, SessionRecords, TokenHashes},
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
    /// 512 events of about 500 bytes outlast the resume grace of 30 s at 17 changes a second in one channel; two hours
    /// are the default life of a room.
    fn default() -> Self {
        Self { journal_events: 512, empty_ttl: Duration::from_secs(7_200), notices: 1_024 }
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
        Self { shared: Arc::new(Shared { channels, sessions, nodes, is_single, config }) }
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
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        self.check()?;
        let node = self.node.number;
        Ok(self.step_of_known(channel, |state| state.adopt(node, user, session).map(|()| state.snapshot(since))))
    }

    pub(super) fn restore(
        &self,
        channel: ChannelId,
        ours: Vec<Member>,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        self.check()?;
        Ok(self.step(channel, |state| state.restore(self.node.number, ours, known)))
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
    pub(super) fn open(&self, session: SessionId, record: SessionRecord) -> Result<(), Unavailable> {
        self.check()?;
        self.shared.sessions.insert(session, OwnedRecord { node: self.node.number, record });
        Ok(())
    }

    pub(super) fn refresh(&self, session: SessionId, record: SessionRecord) -> Result<bool, Unavailable> {
        self.check()?;
        let node = self.node.number;
        let owned = OwnedRecord { node, record };
        let mut known = match self.shared.sessions.entry(session) {
            dashmap::Entry::Occupied(known) => known,
            dashmap::Entry::Vacant(lost) => {
                lost.insert(owned);
                return Ok(true);
            }
        };
        let is_ours = known.get().node == node;
        if is_ours {
            known.insert(owned);
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
        Ok(owned.record.clone())
    }

    pub(super) fn release(&self, session: SessionId) {
        if self.check().is_ok() {
            self.shared.sessions.remove_if(&session, |_, owned| owned.node == self.node.number);
        }
    }

    pub(super) fn account_disabled(&self, user: UserId) {
        if self.check().is_ok() {
            let notice = SessionNotice::AccountDisabled(user);
            self.shared.others(self.node.number, |node| node.session_notices.send(notice));
        }
    }

    fn check(&self) -> Result<(), Unavailable> {
        if self.node.reachable.load(Ordering::Acquire) { Ok(()) } else { Err(Unavailable) }
    }
}
