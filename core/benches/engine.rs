//! What a frame costs a media worker beside the system calls, from its datagram to its listeners' addresses, and what
//! a join costs: `cargo bench -p antiphon-core --bench engine`.

use std::{cell::RefCell, net::SocketAddr};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Engine, EngineConfig, Event, Handover, Hears, MemberFlags, MemberUdp, Output},
    gateway::Cipher,
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId, WorkerIndex},
    seal::{Direction, Key},
    wire::{
        control::{Answer, Bind, Ping, REQUEST_BYTES},
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, PacketType},
        frame::{FRAME_HEADER_BYTES, FrameHeader, write_frame},
    },
};
use divan::{AllocProfiler, Bencher, black_box};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const WORKER: WorkerIndex = WorkerIndex(0);
/// Between two batches: the least that the engine's bound on a stream's frames allows.
const STEP: Micros = Micros(2_500);
/// Proofs last 15 s.
const PROVE_EVERY: Micros = Micros::from_secs(10);
/// Opus bytes of a frame.
const OPUS_BYTES: usize = 80;

fn main() {
    divan::main();
}

/// Keeps answers, and of the rest only that it happened.
#[derive(Default)]
struct Sink {
    answer: Vec<u8>,
    datagrams: u64,
}

impl Output for Sink {
    fn send(&mut self, _: SocketAddr, datagram: &[u8]) {
        self.datagrams += 1;
        self.answer.clear();
        self.answer.extend_from_slice(datagram);
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        black_box((datagram, to));
        self.datagrams += to.len() as u64;
    }

    fn event(&mut self, event: Event) -> bool {
        black_box(&event);
        true
    }

    fn handover(&mut self, _: WorkerIndex, _: Handover) -> bool {
        false
    }
}

/// A client's side of a UDP session.
struct Client {
    channel: ChannelId,
    session: MediaSessionId,
    cipher: Cipher,
    key: Key,
    counter: u64,
    sequence: u16,
}

impl Client {
    fn new(channel: ChannelId, session: u32, cipher: Cipher) -> Self {
        let key = Key::new(cipher, &vec![7; cipher.key_bytes()]).expect("the cipher's length");
        Self { channel, session: MediaSessionId(session), cipher, key, counter: 0, sequence: 0 }
    }

    fn stream(&self) -> StreamId {
        StreamId(self.session.0)
    }

    fn address(&self) -> SocketAddr {
        ([10, 0, (self.session.0 >> 8) as u8, self.session.0 as u8], 40_000).into()
    }

    fn seal(&mut self, packet_type: PacketType, plaintext: &[u8]) -> Vec<u8> {
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.session.0, counter: self.counter };
        self.counter += 1;
        let mut datagram = vec![0; DATAGRAM_BYTES_MIN + plaintext.len()];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
        self.key.seal(Direction::ToNode, &header, &mut datagram, plaintext.len());
        datagram
    }

    fn voice(&mut self) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let timestamp = u32::from(self.sequence) * 960;
        let header =
            FrameHeader { stream: self.stream(), sequence: self.sequence, timestamp, kind_flags: 0, level: 30 };
        let mut plaintext = [0; FRAME_HEADER_BYTES + OPUS_BYTES];
        write_frame(&header, &[8; OPUS_BYTES], &mut plaintext).expect("room for one frame");
        self.seal(PacketType::Media, &plaintext)
    }

    /// The commands that make this client a member.
    fn join(&self) -> [Command; 3] {
        let (channel, session, cipher) = (self.channel, self.session, self.cipher);
        let udp = Some(MemberUdp { session, worker: WORKER, cipher });
        let flags = MemberFlags::default();
        [
            Command::AddSession { session, cipher, key: vec![7; cipher.key_bytes()].into() },
            Command::AddMember {
                channel,
                stream: self.stream(),
                udp,
                hears: Hears::Streams,
                flags,
                last_sequence: None,
            },
            Command::AttachStream { session, stream: self.stream(), channel, home: WORKER },
        ]
    }

    fn leave(&self) -> [Command; 3] {
        let (session, stream) = (self.session, self.stream());
        [
            Command::RemoveMember { channel: self.channel, stream },
            Command::DetachStream { session, stream },
            Command::RemoveSession { session },
        ]
    }
}

/// A worker with channels whose members all hear by UDP.
struct Node {
    now: Micros,
    proven_at: Micros,
    engine: Engine,
    sink: Sink,
    clients: Vec<Client>,
}

impl Node {
    /// Clients follow each other by channel: one of each channel, then the next of each.
    fn new(channels: u32, members: u32, cipher: Cipher) -> Self {
        let ids: Vec<_> = (1..=channels).map(|channel| ChannelId(Uuid::from_u128(channel.into()))).collect();
        let channel_of = |client: u32| ids[(client % channels) as usize];
        let mut node = Self {
            now: Micros::from_secs(100),
            proven_at: Micros::ZERO,
            engine: Engine::new(EngineConfig {
                worker: WORKER,
                hold: Micros::ZERO,
                datagram_bytes_max: DATAGRAM_BYTES_MAX,
                relayed: false,
            }),
            sink: Sink::default(),
            clients: (0..channels * members).map(|n| Client::new(channel_of(n), n + 1, cipher)).collect(),
        };
        for (group, &channel) in (1..).map(GroupId).zip(&ids) {
            node.command(Command::OpenChannel { channel, max_speakers: 0 });
            let (key_id, key, activate_at) = (KeyId::FIRST, vec![9; cipher.key_bytes()].into(), node.now);
            node.command(Command::SetGroupKey { channel, group, cipher, key_id, key, activate_at });
        }
        let joins: Vec<_> = node.clients.iter().flat_map(Client::join).collect();
        joins.into_iter().for_each(|command| node.command(command));
        node.prove();
        node
    }

    fn command(&mut self, command: Command) {
        self.engine.command(self.now, command, &mut self.sink);
    }

    /// Binds everyone and has them echo the node's clock.
    fn prove(&mut self) {
        let Self { now, engine, sink, clients, .. } = self;
        for client in clients {
            let mut plaintext = [0; REQUEST_BYTES];
            Bind { client_clock: *now }.write(&mut plaintext);
            engine.datagram(*now, client.address(), &mut client.seal(PacketType::Bind, &plaintext), sink);
            let header = Header::parse(&sink.answer).expect("a BindAck");
            let answer = client.key.open(Direction::FromNode, &header, &mut sink.answer).expect("authentic");
            let node_clock = Answer::parse(answer).expect("an answer").node_clock;
            Ping { client_clock: *now, node_clock }.write(&mut plaintext);
            engine.datagram(*now, client.address(), &mut client.seal(PacketType::Ping, &plaintext), sink);
        }
        engine.batch_end(*now, sink);
        self.proven_at = self.now;
    }

    /// Lets time pass, and yields the datagrams that come next.
    fn next_batch(&mut self, speakers: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        self.now = self.now + STEP;
        self.engine.timeout(self.now, &mut self.sink);
        if self.now - self.proven_at > PROVE_EVERY {
            self.prove();
        }
        self.clients[..speakers].iter_mut().map(|client| (client.address(), client.voice())).collect()
    }

    fn take_batch(&mut self, batch: &mut [(SocketAddr, Vec<u8>)]) {
        for (from, datagram) in batch {
            self.engine.datagram(self.now, *from, datagram, &mut self.sink);
        }
        self.engine.batch_end(self.now, &mut self.sink);
    }
}

/// One batch of one frame from each speaker: opened, checked, bundled, sealed, handed to the socket for all members.
/// The time is the whole batch's; each speaker's own variant is in it.
#[divan::bench(args = [(2, 1), (8, 1), (8, 4), (200, 1), (200, 4), (200, 10), (200, 20), (200, 60), (2000, 10)])]
fn route(bencher: Bencher<'_, '_>, (members, speakers): (u32, usize)) {
    route_with(bencher, Cipher::Aes128Gcm, members, speakers);
}

/// One of each of 1,000 channels of eight speaks at once: what a worker finds in no cache.
#[divan::bench]
fn route_a_thousand_channels(bencher: Bencher<'_, '_>) {
    const CHANNELS: u32 = 1_000;
    let node = RefCell::new(Node::new(CHANNELS, 8, Cipher::Aes128Gcm));
    let before = node.borrow().sink.datagrams;
    let mut batch = node.borrow_mut().next_batch(CHANNELS as usize);
    node.borrow_mut().take_batch(&mut batch);
    assert_eq!(node.borrow().sink.datagrams - before, 7 * u64::from(CHANNELS));
    bencher
        .with_inputs(|| node.borrow_mut().next_batch(CHANNELS as usize))
        .bench_local_refs(|batch| node.borrow_mut().take_batch(batch));
}

/// The same with the other cipher.
#[divan::bench(args = [(200, 1), (200, 10)])]
fn route_chacha20(bencher: Bencher<'_, '_>, (members, speakers): (u32, usize)) {
    route_with(bencher, Cipher::ChaCha20Poly1305, members, speakers);
}

fn route_with(bencher: Bencher<'_, '_>, cipher: Cipher, members: u32, speakers: usize) {
    let node = RefCell::new(Node::new(1, members, cipher));
    let mut batch = node.borrow_mut().next_batch(speakers);
    let before = node.borrow().sink.datagrams;
    node.borrow_mut().take_batch(&mut batch);
    let sent = node.borrow().sink.datagrams - before;
    let expected = u64::from(members - u32::from(speakers == 1));
    assert!(sent >= expected && (speakers > 10 || sent == expected), "everyone hears somebody else: {sent}");
    bencher
        .with_inputs(|| node.borrow_mut().next_batch(speakers))
        .bench_local_refs(|batch| node.borrow_mut().take_batch(batch));
}

/// Somebody joins a channel of so many, and leaves it.
#[divan::bench(args = [1, 100, 10_000])]
fn join_and_leave(bencher: Bencher<'_, '_>, members: u32) {
    let node = RefCell::new(Node::new(1, members, Cipher::Aes128Gcm));
    let guest = Client::new(node.borrow().clients[0].channel, members + 1, Cipher::Aes128Gcm);
    bencher
        .with_inputs(|| guest.join().into_iter().chain(guest.leave()).collect::<Vec<_>>())
        .bench_local_values(|commands| commands.into_iter().for_each(|command| node.borrow_mut().command(command)));
}
