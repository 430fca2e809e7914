//! What people write, in channels and to each other.
//!
//! ```text
//!  apply:  lock the scope's row ──► draw numbers ──► write the messages ──► note the newest number ──► commit
//! ```
//!
//! The numbers are drawn behind the lock, so that within one scope whoever reads sees them appear in their order: a reader
//! who has everything up to one number never misses a lower one. A change of a message draws a number like a message.

use antiphon_core::{
    gateway::NotificationKind,
    ids::{ChannelId, MessageId, UserId},
};
use aws_lc_rs::digest::{SHA256, digest};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, micros, moment,
    notifications::notify,
    pools::{Dialect, on_db, transaction},
    words::words,
};

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

#[derive(FromRow)]
pub(super) struct MessageRow {
    id: i64,
    channel_id: Option<Uuid>,
    low_id: Option<Uuid>,
    high_id: Option<Uuid>,
    from_id: Uuid,
    username: String,
    content: String,
    mentions: String,
    reply_to: Option<i64>,
    created_us: i64,
    edited_us: Option<i64>,
    deleted_by: Option<Uuid>,
    changed_id: i64,
}

/// The columns of [`MessageRow`].
macro_rules! select_messages {
    ($rest:literal) => {
        concat!(
            "SELECT messages.id, channel_id, low_id, high_id, from_id, username, content, mentions, reply_to, created_us,
                 edited_us, deleted_by, changed_id
             FROM messages JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id ",
            $rest
        )
    };
}
impl TryFrom<MessageRow> for Message {
    type Error = StoreError;

    fn try_from(row: MessageRow) -> Result<Self> {
        Ok(Self {
            id: message_id(row.id)?,
            scope: scope_of(row.channel_id, row.low_id, row.high_id)?,
            from: UserId(row.from_id),
            username: row.username,
            content: row.content,
            mentions: row.mentions.split_whitespace().filter_map(|id| id.parse().ok()).collect(),
            reply_to: row.reply_to.map(message_id).transpose()?,
            created_at: moment(row.created_us)?,
            edited_at: row.edited_us.map(moment).transpose()?,
            deleted_by: row.deleted_by.map(UserId),
            changed: message_id(row.changed_id)?,
        })
    }
}

pub(super) fn scope_of(channel: Option<Uuid>, low: Option<Uuid>, high: Option<Uuid>) -> Result<Scope> {
    match (channel, low, high) {
        (Some(channel), None, None) => Ok(Scope::Room(ChannelId(channel))),
        (None, Some(low), Some(high)) => Ok(Scope::Pair(UserId(low), UserId(high))),
        _ => Err(StoreError::corrupt("a scope is neither a channel's nor two people's".to_owned())),
    }
}

pub(super) fn message_id(value: i64) -> Result<MessageId> {
    let id = u64::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} is no message's id")))?;
    Ok(MessageId(id))
}

/// An id as the database keeps it. One that no message can have stays one.
pub(super) fn stored(id: MessageId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

fn all(rows: Vec<MessageRow>) -> Result<Vec<Message>> {
    rows.into_iter().map(Message::try_from).collect()
}

fn mentions_text(mentions: &[UserId]) -> String {
    mentions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The message with the id `$id` in the scope `$scope`, not taken away, in the transaction `$tx`.
macro_rules! message_in {
    ($tx:ident, $scope:expr, $id:expr) => {{
        let row: Option<MessageRow> = sqlx::query_as(select_messages!(
            "WHERE messages.id = $1 AND messages.scope_id = $2 AND deleted_us IS NULL"
        ))
        .bind(stored($id))
        .bind($scope)
        .fetch_optional(&mut *$tx)
        .await?;
        row.map(Message::try_from).transpose()?
    }};
}

/// Writes `$new` as `$id`, in the transaction `$tx`.
macro_rules! post {
    ($tx:ident, $scope:ident, $id:ident, $new:ident, $now:ident, $slow_mode_s:ident, $told:ident) => {{
        'done: {
            if let Some(nonce) = &$new.nonce {
                let before: Option<MessageRow> = sqlx::query_as(select_messages!(
                    "WHERE messages.scope_id = $1 AND from_id = $2 AND nonce = $3"
                ))
                .bind($scope.id())
                .bind($new.from.0)
                .bind(nonce)
                .fetch_optional(&mut *$tx)
                .await?;
                if let Some(before) = before {
                    break 'done Outcome::Before(before.try_into()?);
                }
            }
            if let Some(reply_to) = $new.reply_to
                && message_in!($tx, $scope.id(), reply_to).is_none()
            {
                break 'done Outcome::Refused(Refusal::NoSuchReply);
            }
            if $new.is_slowed && $slow_mode_s > 0 {
                let newest: Option<i64> = sqlx::query_scalar(
                    "SELECT created_us FROM messages WHERE scope_id = $1 AND from_id = $2 ORDER BY id DESC LIMIT 1",
                )
                .bind($scope.id())
                .bind($new.from.0)
                .fetch_optional(&mut *$tx)
                .await?;
                let wait_us = newest.map_or(0, |newest| newest + $slow_mode_s * 1_000_000 - micros($now));
                // A clock that was set back makes nobody wait longer than the mode says.
                let wait_us = wait_us.min($slow_mode_s * 1_000_000);
                if wait_us > 0 {
                    let seconds = wait_us.unsigned_abs().div_ceil(1_000_000);
                    break 'done Outcome::Refused(Refusal::TooSoon { seconds });
                }
            }
            sqlx::query(
                "INSERT INTO messages
                     (id, scope_id, from_id, username, content, words, mentions, nonce, reply_to, created_us, changed_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $1)",
            )
            .bind($id)
            .bind($scope.id())
            .bind($new.from.0)
            .bind(&$new.username)
            .bind(&$new.content)
            .bind(words(&$new.content).join(" "))
            .bind(mentions_text(&$new.mentions))
            .bind(&$new.nonce)
            .bind($new.reply_to.map(stored))
            .bind(micros($now))
            .execute(&mut *$tx)
            .await?;
            for (user, kind) in &$new.notify {
                let (channel, ..) = $scope.columns();
                $told +=
                    notify!($tx, user.0, kind.as_str(), $new.from.0, &$new.username, channel, Some($id), micros($now));
            }
            let message = Message {
                id: message_id($id)?,
                scope: $scope,
                from: $new.from,
                username: $new.username.clone(),
                content: $new.content.clone(),
                mentions: $new.mentions.clone(),
                reply_to: $new.reply_to,
                created_at: moment(micros($now))?,
                edited_at: None,
                deleted_by: None,
                changed: message_id($id)?,
            };
            Outcome::Done(Event { number: message.id, what: Happening::Posted, message, reactions: Vec::new() })
        }
    }};
}

/// Changes what a message says, in the transaction `$tx`.
macro_rules! edit {
    ($tx:ident, $scope:ident, $number:ident, $id:ident, $by:ident, $content:ident, $mentions:ident, $now:ident) => {{
        match message_in!($tx, $scope.id(), *$id) {
            None => Outcome::Refused(Refusal::NoSuchMessage),
            Some(message) if message.from != *$by => Outcome::Refused(Refusal::NotYours),
            Some(message) if message.content == *$content => Outcome::Before(message),
            Some(message) => {
                sqlx::query(
                    "UPDATE messages SET content = $2, words = $3, mentions = $4, edited_us = $5, changed_id = $6
                     WHERE id = $1",
                )
                .bind(stored(*$id))
                .bind($content)
                .bind(words($content).join(" "))
                .bind(mentions_text($mentions))
                .bind(micros($now))
                .bind($number)
                .execute(&mut *$tx)
                .await?;
                let message = Message {
                    content: $content.clone(),
                    mentions: $mentions.clone(),
                    edited_at: Some(moment(micros($now))?),
                    changed: message_id($number)?,
                    ..message
                };
                Outcome::Done(Event {
                    number: message.changed,
                    what: Happening::Edited,
                    message,
                    reactions: Vec::new(),
                })
            }
        }
    }};
}

/// Takes a message away, in the transaction `$tx`.
macro_rules! delete {
    ($tx:ident, $scope:ident, $number:ident, $id:ident, $by:ident, $now:ident) => {{
        match message_in!($tx, $scope.id(), *$id) {
            None => Outcome::Refused(Refusal::NoSuchMessage),
            Some(message) => {
                sqlx::query(
                    "UPDATE messages SET content = '', words = '', mentions = '', deleted_us = $2, deleted_by = $3,
                         changed_id = $4
                     WHERE id = $1",
                )
                .bind(stored(*$id))
                .bind(micros($now))
                .bind($by.0)
                .bind($number)
                .execute(&mut *$tx)
                .await?;
                sqlx::query("DELETE FROM reactions WHERE message_id = $1")
                    .bind(stored(*$id))
                    .execute(&mut *$tx)
                    .await?;
                let message = Message {
                    content: String::new(),
                    mentions: Vec::new(),
                    deleted_by: Some(*$by),
                    changed: message_id($number)?,
                    ..message
                };
                let (number, what) = (message.changed, Happening::Deleted);
                Outcome::Done(Event { number, what, message, reactions: Vec::new() })
            }
        }
    }};
}

/// Puts a sign to a message or takes it back, in the transaction `$tx`.
macro_rules! react {
    ($tx:ident, $scope:ident, $number:ident, $id:ident, $by:ident, $emoji:ident, $remove:ident) => {{
        'done: {
            let Some(message) = message_in!($tx, $scope.id(), *$id) else {
                break 'done Outcome::Refused(Refusal::NoSuchMessage);
            };
            let changed = if *$remove {
                sqlx::query("DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3")
                    .bind(stored(*$id))
                    .bind($emoji)
                    .bind($by.0)
                    .execute(&mut *$tx)
                    .await?
                    .rows_affected()
            } else {
                let others: i64 = sqlx::query_scalar(
                    "SELECT COUNT(DISTINCT emoji) FROM reactions WHERE message_id = $1 AND emoji <> $2",
                )
                .bind(stored(*$id))
                .bind($emoji)
                .fetch_one(&mut *$tx)
                .await?;
                if others >= SIGNS_MAX {
                    break 'done Outcome::Refused(Refusal::TooManyReactions);
                }
                sqlx::query(
                    "INSERT INTO reactions (message_id, user_id, emoji, at_id) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (message_id, emoji, user_id) DO NOTHING",
                )
                .bind(stored(*$id))
                .bind($by.0)
                .bind($emoji)
                .bind($number)
                .execute(&mut *$tx)
                .await?
                .rows_affected()
            };
            if changed == 0 {
                break 'done Outcome::Before(message);
            }
            sqlx::query("UPDATE messages SET changed_id = $2 WHERE id = $1")
                .bind(stored(*$id))
                .bind($number)
                .execute(&mut *$tx)
                .await?;
            let signs: Vec<SignRow> = sqlx::query_as(
                "SELECT message_id, emoji, user_id FROM reactions WHERE message_id = $1 ORDER BY at_id LIMIT $2",
            )
            .bind(stored(*$id))
            .bind(SIGN_ROWS_MAX)
            .fetch_all(&mut *$tx)
            .await?;
            let message = Message { changed: message_id($number)?, ..message };
            let reactions = collected(signs).into_iter().next().map_or_else(Vec::new, |(_, signs)| signs);
            Outcome::Done(Event { number: message.changed, what: Happening::Reacted, message, reactions })
        }
    }};
}

#[derive(FromRow)]
struct SignRow {
    message_id: i64,
    emoji: String,
    user_id: Uuid,
}

/// Signs that are read at once; beyond that, counts say less than there are.
const SIGN_ROWS_MAX: i64 = 20_000;

/// The signs of each message, in the order of the rows.
fn collected(rows: Vec<SignRow>) -> std::collections::HashMap<i64, Vec<Signs>> {
    let mut collected: std::collections::HashMap<i64, Vec<Signs>> = std::collections::HashMap::new();
    for row in rows {
        let signs = collected.entry(row.message_id).or_default();
        let index = signs.iter().position(|sign| sign.emoji == row.emoji).unwrap_or_else(|| {
            signs.push(Signs { emoji: row.emoji.clone(), users: Vec::new(), count: 0 });
            signs.len() - 1
        });
        let sign = &mut signs[index];
        sign.count = sign.count.saturating_add(1);
        if sign.users.len() < SIGNERS_MAX {
            sign.users.push(UserId(row.user_id));
        }
    }
    collected
}

impl Store {
    /// Does `changes` in a scope, in order and in one step: all outcomes are stored when this returns.
    ///
    /// # Errors
    /// `Missing` when the channel does not exist; else only the database's. Nothing is stored then, as far as is known.
    pub async fn apply(&self, scope: Scope, changes: &[Change]) -> Result<Applied> {
        self.apply_noting(scope, changes, |_| {}).await
    }

    /// The same; `note` learns the outcomes before anybody else can see them. Where the database has it done again, it learns
    /// the new ones, too.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_noting(
        &self,
        scope: Scope,
        changes: &[Change],
        mut note: impl FnMut(&[Outcome]) + Send,
    ) -> Result<Applied> {
        let now = OffsetDateTime::now_utc();
        let (channel, low, high) = scope.columns();
        let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
        let applied = transaction!(self, |tx| {
            let (previous, slow_mode_s): (i64, i64) = sqlx::query_as(
                "INSERT INTO chat_scopes (scope_id, channel_id, low_id, high_id, last_id) VALUES ($1, $2, $3, $4, 0)
                 ON CONFLICT (scope_id) DO UPDATE SET last_id = chat_scopes.last_id RETURNING last_id, slow_mode_s",
            )
            .bind(scope.id())
            .bind(channel)
            .bind(low)
            .bind(high)
            .fetch_one(&mut *tx)
            .await?;
            let numbers = Dialect::draw(&mut tx, count).await?;
            let (mut outcomes, mut told) = (Vec::with_capacity(changes.len()), 0);
            for (change, number) in changes.iter().zip(numbers) {
                outcomes.push(match change {
                    Change::Post(new) => post!(tx, scope, number, new, now, slow_mode_s, told),
                    Change::Edit { id, by, content, mentions } => {
                        edit!(tx, scope, number, id, by, content, mentions, now)
                    }
                    Change::Delete { id, by } => delete!(tx, scope, number, id, by, now),
                    Change::React { id, by, emoji, remove } => react!(tx, scope, number, id, by, emoji, remove),
                });
            }
            let last = outcomes.iter().rev().find_map(|outcome| match outcome {
                Outcome::Done(event) => Some(stored(event.number)),
                Outcome::Before(_) | Outcome::Refused(_) => None,
            });
            if let Some(last) = last {
                sqlx::query("UPDATE chat_scopes SET last_id = $2 WHERE scope_id = $1")
                    .bind(scope.id())
                    .bind(last)
                    .execute(&mut *tx)
                    .await?;
            }
            note(&outcomes);
            tx.commit().await?;
            Ok((Applied { previous: message_id(previous)?, outcomes }, told))
        });
        let (applied, told) = applied?;
        self.note_written(told);
        Ok(applied)
    }

    /// The message with this id, also one that was taken away.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>> {
        let row: Option<MessageRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(select_messages!("WHERE messages.id = $1")).bind(stored(id)).fetch_optional(db).await?
        });
        row.map(Message::try_from).transpose()
    }

    /// At most `limit` messages of a scope, the oldest first, each with its signs; also those that were taken away.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn history(&self, scope: Scope, part: Part, limit: u32) -> Result<Vec<(Message, Vec<Signs>)>> {
        let (from, to, is_forward) = match part {
            Part::Newest => (0, i64::MAX, false),
            Part::Before(id) => (0, stored(id), false),
            Part::After(id) => (stored(id), i64::MAX, true),
        };
        let statement = if is_forward {
            select_messages!(
                "WHERE messages.scope_id = $1 AND messages.id > $2 AND messages.id < $3 ORDER BY messages.id LIMIT $4"
            )
        } else {
            select_messages!(
                "WHERE messages.scope_id = $1 AND messages.id > $2 AND messages.id < $3 ORDER BY messages.id DESC LIMIT $4"
            )
        };
        let mut rows: Vec<MessageRow> = on_db!(&self.readers, |db| {
            let query = sqlx::query_as(statement).bind(scope.id()).bind(from).bind(to);
            query.bind(i64::from(limit)).fetch_all(db).await?
        });
        if !is_forward {
            rows.reverse();
        }
        self.with_signs(scope, all(rows)?).await
    }

    /// Messages of one scope, in order, with their signs.
    async fn with_signs(&self, scope: Scope, messages: Vec<Message>) -> Result<Vec<(Message, Vec<Signs>)>> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return Ok(Vec::new()) };
        let rows: Vec<SignRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT message_id, emoji, user_id FROM reactions JOIN messages ON messages.id = reactions.message_id
                 WHERE messages.scope_id = $1 AND messages.id >= $2 AND messages.id <= $3 ORDER BY at_id LIMIT $4",
            )
            .bind(scope.id())
            .bind(stored(first.id))
            .bind(stored(last.id))
            .bind(SIGN_ROWS_MAX)
            .fetch_all(db)
            .await?
        });
        let mut signs = collected(rows);
        let with = |message: Message| {
            let signs = signs.remove(&stored(message.id)).unwrap_or_default();
            (message, signs)
        };
        Ok(messages.into_iter().map(with).collect())
    }

    /// What happened in a scope after the number `since`, in order: at most `limit` messages and as many changes. Several
    /// changes of one message are told as one. What is yielded is everything up to its last number.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn happened(&self, scope: Scope, since: MessageId, limit: u32) -> Result<Vec<Event>> {
        // What is stored while the two readings below go on may be in one of them and not in the other.
        let newest = self.newest(scope).await?;
        let (new, changed): (Vec<MessageRow>, Vec<MessageRow>) = on_db!(&self.readers, |db| {
            let new =
                select_messages!("WHERE messages.scope_id = $1 AND messages.id > $2 ORDER BY messages.id LIMIT $3");
            let changed = select_messages!(
                "WHERE messages.scope_id = $1 AND changed_id > $2 AND changed_id <> messages.id ORDER BY changed_id LIMIT $3"
            );
            let changed = sqlx::query_as(changed).bind(scope.id()).bind(stored(since)).bind(i64::from(limit));
            let changed = changed.fetch_all(db).await?;
            let new = sqlx::query_as(new).bind(scope.id()).bind(stored(since)).bind(i64::from(limit));
            (new.fetch_all(db).await?, changed)
        });
        let full = |rows: &Vec<MessageRow>| rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut bound, is_cut) = (stored(newest), [full(&new), full(&changed)]);
        if is_cut[0] {
            bound = new.last().map_or(bound, |row| bound.min(row.id));
        }
        let last_change = changed.last().map(|row| row.changed_id);
        if is_cut[1] {
            bound = last_change.map_or(bound, |last| bound.min(last));
        }
        let posted = all(new)?.into_iter().filter(|message| message.deleted_by.is_none());
        let posted =
            posted.map(|message| Event { number: message.id, what: Happening::Posted, message, reactions: Vec::new() });
        let mut events: Vec<Event> = posted.collect();
        for message in all(changed)? {
            events.push(self.as_change(message).await?);
        }
        events.retain(|event| stored(event.number) <= bound);
        events.sort_unstable_by_key(|event| event.number);
        Ok(events)
    }

    async fn as_change(&self, message: Message) -> Result<Event> {
        let mut with = self.with_signs(message.scope, vec![message]).await?;
        let (message, reactions) = with.pop().ok_or(StoreError::Missing)?;
        let what = match (message.deleted_by, message.edited_at) {
            (Some(_), _) => Happening::Deleted,
            (None, Some(_)) => Happening::Edited,
            (None, None) => Happening::Reacted,
        };
        Ok(Event { number: message.changed, what, message, reactions })
    }

    /// The newest number of a scope; zero before the first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn newest(&self, scope: Scope) -> Result<MessageId> {
        let newest: Option<i64> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT last_id FROM chat_scopes WHERE scope_id = $1")
                .bind(scope.id())
                .fetch_optional(db)
                .await?
        });
        message_id(newest.unwrap_or(0))
    }

    /// The scopes in which something happened after the number `since`, with their newest numbers, at most `limit`, the
    /// oldest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn changed_scopes(&self, since: MessageId, limit: u32) -> Result<Vec<(Scope, MessageId)>> {
        /// Channel, the two people, the newest number.
        type Row = (Option<Uuid>, Option<Uuid>, Option<Uuid>, i64);
        let rows: Vec<Row> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT channel_id, low_id, high_id, last_id FROM chat_scopes WHERE last_id > $1 ORDER BY last_id LIMIT $2",
            )
            .bind(stored(since))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        });
        rows.into_iter()
            .map(|(channel, low, high, last)| Ok((scope_of(channel, low, high)?, message_id(last)?)))
            .collect()
    }

    /// The newest number of all.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn newest_of_all(&self) -> Result<MessageId> {
        let newest: Option<i64> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT MAX(last_id) FROM chat_scopes").fetch_one(db).await?
        });
        message_id(newest.unwrap_or(0))
    }
}
