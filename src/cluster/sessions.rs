//! Which node has a gateway session, and what another needs to go on with it.

use antiphon_core::{
    gateway::{Cipher, MediaTransport, UserView},
    ids::{ChannelId, SessionId, StreamId, UserId},
};
use aws_lc_rs::constant_time::verify_slices_are_equal;

/// The SHA-256 of a session's resume tokens. Tokens are 256 random bits, so their hashes need no salt.
#[derive(Clone, Copy)]
pub struct TokenHashes {
    /// Of the newest.
    pub current: [u8; 32],
    /// Of the one before, while nothing shows that the client has read the newest and its connection is gone.
    pub before: Option<[u8; 32]>,
}

impl TokenHashes {
    /// Whether a token with this hash holds, in a time that tells nothing of either.
    #[must_use]
    pub fn admit(&self, offered: &[u8; 32]) -> bool {
        let matches = |hash: &[u8; 32]| verify_slices_are_equal(hash, offered).is_ok();
        matches(&self.current) || self.before.as_ref().is_some_and(matches)
    }
}

impl std::fmt::Debug for TokenHashes {
    /// Without the hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHashes")
    }
}

/// A session's place in a channel, as far as the channel's members do not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub channel: ChannelId,
    /// Its stream.
    pub stream: StreamId,
    /// How its voice travels.
    pub media: MediaTransport,
    /// The cipher of its datagrams, if there are any.
    pub cipher: Option<Cipher>,
    /// Audio channels of the stream, 1 or 2.
    pub channels: u8,
}

/// What another node needs to go on with a session.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Whose it is.
    pub user: UserView,
    /// What shows that somebody is its client.
    pub tokens: TokenHashes,
    /// Where it is.
    pub places: Vec<Place>,
}

/// Why a session is not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRefused {
    /// It is over, or never was.
    Unknown,
    /// The token is not its.
    WrongToken,
    /// What all nodes share cannot be reached.
    Unavailable,
}

/// What a node hears of sessions without having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionNotice {
    /// Another node has claimed a session of this one.
    Claimed(SessionId),
    /// Another node has switched an account off.
    AccountDisabled(UserId),
    /// Notices may have been lost, or records not been written: each session must be written anew.
    Reconnected,
}
