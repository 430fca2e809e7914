//! The 16 bytes in clear at the front of every native datagram.
//!
//! ```text
//!  0               1               2               3
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |1 1|v v| type  |     flags     |    reserved   |    key id     |
//! +---------------------------------------------------------------+
//! |         session id (to the node) or group id (from it)        |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                     counter (64 bits)                         +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |   AEAD ciphertext, then its 16-byte tag  ...                  |
//! ```
//!
//! Integers are big-endian. Flags and reserved are written as 0 and ignored on reading; they are
//! authenticated as sent all the same ([`crate::seal`]).

use crate::ids::KeyId;

/// The header in clear.
pub const HEADER_BYTES: usize = 16;
/// The AEAD tag at the end, of either cipher.
pub const TAG_BYTES: usize = 16;
/// Shorter ones cannot hold a header and a tag.
pub const DATAGRAM_BYTES_MIN: usize = HEADER_BYTES + TAG_BYTES;
/// An Ethernet frame's worth; longer ones are not ours.
pub const DATAGRAM_BYTES_MAX: usize = 1_500;
/// What senders stay under, so that tunnels and mobile networks carry it in one piece.
pub const DATAGRAM_BYTES_USUAL_MAX: usize = 1_200;

/// The version this program speaks.
const VERSION: u8 = 0;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// A list of frames.
    Media = 0,
    /// A client's first: says where it is.
    Bind = 8,
    /// Answers Bind.
    BindAck = 9,
    /// Keeps the way open and proves it.
    Ping = 10,
    /// Answers Ping.
    Pong = 11,
    /// What a client says of the streams it receives.
    Report = 12,
}

impl PacketType {
    /// Every type.
    pub const ALL: [Self; 6] = [Self::Media, Self::Bind, Self::BindAck, Self::Ping, Self::Pong, Self::Report];

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Media),
            8 => Some(Self::Bind),
            9 => Some(Self::BindAck),
            10 => Some(Self::Ping),
            11 => Some(Self::Pong),
            12 => Some(Self::Report),
            _ => None,
        }
    }

    /// The type as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Bind => "bind",
            Self::BindAck => "bind_ack",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Report => "report",
        }
    }
}

/// Why a datagram is dropped before any key is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeaderError {
    /// Under [`DATAGRAM_BYTES_MIN`].
    #[error("shorter than a header and a tag")]
    TooShort,
    /// Over [`DATAGRAM_BYTES_MAX`].
    #[error("longer than 1,500 bytes")]
    TooLong,
    /// The first byte belongs to another protocol (RFC 7983): STUN, DTLS, RTP or none.
    #[error("the first byte is not of the native protocol")]
    NotNative,
    /// A version this program does not speak.
    #[error("another version of the protocol")]
    Version,
    /// No type of this version.
    #[error("an unknown packet type")]
    Type,
}

impl HeaderError {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::TooShort, Self::TooLong, Self::NotNative, Self::Version, Self::Type];

    /// The reason as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::NotNative => "not_native",
            Self::Version => "version",
            Self::Type => "type",
        }
    }
}

/// A datagram's header. Nothing in it is to be believed before the datagram has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub packet_type: PacketType,
    /// Which key sealed it.
    pub key_id: KeyId,
    /// A session's id to the node and in answers from it, a group's in Media from it.
    pub id: u32,
    /// Never used twice under one key in one direction.
    pub counter: u64,
}

impl Header {
    /// Reads the header of a whole datagram.
    ///
    /// # Errors
    /// What is wrong with it, as a drop reason.
    pub fn parse(datagram: &[u8]) -> Result<Self, HeaderError> {
        let Some(&first) = datagram.first() else { return Err(HeaderError::TooShort) };
        if !is_native(first) {
            return Err(HeaderError::NotNative);
        }
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        if datagram.len() < DATAGRAM_BYTES_MIN {
            return Err(HeaderError::TooShort);
        }
        let Some([_, _, _, key, i0, i1, i2, i3, counter @ ..]) = datagram.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::TooShort);
        };
        if (first >> 4) & 0b11 != VERSION {
            return Err(HeaderError::Version);
        }
        Ok(Self {
            packet_type: PacketType::from_bits(first & 0x0f).ok_or(HeaderError::Type)?,
            key_id: KeyId(*key),
            id: u32::from_be_bytes([*i0, *i1, *i2, *i3]),
            counter: u64::from_be_bytes(*counter),
        })
    }

    /// Writes the header.
    pub fn write(&self, out: &mut [u8; HEADER_BYTES]) {
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        let first = 0b1100_0000 | (VERSION << 4) | self.packet_type as u8;
        out[..8].copy_from_slice(&[first, 0, 0, self.key_id.0, i0, i1, i2, i3]);
        out[8..].copy_from_slice(&self.counter.to_be_bytes());
    }
}

/// Whether a datagram that begins with `first` is of the native protocol, as RFC 7983 shares out the first byte:
/// 0-3 STUN, 20-63 DTLS, 128-191 RTP and RTCP, 192-255 native.
#[must_use]
pub const fn is_native(first: u8) -> bool {
    first >= 192
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { packet_type: PacketType::Ping, key_id: KeyId(3), id: 0x0102_0304, counter: 0x0506_0708_090a_0b0c };

    fn datagram(header: Header) -> [u8; DATAGRAM_BYTES_MIN] {
        let mut bytes = [0; DATAGRAM_BYTES_MIN];
        header.write(bytes.first_chunk_mut().expect("room for a header"));
        bytes
    }

    #[test]
    fn lies_as_drawn() {
        let bytes = datagram(HEADER);
        assert_eq!(bytes[..HEADER_BYTES], [0xca, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(Header::parse(&bytes), Ok(HEADER));
    }

    #[test]
    fn every_type_round_trips_and_no_other_is_known() {
        for packet_type in PacketType::ALL {
            let header = Header { packet_type, ..HEADER };
            assert_eq!(Header::parse(&datagram(header)), Ok(header));
        }
        let known = (0..16).filter(|bits| PacketType::from_bits(*bits).is_some()).count();
        assert_eq!(known, PacketType::ALL.len());
    }

    #[test]
    fn flags_and_reserved_are_ignored() {
        let mut bytes = datagram(HEADER);
        bytes[1] = 0xff;
        bytes[2] = 0xff;
        assert_eq!(Header::parse(&bytes), Ok(HEADER));
    }

    #[test]
    fn each_reason_to_drop() {
        let good = datagram(HEADER);
        let with_first = |first: u8| {
            let mut bytes = good;
            bytes[0] = first;
            Header::parse(&bytes)
        };
        assert_eq!(Header::parse(&[]), Err(HeaderError::TooShort));
        assert_eq!(Header::parse(&good[..DATAGRAM_BYTES_MIN - 1]), Err(HeaderError::TooShort));
        let mut long = [0; DATAGRAM_BYTES_MAX + 1];
        long[..HEADER_BYTES].copy_from_slice(&good[..HEADER_BYTES]);
        assert_eq!(Header::parse(&long), Err(HeaderError::TooLong));
        assert_eq!(Header::parse(&long[..DATAGRAM_BYTES_MAX]), Ok(HEADER));
        for other in [0, 3, 20, 63, 128, 191] {
            assert_eq!(with_first(other), Err(HeaderError::NotNative));
        }
        assert_eq!(with_first(0b1101_0000), Err(HeaderError::Version));
        assert_eq!(with_first(0b1111_1010), Err(HeaderError::Version));
        assert_eq!(with_first(0xc1), Err(HeaderError::Type));
        // Another protocol's short message is counted as what it is, not as a short one of ours.
        assert_eq!(Header::parse(&[0, 1, 0, 0]), Err(HeaderError::NotNative));
    }
}
