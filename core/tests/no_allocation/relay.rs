//! Nothing on a frame's way between nodes allocates: three nodes, a channel without and one with a limit.

use std::{net::SocketAddr, sync::Arc};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, NodeId, NodeNumber, StreamId, WorkerIndex},
    relay::{Counter, NodeInfo, Output, Relay, RelayCommand, RelayConfig, RelayEvent, Versions},
    wire::{
        datagram::DATAGRAM_BYTES_MAX,
        frame::{FrameHeader, FrameKind},
    },
};

use crate::{
    allocations,
    world::{channel_id, ms},
};

const NODES: u32 = 3;

/// Keeps what is sent in memory set aside beforehand.
struct Wire {
    sent: Vec<(u16, usize, [u8; DATAGRAM_BYTES_MAX])>,
    delivered: u64,
}

impl Output for Wire {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        let mut copy = [0; DATAGRAM_BYTES_MAX];
        copy[..datagram.len()].copy_from_slice(datagram);
        self.sent.push((to.port(), datagram.len(), copy));
    }

    fn deliver(&mut self, _: ChannelId, _: &FrameHeader, _: &[u8]) {
        self.delivered += 1;
    }

    fn event(&mut self, _: RelayEvent) {}
}

struct Cluster {
    now: Micros,
    relays: Vec<Relay>,
    wires: Vec<Wire>,
    carried: Vec<(u16, usize, [u8; DATAGRAM_BYTES_MAX])>,
}

impl Cluster {
    fn new() -> Self {
        let relay = |_| Relay::new(&RelayConfig { worker: WorkerIndex(0), secret: Arc::from(&b"secret"[..]) });
        let wire = |_| Wire { sent: Vec::with_capacity(100), delivered: 0 };
        let mut cluster = Self {
            now: Micros::from_secs(1),
            relays: (0..NODES).map(relay).collect(),
            wires: (0..NODES).map(wire).collect(),
            carried: Vec::with_capacity(100),
        };
        let nodes: Vec<_> = (0..NODES).map(info).collect();
        for index in 0..nodes.len() {
            let (me, peers) = (nodes[index].clone(), nodes.iter().filter(|node| node.id != nodes[index].id).cloned());
            cluster.command(index, RelayCommand::SetPeers { epoch: 1, me, peers: peers.collect() });
            for (channel, max_speakers) in [(1, 0), (2, 2)] {
                cluster.command(index, RelayCommand::Open { channel: channel_id(channel), max_speakers });
            }
        }
        (0..20).for_each(|_| cluster.pass(ms(10)));
        cluster
    }

    fn command(&mut self, index: usize, command: RelayCommand) {
        self.relays[index].command(self.now, command, &mut self.wires[index]);
        self.pass(ms(1));
    }

    /// Time passes, and what was sent arrives.
    fn pass(&mut self, time: Micros) {
        self.now = self.now + time;
        for _ in 0..3 {
            for (relay, wire) in self.relays.iter_mut().zip(&mut self.wires) {
                relay.batch_end(self.now, wire);
                relay.timeout(self.now, wire);
                self.carried.append(&mut wire.sent);
            }
            for (port, length, datagram) in &mut self.carried {
                let to = usize::from(*port);
                self.relays[to].datagram(self.now, &mut datagram[..*length], &mut self.wires[to]);
            }
            self.carried.clear();
        }
    }

    /// Everyone speaks in both channels for 20 ms; two of three are quiet in the second half of a second.
    fn step(&mut self, number: u16) {
        for index in 0..self.relays.len() {
            let kind = match number % 50 {
                48 => FrameKind::AudioStop,
                49 => FrameKind::Silence,
                _ => FrameKind::Audio,
            };
            let turn = index as u16 == number / 50 % 3;
            let level = if turn { 20 } else { 50 };
            for channel in [1, 2_u32] {
                let stream = StreamId(channel * 10 + index as u32);
                let header = FrameHeader { stream, sequence: number, timestamp: 0, kind_flags: kind as u8, level };
                let channel = channel_id(channel.into());
                self.relays[index].local_frame(self.now, channel, &header, &[8; 90], &mut self.wires[index]);
            }
        }
        self.pass(ms(20));
    }
}

fn info(number: u32) -> NodeInfo {
    NodeInfo {
        id: NodeId(format!("node-{number}")),
        number: NodeNumber(number + 1),
        started_at_us: u64::from(number),
        address: ([127, 0, 0, 1], number as u16).into(),
        workers: 1,
        versions: Versions::SPOKEN,
        capacity: 1,
        serving: true,
    }
}

#[test]
fn nothing_on_a_frames_way_between_nodes_allocates() {
    let mut cluster = Cluster::new();
    (0..200).for_each(|number| cluster.step(number));
    let made = allocations(|| (200..3_000).for_each(|number| cluster.step(number)));
    assert_eq!(made, 0);
    let total = |counter| cluster.relays.iter().map(|relay| relay.stats()[counter]).sum::<u64>();
    assert!(cluster.wires.iter().all(|wire| wire.delivered > 5_000));
    for counter in [Counter::SentToOwner, Counter::SentFromOwner, Counter::FrameNotSelected, Counter::DatagramsOfFour] {
        assert!(total(counter) > 100, "{counter:?}: {}", total(counter));
    }
}
