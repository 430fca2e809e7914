//! A client with a socket of its own, as plain as can be.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::Cipher,
    ids::{KeyId, MediaSessionId, StreamId},
    seal::{Direction, Key},
    wire::{
        control::{Answer, Bind, Ping},
        datagram::{HEADER_BYTES, Header, PacketType},
        frame::{FrameHeader, Frames, write_frame},
    },
};

pub(crate) fn session_key_bytes(session: MediaSessionId) -> Vec<u8> {
    vec![session.0 as u8; Cipher::Aes128Gcm.key_bytes()]
}

pub(crate) fn group_key_bytes() -> Vec<u8> {
    vec![0xaa; Cipher::Aes128Gcm.key_bytes()]
}

pub(crate) struct Client {
    pub(crate) session: MediaSessionId,
    pub(crate) stream: StreamId,
    /// Frames heard so far.
    pub(crate) heard: Vec<FrameHeader>,
    socket: UdpSocket,
    key: Key,
    group_key: Key,
    counter: u64,
}

impl Client {
    /// The stream's number is the session's.
    pub(crate) fn new(session: MediaSessionId, node: SocketAddr) -> Self {
        let key = |bytes: &[u8]| Key::new(Cipher::Aes128Gcm, bytes).expect("16 bytes");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        if node.is_ipv4() {
            socket.connect(node).expect("connects");
        }
        let (key, group_key) = (key(&session_key_bytes(session)), key(&group_key_bytes()));
        Self { session, stream: StreamId(session.0), heard: Vec::new(), socket, key, group_key, counter: 0 }
    }

    pub(crate) fn connect_to(&mut self, node: SocketAddr) {
        self.socket.connect(node).expect("connects");
    }

    fn send(&mut self, packet_type: PacketType, plaintext: &[u8]) {
        let mut datagram = [0; 1_500];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.session.0, counter: self.counter };
        self.counter += 1;
        let length = self.key.seal(Direction::ToNode, &header, &mut datagram, plaintext.len());
        self.socket.send(&datagram[..length]).expect("sends");
    }

    /// Binds, waits for the answer and echoes its clock. Binds again where there is none: the first may have come before
    /// the worker knew the session.
    pub(crate) fn connect(&mut self, now: Micros) {
        let mut plaintext = [0; 16];
        Bind { client_clock: now }.write(&mut plaintext);
        let answer = (0..100).find_map(|_| {
            self.send(PacketType::Bind, &plaintext);
            self.answer(Duration::from_millis(200))
        });
        let answer = answer.expect("an answer");
        assert_eq!(answer.client_clock, now);
        assert_eq!(answer.address, self.socket.local_addr().expect("bound"));
        Ping { client_clock: now, node_clock: answer.node_clock }.write(&mut plaintext);
        self.send(PacketType::Ping, &plaintext);
        self.answer(Duration::from_secs(20)).expect("an answer");
    }

    fn answer(&mut self, patience: Duration) -> Option<Answer> {
        let mut buffer = [0; 1_500];
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
        let length = self.socket.recv(&mut buffer).ok()?;
        let header = Header::parse(&buffer[..length]).expect("a native datagram");
        let plaintext = self.key.open(Direction::FromNode, &header, &mut buffer[..length]).expect("authentic");
        Some(Answer::parse(plaintext).expect("an answer"))
    }

    pub(crate) fn speak(&mut self, sequence: u16) {
        let timestamp = u32::from(sequence) * 960;
        let header = FrameHeader { stream: self.stream, sequence, timestamp, kind_flags: 0, level: 30 };
        let mut plaintext = [0; 100];
        let length = write_frame(&header, &[8; 80], &mut plaintext).expect("fits");
        self.send(PacketType::Media, &plaintext[..length]);
    }

    /// Receives until so many frames were heard in all.
    pub(crate) fn hear_until(&mut self, frames: usize, patience: Duration) {
        self.hear_until_that(|heard| heard.len() >= frames, patience);
    }

    /// Receives until what was heard in all satisfies `enough`.
    pub(crate) fn hear_until_that(&mut self, enough: impl Fn(&[FrameHeader]) -> bool, patience: Duration) {
        assert!(self.hears_in_time(enough, patience), "heard in time");
    }

    /// Likewise; false when that does not happen in time.
    pub(crate) fn hears_in_time(&mut self, enough: impl Fn(&[FrameHeader]) -> bool, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !enough(&self.heard) {
            if !self.hear_before(deadline) {
                return false;
            }
        }
        true
    }

    /// Receives for a while.
    pub(crate) fn hear_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.hear_before(deadline) {}
    }

    /// Receives one datagram, if one comes in time.
    fn hear_before(&mut self, deadline: Instant) -> bool {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a timeout");
        let mut buffer = [0; 1_500];
        let length = match self.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(error) => panic!("cannot receive: {error}"),
        };
        let header = Header::parse(&buffer[..length]).expect("a native datagram");
        assert_eq!(header.packet_type, PacketType::Media);
        let opened = self.group_key.open(Direction::FromNode, &header, &mut buffer[..length]).expect("authentic");
        for (header, bytes) in Frames::new(opened) {
            assert_eq!(bytes, [8; 80], "as it was spoken");
            self.heard.push(header);
        }
        true
    }
}
