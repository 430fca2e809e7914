//! A node's place among the nodes: registered, renewed every second, and seen by all.
//!
//! A lease that has run out ends when another node says so, not by itself: after a time without Redis every node finds
//! its place as it was. Whoever says so must itself have had Redis for as long as a lease lasts, so that all had the
//! chance to renew theirs. A node given up by the others registers again, under another number.

use std::{sync::Arc, time::Instant};

use antiphon_core::ids::NodeNumber;
use fred::{
    error::Error,
    types::{Value, scripts::Script},
};
use tokio::sync::watch;

use super::{
    Handle, RedisError,
    codec::{Unreadable, decode, encode},
    connection::{Connection, within},
    keys::{self, Topic},
    pubsub::Probes,
    script::{self, Answer},
    shared::{Shared, bytes, ms, number, text},
};
use crate::{
    cluster::{
        registry::{ClusterView, Load, NodeRecord, NodeState, no_number},
        statistics::NodeStatistics,
    },
    random,
    telemetry::metrics::{LeaseOutcome, ReconnectCause, RedisOperation, RedisOutcome, metrics},
};

/// How many renewals may fail in a row before the connection is given up.
const FAILURES_MAX: u32 = 2;

/// With this many nodes, the records of all are read at each second renewal, and so on: what is read grows with the
/// square of the nodes otherwise.
const NODES_PER_READING: usize = 50;

/// The register of nodes, in Redis.
#[derive(Clone, Debug)]
pub struct RedisRegistry {
    handle: Handle,
}

impl RedisRegistry {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    pub(in crate::cluster) fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.handle.shared().view.subscribe()
    }

    pub(in crate::cluster) fn set_state(&self, state: NodeState) {
        self.handle.shared().node.lock().state = state;
        self.handle.shared().renew_now.notify_one();
    }

    pub(in crate::cluster) fn catch_up(&self) {
        self.handle.shared().renew_now.notify_one();
    }

    pub(in crate::cluster) fn report_load(&self, load: Load) {
        self.handle.shared().node.lock().load = load;
    }

    pub(in crate::cluster) fn report_statistics(&self, statistics: NodeStatistics) {
        self.handle.shared().node.lock().statistics = statistics;
    }

    pub(in crate::cluster) async fn unregister(&self) {
        let shared = self.handle.shared();
        let permit = shared.permit();
        shared.lease.lock().is_over = true;
        let Ok(permit) = permit else { return };
        let own = vec![number(permit.number.0.into())];
        let _ = shared.single(RedisOperation::Register, on_nodes(&permit.connection, &script::UNREGISTER, own)).await;
    }
}

/// Takes this node's place: the one it had, if it still has it, else a new one.
pub(super) async fn take_place(shared: &Shared, connection: &Connection) -> Result<(), RedisError> {
    let (mine, is_over) = {
        let lease = shared.lease.lock();
        (lease.number, lease.is_over)
    };
    if is_over {
        return Err(RedisError::Over);
    }
    if mine != no_number() && renew(shared, connection, false).await? {
        return Ok(());
    }
    register(shared, connection, mine).await
}

async fn register(shared: &Shared, connection: &Connection, wanted: NodeNumber) -> Result<(), RedisError> {
    let node = shared.node.lock().clone();
    let sent = Instant::now();
    let own = vec![
        number(wanted.0.into()),
        number(ms(shared.config.lease_ttl)),
        bytes(encode(&node)),
        text(node.state.as_str()),
        text(&*node.node_id.0),
        number(node.started_at_us),
        number((random::number() & 0xff_ffff).into()),
        number(shared.view.borrow().epoch),
    ];
    let mut answer =
        Answer::new(timed(shared, RedisOperation::Register, on_nodes(connection, &script::REGISTER, own)).await?);
    if answer.text()? == "taken" {
        return Err(RedisError::NodeIdTaken(node.node_id));
    }
    let (server_ms, epoch, given) = (answer.number()?, answer.number()?, answer.number()?);
    let given = NodeNumber(u32::try_from(given).unwrap_or_default());
    shared.lease.lock().renewed(given, sent, server_ms, shared.config.lease_ttl);
    if given != wanted {
        // The list of channels is another number's.
        shared.listed.clear();
        tracing::info!(node = %node.node_id, number = %given, former = %wanted, "registered with the cluster");
    }
    metrics().redis.lease_renewals.of(LeaseOutcome::Registered).increment(1);
    read_view(shared, connection).await?;
    shared.change_view(|view| view.epoch = view.epoch.max(epoch));
    Ok(())
}

/// Renews the lease; false when the others have given this node up.
async fn renew(shared: &Shared, connection: &Connection, ends_others: bool) -> Result<bool, RedisError> {
    let node = shared.node.lock().clone();
    let mine = shared.lease.lock().number;
    let sent = Instant::now();
    let own = vec![
        number(mine.0.into()),
        number(ms(shared.config.lease_ttl)),
        bytes(encode(&node)),
        text(node.state.as_str()),
        text(if ends_others { "1" } else { "0" }),
    ];
    let answer = timed(shared, RedisOperation::Renew, on_nodes(connection, &script::RENEW, own)).await;
    let mut answer = match answer {
        Ok(value) => Answer::new(value),
        Err(error) => {
            metrics().redis.lease_renewals.of(LeaseOutcome::Failed).increment(1);
            return Err(error.into());
        }
    };
    if answer.text()? == "unknown" {
        shared.lease.lock().lost();
        metrics().redis.lease_renewals.of(LeaseOutcome::Lost).increment(1);
        return Ok(false);
    }
    let (server_ms, epoch, ended) = (answer.number()?, answer.number()?, answer.number()?);
    shared.lease.lock().renewed(mine, sent, server_ms, shared.config.lease_ttl);
    metrics().redis.lease_renewals.of(LeaseOutcome::Renewed).increment(1);
    metrics().redis.leases_ended.increment(ended);
    if epoch != shared.view.borrow().epoch {
        read_view(shared, connection).await?;
    }
    Ok(true)
}

async fn read_view(shared: &Shared, connection: &Connection) -> Result<(), RedisError> {
    let reading = on_nodes(connection, &script::VIEW, Vec::new());
    let mut answer = Answer::new(timed(shared, RedisOperation::View, reading).await?);
    let epoch = answer.number()?;
    let mut nodes = read_nodes(answer.list()?)?;
    nodes.sort_unstable_by_key(|node| node.number);
    let me = shared.lease.lock().number;
    shared.change_view(|view| {
        (view.epoch, view.me, view.nodes) = (epoch, me, nodes);
    });
    Ok(())
}

fn read_nodes(list: Answer) -> Result<Vec<NodeRecord>, Unreadable> {
    let mut nodes = Vec::new();
    for (number, record) in list.pairs()? {
        match (number.parse(), decode::<NodeRecord>(&record)) {
            (Ok(number), Ok(record)) => nodes.push(NodeRecord { number: NodeNumber(number), ..record }),
            // Of a release to come: it is there, but cannot be worked with.
            (_, Err(error)) => tracing::warn!(number, %error, "a node's record is not understood"),
            (Err(_), _) => tracing::warn!(number, "a node's number is none"),
        }
    }
    Ok(nodes)
}

/// Keeps this node's place and listens for its own probes, until something is wrong, and says what.
pub(super) async fn keep_place(shared: &Shared, connection: &Connection, probes: &Probes) -> ReconnectCause {
    let began = Instant::now();
    let mut failures = 0;
    let mut renewals = 0_usize;
    let mut probe_ticks = tokio::time::interval(shared.config.probe_every);
    let mut renew_ticks = tokio::time::interval(shared.config.renew_every);
    probe_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    renew_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            _ = probe_ticks.tick() => {
                if probes.is_silent(shared.config.probe_every * 3) {
                    return ReconnectCause::Silent;
                }
                shared.settle();
                probe(shared, connection, probes).await.map_err(RedisError::from)
            }
            _ = renew_ticks.tick() => {
                renewals += 1;
                one_renewal(shared, connection, began.elapsed() >= shared.config.lease_ttl, renewals).await
            }
            () = shared.renew_now.notified() => one_renewal(shared, connection, false, renewals).await,
        };
        match result {
            Ok(()) => failures = 0,
            Err(RedisError::GivenUp) => return ReconnectCause::GivenUp,
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, failures, "a renewal of the lease, or a probe, failed");
                if failures >= FAILURES_MAX {
                    return ReconnectCause::NoAnswer;
                }
            }
        }
    }
}

async fn one_renewal(
    shared: &Shared,
    connection: &Connection,
    ends_others: bool,
    renewals: usize,
) -> Result<(), RedisError> {
    if shared.lease.lock().is_over {
        return Ok(());
    }
    if !renew(shared, connection, ends_others).await? {
        tracing::warn!("the others had given this node up; it registers again");
        return Err(RedisError::GivenUp);
    }
    if renewals.is_multiple_of(1 + shared.view.borrow().nodes.len() / NODES_PER_READING) {
        read_view(shared, connection).await?;
    }
    shared.settle();
    Ok(())
}

async fn probe(shared: &Shared, connection: &Connection, probes: &Probes) -> Result<(), Error> {
    for topic in probes.topics() {
        within(shared.config.patience, connection.publish(&topic, Vec::new())).await?;
    }
    Ok(())
}

/// Runs one of the scripts about nodes.
pub(super) async fn on_nodes(connection: &Connection, script: &Script, own: Vec<Value>) -> Result<Value, Error> {
    let mut arguments = vec![text(connection.publish_command()), text(Topic::Nodes.name())];
    arguments.extend(own);
    connection.run(script, keys::nodes(), arguments).await
}

async fn timed(
    shared: &Shared,
    operation: RedisOperation,
    work: impl Future<Output = Result<Value, Error>>,
) -> Result<Value, Error> {
    let began = Instant::now();
    let result = within(shared.config.patience, work).await;
    let outcome = if result.is_ok() { RedisOutcome::Ok } else { RedisOutcome::InDoubt };
    metrics().redis.operations.of((operation, outcome)).increment(1);
    metrics().redis.operation_duration.of(operation).record(began.elapsed().as_secs_f64());
    result
}
