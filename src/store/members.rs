//! Who belongs to which channel, and as what.

use std::collections::HashSet;

use antiphon_core::{
    gateway::NotificationKind,
    ids::{ChannelId, UserId},
};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ChannelRole, Membership, Result, Store, StoreError, User, micros,
    notifications::{note_send, notify, was_invited},
    pools::{on_db, transaction},
    users::UserRow,
};

/// Who makes somebody a member.
#[derive(Clone, Copy, Debug)]
pub struct Inviter<'a> {
    /// Who.
    pub user: UserId,
    /// What they are called.
    pub username: &'a str,
}

/// The columns of `memberships` that say what a member may do.
#[derive(FromRow)]
struct MembershipRow {
    member_role: String,
    is_priority: bool,
}

impl TryFrom<MembershipRow> for Membership {
    type Error = StoreError;

    fn try_from(row: MembershipRow) -> Result<Self> {
        let role = ChannelRole::from_text(&row.member_role)
            .ok_or_else(|| StoreError::corrupt(format!("{:?} is no role in a channel", row.member_role)))?;
        Ok(Self { role, priority: row.is_priority })
    }
}

/// Ends the invites that someone made who may make none any more, in the transaction `$tx`.
macro_rules! end_invites {
    ($tx:ident, $channel:expr, $user:expr) => {
        sqlx::query("DELETE FROM invites WHERE channel_id = $1 AND by_id = $2")
            .bind($channel.0)
            .bind($user.0)
            .execute(&mut *$tx)
            .await?
    };
}
pub(super) use end_invites;

impl Store {
    /// What a user is in a channel; `None` when they do not belong to it.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn membership(&self, channel: ChannelId, user: UserId) -> Result<Option<Membership>> {
        let row: Option<MembershipRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT role AS member_role, is_priority FROM memberships WHERE channel_id = $1 AND user_id = $2",
            )
            .bind(channel.0)
            .bind(user.0)
            .fetch_optional(db)
            .await?
        });
        row.map(Membership::try_from).transpose()
    }

    /// Those of a channel who have the right to be heard first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn priorities(&self, channel: ChannelId) -> Result<HashSet<UserId>> {
        let ids: Vec<Uuid> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT user_id FROM memberships WHERE channel_id = $1 AND is_priority = TRUE")
                .bind(channel.0)
                .fetch_all(db)
                .await?
        });
        Ok(ids.into_iter().map(UserId).collect())
    }

    /// Those who belong to a channel, who came first before others: at most `limit` of them, after the first `offset`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn memberships(&self, channel: ChannelId, limit: u32, offset: u32) -> Result<Vec<(User, Membership)>> {
        #[derive(FromRow)]
        struct Row {
            #[sqlx(flatten)]
            user: UserRow,
            #[sqlx(flatten)]
            membership: MembershipRow,
        }
        let rows: Vec<Row> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT users.*, memberships.role AS member_role, memberships.is_priority
                 FROM memberships JOIN users ON users.id = memberships.user_id
                 WHERE memberships.channel_id = $1 ORDER BY memberships.since_us, users.id LIMIT $2 OFFSET $3",
            )
            .bind(channel.0)
            .bind(i64::from(limit))
            .bind(i64::from(offset))
            .fetch_all(db)
            .await?
        });
        rows.into_iter().map(|row| Ok((row.user.try_into()?, row.membership.try_into()?))).collect()
    }

    /// The ids of all who belong to a channel.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn member_ids(&self, channel: ChannelId) -> Result<HashSet<UserId>> {
        let ids: Vec<Uuid> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT user_id FROM memberships WHERE channel_id = $1")
                .bind(channel.0)
                .fetch_all(db)
                .await?
        });
        Ok(ids.into_iter().map(UserId).collect())
    }

    /// Makes someone a member or changes what they are. A new owner takes the channel over; who owned it becomes a
    /// moderator.
    ///
    /// # Errors
    /// `OwnerStays` when the owner would lose their role, `Missing` when the channel or the user does not exist.
    pub async fn set_membership(&self, channel: ChannelId, user: UserId, membership: Membership) -> Result<()> {
        self.set_membership_by(channel, user, membership, None).await
    }

    /// Likewise; somebody who was no member before is told by whom they became one, once a day and not while they have not
    /// read it: else whoever has a channel could tell anybody anything often by taking them in and putting them out.
    ///
    /// # Errors
    /// As [`Store::set_membership`].
    pub async fn set_membership_by(
        &self,
        channel: ChannelId,
        user: UserId,
        membership: Membership,
        by: Option<Inviter<'_>>,
    ) -> Result<()> {
        let now_us = micros(OffsetDateTime::now_utc());
        let told: u64 = transaction!(self, |tx| {
            let known: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM memberships WHERE channel_id = $1 AND user_id = $2")
                    .bind(channel.0)
                    .bind(user.0)
                    .fetch_one(&mut *tx)
                    .await?;
            if membership.role == ChannelRole::Owner {
                // The channel's row first: of two hand-overs at once the second waits here, and then sees the first
                // one's owner.
                let hand_over = "UPDATE channels SET owner_id = $2 WHERE id = $1";
                let done = sqlx::query(hand_over).bind(channel.0).bind(user.0).execute(&mut *tx).await?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::Missing);
                }
                let demote = "UPDATE memberships SET role = 'moderator' WHERE channel_id = $1 AND role = 'owner'";
                sqlx::query(demote).bind(channel.0).execute(&mut *tx).await?;
            }
            let done = sqlx::query(
                "INSERT INTO memberships (channel_id, user_id, role, is_priority, since_us) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (channel_id, user_id) DO UPDATE SET role = excluded.role, is_priority = excluded.is_priority
                 WHERE memberships.role <> 'owner' OR excluded.role = 'owner'",
            )
            .bind(channel.0)
            .bind(user.0)
            .bind(membership.role.as_str())
            .bind(membership.priority)
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::OwnerStays);
            }
            if membership.role == ChannelRole::Member {
                end_invites!(tx, channel, user);
            }
            let told = if let Some(by) = by.filter(|by| known == 0 && by.user != user)
                && !was_invited!(tx, user, channel, by.user, now_us)
            {
                let kind = NotificationKind::Invitation.as_str();
                note_send!(tx, Uuid::now_v7(), kind, user.0, Some(by.user.0), now_us);
                notify!(tx, user.0, kind, by.user.0, by.username, Some(channel.0), None::<i64>, now_us)
            } else {
                0
            };
            tx.commit().await?;
            Ok(told)
        })?;
        self.note_written(told);
        Ok(())
    }

    /// Ends a membership; false when there was none.
    ///
    /// # Errors
    /// `OwnerStays` for the owner's.
    pub async fn remove_membership(&self, channel: ChannelId, user: UserId) -> Result<bool> {
        transaction!(self, |tx| {
            let role: Option<String> =
                sqlx::query_scalar("DELETE FROM memberships WHERE channel_id = $1 AND user_id = $2 RETURNING role")
                    .bind(channel.0)
                    .bind(user.0)
                    .fetch_optional(&mut *tx)
                    .await?;
            if role.as_deref() == Some(ChannelRole::Owner.as_str()) {
                return Err(StoreError::OwnerStays);
            }
            end_invites!(tx, channel, user);
            tx.commit().await?;
            Ok(role.is_some())
        })
    }
}
