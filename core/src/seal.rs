//! Sealing and opening datagrams in place.
//!
//! An AEAD over everything behind the header; associated data are the 16 header bytes as sent. The nonce is
//!
//! ```text
//!  direction (1) | 0 0 0 | counter (8)
//! ```
//!
//! so no two datagrams under one key share one as long as counters don't repeat within a direction.

use std::fmt;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{
    gateway::Cipher,
    wire::datagram::{DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, TAG_BYTES},
};

/// Which way a datagram travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From a client to its node.
    ToNode = 0,
    /// From a node to clients.
    FromNode = 1,
}

/// A key was not of its cipher's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {actual} bytes where the cipher takes {expected}")]
pub struct KeyLengthError {
    /// What the cipher takes.
    pub expected: usize,
    /// What was given.
    pub actual: usize,
}

/// A session's or a group's key, ready for use: set up once, neither sealing nor opening allocates.
pub struct Key(LessSafeKey);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Prepares a key.
    ///
    /// # Errors
    /// When `bytes` is not [`Cipher::key_bytes`] long.
    pub fn new(cipher: Cipher, bytes: &[u8]) -> Result<Self, KeyLengthError> {
        let algorithm = match cipher {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let unbound = UnboundKey::new(algorithm, bytes)
            .map_err(|_| KeyLengthError { expected: cipher.key_bytes(), actual: bytes.len() })?;
        Ok(Self(LessSafeKey::new(unbound)))
    }

    /// Seals in place: writes `header` in front, encrypts the `plaintext_len` bytes behind it and puts the tag
    /// behind those. Returns the length of the whole datagram. The caller sees to it that no counter is used twice.
    ///
    /// # Panics
    /// When `datagram` has no room for header, plaintext and tag: the caller sizes its own buffers.
    pub fn seal(&self, direction: Direction, header: &Header, datagram: &mut [u8], plaintext_len: usize) -> usize {
        let total = DATAGRAM_BYTES_MIN + plaintext_len;
        let (head, body) = datagram[..total]
            .split_first_chunk_mut::<HEADER_BYTES>()
            .expect("a datagram is at least DATAGRAM_BYTES_MIN long");
        header.write(head);
        let (text, tag_out) = body.split_at_mut(plaintext_len);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(direction, header.counter), Aad::from(&*head), text)
            .expect("an AEAD only refuses plaintexts of gigabytes");
        tag_out[..TAG_BYTES].copy_from_slice(tag.as_ref());
        total
    }

    /// Opens in place and returns the plaintext, or `None` when the datagram is not authentic under this key and
    /// direction: its contents are then undefined, and nothing of it may change any state.
    #[must_use]
    pub fn open<'a>(&self, direction: Direction, header: &Header, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (head, body) = datagram.split_first_chunk_mut::<HEADER_BYTES>()?;
        self.0.open_in_place(nonce(direction, header.counter), Aad::from(&*head), body).ok()
    }
}

fn nonce(direction: Direction, counter: u64) -> Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[0] = direction as u8;
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::KeyId, wire::datagram::PacketType};

    const HEADER: Header = Header { packet_type: PacketType::Media, key_id: KeyId(1), id: 7, counter: 42 };
    const TEXT: &[u8] = b"twenty milliseconds";

    fn key(cipher: Cipher, fill: u8) -> Key {
        Key::new(cipher, &vec![fill; cipher.key_bytes()]).expect("the cipher's length")
    }

    fn sealed(key: &Key) -> Vec<u8> {
        let mut datagram = vec![0; DATAGRAM_BYTES_MIN + TEXT.len()];
        datagram[HEADER_BYTES..HEADER_BYTES + TEXT.len()].copy_from_slice(TEXT);
        let length = key.seal(Direction::FromNode, &HEADER, &mut datagram, TEXT.len());
        assert_eq!(length, datagram.len());
        datagram
    }

    #[test]
    fn opens_what_was_sealed() {
        for cipher in Cipher::ALL {
            let key = key(cipher, 9);
            let mut datagram = sealed(&key);
            assert!(!datagram.windows(TEXT.len()).any(|window| window == TEXT));
            let header = Header::parse(&datagram).expect("a header");
            assert_eq!(header, HEADER);
            assert_eq!(key.open(Direction::FromNode, &header, &mut datagram).as_deref(), Some(TEXT));
        }
    }

    #[test]
    fn an_empty_plaintext_is_sealed_too() {
        let key = key(Cipher::Aes128Gcm, 9);
        let mut datagram = [0; DATAGRAM_BYTES_MIN];
        assert_eq!(key.seal(Direction::ToNode, &HEADER, &mut datagram, 0), DATAGRAM_BYTES_MIN);
        assert_eq!(key.open(Direction::ToNode, &HEADER, &mut datagram).map(|text| text.len()), Some(0));
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        for cipher in Cipher::ALL {
            let key = key(cipher, 9);
            let datagram = sealed(&key);
            for at in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                // What cannot be parsed is dropped before it is opened; flags and reserved are authenticated too.
                let header = Header::parse(&changed).unwrap_or(HEADER);
                assert!(key.open(Direction::FromNode, &header, &mut changed).is_none(), "{cipher:?}, byte {at}");
            }
        }
    }

    #[test]
    fn another_key_or_direction_does_not_open() {
        for cipher in Cipher::ALL {
            let datagram = sealed(&key(cipher, 9));
            assert!(key(cipher, 8).open(Direction::FromNode, &HEADER, &mut datagram.clone()).is_none());
            assert!(key(cipher, 9).open(Direction::ToNode, &HEADER, &mut datagram.clone()).is_none());
        }
    }

    #[test]
    fn what_is_too_short_for_a_tag_does_not_open() {
        let key = key(Cipher::Aes128Gcm, 9);
        for length in 0..DATAGRAM_BYTES_MIN {
            assert!(key.open(Direction::ToNode, &HEADER, &mut vec![0xc0; length]).is_none());
        }
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for cipher in Cipher::ALL {
            for actual in [0, 15, 17, 31, 33] {
                let expected = cipher.key_bytes();
                assert_eq!(Key::new(cipher, &vec![0; actual]).err(), Some(KeyLengthError { expected, actual }));
            }
        }
    }
}
