//! Engines, clients and everything between them, in virtual time.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use antiphon_core::{
    clock::Micros,
    engine::{
        Command, Counter, Engine, EngineConfig, EngineStats, Event, GatewayFrame, Handover, Hears, MemberFlags,
        MemberUdp, Output,
    },
    gateway::Cipher,
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId, WorkerIndex},
    seal::{Direction, Key},
    wire::{
        control::{Answer, Bind, Ping},
        datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, PacketType},
        frame::{FrameHeader, FrameKind, Frames, write_frame},
    },
};
use uuid::Uuid;

/// Audio that is no noise.
pub(crate) const LEVEL: u8 = 30;
/// The first byte of an Opus packet of one 20 ms frame.
const OPUS_20_MS: u8 = 1 << 3;

pub(crate) fn ms(count: u64) -> Micros {
    Micros::from_millis(count)
}

pub(crate) fn channel_id(number: u128) -> ChannelId {
    ChannelId(Uuid::from_u128(number))
}

pub(crate) fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// Keys of a test: each byte is the id.
fn key_bytes(cipher: Cipher, id: u32) -> Vec<u8> {
    vec![id as u8 ^ 0x5a; cipher.key_bytes()]
}

/// Remembers what an engine asks for.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) sent: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    pub(crate) handovers: VecDeque<(WorkerIndex, Handover)>,
    pub(crate) refuse_events: bool,
    pub(crate) refuse_handovers: bool,
    /// What was given to the relay.
    pub(crate) relayed: Vec<(FrameHeader, Vec<u8>)>,
    /// What was given to those who hear by WebRTC.
    pub(crate) given_to_peers: Vec<(FrameHeader, Vec<u8>)>,
    /// What was given to the mixer.
    pub(crate) given_to_mixer: Vec<FrameHeader>,
    /// Whether the mixer has room for nothing.
    pub(crate) refuse_mix: bool,
    /// What was given to the recorder.
    pub(crate) recorded: Vec<(FrameHeader, Vec<u8>)>,
    /// Whether the recorder has room for nothing.
    pub(crate) refuse_record: bool,
    /// Whom the relay does not select.
    pub(crate) silenced: Vec<StreamId>,
}

impl Output for Recorder {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
        self.sent.push_back((to, datagram.to_vec()));
    }

    fn fan_out(&mut self, datagram: &[u8], to: &[SocketAddr]) {
        for to in to {
            self.send(*to, datagram);
        }
    }

    fn event(&mut self, event: Event) -> bool {
        if !self.refuse_events {
            self.events.push(event);
        }
        !self.refuse_events
    }

    fn handover(&mut self, to: WorkerIndex, handover: Handover) -> bool {
        if !self.refuse_handovers {
            self.handovers.push_back((to, handover));
        }
        !self.refuse_handovers
    }

    fn peers(&mut self, _: ChannelId, header: &FrameHeader, bytes: &[u8]) {
        self.given_to_peers.push((*header, bytes.to_vec()));
    }

    fn mix(&mut self, _: Micros, _: ChannelId, header: &FrameHeader, _: &[u8]) -> bool {
        if !self.refuse_mix {
            self.given_to_mixer.push(*header);
        }
        !self.refuse_mix
    }

    fn record(&mut self, _: Micros, _: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        if !self.refuse_record {
            self.recorded.push((*header, bytes.to_vec()));
        }
        !self.refuse_record
    }

    fn relay(&mut self, _: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.relayed.push((*header, bytes.to_vec()));
        !self.silenced.contains(&header.stream)
    }
}

/// The frames of a mix's datagram.
pub(crate) type MixFrames = Vec<(FrameHeader, Vec<u8>)>;

/// A client's side of a UDP session.
pub(crate) struct Client {
    pub(crate) session: MediaSessionId,
    pub(crate) stream: StreamId,
    pub(crate) cipher: Cipher,
    pub(crate) address: SocketAddr,
    key: Key,
    counter: u64,
    pub(crate) sequence: u16,
    /// The node's clock from the last answer.
    pub(crate) node_clock: Micros,
}

impl Client {
    pub(crate) fn new(session: u32, cipher: Cipher) -> Self {
        Self {
            session: MediaSessionId(session),
            stream: StreamId(session * 10),
            cipher,
            address: address(u16::try_from(session).expect("a small id")),
            key: Key::new(cipher, &key_bytes(cipher, session)).expect("the cipher's length"),
            counter: 0,
            sequence: 0,
            node_clock: Micros::ZERO,
        }
    }

    pub(crate) fn seal(&mut self, packet_type: PacketType, plaintext: &[u8]) -> Vec<u8> {
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.session.0, counter: self.counter };
        self.counter += 1;
        let mut datagram = vec![0; HEADER_BYTES + plaintext.len() + 16];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
        self.key.seal(Direction::ToNode, &header, &mut datagram, plaintext.len());
        datagram
    }

    pub(crate) fn bind(&mut self, now: Micros) -> Vec<u8> {
        let mut plaintext = [0; 16];
        Bind { client_clock: now }.write(&mut plaintext);
        self.seal(PacketType::Bind, &plaintext)
    }

    pub(crate) fn ping(&mut self, now: Micros) -> Vec<u8> {
        let mut plaintext = [0; 16];
        Ping { client_clock: now, node_clock: self.node_clock }.write(&mut plaintext);
        self.seal(PacketType::Ping, &plaintext)
    }

    pub(crate) fn header(&mut self, kind_flags: u8, level: u8) -> FrameHeader {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let timestamp = u32::from(sequence) * 960;
        FrameHeader { stream: self.stream, sequence, timestamp, kind_flags, level }
    }

    pub(crate) fn media(&mut self, frames: &[(FrameHeader, &[u8])]) -> Vec<u8> {
        let mut plaintext = [0; DATAGRAM_BYTES_MAX];
        let mut length = 0;
        for (header, bytes) in frames {
            length += write_frame(header, bytes, &mut plaintext[length..]).expect("fits");
        }
        self.seal(PacketType::Media, &plaintext[..length])
    }

    /// A datagram of one usual frame, whose bytes say whose it is and which.
    pub(crate) fn voice(&mut self) -> Vec<u8> {
        let header = self.header(FrameKind::Audio as u8, LEVEL);
        self.media(&[(header, &voice_bytes(&header))])
    }

    /// Opens a datagram of the client's mix: its counter and its frames.
    pub(crate) fn open_mix(&self, datagram: &[u8]) -> Option<(u64, MixFrames)> {
        let mut bytes = datagram.to_vec();
        let header = Header::parse(&bytes).ok()?;
        let is_mix = header.id == self.session.0 && header.key_id == KeyId::SESSION;
        if !is_mix || header.packet_type != PacketType::Media {
            return None;
        }
        let plaintext = self.key.open(Direction::FromNode, &header, &mut bytes)?;
        Some((header.counter, Frames::new(plaintext).map(|(header, bytes)| (header, bytes.to_vec())).collect()))
    }

    /// Opens a BindAck or Pong and remembers its clock.
    pub(crate) fn take_answer(&mut self, datagram: &[u8]) -> Option<(PacketType, Answer)> {
        let mut bytes = datagram.to_vec();
        let header = Header::parse(&bytes).ok()?;
        if header.id != self.session.0 || header.key_id != KeyId::SESSION {
            return None;
        }
        let plaintext = self.key.open(Direction::FromNode, &header, &mut bytes)?;
        let answer = Answer::parse(plaintext)?;
        self.node_clock = self.node_clock.max(answer.node_clock);
        Some((header.packet_type, answer))
    }
}

pub(crate) fn voice_bytes(header: &FrameHeader) -> [u8; 80] {
    let mut bytes = [header.stream.0 as u8; 80];
    bytes[..2].copy_from_slice(&header.sequence.to_be_bytes());
    bytes
}

/// A frame as a listener received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: Micros,
    pub(crate) header: FrameHeader,
    pub(crate) bytes: Vec<u8>,
    /// How many frames shared its datagram, and how long that was.
    pub(crate) bundled: usize,
    pub(crate) datagram_bytes: usize,
    pub(crate) key_id: KeyId,
}

/// The engines of one node.
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) engines: Vec<Engine>,
    pub(crate) out: Vec<Recorder>,
    /// How long hand-overs take.
    pub(crate) handover_delay: Micros,
    under_way: VecDeque<(Micros, WorkerIndex, Handover)>,
    group_keys: HashMap<(GroupId, KeyId), (Key, u64)>,
}

impl World {
    pub(crate) fn new(workers: u16, hold: Micros) -> Self {
        let engine = |worker| {
            Engine::new(EngineConfig {
                worker: WorkerIndex(worker),
                hold,
                datagram_bytes_max: DATAGRAM_BYTES_MAX,
                relayed: false,
            })
        };
        Self {
            now: Micros::from_secs(100),
            engines: (0..workers).map(engine).collect(),
            out: (0..workers).map(|_| Recorder::default()).collect(),
            handover_delay: Micros::ZERO,
            under_way: VecDeque::new(),
            group_keys: HashMap::new(),
        }
    }

    pub(crate) fn worker_of(&self, session: MediaSessionId) -> usize {
        session.0 as usize % self.engines.len()
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let mut sum = EngineStats::default();
        self.engines.iter().for_each(|engine| sum += *engine.stats());
        sum
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.stats()[counter]
    }

    pub(crate) fn command(&mut self, worker: usize, command: Command) {
        self.engines[worker].command(self.now, command, &mut self.out[worker]);
        self.pass_on();
    }

    pub(crate) fn open_channel(&mut self, home: usize, channel: ChannelId, max_speakers: u32) {
        self.command(home, Command::OpenChannel { channel, max_speakers });
        for cipher in Cipher::ALL {
            self.set_group_key(home, channel, cipher, KeyId::FIRST, self.now);
        }
    }

    /// Groups are numbered by channel and cipher; keys by their id.
    pub(crate) fn group_id(channel: ChannelId, cipher: Cipher) -> GroupId {
        GroupId(channel.0.as_u128() as u32 * 2 + cipher as u32)
    }

    pub(crate) fn set_group_key(
        &mut self,
        home: usize,
        channel: ChannelId,
        cipher: Cipher,
        key_id: KeyId,
        activate_at: Micros,
    ) {
        let group = Self::group_id(channel, cipher);
        let key = key_bytes(cipher, group.0 + 7 * u32::from(key_id.0));
        self.group_keys.insert((group, key_id), (Key::new(cipher, &key).expect("the cipher's length"), 0));
        self.command(home, Command::SetGroupKey { channel, group, cipher, key_id, key: key.into(), activate_at });
    }

    /// A client joins by UDP; not bound yet.
    pub(crate) fn join(&mut self, home: usize, channel: ChannelId, client: &Client) {
        self.add_session(client);
        let udp = Some(self.member_udp(client));
        self.add_member(home, channel, client.stream, udp);
        self.attach(home, channel, client);
    }

    pub(crate) fn add_session(&mut self, client: &Client) {
        let worker = self.worker_of(client.session);
        let key = key_bytes(client.cipher, client.session.0);
        self.command(worker, Command::AddSession { session: client.session, cipher: client.cipher, key: key.into() });
    }

    pub(crate) fn member_udp(&self, client: &Client) -> MemberUdp {
        let worker = WorkerIndex(self.worker_of(client.session) as u16);
        MemberUdp { session: client.session, worker, cipher: client.cipher }
    }

    pub(crate) fn add_member(&mut self, home: usize, channel: ChannelId, stream: StreamId, udp: Option<MemberUdp>) {
        let flags = MemberFlags::default();
        self.command(
            home,
            Command::AddMember { channel, stream, udp, hears: Hears::Streams, flags, last_sequence: None },
        );
    }

    pub(crate) fn attach(&mut self, home: usize, channel: ChannelId, client: &Client) {
        let worker = self.worker_of(client.session);
        let home = WorkerIndex(home as u16);
        self.command(worker, Command::AttachStream { session: client.session, stream: client.stream, channel, home });
    }

    pub(crate) fn set_flags(&mut self, home: usize, channel: ChannelId, client: &Client, flags: MemberFlags) {
        self.command(home, Command::SetMemberFlags { channel, stream: client.stream, flags });
    }

    /// A frame over the gateway.
    pub(crate) fn gateway_frame(&mut self, home: usize, channel: ChannelId, stream: StreamId, frame: GatewayFrame) {
        self.command(home, Command::Frame { channel, stream, frame });
        self.batch_end();
    }

    /// Binds and proves a client.
    pub(crate) fn connect(&mut self, client: &mut Client) {
        let bind = client.bind(self.now);
        self.send(client, bind);
        self.take_answers(client);
        let ping = client.ping(self.now);
        self.send(client, ping);
        self.take_answers(client);
    }

    /// Clients in one channel of worker `home`, with session ids of that worker, connected.
    pub(crate) fn room(&mut self, home: usize, channel: ChannelId, clients: u32, cipher: Cipher) -> Vec<Client> {
        self.open_channel(home, channel, 0);
        let workers = self.engines.len() as u32;
        let mut clients: Vec<_> = (1..=clients).map(|n| Client::new(n * workers + home as u32, cipher)).collect();
        for client in &mut clients {
            self.join(home, channel, client);
            self.connect(client);
        }
        self.clear();
        clients
    }

    /// Forgets what was sent and told.
    pub(crate) fn clear(&mut self) {
        for out in &mut self.out {
            out.sent.clear();
            out.events.clear();
        }
    }

    /// A datagram arrives on its own.
    pub(crate) fn send(&mut self, client: &Client, datagram: Vec<u8>) {
        self.send_all([(client.address, datagram)]);
    }

    /// Datagrams arrive in one batch.
    pub(crate) fn send_all(&mut self, datagrams: impl IntoIterator<Item = (SocketAddr, Vec<u8>)>) {
        for (from, mut datagram) in datagrams {
            let id = datagram.get(4..8).map_or(0, |id| u32::from_be_bytes(id.try_into().expect("4 bytes")));
            let worker = self.worker_of(MediaSessionId(id));
            self.engines[worker].datagram(self.now, from, &mut datagram, &mut self.out[worker]);
        }
        self.pass_on();
        self.batch_end();
    }

    pub(crate) fn batch_end(&mut self) {
        for (engine, out) in self.engines.iter_mut().zip(&mut self.out) {
            engine.batch_end(self.now, out);
        }
        self.pass_on();
    }

    /// Hand-overs reach their workers, when their time has come.
    pub(crate) fn pass_on(&mut self) {
        loop {
            let arrival = self.now + self.handover_delay;
            for out in &mut self.out {
                self.under_way.extend(out.handovers.drain(..).map(|(to, handover)| (arrival, to, handover)));
            }
            let Some((_, to, handover)) = self.under_way.pop_front_if(|(at, ..)| *at <= self.now) else { return };
            let worker = usize::from(to.0);
            self.engines[worker].handover(self.now, handover, &mut self.out[worker]);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Micros> {
        let engines = self.engines.iter().filter_map(Engine::poll_timeout);
        engines.chain(self.under_way.front().map(|(at, ..)| *at)).min()
    }

    /// Time passes; what comes due happens on time.
    pub(crate) fn advance_to(&mut self, until: Micros) {
        while let Some(at) = self.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            for (engine, out) in self.engines.iter_mut().zip(&mut self.out) {
                engine.timeout(self.now, out);
            }
            self.pass_on();
            self.batch_end();
        }
        self.now = until;
    }

    pub(crate) fn advance(&mut self, by: Micros) {
        self.advance_to(self.now + by);
    }

    /// Everything sent so far, with where it went.
    pub(crate) fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.out.iter_mut().flat_map(|out| out.sent.drain(..)).collect()
    }

    pub(crate) fn take_answers(&mut self, client: &mut Client) -> Vec<(PacketType, Answer)> {
        let mut answers = Vec::new();
        for out in &mut self.out {
            out.sent.retain(|(to, datagram)| match client.take_answer(datagram).filter(|_| *to == client.address) {
                Some(answer) => {
                    answers.push(answer);
                    false
                }
                None => true,
            });
        }
        answers
    }

    /// Opens what was sent since the last call: what each address heard, in order. Panics on what does not open.
    pub(crate) fn heard(&mut self) -> HashMap<SocketAddr, Vec<Heard>> {
        let mut heard: HashMap<_, Vec<_>> = HashMap::new();
        for (to, datagram) in self.take_sent() {
            heard.entry(to).or_default().extend(self.open(&datagram));
        }
        heard
    }

    /// Opens a Media datagram with its group's key.
    pub(crate) fn open(&mut self, datagram: &[u8]) -> Vec<Heard> {
        let header = Header::parse(datagram).expect("a native datagram");
        assert_eq!(header.packet_type, PacketType::Media);
        let (key, _) = self.group_keys.get(&(GroupId(header.id), header.key_id)).expect("a known key");
        let mut bytes = datagram.to_vec();
        let plaintext = key.open(Direction::FromNode, &header, &mut bytes).expect("authentic");
        let mut frames = Frames::new(plaintext);
        let opened: Vec<_> = frames.by_ref().map(|(header, bytes)| (header, bytes.to_vec())).collect();
        assert!(frames.rest().is_empty());
        let bundled = opened.len();
        opened
            .into_iter()
            .map(|(frame, bytes)| Heard {
                at: self.now,
                header: frame,
                bytes,
                bundled,
                datagram_bytes: datagram.len(),
                key_id: header.key_id,
            })
            .collect()
    }

    /// What was told since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.out.iter_mut().flat_map(|out| out.events.drain(..)).collect()
    }
}

/// How many times each client heard each of the streams.
pub(crate) fn streams(heard: &HashMap<SocketAddr, Vec<Heard>>, client: &Client) -> Vec<u32> {
    heard.get(&client.address).into_iter().flatten().map(|heard| heard.header.stream.0).collect()
}

/// A frame from the gateway with everything given.
pub(crate) fn gateway_voice(sequence: u16) -> GatewayFrame {
    GatewayFrame {
        sequence: Some(sequence),
        timestamp: Some(u32::from(sequence) * 960),
        kind: FrameKind::Audio as u8,
        level: LEVEL,
        bytes: [&[OPUS_20_MS][..], &[7; 59]].concat(),
    }
}
