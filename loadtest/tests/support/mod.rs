//! A node in virtual time, built from the core's own wire types, and the clients and networks around it.
//!
//! It does what docs/protocol.md, 2, asks of a node with one worker and one channel: opens, answers, forwards, seals,
//! keeps the proof of the way to each member, and tunnels where that is missing.

use std::collections::VecDeque;

use antiphon_core::{
    clock::Micros,
    gateway::{AudioBytes, AudioData, AudioFrame, Cipher, GroupKeySetup, KeyRotated, UdpSetup, VoiceSetup},
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId, UserId},
    netsim::{Network, NetworkConfig},
    replay::ReplayWindow,
    seal::{Direction, Key},
    wire::{
        control::{ANSWER_BYTES_MAX, Answer, Bind, Ping, ReportBlock, report_blocks},
        datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, PacketType, TAG_BYTES},
        frame::{FrameHeader, FrameKind, Frames, write_frame},
    },
};
use antiphon_loadtest::voice::{Heard, OutgoingFrame, Sent, UdpCounters, VoiceOutput, VoiceSession};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use uuid::Uuid;

const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(0xC));
const GROUP: GroupId = GroupId(90);
const PROOF_AGE_MAX: Micros = Micros::from_secs(15);
/// The node's clock is far ahead of the clients', so that confusing the two cannot go unnoticed.
const NODE_CLOCK_AHEAD: Micros = Micros::from_secs(86_400);

pub(crate) fn ms(count: u64) -> Micros {
    Micros::from_millis(count)
}

/// What a client heard.
pub(crate) struct HeardFrame {
    pub(crate) at: Micros,
    pub(crate) sequence: u16,
    pub(crate) kind: Option<FrameKind>,
}

enum ToClient {
    Audio(AudioFrame),
    Started,
    Rotated(KeyRotated),
}

struct Client {
    voice: VoiceSession,
    up: Network<Vec<u8>>,
    down: Network<Vec<u8>>,
    gateway_up: Network<AudioData>,
    gateway_down: VecDeque<(Micros, ToClient)>,
    heard: Vec<HeardFrame>,
    tunnelled: usize,
    next_frame: Option<(Micros, u64, u64)>,
}

struct Member {
    session: MediaSessionId,
    stream: StreamId,
    key: Key,
    window: ReplayWindow,
    next_counter: u64,
    bound: bool,
    /// Node clocks from this one on prove the way to the member.
    proof_from: Micros,
    proven_until: Option<Micros>,
}

struct GroupSeal {
    key_id: KeyId,
    key: Key,
    next_counter: u64,
}

/// The whole arrangement.
pub(crate) struct Simulation {
    now: Micros,
    clients: Vec<Client>,
    members: Vec<Member>,
    seal: GroupSeal,
    next_seal: Option<(Micros, GroupSeal)>,
    old_seal: Option<GroupSeal>,
    reports: Vec<ReportBlock>,
}

impl Simulation {
    pub(crate) fn new(network: &NetworkConfig, seed: u64) -> Self {
        let mut this = Self {
            now: Micros::ZERO,
            clients: Vec::new(),
            members: Vec::new(),
            seal: group_seal(KeyId::FIRST),
            next_seal: None,
            old_seal: None,
            reports: Vec::new(),
        };
        for index in 0..2_u8 {
            let session_key = [index + 1; 16];
            let mut voice = VoiceSession::new();
            voice.join(Micros::ZERO, CHANNEL, &setup(index, &session_key)).expect("usable keys");
            let seed = seed * 10 + u64::from(index);
            let gateway = NetworkConfig { delay: ms(25), ..NetworkConfig::default() };
            this.clients.push(Client {
                voice,
                up: Network::new(network.clone(), seed),
                down: Network::new(network.clone(), seed + 2),
                gateway_up: Network::new(gateway, 0),
                gateway_down: VecDeque::new(),
                heard: Vec::new(),
                tunnelled: 0,
                next_frame: None,
            });
            this.members.push(Member {
                session: MediaSessionId(u32::from(index) + 500),
                stream: StreamId(u32::from(index) + 1),
                key: Key::new(Cipher::Aes128Gcm, &session_key).expect("16 bytes"),
                window: ReplayWindow::new(),
                next_counter: 0,
                bound: false,
                proof_from: Micros::ZERO,
                proven_until: None,
            });
        }
        this
    }

    pub(crate) fn heard(&self, client: usize) -> &[HeardFrame] {
        &self.clients[client].heard
    }

    pub(crate) fn tunnelled_to(&self, client: usize) -> usize {
        self.clients[client].tunnelled
    }

    pub(crate) fn udp_works(&self, client: usize) -> bool {
        self.clients[client].voice.udp_works()
    }

    pub(crate) fn udp_counters(&self, client: usize) -> UdpCounters {
        self.clients[client].voice.udp_counters()
    }

    pub(crate) fn reports(&self) -> &[ReportBlock] {
        &self.reports
    }

    pub(crate) fn block_up(&mut self, client: usize, blocked: bool) {
        self.clients[client].up.set_blocked(blocked);
    }

    pub(crate) fn block_down(&mut self, client: usize, blocked: bool) {
        self.clients[client].down.set_blocked(blocked);
    }

    /// Speaks for `span` from now on, 50 frames a second, and then says so.
    pub(crate) fn speak(&mut self, client: usize, span: Micros) {
        self.clients[client].next_frame = Some((self.now, 0, span.0 / 20_000));
        let at = self.now + ms(40);
        for (index, other) in self.clients.iter_mut().enumerate() {
            if index != client {
                other.gateway_down.push_back((at, ToClient::Started));
            }
        }
    }

    /// Leaves and joins again; the node gives out the same session and stream.
    pub(crate) fn rejoin(&mut self, client: usize) {
        let voice = &mut self.clients[client].voice;
        voice.leave(CHANNEL);
        let index = u8::try_from(client).expect("two clients");
        voice.join(self.now, CHANNEL, &setup(index, &[index + 1; 16])).expect("usable keys");
        let stream = self.members[client].stream;
        self.clients.iter_mut().for_each(|other| other.voice.forget(stream));
    }

    /// Announces the next group key and seals with it 200 ms later.
    pub(crate) fn rotate(&mut self) {
        let key_id = self.seal.key_id.next();
        let rotated =
            KeyRotated { channel_id: CHANNEL, group_id: GROUP, key_id, key: STANDARD.encode(group_key_bytes(key_id)) };
        for client in &mut self.clients {
            client.gateway_down.push_back((self.now + ms(25), ToClient::Rotated(rotated.clone())));
        }
        self.next_seal = Some((self.now + ms(200), group_seal(key_id)));
    }

    /// A Media datagram as the node would send it now.
    pub(crate) fn sealed_media(&mut self) -> Vec<u8> {
        self.seal.media(&[(stray_frame(), vec![1, 2, 3])])
    }

    /// A Media datagram sealed with the key before the last rotation.
    pub(crate) fn stale_media(&mut self) -> Vec<u8> {
        self.old_seal.as_mut().expect("rotated").media(&[(stray_frame(), vec![1, 2, 3])])
    }

    /// Whether the client accepts a datagram.
    pub(crate) fn opens(&mut self, client: usize, mut datagram: Vec<u8>) -> bool {
        self.clients[client].voice.datagram(self.now, &mut datagram, |_| {}).is_ok()
    }

    /// Lets a millisecond at a time pass.
    pub(crate) fn run_until(&mut self, until: Micros) {
        while self.now < until {
            self.now = self.now + ms(1);
            if self.next_seal.as_ref().is_some_and(|(at, _)| *at <= self.now) {
                let (_, next) = self.next_seal.take().expect("just seen");
                self.old_seal = Some(std::mem::replace(&mut self.seal, next));
            }
            for index in 0..self.clients.len() {
                self.step_client(index);
                self.step_node(index);
            }
        }
    }

    fn step_client(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        client.speak_due(now);
        let mut heard = Vec::new();
        let note =
            |frame: Heard<'_>| HeardFrame { at: now, sequence: frame.header.sequence, kind: frame.header.kind() };
        while let Some(mut datagram) = client.down.receive(now) {
            let _dropped = client.voice.datagram(now, &mut datagram, |frame| heard.push(note(frame)));
        }
        while client.gateway_down.front().is_some_and(|(at, _)| *at <= now) {
            match client.gateway_down.pop_front().expect("just seen").1 {
                ToClient::Audio(frame) => {
                    client.tunnelled += 1;
                    heard.extend(client.voice.tunnelled(now, &frame).map(note));
                }
                ToClient::Started => client.voice.announced(now),
                ToClient::Rotated(rotated) => client.voice.rotate(now, &rotated).expect("usable key"),
            }
        }
        client.heard.extend(heard);
        if client.voice.poll_timeout().is_some_and(|at| at <= now) {
            client.voice.timeout(now);
        }
        while let Some(output) = client.voice.poll_output() {
            match output {
                VoiceOutput::Datagram(datagram) => client.up.send(now, datagram),
                VoiceOutput::Tunnel(audio) => client.gateway_up.send(now, audio),
                VoiceOutput::UdpWorks(_) => {}
            }
        }
    }

    fn step_node(&mut self, index: usize) {
        while let Some(datagram) = self.clients[index].up.receive(self.now) {
            self.node_datagram(index, datagram);
        }
        while let Some(audio) = self.clients[index].gateway_up.receive(self.now) {
            let header = FrameHeader {
                stream: self.members[index].stream,
                sequence: audio.sequence.expect("the client numbers"),
                timestamp: audio.timestamp.expect("the client's clock"),
                kind_flags: audio.kind.expect("a kind"),
                level: audio.level.expect("a level"),
            };
            let member = &mut self.members[index];
            (member.proof_from, member.proven_until) = (self.now + NODE_CLOCK_AHEAD, None);
            self.forward(index, &[(header, audio.data.0)]);
        }
    }

    fn node_datagram(&mut self, index: usize, mut datagram: Vec<u8>) {
        let clock = self.now + NODE_CLOCK_AHEAD;
        let header = Header::parse(&datagram).expect("clients send nothing malformed");
        let member = &mut self.members[index];
        assert_eq!(header.id, member.session.0);
        if !member.window.check(header.counter) {
            return;
        }
        let plaintext = member.key.open(Direction::ToNode, &header, &mut datagram).expect("authentic").to_vec();
        member.window.accept(header.counter);
        match header.packet_type {
            PacketType::Bind => {
                member.bound = true;
                (member.proof_from, member.proven_until) = (clock, None);
                let client_clock = Bind::parse(&plaintext).expect("a Bind").client_clock;
                self.answer(index, PacketType::BindAck, client_clock);
            }
            PacketType::Ping => {
                let ping = Ping::parse(&plaintext).expect("a Ping");
                if ping.node_clock >= member.proof_from && (clock - ping.node_clock) < PROOF_AGE_MAX {
                    member.proven_until = Some(ping.node_clock + PROOF_AGE_MAX);
                }
                self.answer(index, PacketType::Pong, ping.client_clock);
            }
            PacketType::Media => {
                assert!(member.bound, "no media before a Bind");
                let frames: Vec<_> = Frames::new(&plaintext).map(|(header, bytes)| (header, bytes.to_vec())).collect();
                assert!(frames.iter().all(|(header, _)| header.stream == member.stream));
                self.forward(index, &frames);
            }
            PacketType::Report => self.reports.extend(report_blocks(&plaintext)),
            PacketType::BindAck | PacketType::Pong => panic!("a client sends no {:?}", header.packet_type),
        }
    }

    fn answer(&mut self, index: usize, packet_type: PacketType, client_clock: Micros) {
        let address = "192.0.2.1:4000".parse().expect("an address");
        let answer = Answer { client_clock, node_clock: self.now + NODE_CLOCK_AHEAD, address };
        let mut plaintext = [0; ANSWER_BYTES_MAX];
        let length = answer.write(&mut plaintext);
        let member = &mut self.members[index];
        let header = Header { packet_type, key_id: KeyId::SESSION, id: member.session.0, counter: member.next_counter };
        member.next_counter += 1;
        let datagram = sealed(&member.key, &header, &plaintext[..length]);
        self.clients[index].down.send(self.now, datagram);
    }

    fn forward(&mut self, from: usize, frames: &[(FrameHeader, Vec<u8>)]) {
        let clock = self.now + NODE_CLOCK_AHEAD;
        for index in (0..self.clients.len()).filter(|index| *index != from) {
            if self.members[index].proven_until.is_some_and(|until| until > clock) {
                let datagram = self.seal.media(frames);
                self.clients[index].down.send(self.now, datagram);
                continue;
            }
            for (header, bytes) in frames {
                let audio = AudioFrame {
                    channel_id: CHANNEL,
                    user_id: UserId(Uuid::from_u128(from as u128)),
                    stream_id: header.stream,
                    data: AudioBytes(bytes.clone()),
                    sequence: header.sequence,
                    timestamp: header.timestamp,
                    kind: header.kind_flags,
                    level: header.level,
                };
                self.clients[index].gateway_down.push_back((self.now + ms(25), ToClient::Audio(audio)));
            }
        }
    }
}

impl Client {
    fn speak_due(&mut self, now: Micros) {
        let Some((at, frame, last)) = self.next_frame.filter(|(at, ..)| *at <= now) else { return };
        let kind = match frame {
            0 => FrameKind::AudioStart,
            _ if frame == last => FrameKind::AudioStop,
            _ => FrameKind::Audio,
        };
        let bytes: &[u8] = if kind == FrameKind::AudioStop { &[] } else { &[0xF8, 1, 2, 3] };
        let outgoing = OutgoingFrame { kind, flags: 0, level: 30, timestamp: frame as u32 * 960, bytes };
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        match self.voice.send(now, CHANNEL, &outgoing, &mut datagram).expect("joined") {
            Sent::Datagram(length) => self.up.send(now, datagram[..length].to_vec()),
            Sent::Tunnel(audio) => self.gateway_up.send(now, audio),
        }
        self.next_frame = (frame < last).then_some((at + ms(20), frame + 1, last));
    }
}

impl GroupSeal {
    fn media(&mut self, frames: &[(FrameHeader, Vec<u8>)]) -> Vec<u8> {
        let mut plaintext = [0; DATAGRAM_BYTES_MAX];
        let mut length = 0;
        for (header, bytes) in frames {
            length += write_frame(header, bytes, &mut plaintext[length..]).expect("short frames");
        }
        let header =
            Header { packet_type: PacketType::Media, key_id: self.key_id, id: GROUP.0, counter: self.next_counter };
        self.next_counter += 1;
        sealed(&self.key, &header, &plaintext[..length])
    }
}

fn sealed(key: &Key, header: &Header, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_BYTES + plaintext.len() + TAG_BYTES];
    datagram[HEADER_BYTES..][..plaintext.len()].copy_from_slice(plaintext);
    key.seal(Direction::FromNode, header, &mut datagram, plaintext.len());
    datagram
}

fn stray_frame() -> FrameHeader {
    FrameHeader { stream: StreamId(77), sequence: 0, timestamp: 0, kind_flags: 0, level: 30 }
}

fn group_key_bytes(key_id: KeyId) -> [u8; 16] {
    [key_id.0 + 100; 16]
}

fn group_seal(key_id: KeyId) -> GroupSeal {
    let key = Key::new(Cipher::Aes128Gcm, &group_key_bytes(key_id)).expect("16 bytes");
    GroupSeal { key_id, key, next_counter: 0 }
}

fn setup(index: u8, session_key: &[u8]) -> VoiceSetup {
    VoiceSetup {
        mix_stream_id: None,
        stream_id: StreamId(u32::from(index) + 1),
        udp: Some(UdpSetup {
            session_id: MediaSessionId(u32::from(index) + 500),
            group_id: GROUP,
            udp: vec!["192.0.2.9:3002".to_owned()],
            cipher: Cipher::Aes128Gcm,
            session_key: STANDARD.encode(session_key),
            group_key: GroupKeySetup { key_id: KeyId::FIRST, key: STANDARD.encode(group_key_bytes(KeyId::FIRST)) },
            ping_ms: 5_000,
        }),
    }
}
