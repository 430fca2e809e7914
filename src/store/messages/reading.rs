//! What was written and what happened since, read back.

use antiphon_core::ids::MessageId;
use uuid::Uuid;

use super::{
    Event, Happening, Message, Part, Scope, Signs,
    rows::{MessageRow, SIGN_ROWS_MAX, SignRow, all, collected, message_id, scope_of, select_messages, stored},
};
use crate::store::{Result, Store, StoreError, pools::on_db};

impl Store {
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
