//! A node's way out: it leaves the ring, its clients go to other nodes, and it forwards until they have.
//!
//! ```text
//!  serving ──begin──► draining ──no connection left, or the deadline──► drained ──(SIGTERM only)──► stops
//!     ▲                   │                                                │
//!     └───────cancel──────┴────────────────────────────────────────────────┘
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::AbortHandle};
use utoipa::ToSchema;

use super::health::Health;
use crate::{
    cluster::{NodeState, Registry},
    gateway::Gateway,
    playback::Playbacks,
    rooms::Rooms,
    telemetry::metrics::metrics,
};

/// Nodes that clients are told to go to: more make no difference to any of them.
const NODES_NAMED_MAX: usize = 8;

/// How long what is played may take to end: it is told when the drain begins.
const PLAYBACK_PATIENCE: Duration = Duration::from_secs(2);

/// How a node gets rid of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// They are told where to resume, and closed at the deadline.
    #[default]
    Handover,
    /// They are told nothing and leave when they will, at the latest at the deadline.
    Wait,
    /// They are closed at once, to resume elsewhere.
    Force,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainStage {
    /// The node takes on work.
    Serving,
    /// It waits for its clients to go.
    Draining,
    /// They have gone.
    Drained,
}

/// A drain in figures.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DrainProgress {
    /// How far it is.
    pub stage: DrainStage,
    /// How clients are got rid of; null while the node serves.
    pub mode: Option<DrainMode>,
    /// Connections when it began.
    pub connections_at_start: usize,
    /// Connections now.
    pub connections_left: usize,
    /// Since it began.
    pub elapsed_ms: u64,
    /// Until the clients that are left are closed.
    pub remaining_ms: u64,
}

struct Under {
    mode: DrainMode,
    begun: Instant,
    deadline: Duration,
    connections: usize,
    task: AbortHandle,
    /// Turns true in the end.
    done: watch::Receiver<bool>,
}

/// This node's drain.
pub struct Drain {
    gateway: Gateway,
    rooms: Rooms,
    playbacks: Playbacks,
    registry: Registry,
    health: Arc<Health>,
    under: Mutex<Option<Under>>,
}

impl Drain {
    /// Of a node that serves.
    #[must_use]
    pub fn new(
        gateway: Gateway,
        (rooms, playbacks): (Rooms, Playbacks),
        registry: Registry,
        health: Arc<Health>,
    ) -> Self {
        Self { gateway, rooms, playbacks, registry, health, under: Mutex::new(None) }
    }

    /// Begins a drain; one that is under way takes on the new mode and deadline.
    pub fn begin(self: &Arc<Self>, mode: DrainMode, deadline: Duration, reason: &'static str) {
        let mut under = self.under.lock();
        if let Some(before) = under.take() {
            before.task.abort();
        }
        // The ring is left first: whatever comes from now on goes past this node.
        self.registry.set_state(NodeState::Draining);
        self.health.set_draining(true);
        self.gateway.begin_drain();
        // Their players ask anew, and get to another node.
        self.rooms.set_open_to_outsiders(false);
        self.playbacks.set_open(false);
        let connections = self.gateway.connections();
        tracing::info!(?mode, deadline_s = deadline.as_secs(), connections, "draining");
        let drain = Arc::clone(self);
        let (tell, done) = watch::channel(false);
        let task = tokio::spawn(async move {
            drain.empty(mode, deadline, reason).await;
            // Nobody may wait for it.
            let _ = tell.send(true);
        });
        *under = Some(Under { mode, begun: Instant::now(), deadline, connections, task: task.abort_handle(), done });
        metrics().process.drains.increment(1);
    }

    async fn empty(&self, mode: DrainMode, deadline: Duration, reason: &str) {
        if mode == DrainMode::Handover {
            self.gateway.ask_to_go(reason, deadline, self.others());
        }
        let patience = if mode == DrainMode::Force { Duration::ZERO } else { deadline };
        let mut closed = 0;
        if tokio::time::timeout(patience, self.gateway.until_empty()).await.is_err() {
            closed = self.gateway.connections();
            self.gateway.close_all().await;
        }
        // What was played leaves its channels before the node does.
        if tokio::time::timeout(PLAYBACK_PATIENCE, self.playbacks.until_over()).await.is_err() {
            tracing::warn!("files that were played have not left their channels yet");
        }
        tracing::info!(closed, left = self.gateway.connections(), "drained");
    }

    /// Takes on work again. False when there was no drain.
    pub fn cancel(&self) -> bool {
        let Some(under) = self.under.lock().take() else { return false };
        under.task.abort();
        self.gateway.cancel_drain();
        self.rooms.set_open_to_outsiders(true);
        self.playbacks.set_open(true);
        self.health.set_draining(false);
        self.registry.set_state(NodeState::Serving);
        tracing::info!("the drain was cancelled");
        true
    }

    /// Waits until a drain that was begun has ended, or was cancelled.
    pub async fn ended(&self) {
        let done = self.under.lock().as_ref().map(|under| under.done.clone());
        if let Some(mut done) = done {
            // An error says that it was cancelled.
            let _ = done.wait_for(|done| *done).await;
        }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> DrainProgress {
        let connections_left = self.gateway.connections();
        let under = self.under.lock();
        let Some(under) = &*under else {
            return DrainProgress {
                stage: DrainStage::Serving,
                mode: None,
                connections_at_start: connections_left,
                connections_left,
                elapsed_ms: 0,
                remaining_ms: 0,
            };
        };
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (elapsed, is_over) = (under.begun.elapsed(), *under.done.borrow());
        DrainProgress {
            stage: if is_over { DrainStage::Drained } else { DrainStage::Draining },
            mode: Some(under.mode),
            connections_at_start: under.connections,
            connections_left,
            elapsed_ms: ms(elapsed),
            remaining_ms: if is_over { 0 } else { ms(under.deadline.saturating_sub(elapsed)) },
        }
    }

    /// Where the other nodes that take on work are, those with the least to do first.
    fn others(&self) -> Vec<String> {
        let view = self.registry.view().borrow().clone();
        let mut others: Vec<_> =
            view.nodes.iter().filter(|node| node.number != view.me && node.state == NodeState::Serving).collect();
        others.sort_by_key(|node| u64::from(node.load.sessions) * 1_000_000 / u64::from(node.capacity.max(1)));
        others.into_iter().take(NODES_NAMED_MAX).map(|node| node.http_url.clone()).collect()
    }
}
