//! Golden bytes: what is sealed here is what other implementations seal from docs/protocol.md.
//!
//! `golden/datagrams.txt` was made by another AEAD implementation in another language (`golden/make.py`). A test
//! that fails here means that clients in the field no longer understand the server.

use std::net::SocketAddr;

use antiphon_core::{
    clock::Micros,
    gateway::Cipher,
    ids::{KeyId, StreamId},
    seal::{Direction, Key},
    wire::{
        control::{ANSWER_BYTES_MAX, Answer, Bind, Ping, REPORT_BLOCK_BYTES, REQUEST_BYTES, ReportBlock},
        datagram::{DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, PacketType},
        frame::{FrameHeader, FrameKind, FrameWriter, Frames},
    },
};

const SESSION: u32 = 0x0a0b_0c0d;
const GROUP: u32 = 0x0102;
const SPEECH: [u8; 10] = [0x48, 0x07, 0xc9, 0x79, 0xc8, 0xc9, 0x57, 0xc0, 0xa2, 0x12];
const NOISE: [u8; 2] = [0x08, 0x0b];

/// One section of the file.
struct Golden {
    cipher: Cipher,
    key: Vec<u8>,
    direction: Direction,
    plaintext: Vec<u8>,
    datagram: Vec<u8>,
}

fn golden() -> Vec<Golden> {
    let sections = include_str!("golden/datagrams.txt").split("\n\n").skip(1);
    sections
        .map(|section| {
            let field = |name: &str| {
                let line = section.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("a section has no {name}: {section}")).trim()
            };
            Golden {
                cipher: match field("cipher") {
                    "aes-128-gcm" => Cipher::Aes128Gcm,
                    "chacha20-poly1305" => Cipher::ChaCha20Poly1305,
                    other => panic!("{other} is no cipher"),
                },
                key: bytes(field("key")),
                direction: if field("direction") == "00" { Direction::ToNode } else { Direction::FromNode },
                plaintext: bytes(field("plaintext")),
                datagram: bytes(field("datagram")),
            }
        })
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What the file holds, in its order, as this program writes it.
fn ours() -> Vec<(Header, Direction, Vec<u8>)> {
    let session = |packet_type, counter| Header { packet_type, key_id: KeyId::SESSION, id: SESSION, counter };
    let group = Header { packet_type: PacketType::Media, key_id: KeyId(1), id: GROUP, counter: 258 };
    let (to, from) = (Direction::ToNode, Direction::FromNode);
    vec![
        (session(PacketType::Bind, 0), to, bind(Micros(1_000_000))),
        (session(PacketType::BindAck, 0), from, answer(1_000_000, 77_000_000, "192.0.2.7:40000")),
        (session(PacketType::Ping, 1), to, ping(1_020_000, 77_000_000)),
        (session(PacketType::Pong, 1), from, answer(1_020_000, 77_020_000, "[2001:db8::7]:40000")),
        (session(PacketType::Media, 2), to, frames(&[spoken()])),
        (group, from, frames(&forwarded())),
        (session(PacketType::Report, 3), to, report()),
    ]
}

fn bind(client_clock: Micros) -> Vec<u8> {
    let mut out = [0xff; REQUEST_BYTES];
    Bind { client_clock }.write(&mut out);
    out.to_vec()
}

fn ping(client: u64, node: u64) -> Vec<u8> {
    let mut out = [0xff; REQUEST_BYTES];
    Ping { client_clock: Micros(client), node_clock: Micros(node) }.write(&mut out);
    out.to_vec()
}

fn answer(client: u64, node: u64, address: &str) -> Vec<u8> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut out = [0; ANSWER_BYTES_MAX];
    let length = Answer { client_clock: Micros(client), node_clock: Micros(node), address }.write(&mut out);
    out[..length].to_vec()
}

type Frame = (FrameHeader, &'static [u8]);

fn frame(stream: u32, sequence: u16, timestamp: u32, kind_flags: u8, level: u8, bytes: &'static [u8]) -> Frame {
    (FrameHeader { stream: StreamId(stream), sequence, timestamp, kind_flags, level }, bytes)
}

fn spoken() -> Frame {
    frame(5, u16::MAX, u32::MAX - 959, FrameKind::AudioStart as u8, 30, &SPEECH)
}

fn forwarded() -> [Frame; 3] {
    let priority_stop = FrameKind::AudioStop as u8 | FrameHeader::FLAG_STEREO | FrameHeader::FLAG_PRIORITY;
    [
        frame(5, 0, 0, FrameKind::Audio as u8, 30, &SPEECH),
        frame(6, 700, 96_000, priority_stop, 12, &SPEECH[..6]),
        frame(7, 41, 1_920_000, FrameKind::Silence as u8, 127, &NOISE),
    ]
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut out = [0; 1_200];
    let mut writer = FrameWriter::new(&mut out);
    for (header, bytes) in frames {
        assert!(writer.push(header, bytes));
    }
    let length = writer.len();
    out[..length].to_vec()
}

fn report() -> Vec<u8> {
    let block = |stream, lost_fraction, jitter_us, received| {
        let mut out = [0; REPORT_BLOCK_BYTES];
        ReportBlock { stream: StreamId(stream), lost_fraction, round_trip_ms: 42, jitter_us, received }.write(&mut out);
        out
    };
    [block(5, ReportBlock::fraction(1, 100), 3_100, 99), block(6, 0, 900, 100)].concat()
}

/// Each of ours beside the file's.
fn pairs() -> Vec<(Header, Direction, Vec<u8>, Golden)> {
    let golden = golden();
    let ours: Vec<_> = Cipher::ALL.iter().flat_map(|_| ours()).collect();
    assert_eq!(golden.len(), ours.len());
    let pairs = ours.into_iter().zip(golden);
    pairs.map(|((header, direction, plaintext), golden)| (header, direction, plaintext, golden)).collect()
}

#[test]
fn plaintexts_are_written_as_documented() {
    for (header, direction, plaintext, golden) in pairs() {
        assert_eq!(plaintext, golden.plaintext, "{header:?}");
        assert_eq!(direction, golden.direction, "{header:?}");
    }
}

#[test]
fn datagrams_are_sealed_as_documented() {
    for (header, direction, plaintext, golden) in pairs() {
        let key = Key::new(golden.cipher, &golden.key).expect("the cipher's length");
        let mut datagram = vec![0xee; DATAGRAM_BYTES_MIN + plaintext.len()];
        datagram[HEADER_BYTES..HEADER_BYTES + plaintext.len()].copy_from_slice(&plaintext);
        let length = key.seal(direction, &header, &mut datagram, plaintext.len());
        assert_eq!(datagram[..length], golden.datagram, "{:?} {header:?}", golden.cipher);
    }
}

#[test]
fn documented_datagrams_are_opened() {
    for (header, direction, plaintext, mut golden) in pairs() {
        let key = Key::new(golden.cipher, &golden.key).expect("the cipher's length");
        assert_eq!(Header::parse(&golden.datagram), Ok(header));
        let opened = key.open(direction, &header, &mut golden.datagram);
        assert_eq!(opened.as_deref(), Some(&plaintext[..]), "{:?} {header:?}", golden.cipher);
    }
}

#[test]
fn a_documented_bundle_is_read() {
    let media = golden().into_iter().filter(|golden| golden.datagram[0] == 0xc0);
    let bundles: Vec<_> = media.filter(|golden| golden.direction == Direction::FromNode).collect();
    assert_eq!(bundles.len(), Cipher::ALL.len());
    for bundle in bundles {
        assert_eq!(Frames::new(&bundle.plaintext).collect::<Vec<_>>(), forwarded());
    }
}

/// The worked example of docs/protocol.md is this file's.
#[test]
fn the_document_shows_these_bytes() {
    let document = include_str!("../../docs/protocol.md");
    let shown: String = document.split_whitespace().collect();
    for golden in golden().iter().filter(|golden| golden.cipher == Cipher::Aes128Gcm) {
        let hex: String = golden.datagram.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(shown.contains(&hex), "docs/protocol.md does not show {hex}");
    }
}
