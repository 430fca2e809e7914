//! Whatever is not a session's own sealed datagram is dropped: no answer, no effect.

use antiphon_core::{
    engine::{Counter, Engine, EngineConfig, Family},
    gateway::Cipher,
    ids::{KeyId, WorkerIndex},
    prng::Prng,
    seal::{Direction, Key},
    wire::datagram::{Header, PacketType},
};

use crate::world::{Client, World, address, channel_id, ms, streams};

/// A datagram that an attacker might send, from what they saw.
fn hostile(prng: &mut Prng, seen: &[Vec<u8>], session: u32) -> Vec<u8> {
    let mut datagram = seen[prng.below(seen.len() as u64) as usize].clone();
    match prng.below(7) {
        0 => {
            datagram.resize(prng.below(1_600) as usize, 0);
            prng.fill(&mut datagram);
        }
        1 => datagram.truncate(prng.below(datagram.len() as u64) as usize),
        2 => {
            let bit = prng.below(datagram.len() as u64 * 8) as usize;
            // Flags and reserved bytes are authenticated as well.
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        3 => datagram.resize(datagram.len() + 1 + prng.below(800) as usize, 7),
        // Sealed by somebody else's key.
        4 => {
            let packet_type = PacketType::ALL[prng.below(6) as usize];
            let header = Header { packet_type, key_id: KeyId::SESSION, id: session, counter: prng.next_u64() };
            let key = Key::new(Cipher::Aes128Gcm, &[0xee; 16]).expect("16 bytes");
            key.seal(Direction::ToNode, &header, &mut datagram, 16);
        }
        5 => datagram[..16].rotate_left(prng.below(16) as usize),
        // A replay.
        _ => {}
    }
    datagram
}

#[test]
fn garbage_is_neither_answered_nor_felt() {
    for seed in 0..20 {
        let mut prng = Prng::new(seed);
        let mut world = World::new(2, ms(2));
        let mut clients = world.room(0, channel_id(1), 3, Cipher::Aes128Gcm);
        let mut unbound = Client::new(98, Cipher::Aes128Gcm);
        world.add_session(&unbound);
        let ping = unbound.ping(world.now);
        world.send(&unbound, ping);
        let mut seen = Vec::new();
        for _ in 0..20 {
            let voice = clients[0].voice();
            seen.push(voice.clone());
            seen.push(clients[1].ping(world.now));
            seen.push(clients[1].bind(world.now));
            world.send(&clients[0], voice);
            world.advance(ms(20));
        }
        for datagram in seen.iter().filter(|datagram| datagram[0] & 0x0f != PacketType::Media as u8) {
            world.send(&clients[1], datagram.clone());
        }
        world.advance(ms(100));
        world.clear();
        let before = world.stats();
        let proven = world.count(Counter::SessionsProven);
        for _ in 0..5_000 {
            let datagram = hostile(&mut prng, &seen, clients[0].session.0);
            world.send_all([(address(6_666), datagram)]);
        }
        world.advance(ms(100));
        assert_eq!(world.take_sent(), [], "seed {seed}");
        let stats = world.stats();
        assert_eq!(stats.total(Family::DatagramsDropped) - before.total(Family::DatagramsDropped), 5_000);
        assert_eq!(world.count(Counter::SessionsProven), proven);
        let voice = clients[0].voice();
        world.send(&clients[0], voice);
        world.advance(ms(2));
        assert_eq!(streams(&world.heard(), &clients[2]), [clients[0].stream.0]);
    }
}

#[test]
fn every_datagram_is_counted_once_by_what_became_of_it() {
    let mut world = World::new(1, ms(2));
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    let before = world.stats();
    let client = &mut clients[0];
    let cut = client.seal(PacketType::Ping, &[0; 15]);
    let answer = client.seal(PacketType::Pong, &[0; 32]);
    let voice = client.voice();
    let mut stranger = voice.clone();
    stranger[4..8].copy_from_slice(&77_777_u32.to_be_bytes());
    let datagrams = [voice.clone(), voice, cut, answer, stranger, vec![0xc0; 20], vec![0x80; 40], vec![0xc1; 40]];
    let from = client.address;
    world.send_all(datagrams.map(|datagram| (from, datagram)));
    let after = world.stats();
    let grown: Vec<_> = Counter::ALL
        .iter()
        .filter(|counter| matches!(counter.family(), Family::DatagramsReceived | Family::DatagramsDropped))
        .filter(|counter| after[**counter] > before[**counter])
        .map(|counter| (counter.label(), after[*counter] - before[*counter]))
        .collect();
    let expected = [
        ("media", 1),
        ("too_short", 1),
        ("not_native", 1),
        ("type", 2),
        ("unknown_session", 1),
        ("replayed", 1),
        ("malformed", 1),
    ];
    assert_eq!(grown, expected);
}

#[test]
fn datagrams_above_the_nodes_limit_are_too_long() {
    let mut world = World::new(1, ms(2));
    world.engines[0] =
        Engine::new(EngineConfig { worker: WorkerIndex(0), hold: ms(2), datagram_bytes_max: 600, relayed: false });
    let mut clients = world.room(0, channel_id(1), 2, Cipher::Aes128Gcm);
    for bytes in [599, 600, 601, 1_500] {
        let mut padded = clients[0].voice();
        padded.resize(bytes, 0);
        world.send(&clients[0], padded);
    }
    assert_eq!(world.count(Counter::DroppedTooLong), 2);
    assert_eq!(world.stats().total(Family::DatagramsDropped), 4, "the others are not authentic");
}
