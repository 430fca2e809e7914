//! Keeps a node connected: connects, takes its place, listens and renews; and begins anew whenever something is wrong.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{
    RedisError,
    connection::{Connection, Target},
    keys::Topic,
    pubsub::{self, Probes},
    registry, sessions,
    shared::{Request, Shared},
    sweep,
};
use crate::telemetry::metrics::{ReconnectCause, metrics};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// Before a node that may not take part asks again.
const RETRY_REFUSED: Duration = Duration::from_secs(1);

/// Runs for ever. What hinders it is said in `problem`.
pub(super) async fn keep(
    shared: Arc<Shared>,
    target: Target,
    mut requests: mpsc::Receiver<Request>,
    problem: watch::Sender<Option<String>>,
) {
    let mut is_first = true;
    let mut is_known = false;
    loop {
        match connect(&shared, &target).await {
            Ok(connection) => {
                is_known = false;
                let cause = serve(&shared, &connection, &mut requests, is_first).await;
                is_first = false;
                shared.away();
                metrics().redis.reconnects.of(cause).increment(1);
                tracing::warn!(?cause, "the connection to Redis is lost; connecting again");
            }
            Err(error) => {
                if !is_known {
                    tracing::warn!(%error, "Redis cannot be reached; trying again");
                }
                is_known = true;
                problem.send_replace(Some(error.to_string()));
                if matches!(error, RedisError::NodeIdTaken(_) | RedisError::Over) {
                    tokio::time::sleep(RETRY_REFUSED).await;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn connect(shared: &Shared, target: &Target) -> Result<Arc<Connection>, RedisError> {
    let connection = Connection::open(target).await?;
    registry::take_place(shared, &connection).await?;
    Ok(connection)
}

/// Uses a connection until something is wrong with it, and says what.
async fn serve(
    shared: &Shared,
    connection: &Arc<Connection>,
    requests: &mut mpsc::Receiver<Request>,
    is_first: bool,
) -> ReconnectCause {
    let mut messages = connection.messages();
    let mut cluster_changes = connection.cluster_changes();
    let probes = Probes::new(connection.probes(shared.process));
    let mut topics = vec![Topic::Nodes, Topic::AllNodes, Topic::Node(shared.lease.lock().number)];
    topics.extend(probes.topics());
    // What is said to this node must not be missed by one that seems to be there.
    if connection.subscribe(&topics).await.is_err() {
        return ReconnectCause::NoAnswer;
    }
    // Lists may have gone with the server's data.
    shared.listed.clear();
    shared.up(connection);
    let channels: Vec<Topic> = shared.watched.lock().channels().into_iter().map(Topic::Channel).collect();
    if connection.subscribe(&channels).await.is_err() {
        return ReconnectCause::NoAnswer;
    }
    if !is_first {
        shared.reconnected();
    }
    tokio::select! {
        cause = pubsub::listen(shared, connection, &mut messages, requests, &probes) => cause,
        cause = registry::keep_place(shared, connection, &probes) => cause,
        () = sweep::sweep_for_ever(shared, connection) => ReconnectCause::Closed,
        () = sessions::keep_alive(shared, connection) => ReconnectCause::Closed,
        () = connection.closed() => ReconnectCause::Closed,
        _ = cluster_changes.recv() => ReconnectCause::Moved,
    }
}
