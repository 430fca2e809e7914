//! Changes of one scope, carried out in order and in one step.

use antiphon_core::ids::UserId;
use time::OffsetDateTime;

use super::{
    Applied, Change, Event, Happening, Message, Outcome, Refusal, SIGNS_MAX, Scope,
    rows::{MessageRow, SIGN_ROWS_MAX, SignRow, collected, message_id, select_messages, stored},
};
use crate::store::{
    Result, Store, micros, moment,
    notifications::notify,
    pools::{Dialect, transaction},
    words::words,
};

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
}
