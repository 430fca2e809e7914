//! Messages and their signs as rows.

use std::collections::HashMap;

use antiphon_core::ids::{ChannelId, MessageId, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Message, SIGNERS_MAX, Scope, Signs};
use crate::store::{Result, StoreError, moment};

#[derive(FromRow)]
pub(in crate::store) struct MessageRow {
    pub(super) id: i64,
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
    pub(super) changed_id: i64,
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
pub(super) use select_messages;

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

pub(in crate::store) fn scope_of(channel: Option<Uuid>, low: Option<Uuid>, high: Option<Uuid>) -> Result<Scope> {
    match (channel, low, high) {
        (Some(channel), None, None) => Ok(Scope::Room(ChannelId(channel))),
        (None, Some(low), Some(high)) => Ok(Scope::Pair(UserId(low), UserId(high))),
        _ => Err(StoreError::corrupt("a scope is neither a channel's nor two people's".to_owned())),
    }
}

pub(in crate::store) fn message_id(value: i64) -> Result<MessageId> {
    let id = u64::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} is no message's id")))?;
    Ok(MessageId(id))
}

/// An id as the database keeps it. One that no message can have stays one.
pub(in crate::store) fn stored(id: MessageId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

pub(super) fn all(rows: Vec<MessageRow>) -> Result<Vec<Message>> {
    rows.into_iter().map(Message::try_from).collect()
}

#[derive(FromRow)]
pub(super) struct SignRow {
    message_id: i64,
    emoji: String,
    user_id: Uuid,
}

/// Signs that are read at once; beyond that, counts say less than there are.
pub(super) const SIGN_ROWS_MAX: i64 = 20_000;

/// The signs of each message, in the order of the rows.
pub(super) fn collected(rows: Vec<SignRow>) -> HashMap<i64, Vec<Signs>> {
    let mut collected: HashMap<i64, Vec<Signs>> = HashMap::new();
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
