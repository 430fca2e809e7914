//! Datagrams that no node sent.

use std::{net::SocketAddr, sync::Arc};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, NodeId, NodeNumber, WorkerIndex},
    relay::{Counter, Family, NodeInfo, Output, Relay, RelayCommand, RelayConfig, RelayEvent, Versions},
    wire::frame::FrameHeader,
};
use proptest::prelude::*;

use crate::world::{SECRET, channel_id, ms};

#[derive(Default)]
struct Sink {
    sent: Vec<Vec<u8>>,
    delivered: usize,
}

impl Output for Sink {
    fn send(&mut self, _: SocketAddr, datagram: &[u8]) {
        self.sent.push(datagram.to_vec());
    }

    fn deliver(&mut self, _: ChannelId, _: &FrameHeader, _: &[u8]) {
        self.delivered += 1;
    }

    fn event(&mut self, _: RelayEvent) {}
}

fn info(number: u32) -> NodeInfo {
    NodeInfo {
        id: NodeId(format!("node-{number}")),
        number: NodeNumber(number),
        started_at_us: u64::from(number),
        address: ([10, 0, 0, 1], 3_003).into(),
        workers: 1,
        versions: Versions::SPOKEN,
        capacity: 100,
        serving: number == 1,
    }
}

fn relay(me: u32, peers: &[u32], secret: &[u8]) -> (Relay, Sink) {
    let mut relay = Relay::new(&RelayConfig { worker: WorkerIndex(0), secret: secret.into() });
    let mut sink = Sink::default();
    set_peers(&mut relay, me, peers, &mut sink);
    (relay, sink)
}

fn set_peers(relay: &mut Relay, me: u32, peers: &[u32], sink: &mut Sink) {
    let peers: Arc<[_]> = peers.iter().map(|number| info(*number)).collect();
    relay.command(ms(1), RelayCommand::SetPeers { epoch: 1, me: info(me), peers }, sink);
    relay.timeout(ms(1), sink);
}

/// The datagrams of a node that has opened a channel that node 1 owns, the frame of somebody on it included.
fn datagrams(secret: &[u8]) -> Vec<Vec<u8>> {
    let (mut edge, mut sink) = relay(2, &[1], secret);
    let channel = channel_id(1);
    edge.command(ms(2), RelayCommand::Open { channel, max_speakers: 0 }, &mut sink);
    edge.batch_end(ms(2), &mut sink);
    let stream = antiphon_core::ids::StreamId(1);
    let header = FrameHeader { stream, sequence: 0, timestamp: 0, kind_flags: 0, level: 20 };
    edge.local_frame(ms(3), channel, &header, &[7; 60], &mut sink);
    edge.batch_end(ms(3), &mut sink);
    sink.sent
}

#[test]
fn what_a_node_sent_is_taken_once() {
    let (mut owner, mut sink) = relay(1, &[2], SECRET);
    owner.command(ms(2), RelayCommand::Open { channel: channel_id(1), max_speakers: 0 }, &mut sink);
    for datagram in datagrams(SECRET) {
        owner.datagram(ms(3), &mut datagram.clone(), &mut sink);
        owner.datagram(ms(3), &mut datagram.clone(), &mut sink);
    }
    assert_eq!(sink.delivered, 1);
    assert_eq!(owner.stats()[Counter::DroppedReplayed], owner.stats()[Counter::DatagramsReceived]);
}

#[test]
fn a_node_that_was_forgotten_and_comes_back_replays_nothing_and_repeats_no_counter() {
    let (mut owner, mut sink) = relay(1, &[2], SECRET);
    owner.command(ms(2), RelayCommand::Open { channel: channel_id(1), max_speakers: 0 }, &mut sink);
    let sent = datagrams(SECRET);
    sent.iter().for_each(|datagram| owner.datagram(ms(3), &mut datagram.clone(), &mut sink));
    owner.batch_end(ms(3), &mut sink);
    set_peers(&mut owner, 1, &[3], &mut sink);
    sent.iter().for_each(|datagram| owner.datagram(ms(4), &mut datagram.clone(), &mut sink));
    assert_eq!(owner.stats()[Counter::DroppedUnknownPeer], sent.len() as u64);
    set_peers(&mut owner, 1, &[2, 3], &mut sink);
    sent.iter().for_each(|datagram| owner.datagram(ms(5), &mut datagram.clone(), &mut sink));
    assert_eq!((sink.delivered, owner.stats()[Counter::DroppedReplayed]), (1, sent.len() as u64));
}

/// A node that registers anew, with another start time, is another to all: no key of before is used again.
#[test]
fn a_node_that_registers_anew_has_new_keys_with_everyone() {
    let (mut owner, mut sink) = relay(1, &[2], SECRET);
    owner.command(ms(2), RelayCommand::Open { channel: channel_id(1), max_speakers: 0 }, &mut sink);
    let me = NodeInfo { started_at_us: 99, ..info(1) };
    let renew = |peers: &[u32]| {
        let peers = peers.iter().map(|number| info(*number)).collect();
        RelayCommand::SetPeers { epoch: 2, me: me.clone(), peers }
    };
    owner.command(ms(3), renew(&[]), &mut sink);
    owner.command(ms(3), renew(&[2]), &mut sink);
    let old = datagrams(SECRET);
    old.iter().for_each(|datagram| owner.datagram(ms(4), &mut datagram.clone(), &mut sink));
    assert_eq!(owner.stats()[Counter::DroppedNotAuthentic], old.len() as u64);
    let (mut edge, mut edge_sink) = relay(2, &[], SECRET);
    edge.command(ms(4), RelayCommand::SetPeers { epoch: 2, me: info(2), peers: [me].into() }, &mut edge_sink);
    edge.command(ms(4), RelayCommand::Open { channel: channel_id(1), max_speakers: 0 }, &mut edge_sink);
    edge.timeout(ms(4), &mut edge_sink);
    edge_sink.sent.iter().for_each(|datagram| owner.datagram(ms(5), &mut datagram.clone(), &mut sink));
    assert!(owner.stats()[Counter::DatagramsReceived] > 0);
    assert_eq!(owner.stats()[Counter::ChannelsOwned], 1);
}

#[test]
fn another_secret_opens_nothing_and_changes_nothing() {
    let (mut owner, mut sink) = relay(1, &[2], SECRET);
    for datagram in datagrams(b"another secret") {
        owner.datagram(ms(3), &mut datagram.clone(), &mut sink);
    }
    owner.batch_end(ms(3), &mut sink);
    assert_eq!(owner.stats()[Counter::ChannelsOwned], 0);
    assert_eq!(owner.stats()[Counter::DroppedNotAuthentic], owner.stats().total(Family::DatagramsDropped));
    for datagram in datagrams(SECRET) {
        owner.datagram(ms(4), &mut datagram.clone(), &mut sink);
    }
    assert_eq!(owner.stats()[Counter::ChannelsOwned], 1, "the windows were not moved");
}

proptest! {
    #[test]
    fn garbage_is_counted_and_answered_by_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..1_600),
        plausible in any::<bool>(),
    ) {
        let (mut owner, mut sink) = relay(1, &[2], SECRET);
        let mut bytes = bytes;
        if plausible && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&[0xc0, 0, 0, 0, 0, 0, 2, 0]);
        }
        owner.datagram(ms(2), &mut bytes, &mut sink);
        owner.batch_end(ms(2), &mut sink);
        prop_assert_eq!(owner.stats().total(Family::DatagramsDropped), 1);
        prop_assert_eq!((sink.sent.len(), sink.delivered), (0, 0));
        prop_assert_eq!(owner.poll_timeout(), None::<Micros>);
    }

    /// A bit that was changed on the way is noticed wherever it is.
    #[test]
    fn a_changed_bit_is_noticed(bit in any::<prop::sample::Index>()) {
        let (mut owner, mut sink) = relay(1, &[2], SECRET);
        for mut datagram in datagrams(SECRET) {
            let bit = bit.index(datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
            owner.datagram(ms(3), &mut datagram, &mut sink);
        }
        prop_assert_eq!(owner.stats()[Counter::DatagramsReceived], 0);
        prop_assert_eq!(sink.delivered, 0);
    }
}
