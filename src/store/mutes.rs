//! Whom a moderator muted, in which channel.

use std::collections::HashMap;

use antiphon_core::ids::{ChannelId, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, micros,
    pools::{on_db, transaction},
};

impl Store {
    /// Mutes a user in a channel for everyone. Where they are muted already, that stays as it was.
    ///
    /// # Errors
    /// `Missing` when the channel or the user does not exist.
    pub async fn set_server_mute(&self, channel: ChannelId, user: UserId, by: UserId) -> Result<()> {
        transaction!(self, |tx| {
            sqlx::query(
                "INSERT INTO server_mutes (channel_id, user_id, by_id, since_us) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (channel_id, user_id) DO NOTHING",
            )
            .bind(channel.0)
            .bind(user.0)
            .bind(by.0)
            .bind(micros(OffsetDateTime::now_utc()))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Ends a mute; false when there was none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn remove_server_mute(&self, channel: ChannelId, user: UserId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("DELETE FROM server_mutes WHERE channel_id = $1 AND user_id = $2")
                .bind(channel.0)
                .bind(user.0);
            Ok(done.execute(db).await?.rows_affected() > 0)
        })
    }

    /// Who muted a user in a channel; `None` when nobody did.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn server_muted_by(&self, channel: ChannelId, user: UserId) -> Result<Option<UserId>> {
        let by: Option<Uuid> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT by_id FROM server_mutes WHERE channel_id = $1 AND user_id = $2")
                .bind(channel.0)
                .bind(user.0)
                .fetch_optional(db)
                .await?
        });
        Ok(by.map(UserId))
    }

    /// Everyone in a channel whom a moderator muted, and who did.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn server_mutes(&self, channel: ChannelId) -> Result<HashMap<UserId, UserId>> {
        let rows: Vec<(Uuid, Uuid)> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT user_id, by_id FROM server_mutes WHERE channel_id = $1")
                .bind(channel.0)
                .fetch_all(db)
                .await?
        });
        Ok(rows.into_iter().map(|(user, by)| (UserId(user), UserId(by))).collect())
    }
}
