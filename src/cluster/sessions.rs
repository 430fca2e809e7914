//! Which node has a gateway session, and what another needs to go on with it.

use antiphon_core::{
    gateway::{Cipher, MediaMode, MediaTransport, Position, UserView},
    ids::{ChannelId, NodeNumber, SessionId, StreamId, UserId},
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::{Deserialize, Serialize};

use super::{entry::Unavailable, listening::ListeningNews, memory::MemoryRecords, redis::RedisRecords};

/// The SHA-256 of a session's resume tokens. Tokens are 256 random bits, so their hashes need no salt.
#[derive(Clone, Copy)]
pub struct TokenHashes {
    /// Of the newest.
    pub current: [u8; 32],
    /// Of the one before, while nothing shows that the client has read the newest: until then a claim with it succeeds
    /// again, also through another node.
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
    /// Whether it hears streams or a mix.
    pub mode: MediaMode,
}

/// How often a session has moved: of several that take it up shortly after each other, the last one has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moves(pub u64);

/// What another node needs to go on with a session.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Whose it is.
    pub user: UserView,
    /// What shows that somebody is its client.
    pub tokens: TokenHashes,
    /// Where it is.
    pub places: Vec<Place>,
    /// Where it reads and writes without voice.
    pub texts: Vec<ChannelId>,
    /// From which place of a channel's journal on it is there.
    pub entries: Vec<(ChannelId, Position)>,
    /// How often it had moved when its node took it up.
    pub moves: Moves,
}

/// Where somebody is, through one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Channels that they read and write in without voice.
    pub texts: Vec<ChannelId>,
    /// Channels whose voice they are in.
    pub voices: Vec<ChannelId>,
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
#[derive(Clone, Debug, PartialEq)]
pub enum SessionNotice {
    /// Another node has claimed a session of this one.
    Claimed(SessionId),
    /// Another node has switched an account off.
    AccountDisabled(UserId),
    /// What another node tells this one's sessions that watch.
    Listening(ListeningNews),
    /// Notices may have been lost, or records not been written: each session must be written anew.
    Reconnected,
}

/// The sessions of all nodes, as one node reaches them. Cheap to clone.
///
/// A record is its node's until another claims it. The form keeps it alive until it is released or claimed; a node that
/// dies leaves it for the resume grace.
#[derive(Clone, Debug)]
pub enum SessionRecords {
    /// A node on its own: nobody else could claim anything, so nothing is kept.
    Alone,
    /// In this process's memory, for several nodes in it.
    Memory(MemoryRecords),
    /// In Redis, which the nodes of a cluster share.
    Redis(RedisRecords),
}

impl SessionRecords {
    /// Whether records are kept at all.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Alone)
    }

    /// Writes how a session is now, as long as it is this node's, or nobody's because its record was lost. False when
    /// it has moved on, to another node or to this one again: whoever had it must let go of it.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn refresh(&self, session: SessionId, record: SessionRecord) -> Result<bool, Unavailable> {
        match self {
            Self::Alone => Ok(true),
            Self::Memory(memory) => memory.refresh(session, record),
            Self::Redis(redis) => redis.refresh(session, record).await,
        }
    }

    /// Moves a session to this node, if the hash `offered` is that of its token, or of the one before where that still
    /// holds. From then on `tokens` hold, and the node that had it hears [`SessionNotice::Claimed`]. One step: of nodes
    /// that claim with the same token one succeeds, unless `tokens` let that token hold on; then the last one has it.
    ///
    /// # Errors
    /// When the session is over, the token is not its, or what all nodes share cannot be reached.
    pub async fn claim(
        &self,
        session: SessionId,
        offered: [u8; 32],
        tokens: TokenHashes,
    ) -> Result<SessionRecord, ClaimRefused> {
        match self {
            Self::Alone => Err(ClaimRefused::Unknown),
            Self::Memory(memory) => memory.claim(session, offered, tokens),
            Self::Redis(redis) => redis.claim(session, offered, tokens).await,
        }
    }

    /// Forgets a session that is over, if it is this node's.
    pub async fn release(&self, session: SessionId) {
        match self {
            Self::Alone => {}
            Self::Memory(memory) => memory.release(session),
            Self::Redis(redis) => redis.release(session).await,
        }
    }

    /// Says where somebody is through this node; `None`: nowhere, they have no session here.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn set_whereabouts(&self, user: UserId, whereabouts: Option<Whereabouts>) -> Result<(), Unavailable> {
        match self {
            Self::Alone => Ok(()),
            Self::Memory(memory) => memory.set_whereabouts(user, whereabouts),
            Self::Redis(redis) => redis.set_whereabouts(user, whereabouts).await,
        }
    }

    /// Where each of `users` is through the other live nodes: one entry for each node that they have a session at.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached.
    pub async fn whereabouts(&self, users: &[UserId]) -> Result<Vec<Vec<Whereabouts>>, Unavailable> {
        match self {
            Self::Alone => Ok(vec![Vec::new(); users.len()]),
            Self::Memory(memory) => memory.whereabouts(users),
            Self::Redis(redis) => redis.whereabouts(users).await,
        }
    }

    /// Tells all other nodes that an account was switched off.
    pub async fn account_disabled(&self, user: UserId) {
        match self {
            Self::Alone => {}
            Self::Memory(memory) => memory.account_disabled(user),
            Self::Redis(redis) => redis.account_disabled(user).await,
        }
    }

    /// Tells the watching sessions of another node who listens here. What cannot be told now is lost.
    pub async fn tell_of_listening(&self, node: NodeNumber, news: &ListeningNews) {
        match self {
            Self::Alone => {}
            Self::Memory(memory) => memory.tell_of_listening(node, news),
            Self::Redis(redis) => redis.tell_of_listening(node, news).await,
        }
    }
}
