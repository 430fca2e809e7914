//! What people write, in channels and to each other.
//!
//! ```text
//!  apply:  lock the scope's row ──► draw numbers ──► write the messages ──► note the newest number ──► commit
//! ```
//!
//! The numbers are drawn behind the lock, so that within one scope whoever reads sees them appear in their order: a reader
//! who has everything up to one number never misses a lower one. A change of a message draws a number like a message.

mod apply;
mod reading;
mod rows;

use antiphon_core::{
    gateway::NotificationKind,
    ids::{ChannelId, MessageId, UserId},
};
use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use self::rows::{MessageRow, message_id, scope_of, stored};

/// Where messages are: in a channel, or between two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A channel.
    Room(ChannelId),
    /// Two people, perhaps the same one twice.
    Pair(UserId, UserId),
}

impl Scope {
    /// Between two people, whoever is named first.
    #[must_use]
    pub fn pair(one: UserId, other: UserId) -> Self {
        Self::Pair(one.min(other), one.max(other))
    }

    /// A channel's id, or the hash of both people's.
    pub(super) fn id(self) -> Uuid {
        match self {
            Self::Room(channel) => channel.0,
            Self::Pair(low, high) => {
                let both = [&b"antiphon pair"[..], low.0.as_bytes(), high.0.as_bytes()].concat();
                let hash = digest(&SHA256, &both);
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&hash.as_ref()[..16]);
                uuid::Builder::from_custom_bytes(bytes).into_uuid()
            }
        }
    }

    fn columns(self) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Room(channel) => (Some(channel.0), None, None),
            Self::Pair(low, high) => (None, Some(low.0), Some(high.0)),
        }
    }

    /// Whether somebody is one of the two.
    #[must_use]
    pub fn is_of(self, user: UserId) -> bool {
        matches!(self, Self::Pair(low, high) if low == user || high == user)
    }
}

/// A message as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Grows within its scope.
    pub id: MessageId,
    /// Where it is.
    pub scope: Scope,
    /// Who wrote it. The account may be gone.
    pub from: UserId,
    /// What they were called then.
    pub username: String,
    /// What they wrote; empty once it was taken away.
    pub content: String,
    /// Whom it names.
    pub mentions: Vec<UserId>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// When it was changed.
    pub edited_at: Option<OffsetDateTime>,
    /// Who took it away.
    pub deleted_by: Option<UserId>,
    /// The number of its last change; its own at first.
    pub changed: MessageId,
}

impl std::fmt::Debug for Message {
    /// Without what it says.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} by {} in {:?})", self.id, self.from, self.scope)
    }
}

/// A message to be written. Its content is checked already.
#[derive(Clone)]
pub struct NewMessage {
    /// By whom.
    pub from: UserId,
    /// What they are called.
    pub username: String,
    /// What it says.
    pub content: String,
    /// Whom it names.
    pub mentions: Vec<UserId>,
    /// The sender's own name for it.
    pub nonce: Option<String>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Whether the scope's slow mode holds for the sender.
    pub is_slowed: bool,
    /// Who is told of it besides those who read there, and why. Nobody twice.
    pub notify: Vec<(UserId, NotificationKind)>,
}

/// What is to be done in a scope.
#[derive(Clone)]
pub enum Change {
    /// Write.
    Post(NewMessage),
    /// Make a message say something else, if `by` wrote it.
    Edit {
        /// Which.
        id: MessageId,
        /// Who asks.
        by: UserId,
        /// What it is to say.
        content: String,
        /// Whom it names then.
        mentions: Vec<UserId>,
    },
    /// Take a message away.
    Delete {
        /// Which.
        id: MessageId,
        /// Who asks.
        by: UserId,
    },
    /// Put a sign to a message, or take it back.
    React {
        /// To which.
        id: MessageId,
        /// Whose.
        by: UserId,
        /// The sign.
        emoji: String,
        /// Take it back.
        remove: bool,
    },
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, and is to be told.
    Done(Event),
    /// It was stored before, or changes nothing: the message as it is.
    Before(Message),
    /// It is refused.
    Refused(Refusal),
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such message there (any more).
    NoSuchMessage,
    /// There is no message there that this one could answer.
    NoSuchReply,
    /// Somebody else wrote it.
    NotYours,
    /// Slow mode: again in so many seconds.
    TooSoon {
        /// How many.
        seconds: u64,
    },
    /// The message has as many different signs as it may have.
    TooManyReactions,
}

/// Something that happened in a scope, under its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows within the scope.
    pub number: MessageId,
    /// What.
    pub what: Happening,
    /// The message as it is then.
    pub message: Message,
    /// Its signs; empty for a new one.
    pub reactions: Vec<Signs>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A message was written.
    Posted,
    /// It says something else.
    Edited,
    /// It was taken away.
    Deleted,
    /// It has other signs.
    Reacted,
}

/// A sign at a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    /// Which.
    pub emoji: String,
    /// Whose, who came first before others; at most [`SIGNERS_MAX`].
    pub users: Vec<UserId>,
    /// How many.
    pub count: u32,
}

/// What became of several changes.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The newest number before them.
    pub previous: MessageId,
    /// One for each.
    pub outcomes: Vec<Outcome>,
}

/// Whose signs are named at most.
pub const SIGNERS_MAX: usize = 100;

/// Different signs that one message may have.
pub const SIGNS_MAX: i64 = 20;

/// Which part of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The newest.
    Newest,
    /// The newest of those before this one.
    Before(MessageId),
    /// The oldest of those after this one.
    After(MessageId),
}
