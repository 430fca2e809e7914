//! SRTP and SRTCP sealed in place (RFC 3711, and RFC 7714 for AES-GCM), under the keys of DTLS-SRTP (RFC 5764).
//!
//! ```text
//!  RTP   header | payload, encrypted | tag                        the whole of it authenticated, the index with it
//!  RTCP  8 bytes | the rest, encrypted | tag | 1, index (31 bits)   AES-GCM
//!        8 bytes | the rest, encrypted | 1, index (31 bits) | tag   AES-CM with HMAC-SHA1
//! ```
//!
//! A nonce is made of the synchronization source and the packet's index, so no two packets under one key share one as long as
//! a source's indices don't repeat. That is the caller's to see to.

use std::fmt;

use aws_lc_rs::{
    cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    hmac,
    iv::FixedLength,
};

use crate::gcm::{self, GcmKey, NONCE_BYTES};

/// What sealing adds to a packet at most: an AES-GCM tag and the index of RTCP.
pub const OVERHEAD_BYTES_MAX: usize = GCM_TAG_BYTES + INDEX_BYTES;

const GCM_TAG_BYTES: usize = gcm::TAG_BYTES;
const HMAC_TAG_BYTES: usize = 10;
const HMAC_KEY_BYTES: usize = 20;
const INDEX_BYTES: usize = 4;
/// What of an RTCP packet is sent as it is: its first header and the source.
const RTCP_CLEAR_BYTES: usize = 8;
/// Set in the index of RTCP that is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// How a connection seals its packets (RFC 5764, 4.1.2; RFC 7714, 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `SRTP_AES128_CM_HMAC_SHA1_80`.
    Aes128CmSha1,
    /// `SRTP_AEAD_AES_128_GCM`.
    Aes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`.
    Aes256Gcm,
}

impl Profile {
    const fn key_bytes(self) -> usize {
        if matches!(self, Self::Aes256Gcm) { 32 } else { 16 }
    }

    const fn salt_bytes(self) -> usize {
        if matches!(self, Self::Aes128CmSha1) { 14 } else { 12 }
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// They are sealed by whoever was the client of DTLS.
    Client,
    /// By its server.
    Server,
}

/// What a key is derived for: its label (RFC 3711, 4.3.1). RTCP's are three further on.
#[derive(Clone, Copy)]
enum Kind {
    Rtp = 0,
    Rtcp = 3,
}

/// The keys of one way of a connection: set up once, neither sealing nor opening allocates.
pub struct Srtp {
    rtp: Cipher,
    rtcp: Cipher,
}

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Srtp(..)")
    }
}

enum Cipher {
    Gcm { key: GcmKey, salt: [u8; NONCE_BYTES] },
    Cm(Box<Cm>),
}

/// Rare, and larger.
struct Cm {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Srtp {
    /// The keys of one way, out of what DTLS exports: both sides' master keys, then both sides' salts. `None` when it is not as
    /// long as that.
    #[must_use]
    pub fn new(profile: Profile, exported: &[u8], side: Side) -> Option<Self> {
        let (key_bytes, salt_bytes) = (profile.key_bytes(), profile.salt_bytes());
        let (keys, salts) = exported.split_at_checked(2 * key_bytes)?;
        let place = usize::from(side == Side::Server);
        let key = keys.get(place * key_bytes..)?.get(..key_bytes)?;
        let salt = salts.get(place * salt_bytes..)?.get(..salt_bytes)?;
        let derived = |kind| Cipher::derive(profile, key, salt, kind);
        Some(Self { rtp: derived(Kind::Rtp)?, rtcp: derived(Kind::Rtcp)? })
    }

    /// Has the key that RTP is sealed with fetched from memory: it is needed soon. AES-GCM's alone, the other is rare.
    pub fn prefetch_rtp(&self) {
        if let Cipher::Gcm { key, .. } = &self.rtp {
            key.prefetch();
        }
    }

    /// Seals an RTP packet of a header and `payload_bytes` behind it, whose index, the sequence number without its wrap-arounds,
    /// is `index`: how long it is then, or `None` when `packet` has no room for that.
    pub fn seal_rtp(
        &self,
        index: u64,
        packet: &mut [u8],
        (header_bytes, payload_bytes): (usize, usize),
    ) -> Option<usize> {
        let ssrc = ssrc_at(packet, 8)?;
        let text_end = header_bytes + payload_bytes;
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let packet = packet.get_mut(..text_end + GCM_TAG_BYTES)?;
                let (header, body) = packet.split_at_mut(header_bytes);
                let (text, tag_out) = body.split_at_mut(payload_bytes);
                tag_out.copy_from_slice(&key.seal(&gcm_nonce(salt, ssrc, index), header, text)?);
                Some(text_end + GCM_TAG_BYTES)
            }
            Cipher::Cm(cm) => {
                let packet = packet.get_mut(..text_end + HMAC_TAG_BYTES)?;
                cm.apply(ssrc, index, packet.get_mut(header_bytes..text_end)?)?;
                let rollovers = ((index >> 16) as u32).to_be_bytes();
                let (text, tag_out) = packet.split_at_mut(text_end);
                tag_out.copy_from_slice(&cm.tag(&[text, &rollovers]));
                Some(text_end + HMAC_TAG_BYTES)
            }
        }
    }

    /// Seals the RTCP in the first `length` bytes under an index of 31 bits: how long it is then, or `None` when `packet` has
    /// no room for that.
    pub fn seal_rtcp(&self, index: u32, packet: &mut [u8], length: usize) -> Option<usize> {
        let ssrc = ssrc_at(packet, 4)?;
        let marked = (ENCRYPTED | index).to_be_bytes();
        let packet = packet.get_mut(..length + self.rtcp.tag_bytes() + INDEX_BYTES)?;
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, u64::from(index & (ENCRYPTED - 1)));
                let associated = rtcp_associated(packet, marked)?;
                let text = packet.get_mut(RTCP_CLEAR_BYTES..length)?;
                let tag = key.seal(&nonce, &associated, text)?;
                packet[length..length + GCM_TAG_BYTES].copy_from_slice(&tag);
                packet[length + GCM_TAG_BYTES..].copy_from_slice(&marked);
            }
            Cipher::Cm(cm) => {
                cm.apply(ssrc, index.into(), packet.get_mut(RTCP_CLEAR_BYTES..length)?)?;
                let (text, tag_out) = packet.split_at_mut(length + INDEX_BYTES);
                text[length..].copy_from_slice(&marked);
                tag_out.copy_from_slice(&cm.tag(&[text]));
            }
        }
        Some(packet.len())
    }

    /// Opens RTCP in place, or `None` when it is not authentic under these keys: its contents are then undefined. What is not
    /// encrypted is none either: nobody sends it.
    #[must_use]
    pub fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let ssrc = ssrc_at(packet, 4)?;
        let text_end = packet.len().checked_sub(self.rtcp.tag_bytes() + INDEX_BYTES)?;
        let index_at = if matches!(self.rtcp, Cipher::Gcm { .. }) { packet.len() - INDEX_BYTES } else { text_end };
        let marked: [u8; INDEX_BYTES] = packet.get(index_at..index_at + INDEX_BYTES)?.try_into().ok()?;
        let index = u32::from_be_bytes(marked).checked_sub(ENCRYPTED)?;
        if text_end < RTCP_CLEAR_BYTES {
            return None;
        }
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index.into());
                let associated = rtcp_associated(packet, marked)?;
                key.open(&nonce, &associated, &mut packet[RTCP_CLEAR_BYTES..index_at])?;
            }
            Cipher::Cm(cm) => {
                let (text, tag) = packet.split_at(text_end + INDEX_BYTES);
                let expected = cm.tag(&[text]);
                aws_lc_rs::constant_time::verify_slices_are_equal(&expected, tag).ok()?;
                cm.apply(ssrc, index.into(), &mut packet[RTCP_CLEAR_BYTES..text_end])?;
            }
        }
        packet.get(..text_end)
    }
}

impl Cipher {
    /// A session's keys from its master keys (RFC 3711, 4.3; salts of 12 bytes are filled up with zeros).
    fn derive(profile: Profile, master: &[u8], master_salt: &[u8], kind: Kind) -> Option<Self> {
        let mut salt = [0; 14];
        salt[..master_salt.len()].copy_from_slice(master_salt);
        let algorithm = if master.len() == 32 { &AES_256 } else { &AES_128 };
        let master = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master).ok()?).ok()?;
        let label = kind as u8;
        let mut session_key = [0; 32];
        let session_key = &mut session_key[..profile.key_bytes()];
        derive_into(&master, salt, label, session_key)?;
        let mut session_salt = [0; 14];
        derive_into(&master, salt, label + 2, &mut session_salt[..profile.salt_bytes()])?;
        if profile != Profile::Aes128CmSha1 {
            return Some(Self::Gcm { key: GcmKey::new(session_key)?, salt: *session_salt.first_chunk()? });
        }
        let mut secret = [0; HMAC_KEY_BYTES];
        derive_into(&master, salt, label + 1, &mut secret)?;
        let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
        let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, session_key).ok()?).ok()?;
        Some(Self::Cm(Box::new(Cm { key, salt: session_salt, authentication })))
    }

    const fn tag_bytes(&self) -> usize {
        match self {
            Self::Gcm { .. } => GCM_TAG_BYTES,
            Self::Cm(_) => HMAC_TAG_BYTES,
        }
    }
}

/// Derives a key, or a salt: what the master key makes of zeros at the label's place.
fn derive_into(master: &EncryptingKey, salt: [u8; 14], label: u8, out: &mut [u8]) -> Option<()> {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(&salt);
    iv[7] ^= label;
    master.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv))).ok().map(|_| ())
}

fn ssrc_at(packet: &[u8], offset: usize) -> Option<[u8; 4]> {
    packet.get(offset..)?.first_chunk().copied()
}

/// The 8 bytes that RTCP begins with, and its index.
fn rtcp_associated(packet: &[u8], marked: [u8; INDEX_BYTES]) -> Option<[u8; RTCP_CLEAR_BYTES + INDEX_BYTES]> {
    let mut associated = [0; RTCP_CLEAR_BYTES + INDEX_BYTES];
    associated[..RTCP_CLEAR_BYTES].copy_from_slice(packet.get(..RTCP_CLEAR_BYTES)?);
    associated[RTCP_CLEAR_BYTES..].copy_from_slice(&marked);
    Some(associated)
}

/// RFC 7714, 8.1 and 9.1: the index of RTP has 48 bits, that of RTCP 31.
fn gcm_nonce(salt: &[u8; NONCE_BYTES], ssrc: [u8; 4], index: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = *salt;
    let place = ssrc.into_iter().chain(index.to_be_bytes().into_iter().skip(2));
    nonce[2..].iter_mut().zip(place).for_each(|(byte, place)| *byte ^= place);
    nonce
}

impl Cm {
    /// Encrypts or decrypts (RFC 3711, 4.1.1).
    fn apply(&self, ssrc: [u8; 4], index: u64, text: &mut [u8]) -> Option<()> {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        iv[4..8].iter_mut().zip(ssrc).for_each(|(byte, place)| *byte ^= place);
        iv[8..14].iter_mut().zip(index.to_be_bytes().into_iter().skip(2)).for_each(|(byte, place)| *byte ^= place);
        self.key.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(iv))).ok().map(|_| ())
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; HMAC_TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.authentication);
        parts.iter().for_each(|part| context.update(part));
        let tag = context.sign();
        let mut short = [0; HMAC_TAG_BYTES];
        short.copy_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| {
            u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16).expect("two hexadecimal digits")
        };
        digits.chunks(2).map(byte).collect()
    }

    fn gcm(key: &[u8]) -> Cipher {
        Cipher::Gcm { key: GcmKey::new(key).expect("as long as it is to be"), salt: *b"Quid pro quo" }
    }

    /// A connection under session keys.
    fn under(cipher: impl Fn() -> Cipher) -> Srtp {
        Srtp { rtp: cipher(), rtcp: cipher() }
    }

    fn sealed_rtp(srtp: &Srtp, index: u64, packet: &str, header_bytes: usize) -> Vec<u8> {
        let mut bytes = hex(packet);
        let payload_bytes = bytes.len() - header_bytes;
        bytes.resize(bytes.len() + OVERHEAD_BYTES_MAX, 0);
        let length = srtp.seal_rtp(index, &mut bytes, (header_bytes, payload_bytes)).expect("room");
        bytes.truncate(length);
        bytes
    }

    const GALLIA: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070
        61727465 73207472 6573";

    /// RFC 7714, 16.1.1.
    #[test]
    fn rtp_under_aes_128_gcm_is_as_in_the_rfc() {
        let key: Vec<u8> = (0..16).collect();
        let srtp = under(|| gcm(&key));
        let expected = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
            51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
        assert_eq!(sealed_rtp(&srtp, 0xf17b, GALLIA, 12), hex(expected));
    }

    /// RFC 7714, 16.2.1.
    #[test]
    fn rtp_under_aes_256_gcm_is_as_in_the_rfc() {
        let key: Vec<u8> = (0..32).collect();
        let srtp = under(|| gcm(&key));
        let expected = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02
            76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
        assert_eq!(sealed_rtp(&srtp, 0xf17b, GALLIA, 12), hex(expected));
    }

    /// RFC 7714, 17.1.
    #[test]
    fn rtcp_under_aes_128_gcm_is_as_in_the_rfc_and_opens_again() {
        let key: Vec<u8> = (0..16).collect();
        let srtp = under(|| gcm(&key));
        let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef
            deadbeef deadbeef deadbeef");
        let expected = hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
            730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4");
        let mut packet = plain.clone();
        packet.resize(plain.len() + OVERHEAD_BYTES_MAX, 0);
        let length = srtp.seal_rtcp(0x5d4, &mut packet, plain.len()).expect("room");
        assert_eq!(&packet[..length], expected);
        assert_eq!(srtp.open_rtcp(&mut packet[..length]), Some(&plain[..]));
    }

    /// RFC 3711, B.3, and a packet under its keys as libsrtp seals it.
    #[test]
    fn aes_cm_with_hmac_is_as_in_the_rfc() {
        let exported = hex("e1f97a0d3e018be0d64fa32c06de4139 00000000000000000000000000000000
            0ec675ad498afeebb6960b3aabe6 0000000000000000000000000000");
        let srtp = Srtp::new(Profile::Aes128CmSha1, &exported, Side::Client).expect("long enough");
        let Cipher::Cm(cm) = &srtp.rtp else { panic!("another cipher") };
        assert_eq!(&cm.salt[..], hex("30cbbc08863d8c85d49db34a9ae1"));
        let packet = "800f1234 decafbad cafebabe abababab abababab abababab abababab";
        let expected = "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb";
        assert_eq!(sealed_rtp(&srtp, 0x1234, packet, 12), hex(expected));
    }

    #[test]
    fn rtcp_opens_under_the_keys_of_its_way_alone() {
        for profile in [Profile::Aes128CmSha1, Profile::Aes128Gcm, Profile::Aes256Gcm] {
            let exported: Vec<u8> = (0..2 * (profile.key_bytes() + profile.salt_bytes()) as u8).collect();
            let way = |side| Srtp::new(profile, &exported, side).expect("long enough");
            let plain = [0x80, 201, 0, 1, 1, 2, 3, 4, 0x81, 202, 0, 1, 9, 9, 9, 9];
            let mut packet = [0; 64];
            packet[..plain.len()].copy_from_slice(&plain);
            let length = way(Side::Client).seal_rtcp(7, &mut packet, plain.len()).expect("room");
            assert_ne!(packet[8..plain.len()], plain[8..]);
            let mut other = packet;
            assert_eq!(way(Side::Server).open_rtcp(&mut other[..length]), None, "{profile:?}");
            for at in [0, 5, 9, length - 1] {
                let mut changed = packet;
                changed[at] ^= 1;
                assert_eq!(way(Side::Client).open_rtcp(&mut changed[..length]), None, "{profile:?} {at}");
            }
            for short in 0..length {
                let mut cut = packet;
                assert_eq!(way(Side::Client).open_rtcp(&mut cut[..short]), None);
            }
            assert_eq!(way(Side::Client).open_rtcp(&mut packet[..length]), Some(&plain[..]));
            assert!(Srtp::new(profile, &exported[1..], Side::Server).is_none());
        }
    }

    #[test]
    fn what_has_no_room_is_not_sealed() {
        let key: Vec<u8> = (0..16).collect();
        let srtp = under(|| gcm(&key));
        assert_eq!(srtp.seal_rtp(1, &mut [0; 40], (12, 13)), None);
        assert_eq!(srtp.seal_rtp(1, &mut [0; 41], (12, 13)), Some(41));
        assert_eq!(srtp.seal_rtcp(1, &mut [0; 31], 12), None);
        assert_eq!(srtp.seal_rtcp(1, &mut [0; 6], 12), None);
    }
}
