//! Whole rooms over networks that lose, delay, reorder and duplicate: every frame is heard at most once, and when the
//! network loses nothing, exactly once.

use std::collections::{HashMap, HashSet};

use antiphon_core::{
    clock::Micros,
    engine::{Counter, Family},
    gateway::Cipher,
    ids::{KeyId, StreamId},
    netsim::{Network, NetworkConfig},
    prng::Prng,
    replay::ReplayWindow,
    wire::datagram::{Header, PacketType},
};

use crate::world::{Client, World, channel_id, ms};

/// A client with its networks, and what it does when.
struct Peer {
    client: Client,
    to_node: Network<Vec<u8>>,
    from_node: Network<Vec<u8>>,
    next_ping: Micros,
    /// When it speaks next; never for a listener.
    next_frame: Option<Micros>,
    windows: HashMap<KeyId, ReplayWindow>,
    heard: Vec<(StreamId, u16)>,
}

fn network(prng: &mut Prng, lossless: bool) -> NetworkConfig {
    NetworkConfig {
        loss: if lossless { 0.0 } else { prng.unit() * 0.2 },
        loss_burst_mean: 1.0 + prng.unit() * 3.0,
        delay: Micros(prng.below(80_000)),
        jitter: Micros(prng.below(20_000)),
        reorder: prng.unit() * 0.1,
        reorder_delay: Micros(prng.below(60_000)),
        duplicate: prng.unit() * 0.1,
        ..NetworkConfig::default()
    }
}

struct Simulation {
    world: World,
    peers: Vec<Peer>,
    spoken: HashSet<(StreamId, u16)>,
}

impl Simulation {
    fn new(seed: u64, lossless: bool) -> Self {
        let mut prng = Prng::new(seed);
        let workers = 1 + prng.below(3) as u16;
        let mut world = World::new(workers, Micros(prng.below(2) * 2_000));
        let channel = channel_id(1);
        world.open_channel(0, channel, 0);
        let peers = (0..2 + prng.below(7)).map(|n| {
            let mut client = Client::new(10 + n as u32, Cipher::ALL[prng.below(2) as usize]);
            world.join(0, channel, &client);
            world.connect(&mut client);
            let config = network(&mut prng, lossless);
            Peer {
                client,
                to_node: Network::new(config, prng.next_u64()),
                from_node: Network::new(network(&mut prng, lossless), prng.next_u64()),
                next_ping: world.now + Micros(prng.below(5_000_000)),
                next_frame: prng.chance(0.6).then(|| world.now + Micros(200_000 + prng.below(20_000))),
                windows: HashMap::new(),
                heard: Vec::new(),
            }
        });
        let peers = peers.collect();
        world.advance(ms(100));
        world.clear();
        Self { world, peers, spoken: HashSet::new() }
    }

    /// Runs to `end`; people speak until `speak_until`.
    fn run(&mut self, speak_until: Micros, end: Micros) {
        while self.world.now < end {
            let now = self.world.now;
            for peer in &mut self.peers {
                if peer.next_frame.is_some_and(|at| at <= now && at < speak_until) {
                    peer.next_frame = peer.next_frame.map(|at| at + ms(20));
                    self.spoken.insert((peer.client.stream, peer.client.sequence));
                    let voice = peer.client.voice();
                    peer.to_node.send(now, voice);
                }
                if peer.next_ping <= now {
                    peer.next_ping = now + Micros::from_secs(5);
                    let ping = peer.client.ping(now);
                    peer.to_node.send(now, ping);
                }
            }
            let arrived: Vec<_> = self
                .peers
                .iter_mut()
                .flat_map(|peer| {
                    let from = peer.client.address;
                    std::iter::from_fn(|| peer.to_node.receive(now)).map(move |datagram| (from, datagram))
                })
                .collect();
            self.world.send_all(arrived);
            self.deliver();
            let next = self.peers.iter().flat_map(|peer| {
                let frame = peer.next_frame.filter(|at| *at < speak_until);
                [peer.to_node.poll_timeout(), peer.from_node.poll_timeout(), frame, Some(peer.next_ping)]
            });
            let next = next.flatten().chain([end]).min().expect("the end");
            // Where a time has passed already, time moves on all the same.
            let next = next.max(now + Micros(1)).min(self.world.poll_timeout().unwrap_or(end).max(now + Micros(1)));
            self.world.advance_to(next);
        }
    }

    fn deliver(&mut self) {
        let now = self.world.now;
        let by_address: HashMap<_, _> =
            self.peers.iter().enumerate().map(|(n, peer)| (peer.client.address, n)).collect();
        for (to, datagram) in self.world.take_sent() {
            self.peers[by_address[&to]].from_node.send(now, datagram);
        }
        for index in 0..self.peers.len() {
            while let Some(datagram) = self.peers[index].from_node.receive(now) {
                self.take_in(index, &datagram);
            }
        }
    }

    /// As a client does: answers by the session's key, media by the group's and its replay window.
    fn take_in(&mut self, index: usize, datagram: &[u8]) {
        let header = Header::parse(datagram).expect("a native datagram");
        let peer = &mut self.peers[index];
        if header.packet_type != PacketType::Media {
            peer.client.take_answer(datagram).expect("an answer to this client");
            return;
        }
        let window = peer.windows.entry(header.key_id).or_default();
        if window.check(header.counter) {
            window.accept(header.counter);
            let frames = self.world.open(datagram).into_iter();
            self.peers[index].heard.extend(frames.map(|frame| (frame.header.stream, frame.header.sequence)));
        }
    }
}

fn check(seed: u64, lossless: bool) {
    let mut simulation = Simulation::new(seed, lossless);
    let start = simulation.world.now;
    simulation.run(start + Micros::from_secs(4), start + Micros::from_secs(5));
    for peer in &simulation.peers {
        let heard: HashSet<_> = peer.heard.iter().copied().collect();
        assert_eq!(heard.len(), peer.heard.len(), "seed {seed}: a frame was heard twice");
        let others: HashSet<_> =
            simulation.spoken.iter().copied().filter(|(stream, _)| *stream != peer.client.stream).collect();
        assert!(heard.is_subset(&others), "seed {seed}: something was heard that nobody said, or an echo");
        if lossless {
            assert_eq!(heard.len(), others.len(), "seed {seed}: a frame was lost");
        }
    }
    let stats = simulation.world.stats();
    let lost = stats.total(Family::FramesDropped) - stats[Counter::FrameDuplicate];
    assert_eq!(lost, 0, "seed {seed}");
    assert_eq!(stats.total(Family::DatagramsDropped), stats[Counter::DroppedReplayed], "seed {seed}");
    let accepted: u64 = stats[Counter::FramesAccepted];
    assert!(accepted <= simulation.spoken.len() as u64);
    assert!(lossless || simulation.spoken.is_empty() || accepted > 0);
}

#[test]
fn a_network_that_loses_nothing_delivers_every_frame_exactly_once() {
    (0..200).for_each(|seed| check(seed, true));
}

#[test]
fn a_network_that_loses_some_delivers_every_frame_at_most_once() {
    (1_000..1_200).for_each(|seed| check(seed, false));
}
