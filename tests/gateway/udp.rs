//! The UDP side of a client, as plain as can be.

use std::{collections::HashMap, time::Duration};

use antiphon_core::{
    clock::Micros,
    gateway::{KeyRotated, UdpSetup},
    ids::{KeyId, StreamId},
    seal::{Direction, Key},
    wire::{
        control::{Answer, Bind, Ping, REPORT_BLOCK_BYTES, ReportBlock},
        datagram::{HEADER_BYTES, Header, PacketType},
        frame::{FrameHeader, Frames, write_frame},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::net::UdpSocket;

use crate::server::PATIENCE;

pub(crate) struct Udp {
    socket: UdpSocket,
    setup: UdpSetup,
    key: Key,
    /// By group and key id.
    groups: HashMap<(u32, KeyId), Key>,
    counter: u64,
}

/// A datagram of frames.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) key_id: KeyId,
    /// `None` when none of the keys opens it.
    pub(crate) frames: Option<Vec<(FrameHeader, Vec<u8>)>>,
}

impl Udp {
    pub(crate) async fn new(setup: &UdpSetup) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.connect(&setup.udp[0]).await.expect("connects");
        let key = |text: &str| Key::new(setup.cipher, &STANDARD.decode(text).expect("base64")).expect("a key");
        let group_key = ((setup.group_id.0, setup.group_key.key_id), key(&setup.group_key.key));
        Self {
            socket,
            key: key(&setup.session_key),
            groups: HashMap::from([group_key]),
            setup: setup.clone(),
            counter: 0,
        }
    }

    /// Bound, and proven in both directions.
    pub(crate) async fn connected(setup: &UdpSetup) -> Self {
        let mut udp = Self::new(setup).await;
        udp.bind().await;
        udp
    }

    pub(crate) fn rotate(&mut self, rotated: &KeyRotated) {
        let bytes = STANDARD.decode(&rotated.key).expect("base64");
        let key = Key::new(self.setup.cipher, &bytes).expect("a key");
        self.groups.insert((rotated.group_id.0, rotated.key_id), key);
    }

    async fn send(&mut self, packet_type: PacketType, plaintext: &[u8]) {
        let mut datagram = [0; 1_500];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.setup.session_id.0, counter: self.counter };
        self.counter += 1;
        let length = self.key.seal(Direction::ToNode, &header, &mut datagram, plaintext.len());
        self.socket.send(&datagram[..length]).await.expect("sends");
    }

    async fn bind(&mut self) {
        let mut plaintext = [0; 16];
        Bind { client_clock: Micros(1) }.write(&mut plaintext);
        self.send(PacketType::Bind, &plaintext).await;
        let answer = self.answer(PATIENCE).await.expect("a BindAck");
        Ping { client_clock: Micros(2), node_clock: answer.node_clock }.write(&mut plaintext);
        self.send(PacketType::Ping, &plaintext).await;
        self.answer(PATIENCE).await.expect("a Pong");
    }

    /// Whether a Ping is answered within some time.
    pub(crate) async fn is_served(&mut self, within: Duration) -> bool {
        let mut plaintext = [0; 16];
        Ping { client_clock: Micros(3), node_clock: Micros(0) }.write(&mut plaintext);
        self.send(PacketType::Ping, &plaintext).await;
        self.answer(within).await.is_some()
    }

    async fn answer(&mut self, within: Duration) -> Option<Answer> {
        let mut buffer = [0; 1_500];
        loop {
            let received = tokio::time::timeout(within, self.socket.recv(&mut buffer)).await.ok()?;
            let length = received.expect("receives");
            let header = Header::parse(&buffer[..length]).expect("a native datagram");
            if header.packet_type != PacketType::Media {
                let plaintext = self.key.open(Direction::FromNode, &header, &mut buffer[..length]).expect("authentic");
                return Some(Answer::parse(plaintext).expect("an answer"));
            }
        }
    }

    pub(crate) async fn speak(&mut self, stream: StreamId, sequence: u16, bytes: &[u8]) {
        let timestamp = u32::from(sequence) * 960;
        let header = FrameHeader { stream, sequence, timestamp, kind_flags: 0, level: 20 };
        let mut plaintext = [0; 1_400];
        let length = write_frame(&header, bytes, &mut plaintext).expect("fits");
        self.send(PacketType::Media, &plaintext[..length]).await;
    }

    /// Reports that so much of a stream was lost, of 100 frames received.
    pub(crate) async fn report(&mut self, stream: StreamId, lost: f32) {
        let block = ReportBlock {
            stream,
            lost_fraction: (lost * 65_536.0) as u16,
            round_trip_ms: 40,
            jitter_us: 2_000,
            received: 100,
        };
        let mut plaintext = [0; REPORT_BLOCK_BYTES];
        block.write(&mut plaintext);
        self.send(PacketType::Report, &plaintext).await;
    }

    /// The next datagram with frames.
    pub(crate) async fn media(&mut self) -> Media {
        tokio::time::timeout(PATIENCE, self.next_media()).await.expect("audio comes in time")
    }

    async fn next_media(&mut self) -> Media {
        let mut buffer = [0; 1_500];
        loop {
            let length = self.socket.recv(&mut buffer).await.expect("receives");
            let header = Header::parse(&buffer[..length]).expect("a native datagram");
            if header.packet_type != PacketType::Media {
                continue;
            }
            let key = self.groups.get(&(header.id, header.key_id));
            let opened = key.and_then(|key| key.open(Direction::FromNode, &header, &mut buffer[..length]));
            let frames =
                opened.map(|plain| Frames::new(plain).map(|(header, bytes)| (header, bytes.to_vec())).collect());
            return Media { key_id: header.key_id, frames };
        }
    }

    /// Nothing comes for a while.
    pub(crate) async fn stays_silent(&mut self) {
        let silence = tokio::time::timeout(Duration::from_millis(100), self.next_media());
        assert!(silence.await.is_err());
    }
}
