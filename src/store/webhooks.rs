//! Where to post what happens in channels, and up to where it was posted.

use antiphon_core::{
    gateway::Position,
    ids::{ChannelId, UserId, WebhookId},
};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, micros, moment,
    pools::{on_db, transaction},
};

/// A place outside that is told what happens in a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose events.
    pub channel: ChannelId,
    /// Who made it, or had it tried again last; `None` where that was not noted yet.
    pub by: Option<UserId>,
    /// Where they are posted.
    pub url: String,
    /// What signs them.
    pub secret: String,
    /// The place in the channel's journal up to which everything was posted.
    pub position: Position,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When it is tried next.
    pub next_at: OffsetDateTime,
    /// Since when it is not tried any more.
    pub given_up_at: Option<OffsetDateTime>,
}

impl std::fmt::Debug for Webhook {
    /// Without the secret, and without the URL, which may hold one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Webhook({} of {})", self.id, self.channel)
    }
}

/// How an attempt to post ended.
#[derive(Clone, Debug)]
pub enum Attempted {
    /// Everything up to this place was taken.
    Taken(Position),
    /// Nothing was; try again then.
    Failed {
        /// Why.
        error: String,
        /// When to try again; `None`: never.
        again_at: Option<OffsetDateTime>,
    },
}

/// Webhooks that one channel can have.
const WEBHOOKS_MAX: i64 = 10;

#[derive(FromRow)]
struct WebhookRow {
    id: Uuid,
    channel_id: Uuid,
    made_by: Option<Uuid>,
    url: String,
    secret: String,
    epoch: String,
    delivered: i64,
    failures: i64,
    last_error: Option<String>,
    next_us: i64,
    given_up_us: Option<i64>,
}

impl TryFrom<WebhookRow> for Webhook {
    type Error = StoreError;

    fn try_from(row: WebhookRow) -> Result<Self> {
        Ok(Self {
            id: WebhookId(row.id),
            channel: ChannelId(row.channel_id),
            by: row.made_by.map(UserId),
            url: row.url,
            secret: row.secret,
            position: Position { epoch: row.epoch, offset: row.delivered.unsigned_abs() },
            failures: super::count(row.failures)?,
            last_error: row.last_error,
            next_at: moment(row.next_us)?,
            given_up_at: row.given_up_us.map(moment).transpose()?,
        })
    }
}

fn all(rows: Vec<WebhookRow>) -> Result<Vec<Webhook>> {
    rows.into_iter().map(Webhook::try_from).collect()
}

fn offset(position: &Position) -> i64 {
    i64::try_from(position.offset).unwrap_or(i64::MAX)
}

impl Store {
    /// Makes a webhook that is told everything after `position`.
    ///
    /// # Errors
    /// `LimitReached`; `Missing` when the channel does not exist.
    pub async fn create_webhook(
        &self,
        channel: ChannelId,
        by: UserId,
        (url, secret): (&str, &str),
        position: &Position,
    ) -> Result<Webhook> {
        let now_us = micros(OffsetDateTime::now_utc());
        let row: Option<WebhookRow> = on_db!(&self.writers, |db| {
            sqlx::query_as(
                "INSERT INTO webhooks (id, channel_id, url, secret, epoch, delivered, failures, next_us, lease_until_us, made_by)
                 SELECT $1, $2, $3, $4, $5, $6, 0, $7, 0, $9
                 WHERE (SELECT COUNT(*) FROM webhooks WHERE channel_id = $2) < $8 RETURNING *",
            )
            .bind(Uuid::now_v7())
            .bind(channel.0)
            .bind(url)
            .bind(secret)
            .bind(&position.epoch)
            .bind(offset(position))
            .bind(now_us)
            .bind(WEBHOOKS_MAX)
            .bind(by.0)
            .fetch_optional(db)
            .await?
        });
        row.ok_or(StoreError::LimitReached("webhooks of one channel"))?.try_into()
    }

    /// A channel's webhooks, the oldest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn webhooks(&self, channel: ChannelId) -> Result<Vec<Webhook>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM webhooks WHERE channel_id = $1 ORDER BY id")
                .bind(channel.0)
                .fetch_all(db)
                .await?
        }))
    }

    /// Deletes a webhook; false when there was none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn delete_webhook(&self, channel: ChannelId, id: WebhookId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let delete =
                sqlx::query("DELETE FROM webhooks WHERE id = $1 AND channel_id = $2").bind(id.0).bind(channel.0);
            Ok(delete.execute(db).await?.rows_affected() > 0)
        })
    }

    /// Has a webhook tried again for somebody that was given up; false when there is none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn retry_webhook(&self, channel: ChannelId, id: WebhookId, by: UserId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let retry = sqlx::query(
                "UPDATE webhooks SET failures = 0, given_up_us = NULL, next_us = $3, made_by = $4
                 WHERE id = $1 AND channel_id = $2",
            );
            let retry = retry.bind(id.0).bind(channel.0).bind(micros(OffsetDateTime::now_utc())).bind(by.0);
            Ok(retry.execute(db).await?.rows_affected() > 0)
        })
    }

    /// Takes on at most `most` webhooks that are due at `now`, until `until`: no other node gets them meanwhile.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn claim_webhooks(
        &self,
        now: OffsetDateTime,
        until: OffsetDateTime,
        most: usize,
    ) -> Result<Vec<Webhook>> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let rows: Vec<WebhookRow> = transaction!(self, |tx| {
            let rows = sqlx::query_as(
                "UPDATE webhooks SET lease_until_us = $2 WHERE lease_until_us <= $1 AND id IN
                     (SELECT id FROM webhooks WHERE given_up_us IS NULL AND next_us <= $1 AND lease_until_us <= $1
                      ORDER BY next_us LIMIT $3)
                 RETURNING *",
            )
            .bind(micros(now))
            .bind(micros(until))
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(rows)
        })?;
        all(rows)
    }

    /// Notes how an attempt ended, and lets others have the webhook; it is due again at `next_at`. `until` must be what it was
    /// taken on until: false when another node has it by now.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn webhook_attempted(
        &self,
        id: WebhookId,
        until: OffsetDateTime,
        next_at: OffsetDateTime,
        attempted: &Attempted,
    ) -> Result<bool> {
        let done = on_db!(&self.writers, |db| match attempted {
            Attempted::Taken(position) => {
                sqlx::query(
                    "UPDATE webhooks SET epoch = $3, delivered = $4, failures = 0, last_error = NULL, next_us = $5,
                         lease_until_us = 0
                     WHERE id = $1 AND lease_until_us = $2",
                )
                .bind(id.0)
                .bind(micros(until))
                .bind(&position.epoch)
                .bind(offset(position))
                .bind(micros(next_at))
                .execute(db)
                .await?
                .rows_affected()
            }
            Attempted::Failed { error, again_at } => {
                let given_up_us = if again_at.is_none() { Some(micros(next_at)) } else { None };
                sqlx::query(
                    "UPDATE webhooks SET failures = failures + 1, last_error = $3, next_us = $4, given_up_us = $5,
                         lease_until_us = 0
                     WHERE id = $1 AND lease_until_us = $2",
                )
                .bind(id.0)
                .bind(micros(until))
                .bind(error)
                .bind(micros(again_at.unwrap_or(next_at)))
                .bind(given_up_us)
                .execute(db)
                .await?
                .rows_affected()
            }
        });
        Ok(done > 0)
    }
}
