//! Who owns which channel by the real ring, and what moves when a node goes or comes.

use antiphon_core::{
    ids::{NodeId, NodeNumber},
    relay::{NEXT_TURN, SCORES_PER_TURN},
    ring::{ChannelPlace, Ring},
};
use serde::Serialize;

use super::{
    ScaleConfig, Spread,
    model::{self, People},
};

/// Who owns what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placement {
    /// Channels that a node owns.
    pub owned: Spread,
    /// The standard deviation of that.
    pub owned_deviation: f64,
    /// Memberships in all.
    pub memberships: u64,
    /// Members on a node.
    pub members: Spread,
    /// Channels that are open on a node.
    pub open: Spread,
    /// Nodes that a channel is on.
    pub nodes_per_channel: Spread,
    /// When one node is lost.
    pub lost: Replaced,
    /// When one node more joins.
    pub joined: Replaced,
    /// How long a worker takes, at the least, to give its channels the owners of a new ring: it computes a bounded
    /// number of scores in a turn, so that frames do not wait.
    pub replacing_ms: f64,
}

/// What another ring changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Replaced {
    /// Channels with another owner.
    pub moved: u64,
    /// Their share of all.
    pub share: f64,
    /// What has to move: what the lost node owned, or the new one's share.
    pub expected_share: f64,
    /// Channels that moved although neither their owner was lost nor the new node won them.
    pub needless: u64,
    /// The most that one node got of them.
    pub most_for_one: u64,
}

/// The owner of each channel by its index, and what there is to say of them.
pub(super) fn place(config: &ScaleConfig) -> (Placement, Vec<u32>) {
    let ids: Vec<NodeId> = (0..=config.nodes).map(|index| NodeId(format!("node-{index}"))).collect();
    let [lost, new] = [(config.seed % u64::from(config.nodes)) as u32, config.nodes].map(NodeNumber);
    let numbered = || ids.iter().zip(0..).map(|(id, number)| (id, NodeNumber(number), 100));
    let now = Ring::new(1, numbered().filter(|(_, number, _)| *number != new));
    let smaller = Ring::new(2, numbered().filter(|(_, number, _)| *number != new && *number != lost));
    let bigger = Ring::new(2, numbered());
    let mut owners = Vec::with_capacity(config.channels as usize);
    let [mut after_loss, mut after_join] = [(); 2].map(|()| Moves::new(config.nodes));
    for index in 0..config.channels {
        let place = ChannelPlace::of(model::channel_id(config.seed, index));
        let owner_in = |ring: &Ring| ring.owner_at(place, |_| true).unwrap_or(NodeNumber(0));
        let (owner, left, grown) = (owner_in(&now), owner_in(&smaller), owner_in(&bigger));
        after_loss.note(owner, left, owner == lost);
        after_join.note(owner, grown, grown == new);
        owners.push(owner.0);
    }
    let placement = describe(config, &owners, &after_loss, &after_join, lost);
    (placement, owners)
}

fn describe(
    config: &ScaleConfig,
    owners: &[u32],
    after_loss: &Moves,
    after_join: &Moves,
    lost: NodeNumber,
) -> Placement {
    let nodes = config.nodes as usize;
    let [mut owned, mut members, mut open] = [(); 3].map(|()| vec![0_u64; nodes]);
    let (mut people, mut widths) = (People::default(), Vec::with_capacity(owners.len()));
    for (owner, index) in owners.iter().zip(0..) {
        model::draw(config, index, &mut people);
        owned[*owner as usize] += 1;
        people.nodes.iter().for_each(|node| members[*node as usize] += 1);
        people.edges.iter().for_each(|node| open[*node as usize] += 1);
        widths.push(people.edges.len() as f64);
    }
    let lost_owned = owned[lost.0 as usize] as f64 / owners.len() as f64;
    let spread = |counts: &[u64]| Spread::of(counts.iter().map(|count| *count as f64));
    let (owned_spread, open) = (spread(&owned), spread(&open));
    Placement {
        owned: owned_spread,
        owned_deviation: deviation(&owned, owned_spread.mean),
        memberships: members.iter().sum(),
        members: spread(&members),
        nodes_per_channel: Spread::of(widths.into_iter()),
        lost: after_loss.replaced(owners.len(), lost_owned),
        joined: after_join.replaced(owners.len(), 1.0 / f64::from(config.nodes + 1)),
        replacing_ms: replacing_ms(config, owned_spread.mean + open.mean),
        open,
    }
}

/// How long a worker takes for its share of so many channels.
fn replacing_ms(config: &ScaleConfig, channels: f64) -> f64 {
    let in_a_turn = (SCORES_PER_TURN / config.nodes as usize).max(1) as f64;
    let turns = (channels / f64::from(config.workers) / in_a_turn).ceil();
    turns * NEXT_TURN.0 as f64 / 1e3
}

fn deviation(counts: &[u64], mean: f64) -> f64 {
    let squares: f64 = counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum();
    (squares / counts.len() as f64).sqrt()
}

/// Channels that move.
struct Moves {
    moved: u64,
    needless: u64,
    gained: Vec<u64>,
}

impl Moves {
    fn new(nodes: u32) -> Self {
        Self { moved: 0, needless: 0, gained: vec![0; nodes as usize + 1] }
    }

    fn note(&mut self, before: NodeNumber, after: NodeNumber, needed: bool) {
        if before != after {
            self.moved += 1;
            self.needless += u64::from(!needed);
            self.gained[after.0 as usize] += 1;
        }
    }

    fn replaced(&self, channels: usize, expected_share: f64) -> Replaced {
        Replaced {
            moved: self.moved,
            share: self.moved as f64 / channels as f64,
            expected_share,
            needless: self.needless,
            most_for_one: self.gained.iter().copied().max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_one_of_n_nodes_moves_its_nth_of_the_channels_and_no_other() {
        for nodes in [3, 50] {
            let config = ScaleConfig { nodes, channels: 30_000, sessions: 90_000, ..ScaleConfig::default() };
            let (placement, owners) = place(&config);
            let mean = 1.0 / f64::from(nodes);
            // Five standard deviations of a binomial share.
            let allowed = 5.0 * (mean / 30_000.0).sqrt();
            for moves in [placement.lost, placement.joined] {
                assert!((moves.share - mean).abs() < mean / f64::from(nodes) + allowed, "{nodes}: {moves:?}");
                assert_eq!(moves.needless, 0);
            }
            let owned = owners.iter().filter(|owner| **owner == 1).count() as u64;
            assert_eq!((placement.lost.moved, placement.lost.expected_share), (owned, owned as f64 / 30_000.0));
            assert!(placement.lost.most_for_one < owned && placement.joined.most_for_one == placement.joined.moved);
        }
    }

    #[test]
    fn re_placing_takes_a_turn_for_each_twenty_thousand_scores() {
        let config = ScaleConfig { nodes: 1_000, workers: 4, ..ScaleConfig::default() };
        // 100 channels of each worker at 1,000 nodes: five turns of 200 µs.
        assert!((replacing_ms(&config, 400.0) - 1.0).abs() < 1e-9);
    }
}
