//! Real relays of many nodes in virtual time, over a seeded network.
//!
//! Time moves in turns, as a worker's does: what arrived and was spoken in one turn is given to the relay at once, and
//! what it sends leaves at the end. There are no sockets and no members: a frame delivered to a node counts as heard.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

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

const SECRET: &[u8] = b"a secret of a simulated cluster";
/// How often somebody who speaks sends a frame.
pub(super) const FRAME: Micros = Micros::from_millis(20);
/// Samples of a frame at 48 kHz.
const FRAME_SAMPLES: u64 = 960;
/// A data centre's network.
const DELAY: Micros = Micros(300);
const JITTER: Micros = Micros(200);

/// What a relay did in a turn.
#[derive(Default)]
struct Effects {
    sent: Vec<(usize, Vec<u8>)>,
    delivered: Vec<(StreamId, u16)>,
    owners: HashMap<ChannelId, Option<NodeNumber>>,
}

impl Output for Effects {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((index_of(to), datagram.to_vec()));
    }

    fn deliver(&mut self, _: ChannelId, header: &FrameHeader, _: &[u8]) {
        self.delivered.push((header.stream, header.sequence));
    }

    fn event(&mut self, event: RelayEvent) {
        if let RelayEvent::OwnerChanged { channel, owner } = event {
            self.owners.insert(channel, owner);
        }
    }
}

struct Node {
    info: NodeInfo,
    relays: Vec<Relay>,
    effects: Effects,
    alive: bool,
    /// Something was given to its relays in this turn.
    busy: bool,
}

/// Somebody who speaks.
struct Speaker {
    node: usize,
    channel: ChannelId,
    first_at: Micros,
    frames: u64,
}

/// What a node heard of a speaker since the last [`World::mark`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ear {
    newest: u64,
    /// Bit n: the frame n before the newest was heard.
    seen: u64,
    pub(super) heard: u64,
    last_at: Option<Micros>,
    /// The longest time between two frames, or since the mark.
    pub(super) silence: Micros,
    /// The longest that a frame took.
    pub(super) slowest: Micros,
}

impl Ear {
    /// A frame comes; what comes twice counts once.
    fn hear(&mut self, now: Micros, marked_at: Micros, spoken_at: Micros, number: u64) {
        if number > self.newest || self.seen == 0 {
            let ahead = number.saturating_sub(self.newest);
            self.seen = if ahead < 64 { self.seen << ahead } else { 0 };
            self.newest = number;
        }
        let bit = 1_u64.checked_shl((self.newest - number) as u32).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            return;
        }
        self.seen |= bit;
        self.heard += 1;
        self.silence = self.silence.max(now.since(self.last_at.unwrap_or(marked_at)));
        self.last_at = Some(now);
        self.slowest = self.slowest.max(now.since(spoken_at));
    }
}

/// Datagrams that one node sent to another since the last [`World::mark`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
}

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldConfig {
    pub(super) nodes: usize,
    pub(super) workers: u16,
    pub(super) turn: Micros,
    pub(super) frame_bytes: usize,
    pub(super) seed: u64,
}

/// Nodes, the network between them, and people who speak.
pub(super) struct World {
    now: Micros,
    marked_at: Micros,
    config: WorldConfig,
    frame: Vec<u8>,
    prng: Prng,
    nodes: Vec<Node>,
    /// What is on its way to each node.
    networks: Vec<Network<Vec<u8>>>,
    speakers: Vec<Speaker>,
    /// By node and speaker.
    ears: Vec<Ear>,
    /// By sender and receiver.
    sent: Vec<Sent>,
    at_mark: Vec<RelayStats>,
}

impl World {
    /// Nodes that know each other.
    pub(super) fn new(config: WorldConfig) -> Self {
        let mut prng = Prng::new(config.seed);
        let network =
            NetworkConfig { delay: DELAY, jitter: JITTER, in_flight_max: 1 << 20, ..NetworkConfig::default() };
        let mut world = Self {
            now: Micros::from_secs(1),
            marked_at: Micros::from_secs(1),
            config,
            frame: vec![0x55; config.frame_bytes],
            nodes: (0..config.nodes).map(|index| node(index, config.workers)).collect(),
            networks: (0..config.nodes).map(|_| Network::new(network.clone(), prng.next_u64())).collect(),
            prng,
            speakers: Vec::new(),
            ears: Vec::new(),
            sent: vec![Sent::default(); config.nodes * config.nodes],
            at_mark: vec![RelayStats::default(); config.nodes],
        };
        world.tell_all(1);
        world
    }

    /// The registry tells all that live of all that live.
    pub(super) fn tell_all(&mut self, epoch: u64) {
        let alive: Vec<_> = self.nodes.iter().filter(|node| node.alive).map(|node| node.info.clone()).collect();
        for index in 0..self.nodes.len() {
            let me = self.nodes[index].info.clone();
            let peers: Arc<[_]> = alive.iter().filter(|other| other.id != me.id).cloned().collect();
            let command = RelayCommand::SetPeers { epoch, me, peers };
            (0..self.config.workers).for_each(|worker| self.command(index, worker, command.clone()));
        }
    }

    /// A channel has members on a node.
    pub(super) fn open(&mut self, node: usize, channel: ChannelId) {
        let worker = channel_worker(channel, self.config.workers);
        self.command(node, worker.0, RelayCommand::Open { channel, max_speakers: 0 });
    }

    fn command(&mut self, index: usize, worker: u16, command: RelayCommand) {
        let node = &mut self.nodes[index];
        if node.alive {
            node.relays[usize::from(worker)].command(self.now, command, &mut node.effects);
            node.busy = true;
        }
    }

    /// Somebody speaks from now on; when within 20 ms is drawn.
    pub(super) fn speak(&mut self, node: usize, channel: ChannelId) {
        let first_at = self.now + Micros(self.prng.below(FRAME.0));
        self.speakers.push(Speaker { node, channel, first_at, frames: 0 });
        self.ears = vec![Ear::default(); self.nodes.len() * self.speakers.len()];
    }

    /// A node is gone from one moment to the next.
    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index].alive = false;
        self.networks[index].set_blocked(true);
    }

    /// What is counted is counted from now on.
    pub(super) fn mark(&mut self) {
        self.marked_at = self.now;
        self.sent.fill(Sent::default());
        for ear in &mut self.ears {
            *ear = Ear { newest: ear.newest, seen: ear.seen, ..Ear::default() };
        }
        self.at_mark = (0..self.nodes.len()).map(|index| self.stats(index)).collect();
    }

    /// Lets so much time pass.
    pub(super) fn run(&mut self, time: Micros) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// Lets one turn pass.
    pub(super) fn turn(&mut self) {
        self.now = self.now + self.config.turn;
        for index in 0..self.speakers.len() {
            self.say(index);
        }
        for index in 0..self.nodes.len() {
            self.node_turn(index);
        }
    }

    fn say(&mut self, index: usize) {
        let speaker = &mut self.speakers[index];
        let node = &mut self.nodes[speaker.node];
        if !node.alive || spoken_at(speaker, speaker.frames) > self.now {
            return;
        }
        let header = FrameHeader {
            stream: stream_of(index),
            sequence: speaker.frames as u16,
            timestamp: (speaker.frames * FRAME_SAMPLES) as u32,
            kind_flags: 0,
            level: 30,
        };
        speaker.frames += 1;
        node.busy = true;
        let relay = &mut node.relays[usize::from(channel_worker(speaker.channel, self.config.workers).0)];
        relay.local_frame(self.now, speaker.channel, &header, &self.frame, &mut node.effects);
    }

    fn node_turn(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if !node.alive {
            return;
        }
        let mut busy = std::mem::take(&mut node.busy);
        while let Some(mut datagram) = self.networks[index].receive(now) {
            // As the kernel steers.
            let worker = usize::from(datagram[7]) % node.relays.len();
            node.relays[worker].datagram(now, &mut datagram, &mut node.effects);
            busy = true;
        }
        for relay in &mut node.relays {
            if busy || relay.poll_timeout().is_some_and(|at| at <= now) {
                relay.timeout(now, &mut node.effects);
                busy = true;
            }
        }
        if busy {
            self.listen(index);
            self.carry(index);
        }
    }

    fn listen(&mut self, index: usize) {
        let first = index * self.speakers.len();
        for (stream, sequence) in self.nodes[index].effects.delivered.drain(..) {
            let speaker = stream.0 as usize - 1;
            let spoken = &self.speakers[speaker];
            // The newest frame's number has the upper bits of this one's, or it was the last before they changed.
            let before = (spoken.frames as u16).wrapping_sub(sequence);
            let number = spoken.frames - u64::from(before);
            self.ears[first + speaker].hear(self.now, self.marked_at, spoken_at(spoken, number), number);
        }
    }

    fn carry(&mut self, from: usize) {
        let first = from * self.nodes.len();
        for (to, datagram) in self.nodes[from].effects.sent.drain(..) {
            let sent = &mut self.sent[first + to];
            sent.datagrams += 1;
            sent.bytes += datagram.len() as u64;
            self.networks[to].send(self.now, datagram);
        }
    }

    pub(super) fn now(&self) -> Micros {
        self.now
    }

    /// How much time passed since the mark, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.now.since(self.marked_at).0 as f64 / 1e6
    }

    /// Who owns a channel in a node's view.
    pub(super) fn owner_seen_by(&self, node: usize, channel: ChannelId) -> Option<usize> {
        let owner = self.nodes[node].effects.owners.get(&channel).copied().flatten()?;
        Some(owner.0 as usize - 1)
    }

    /// The one owner of a channel in the view of all that live.
    pub(super) fn owner(&self, channel: ChannelId) -> Option<usize> {
        let mut views = self.alive().map(|node| self.owner_seen_by(node, channel));
        let first = views.next()??;
        views.all(|view| view == Some(first)).then_some(first)
    }

    /// The nodes that live.
    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].alive)
    }

    /// What live nodes heard of those who speak on other live nodes since the mark.
    pub(super) fn ears(&self) -> impl Iterator<Item = Ear> {
        let speakers = self.speakers.iter().enumerate().filter(|(_, speaker)| self.nodes[speaker.node].alive);
        let pairs = speakers.flat_map(|(index, speaker)| {
            self.alive().filter(|node| *node != speaker.node).map(move |node| (node, index))
        });
        pairs.map(|(node, speaker)| {
            let mut ear = self.ears[node * self.speakers.len() + speaker];
            let last = ear.last_at.unwrap_or(self.marked_at);
            ear.silence = ear.silence.max(self.now.since(last));
            ear
        })
    }

    /// What a node sent to another since the mark.
    pub(super) fn sent(&self, from: usize, to: usize) -> Sent {
        self.sent[from * self.nodes.len() + to]
    }

    /// What all sent since the mark.
    pub(super) fn sent_by_all(&self) -> Sent {
        self.sent.iter().fold(Sent::default(), |sum, link| sum + *link)
    }

    /// What a node sent to all others since the mark.
    pub(super) fn sent_by(&self, from: usize) -> Sent {
        (0..self.nodes.len()).fold(Sent::default(), |sum, to| sum + self.sent(from, to))
    }

    /// Frames that a node sent to others since the mark.
    pub(super) fn frames_by(&self, node: usize) -> u64 {
        let now = self.stats(node);
        let hops = [Counter::SentToOwner, Counter::SentFromOwner, Counter::SentDirect];
        hops.iter().map(|hop| now[*hop] - self.at_mark[node][*hop]).sum()
    }

    /// Frames that live nodes ever sent past an owner.
    pub(super) fn direct_frames(&self) -> u64 {
        let relays = self.alive().flat_map(|node| &self.nodes[node].relays);
        relays.map(|relay| relay.stats()[Counter::SentDirect]).sum()
    }

    fn stats(&self, node: usize) -> RelayStats {
        self.nodes[node].relays.iter().fold(RelayStats::default(), |mut sum, relay| {
            sum += *relay.stats();
            sum
        })
    }
}

impl std::ops::Add for Sent {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { datagrams: self.datagrams + other.datagrams, bytes: self.bytes + other.bytes }
    }
}

fn spoken_at(speaker: &Speaker, number: u64) -> Micros {
    speaker.first_at + Micros(number * FRAME.0)
}

fn stream_of(speaker: usize) -> StreamId {
    StreamId(speaker as u32 + 1)
}

/// What a node is called, here and in the ring of [`super::placement`].
pub(super) fn node_id(index: usize) -> NodeId {
    NodeId(format!("node-{index}"))
}

fn node(index: usize, workers: u16) -> Node {
    let info = NodeInfo {
        id: node_id(index),
        number: NodeNumber(index as u32 + 1),
        started_at_us: 1,
        address: address(index),
        workers,
        versions: Versions::SPOKEN,
        capacity: 100,
        serving: true,
    };
    let relay = |worker| Relay::new(&RelayConfig { worker: WorkerIndex(worker), secret: SECRET.into() });
    Node { info, relays: (0..workers).map(relay).collect(), effects: Effects::default(), alive: true, busy: false }
}

fn address(index: usize) -> SocketAddr {
    let [_, b, c, d] = (index as u32).to_be_bytes();
    ([10, b, c, d], 3_003).into()
}

fn index_of(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { return 0 };
    let [_, b, c, d] = address.ip().octets();
    u32::from_be_bytes([0, b, c, d]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn ms(count: u64) -> Micros {
        Micros::from_millis(count)
    }

    #[test]
    fn an_ear_counts_each_frame_once_and_the_longest_silence() {
        let mut ear = Ear::default();
        for (at, number) in [(110, 0), (130, 1), (131, 1), (200, 4), (201, 3), (202, 4), (220, 90), (221, 5)] {
            ear.hear(ms(at), ms(100), ms(at - 7), number);
        }
        assert_eq!((ear.heard, ear.silence, ear.slowest), (5, ms(70), ms(7)));
    }

    /// Every frame takes two hops at most, and everyone hears all of them.
    #[test]
    fn frames_reach_every_node_with_members_and_no_other() {
        let turn = Micros(250);
        let mut world = World::new(WorldConfig { nodes: 5, workers: 2, turn, frame_bytes: 80, seed: 3 });
        let channel = ChannelId(Uuid::from_u128(7));
        (0..4).for_each(|node| world.open(node, channel));
        world.run(ms(500));
        world.speak(0, channel);
        world.speak(3, channel);
        world.run(ms(500));
        world.mark();
        world.run(ms(2_000));
        let ears: Vec<_> = world.ears().map(|ear| (ear.heard, ear.slowest)).collect();
        let [(first, second), ..] = [(&ears[..4], &ears[4..])];
        for heard in [first, second] {
            let full = heard.iter().filter(|(count, slowest)| (99..=101).contains(count) && *slowest < ms(3));
            assert_eq!(full.count(), 3, "the three others with members: {ears:?}");
        }
        let owner = world.owner_seen_by(0, channel).expect("somebody");
        let frames: u64 = (0..5).map(|node| world.frames_by(node)).sum();
        // To three other nodes with members; and to the owner where that has none.
        let copies = if owner == 4 { 4 } else { 3 };
        assert!((198 * copies..=202 * copies).contains(&frames), "{frames}");
    }
}
