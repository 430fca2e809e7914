//! Nothing on a frame's way allocates: counted by the allocator itself.
#![expect(unsafe_code, reason = "a global allocator is unsafe by its trait; this one only counts")]

#[expect(dead_code, reason = "of the engine tests' world, only the clients are needed here")]
#[path = "../engine/world.rs"]
mod world;

mod relay;
mod voice;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::VecDeque,
    net::SocketAddr,
};

use antiphon_core::{
    clock::Micros,
    engine::{
        Command, Counter, Engine, EngineConfig, Event, Family, Handover, Hears, MemberFlags, MemberUdp, MixedFrame,
        Output,
    },
    gateway::Cipher,
    ids::{ChannelId, GroupId, KeyId, StreamId, WorkerIndex},
    mix::MixTo,
    wire::{
        datagram::{DATAGRAM_BYTES_MAX, PacketType},
        frame::{FrameHeader, FrameKind},
    },
};
use world::{Client, LEVEL, channel_id, ms};

/// So many members hear a mix.
const MIXED: usize = 4;

struct Counting;

thread_local! {
    /// Allocations of this thread while it counts; `None` while it does not.
    static ALLOCATIONS: Cell<Option<u64>> = const { Cell::new(None) };
}

fn note() {
    // A thread that ends has no counter any more.
    _ = ALLOCATIONS.try_with(|count| count.set(count.get().map(|count| count + 1)));
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates or frees.
fn allocations(work: impl FnOnce()) -> u64 {
    ALLOCATIONS.set(Some(0));
    work();
    ALLOCATIONS.take().expect("it was counting")
}

/// Takes everything and keeps what must be passed on in memory set aside beforehand.
struct Sink {
    datagrams: u64,
    events: u64,
    handovers: VecDeque<(WorkerIndex, Handover)>,
}

impl Output for Sink {
    fn send(&mut self, _: SocketAddr, _: &[u8]) {
        self.datagrams += 1;
    }

    fn fan_out(&mut self, _: &[u8], to: &[SocketAddr]) {
        self.datagrams += to.len() as u64;
    }

    fn event(&mut self, _: Event) -> bool {
        self.events += 1;
        true
    }

    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool {
        self.handovers.push_back((to, handover));
        true
    }

    fn mix(&mut self, _: Micros, _: ChannelId, _: &FrameHeader, _: &[u8]) -> bool {
        true
    }

    fn record(&mut self, _: Micros, _: ChannelId, _: &FrameHeader, _: &[u8]) -> bool {
        true
    }
}

struct Node {
    now: Micros,
    engines: [Engine; 2],
    sinks: [Sink; 2],
}

impl Node {
    fn new() -> Self {
        let engine = |worker| {
            Engine::new(EngineConfig {
                worker: WorkerIndex(worker),
                hold: ms(2),
                datagram_bytes_max: DATAGRAM_BYTES_MAX,
                relayed: false,
            })
        };
        let sink = || Sink { datagrams: 0, events: 0, handovers: VecDeque::with_capacity(1_000) };
        Self { now: Micros::from_secs(1), engines: [engine(0), engine(1)], sinks: [sink(), sink()] }
    }

    fn command(&mut self, worker: usize, command: Command) {
        self.engines[worker].command(self.now, command, &mut self.sinks[worker]);
        self.pass_on();
    }

    /// Frames of three members on other nodes, each twice.
    fn remote(&mut self, number: u16) {
        for stream in [8_001, 8_002, 8_003].map(StreamId).into_iter().cycle().take(6) {
            let kind_flags = if number % 40 < 30 { FrameKind::Audio } else { FrameKind::Silence } as u8;
            let header = FrameHeader { stream, sequence: number, timestamp: 0, kind_flags, level: LEVEL };
            self.engines[0].remote_frame(self.now, channel_id(1), &header, &[9; 70], &mut self.sinks[0]);
        }
    }

    /// The mixer's packet for the members who hear a mix.
    fn mixed(&mut self, clients: &[Client], number: u16) {
        let to = |client: &Client| MixTo {
            member: client.stream,
            mix: StreamId(client.stream.0 + 1),
            sequence: number,
            kind: FrameKind::Audio,
        };
        let to: [MixTo; MIXED] = std::array::from_fn(|index| to(&clients[clients.len() - 1 - index]));
        let frame = MixedFrame { channel: channel_id(1), to: &to, timestamp: 0, level: LEVEL, bytes: &[9; 80] };
        self.engines[0].mixed(self.now, &frame, &mut self.sinks[0]);
    }

    fn pass_on(&mut self) {
        for from in 0..2 {
            while let Some((to, handover)) = self.sinks[from].handovers.pop_front() {
                let to = usize::from(to.0);
                self.engines[to].handover(self.now, handover, &mut self.sinks[to]);
            }
        }
    }

    fn datagram(&mut self, client: &Client, datagram: &mut [u8]) {
        let worker = client.session.0 as usize % 2;
        self.engines[worker].datagram(self.now, client.address, datagram, &mut self.sinks[worker]);
    }

    fn batch_end(&mut self) {
        self.pass_on();
        for (engine, sink) in self.engines.iter_mut().zip(&mut self.sinks) {
            engine.batch_end(self.now, sink);
            engine.timeout(self.now, sink);
        }
    }

    fn sent(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.datagrams).sum()
    }
}

/// A channel in worker 0 with members of both workers and ciphers, one of them without UDP, and at most three speakers.
fn join(node: &mut Node, clients: &mut [Client]) {
    let channel = channel_id(1);
    node.command(0, Command::OpenChannel { channel, max_speakers: 3 });
    for cipher in Cipher::ALL {
        let (group, key) = (GroupId(cipher as u32), vec![1; cipher.key_bytes()].into());
        let activate_at = node.now;
        node.command(0, Command::SetGroupKey { channel, group, cipher, key_id: KeyId::FIRST, key, activate_at });
    }
    node.command(0, Command::SetRecorded { channel, recorded: true });
    let streams_for = clients.len() - MIXED;
    for (index, client) in clients.iter_mut().enumerate() {
        let (session, stream, cipher) = (client.session, client.stream, client.cipher);
        let worker = session.0 as usize % 2;
        node.command(
            worker,
            Command::AddSession { session, cipher, key: vec![session.0 as u8 ^ 0x5a; cipher.key_bytes()].into() },
        );
        let udp = Some(MemberUdp { session, worker: WorkerIndex(worker as u16), cipher });
        let flags = MemberFlags::default();
        let hears = if index < streams_for { Hears::Streams } else { Hears::Mix };
        node.command(0, Command::AddMember { channel, stream, udp, hears, flags, last_sequence: None });
        node.command(worker, Command::AttachStream { session, stream, channel, home: WorkerIndex(0) });
        let mut bind = client.bind(node.now);
        node.datagram(client, &mut bind);
        client.node_clock = node.now;
        let mut ping = client.ping(node.now);
        node.datagram(client, &mut ping);
    }
    let flags = MemberFlags::default();
    node.command(
        0,
        Command::AddMember {
            channel,
            stream: StreamId(9_999),
            udp: None,
            hears: Hears::Streams,
            flags,
            last_sequence: None,
        },
    );
    node.batch_end();
}

/// What the clients send in one 20 ms step: voice, comfort noise, stops, pings, reports, and an attacker's garbage.
fn step(clients: &mut [Client], number: u64, now: Micros) -> Vec<(usize, Vec<u8>)> {
    let mut datagrams = Vec::new();
    for (index, client) in clients.iter_mut().enumerate().take(8) {
        let kind = match (number + index as u64) % 50 {
            0..30 => FrameKind::Audio,
            30 => FrameKind::AudioStop,
            _ => FrameKind::Silence,
        };
        let header = client.header(kind as u8, LEVEL + index as u8);
        let voice = client.media(&[(header, &[8; 90])]);
        datagrams.push((index, voice.clone()));
        datagrams.push((index, voice));
    }
    let turn = number as usize % clients.len();
    datagrams.push((turn, clients[turn].ping(now)));
    // The Pong's clock is the time it is sent.
    clients[turn].node_clock = now;
    datagrams.push((turn, clients[turn].seal(PacketType::Report, &[0; 48])));
    let garbage = vec![0xc0; 60 + turn];
    datagrams.push((turn, garbage));
    datagrams
}

#[test]
fn nothing_on_a_frames_way_allocates() {
    let mut node = Node::new();
    let ciphers = Cipher::ALL;
    let mut clients: Vec<_> = (1..=40).map(|id| Client::new(id, ciphers[id as usize / 2 % 2])).collect();
    join(&mut node, &mut clients);
    assert!(allocations(|| drop(vec![1])) >= 2, "the allocator counts");
    node.remote(u16::MAX);
    let mut made = 0;
    for number in 0..2_000 {
        node.now = node.now + ms(20);
        let now = node.now;
        let mut datagrams = step(&mut clients, number, now);
        made += allocations(|| {
            for (index, datagram) in &mut datagrams {
                node.datagram(&clients[*index], datagram);
            }
            node.remote(number as u16);
            node.mixed(&clients, number as u16);
            node.batch_end();
            for _ in 0..4 {
                node.now = node.now + ms(1);
                node.batch_end();
            }
        });
        node.now = now;
    }
    assert_eq!(made, 0);
    let mut stats = *node.engines[0].stats();
    stats += *node.engines[1].stats();
    assert!(node.sent() > 50_000, "{}", node.sent());
    assert!(node.sinks[0].events > 1_000);
    for counter in [
        Counter::FramesHandedOver,
        Counter::FramesTunnelled,
        Counter::FramesRemote,
        Counter::FramesToMixer,
        Counter::FramesToRecorder,
        Counter::FramesMixed,
        Counter::FrameNotSelected,
        Counter::FrameSurplusSilence,
        Counter::DroppedReplayed,
        Counter::DroppedUnknownSession,
        Counter::AnswersSent,
        Counter::ReportReceived,
    ] {
        assert!(stats[counter] > 0, "{counter:?} was not exercised");
    }
    assert!(stats[Counter::DatagramsOfFour] > 0 && stats.total(Family::FramesDropped) > 0);
}
