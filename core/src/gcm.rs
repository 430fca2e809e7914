//! AES-GCM under keys that can be fetched from memory before their turn comes.
//!
//! Whoever sends one frame to hundreds of listeners seals it under hundreds of keys, one after the other. Each lies somewhere else, and a
//! processor that waits for each in turn spends more on that than on sealing. `aws_lc_rs` keeps a key behind a pointer that it shows
//! nobody; so this is the same cipher of the same library, called without it.
#![expect(
    unsafe_code,
    reason = "the library's own functions, which its safe binding wraps without telling where a key is"
)]

use std::{mem::MaybeUninit, ptr};

use aws_lc_sys::{
    EVP_AEAD_CTX, EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open, EVP_AEAD_CTX_seal_scatter,
    EVP_aead_aes_128_gcm, EVP_aead_aes_256_gcm, OPENSSL_cleanse,
};

use crate::prefetch::prefetch;

/// How long a tag is.
pub(crate) const TAG_BYTES: usize = 16;
/// How long a nonce is.
pub(crate) const NONCE_BYTES: usize = 12;

/// A key of AES-128-GCM or AES-256-GCM: set up once, neither sealing nor opening allocates.
pub(crate) struct GcmKey(
    /// Initialized, and in its place for good: the library does not say that it may be moved.
    Box<MaybeUninit<EVP_AEAD_CTX>>,
);

// SAFETY: nothing of it is bound to a thread.
unsafe impl Send for GcmKey {}
// SAFETY: sealing and opening only read it.
unsafe impl Sync for GcmKey {}

impl GcmKey {
    /// Of 16 bytes or 32; `None` for another length.
    #[must_use]
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        aws_lc_rs::init();
        // SAFETY: both take nothing and return what is there for as long as the program runs.
        let algorithm = match key.len() {
            16 => unsafe { EVP_aead_aes_128_gcm() },
            32 => unsafe { EVP_aead_aes_256_gcm() },
            _ => return None,
        };
        let mut context = Box::new(MaybeUninit::uninit());
        // SAFETY: the context may be written to, and the key is as long as is said; it is copied.
        let initialized = unsafe {
            EVP_AEAD_CTX_init(context.as_mut_ptr(), algorithm, key.as_ptr(), key.len(), TAG_BYTES, ptr::null_mut())
        };
        (initialized == 1).then_some(Self(context))
    }

    /// Has it fetched from memory, for sealing soon.
    pub(crate) fn prefetch(&self) {
        prefetch(&*self.0);
    }

    /// Seals `text` in place; its tag. `None` where it is too long. No two texts under one key may have the same nonce.
    #[must_use]
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let (mut tag, mut tag_bytes) = ([0; TAG_BYTES], 0);
        let text_at = text.as_mut_ptr();
        // SAFETY: the key was initialized. Everything is as long as is said, and what is written to nobody else's meanwhile: `text`, which
        // may be sealed in its place, and the tag.
        let sealed = unsafe {
            EVP_AEAD_CTX_seal_scatter(
                self.0.as_ptr(),
                text_at,
                tag.as_mut_ptr(),
                &raw mut tag_bytes,
                tag.len(),
                nonce.as_ptr(),
                nonce.len(),
                text_at,
                text.len(),
                ptr::null(),
                0,
                associated.as_ptr(),
                associated.len(),
            )
        };
        (sealed == 1 && tag_bytes == TAG_BYTES).then_some(tag)
    }

    /// Opens in place what is sealed, with its tag at the end: how long the text is, at the beginning. `None` for what is not
    /// authentic; it is undefined then.
    #[must_use]
    pub(crate) fn open(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let mut text_bytes = 0;
        let sealed_at = sealed.as_mut_ptr();
        // SAFETY: as above; the text may take the place of what was sealed.
        let opened = unsafe {
            EVP_AEAD_CTX_open(
                self.0.as_ptr(),
                sealed_at,
                &raw mut text_bytes,
                sealed.len(),
                nonce.as_ptr(),
                nonce.len(),
                sealed_at,
                sealed.len(),
                associated.as_ptr(),
                associated.len(),
            )
        };
        (opened == 1).then_some(text_bytes)
    }
}

impl Drop for GcmKey {
    fn drop(&mut self) {
        // SAFETY: it was initialized and nobody uses it any more; then it is overwritten, as long as it is.
        unsafe {
            EVP_AEAD_CTX_cleanup(self.0.as_mut_ptr());
            OPENSSL_cleanse(self.0.as_mut_ptr().cast(), size_of::<EVP_AEAD_CTX>());
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::*;
    use crate::prng::Prng;

    #[test]
    fn it_seals_and_opens_as_the_safe_binding_does() {
        let mut random = Prng::new(7);
        for algorithm in [&AES_128_GCM, &AES_256_GCM] {
            for length in (0..64).chain([255, 1_200]) {
                let mut bytes = || random.next_u64() as u8;
                let secret: Vec<u8> = (0..algorithm.key_len()).map(|_| bytes()).collect();
                let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|_| bytes());
                let associated: Vec<u8> = (0..length % 30).map(|_| bytes()).collect();
                let text: Vec<u8> = (0..length).map(|_| bytes()).collect();

                let safe = LessSafeKey::new(UnboundKey::new(algorithm, &secret).expect("as long as it is to be"));
                let mut expected = text.clone();
                let unique = Nonce::assume_unique_for_key(nonce);
                safe.seal_in_place_append_tag(unique, Aad::from(&associated), &mut expected).expect("sealed");

                let key = GcmKey::new(&secret).expect("as long as it is to be");
                key.prefetch();
                let mut sealed = text.clone();
                let tag = key.seal(&nonce, &associated, &mut sealed).expect("sealed");
                sealed.extend(tag);
                assert_eq!(sealed, expected);
                assert_eq!(key.open(&nonce, &associated, &mut sealed), Some(length));
                assert_eq!(sealed[..length], text);
            }
        }
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let key = GcmKey::new(&[7; 16]).expect("as long as it is to be");
        let (nonce, associated) = ([1; NONCE_BYTES], [2; 12]);
        let mut sealed = [3; 40];
        let tag = key.seal(&nonce, &associated, &mut sealed[..24]).expect("sealed");
        sealed[24..].copy_from_slice(&tag);
        for at in 0..sealed.len() {
            let mut changed = sealed;
            changed[at] ^= 1;
            assert_eq!(key.open(&nonce, &associated, &mut changed), None, "{at}");
            assert_eq!(key.open(&nonce, &associated, &mut { sealed }[..at]), None, "{at}");
        }
        assert_eq!(key.open(&[0; NONCE_BYTES], &associated, &mut { sealed }), None);
        assert_eq!(key.open(&nonce, &associated[1..], &mut { sealed }), None);
        assert_eq!(key.open(&nonce, &associated, &mut sealed), Some(24));
    }

    #[test]
    fn it_is_the_library_that_all_else_is_sealed_with() {
        let versions = include_str!("../../Cargo.lock").matches("name = \"aws-lc-sys\"").count();
        assert_eq!(versions, 1, "core takes another version than aws-lc-rs does");
    }

    #[test]
    fn keys_of_another_length_are_none() {
        for length in (0..40).filter(|length| ![16, 32].contains(length)) {
            assert!(GcmKey::new(&vec![0; length]).is_none(), "{length}");
        }
    }
}
