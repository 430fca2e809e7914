//! Nodes with relays on loopback, real sockets, people on all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon::media::{Media, MediaConfig, RelayConfig};
use antiphon_core::{
    engine::{Command, Counter, Event, Hears},
    ids::{ChannelId, NodeId, NodeNumber, StreamId, WorkerIndex},
    relay::{self, NodeInfo, RelayEvent, Versions},
    ring::Ring,
    wire::frame::FrameHeader,
};
use tokio::{sync::mpsc::Receiver, time::timeout};
use uuid::Uuid;

use crate::{PATIENCE, add_session, client::Client, join, open_this_channel, proven};

/// One 20 ms frame.
const FRAME: Duration = Duration::from_millis(20);

/// Said one after the other, each to be heard by all.
const FRAMES: u16 = 50;

struct Node {
    media: Media,
    events: Receiver<Event>,
    info: NodeInfo,
    home: WorkerIndex,
    client: Client,
}

fn start(index: u32, workers: u16) -> (Media, Receiver<Event>, NodeInfo) {
    let relay = Some(RelayConfig { bind: ([127, 0, 0, 1], 0).into(), secret: Arc::from(&b"of the cluster"[..]) });
    let (media, events) = Media::start(MediaConfig { workers, relay, ..MediaConfig::default() }).expect("starts");
    let info = NodeInfo {
        id: NodeId(format!("node-{index}")),
        number: NodeNumber(index + 1),
        started_at_us: 1_000 + u64::from(index),
        address: media.relay_addr().expect("a relay"),
        workers,
        versions: Versions::SPOKEN,
        capacity: 100,
        serving: true,
    };
    (media, events, info)
}

/// Nodes that know each other, each with somebody in one channel, which the first node owns.
async fn cluster(workers: &[u16]) -> (Vec<Node>, ChannelId) {
    let started: Vec<_> = workers.iter().zip(0..).map(|(workers, index)| start(index, *workers)).collect();
    let infos: Vec<_> = started.iter().map(|(_, _, info)| info.clone()).collect();
    let ring = Ring::new(1, infos.iter().map(|info| (&info.id, info.number, info.capacity)));
    let channel = std::iter::repeat_with(|| ChannelId(Uuid::now_v7()))
        .find(|channel| ring.owner(*channel) == Some(NodeNumber(1)))
        .expect("one of them");
    let mut nodes = Vec::new();
    for (media, mut events, info) in started {
        let peers: Arc<[_]> = infos.iter().filter(|other| other.id != info.id).cloned().collect();
        media.set_peers(1, &info, peers).await;
        let home = open_this_channel(&media, channel).await;
        // Streams are unique in the channel, whatever the node.
        let mut client = add_session(&media, 100 * info.number.0).await;
        join(&media, home, channel, &client).await;
        client.connect(media.now());
        proven(&mut events, 1).await;
        nodes.push(Node { media, events, info, home, client });
    }
    for node in &nodes {
        assert_eq!(node.home, relay::channel_worker(channel, node.info.workers));
        until(|| node.media.counters().relay[relay::Counter::ChannelsOpen] == 1).await;
    }
    until(|| nodes[0].media.counters().relay[relay::Counter::ChannelsOwned] == 1).await;
    (nodes, channel)
}

async fn until(condition: impl Fn() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    reached.await.expect("in time");
}

/// Everyone speaks until everyone has heard everyone, so that all know of each other; the next sequence number.
fn acquaint(nodes: &mut [Node], next: u16) -> u16 {
    let deadline = Instant::now() + PATIENCE;
    let streams: Vec<_> = nodes.iter().map(|node| node.client.stream).collect();
    let begun: Vec<usize> = nodes.iter().map(|node| node.client.heard.len()).collect();
    for sequence in next.. {
        nodes.iter_mut().for_each(|node| node.client.speak(sequence));
        nodes.iter_mut().for_each(|node| node.client.hear_for(FRAME));
        let hears_all = |(node, begun): (&Node, &usize)| {
            let mut others = streams.iter().filter(|stream| **stream != node.client.stream);
            others.all(|stream| node.client.heard[*begun..].iter().any(|frame| frame.stream == *stream))
        };
        if nodes.iter().zip(&begun).all(hears_all) {
            return sequence + 1;
        }
        assert!(Instant::now() < deadline, "everyone hears everyone in time");
    }
    unreachable!("the deadline is reached first")
}

/// Everyone says one frame; whether all hear the others'.
fn all_hear(nodes: &mut [Node], sequence: u16) -> bool {
    nodes.iter_mut().for_each(|node| node.client.speak(sequence));
    nodes.iter_mut().all(|node| {
        let own = node.client.stream;
        let complete = |heard: &[FrameHeader]| {
            heard.iter().filter(|frame| frame.stream != own && frame.sequence == sequence).count() == 2
        };
        node.client.hears_in_time(complete, Duration::from_secs(5))
    })
}

fn sequences(client: &Client, stream: StreamId, from: u16) -> Vec<u16> {
    let heard = client.heard.iter().filter(|frame| frame.stream == stream && frame.sequence >= from);
    heard.map(|frame| frame.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_on_different_nodes_hear_each_other_bit_by_bit() {
    let (mut nodes, _) = cluster(&[1, 2, 3]).await;
    // A machine that lets a worker stand still for as long as it takes to be given up loses frames rightly: then again.
    let mut next = 0;
    let first = (0..5).find_map(|_| {
        let first = acquaint(&mut nodes, next);
        next = first + FRAMES;
        (first..next).all(|sequence| all_hear(&mut nodes, sequence)).then_some(first)
    });
    let first = first.expect("heard in time");
    let streams: Vec<_> = nodes.iter().map(|node| node.client.stream).collect();
    for node in &nodes {
        for stream in streams.iter().filter(|stream| **stream != node.client.stream) {
            assert_eq!(sequences(&node.client, *stream, first), (first..first + FRAMES).collect::<Vec<_>>());
        }
        assert!(sequences(&node.client, node.client.stream, 0).is_empty(), "nobody hears themselves");
        node.media.stop().await;
        let counters = node.media.counters();
        assert!(counters.engine[Counter::FramesRemote] >= 2 * u64::from(FRAMES));
        assert_eq!(counters.relay[relay::Counter::DroppedNotAuthentic], 0);
        assert_eq!(counters.relay[relay::Counter::DroppedWrongWorker], 0, "the kernel steers by the worker in the id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_speaker_is_told_and_heard_without_udp() {
    let (mut nodes, channel) = cluster(&[1, 1]).await;
    let stream = StreamId(9_000);
    let flags = antiphon_core::engine::MemberFlags::default();
    let add = Command::AddMember { channel, stream, udp: None, hears: Hears::Streams, flags, last_sequence: None };
    nodes[1].media.send(nodes[1].home, add).await;
    acquaint(&mut nodes, 0);
    let speaker = nodes[0].client.stream;
    let (mut told, mut tunnelled) = (false, false);
    while !(told && tunnelled) {
        match timeout(PATIENCE, nodes[1].events.recv()).await.expect("in time").expect("the workers live") {
            Event::Speaking { stream, speaking: true, .. } => told |= stream == speaker,
            Event::Tunnel { header, bytes, .. } if header.stream == speaker => {
                assert_eq!(bytes.as_slice(), [8; 80]);
                tunnelled = true;
            }
            _ => {}
        }
    }
    for node in &nodes {
        node.media.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_silences_the_others_for_less_than_400_ms() {
    let (mut nodes, _) = cluster(&[1, 1, 1]).await;
    let mut told = nodes[2].media.take_relay_events().expect("taken once");
    assert!(nodes[2].media.take_relay_events().is_none());
    let first = acquaint(&mut nodes, 0);
    nodes[0].media.stop().await;
    let speaker = nodes[1].client.stream;
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    for sequence in first..first + 75 {
        nodes[1].client.speak(sequence);
        let begun = Instant::now();
        while begun.elapsed() < FRAME {
            let before = sequences(&nodes[2].client, speaker, first).len();
            nodes[2].client.hear_for(Duration::from_millis(2));
            if sequences(&nodes[2].client, speaker, first).len() > before {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
    }
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    assert!(last.elapsed() < Duration::from_millis(400));
    let lost = timeout(PATIENCE, async {
        loop {
            if let RelayEvent::PeerLost { node, .. } = told.recv().await.expect("the workers live") {
                return node;
            }
        }
    });
    assert_eq!(lost.await.expect("in time"), NodeNumber(1));
    for node in &nodes {
        node.media.stop().await;
    }
}

#[tokio::test]
async fn a_relay_port_in_use_and_too_many_workers_are_refused() {
    let (media, _events, info) = start(0, 2);
    let relay = Some(RelayConfig { bind: info.address, secret: Arc::from(&b"secret"[..]) });
    let again = MediaConfig { workers: 2, relay: relay.clone(), ..MediaConfig::default() };
    assert_eq!(Media::start(again).err().expect("refused").kind(), std::io::ErrorKind::AddrInUse);
    let many = MediaConfig { workers: 257, relay, ..MediaConfig::default() };
    assert!(Media::start(many).is_err());
    media.stop().await;
}
