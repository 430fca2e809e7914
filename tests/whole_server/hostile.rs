//! A million hostile datagrams while two people talk: nothing answers them beyond three times their length, no memory
//! grows, and the two miss nothing of each other.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    gateway::{Cipher, UdpSetup},
    ids::{KeyId, StreamId},
    prng::Prng,
    seal::{Direction, Key},
    wire::{
        control::{Bind, REQUEST_BYTES},
        datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, PacketType},
        frame::{FrameHeader, write_frame},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    people::{Person, how_to_join, make_channel, number_of},
    process::Process,
};

const DATAGRAMS: u64 = 1_000_000;
/// What the attacker sends at most: more than a small machine's socket buffer can hold while other tests run beside
/// it would lose honest datagrams in the kernel, which is not what is tested here.
const DATAGRAMS_PER_BURST: u64 = 50;
const BURST_PAUSE: Duration = Duration::from_millis(1);
/// What a process may gain over a million datagrams: an allocator's slack, not a byte for each.
const GROWTH_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// An attacker: a session of its own that never binds but once, and what it knows of a victim.
struct Attacker {
    socket: UdpSocket,
    server: SocketAddr,
    random: Prng,
    own: u32,
    own_key: Key,
    own_stream: StreamId,
    victim: u32,
    wrong_key: Key,
    counter: u64,
    replayed: Vec<u8>,
}

impl Attacker {
    fn seal(&mut self, packet_type: PacketType, id: u32, own_key: bool, plaintext: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let header = Header { packet_type, key_id: KeyId::SESSION, id, counter: self.counter };
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
        let key = if own_key { &self.own_key } else { &self.wrong_key };
        let length = key.seal(Direction::ToNode, &header, &mut datagram, plaintext.len());
        datagram.truncate(length);
        datagram
    }

    fn media(&mut self, id: u32, own_key: bool) -> Vec<u8> {
        let header = FrameHeader { stream: self.own_stream, sequence: 1, timestamp: 960, kind_flags: 0, level: 10 };
        let mut plaintext = [0; 200];
        let length = write_frame(&header, &[7; 80], &mut plaintext).expect("it fits");
        self.seal(PacketType::Media, id, own_key, &plaintext[..length])
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes);
        bytes
    }

    fn next(&mut self, number: u64) -> Vec<u8> {
        let length = self.random.below(1_500) as usize;
        match number % 6 {
            0 => self.bytes(length),
            1 => {
                let mut native = self.bytes(length.max(20));
                native[0] = 0xc0;
                native[4..8].copy_from_slice(&self.victim.to_be_bytes());
                native
            }
            2 => {
                let mut truncated = self.media(self.victim, false);
                truncated.truncate(length % truncated.len());
                truncated
            }
            3 => self.media(self.victim, false),
            4 => self.media(self.own, true),
            _ => self.replayed.clone(),
        }
    }

    fn send(&self, datagram: &[u8]) {
        // A full buffer on our own side is the attacker's loss.
        let _ = self.socket.send_to(datagram, self.server);
    }

    /// Sends it all; how many bytes came back, and how long the one datagram was that deserved an answer.
    fn attack(mut self) -> (u64, u64) {
        let mut answered = 0;
        let mut buffer = [0; 2048];
        for number in 0..DATAGRAMS {
            let datagram = self.next(number);
            self.send(&datagram);
            if number % DATAGRAMS_PER_BURST == 0 {
                while let Ok(length) = self.socket.recv(&mut buffer) {
                    answered += length as u64;
                }
                std::thread::sleep(BURST_PAUSE);
            }
        }
        // One Bind at the end: the server still answers who is honest, and the answer is the only one.
        let mut bind = [0; REQUEST_BYTES];
        Bind { client_clock: Micros(1) }.write(&mut bind);
        let honest = self.seal(PacketType::Bind, self.own, true, &bind);
        self.socket.set_nonblocking(false).expect("blocking");
        self.socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        self.send(&honest);
        answered += self.socket.recv(&mut buffer).expect("an honest Bind is answered") as u64;
        (answered, honest.len() as u64)
    }
}

fn attacker(server: &Process, own: &UdpSetup, stream: StreamId, victim: &UdpSetup) -> Attacker {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("nonblocking");
    let key = STANDARD.decode(&own.session_key).expect("base64");
    let mut attacker = Attacker {
        socket,
        server: server.udp_address(),
        random: Prng::new(0xA77ACC),
        own: own.session_id.0,
        own_key: Key::new(Cipher::Aes128Gcm, &key).expect("16 bytes"),
        own_stream: stream,
        victim: victim.session_id.0,
        wrong_key: Key::new(Cipher::Aes128Gcm, &[9; 16]).expect("16 bytes"),
        counter: 0,
        replayed: Vec::new(),
    };
    attacker.replayed = attacker.media(attacker.own, true);
    attacker
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_datagrams_harm_nobody() {
    let server = Process::start(&[]).await;
    let channel = make_channel(&server, "under-attack", 10).await;
    let mut one = Person::join(&server, "one", channel).await;
    let mut two = Person::join(&server, "two", channel).await;
    one.udp_becomes(true).await;
    two.udp_becomes(true).await;

    // The attacker's own session joins by the gateway and never binds, so that its frames come too early.
    let mut outsider = super::people::raw_gateway(&server, "outsider").await;
    let joined = outsider.join(how_to_join(channel)).await;
    let own = joined.voice.udp.clone().expect("UDP");
    let victim = one.joined.voice.udp.clone().expect("UDP");
    let attacker = attacker(&server, &own, joined.voice.stream_id, &victim);

    let mut number = 0;
    for _ in 0..50 {
        exchange(&mut one, &mut two, &mut number).await;
    }
    let memory_before = server.resident_bytes();
    let over = Arc::new(AtomicBool::new(false));
    let attack = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let result = attacker.attack();
            over.store(true, Ordering::Relaxed);
            result
        }
    });
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !over.load(Ordering::Relaxed) {
        assert!(started.elapsed() < Duration::from_secs(300), "the attack ends");
        ticks.tick().await;
        exchange(&mut one, &mut two, &mut number).await;
    }
    let (answered, honest) = attack.join().expect("the attacker is done");
    let growth = server.resident_bytes().saturating_sub(memory_before);
    assert!(answered <= honest * 3, "{answered} bytes for {honest}");
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes more");
    assert!(number > 500, "the two talked all the while: {number}");
}

/// Each says a frame and hears the other's: nothing may be missing or come twice.
async fn exchange(one: &mut Person, two: &mut Person, number: &mut u32) {
    one.say(*number).await;
    two.say(*number).await;
    assert_eq!(number_of(&two.hear().await), *number);
    assert_eq!(number_of(&one.hear().await), *number);
    *number += 1;
}
