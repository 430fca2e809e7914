//! What one datagram costs beside the system calls: `cargo bench -p antiphon-core --bench datagrams`.
//!
//! Payloads are of 100 bytes, what 20 ms of speech take with their frame's header. Allocations are shown where there
//! are any: only setting up a key may have some.

use antiphon_core::{
    gateway::Cipher,
    ids::{KeyId, StreamId},
    replay::ReplayWindow,
    seal::{Direction, Key},
    wire::{
        datagram::{DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_USUAL_MAX, HEADER_BYTES, Header, PacketType, TAG_BYTES},
        frame::{FRAME_HEADER_BYTES, FrameHeader, FrameWriter, Frames},
    },
};
use divan::{AllocProfiler, Bencher, black_box};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const PAYLOAD_BYTES: usize = 100;
const OPUS_BYTES: usize = PAYLOAD_BYTES - FRAME_HEADER_BYTES;
type Datagram = [u8; DATAGRAM_BYTES_MIN + PAYLOAD_BYTES];

const HEADER: Header = Header { packet_type: PacketType::Media, key_id: KeyId(1), id: 7, counter: 1_000_000 };
const FRAME: FrameHeader =
    FrameHeader { stream: StreamId(5), sequence: 700, timestamp: 672_000, kind_flags: 0, level: 30 };

fn main() {
    divan::main();
}

fn key(cipher: Cipher) -> Key {
    Key::new(cipher, &vec![7; cipher.key_bytes()]).expect("the cipher's length")
}

fn sealed(key: &Key) -> Datagram {
    let mut datagram = [0x55; DATAGRAM_BYTES_MIN + PAYLOAD_BYTES];
    key.seal(Direction::ToNode, &HEADER, &mut datagram, PAYLOAD_BYTES);
    datagram
}

/// A Media datagram's plaintext of so many frames.
fn bundle(frames: u16) -> Vec<u8> {
    let mut out = vec![0; DATAGRAM_BYTES_USUAL_MAX];
    let mut writer = FrameWriter::new(&mut out);
    for sequence in 0..frames {
        assert!(writer.push(&FrameHeader { sequence, ..FRAME }, &[0x55; OPUS_BYTES]));
    }
    let length = writer.len();
    out.truncate(length);
    out
}

#[divan::bench(args = Cipher::ALL)]
fn seal(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = key(cipher);
    let mut datagram = sealed(&key);
    let mut header = HEADER;
    bencher.bench_local(|| {
        header.counter += 1;
        key.seal(Direction::FromNode, &header, black_box(&mut datagram), PAYLOAD_BYTES)
    });
}

#[divan::bench(args = Cipher::ALL)]
fn open(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = key(cipher);
    let datagram = sealed(&key);
    bencher.with_inputs(|| datagram).bench_local_refs(|datagram| {
        let header = Header::parse(datagram).expect("a header");
        key.open(Direction::ToNode, &header, datagram).expect("authentic").len()
    });
}

/// What a flood of forged datagrams for a known session costs each.
#[divan::bench(args = Cipher::ALL)]
fn open_forged(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = key(cipher);
    let mut forged = sealed(&key);
    forged[HEADER_BYTES] ^= 1;
    bencher.with_inputs(|| forged).bench_local_refs(|datagram| {
        let header = Header::parse(datagram).expect("a header");
        assert!(key.open(Direction::ToNode, &header, datagram).is_none());
    });
}

#[divan::bench(args = Cipher::ALL)]
fn key_setup(cipher: Cipher) -> Key {
    key(black_box(cipher))
}

#[divan::bench]
fn header_parse(bencher: Bencher<'_, '_>) {
    let datagram = sealed(&key(Cipher::Aes128Gcm));
    bencher.bench_local(|| Header::parse(black_box(&datagram)));
}

/// Counters as they come on a good network.
#[divan::bench]
fn replay_in_order(bencher: Bencher<'_, '_>) {
    let mut window: ReplayWindow = ReplayWindow::new();
    let mut counter = 0;
    bencher.bench_local(|| {
        counter += 1;
        black_box(window.check(black_box(counter))) && window.accept(counter).newest
    });
}

#[divan::bench(args = [1, 4, 11])]
fn frames_parse(bencher: Bencher<'_, '_>, frames: u16) {
    let plaintext = bundle(frames);
    bencher.bench_local(|| {
        Frames::new(black_box(&plaintext))
            .map(|(header, bytes)| u32::from(header.sequence) + bytes.len() as u32)
            .sum::<u32>()
    });
}

/// A bundle from frames that lie elsewhere, sealed: what a node does once for all listeners.
#[divan::bench(args = [(Cipher::Aes128Gcm, 1), (Cipher::Aes128Gcm, 4), (Cipher::Aes128Gcm, 10), (Cipher::ChaCha20Poly1305, 1), (Cipher::ChaCha20Poly1305, 4), (Cipher::ChaCha20Poly1305, 10)])]
fn bundle_write_and_seal(bencher: Bencher<'_, '_>, (cipher, frames): (Cipher, u16)) {
    let key = key(cipher);
    let opus = [0x55; OPUS_BYTES];
    let mut datagram = [0; DATAGRAM_BYTES_USUAL_MAX];
    let mut header = HEADER;
    bencher.bench_local(|| {
        header.counter += 1;
        let room = DATAGRAM_BYTES_USUAL_MAX - TAG_BYTES;
        let mut writer = FrameWriter::new(&mut datagram[HEADER_BYTES..room]);
        for sequence in 0..frames {
            assert!(writer.push(&FrameHeader { sequence, ..FRAME }, black_box(&opus)));
        }
        let length = writer.len();
        key.seal(Direction::FromNode, &header, &mut datagram, length)
    });
}

/// The same without sealing.
#[divan::bench(args = [1, 4, 10])]
fn bundle_write(bencher: Bencher<'_, '_>, frames: u16) {
    let opus = [0x55; OPUS_BYTES];
    let mut plaintext = [0; DATAGRAM_BYTES_USUAL_MAX];
    bencher.bench_local(|| {
        let mut writer = FrameWriter::new(black_box(&mut plaintext));
        for sequence in 0..frames {
            assert!(writer.push(&FrameHeader { sequence, ..FRAME }, black_box(&opus)));
        }
        writer.len()
    });
}
