//! How far the computed figures can be trusted: small clusters, simulated with real relays and computed by the model.

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, NodeId, NodeNumber},
    relay::channel_worker,
    ring::Ring,
};
use serde::Serialize;

use super::{
    ScaleConfig,
    load::Paths,
    model::{self, People},
    world::{World, WorldConfig, node_id},
};

const SETTLE: Micros = Micros::from_secs(2);
const WARM_UP: Micros = Micros::from_secs(1);
const MEASURED: Micros = Micros::from_secs(4);

/// One cluster, both ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// Nodes.
    pub nodes: u32,
    /// Channels.
    pub channels: u32,
    /// People speaking.
    pub speakers: u32,
    /// By real relays in virtual time.
    pub simulated: Agreement,
    /// By the model.
    pub computed: Agreement,
}

/// What all nodes send to each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Copies of frames a second.
    pub frames_per_s: f64,
    /// Datagrams a second.
    pub datagrams_per_s: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
    /// Bytes for each spoken frame.
    pub bytes_per_frame: f64,
}

/// The clusters that are small enough for both.
pub(super) fn checks(config: &ScaleConfig) -> Vec<Check> {
    vec![three_nodes(config), ten_nodes(config)]
}

/// Twenty channels, each with two members on each of three nodes, one of whom speaks: what three real nodes carried
/// for `antiphon-loadtest voice --channels 20 --clients 6 --speakers 1`.
fn three_nodes(config: &ScaleConfig) -> Check {
    let config = ScaleConfig { nodes: 3, workers: 2, channels: 20, sessions: 120, ..config.clone() };
    let people = |channel: u32| People {
        nodes: (0..6).map(|member| (channel + member) % 3).collect(),
        edges: vec![0, 1, 2],
        speakers: 1,
    };
    compare("three nodes, everyone everywhere", &config, &(0..20).map(people).collect::<Vec<_>>())
}

/// The model's own people on ten nodes.
fn ten_nodes(config: &ScaleConfig) -> Check {
    let config = ScaleConfig { nodes: 10, workers: 2, channels: 1_000, sessions: 10_000, spread: 0, ..config.clone() };
    let people = |index: u32| {
        let mut people = People::default();
        model::draw(&config, index, &mut people);
        people
    };
    let all: Vec<_> = (0..config.channels).map(people).collect();
    compare("ten nodes, the model's people", &config, &all)
}

fn compare(name: &'static str, config: &ScaleConfig, people: &[People]) -> Check {
    let channels: Vec<_> = (0..).map(|index| model::channel_id(config.seed, index)).zip(people).collect();
    Check {
        name,
        nodes: config.nodes,
        channels: config.channels,
        speakers: people.iter().map(|people| people.speakers as u32).sum(),
        simulated: simulate(config, &channels),
        computed: compute(config, &channels),
    }
}

fn compute(config: &ScaleConfig, channels: &[(ChannelId, &People)]) -> Agreement {
    let ids: Vec<NodeId> = (0..config.nodes as usize).map(node_id).collect();
    let ring = Ring::new(1, ids.iter().zip(0..).map(|(id, number)| (id, NodeNumber(number), 100)));
    let mut paths = Paths::new(config);
    for (channel, people) in channels {
        let owner = ring.owner(*channel).unwrap_or(NodeNumber(0));
        paths.channel(people, owner.0, channel_worker(*channel, config.workers).0.into());
    }
    let total = paths.total(config.frame_bytes, config.turn());
    Agreement {
        frames_per_s: paths.frames_per_s(),
        datagrams_per_s: total.datagrams,
        bytes_per_s: total.bytes,
        bytes_per_frame: total.bytes / paths.spoken_per_s(),
    }
}

fn simulate(config: &ScaleConfig, channels: &[(ChannelId, &People)]) -> Agreement {
    let ScaleConfig { nodes, workers, frame_bytes, seed, .. } = *config;
    let mut world = World::new(WorldConfig { nodes: nodes as usize, workers, turn: config.turn(), frame_bytes, seed });
    for (place, (channel, people)) in channels.iter().enumerate() {
        people.edges.iter().for_each(|node| world.open(*node as usize, *channel));
        // Members come one after the other; their refreshes are spread over the second as theirs are.
        if place % channels.len().div_ceil(1_000) == 0 {
            world.run(Micros(1_000_000 / channels.len() as u64));
        }
    }
    world.run(SETTLE);
    let mut spoken = 0.0;
    for (channel, people) in channels {
        people.nodes[..people.speakers].iter().for_each(|node| world.speak(*node as usize, *channel));
        spoken += 50.0 * people.speakers as f64;
    }
    world.run(WARM_UP);
    world.mark();
    world.run(MEASURED);
    let (sent, seconds) = (world.sent_by_all(), world.seconds());
    let frames: u64 = (0..nodes as usize).map(|node| world.frames_by(node)).sum();
    Agreement {
        frames_per_s: frames as f64 / seconds,
        datagrams_per_s: sent.datagrams as f64 / seconds,
        bytes_per_s: sent.bytes as f64 / seconds,
        bytes_per_frame: sent.bytes as f64 / seconds / spoken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_is_what_real_relays_do() {
        for check in checks(&ScaleConfig::default()) {
            let Check { name, simulated, computed, .. } = check;
            let off = |figure: fn(&Agreement) -> f64| (figure(&computed) / figure(&simulated) - 1.0).abs();
            assert!(off(|all| all.frames_per_s) < 0.01, "{name}: {simulated:?} {computed:?}");
            assert!(off(|all| all.datagrams_per_s) < 0.05, "{name}: {simulated:?} {computed:?}");
            assert!(off(|all| all.bytes_per_s) < 0.03, "{name}: {simulated:?} {computed:?}");
        }
    }
}
