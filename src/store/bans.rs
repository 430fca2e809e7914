//! Who is kept out of which channel.

use std::collections::HashSet;

use antiphon_core::ids::{ChannelId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Ban, ChannelRole, Result, Store, StoreError,
    members::end_invites,
    micros, moment,
    pools::{on_db, transaction},
};

/// A row of `bans`.
#[derive(FromRow)]
struct BanRow {
    channel_id: Uuid,
    user_id: Uuid,
    by_id: Uuid,
    reason: Option<String>,
    until_us: Option<i64>,
}

impl TryFrom<BanRow> for Ban {
    type Error = StoreError;

    fn try_from(row: BanRow) -> Result<Self> {
        Ok(Self {
            channel: ChannelId(row.channel_id),
            user: UserId(row.user_id),
            by: UserId(row.by_id),
            reason: row.reason,
            until: row.until_us.map(moment).transpose()?,
        })
    }
}

impl Store {
    /// Keeps someone out of a channel, in place of an earlier ban, and ends their membership and the invites they made.
    ///
    /// # Errors
    /// `OwnerStays` when it is the channel's owner, `Missing` when the channel or the user does not exist.
    pub async fn set_ban(&self, ban: Ban) -> Result<()> {
        transaction!(self, |tx| {
            // The ban first: it holds on to the channel's row, which a deletion of the channel takes before its
            // members'.
            sqlx::query(
                "INSERT INTO bans (channel_id, user_id, by_id, reason, until_us) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (channel_id, user_id) DO UPDATE
                 SET by_id = excluded.by_id, reason = excluded.reason, until_us = excluded.until_us",
            )
            .bind(ban.channel.0)
            .bind(ban.user.0)
            .bind(ban.by.0)
            .bind(&ban.reason)
            .bind(ban.until.map(micros))
            .execute(&mut *tx)
            .await?;
            let role: Option<String> =
                sqlx::query_scalar("DELETE FROM memberships WHERE channel_id = $1 AND user_id = $2 RETURNING role")
                    .bind(ban.channel.0)
                    .bind(ban.user.0)
                    .fetch_optional(&mut *tx)
                    .await?;
            if role.as_deref() == Some(ChannelRole::Owner.as_str()) {
                return Err(StoreError::OwnerStays);
            }
            // Their invites would go on letting others in, and perhaps themselves.
            end_invites!(tx, ban.channel, ban.user);
            tx.commit().await?;
            Ok(())
        })
    }

    /// Lets someone in again; false when they were not banned.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn remove_ban(&self, channel: ChannelId, user: UserId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done =
                sqlx::query("DELETE FROM bans WHERE channel_id = $1 AND user_id = $2").bind(channel.0).bind(user.0);
            Ok(done.execute(db).await?.rows_affected() > 0)
        })
    }

    /// The ban that keeps a user out of a channel at `now`, if there is one.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn active_ban(&self, channel: ChannelId, user: UserId, now: OffsetDateTime) -> Result<Option<Ban>> {
        let row: Option<BanRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM bans WHERE channel_id = $1 AND user_id = $2 AND (until_us IS NULL OR until_us > $3)",
            )
            .bind(channel.0)
            .bind(user.0)
            .bind(micros(now))
            .fetch_optional(db)
            .await?
        });
        row.map(Ban::try_from).transpose()
    }

    /// Everyone whom an unexpired ban keeps out of a channel.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn banned(&self, channel: ChannelId, now: OffsetDateTime) -> Result<HashSet<UserId>> {
        let ids: Vec<Uuid> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT user_id FROM bans WHERE channel_id = $1 AND (until_us IS NULL OR until_us > $2)")
                .bind(channel.0)
                .bind(micros(now))
                .fetch_all(db)
                .await?
        });
        Ok(ids.into_iter().map(UserId).collect())
    }
}
