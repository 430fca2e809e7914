//! What the parts of a node's hold on Redis share: the connection of now, the lease, and the way of every operation.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::Position,
    ids::{ChannelId, NodeNumber, SessionId, StreamId, UserId},
};
use dashmap::DashSet;
use fred::types::{Value, scripts::Script};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    RedisConfig,
    connection::Connection,
    script::Answer,
};
use crate::{
    cluster::{
        entry::{Notice, Unavailable},
        registry::{ClusterView, NodeRecord, SharedState, no_number},
    },
    telemetry::metrics::{NoticeKind, RedisOperation, RedisOutcome, metrics},
};

/// Joins in doubt that are remembered to be undone.
const DOUBTS_MAX: usize = 4_096;

/// What the parts share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: RedisConfig,
    /// The connection of now; `None` while Redis is away.
    connection: Mutex<Option<Arc<Connection>>>,
    pub(super) lease: Mutex<Lease>,
    /// This node, as the others are to see it.
    pub(super) node: Mutex<NodeRecord>,
    pub(super) view: watch::Sender<Arc<ClusterView>>,
    /// Ends the wait for the next renewal.
    pub(super) renew_now: Notify,
    /// The channels of which every entry is to be told, each with the newest place told.
    pub(super) watched: Mutex<HashMap<ChannelId, Option<Position>>>,
    /// The channels that are in Redis' list of this node's.
    pub(super) listed: DashSet<ChannelId>,
    pub(super) requests: mpsc::Sender<Request>,
    notices: mpsc::Sender<Notice>,
    /// A notice had no room: everything must be read anew once there is room.
    notices_lost: AtomicBool,
    doubts: Mutex<VecDeque<Doubt>>,
}

/// What is asked of the keeper.
#[derive(Debug)]
pub(super) enum Request {
    /// Listen to a channel.
    Watch(ChannelId, oneshot::Sender<()>),
    /// Listen to it no more.
    Unwatch(ChannelId),
}

/// A node's right to act.
#[derive(Debug)]
pub(super) struct Lease {
    /// Zero before the first registration.
    pub(super) number: NodeNumber,
    /// The numbers that this process had before.
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

/// A join of which nobody knows whether it happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) channel: ChannelId,
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) stream: StreamId,
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
    ) -> Self {
        let shared = SharedState::Away { since: Instant::now() };
        let view = ClusterView { epoch: 0, me: node.number, nodes: Vec::new(), shared };
        metrics().redis.up.set(0.0);
        Self {
            config,
            connection: Mutex::new(None),
            lease: Mutex::new(Lease::none()),
            node: Mutex::new(node),
            view: watch::Sender::new(Arc::new(view)),
            renew_now: Notify::new(),
            watched: Mutex::default(),
            listed: DashSet::new(),
            requests,
            notices,
            notices_lost: AtomicBool::new(false),
            doubts: Mutex::default(),
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
        let deadline_ms = clock_ms + whole_ms(deadline.saturating_duration_since(clock_at));
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
            deadline_ms = server_ms + whole_ms(permit.deadline.saturating_duration_since(Instant::now()));
        }
        Err(Failed::NotDone)
    }

    /// Tells the node something. What there is no room for is lost, and so is everything told before it is said.
    pub(super) fn notify(&self, notice: Notice) {
        self.tell_of_losses();
        let kind = match notice {
            Notice::Entry { .. } => NoticeKind::Entry,
            Notice::Lost { .. } => NoticeKind::Lost,
            Notice::Reconnected => NoticeKind::Reconnected,
            Notice::SessionClaimed { .. } => NoticeKind::SessionClaimed,
        };
        match self.notices.try_send(notice) {
            Ok(()) => metrics().redis.notices.of(kind).increment(1),
            Err(_) => {
                metrics().redis.notices_dropped.increment(1);
                self.notices_lost.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Says that notices were lost, as soon as there is room for saying so.
    pub(super) fn tell_of_losses(&self) {
        if self.notices_lost.load(Ordering::Relaxed) && self.notices.try_send(Notice::Reconnected).is_ok() {
            metrics().redis.notices.of(NoticeKind::Reconnected).increment(1);
            self.notices_lost.store(false, Ordering::Relaxed);
        }
    }

    /// Remembers a join to be undone.
    pub(super) fn doubt(&self, doubt: Doubt) {
        let mut doubts = self.doubts.lock();
        if doubts.len() >= DOUBTS_MAX {
            doubts.pop_front();
            metrics().redis.doubts_dropped.increment(1);
        }
        doubts.push_back(doubt);
    }

    pub(super) fn next_doubt(&self) -> Option<Doubt> {
        self.doubts.lock().pop_front()
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

fn whole_ms(duration: Duration) -> u64 {
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
    }
}
