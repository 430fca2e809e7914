//! What nodes and the links between them carry: computed from the owners, the model and the wire format.
//!
//! A frame goes from the speaker's node to the channel's owner and from there to every other node with members; not at
//! all where nobody else is to hear it. Every node with members tells the owner so every second and is answered.

use antiphon_core::{clock::Micros, ring::ChannelPlace};
use serde::Serialize;

use super::{
    ScaleConfig, Spread,
    model::{self, People},
    wire::{
        FRAMES_PER_S, HEARTBEAT_RECORD_BYTES, INTEREST_RECORD_BYTES, LINK_BYTES, SEALING_BYTES, audio_record_bytes,
        datagrams_per_s, heartbeats_per_s, node_set_record_bytes, refreshes_per_s,
    },
};

/// Server CPU for one frame delivered to one member: `docs/performance.md`, 1,000 channels with one speaker each.
const DELIVERY_CPU_US: f64 = 3.4;
/// CPU for a relay datagram, sent and received, sealed and opened: what the bare relay takes for one between nodes.
const RELAY_DATAGRAM_CPU_US: f64 = 3.5;

/// What the cluster carries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// Channels with somebody speaking.
    pub talking_channels: u64,
    /// People speaking.
    pub speakers: u64,
    /// Copies between nodes that a spoken frame takes.
    pub copies_per_frame: f64,
    /// Bytes between nodes for each spoken frame, everything counted.
    pub bytes_per_frame: f64,
    /// Nodes.
    pub node: NodeLoad,
    /// Links, each direction counts: how many carry anything.
    pub links: u64,
    /// Bits a second on a link, Ethernet included.
    pub link_bits_per_s: Spread,
    /// What keeps the cluster together, as a share of the bytes.
    pub control: Control,
    /// Frames and refreshes that share a datagram, on average, by the length of a turn.
    pub bundling: Vec<Bundling>,
}

/// What one node has to do each second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NodeLoad {
    /// Frames to other nodes.
    pub frames_out: Spread,
    /// Datagrams to other nodes, heartbeats included.
    pub datagrams_out: Spread,
    /// Their bytes, as `antiphon_relay_sent_bytes_total` counts.
    pub bytes_out: Spread,
    /// Bits to other nodes, Ethernet included.
    pub bits_out: Spread,
    /// Bits from other nodes.
    pub bits_in: Spread,
    /// Frames to members here.
    pub deliveries: Spread,
    /// CPU cores for those.
    pub delivery_cores: Spread,
    /// CPU cores for what it sends to and receives from other nodes.
    pub relay_cores: Spread,
}

/// What is sent between nodes besides frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Control {
    /// Heartbeats a second of one node.
    pub heartbeats_per_node: f64,
    /// Interests and node sets a second of one node.
    pub refreshes_per_node: f64,
    /// Of all bytes between nodes.
    pub share_of_bytes: f64,
}

/// What turns of one length make of records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bundling {
    /// How long a turn is; 0: every record has a datagram of its own.
    pub turn_us: u64,
    /// Records in a datagram, heartbeats left out.
    pub records_per_datagram: f64,
    /// Bits a second that a node sends to others, Ethernet included.
    pub node_bits_per_s: f64,
}

/// What goes from a worker of one node to its counterpart on another, each second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    frames: f32,
    refreshes: f32,
    refresh_bytes: f32,
}

/// What a path carries on the wire, each second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub(super) datagrams: f64,
    pub(super) heartbeats: f64,
    pub(super) bytes: f64,
}

impl Path {
    pub(super) fn carried(self, frame_bytes: usize, turn: Micros) -> Carried {
        let records = f64::from(self.frames + self.refreshes);
        if records == 0.0 {
            return Carried::default();
        }
        let record_bytes =
            f64::from(self.frames) * audio_record_bytes(frame_bytes) as f64 + f64::from(self.refresh_bytes);
        let bundled = datagrams_per_s(records, record_bytes / records, turn);
        let heartbeats = heartbeats_per_s(bundled, self.frames > 0.0);
        let datagrams = bundled + heartbeats;
        let bytes = record_bytes + heartbeats * HEARTBEAT_RECORD_BYTES as f64 + datagrams * SEALING_BYTES;
        Carried { datagrams, heartbeats, bytes }
    }
}

/// All paths, and what members hear.
pub(super) struct Paths {
    nodes: usize,
    workers: usize,
    paths: Vec<Path>,
    deliveries: Vec<f64>,
    talking_channels: u64,
    speakers: u64,
}

impl Paths {
    /// Nothing yet.
    pub(super) fn new(config: &ScaleConfig) -> Self {
        let (nodes, workers) = (config.nodes as usize, usize::from(config.workers));
        Self {
            nodes,
            workers,
            paths: vec![Path::default(); nodes * nodes * workers],
            deliveries: vec![0.0; nodes],
            talking_channels: 0,
            speakers: 0,
        }
    }

    /// What the channels of a configuration bring, each with its owner.
    fn of(config: &ScaleConfig, owners: &[u32]) -> Self {
        let mut paths = Self::new(config);
        let mut people = People::default();
        for (owner, index) in owners.iter().zip(0..) {
            model::draw(config, index, &mut people);
            let worker = ChannelPlace::of(model::channel_id(config.seed, index)).worker(config.workers);
            paths.channel(&people, *owner, usize::from(worker.0));
        }
        paths
    }

    fn path(&mut self, from: u32, to: u32, worker: usize) -> &mut Path {
        &mut self.paths[(from as usize * self.nodes + to as usize) * self.workers + worker]
    }

    /// One channel, at a worker of every node.
    pub(super) fn channel(&mut self, people: &People, owner: u32, worker: usize) {
        self.talking_channels += u64::from(people.speakers > 0);
        self.speakers += people.speakers as u64;
        let node_set_bytes = node_set_record_bytes(people.edges.len()) as f32;
        let per_s = refreshes_per_s() as f32;
        for edge in people.edges.iter().filter(|edge| **edge != owner) {
            let interest = self.path(*edge, owner, worker);
            interest.refreshes += per_s;
            interest.refresh_bytes += per_s * INTEREST_RECORD_BYTES as f32;
            let answer = self.path(owner, *edge, worker);
            answer.refreshes += per_s;
            answer.refresh_bytes += per_s * node_set_bytes;
        }
        for speaker in &people.nodes[..people.speakers] {
            self.speaker(people, *speaker, owner, worker);
        }
    }

    /// One stream: to the owner, and from it to the others.
    fn speaker(&mut self, people: &People, speaker: u32, owner: u32, worker: usize) {
        people.nodes.iter().for_each(|node| self.deliveries[*node as usize] += FRAMES_PER_S);
        self.deliveries[speaker as usize] -= FRAMES_PER_S;
        if people.edges.len() < 2 {
            return;
        }
        if speaker != owner {
            self.path(speaker, owner, worker).frames += FRAMES_PER_S as f32;
        }
        for edge in people.edges.iter().filter(|edge| **edge != owner && **edge != speaker) {
            self.path(owner, *edge, worker).frames += FRAMES_PER_S as f32;
        }
    }

    /// What all of them carry together.
    pub(super) fn total(&self, frame_bytes: usize, turn: Micros) -> Carried {
        self.paths.iter().fold(Carried::default(), |sum, path| sum + path.carried(frame_bytes, turn))
    }

    pub(super) fn frames_per_s(&self) -> f64 {
        self.paths.iter().map(|path| f64::from(path.frames)).sum()
    }

    pub(super) fn spoken_per_s(&self) -> f64 {
        self.speakers as f64 * FRAMES_PER_S
    }

    fn refreshes_per_s(&self) -> f64 {
        self.paths.iter().map(|path| f64::from(path.refreshes)).sum()
    }
}

impl std::ops::Add for Carried {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            datagrams: self.datagrams + other.datagrams,
            heartbeats: self.heartbeats + other.heartbeats,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Carried {
    fn bits(self) -> f64 {
        (self.bytes + self.datagrams * LINK_BYTES) * 8.0
    }
}

/// What nodes and links carry.
pub(super) fn load(config: &ScaleConfig, owners: &[u32]) -> Load {
    let paths = Paths::of(config, owners);
    let sums = Sums::of(config, &paths);
    let total = sums.out.iter().copied().fold(Carried::default(), |sum, node| sum + node);
    let (spoken, frames) = (paths.spoken_per_s(), paths.frames_per_s());
    let nodes = f64::from(config.nodes);
    let audio_bytes = frames * (audio_record_bytes(config.frame_bytes) as f64);
    let links = sums.links.iter().filter(|bits| **bits > 0.0);
    Load {
        talking_channels: paths.talking_channels,
        speakers: paths.speakers,
        copies_per_frame: share(frames, spoken),
        bytes_per_frame: share(total.bytes, spoken),
        node: sums.node(&paths),
        links: links.clone().count() as u64,
        link_bits_per_s: Spread::of(links.copied()),
        control: Control {
            heartbeats_per_node: total.heartbeats / nodes,
            refreshes_per_node: paths.refreshes_per_s() / nodes,
            share_of_bytes: share(control_bytes(&paths, total, audio_bytes), total.bytes),
        },
        bundling: [0, config.turn_us, 2_000].map(|turn_us| bundling(config, &paths, turn_us)).to_vec(),
    }
}

/// The bytes of all that is no frame: of datagrams that frames share with it, the frames' part is left out.
fn control_bytes(paths: &Paths, total: Carried, audio_bytes: f64) -> f64 {
    let (frames, refreshes) = (paths.frames_per_s(), paths.refreshes_per_s());
    let sealing = (total.datagrams - total.heartbeats) * SEALING_BYTES;
    total.bytes - audio_bytes - sealing * share(frames, frames + refreshes)
}

fn bundling(config: &ScaleConfig, paths: &Paths, turn_us: u64) -> Bundling {
    let total = paths.total(config.frame_bytes, Micros(turn_us));
    let records = paths.frames_per_s() + paths.refreshes_per_s();
    Bundling {
        turn_us,
        records_per_datagram: share(records, total.datagrams - total.heartbeats),
        node_bits_per_s: total.bits() / f64::from(config.nodes),
    }
}

fn share(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

/// What all paths of a node or a link carry.
struct Sums {
    out: Vec<Carried>,
    frames_out: Vec<f64>,
    within: Vec<Carried>,
    /// Bits a second, by sender and receiver.
    links: Vec<f64>,
}

impl Sums {
    fn of(config: &ScaleConfig, paths: &Paths) -> Self {
        let nodes = paths.nodes;
        let [mut out, mut within] = [(); 2].map(|()| vec![Carried::default(); nodes]);
        let mut frames_out = vec![0.0; nodes];
        let mut links = Vec::with_capacity(nodes * nodes);
        for (index, link) in paths.paths.chunks(paths.workers).enumerate() {
            let (from, to) = (index / nodes, index % nodes);
            let carried = link.iter().map(|path| path.carried(config.frame_bytes, config.turn()));
            let carried = carried.fold(Carried::default(), |sum, path| sum + path);
            out[from] = out[from] + carried;
            within[to] = within[to] + carried;
            frames_out[from] += link.iter().map(|path| f64::from(path.frames)).sum::<f64>();
            links.push(carried.bits());
        }
        Self { out, frames_out, within, links }
    }

    fn node(&self, paths: &Paths) -> NodeLoad {
        let Self { out, within, frames_out, .. } = self;
        let both = out.iter().zip(within).map(|(out, within)| (out.datagrams + within.datagrams) / 2.0);
        NodeLoad {
            frames_out: Spread::of(frames_out.iter().copied()),
            datagrams_out: Spread::of(out.iter().map(|node| node.datagrams)),
            bytes_out: Spread::of(out.iter().map(|node| node.bytes)),
            bits_out: Spread::of(out.iter().map(|node| node.bits())),
            bits_in: Spread::of(within.iter().map(|node| node.bits())),
            deliveries: Spread::of(paths.deliveries.iter().copied()),
            delivery_cores: Spread::of(paths.deliveries.iter().map(|frames| frames * DELIVERY_CPU_US / 1e6)),
            relay_cores: Spread::of(both.map(|datagrams| datagrams * RELAY_DATAGRAM_CPU_US / 1e6)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(frame_bytes: usize) -> ScaleConfig {
        ScaleConfig { nodes: 3, workers: 1, channels: 1, sessions: 3, frame_bytes, ..ScaleConfig::default() }
    }

    /// Members on all three nodes, of whom those on `speakers` speak; the owner is node 0.
    fn paths(speakers: &[u32]) -> Paths {
        let mut paths = Paths::new(&config(80));
        let silent = (0..3).filter(|node| !speakers.contains(node));
        let nodes = speakers.iter().copied().chain(silent).collect();
        paths.channel(&People { nodes, edges: vec![0, 1, 2], speakers: speakers.len() }, 0, 0);
        paths
    }

    /// By hand: a frame of 80 bytes is a record of 19 + 12 + 80 in a datagram of 32 more, 143 bytes, and goes to two
    /// other nodes whoever speaks. Both edges send an Interest (36) a second and get a NodeSet of three nodes (43),
    /// each in a datagram, and each of the four ways has a heartbeat (29) a second, or 20 where nothing is said.
    #[test]
    fn three_nodes_carry_what_a_hand_computation_gives() {
        let refreshes = 2.0 * (36.0 + 32.0) + 2.0 * (43.0 + 32.0);
        let silent_way = heartbeats_per_s(1.0, false);
        let cases = [(0, 2.0 * 50.0 * 143.0, 2.0 + 2.0 * silent_way), (1, 2.0 * 50.0 * 143.0, 2.0 + 2.0 * silent_way)];
        for (speaker, audio, heartbeats) in cases {
            let carried = paths(&[speaker]).total(80, Micros::ZERO);
            let expected = audio + refreshes + heartbeats * (29.0 + 32.0);
            assert!((carried.bytes - expected).abs() < 0.01, "{speaker}: {} {expected}", carried.bytes);
            assert!((carried.datagrams - (100.0 + 4.0 + heartbeats)).abs() < 0.01);
        }
    }

    #[test]
    fn the_owner_sends_to_all_edges_but_the_speakers_own() {
        let frames = |speakers: &[u32]| paths(speakers).paths.iter().map(|path| path.frames).collect::<Vec<_>>();
        // From 0 to 0, 1, 2; from 1; from 2.
        assert_eq!(frames(&[0]), [0.0, 50.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(frames(&[1]), [0.0, 0.0, 50.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(frames(&[1, 2]), [0.0, 50.0, 50.0, 50.0, 0.0, 0.0, 50.0, 0.0, 0.0]);
        assert_eq!(paths(&[1, 2]).deliveries, [100.0, 50.0, 50.0]);
    }

    #[test]
    fn a_channel_on_one_node_says_nothing_to_others_but_its_interest() {
        let mut paths = Paths::new(&config(80));
        paths.channel(&People { nodes: vec![2, 2], edges: vec![2], speakers: 1 }, 0, 0);
        assert_eq!((paths.frames_per_s(), paths.refreshes_per_s()), (0.0, 2.0));
        assert_eq!(paths.deliveries, [0.0, 0.0, 50.0]);
    }

    #[test]
    fn what_leaves_arrives_and_parts_make_the_whole() {
        let config = ScaleConfig { nodes: 10, workers: 2, channels: 3_000, sessions: 20_000, ..ScaleConfig::default() };
        let owners: Vec<u32> = (0..3_000).map(|index| index % 10).collect();
        let load = load(&config, &owners);
        assert!((load.node.bits_out.mean - load.node.bits_in.mean).abs() < 1.0);
        let links = load.link_bits_per_s.mean * load.links as f64;
        assert!((links / 10.0 - load.node.bits_out.mean).abs() < 1.0);
        assert!((load.bundling[1].node_bits_per_s - load.node.bits_out.mean).abs() < 1.0);
        let bits: Vec<_> = load.bundling.iter().map(|bundling| bundling.node_bits_per_s).collect();
        assert!(bits[0] > bits[1] && bits[1] > bits[2], "{bits:?}");
        assert!(load.control.share_of_bytes > 0.0 && load.control.share_of_bytes < 0.5);
    }
}
