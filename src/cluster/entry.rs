//! The values that pass between membership and those who use it.

use std::sync::Arc;

use antiphon_core::{
    gateway::{LeaveReason, MediaTransport, Position, ServerMessage, UserView},
    ids::{ChannelId, MessageId, NodeNumber, NotificationId, SessionId, StreamId, UserId},
};
use serde::{Deserialize, Serialize};

/// What all nodes share cannot be reached: nothing is known to have changed, though it may have. A
/// [`Notice::Reconnected`] follows once it can be reached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what all nodes share cannot be reached")]
pub struct Unavailable;

/// A member of a channel's voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserView,
    /// Through which gateway session.
    pub session: SessionId,
    /// The node that has the session.
    pub node: NodeNumber,
    /// Their stream.
    pub stream: StreamId,
    /// How their voice travels.
    pub media: MediaTransport,
    /// Muted themselves.
    pub muted: bool,
    /// Deafened themselves.
    pub deafened: bool,
    /// Muted by a moderator.
    pub server_muted: bool,
    /// Has one of the places that a room has for those who publish. As last heard: no entry of the journal tells of it.
    pub publishes: bool,
}

/// What became of a wish to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// The member has a place, or had one already; or has none any more, where it was given back.
    Done,
    /// As many publish as may.
    Full,
    /// There is no such member, or they are another session's or node's.
    None,
}

/// Somebody who wants to be a member.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Who.
    pub user: UserView,
    /// Through which gateway session.
    pub session: SessionId,
    /// The stream id to have, drawn at random: it must differ from every other in the channel.
    pub stream: StreamId,
    /// How their voice travels.
    pub media: MediaTransport,
}

/// One entry of a channel's journal: the event that members are told, with what only nodes know.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place, the same as in the event.
    pub position: Position,
    /// What members are told.
    pub event: Arc<ServerMessage>,
    /// What it is about.
    pub about: About,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// A member.
    Member(AboutMember),
    /// What somebody wrote.
    Chat(AboutChat),
    /// The channel itself.
    Channel,
}

/// What only nodes know of an entry about a member.
#[derive(Clone, Debug, PartialEq)]
pub struct AboutMember {
    /// The session of the member that it is about.
    pub session: SessionId,
    /// The node that has the session.
    pub node: NodeNumber,
    /// Whether the member is muted by a moderator now; `UserJoined` does not say so.
    pub server_muted: bool,
    /// Who did it; `None` when it was the server.
    pub by: Option<UserId>,
    /// A moderator's words to the member.
    pub message: Option<String>,
}

/// What only nodes know of an entry about something written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AboutChat {
    /// Its number, by which the database keeps it.
    pub number: MessageId,
    /// That of the one before: whoever has not told that one has missed something.
    pub previous: MessageId,
}

impl Entry {
    /// What is known of the member that it is about.
    #[must_use]
    pub fn member(&self) -> Option<&AboutMember> {
        match &self.about {
            About::Member(about) => Some(about),
            About::Chat(_) | About::Channel => None,
        }
    }
}

/// Something written, on its way into the journal.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its number, by which the database keeps it. Grows within the channel.
    pub number: MessageId,
    /// What members are to be told, without a place.
    pub event: ServerMessage,
}

/// What became of something written that was to be appended.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Whether it was: else the journal had other than what was said to be its newest.
    pub is_done: bool,
    /// The number of the newest that the journal has, or had when it began.
    pub newest: MessageId,
    /// What happened since the place that the caller knew.
    pub news: News,
    /// The newest entry's place.
    pub position: Position,
}

/// What happened after the place that a room knew, up to and including the change just made.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Every entry, in order. Where no place was known: only those of the change itself.
    Entries(Vec<Entry>),
    /// How things are now, where the journal does not reach back so far.
    State {
        /// Everyone in the channel.
        members: Vec<Member>,
        /// The newest entry's place.
        position: Position,
    },
}

/// Why somebody did not become a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    /// All places are taken.
    Full,
    /// The stream id is another's; draw again.
    StreamTaken,
    /// What all nodes share cannot be reached.
    Unavailable,
}

/// The end of a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Whose.
    pub user: UserId,
    /// Only if the member is this session's, and the session this node's; anybody's when `None`.
    pub session: Option<SessionId>,
    /// Why.
    pub reason: LeaveReason,
    /// Who did it; `None` when it was the server.
    pub by: Option<UserId>,
    /// A moderator's words to the member.
    pub message: Option<String>,
}

impl Leave {
    /// By the member's own hand.
    #[must_use]
    pub fn own(user: UserId, session: Option<SessionId>, reason: LeaveReason) -> Self {
        Self { user, session, reason, by: Some(user), message: None }
    }

    /// By another's hand, or the server's, whatever session of theirs it is.
    #[must_use]
    pub fn forced(user: UserId, reason: LeaveReason, by: Option<UserId>, message: Option<String>) -> Self {
        Self { user, session: None, reason, by, message }
    }
}

/// Somebody became a member.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Who, as they are now.
    pub member: Member,
    /// Everyone, the new one included.
    pub members: Vec<Member>,
    /// The place of their `UserJoined`.
    pub position: Position,
    /// What happened, the `UserJoined` last; the same user through an older session leaves just before.
    pub news: News,
}

/// A member left or changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Who, as they are now, or as they were when they left.
    pub member: Member,
    /// What happened. Where the change changed nothing, only what happened before.
    pub news: News,
}

/// One's own switches; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceChange {
    /// Nothing of theirs is to be forwarded.
    pub muted: Option<bool>,
    /// Nothing is to be sent to them.
    pub deafened: Option<bool>,
}

/// A channel at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Everyone in it.
    pub members: Vec<Member>,
    /// The newest entry's place.
    pub position: Position,
    /// Every entry after the place asked for; `None` when that cannot be said.
    pub missed: Option<Vec<Entry>>,
}

/// What a node hears without having asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Something happened in a channel that this node watches. One may be lost, and one's own may come back.
    Entry {
        /// Where.
        channel: ChannelId,
        /// What.
        entry: Entry,
    },
    /// What happened in a channel that this node watches is not told entry by entry: its journal must be read.
    Lost {
        /// Which.
        channel: ChannelId,
    },
    /// Notices may have been lost, or calls have failed and work again: everything watched must be read anew.
    Reconnected,
    /// Another node changed a channel's settings in the database, deleted it, or banned somebody.
    ChannelChanged {
        /// Which.
        channel: ChannelId,
    },
    /// Another node changed in the database what somebody is in a channel.
    StandingChanged {
        /// In which.
        channel: ChannelId,
        /// Who.
        user: UserId,
    },
    /// Another node put somebody out of a channel: whoever reads and writes there without voice is in no journal.
    Removed {
        /// Of which.
        channel: ChannelId,
        /// Who, and why.
        leave: Leave,
    },
    /// Another node has something for single people.
    Direct(Direct),
}

/// What one node tells the others for single people. It may be lost: what must not be is in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Direct {
    /// Two people have something new of each other.
    Written {
        /// One of them.
        low: UserId,
        /// The other.
        high: UserId,
        /// The newest number before.
        previous: MessageId,
        /// The newest number now.
        newest: MessageId,
    },
    /// Somebody writes to somebody.
    Typing {
        /// Who.
        from: UserId,
        /// Their name.
        username: String,
        /// To whom.
        to: UserId,
    },
    /// Somebody writes in a channel.
    TypingIn {
        /// Who.
        from: UserId,
        /// Their name.
        username: String,
        /// Where.
        channel: ChannelId,
    },
    /// Somebody has read.
    Read {
        /// Who.
        user: UserId,
        /// Up to which message.
        id: MessageId,
        /// In which channel.
        channel: Option<ChannelId>,
        /// Or of whom.
        with: Option<UserId>,
    },
    /// Whether or where somebody is there has changed.
    Presence {
        /// Who.
        user: UserId,
    },
    /// Somebody is to be told of something.
    Notified {
        /// Who.
        user: UserId,
        /// Of what.
        id: NotificationId,
    },
    /// Somebody has read some of what they were told of.
    NotificationsRead {
        /// Who.
        user: UserId,
    },
}
