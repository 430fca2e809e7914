//! Which nodes there are and were, so that one that is gone without a word is missed.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use antiphon_core::ids::NodeId;

use crate::{
    alerts::OtherNode,
    cluster::{ClusterView, NodeRecord, NodeState},
};

/// How long a node that is gone is missed; then it has probably been taken away for good.
const MISSED_FOR: Duration = Duration::from_secs(3_600);

/// Nodes remembered at most.
const KNOWN_MAX: usize = 1_024;

/// The other nodes, by name.
#[derive(Debug, Default)]
pub(super) struct KnownNodes(HashMap<NodeId, Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    state: NodeState,
    gone_since: Option<Instant>,
}

impl KnownNodes {
    /// Takes in what the register lists now. A node that drained before it went is not missed, since it stopped as it should: to be
    /// called so often that it is seen draining.
    pub(super) fn see(&mut self, view: &ClusterView, now: Instant) {
        for known in self.0.values_mut() {
            known.gone_since.get_or_insert(now);
        }
        for node in others_in(view) {
            if self.0.len() < KNOWN_MAX || self.0.contains_key(&node.node_id) {
                self.0.insert(node.node_id.clone(), Known { state: node.state, gone_since: None });
            }
        }
        self.0.retain(|_, known| match known.gone_since {
            None => true,
            Some(since) => known.state == NodeState::Serving && now.duration_since(since) < MISSED_FOR,
        });
    }

    /// The other nodes that are there, as the register lists them now, or are missed.
    pub(super) fn others(&mut self, view: &ClusterView, now: Instant) -> Vec<OtherNode> {
        self.see(view, now);
        let nodes_live = |id: &NodeId| {
            let node = others_in(view).find(|node| node.node_id == *id)?;
            Some(node.statistics.nodes_live).filter(|count| *count > 0)
        };
        let as_other = |(id, known): (&NodeId, &Known)| OtherNode {
            node: id.clone(),
            is_up: known.gone_since.is_none(),
            nodes_live: nodes_live(id),
        };
        self.0.iter().map(as_other).collect()
    }
}

fn others_in(view: &ClusterView) -> impl Iterator<Item = &NodeRecord> {
    view.nodes.iter().filter(|node| node.number != view.me)
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::NodeNumber;

    use super::*;
    use crate::cluster::{NodeStatistics, SharedState};

    fn node(id: &str, number: u32, state: NodeState) -> NodeRecord {
        let statistics = NodeStatistics { nodes_live: 3, ..NodeStatistics::default() };
        NodeRecord { state, statistics, ..NodeRecord::idle(id, number) }
    }

    #[test]
    fn who_was_seen_draining_between_two_evaluations_is_not_missed() {
        let (mut known, begun) = (KnownNodes::default(), Instant::now());
        let view = |states: &[NodeState]| ClusterView {
            epoch: 1,
            me: NodeNumber(1),
            nodes: states.iter().map(|state| node("a", 2, *state)).collect(),
            shared: SharedState::Up,
        };
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(known.others(&view(&[NodeState::Serving]), begun).len(), 1);
        known.see(&view(&[NodeState::Draining]), after(2));
        known.see(&view(&[]), after(3));
        assert!(known.others(&view(&[]), after(5)).is_empty());
    }

    #[test]
    fn who_is_gone_is_missed_for_a_while_unless_it_drained() {
        let (mut known, begun) = (KnownNodes::default(), Instant::now());
        let mut seen = |nodes: Vec<NodeRecord>, after_s: u64| {
            let view = ClusterView { epoch: 1, me: NodeNumber(1), nodes, shared: SharedState::Up };
            let others = known.others(&view, begun + Duration::from_secs(after_s));
            let mut others: Vec<_> =
                others.into_iter().map(|node| (node.node.0, node.is_up, node.nodes_live)).collect();
            others.sort();
            others
        };
        let me = || node("me", 1, NodeState::Serving);
        let (killed, drained) = (node("a", 2, NodeState::Serving), node("b", 3, NodeState::Draining));
        let up = |name: &str| (name.to_owned(), true, Some(3));
        let down = |name: &str| (name.to_owned(), false, None);
        assert_eq!(seen(vec![me(), killed, drained], 0), [up("a"), up("b")]);
        assert_eq!(seen(vec![me()], 5), [down("a")]);
        assert_eq!(seen(vec![me(), node("a", 9, NodeState::Serving)], 10), [up("a")]);
        assert_eq!(seen(vec![me()], 20), [down("a")]);
        assert_eq!(seen(vec![me()], 3_630), []);
    }
}
