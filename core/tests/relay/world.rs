//! Nodes with relays, the networks between them, and people who speak, in virtual time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, NodeId, NodeNumber, StreamId, WorkerIndex},
    netsim::{Network, NetworkConfig},
    prng::Prng,
    relay::{
        Counter, NodeInfo, Output, Relay, RelayCommand, RelayConfig, RelayEvent, RelayStats, Versions, channel_worker,
    },
    wire::frame::FrameHeader,
};
use uuid::Uuid;

pub(crate) const SECRET: &[u8] = b"a secret of the cluster";
/// How often people speak.
pub(crate) const FRAME: Micros = Micros::from_millis(20);
/// No node turns more often than this.
const TURN: Micros = Micros(500);

/// No frame is missing.
pub(crate) const NOTHING: [u16; 0] = [];

pub(crate) fn ms(count: u64) -> Micros {
    Micros::from_millis(count)
}

pub(crate) fn channel_id(number: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(number))
}

/// How many seeds a test runs: `ANTIPHON_SEEDS` or so many.
pub(crate) fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    let asked = std::env::var("ANTIPHON_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..asked.unwrap_or(usual)
}

/// A frame that was heard, and when by the world's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) channel: ChannelId,
    pub(crate) stream: StreamId,
    pub(crate) sequence: u16,
    pub(crate) at: Micros,
}

#[derive(Default)]
pub(crate) struct Recorder {
    sent: Vec<(SocketAddr, Vec<u8>)>,
    delivered: Vec<(ChannelId, FrameHeader, Vec<u8>)>,
    /// Packets of pictures, and else words of those who meet.
    pub(crate) records: Vec<(bool, Vec<u8>)>,
    pub(crate) events: Vec<RelayEvent>,
}

impl Output for Recorder {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        assert!(datagram.len() <= 1_500);
        self.sent.push((to, datagram.to_vec()));
    }

    fn deliver(&mut self, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) {
        assert_eq!(bytes, frame_bytes(header), "bit by bit");
        self.delivered.push((channel, *header, bytes.to_vec()));
    }

    fn record(&mut self, _: ChannelId, is_picture: bool, body: &[u8]) {
        self.records.push((is_picture, body.to_vec()));
    }

    fn event(&mut self, event: RelayEvent) {
        self.events.push(event);
    }
}

/// What a frame of this header holds.
fn frame_bytes(header: &FrameHeader) -> Vec<u8> {
    vec![header.sequence as u8; 40 + header.stream.0 as usize % 60]
}

pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    workers: Vec<Relay>,
    pub(crate) out: Recorder,
    /// Its clock is this much ahead of the world's.
    skew: Micros,
    pub(crate) alive: bool,
    pub(crate) heard: Vec<Heard>,
    /// Frames that came twice and would be dropped by the engine.
    pub(crate) duplicates: u64,
    seen: HashSet<(ChannelId, StreamId, u16)>,
}

impl Node {
    pub(crate) fn stats(&self) -> RelayStats {
        self.workers.iter().fold(RelayStats::default(), |mut sum, relay| {
            sum += *relay.stats();
            sum
        })
    }
}

/// Somebody who speaks: on which node, in which channel, how loud.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub(crate) node: usize,
    pub(crate) channel: ChannelId,
    pub(crate) stream: StreamId,
    pub(crate) level: u8,
    pub(crate) sequence: u16,
    pub(crate) speaking: bool,
    /// How many frames its own node let pass.
    pub(crate) passed: u64,
}

pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) nodes: Vec<Node>,
    /// One direction between two nodes each.
    networks: BTreeMap<(usize, usize), Network<Vec<u8>>>,
    config: NetworkConfig,
    seed: u64,
    pub(crate) speakers: Vec<Speaker>,
    next_frame: Micros,
    spoken_at: HashMap<(StreamId, u16), Micros>,
}

impl World {
    pub(crate) fn new(seed: u64, workers: &[u16], config: NetworkConfig) -> Self {
        let mut world = Self {
            now: Micros::from_secs(1),
            nodes: Vec::new(),
            networks: BTreeMap::new(),
            config,
            seed,
            speakers: Vec::new(),
            next_frame: Micros::from_secs(1),
            spoken_at: HashMap::new(),
        };
        workers.iter().for_each(|workers| world.start(*workers));
        world
    }

    /// Starts a node that the others do not know of yet.
    pub(crate) fn start(&mut self, workers: u16) {
        let index = self.nodes.len();
        let mut prng = Prng::new(self.seed ^ (index as u64) << 32);
        let info = NodeInfo {
            id: NodeId(format!("node-{index}")),
            number: NodeNumber(100 + u32::try_from(index).expect("few")),
            started_at_us: 1_700_000_000_000_000 + index as u64,
            address: address(index),
            workers,
            versions: Versions::SPOKEN,
            capacity: u32::from(workers) * 100,
            serving: true,
        };
        for other in 0..index {
            for pair in [(index, other), (other, index)] {
                let seed = prng.next_u64();
                self.networks.insert(pair, Network::new(self.config.clone(), seed));
            }
        }
        let skew = Micros(prng.below(3_600_000_000));
        self.nodes.push(node(info, skew));
    }

    /// The node starts anew under the same name.
    pub(crate) fn restart(&mut self, index: usize) {
        let mut info = self.nodes[index].info.clone();
        info.number = NodeNumber(info.number.0 + 1_000);
        info.started_at_us += 1_000_000;
        let skew = Micros(self.nodes[index].skew.0 / 2);
        self.nodes[index] = node(info, skew);
    }

    /// Tells a node of all that `known` names.
    pub(crate) fn tell(&mut self, index: usize, epoch: u64, known: &[usize]) {
        let me = self.nodes[index].info.clone();
        let peers: Arc<[_]> =
            known.iter().filter(|other| **other != index).map(|other| self.nodes[*other].info.clone()).collect();
        self.command(index, None, &RelayCommand::SetPeers { epoch, me, peers });
    }

    /// Tells all nodes of all nodes.
    pub(crate) fn tell_all(&mut self, epoch: u64) {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        all.iter().for_each(|index| self.tell(*index, epoch, &all));
    }

    pub(crate) fn open(&mut self, index: usize, channel: ChannelId, max_speakers: u32) {
        self.command(index, Some(channel), &RelayCommand::Open { channel, max_speakers });
    }

    pub(crate) fn close(&mut self, index: usize, channel: ChannelId) {
        self.command(index, Some(channel), &RelayCommand::Close { channel });
    }

    pub(crate) fn command(&mut self, index: usize, channel: Option<ChannelId>, command: &RelayCommand) {
        let node = &mut self.nodes[index];
        let now = self.now + node.skew;
        let count = node.info.workers;
        for (worker, relay) in node.workers.iter_mut().enumerate() {
            if channel.is_none_or(|channel| usize::from(channel_worker(channel, count).0) == worker) {
                relay.command(now, command.clone(), &mut node.out);
                relay.batch_end(now, &mut node.out);
            }
        }
        self.carry(index);
    }

    /// Those who meet on a node have something for the others.
    pub(crate) fn record(&mut self, index: usize, channel: ChannelId, is_picture: bool, body: &[u8]) {
        let node = &mut self.nodes[index];
        let now = self.now + node.skew;
        let worker = channel_worker(channel, node.info.workers);
        let relay = &mut node.workers[usize::from(worker.0)];
        relay.local_record(now, channel, is_picture, (&body[..1], &body[1..]), &mut node.out);
        relay.batch_end(now, &mut node.out);
        self.carry(index);
    }

    /// Somebody on a node speaks in a channel from now on.
    pub(crate) fn speaker(&mut self, node: usize, channel: ChannelId, level: u8) -> usize {
        let stream = StreamId(1 + u32::try_from(self.speakers.len()).expect("few"));
        let speaker = Speaker { node, channel, stream, level, sequence: 0, speaking: true, passed: 0 };
        self.speakers.push(speaker);
        self.speakers.len() - 1
    }

    /// Who owns a channel in the view of all; `None` while views differ.
    pub(crate) fn owner(&self, channel: ChannelId) -> Option<usize> {
        let live = || self.nodes.iter().enumerate().filter(|(_, node)| node.alive);
        let views: HashSet<_> = live()
            .filter_map(|(_, node)| {
                node.out.events.iter().rev().find_map(|event| match event {
                    RelayEvent::OwnerChanged { channel: of, owner } if *of == channel => Some(*owner),
                    _ => None,
                })
            })
            .collect();
        let mut views = views.into_iter();
        let (only, None) = (views.next()??, views.next()) else { return None };
        self.nodes.iter().position(|node| node.info.number == only)
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].alive = false;
        self.speakers.iter_mut().filter(|speaker| speaker.node == index).for_each(|speaker| speaker.speaking = false);
    }

    /// Cuts or mends what lies between two groups of nodes.
    pub(crate) fn partition(&mut self, one: &[usize], other: &[usize], cut: bool) {
        for a in one {
            for b in other {
                for pair in [(*a, *b), (*b, *a)] {
                    self.networks.get_mut(&pair).expect("a network").set_blocked(cut);
                }
            }
        }
    }

    /// Cuts or mends one direction.
    pub(crate) fn block(&mut self, from: usize, to: usize, cut: bool) {
        self.networks.get_mut(&(from, to)).expect("a network").set_blocked(cut);
    }

    pub(crate) fn set_network(&mut self, config: &NetworkConfig) {
        self.networks.values_mut().for_each(|network| network.set_config(config.clone()));
    }

    pub(crate) fn run(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.step();
        }
        self.now = end;
    }

    fn next_at(&self) -> Option<Micros> {
        let due = self.nodes.iter().filter(|node| node.alive).flat_map(|node| {
            node.workers.iter().filter_map(Relay::poll_timeout).map(|at| (at - node.skew).max(self.now + TURN))
        });
        let arrivals = self.networks.values().filter_map(Network::poll_timeout);
        due.chain(arrivals).chain([self.next_frame]).min()
    }

    fn step(&mut self) {
        if self.next_frame <= self.now {
            self.next_frame = self.next_frame + FRAME;
            self.speak();
        }
        let pairs: Vec<_> = self.networks.keys().copied().collect();
        for (from, to) in pairs {
            while let Some(datagram) = self.networks.get_mut(&(from, to)).and_then(|network| network.receive(self.now))
            {
                self.arrive(to, datagram);
            }
        }
        for index in 0..self.nodes.len() {
            self.turn(index);
        }
    }

    fn speak(&mut self) {
        let mut speakers = std::mem::take(&mut self.speakers);
        for speaker in speakers.iter_mut().filter(|speaker| speaker.speaking) {
            let sequence = speaker.sequence;
            speaker.sequence = sequence.wrapping_add(1);
            let timestamp = u32::from(sequence) * 960;
            let header =
                FrameHeader { stream: speaker.stream, sequence, timestamp, kind_flags: 0, level: speaker.level };
            self.spoken_at.insert((speaker.stream, sequence), self.now);
            let node = &mut self.nodes[speaker.node];
            let now = self.now + node.skew;
            let worker = channel_worker(speaker.channel, node.info.workers);
            let relay = &mut node.workers[usize::from(worker.0)];
            let bytes = frame_bytes(&header);
            speaker.passed += u64::from(relay.local_frame(now, speaker.channel, &header, &bytes, &mut node.out));
        }
        self.speakers = speakers;
    }

    fn arrive(&mut self, to: usize, mut datagram: Vec<u8>) {
        let node = &mut self.nodes[to];
        if !node.alive {
            return;
        }
        // As the kernel steers.
        let worker = usize::from(datagram[7]) % node.workers.len();
        node.workers[worker].datagram(self.now + node.skew, &mut datagram, &mut node.out);
        self.listen(to);
    }

    fn turn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.alive {
            node.out.sent.clear();
            return;
        }
        let now = self.now + node.skew;
        for relay in &mut node.workers {
            relay.batch_end(now, &mut node.out);
            relay.timeout(now, &mut node.out);
        }
        self.carry(index);
    }

    fn listen(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        for (channel, header, _) in node.out.delivered.drain(..) {
            let (stream, sequence) = (header.stream, header.sequence);
            if node.seen.insert((channel, stream, sequence)) {
                node.heard.push(Heard { channel, stream, sequence, at: self.now });
            } else {
                node.duplicates += 1;
            }
        }
    }

    /// Puts what a node sends into the networks.
    fn carry(&mut self, from: usize) {
        let sent = std::mem::take(&mut self.nodes[from].out.sent);
        for (to, datagram) in sent {
            let to = self.nodes.iter().position(|node| node.info.address == to).expect("a node's address");
            self.networks.get_mut(&(from, to)).expect("a network").send(self.now, datagram);
        }
    }

    /// Which frames of a speaker from `first` up to now a node has not heard.
    pub(crate) fn missing(&self, listener: usize, speaker: usize, first: u16) -> Vec<u16> {
        let speaker = &self.speakers[speaker];
        let heard: HashSet<_> = self.nodes[listener]
            .heard
            .iter()
            .filter(|heard| heard.stream == speaker.stream && heard.channel == speaker.channel)
            .map(|heard| heard.sequence)
            .collect();
        (first..speaker.sequence).filter(|sequence| !heard.contains(sequence)).collect()
    }

    /// The longest time between two frames of a speaker that a node heard, from `since` until now.
    pub(crate) fn silence(&self, listener: usize, speaker: usize, since: Micros) -> Micros {
        let stream = self.speakers[speaker].stream;
        let heard = self.nodes[listener].heard.iter().filter(|heard| heard.stream == stream && heard.at >= since);
        let mut times: Vec<_> = heard.map(|heard| heard.at).chain([since, self.now]).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("two times")
    }

    pub(crate) fn heard_of(&self, listener: usize, speaker: usize) -> usize {
        let stream = self.speakers[speaker].stream;
        self.nodes[listener].heard.iter().filter(|heard| heard.stream == stream).count()
    }

    /// The longest that any frame took to any node.
    pub(crate) fn slowest(&self) -> Micros {
        let heard = self.nodes.iter().flat_map(|node| &node.heard);
        heard.map(|heard| heard.at - self.spoken_at[&(heard.stream, heard.sequence)]).max().unwrap_or_default()
    }

    pub(crate) fn total(&self, counter: Counter) -> u64 {
        self.nodes.iter().map(|node| node.stats()[counter]).sum()
    }
}

fn address(index: usize) -> SocketAddr {
    ([10, 0, 0, u8::try_from(index + 1).expect("few")], 3_003).into()
}

fn node(info: NodeInfo, skew: Micros) -> Node {
    let workers = (0..info.workers)
        .map(|worker| Relay::new(&RelayConfig { worker: WorkerIndex(worker), secret: SECRET.into() }))
        .collect();
    let (heard, seen) = (Vec::new(), HashSet::new());
    Node { info, workers, out: Recorder::default(), skew, alive: true, heard, duplicates: 0, seen }
}

/// A network inside one data centre, lossless.
pub(crate) fn good() -> NetworkConfig {
    NetworkConfig { delay: Micros(300), jitter: Micros(200), ..NetworkConfig::default() }
}

/// Delay, reordering and duplicates, but nothing lost.
pub(crate) fn unruly(prng: &mut Prng) -> NetworkConfig {
    NetworkConfig {
        delay: Micros(prng.below(10_000)),
        jitter: Micros(prng.below(5_000)),
        reorder: prng.unit() * 0.1,
        reorder_delay: Micros(prng.below(30_000)),
        duplicate: prng.unit() * 0.1,
        ..NetworkConfig::default()
    }
}
