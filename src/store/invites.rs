//! Invites: codes that make whoever has one a member.

use antiphon_core::ids::{ChannelId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Invite, NewInvite, Result, Store, StoreError, count, micros, moment,
    pools::{on_db, transaction},
};
use crate::random;

/// Random bytes of a code: too many to guess.
const CODE_BYTES: usize = 12;

/// A row of `invites`.
#[derive(FromRow)]
struct InviteRow {
    code: String,
    channel_id: Uuid,
    by_id: Uuid,
    max_uses: Option<i64>,
    uses: i64,
    created_us: i64,
    expires_us: Option<i64>,
}

impl TryFrom<InviteRow> for Invite {
    type Error = StoreError;

    fn try_from(row: InviteRow) -> Result<Self> {
        Ok(Self {
            code: row.code,
            channel: ChannelId(row.channel_id),
            by: UserId(row.by_id),
            max_uses: row.max_uses.map(count).transpose()?,
            uses: count(row.uses)?,
            created_at: moment(row.created_us)?,
            expires_at: row.expires_us.map(moment).transpose()?,
        })
    }
}

impl Store {
    /// Makes an invite, unless the channel has `most` already that let someone in.
    ///
    /// # Errors
    /// `LimitReached`, `Missing` when the channel does not exist.
    pub async fn create_invite(&self, new: NewInvite, most: u32) -> Result<Invite> {
        let code = random::text::<CODE_BYTES>();
        let now_us = micros(OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            // Changes nothing, but only one transaction at a time can hold the channel's row.
            let held = sqlx::query("UPDATE channels SET name = name WHERE id = $1").bind(new.channel.0);
            if held.execute(&mut *tx).await?.rows_affected() == 0 {
                return Err(StoreError::Missing);
            }
            let row: Option<InviteRow> = sqlx::query_as(
                "INSERT INTO invites (code, channel_id, by_id, max_uses, uses, created_us, expires_us)
                 SELECT $1, $2, $3, $4, 0, $5, $6
                 WHERE (SELECT COUNT(*) FROM invites WHERE channel_id = $2 AND (max_uses IS NULL OR uses < max_uses)
                                                       AND (expires_us IS NULL OR expires_us > $5)) < $7
                 RETURNING *",
            )
            .bind(&code)
            .bind(new.channel.0)
            .bind(new.by.0)
            .bind(new.max_uses.map(i64::from))
            .bind(now_us)
            .bind(new.expires_at.map(micros))
            .bind(i64::from(most))
            .fetch_optional(&mut *tx)
            .await?;
            let invite = Invite::try_from(row.ok_or(StoreError::LimitReached("open invites in this channel"))?)?;
            tx.commit().await?;
            Ok(invite)
        })
    }

    /// The invite with this code, if it lets someone in at `now`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn invite(&self, code: &str, now: OffsetDateTime) -> Result<Option<Invite>> {
        let row: Option<InviteRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM invites WHERE code = $1 AND (max_uses IS NULL OR uses < max_uses)
                                         AND (expires_us IS NULL OR expires_us > $2)",
            )
            .bind(code)
            .bind(micros(now))
            .fetch_optional(db)
            .await?
        });
        row.map(Invite::try_from).transpose()
    }

    /// The invites of a channel that let someone in at `now`, the newest first; there are never more than may be made.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn invites(&self, channel: ChannelId, now: OffsetDateTime) -> Result<Vec<Invite>> {
        let rows: Vec<InviteRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM invites WHERE channel_id = $1 AND (max_uses IS NULL OR uses < max_uses)
                                         AND (expires_us IS NULL OR expires_us > $2) ORDER BY created_us DESC, code",
            )
            .bind(channel.0)
            .bind(micros(now))
            .fetch_all(db)
            .await?
        });
        rows.into_iter().map(Invite::try_from).collect()
    }

    /// Takes an invite back; whoever it let in stays. False when the channel has none with this code.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn revoke_invite(&self, channel: ChannelId, code: &str) -> Result<bool> {
        let removed = on_db!(&self.writers, |db| {
            let delete = sqlx::query("DELETE FROM invites WHERE channel_id = $1 AND code = $2");
            delete.bind(channel.0).bind(code).execute(db).await?.rows_affected()
        });
        Ok(removed > 0)
    }

    /// Makes a user a member by an invite and counts it, in one step; who is a member already uses up nothing. `None`
    /// when the code is unknown, used up or out of date, or the user is banned from the channel.
    ///
    /// # Errors
    /// `Missing` when the user does not exist.
    pub async fn redeem_invite(&self, code: &str, user: UserId, now: OffsetDateTime) -> Result<Option<ChannelId>> {
        let now_us = micros(now);
        transaction!(self, |tx| {
            let channel: Option<Uuid> = sqlx::query_scalar(
                "SELECT channel_id FROM invites WHERE code = $1 AND (expires_us IS NULL OR expires_us > $2)
                 AND NOT EXISTS (SELECT 1 FROM bans WHERE bans.channel_id = invites.channel_id AND bans.user_id = $3
                                                      AND (until_us IS NULL OR until_us > $2))",
            )
            .bind(code)
            .bind(now_us)
            .bind(user.0)
            .fetch_optional(&mut *tx)
            .await?;
            let Some(channel) = channel else { return Ok(None) };
            let joined = sqlx::query(
                "INSERT INTO memberships (channel_id, user_id, role, is_priority, since_us)
                 VALUES ($1, $2, 'member', FALSE, $3) ON CONFLICT (channel_id, user_id) DO NOTHING",
            )
            .bind(channel)
            .bind(user.0)
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            if joined.rows_affected() > 0 {
                let counted = sqlx::query(
                    "UPDATE invites SET uses = uses + 1 WHERE code = $1 AND (max_uses IS NULL OR uses < max_uses)",
                )
                .bind(code)
                .execute(&mut *tx)
                .await?;
                if counted.rows_affected() == 0 {
                    // Used up: with the transaction goes the membership.
                    return Ok(None);
                }
            }
            tx.commit().await?;
            Ok(Some(ChannelId(channel)))
        })
    }
}
