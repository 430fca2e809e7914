//! Messages that people told the moderators of, and what became of that.

use antiphon_core::ids::{ChannelId, MessageId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Message, Result, Store, StoreError,
    messages::{MessageRow, stored},
    micros, moment,
    pools::on_db,
};

/// A message that somebody told the moderators of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub message: Message,
    /// Who told.
    pub by: UserId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: OffsetDateTime,
    /// What a moderator made of it; `None` while it is open.
    pub handled: Option<Handled>,
}

/// That a report was dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// By whom. The account may be gone.
    pub by: UserId,
    /// When.
    pub at: OffsetDateTime,
    /// What they noted for the other moderators; may be empty.
    pub note: String,
}

#[derive(FromRow)]
struct ReportRow {
    #[sqlx(flatten)]
    message: MessageRow,
    by_id: Uuid,
    reason: String,
    at_us: i64,
    handled_us: Option<i64>,
    handled_by: Option<Uuid>,
    note: Option<String>,
}

impl TryFrom<ReportRow> for Report {
    type Error = StoreError;

    fn try_from(row: ReportRow) -> Result<Self> {
        let handled = match (row.handled_us, row.handled_by) {
            (Some(at), Some(by)) => {
                Some(Handled { by: UserId(by), at: moment(at)?, note: row.note.unwrap_or_default() })
            }
            _ => None,
        };
        let (by, at) = (UserId(row.by_id), moment(row.at_us)?);
        Ok(Self { message: row.message.try_into()?, by, reason: row.reason, at, handled })
    }
}

/// The columns of [`ReportRow`], of the channel `$1`.
macro_rules! select_reports {
    ($rest:literal) => {
        concat!(
            "SELECT messages.id, channel_id, low_id, high_id, from_id, username, content, mentions, reply_to, created_us,
                 edited_us, deleted_by, changed_id, by_id, reason, at_us, handled_us, handled_by, note
             FROM reports JOIN messages ON messages.id = reports.message_id
             JOIN chat_scopes ON chat_scopes.scope_id = messages.scope_id
             WHERE messages.scope_id = $1 ",
            $rest
        )
    };
}

impl Store {
    /// Notes that somebody told the moderators of a message. A second time replaces the reason, and the report is open again.
    ///
    /// # Errors
    /// `Missing` when the message is gone.
    pub async fn report_message(&self, id: MessageId, by: UserId, reason: &str) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO reports (message_id, by_id, reason, at_us) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (message_id, by_id) DO UPDATE SET reason = excluded.reason, at_us = excluded.at_us,
                     handled_us = NULL, handled_by = NULL, note = NULL",
            )
            .bind(stored(id))
            .bind(by.0)
            .bind(reason)
            .bind(micros(OffsetDateTime::now_utc()))
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// What was reported in a channel, the newest first: of all reports, or of those that are handled or are not.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn reports(&self, channel: ChannelId, is_handled: Option<bool>, limit: u32) -> Result<Vec<Report>> {
        let rows: Vec<ReportRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(select_reports!(
                "AND ($2 IS NULL OR (handled_us IS NOT NULL) = $2) ORDER BY at_us DESC LIMIT $3"
            ))
            .bind(channel.0)
            .bind(is_handled)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        });
        rows.into_iter().map(Report::try_from).collect()
    }

    /// What `by` reported of one message of a channel.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn report(&self, channel: ChannelId, id: MessageId, by: UserId) -> Result<Option<Report>> {
        let row: Option<ReportRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(select_reports!("AND reports.message_id = $2 AND by_id = $3"))
                .bind(channel.0)
                .bind(stored(id))
                .bind(by.0)
                .fetch_optional(db)
                .await?
        });
        row.map(Report::try_from).transpose()
    }

    /// Marks what `by` reported of a message as handled, or with `None` as open again. False when it was so already, or
    /// there is no such report: of several who handle one at once, the first did.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_report_handled(&self, id: MessageId, by: UserId, handled: Option<&Handled>) -> Result<bool> {
        let changed = on_db!(&self.writers, |db| {
            sqlx::query(
                "UPDATE reports SET handled_us = $3, handled_by = $4, note = $5
                 WHERE message_id = $1 AND by_id = $2 AND (handled_us IS NULL) = $6",
            )
            .bind(stored(id))
            .bind(by.0)
            .bind(handled.map(|handled| micros(handled.at)))
            .bind(handled.map(|handled| handled.by.0))
            .bind(handled.map(|handled| handled.note.as_str()))
            .bind(handled.is_some())
            .execute(db)
            .await?
            .rows_affected()
        });
        Ok(changed > 0)
    }
}
