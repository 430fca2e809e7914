//! Sealing a message for one browser: RFC 8291, with the content coding of RFC 8188 in one record.
//!
//! ```text
//!  salt (16) | record size (4) | key id length (1) = 65 | our public key (65) | AES-128-GCM of: text, 2, padding
//! ```

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

/// Bytes of the secret that a browser shares with us (RFC 8291, 3.2).
pub(super) const AUTH_BYTES: usize = 16;

/// Bytes of an uncompressed point of P-256.
const KEY_BYTES: usize = 65;

/// The size of a record, all of which one message is: what push services take at least (RFC 8030, 7.2).
const RECORD_BYTES: u32 = 4_096;

/// Bytes of text that fit: the rest are the head (86), the tag (16) and the end mark.
const TEXT_BYTES_MAX: usize = RECORD_BYTES as usize - 86 - 16 - 1;

/// Ends the text of the last record (RFC 8188, 2).
const LAST_RECORD: u8 = 2;

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("the browser's key is none")]
    Key,
    #[error("the text has over {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self::Key
    }
}

/// Whether these bytes are a browser's public key.
pub(super) fn is_public_key(bytes: &[u8]) -> bool {
    // Whether the point is on the curve shows when a secret is agreed on.
    bytes.len() == KEY_BYTES
        && bytes[0] == 4
        && PrivateKey::generate(&ECDH_P256).is_ok_and(|key| shared_secret(&key, bytes).is_ok())
}

/// Seals a text with a key of its own for the browser with that public key and secret.
pub(super) fn seal(text: &[u8], p256dh: &[u8], auth: &[u8], salt: &[u8; 16]) -> Result<Vec<u8>, SealError> {
    seal_with(text, p256dh, auth, salt, &PrivateKey::generate(&ECDH_P256)?)
}

fn seal_with(text: &[u8], p256dh: &[u8], auth: &[u8], salt: &[u8; 16], key: &PrivateKey) -> Result<Vec<u8>, SealError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(SealError::TooLong);
    }
    let own = key.compute_public_key()?;
    let secret = shared_secret(key, p256dh)?;
    // RFC 8291, 3.4: the secret of both, bound to both keys.
    let info = [&b"WebPush: info\0"[..], p256dh, own.as_ref()].concat();
    let input: [u8; 32] = expand(auth, &secret, &info)?;
    let content_key: [u8; 16] = expand(salt, &input, b"Content-Encoding: aes128gcm\0")?;
    let nonce: [u8; 12] = expand(salt, &input, b"Content-Encoding: nonce\0")?;

    let mut record = [text, &[LAST_RECORD]].concat();
    let sealing = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &content_key)?);
    sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;
    let key_id_bytes = u8::try_from(own.as_ref().len()).map_err(|_| SealError::Key)?;
    Ok([salt.as_slice(), &RECORD_BYTES.to_be_bytes(), &[key_id_bytes], own.as_ref(), &record].concat())
}

fn shared_secret(key: &PrivateKey, p256dh: &[u8]) -> Result<Vec<u8>, Unspecified> {
    agree(key, UnparsedPublicKey::new(&ECDH_P256, p256dh), Unspecified, |secret| Ok(secret.to_vec()))
}

/// HKDF-SHA256 (RFC 5869), extracted and expanded.
fn expand<const LENGTH: usize>(salt: &[u8], input: &[u8], info: &[u8]) -> Result<[u8; LENGTH], Unspecified> {
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut output = [0; LENGTH];
    Salt::new(HKDF_SHA256, salt).extract(input).expand(&[info], Bytes(LENGTH))?.fill(&mut output)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    }

    const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    #[test]
    fn the_example_of_rfc_8291_comes_out() {
        let key = PrivateKey::from_private_key(&ECDH_P256, &bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"));
        let salt: [u8; 16] = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().expect("16 bytes");
        let text = b"When I grow up, I want to be a watermelon";
        let sealed = seal_with(text, &bytes(P256DH), &bytes(AUTH), &salt, &key.expect("a key")).expect("sealed");
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml\
                        mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
                        pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(sealed), expected);
    }

    #[test]
    fn what_does_not_fit_or_is_no_key_is_refused() {
        let (key, auth) = (bytes(P256DH), bytes(AUTH));
        let sealed = seal(&[b'x'; TEXT_BYTES_MAX], &key, &auth, &[7; 16]).expect("fits");
        assert_eq!(sealed.len(), RECORD_BYTES as usize);
        assert_eq!(seal(&[b'x'; TEXT_BYTES_MAX + 1], &key, &auth, &[7; 16]), Err(SealError::TooLong));
        let mut off_the_curve = key.clone();
        off_the_curve[64] ^= 1;
        assert!(is_public_key(&key) && !is_public_key(&off_the_curve) && !is_public_key(&key[1..]));
        assert_eq!(seal(b"x", &off_the_curve, &auth, &[7; 16]), Err(SealError::Key));
    }
}
