//! What nodes tell each other of a channel: entries of its journal, and what an operation brought.

use std::sync::Arc;

use antiphon_core::{
    gateway::{Position, ServerMessage},
    ids::{ChannelId, SessionId, UserId},
};

use super::membership::Member;

/// One entry of a channel's journal, with what only nodes know.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// What clients are told.
    pub event: Arc<ServerMessage>,
    /// The session of the member that it is about.
    pub session: SessionId,
    /// Who did it, when not the member.
    pub by: Option<UserId>,
    /// What whoever did it has to say.
    pub message: Option<String>,
}

/// What happened after the place a room knew, up to and including the change just made.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Every entry, in order.
    Entries(Vec<Entry>),
    /// Too much happened, or nobody knows how much: how things are now.
    State {
        /// Everyone in the channel.
        members: Vec<Member>,
        /// The newest entry's place.
        position: Position,
    },
}

/// What all nodes share cannot be reached, or this node may not act for the others now. Nothing was changed, or what
/// was changed will be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the nodes share cannot be reached now")]
pub struct Unavailable;

/// Why somebody did not become a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    /// All places are taken.
    Full,
    /// The stream id is another's; draw again.
    StreamTaken,
    /// It cannot be done now.
    Unavailable,
}

impl From<Unavailable> for JoinRefused {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// Somebody became a member.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who, as they are now.
    pub member: Member,
    /// Everyone, the new one included.
    pub members: Vec<Member>,
    /// The newest entry's place.
    pub position: Position,
    /// What happened since the place known, the joining included.
    pub news: News,
}

/// A member left or is otherwise not as before.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The member as they are now, or as they were when they left.
    pub member: Member,
    /// What happened since the place known, this change included.
    pub news: News,
}

/// What a node is told without asking.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Something happened in a channel that is watched.
    Entry {
        /// Which channel.
        channel: ChannelId,
        /// What.
        entry: Entry,
    },
    /// What happened in a channel that is watched cannot be told entry by entry: it must be read anew.
    Lost {
        /// Which channel.
        channel: ChannelId,
    },
    /// Notices may have been lost: every watched channel must be read anew, and this node's own members restored.
    Reconnected,
    /// Another node has taken up a session of this one.
    SessionClaimed {
        /// Which session.
        session: SessionId,
    },
}
