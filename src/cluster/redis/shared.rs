//! What the parts of a node's hold on Redis share: the connection of now, the lease, and the way of every operation.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::Position,
    ids::{ChannelId, NodeNumber, SessionId},
};
use dashmap::DashSet;
use fred::types::{Value, scripts::Script};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{RedisConfig, connection::Connection, script::Answer};
use crate::{
    cluster::{
        entry::{Notice, Unavailable},
        mailbox::Mailbox,
        registry::{ClusterView, NodeRecord, SharedState, no_number},
        sessions::SessionNotice,
    },
    telemetry::metrics::{NoticeKind, RedisOperation, RedisOutcome, metrics},
};

/// Between two times that everything is said to work because an operation had failed.
const RECONNECTED_EVERY: Duration = Duration::from_secs(2);

/// What the parts share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: RedisConfig,
    /// This process, by its start.
    pub(super) process: u64,
    /// The connection of now; `None` while Redis is away.
    connection: Mutex<Option<Arc<Connection>>>,
    pub(super) lease: Mutex<Lease>,
    /// This node, as the others are to see it.
    pub(super) node: Mutex<NodeRecord>,
    pub(super) view: watch::Sender<Arc<ClusterView>>,
    /// Ends the wait for the next renewal.
    pub(super) renew_now: Notify,
    /// The channels of which every entry is to be told.
    pub(super) watched: Mutex<Watched>,
    /// The channels that are in Redis' list of this node's.
    pub(super) listed: DashSet<ChannelId>,
    pub(super) requests: mpsc::Sender<Request>,
    notices: Mailbox<Notice>,
    session_notices: Mailbox<SessionNotice>,
    /// Somebody was refused since everything was last said to work.
    has_failed: AtomicBool,
    /// When everything was last said to work.
    reconnected_at: Mutex<Option<Instant>>,
    /// The sessions whose records are this node's to keep alive.
    pub(super) sessions: DashSet<SessionId>,
}

/// The channels that are watched, each with the newest place told, once that is known.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<ChannelId, Option<Position>>);

impl Watched {
    /// True when it was missing.
    pub(super) fn insert_if_missing(&mut self, channel: ChannelId) -> bool {
        let is_new = !self.0.contains_key(&channel);
        self.0.entry(channel).or_default();
        is_new
    }

    /// True when it was there.
    pub(super) fn remove(&mut self, channel: ChannelId) -> bool {
        self.0.remove(&channel).is_some()
    }

    pub(super) fn contains(&self, channel: ChannelId) -> bool {
        self.0.contains_key(&channel)
    }

    pub(super) fn channels(&self) -> Vec<ChannelId> {
        self.0.keys().copied().collect()
    }

    /// Everything after `position` is to be told; what was told meanwhile is newer.
    pub(super) fn begin_at(&mut self, channel: ChannelId, position: Position) {
        if let Some(told) = self.0.get_mut(&channel) {
            told.get_or_insert(position);
        }
    }

    /// The newest place told; `None` when the channel is not watched.
    pub(super) fn told(&self, channel: ChannelId) -> Option<Option<Position>> {
        self.0.get(&channel).cloned()
    }

    /// Up to `position` everything is told. False when the channel is not watched.
    pub(super) fn tell(&mut self, channel: ChannelId, position: &Position) -> bool {
        let Some(told) = self.0.get_mut(&channel) else { return false };
        *told = Some(position.clone());
        true
    }
}

/// What is asked of the keeper.
#[derive(Debug)]
pub(super) enum Request {
    /// Listen to a channel.
    Watch(ChannelId, oneshot::Sender<()>),
    /// Listen to it no more.
    Unwatch(ChannelId),
}

/// Numbers that a node remembers to have had. Each script about a channel is sent them.
const FORMER_MAX: usize = 16;

/// A node's right to act.
#[derive(Debug)]
pub(super) struct Lease {
    /// Zero before the first registration.
    pub(super) number: NodeNumber,
    /// The numbers that this process had before, the last [`FORMER_MAX`] of them.
    pub(super) former: Vec<NodeNumber>,
    /// Until when the node may act: counted from when its last renewal was sent, so that it never thinks itself longer
    /// alive than the others do.
    until: Option<Instant>,
    /// What the server's clock showed, in ms, no later than at that moment.
    clock: Option<(u64, Instant)>,
    /// The node has given its place up.
    pub(super) is_over: bool,
}

impl Lease {
    const fn none() -> Self {
        Self { number: no_number(), former: Vec::new(), until: None, clock: None, is_over: false }
    }

    /// A renewal sent at `sent` was answered just now, when the server's clock showed `server_ms`.
    pub(super) fn renewed(&mut self, number: NodeNumber, sent: Instant, server_ms: u64, ttl: Duration) {
        if self.number != number && self.number != no_number() {
            self.former.push(self.number);
            // Rooms and records get a new number within seconds, so older ones stand nowhere any more.
            let surplus = self.former.len().saturating_sub(FORMER_MAX);
            self.former.drain(..surplus);
        }
        self.number = number;
        self.until = Some(sent + ttl);
        self.clock = Some((server_ms, Instant::now()));
    }

    /// The others have given the node up.
    pub(super) fn lost(&mut self) {
        self.until = None;
    }

    fn is_valid(&self, now: Instant) -> bool {
        !self.is_over && self.until.is_some_and(|until| now < until)
    }
}

/// The right to do one thing now.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    pub(super) connection: Arc<Connection>,
    pub(super) number: NodeNumber,
    pub(super) former: Vec<NodeNumber>,
    /// Until when an answer is waited for.
    deadline: Instant,
    /// The same by the server's clock, in ms, or sooner.
    deadline_ms: u64,
}

/// Why an operation has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It did not happen.
    NotDone,
    /// It may have happened.
    InDoubt,
}

impl From<Failed> for Unavailable {
    fn from(_: Failed) -> Self {
        Self
    }
}

impl Shared {
    pub(super) fn new(
        config: RedisConfig,
        node: NodeRecord,
        requests: mpsc::Sender<Request>,
        notices: mpsc::Sender<Notice>,
        session_notices: mpsc::Sender<SessionNotice>,
    ) -> Self {
        let shared = SharedState::Away { since: Instant::now() };
        let view = ClusterView { epoch: 0, me: node.number, nodes: Vec::new(), shared };
        metrics().redis.up.set(0.0);
        Self {
            config,
            process: node.started_at_us,
            connection: Mutex::new(None),
            lease: Mutex::new(Lease::none()),
            node: Mutex::new(node),
            view: watch::Sender::new(Arc::new(view)),
            renew_now: Notify::new(),
            watched: Mutex::default(),
            listed: DashSet::new(),
            requests,
            notices: Mailbox::new(notices, Notice::Reconnected),
            session_notices: Mailbox::new(session_notices, SessionNotice::Reconnected),
            has_failed: AtomicBool::new(false),
            reconnected_at: Mutex::default(),
            sessions: DashSet::new(),
        }
    }

    /// Lets operations use `connection` from now on.
    pub(super) fn up(&self, connection: &Arc<Connection>) {
        *self.connection.lock() = Some(Arc::clone(connection));
        metrics().redis.up.set(1.0);
        self.change_view(|view| view.shared = SharedState::Up);
    }

    /// Lets no operation begin until there is a connection again.
    pub(super) fn away(&self) {
        *self.connection.lock() = None;
        metrics().redis.up.set(0.0);
        self.change_view(|view| {
            if view.shared == SharedState::Up {
                view.shared = SharedState::Away { since: Instant::now() };
            }
        });
    }

    pub(super) fn change_view(&self, change: impl FnOnce(&mut ClusterView)) {
        self.view.send_if_modified(|view| {
            let mut changed = ClusterView::clone(view);
            change(&mut changed);
            let is_changed = **view != changed;
            if is_changed {
                *view = Arc::new(changed);
            }
            is_changed
        });
    }

    /// The right to act now, for somebody who is refused without it.
    pub(super) fn permitted(&self) -> Result<Permit, Unavailable> {
        self.permit().map_err(|failed| {
            self.failed();
            failed.into()
        })
    }

    /// The right to act now, if there is a connection and the lease has not run out.
    pub(super) fn permit(&self) -> Result<Permit, Failed> {
        let connection = self.connection.lock().clone().ok_or(Failed::NotDone)?;
        let now = Instant::now();
        let lease = self.lease.lock();
        if !lease.is_valid(now) {
            return Err(Failed::NotDone);
        }
        let (Some(until), Some((clock_ms, clock_at))) = (lease.until, lease.clock) else { return Err(Failed::NotDone) };
        let deadline = until.min(now + self.config.patience);
        let deadline_ms = clock_ms + ms(deadline.saturating_duration_since(clock_at));
        Ok(Permit { connection, number: lease.number, former: lease.former.clone(), deadline, deadline_ms })
    }

    /// Runs a script whose first argument is until when somebody waits for it, and whose answer begins with what it
    /// is. Nothing is done later than the caller is told, whatever the network and the server do meanwhile.
    pub(super) async fn run(
        &self,
        operation: RedisOperation,
        permit: &Permit,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<(String, Answer), Failed> {
        let began = Instant::now();
        let result = self.run_in_time(permit, script, keys, arguments).await;
        if result.is_err() {
            self.failed();
        }
        let outcome = match result {
            Ok(_) => RedisOutcome::Ok,
            Err(Failed::NotDone) => RedisOutcome::NotDone,
            Err(Failed::InDoubt) => RedisOutcome::InDoubt,
        };
        metrics().redis.operations.of((operation, outcome)).increment(1);
        metrics().redis.operation_duration.of(operation).record(began.elapsed().as_secs_f64());
        result
    }

    async fn run_in_time(
        &self,
        permit: &Permit,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<(String, Answer), Failed> {
        let mut deadline_ms = permit.deadline_ms;
        // Once more, since in a cluster each server has a clock of its own.
        for _ in 0..2 {
            let mut all = vec![number(deadline_ms)];
            all.extend(arguments.iter().cloned());
            let running = permit.connection.run(script, keys.clone(), all);
            let value = match tokio::time::timeout_at(permit.deadline.into(), running).await {
                Ok(Ok(value)) => value,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "an operation of Redis failed");
                    return Err(Failed::InDoubt);
                }
                Err(_) => return Err(Failed::InDoubt),
            };
            let mut answer = Answer::new(value);
            let kind = answer.text().map_err(|error| unreadable(&error))?;
            if kind != "late" {
                return Ok((kind, answer));
            }
            let server_ms = answer.number().map_err(|error| unreadable(&error))?;
            deadline_ms = server_ms + ms(permit.deadline.saturating_duration_since(Instant::now()));
        }
        Err(Failed::NotDone)
    }

    /// Tells the node of channels.
    pub(super) fn notify(&self, notice: Notice) {
        let kind = match notice {
            Notice::Entry { .. } => NoticeKind::Entry,
            Notice::Lost { .. } => NoticeKind::Lost,
            Notice::Reconnected => NoticeKind::Reconnected,
            Notice::ChannelChanged { .. } => NoticeKind::ChannelChanged,
            Notice::StandingChanged { .. } => NoticeKind::StandingChanged,
            Notice::Removed { .. } => NoticeKind::Removed,
            Notice::Direct(_) => NoticeKind::Direct,
        };
        metrics().redis.notices.of(kind).increment(1);
        count_dropped(self.notices.send(notice));
    }

    /// Tells the node of sessions.
    pub(super) fn notify_of_session(&self, notice: SessionNotice) {
        let kind = match notice {
            SessionNotice::Claimed(_) => NoticeKind::SessionClaimed,
            SessionNotice::AccountDisabled(_) => NoticeKind::AccountDisabled,
            SessionNotice::Listening(_) => NoticeKind::Listening,
            SessionNotice::Reconnected => NoticeKind::SessionsReconnected,
        };
        metrics().redis.notices.of(kind).increment(1);
        match notice {
            SessionNotice::Listening(_) => self.session_notices.offer(notice),
            _ => count_dropped(self.session_notices.send(notice)),
        }
    }

    /// Tells the node that everything works again, and that anything may have been missed.
    pub(super) fn reconnected(&self) {
        self.has_failed.store(false, Ordering::Relaxed);
        *self.reconnected_at.lock() = Some(Instant::now());
        self.notify(Notice::Reconnected);
        self.notify_of_session(SessionNotice::Reconnected);
    }

    /// To be called when Redis has just answered, and now and then: whoever was refused hears that it works again.
    pub(super) fn settle(&self) {
        if self.has_failed.load(Ordering::Relaxed) && self.permit().is_ok() && self.may_say_reconnected() {
            self.reconnected();
        }
    }

    /// Everything is read anew then, which must not itself be what makes Redis slow.
    fn may_say_reconnected(&self) -> bool {
        self.reconnected_at.lock().is_none_or(|at| at.elapsed() >= RECONNECTED_EVERY)
    }

    /// Somebody was refused.
    pub(super) fn failed(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

fn count_dropped(was_sent: bool) {
    if !was_sent {
        metrics().redis.notices_dropped.increment(1);
    }
}

pub(super) fn unreadable(error: &super::codec::Unreadable) -> Failed {
    tracing::error!(%error, "Redis holds what this release cannot read");
    Failed::InDoubt
}

pub(super) fn number(value: u64) -> Value {
    Value::String(value.to_string().into())
}

pub(super) fn text(value: impl Into<String>) -> Value {
    Value::String(value.into().into())
}

pub(super) fn bytes(value: Vec<u8>) -> Value {
    Value::Bytes(value.into())
}

/// Whole milliseconds, as scripts take them.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_itself_and_remembers_numbers() {
        let (mut lease, start, ttl) = (Lease::none(), Instant::now(), Duration::from_secs(5));
        assert!(!lease.is_valid(start), "never registered");
        lease.renewed(NodeNumber(7), start, 1_000, ttl);
        assert!(lease.is_valid(start + Duration::from_millis(4_999)));
        assert!(!lease.is_valid(start + ttl), "counted from when it was sent");
        lease.renewed(NodeNumber(9), start, 1_000, ttl);
        assert_eq!((lease.number, lease.former.as_slice()), (NodeNumber(9), [NodeNumber(7)].as_slice()));
        lease.lost();
        assert!(!lease.is_valid(start));
        (10..100).for_each(|number| lease.renewed(NodeNumber(number), start, 1_000, ttl));
        assert_eq!((lease.former.len(), lease.former.last()), (FORMER_MAX, Some(&NodeNumber(98))));
    }
}
