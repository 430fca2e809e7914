//! Channels.

use antiphon_core::ids::{ChannelId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Channel, ChannelChange, NewChannel, Result, Store, StoreError, count, folded, micros, moment,
    pools::{Dialect, Lock, on_db, transaction},
};

/// A row of `channels`.
#[derive(FromRow)]
pub(super) struct ChannelRow {
    id: Uuid,
    name: String,
    description: String,
    owner_id: Uuid,
    max_users: i64,
    max_speakers: i64,
    is_private: bool,
    created_us: i64,
}

impl TryFrom<ChannelRow> for Channel {
    type Error = StoreError;

    fn try_from(row: ChannelRow) -> Result<Self> {
        Ok(Self {
            id: ChannelId(row.id),
            name: row.name,
            description: row.description,
            owner: UserId(row.owner_id),
            max_users: count(row.max_users)?,
            max_speakers: count(row.max_speakers)?,
            is_private: row.is_private,
            created_at: moment(row.created_us)?,
        })
    }
}

fn all(rows: Vec<ChannelRow>) -> Result<Vec<Channel>> {
    rows.into_iter().map(Channel::try_from).collect()
}

/// How many channels there may be.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// On the server.
    pub total: u32,
    /// Of those, owned by guests.
    pub of_guests: u32,
    /// Of one owner.
    pub per_owner: u32,
}

impl ChannelLimits {
    /// So many on the server, whoever owns them.
    #[must_use]
    pub const fn total(total: u32) -> Self {
        Self { total, of_guests: u32::MAX, per_owner: u32::MAX }
    }
}

impl Store {
    /// Makes a channel, and its owner a member, unless there are as many already as there may be.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `LimitReached`, `Missing` when the owner does not exist.
    pub async fn create_channel(&self, new: NewChannel, most: ChannelLimits) -> Result<Channel> {
        let now_us = micros(OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Channels).await?;
            let row: Option<ChannelRow> = sqlx::query_as(
                "INSERT INTO channels
                     (id, name, name_folded, description, owner_id, max_users, max_speakers, is_private, created_us)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
                 WHERE (SELECT COUNT(*) FROM channels) < $10 AND (SELECT COUNT(*) FROM channels WHERE owner_id = $5) < $11
                     AND (SELECT COUNT(*) FROM channels JOIN users ON users.id = channels.owner_id
                          WHERE users.is_guest = TRUE) < $12
                 RETURNING *",
            )
            .bind(Uuid::now_v7())
            .bind(&new.name)
            .bind(folded(&new.name))
            .bind(&new.description)
            .bind(new.owner.0)
            .bind(i64::from(new.max_users))
            .bind(i64::from(new.max_speakers))
            .bind(new.is_private)
            .bind(now_us)
            .bind(i64::from(most.total))
            .bind(i64::from(most.per_owner))
            .bind(i64::from(most.of_guests))
            .fetch_optional(&mut *tx)
            .await?;
            let Some(row) = row else {
                let (owned, in_all): (i64, i64) = sqlx::query_as(
                    "SELECT (SELECT COUNT(*) FROM channels WHERE owner_id = $1), (SELECT COUNT(*) FROM channels)",
                )
                .bind(new.owner.0)
                .fetch_one(&mut *tx)
                .await?;
                return Err(StoreError::LimitReached(if owned >= i64::from(most.per_owner) {
                    "channels of one account (limits.channels_per_account)"
                } else if in_all >= i64::from(most.total) {
                    "channels"
                } else {
                    "channels of guests (half of limits.max_channels)"
                }));
            };
            let channel = Channel::try_from(row)?;
            sqlx::query(
                "INSERT INTO memberships (channel_id, user_id, role, is_priority, since_us) VALUES ($1, $2, 'owner', FALSE, $3)",
            )
            .bind(channel.id.0)
            .bind(new.owner.0)
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(channel)
        })
    }

    /// The channel with this id.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channel(&self, id: ChannelId) -> Result<Option<Channel>> {
        let row: Option<ChannelRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM channels WHERE id = $1").bind(id.0).fetch_optional(db).await?
        });
        row.map(Channel::try_from).transpose()
    }

    /// The channel with this name, without regard to case.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channel_by_name(&self, name: &str) -> Result<Option<Channel>> {
        let row: Option<ChannelRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM channels WHERE name_folded = $1")
                .bind(folded(name))
                .fetch_optional(db)
                .await?
        });
        row.map(Channel::try_from).transpose()
    }

    /// All channels that anyone may see, by name. There are at most `limits.max_channels`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn public_channels(&self) -> Result<Vec<Channel>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM channels WHERE is_private = FALSE ORDER BY name_folded").fetch_all(db).await?
        }))
    }

    /// All private channels, by name.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn private_channels(&self) -> Result<Vec<Channel>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM channels WHERE is_private = TRUE ORDER BY name_folded").fetch_all(db).await?
        }))
    }

    /// The channels that a user is a member of, private ones too, by name.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channels_of(&self, user: UserId) -> Result<Vec<Channel>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT channels.* FROM channels JOIN memberships ON memberships.channel_id = channels.id
                 WHERE memberships.user_id = $1 ORDER BY channels.name_folded",
            )
            .bind(user.0)
            .fetch_all(db)
            .await?
        }))
    }

    /// How many channels there are.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channels_count(&self) -> Result<u64> {
        let count: i64 =
            on_db!(&self.readers, |db| { sqlx::query_scalar("SELECT COUNT(*) FROM channels").fetch_one(db).await? });
        Ok(count.unsigned_abs())
    }

    /// Changes a channel; `None` when there is none with this id.
    ///
    /// # Errors
    /// `Conflict` when the new name is taken.
    pub async fn update_channel(&self, id: ChannelId, change: ChannelChange) -> Result<Option<Channel>> {
        let row: Option<ChannelRow> = on_db!(&self.writers, |db| {
            sqlx::query_as(
                "UPDATE channels SET
                     name = COALESCE($2, name),
                     name_folded = COALESCE($3, name_folded),
                     description = COALESCE($4, description),
                     max_users = COALESCE($5, max_users),
                     max_speakers = COALESCE($6, max_speakers),
                     is_private = COALESCE($7, is_private)
                 WHERE id = $1 RETURNING *",
            )
            .bind(id.0)
            .bind(&change.name)
            .bind(change.name.as_deref().map(folded))
            .bind(&change.description)
            .bind(change.max_users.map(i64::from))
            .bind(change.max_speakers.map(i64::from))
            .bind(change.is_private)
            .fetch_optional(db)
            .await?
        });
        row.map(Channel::try_from).transpose()
    }

    /// Deletes a channel with its memberships, bans and invites; false when there was none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn delete_channel(&self, id: ChannelId) -> Result<bool> {
        transaction!(self, |tx| {
            let done = sqlx::query("DELETE FROM channels WHERE id = $1").bind(id.0).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(done.rows_affected() > 0)
        })
    }
}
