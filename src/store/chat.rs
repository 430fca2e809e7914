//! What belongs to chat beside the messages: each channel's terms, what was read, who blocks whom, search, retention.

use antiphon_core::{
    ids::{ChannelId, MessageId, UserId},
    permission::HistoryFor,
};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Message, Result, Scope, Store, StoreError, count,
    messages::{MessageRow, message_id, scope_of, stored},
    micros,
    pools::{Dialect, Lock, on_db, transaction},
};

/// A channel's terms for what is written in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatTerms {
    /// How many seconds members wait between two messages of their own; 0 for none.
    pub slow_mode_s: u32,
    /// How many messages are kept; `None`: any number.
    pub keep_count: Option<u32>,
    /// How many seconds they are kept; `None`: for good.
    pub keep_s: Option<u32>,
    /// Who may read what was written before.
    pub history: HistoryFor,
}

/// What somebody has not read in one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where.
    pub scope: Scope,
    /// How many, of others, at most [`UNREAD_MAX`].
    pub unread: u32,
    /// Of those, how many name them.
    pub mentions: u32,
    /// The newest read; 0: none.
    pub last_read: MessageId,
    /// The newest there is.
    pub last_id: MessageId,
}

/// More unread messages are not counted.
pub const UNREAD_MAX: u32 = 1_000;

/// Scopes that one answer about unread messages names at most.
const SCOPES_MAX: i64 = 500;

/// How many messages were deleted for their age or number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// So many.
    pub count: u64,
    /// Whether there are probably more.
    pub more: bool,
}

/// Messages that one step deletes at most.
const EXPIRED_MAX: i64 = 500;

#[derive(FromRow)]
struct TermsRow {
    slow_mode_s: i64,
    keep_count: Option<i64>,
    keep_s: Option<i64>,
    history: String,
}

impl TryFrom<TermsRow> for ChatTerms {
    type Error = StoreError;

    fn try_from(row: TermsRow) -> Result<Self> {
        let unknown = || StoreError::corrupt(format!("{:?} says not who may read", row.history));
        Ok(Self {
            slow_mode_s: count(row.slow_mode_s)?,
            keep_count: row.keep_count.map(count).transpose()?,
            keep_s: row.keep_s.map(count).transpose()?,
            history: HistoryFor::from_text(&row.history).ok_or_else(unknown)?,
        })
    }
}

#[derive(FromRow)]
struct UnreadRow {
    channel_id: Option<Uuid>,
    low_id: Option<Uuid>,
    high_id: Option<Uuid>,
    last_id: i64,
    read_id: i64,
    unread: i64,
    mentions: i64,
}

impl Store {
    /// A channel's terms.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn chat_terms(&self, channel: ChannelId) -> Result<ChatTerms> {
        let row: Option<TermsRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT slow_mode_s, keep_count, keep_s, history FROM chat_scopes WHERE scope_id = $1")
                .bind(channel.0)
                .fetch_optional(db)
                .await?
        });
        row.map_or(Ok(ChatTerms::default()), ChatTerms::try_from)
    }

    /// Sets them.
    ///
    /// # Errors
    /// `Missing` when the channel does not exist.
    pub async fn set_chat_terms(&self, channel: ChannelId, terms: ChatTerms) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO chat_scopes (scope_id, channel_id, last_id, slow_mode_s, keep_count, keep_s, history)
                 VALUES ($1, $1, 0, $2, $3, $4, $5)
                 ON CONFLICT (scope_id) DO UPDATE SET slow_mode_s = excluded.slow_mode_s,
                     keep_count = excluded.keep_count, keep_s = excluded.keep_s, history = excluded.history",
            )
            .bind(channel.0)
            .bind(i64::from(terms.slow_mode_s))
            .bind(terms.keep_count.map(i64::from))
            .bind(terms.keep_s.map(i64::from))
            .bind(terms.history.as_str())
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Whether `user` lets nothing of `other` through.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn has_blocked(&self, user: UserId, other: UserId) -> Result<bool> {
        let found: i64 = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM blocks WHERE user_id = $1 AND blocked_id = $2")
                .bind(user.0)
                .bind(other.0)
                .fetch_one(db)
                .await?
        });
        Ok(found > 0)
    }

    /// Lets nothing of `other` through to `user`, or lets it through again.
    ///
    /// # Errors
    /// `LimitReached` when they block as many as they may; `Missing` when `user` is gone.
    pub async fn set_blocked(&self, user: UserId, other: UserId, is_blocked: bool) -> Result<()> {
        let done = on_db!(&self.writers, |db| {
            if is_blocked {
                sqlx::query(
                    "INSERT INTO blocks (user_id, blocked_id, since_us) SELECT $1, $2, $3
                     WHERE (SELECT COUNT(*) FROM blocks WHERE user_id = $1) < $4
                     ON CONFLICT (user_id, blocked_id) DO UPDATE SET since_us = blocks.since_us",
                )
                .bind(user.0)
                .bind(other.0)
                .bind(micros(OffsetDateTime::now_utc()))
                .bind(BLOCKS_MAX)
                .execute(db)
                .await?
                .rows_affected()
            } else {
                let delete = "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2";
                sqlx::query(delete).bind(user.0).bind(other.0).execute(db).await?;
                1
            }
        });
        if done == 0 { Err(StoreError::LimitReached("people that one can block")) } else { Ok(()) }
    }

    /// Notes that `user` has read up to `id`; what they have read of later messages stays. Yields up to where they have
    /// read; `None` when nothing was ever written there.
    ///
    /// # Errors
    /// `Missing` when `user` is gone.
    pub async fn mark_read(&self, user: UserId, scope: Scope, id: MessageId) -> Result<Option<MessageId>> {
        let read: Option<i64> = on_db!(&self.writers, |db| {
            sqlx::query_scalar(
                "INSERT INTO chat_reads (user_id, scope_id, read_id)
                 SELECT $1, scope_id, CASE WHEN last_id < $3 THEN last_id ELSE $3 END FROM chat_scopes WHERE scope_id = $2
                 ON CONFLICT (user_id, scope_id) DO UPDATE SET read_id =
                     CASE WHEN excluded.read_id > chat_reads.read_id THEN excluded.read_id ELSE chat_reads.read_id END
                 RETURNING read_id",
            )
            .bind(user.0)
            .bind(scope.id())
            .bind(stored(id))
            .fetch_optional(db)
            .await?
        });
        read.map(message_id).transpose()
    }

    /// What `user` has not read: in channels that they belong to or have read, and of people.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unread(&self, user: UserId) -> Result<Vec<Unread>> {
        let rows: Vec<UnreadRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT chat_scopes.channel_id, low_id, high_id, last_id, COALESCE(read_id, 0) AS read_id,
                     (SELECT COUNT(*) FROM (SELECT 1 FROM messages WHERE messages.scope_id = chat_scopes.scope_id
                          AND messages.id > COALESCE(read_id, 0) AND from_id <> $1 AND deleted_us IS NULL
                          LIMIT $3) AS counted) AS unread,
                     (SELECT COUNT(*) FROM (SELECT 1 FROM messages WHERE messages.scope_id = chat_scopes.scope_id
                          AND messages.id > COALESCE(read_id, 0) AND from_id <> $1 AND mentions LIKE $2
                          LIMIT $3) AS counted) AS mentions
                 FROM chat_scopes
                 LEFT JOIN chat_reads ON chat_reads.scope_id = chat_scopes.scope_id AND chat_reads.user_id = $1
                 WHERE last_id > 0 AND (low_id = $1 OR high_id = $1 OR chat_reads.user_id IS NOT NULL
                     OR chat_scopes.channel_id IN (SELECT channel_id FROM memberships WHERE user_id = $1))
                 ORDER BY last_id DESC LIMIT $4",
            )
            .bind(user.0)
            .bind(format!("%{user}%"))
            .bind(i64::from(UNREAD_MAX))
            .bind(SCOPES_MAX)
            .fetch_all(db)
            .await?
        });
        let unread = |row: UnreadRow| {
            Ok(Unread {
                scope: scope_of(row.channel_id, row.low_id, row.high_id)?,
                unread: count(row.unread)?,
                mentions: count(row.mentions)?,
                last_read: message_id(row.read_id)?,
                last_id: message_id(row.last_id)?,
            })
        };
        rows.into_iter().map(unread).collect()
    }

    /// The newest messages with all of `words` (normalised, at least one) in `channels` and, for `pairs_of`, between them and
    /// others, the newest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn search(
        &self,
        words: &[String],
        channels: &[ChannelId],
        pairs_of: Option<UserId>,
        before: Option<MessageId>,
        limit: u32,
    ) -> Result<Vec<Message>> {
        // One text that both databases take for a list, so that no statement is put together from parts.
        let ids: Vec<String> = channels.iter().map(|channel| channel.0.simple().to_string()).collect();
        let rows: Vec<MessageRow> = on_db!(&self.readers, |db| {
            let (statement, all_words) = search_of(db, words);
            sqlx::query_as(statement)
                .bind(all_words)
                .bind(ids.join(" "))
                .bind(pairs_of.map(|user| user.0))
                .bind(before.map_or(i64::MAX, stored))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
        });
        rows.into_iter().map(Message::try_from).collect()
    }

    /// Deletes messages that their channel keeps no longer at `now`, some hundred at most. Of several nodes one does so at a
    /// time.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn expire_messages(&self, now: OffsetDateTime) -> Result<Expired> {
        let now_us = micros(now);
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Retention).await?;
            let old = sqlx::query(
                "DELETE FROM messages WHERE id IN (
                     SELECT messages.id FROM messages JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id
                     WHERE keep_s IS NOT NULL AND created_us < $1 - keep_s * 1000000 LIMIT $2)",
            )
            .bind(now_us)
            .bind(EXPIRED_MAX)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            let surplus = sqlx::query(
                "DELETE FROM messages WHERE id IN (
                     SELECT messages.id FROM messages JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id
                     WHERE keep_count IS NOT NULL AND (SELECT COUNT(*) FROM messages AS newer
                         WHERE newer.scope_id = messages.scope_id AND newer.id > messages.id) >= keep_count LIMIT $1)",
            )
            .bind(EXPIRED_MAX)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            tx.commit().await?;
            let full = EXPIRED_MAX.unsigned_abs();
            Ok(Expired { count: old + surplus, more: old >= full || surplus >= full })
        })
    }
}

/// The most people that one account can block.
const BLOCKS_MAX: i64 = 1_000;

/// The statement that looks for words, and the words as it wants them.
fn search_of<DB: Dialect>(_: &sqlx::Pool<DB>, words: &[String]) -> (&'static str, String) {
    (DB::SEARCH, DB::all_words(words))
}
