//! What must not be guessed: keys, tokens and ids that travel in clear, from the system's random source.

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Random bytes.
///
/// # Panics
/// When the system has no randomness to give: then nothing here is safe to go on with.
#[must_use]
pub(crate) fn bytes<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).expect("the system's random source does not fail once the system has started");
    bytes
}

/// So many random bytes as text that fits into a URL.
///
/// # Panics
/// As [`bytes()`].
#[must_use]
pub(crate) fn text<const LENGTH: usize>() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<LENGTH>())
}

/// A random number.
#[must_use]
pub(crate) fn number() -> u32 {
    u32::from_ne_bytes(bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        let draws: HashSet<[u8; 16]> = (0..1_000).map(|_| bytes()).collect();
        assert_eq!(draws.len(), 1_000);
    }

    #[test]
    fn text_fits_into_a_url() {
        let text = text::<32>();
        assert_eq!(text.len(), 43);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
    }
}
