//! The nodes of the cluster, as each of them sees the others.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use antiphon_core::ids::{NodeId, NodeNumber};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{redis::RedisRegistry, statistics::NodeStatistics};

/// Whether a node takes on work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It does.
    #[default]
    Serving,
    /// It gives up what it has, and will stop.
    Draining,
}

impl NodeState {
    /// `serving` or `draining`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Gateway sessions.
    pub sessions: u32,
    /// Members of channels through this node.
    pub members: u32,
    /// How much of their time its media workers are busy, from 0 to 1.
    pub busy: f32,
}

/// What the others know of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name, which it keeps.
    pub node_id: NodeId,
    /// Its number, given when it is registered.
    #[serde(skip, default = "no_number")]
    pub number: NodeNumber,
    /// When its process started, in Unix time.
    pub started_at_us: u64,
    /// Where its HTTP and gateway are reached.
    pub http_url: String,
    /// Where its relay is reached.
    pub relay: SocketAddr,
    /// Its media workers.
    pub workers: u16,
    /// The oldest and the newest version of the relay's protocol that it speaks.
    pub relay_versions: (u8, u8),
    /// Its share of channels in relation to the others'.
    pub capacity: u32,
    /// Whether it takes on work.
    pub state: NodeState,
    /// How much it has to do.
    pub load: Load,
    /// The release that it runs.
    pub release: String,
    /// How it is.
    #[serde(default)]
    pub statistics: NodeStatistics,
}

#[cfg(test)]
impl NodeRecord {
    /// A node that serves and has nothing to do.
    pub(crate) fn idle(name: &str, number: u32) -> Self {
        Self {
            node_id: NodeId(name.to_owned()),
            number: NodeNumber(number),
            started_at_us: 1,
            http_url: format!("http://{name}"),
            relay: ([127, 0, 0, 1], 3003).into(),
            workers: 1,
            relay_versions: (1, 1),
            capacity: 1,
            state: NodeState::Serving,
            load: Load::default(),
            release: "1".to_owned(),
            statistics: NodeStatistics::default(),
        }
    }
}

pub(super) const fn no_number() -> NodeNumber {
    NodeNumber(0)
}

/// Whether what the nodes share can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedState {
    /// There is nothing that is shared: the node is on its own.
    Alone,
    /// It can.
    Up,
    /// It cannot.
    Away {
        /// Since when.
        since: Instant,
    },
}

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterView {
    /// Grows with every change of the set of nodes or of their states.
    pub epoch: u64,
    /// This node's number.
    pub me: NodeNumber,
    /// Every live node, this one included, in the order of their numbers.
    pub nodes: Vec<NodeRecord>,
    /// Whether all this is up to date.
    pub shared: SharedState,
}

impl ClusterView {
    /// Nodes whose relay speaks no version that this one's does: no voice passes between them and this node.
    pub fn incompatible(&self) -> impl Iterator<Item = &NodeRecord> {
        let me = self.nodes.iter().find(|node| node.number == self.me);
        let has_common = |a: (u8, u8), b: (u8, u8)| a.0.max(b.0) <= a.1.min(b.1);
        let is_other =
            move |node: &&NodeRecord| me.is_some_and(|me| !has_common(me.relay_versions, node.relay_versions));
        self.nodes.iter().filter(is_other)
    }
}

/// The register of nodes.
#[derive(Clone, Debug)]
pub enum Registry {
    /// A node on its own.
    Memory(MemoryRegistry),
    /// A node of a cluster.
    Redis(RedisRegistry),
}

impl Registry {
    /// For a node on its own, whose number is always 1.
    #[must_use]
    pub fn alone(node: NodeRecord) -> Self {
        Self::Memory(MemoryRegistry::new(node))
    }

    /// This node's number now. It changes when the others had given the node up.
    #[must_use]
    pub fn number(&self) -> NodeNumber {
        self.view().borrow().me
    }

    /// The cluster, now and whenever it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        match self {
            Self::Memory(registry) => registry.inner.view.subscribe(),
            Self::Redis(registry) => registry.view(),
        }
    }

    /// Tells the others whether this node takes on work, at once or as soon as they can be told.
    pub fn set_state(&self, state: NodeState) {
        match self {
            Self::Memory(registry) => registry.change(|node| node.state = state, true),
            Self::Redis(registry) => registry.set_state(state),
        }
    }

    /// Reads the register soon: others know more of it.
    pub fn catch_up(&self) {
        match self {
            // One register for all of its nodes, which is always the newest.
            Self::Memory(_) => {}
            Self::Redis(registry) => registry.catch_up(),
        }
    }

    /// Tells the others how much this node has to do, with the next renewal of its lease.
    pub fn report_load(&self, load: Load) {
        match self {
            Self::Memory(registry) => registry.change(|node| node.load = load, false),
            Self::Redis(registry) => registry.report_load(load),
        }
    }

    /// Tells the others how this node is, with the next renewal of its lease.
    pub fn report_statistics(&self, statistics: NodeStatistics) {
        match self {
            Self::Memory(registry) => registry.change(|node| node.statistics = statistics, false),
            Self::Redis(registry) => registry.report_statistics(statistics),
        }
    }

    /// Gives up this node's place, so that nobody waits for its lease to run out. The node acts no more.
    pub async fn unregister(&self) {
        if let Self::Redis(registry) = self {
            registry.unregister().await;
        }
    }
}

/// The register of a node on its own.
#[derive(Clone, Debug)]
pub struct MemoryRegistry {
    inner: Arc<MemoryInner>,
}

#[derive(Debug)]
struct MemoryInner {
    node: Mutex<NodeRecord>,
    view: watch::Sender<Arc<ClusterView>>,
}

impl MemoryRegistry {
    fn new(mut node: NodeRecord) -> Self {
        node.number = NodeNumber(1);
        let view = ClusterView { epoch: 1, me: node.number, nodes: vec![node.clone()], shared: SharedState::Alone };
        Self { inner: Arc::new(MemoryInner { node: Mutex::new(node), view: watch::Sender::new(Arc::new(view)) }) }
    }

    fn change(&self, change: impl FnOnce(&mut NodeRecord), is_new_epoch: bool) {
        let mut node = self.inner.node.lock();
        change(&mut node);
        let nodes = vec![node.clone()];
        self.inner.view.send_modify(|view| {
            let epoch = view.epoch + u64::from(is_new_epoch);
            *view = Arc::new(ClusterView { epoch, nodes, ..ClusterView::clone(view) });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_on_its_own_sees_itself() {
        let registry = Registry::alone(NodeRecord::idle("one", 0));
        let view = registry.view();
        assert_eq!((registry.number(), view.borrow().epoch, view.borrow().nodes.len()), (NodeNumber(1), 1, 1));
        registry.report_load(Load { sessions: 3, members: 2, busy: 0.5 });
        assert_eq!((view.borrow().epoch, view.borrow().nodes[0].load.sessions), (1, 3), "load moves no channel");
        registry.set_state(NodeState::Draining);
        assert_eq!((view.borrow().epoch, view.borrow().nodes[0].state), (2, NodeState::Draining));
    }
}
