//! Resume tokens: 256 random bits, of which only the hash is kept.

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use crate::random;

/// The hash of a resume token.
#[derive(Clone, Copy)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of what somebody claims is a token.
    pub(super) fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// As records hold it.
    pub(super) const fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether both are of the same token, in a time that tells nothing of either.
    pub(super) fn matches(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// A new token.
pub(super) fn new_token() -> String {
    random::text::<32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_matches() {
        let (token, other) = (new_token(), new_token());
        assert_eq!(token.len(), 43);
        let hash = TokenHash::of(&token);
        assert!(hash.matches(&TokenHash::of(&token)));
        assert!(!hash.matches(&TokenHash::of(&other)));
        assert!(!hash.matches(&TokenHash::of(&token[..42])));
    }
}
