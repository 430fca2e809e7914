//! Properties of everything that reads or writes datagrams: no bytes make a parser panic, and what is written is
//! read back.

use std::net::{IpAddr, SocketAddr};

use antiphon_core::{
    clock::Micros,
    gateway::Cipher,
    ids::{KeyId, StreamId},
    opus_packet,
    prng::Prng,
    seal::{Direction, Key},
    wire::{
        control::{
            ANSWER_BYTES_MAX, Answer, Bind, Ping, REPORT_BLOCK_BYTES, REQUEST_BYTES, ReportBlock, report_blocks,
        },
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, PacketType, is_native},
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameWriter, Frames, LEVEL_SILENCE, write_frame},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..2_000)
}

/// Bytes that begin like a native datagram, so that parsing gets past the first byte.
fn native_bytes() -> impl Strategy<Value = Vec<u8>> {
    (192..=255_u8, any_bytes()).prop_map(|(first, mut bytes)| {
        bytes.insert(0, first);
        bytes
    })
}

fn header() -> impl Strategy<Value = Header> {
    (select(&PacketType::ALL[..]), any::<(u8, u32, u64)>()).prop_map(|(packet_type, (key_id, id, counter))| Header {
        packet_type,
        key_id: KeyId(key_id),
        id,
        counter,
    })
}

fn frame_header() -> impl Strategy<Value = FrameHeader> {
    (any::<(u32, u16, u32, u8)>(), 0..=LEVEL_SILENCE).prop_map(|((stream, sequence, timestamp, kind_flags), level)| {
        FrameHeader { stream: StreamId(stream), sequence, timestamp, kind_flags, level }
    })
}

fn frames() -> impl Strategy<Value = Vec<(FrameHeader, Vec<u8>)>> {
    vec((frame_header(), vec(any::<u8>(), 0..200)), 0..12)
}

fn report_block() -> impl Strategy<Value = ReportBlock> {
    any::<(u32, u16, u16, u32, u32)>().prop_map(|(stream, lost_fraction, round_trip_ms, jitter_us, received)| {
        ReportBlock { stream: StreamId(stream), lost_fraction, round_trip_ms, jitter_us, received }
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    select(&[Direction::ToNode, Direction::FromNode][..])
}

fn key(cipher: Cipher, seed: u64) -> Key {
    let mut bytes = vec![0; cipher.key_bytes()];
    Prng::new(seed).fill(&mut bytes);
    Key::new(cipher, &bytes).expect("the cipher's length")
}

fn seal(key: &Key, direction: Direction, header: &Header, plaintext: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; DATAGRAM_BYTES_MIN + plaintext.len()];
    datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(plaintext);
    let length = key.seal(direction, header, &mut datagram, plaintext.len());
    assert_eq!(length, datagram.len());
    datagram
}

proptest! {
    #[test]
    fn a_header_is_read_only_from_what_can_be_a_datagram(bytes in prop_oneof![any_bytes(), native_bytes()]) {
        let Ok(header) = Header::parse(&bytes) else { return Ok(()) };
        prop_assert!((DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&bytes.len()));
        prop_assert!(is_native(bytes[0]));
        let mut written = [0; HEADER_BYTES];
        header.write(&mut written);
        // Flags and reserved are the two bytes that a reader ignores and a writer zeroes.
        written[1..3].copy_from_slice(&bytes[1..3]);
        prop_assert_eq!(&written[..], &bytes[..HEADER_BYTES]);
    }

    #[test]
    fn headers_round_trip(header in header(), length in DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX) {
        let mut datagram = vec![0; length];
        header.write(datagram.first_chunk_mut().expect("room for a header"));
        prop_assert_eq!(Header::parse(&datagram), Ok(header));
    }

    #[test]
    fn any_bytes_are_frames_and_a_rest(bytes in any_bytes()) {
        let mut frames = Frames::new(&bytes);
        let mut rewritten = Vec::new();
        for (header, body) in frames.by_ref() {
            let at = rewritten.len();
            rewritten.resize(at + FRAME_HEADER_BYTES + body.len(), 0);
            prop_assert_eq!(write_frame(&header, body, &mut rewritten[at..]), Some(rewritten.len() - at));
            // The level is the one field that is read as less than it says.
            prop_assert_eq!(rewritten[at + 11], bytes[at + 11].min(LEVEL_SILENCE));
            rewritten[at + 11] = bytes[at + 11];
        }
        rewritten.extend_from_slice(frames.rest());
        prop_assert_eq!(rewritten, bytes);
    }

    #[test]
    fn frames_round_trip(frames in frames(), capacity in 0..1_500_usize) {
        let mut out = vec![0; capacity];
        let mut writer = FrameWriter::new(&mut out);
        let fitted: Vec<_> = frames.iter().filter(|(header, bytes)| writer.push(header, bytes)).collect();
        let length = writer.len();
        let read: Vec<_> = Frames::new(&out[..length]).map(|(header, bytes)| (header, bytes.to_vec())).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), fitted);
    }

    #[test]
    fn control_messages_are_read_from_any_bytes(bytes in vec(any::<u8>(), 0..64)) {
        let long_enough = bytes.len() >= REQUEST_BYTES;
        prop_assert_eq!(Bind::parse(&bytes).is_some(), long_enough);
        prop_assert_eq!(Ping::parse(&bytes).is_some(), long_enough);
        prop_assert_eq!(report_blocks(&bytes).count(), bytes.len() / REPORT_BLOCK_BYTES);
        if let Some(answer) = Answer::parse(&bytes) {
            let mut out = [0; ANSWER_BYTES_MAX];
            let length = answer.write(&mut out);
            // An IPv4 address that came in IPv6's form goes on in its own.
            if answer.address.ip() == answer.address.ip().to_canonical() {
                prop_assert_eq!(&out[..length], &bytes[..length]);
            }
        }
    }

    #[test]
    fn control_messages_round_trip(client in any::<u64>(), node in any::<u64>(), ip in any::<IpAddr>(), port in any::<u16>()) {
        let (client_clock, node_clock) = (Micros(client), Micros(node));
        let mut out = [0; REQUEST_BYTES];
        let bind = Bind { client_clock };
        bind.write(&mut out);
        prop_assert_eq!(Bind::parse(&out), Some(bind));
        let ping = Ping { client_clock, node_clock };
        ping.write(&mut out);
        prop_assert_eq!(Ping::parse(&out), Some(ping));
        let answer = Answer { client_clock, node_clock, address: SocketAddr::new(ip.to_canonical(), port) };
        let mut out = [0; ANSWER_BYTES_MAX];
        let length = answer.write(&mut out);
        prop_assert_eq!(Answer::parse(&out[..length]), Some(answer));
    }

    #[test]
    fn reports_round_trip(blocks in vec(report_block(), 0..91)) {
        let written: Vec<u8> = blocks.iter().flat_map(|block| {
            let mut out = [0; REPORT_BLOCK_BYTES];
            block.write(&mut out);
            out
        }).collect();
        prop_assert_eq!(report_blocks(&written).collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn fractions_of_loss_are_shares(lost in any::<u32>(), expected in any::<u32>()) {
        let fraction = f64::from(ReportBlock::fraction(lost, expected)) / 65_536.0;
        let share = if expected == 0 { 0.0 } else { (f64::from(lost) / f64::from(expected)).min(1.0) };
        prop_assert!((fraction - share).abs() <= 1.0 / 65_536.0, "{fraction} of {share}");
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_and_direction_alone(
        cipher in select(&Cipher::ALL[..]),
        (header, direction) in (header(), direction()),
        plaintext in vec(any::<u8>(), 0..=DATAGRAM_BYTES_MAX - DATAGRAM_BYTES_MIN),
    ) {
        let datagram = seal(&key(cipher, 1), direction, &header, &plaintext);
        prop_assert_eq!(Header::parse(&datagram), Ok(header));
        let opened = |seed, direction| {
            let mut copy = datagram.clone();
            key(cipher, seed).open(direction, &header, &mut copy).map(|text| text.to_vec())
        };
        let other = if direction == Direction::ToNode { Direction::FromNode } else { Direction::ToNode };
        prop_assert_eq!(opened(1, direction), Some(plaintext));
        prop_assert_eq!(opened(2, direction), None);
        prop_assert_eq!(opened(1, other), None);
    }

    #[test]
    fn random_bytes_are_never_opened(cipher in select(&Cipher::ALL[..]), header in header(), bytes in any_bytes()) {
        let mut datagram = bytes;
        prop_assert!(key(cipher, 1).open(Direction::ToNode, &header, &mut datagram).is_none());
    }

    #[test]
    fn opus_packets_are_told_from_any_bytes(bytes in any_bytes()) {
        if opus_packet::validate(&bytes).is_ok() {
            let samples = opus_packet::duration_samples(&bytes);
            prop_assert!(samples.is_ok_and(|samples| (120..=opus_packet::SAMPLES_MAX).contains(&samples)));
        }
        if opus_packet::duration_samples(&bytes).is_err() {
            prop_assert!(opus_packet::validate(&bytes).is_err());
        }
    }
}

/// Valid datagrams, changed as a hostile network or a broken sender would: none may be opened, none may panic, and
/// whatever is sealed by somebody who has the key is read without panic.
#[test]
fn mutated_datagrams_are_dropped() {
    let mut prng = Prng::new(0x5eed);
    let mut opened_unchanged = 0;
    for round in 0..40_000_u64 {
        let cipher = Cipher::ALL[prng.below(2) as usize];
        let key = key(cipher, 7);
        let header = Header {
            packet_type: PacketType::ALL[prng.below(6) as usize],
            key_id: KeyId(prng.below(3) as u8),
            id: prng.below(5) as u32,
            counter: round,
        };
        let datagram = seal(&key, Direction::ToNode, &header, &hostile_plaintext(&mut prng));
        let mut mutated = mutate(&mut prng, &datagram);
        let unchanged = mutated == datagram;
        let Ok(header) = Header::parse(&mutated) else { continue };
        let opened = key.open(Direction::ToNode, &header, &mut mutated);
        assert_eq!(opened.is_some(), unchanged, "round {round}: only what was sent is authentic");
        opened_unchanged += u64::from(unchanged);
        if let Some(plaintext) = opened {
            read_everything(plaintext);
        }
    }
    assert!(opened_unchanged > 1_000, "the mutations leave some unchanged: {opened_unchanged}");
}

/// Frames or noise, cut and flipped.
fn hostile_plaintext(prng: &mut Prng) -> Vec<u8> {
    let mut out = vec![0; 400];
    let mut writer = FrameWriter::new(&mut out);
    for number in 0..prng.below(4) {
        let header = FrameHeader {
            stream: StreamId(number as u32),
            sequence: prng.next_u64() as u16,
            timestamp: prng.next_u64() as u32,
            kind_flags: prng.next_u64() as u8,
            level: prng.next_u64() as u8,
        };
        let length = prng.below(90) as usize;
        assert!(writer.push(&header, &[0xfc; 90][..length]));
    }
    let length = writer.len() + prng.below(20) as usize;
    out.truncate(length);
    mutate(prng, &out)
}

/// The same bytes, or with bits flipped, cut off, repeated or lengthened.
fn mutate(prng: &mut Prng, bytes: &[u8]) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    let at = |prng: &mut Prng, length: usize| prng.below(length.max(1) as u64) as usize;
    match prng.below(6) {
        0 => {}
        1 => mutated.truncate(at(prng, bytes.len())),
        2 => mutated.extend_from_slice(&bytes[at(prng, bytes.len()).min(bytes.len())..]),
        3 => mutated.resize(bytes.len() + at(prng, 1_500), prng.next_u64() as u8),
        4 => {
            let (from, to) = (at(prng, bytes.len()), at(prng, bytes.len()));
            mutated.copy_within(from.min(to)..from.max(to), 0);
        }
        _ => {
            for _ in 0..=prng.below(8) {
                let at = at(prng, bytes.len());
                if let Some(byte) = mutated.get_mut(at) {
                    *byte ^= 1 << prng.below(8);
                }
            }
        }
    }
    mutated
}

fn read_everything(plaintext: &[u8]) {
    for (header, bytes) in Frames::new(plaintext) {
        assert!(header.level <= LEVEL_SILENCE);
        if header.allows(bytes) && !bytes.is_empty() {
            let _ = opus_packet::validate(bytes);
        }
    }
    let _ = (Bind::parse(plaintext), Ping::parse(plaintext), Answer::parse(plaintext));
    assert_eq!(report_blocks(plaintext).count(), plaintext.len() / REPORT_BLOCK_BYTES);
}
