//! One channel over many nodes, simulated: what its owner and its edges carry, and what their deaths cost.

use antiphon_core::{clock::Micros, ids::ChannelId, prng::Prng};
use serde::Serialize;

use super::{
    ScaleConfig, model,
    wire::{FRAMES_PER_S, LINK_BYTES},
    world::{FRAME, World, WorldConfig},
};

/// Until all know each other and the channel's nodes.
const SETTLE: Micros = Micros::from_secs(2);
/// How long people speak before anything is counted.
const WARM_UP: Micros = Micros::from_secs(1);
const MEASURED: Micros = Micros::from_secs(10);
/// When the registry tells the others of a death.
const LEASE: Micros = Micros::from_secs(3);
/// How long they are watched after that.
const WATCHED: Micros = Micros::from_secs(3);

/// The large channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Large {
    /// Its members.
    pub listeners: u32,
    /// Nodes that they are on.
    pub nodes: u32,
    /// How many of them speak, each on another node.
    pub speakers: u32,
    /// Simulated: what the owner sends.
    pub owner: LargeNode,
    /// Simulated: what another node sends, on average.
    pub edge: LargeNode,
    /// Simulated: bits a second on the busiest link, one direction, Ethernet included.
    pub busiest_link_bits_per_s: f64,
    /// Computed: what a node would send if there were no owner and every node sent to every other that it speaks on.
    pub speakers_node_without_owner_bits_per_s: f64,
    /// Computed: frames delivered to members on one node each second, and on all.
    pub deliveries_per_node: f64,
    /// Computed: on all nodes.
    pub deliveries: f64,
    /// Simulated: from mouth to the other nodes.
    pub transit: Transit,
    /// Simulated: the owner is killed.
    pub owner_deaths: Deaths,
    /// Simulated: another node is killed, on which nobody speaks.
    pub other_deaths: Deaths,
}

/// What a node sends to others each second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LargeNode {
    /// Frames.
    pub frames: f64,
    /// Datagrams, signs of life included.
    pub datagrams: f64,
    /// Bytes, as `antiphon_relay_sent_bytes_total` counts.
    pub bytes: f64,
    /// Bits, Ethernet included.
    pub bits: f64,
}

/// How frames got through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Transit {
    /// Frames that other nodes had to hear.
    pub expected: u64,
    /// Frames that they heard; those under way at either end count to one side only.
    pub heard: u64,
    /// The longest that any took.
    pub slowest_ms: f64,
}

/// What deaths of nodes did to all others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Deaths {
    /// How many there were, each in a cluster of its own.
    pub deaths: u32,
    /// The longest silence of a speaker at a node; 20 ms is none. Half of all are no longer.
    pub silence_p50_ms: f64,
    /// 99 in 100 are no longer.
    pub silence_p99_ms: f64,
    /// The longest of all.
    pub silence_max_ms: f64,
    /// The most frames of a speaker that a node did not hear.
    pub lost_frames_max: u64,
    /// The longest until all had the same view of who owns the channel.
    pub one_view_max_ms: f64,
    /// The longest until the last frame was sent past an owner.
    pub settled_max_ms: f64,
}

/// Simulates it.
pub(super) fn large(config: &ScaleConfig) -> Large {
    let mut run = Run::new(config, config.seed);
    run.world.mark();
    run.world.run(MEASURED);
    let world = &run.world;
    let edges = (0..config.large_nodes as usize).filter(|node| *node != run.owner);
    let edges: Vec<_> = edges.map(|node| LargeNode::of(world, node)).collect();
    let speakers = f64::from(config.large_speakers);
    let deliveries = speakers * FRAMES_PER_S * f64::from(config.listeners - 1);
    let edge = LargeNode::mean(&edges);
    let owner = LargeNode::of(world, run.owner);
    Large {
        listeners: config.listeners,
        nodes: config.large_nodes,
        speakers: config.large_speakers,
        busiest_link_bits_per_s: busiest_link(world),
        speakers_node_without_owner_bits_per_s: owner.bits / speakers,
        deliveries_per_node: deliveries / f64::from(config.large_nodes),
        deliveries,
        transit: transit(world, config),
        owner,
        edge,
        owner_deaths: deaths(config, true),
        other_deaths: deaths(config, false),
    }
}

/// The channel with everyone speaking.
struct Run {
    world: World,
    channel: ChannelId,
    owner: usize,
    speakers: Vec<usize>,
    prng: Prng,
}

impl Run {
    fn new(config: &ScaleConfig, seed: u64) -> Self {
        let nodes = config.large_nodes as usize;
        let mut prng = Prng::new(seed);
        let (turn, frame_bytes) = (config.turn(), config.frame_bytes);
        let mut world = World::new(WorldConfig { nodes, workers: 1, turn, frame_bytes, seed });
        let channel = model::channel_id(seed, prng.below(1 << 30) as u32);
        (0..nodes).for_each(|node| world.open(node, channel));
        world.run(SETTLE);
        let owner = world.owner(channel).unwrap_or_default();
        let mut speakers: Vec<usize> = (0..nodes).collect();
        for place in 0..config.large_speakers as usize {
            let other = place + prng.below((nodes - place) as u64) as usize;
            speakers.swap(place, other);
        }
        speakers.truncate(config.large_speakers as usize);
        speakers.iter().for_each(|node| world.speak(*node, channel));
        world.run(WARM_UP);
        Self { world, channel, owner, speakers, prng }
    }

    /// A node that is not the owner and on which nobody speaks.
    fn bystander(&mut self, nodes: u32) -> usize {
        let others: Vec<_> =
            (0..nodes as usize).filter(|node| *node != self.owner && !self.speakers.contains(node)).collect();
        others[self.prng.below(others.len() as u64) as usize]
    }
}

impl LargeNode {
    fn of(world: &World, node: usize) -> Self {
        let (sent, seconds) = (world.sent_by(node), world.seconds());
        let (datagrams, bytes) = (sent.datagrams as f64 / seconds, sent.bytes as f64 / seconds);
        let frames = world.frames_by(node) as f64 / seconds;
        Self { frames, datagrams, bytes, bits: (bytes + datagrams * LINK_BYTES) * 8.0 }
    }

    fn mean(nodes: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| nodes.iter().map(figure).sum::<f64>() / nodes.len() as f64;
        Self {
            frames: mean(|node| node.frames),
            datagrams: mean(|node| node.datagrams),
            bytes: mean(|node| node.bytes),
            bits: mean(|node| node.bits),
        }
    }
}

fn busiest_link(world: &World) -> f64 {
    let links = world.alive().flat_map(|from| world.alive().map(move |to| world.sent(from, to)));
    let bits = links.map(|sent| (sent.bytes as f64 + sent.datagrams as f64 * LINK_BYTES) * 8.0 / world.seconds());
    bits.fold(0.0, f64::max)
}

fn transit(world: &World, config: &ScaleConfig) -> Transit {
    let frames = MEASURED.0 / FRAME.0;
    let pairs = u64::from(config.large_speakers) * u64::from(config.large_nodes - 1);
    let slowest = world.ears().map(|ear| ear.slowest).max().unwrap_or_default();
    Transit { expected: frames * pairs, heard: world.ears().map(|ear| ear.heard).sum(), slowest_ms: ms(slowest) }
}

/// What one death did.
struct Death {
    silences: Vec<Micros>,
    lost: u64,
    one_view: Micros,
    settled: Micros,
}

fn deaths(config: &ScaleConfig, of_owner: bool) -> Deaths {
    let runs = (0..config.deaths).map(|number| {
        let mut run = Run::new(config, config.seed.wrapping_add((u64::from(number) + 1) << 40));
        let bystander = run.bystander(config.large_nodes);
        let victim = if of_owner { run.owner } else { bystander };
        // Anywhere between two heartbeats.
        run.world.run(Micros(run.prng.below(50_000)));
        death(&mut run, victim)
    });
    let runs: Vec<_> = runs.collect();
    let mut silences: Vec<_> = runs.iter().flat_map(|death| &death.silences).copied().collect();
    silences.sort_unstable();
    let quantile = |share: f64| {
        let index = (silences.len() as f64 * share).ceil() as usize;
        silences.get(index.saturating_sub(1)).copied().map_or(0.0, ms)
    };
    let longest = |figure: fn(&Death) -> Micros| runs.iter().map(figure).max().map_or(0.0, ms);
    Deaths {
        deaths: config.deaths,
        silence_p50_ms: quantile(0.5),
        silence_p99_ms: quantile(0.99),
        silence_max_ms: quantile(1.0),
        lost_frames_max: runs.iter().map(|death| death.lost).max().unwrap_or(0),
        one_view_max_ms: longest(|death| death.one_view),
        settled_max_ms: longest(|death| death.settled),
    }
}

/// Kills a node and watches the others.
fn death(run: &mut Run, victim: usize) -> Death {
    let Run { world, channel, .. } = run;
    let died_at = world.now();
    world.mark();
    world.kill(victim);
    let (mut one_view, mut settled) = (Micros::ZERO, Micros::ZERO);
    let mut direct = world.direct_frames();
    while world.now().since(died_at) < LEASE + WATCHED {
        if world.now().since(died_at) == LEASE {
            world.tell_all(2);
        }
        world.turn();
        let passed = world.now().since(died_at);
        if world.owner(*channel).is_none_or(|owner| owner == victim) {
            one_view = passed;
        }
        let sent = world.direct_frames();
        if sent != direct {
            (direct, settled) = (sent, passed);
        }
    }
    let spoken = world.now().since(died_at).0 / FRAME.0;
    // Two frames may be under way at either end.
    let lost = world.ears().map(|ear| spoken.saturating_sub(ear.heard + 2)).max().unwrap_or(0);
    Death { silences: world.ears().map(|ear| ear.silence).collect(), lost, one_view, settled }
}

fn ms(time: Micros) -> f64 {
    time.0 as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated() -> Large {
        large(&ScaleConfig { large_nodes: 8, listeners: 800, large_speakers: 3, deaths: 6, ..ScaleConfig::default() })
    }

    #[test]
    fn everyone_hears_everyone_and_the_deaths_of_nodes_are_short() {
        let Large { owner, edge, transit, owner_deaths, other_deaths, .. } = simulated();
        assert!(transit.heard.abs_diff(transit.expected) <= 3 * 7, "{transit:?}");
        assert!(transit.slowest_ms < 3.0, "two hops of 0.5 ms and three turns: {transit:?}");
        // Three streams to seven nodes each, whoever speaks; what does not come from the owner comes from the edges.
        assert!((owner.frames + 7.0 * edge.frames - 3.0 * 50.0 * 7.0).abs() < 2.0, "{owner:?} {edge:?}");
        assert!(owner_deaths.silence_max_ms < 400.0 && owner_deaths.silence_p50_ms > 100.0, "{owner_deaths:?}");
        assert!(owner_deaths.one_view_max_ms > 350.0 && owner_deaths.one_view_max_ms < 1_000.0, "{owner_deaths:?}");
        assert!(other_deaths.silence_max_ms < 40.0 && other_deaths.lost_frames_max == 0, "{other_deaths:?}");
        assert_eq!((other_deaths.one_view_max_ms, other_deaths.settled_max_ms), (0.0, 0.0));
    }
}
