//! How this node and the cluster are, in figures: taken every second, shared with the node's lease, added up over nodes,
//! and kept for a day.
//!
//! ```text
//!  media, gateway, rooms, process ─► gather ─► register ─► all nodes' ─► figures ─► the API
//!                                      │                       └─ every 5 s ─► history
//! ```

mod figures;
mod gather;
mod history;
mod known;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;

pub use self::{
    figures::{ClusterFigures, health_score},
    gather::{Gathered, Gatherer},
    history::{HISTORY_EVERY, HISTORY_POINTS, Point},
};
use self::{history::History, known::KnownNodes};
use crate::{
    alerts::{Alerts, FiringAlert},
    cluster::{NodeRecord, NodeStatistics, Registry, SharedState},
    telemetry::metrics,
};

/// The alerts' rules are evaluated with every third point: they look back over minutes, and each time costs milliseconds.
const ALERTS_EVERY: u32 = 3;

/// What is known of this node and of the cluster. Shared by all who ask.
#[derive(Debug)]
pub struct Vitals {
    registry: Registry,
    alerts: Arc<Alerts>,
    own: Mutex<NodeStatistics>,
    known: Mutex<KnownNodes>,
    /// How often it was called to observe.
    observed: AtomicU32,
    history: Mutex<History>,
}

impl Vitals {
    /// Of a node among those in `registry`.
    #[must_use]
    pub fn new(registry: Registry, alerts: Arc<Alerts>) -> Self {
        Self {
            registry,
            alerts,
            own: Mutex::default(),
            known: Mutex::default(),
            observed: AtomicU32::new(0),
            history: Mutex::new(History::begun(SystemTime::now())),
        }
    }

    /// Takes over what was gathered, and tells the others. To be called every second.
    pub fn report(&self, gathered: Gathered) {
        let Gathered { load, mut statistics } = gathered;
        let view = self.registry.view().borrow().clone();
        self.known.lock().see(&view, Instant::now());
        statistics.nodes_live = u32::try_from(view.nodes.len()).unwrap_or(u32::MAX);
        statistics.alerts = self.alerts.shared();
        *self.own.lock() = statistics.clone();
        self.registry.report_statistics(statistics);
        self.registry.report_load(load);
    }

    /// Every live node as of now: this one as it was gathered last, the others as they told.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRecord> {
        let view = self.registry.view().borrow().clone();
        let mut nodes = view.nodes.clone();
        if let Some(me) = nodes.iter_mut().find(|node| node.number == view.me) {
            me.statistics = self.own.lock().clone();
        }
        nodes
    }

    /// The sums and means over all nodes.
    #[must_use]
    pub fn figures(&self) -> ClusterFigures {
        ClusterFigures::of(&self.nodes())
    }

    /// The firing alerts of all nodes, the most severe first.
    #[must_use]
    pub fn alerts(&self) -> Vec<FiringAlert> {
        let view = self.registry.view().borrow().clone();
        let others = view.nodes.iter().filter(|node| node.number != view.me);
        self.alerts.all(others.flat_map(|node| &node.statistics.alerts))
    }

    /// Whether what the nodes share can be reached, or there is nothing to share.
    #[must_use]
    pub fn is_shared_reachable(&self) -> bool {
        !matches!(self.registry.view().borrow().shared, SharedState::Away { .. })
    }

    /// Keeps a point of history and evaluates the alerts' rules when that is due. To be called every [`HISTORY_EVERY`], after the
    /// metrics were sampled.
    pub fn observe(&self, now: SystemTime) {
        if self.observed.fetch_add(1, Ordering::Relaxed).is_multiple_of(ALERTS_EVERY) {
            let view = self.registry.view().borrow().clone();
            let others = self.known.lock().others(&view, Instant::now());
            self.alerts.observe(now, &metrics::render(), &others);
        }
        let point = Point::new(now, &self.figures(), health_score(&self.alerts()));
        self.history.lock().push(point);
    }

    /// Since when this node keeps points, and those of the last `period_s` seconds, at most `limit`, oldest first.
    #[must_use]
    pub fn history(&self, now: SystemTime, period_s: u64, limit: usize) -> (SystemTime, Vec<Point>) {
        let history = self.history.lock();
        (history.since(), history.last(now, period_s, limit))
    }
}
