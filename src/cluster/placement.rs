//! Which node a new client had best go to: the one with the least to do for its capacity, by what the nodes report and
//! what was assigned since, so that a rush does not herd onto the node that reported the least.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use antiphon_core::ids::NodeNumber;
use parking_lot::Mutex;

use super::registry::{ClusterView, NodeRecord, NodeState};

/// How long an assignment counts beside the reports: a client connects within a second, and the node's next report but
/// one has it.
const ASSIGNED_FOR: Duration = Duration::from_secs(3);

/// Assignments of this node to all, as of the last few seconds.
#[derive(Debug, Default)]
pub struct Placement {
    assigned: Mutex<HashMap<NodeNumber, Assigned>>,
}

/// How many were sent to one node, in this span and the one before.
#[derive(Debug)]
struct Assigned {
    span_began_at: Instant,
    now: u32,
    before: u32,
}

impl Assigned {
    fn new(now: Instant) -> Self {
        Self { span_began_at: now, now: 0, before: 0 }
    }

    /// How many still count.
    fn count(&mut self, now: Instant) -> u32 {
        let passed = now.duration_since(self.span_began_at);
        if passed >= ASSIGNED_FOR {
            self.before = if passed < 2 * ASSIGNED_FOR { self.now } else { 0 };
            self.now = 0;
            self.span_began_at = now;
        }
        self.now + self.before
    }
}

impl Placement {
    /// The node to go to; `None` where none takes on work. It counts as assigned.
    #[must_use]
    pub fn assign<'v>(&self, view: &'v ClusterView, now: Instant) -> Option<&'v NodeRecord> {
        let mut assigned = self.assigned.lock();
        assigned.retain(|number, _| view.nodes.iter().any(|node| node.number == *number));
        let mut share = |node: &NodeRecord| {
            let expected = assigned.entry(node.number).or_insert_with(|| Assigned::new(now)).count(now);
            u64::from(node.load.sessions + expected) * 1_000_000 / u64::from(node.capacity.max(1))
        };
        let serving = view.nodes.iter().filter(|node| node.state == NodeState::Serving);
        let (_, node) = serving.map(|node| (share(node), node)).min_by_key(|(share, node)| (*share, node.number))?;
        if let Some(assigned) = assigned.get_mut(&node.number) {
            assigned.now += 1;
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::cluster::{Load, SharedState};

    fn node(number: u32, sessions: u32, capacity: u32, state: NodeState) -> NodeRecord {
        let load = Load { sessions, members: 0, busy: 0.0 };
        NodeRecord { capacity, state, load, ..NodeRecord::idle(&format!("node-{number}"), number) }
    }

    fn view(nodes: Vec<NodeRecord>) -> ClusterView {
        ClusterView { epoch: 1, me: NodeNumber(1), nodes, shared: SharedState::Up }
    }

    fn assigned(placement: &Placement, view: &ClusterView, count: usize, now: Instant) -> [u32; 4] {
        let mut to = [0; 4];
        for _ in 0..count {
            to[placement.assign(view, now).expect("a node").number.0 as usize] += 1;
        }
        to
    }

    #[test]
    fn a_rush_is_spread_by_capacity_though_no_report_comes_meanwhile() {
        let nodes = vec![
            node(1, 0, 100, NodeState::Serving),
            node(2, 0, 300, NodeState::Serving),
            node(3, 0, 900, NodeState::Draining),
        ];
        let now = Instant::now();
        assert_eq!(assigned(&Placement::default(), &view(nodes), 400, now), [0, 100, 300, 0]);
    }

    #[test]
    fn what_is_reported_counts_and_assignments_run_out() {
        let (placement, begun) = (Placement::default(), Instant::now());
        let nodes = vec![node(1, 100, 100, NodeState::Serving), node(2, 0, 100, NodeState::Serving)];
        let view = view(nodes);
        assert_eq!(assigned(&placement, &view, 110, begun), [0, 5, 105, 0]);
        assert_eq!(assigned(&placement, &view, 50, begun + 3 * ASSIGNED_FOR), [0, 0, 50, 0]);
    }

    #[test]
    fn nobody_is_sent_to_a_node_that_drains() {
        let view = view(vec![node(1, 0, 100, NodeState::Draining)]);
        assert_eq!(Placement::default().assign(&view, Instant::now()), None);
    }
}
