//! Refresh tokens: each login starts a family, each refresh replaces its token, a used token seen again ends the
//! family.
//!
//! Only hashes are kept. Used tokens stay until they would have run out, so that their reuse is noticed.

use antiphon_core::ids::UserId;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Result, Store, User, micros, pools::transaction, users::UserRow};

/// A SHA-256 of a token.
type TokenHash = [u8; 32];

/// How long a refresh token lasts.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// An account's.
    pub account: Duration,
    /// A guest's.
    pub guest: Duration,
}

impl Lifetimes {
    /// The lifetime of tokens of a guest, or else of an account.
    #[must_use]
    pub fn of(&self, is_guest: bool) -> Duration {
        if is_guest { self.guest } else { self.account }
    }
}

/// What became of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was good, is used now, and the new one takes its place.
    Rotated(User),
    /// It had been used before: someone else has it too. Its whole family has ended.
    Reused,
    /// There is no such token (any more).
    Unknown,
}

impl Store {
    /// Starts a family with its first token, and ends the one unused for longest when `user` has more than `most` then.
    ///
    /// # Errors
    /// `Missing` when the user does not exist.
    pub async fn start_refresh_family(
        &self,
        user: UserId,
        token: TokenHash,
        now: OffsetDateTime,
        expires_at: OffsetDateTime,
        most: u32,
    ) -> Result<()> {
        let family = Uuid::now_v7();
        transaction!(self, |tx| {
            sqlx::query("INSERT INTO refresh_families (id, user_id, used_us, expires_us) VALUES ($1, $2, $3, $4)")
                .bind(family)
                .bind(user.0)
                .bind(micros(now))
                .bind(micros(expires_at))
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO refresh_tokens (token_hash, family_id, is_used, expires_us) VALUES ($1, $2, FALSE, $3)",
            )
            .bind(token.as_slice())
            .bind(family)
            .bind(micros(expires_at))
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "DELETE FROM refresh_families WHERE user_id = $1 AND id NOT IN
                     (SELECT id FROM refresh_families WHERE user_id = $1 ORDER BY used_us DESC, id DESC LIMIT $2)",
            )
            .bind(user.0)
            .bind(i64::from(most))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Uses `token` up and puts `next` in its place, in one step: of several at once with the same token one wins, and
    /// the others are its reuse.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn rotate_refresh(
        &self,
        token: TokenHash,
        next: TokenHash,
        now: OffsetDateTime,
        lifetimes: Lifetimes,
    ) -> Result<Rotation> {
        let now_us = micros(now);
        transaction!(self, |tx| {
            let family: Option<Uuid> = sqlx::query_scalar("SELECT family_id FROM refresh_tokens WHERE token_hash = $1")
                .bind(token.as_slice())
                .fetch_optional(&mut *tx)
                .await?;
            let Some(family) = family else { return Ok(Rotation::Unknown) };
            // The family's row first: of several with the same token the others wait here, and then see what the first
            // one did.
            let held = sqlx::query("UPDATE refresh_families SET used_us = $2 WHERE id = $1").bind(family).bind(now_us);
            if held.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(Rotation::Unknown);
            }
            let used = sqlx::query(
                "UPDATE refresh_tokens SET is_used = TRUE WHERE token_hash = $1 AND is_used = FALSE AND expires_us > $2",
            )
            .bind(token.as_slice())
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            if used.rows_affected() == 0 {
                let reused = sqlx::query(
                    "DELETE FROM refresh_families WHERE id = $1
                         AND EXISTS (SELECT 1 FROM refresh_tokens WHERE token_hash = $2 AND is_used = TRUE)",
                )
                .bind(family)
                .bind(token.as_slice())
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                return Ok(if reused.rows_affected() > 0 { Rotation::Reused } else { Rotation::Unknown });
            }
            let row: UserRow = sqlx::query_as(
                "SELECT users.* FROM users JOIN refresh_families ON refresh_families.user_id = users.id
                 WHERE refresh_families.id = $1",
            )
            .bind(family)
            .fetch_one(&mut *tx)
            .await?;
            let user = User::try_from(row)?;
            let expires_us = micros(now + lifetimes.of(user.is_guest));
            sqlx::query("UPDATE refresh_families SET expires_us = $2 WHERE id = $1")
                .bind(family)
                .bind(expires_us)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO refresh_tokens (token_hash, family_id, is_used, expires_us) VALUES ($1, $2, FALSE, $3)",
            )
            .bind(next.as_slice())
            .bind(family)
            .bind(expires_us)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Rotation::Rotated(user))
        })
    }

    /// Lets all that `user` is logged in with last until `expires_at`, unless it lasts longer already.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn extend_refresh_families(&self, user: UserId, expires_at: OffsetDateTime) -> Result<()> {
        let expires_us = micros(expires_at);
        transaction!(self, |tx| {
            sqlx::query("UPDATE refresh_families SET expires_us = $2 WHERE user_id = $1 AND expires_us < $2")
                .bind(user.0)
                .bind(expires_us)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "UPDATE refresh_tokens SET expires_us = $2 WHERE is_used = FALSE AND expires_us < $2
                     AND family_id IN (SELECT id FROM refresh_families WHERE user_id = $1)",
            )
            .bind(user.0)
            .bind(expires_us)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Ends the family that a token, used or not, belongs to; false when there is none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn end_refresh_family(&self, token: TokenHash) -> Result<bool> {
        transaction!(self, |tx| {
            let done = sqlx::query(
                "DELETE FROM refresh_families WHERE id IN (SELECT family_id FROM refresh_tokens WHERE token_hash = $1)",
            )
            .bind(token.as_slice())
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(done.rows_affected() > 0)
        })
    }

    /// Ends all of a user's families, and says how many there were.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn end_refresh_families_of(&self, user: UserId) -> Result<u64> {
        transaction!(self, |tx| {
            let done =
                sqlx::query("DELETE FROM refresh_families WHERE user_id = $1").bind(user.0).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(done.rows_affected())
        })
    }
}
