//! Guessing of passwords, slowed down for the whole cluster.
//!
//! Each key (an account, an address, both together) has a bucket that holds some failures and empties steadily. It is
//! one number: the moment at which the bucket will be empty (the generic cell rate algorithm). An attempt is counted
//! before the password is looked at, so that many at once cannot pass together, and taken back when the password was
//! right.

use time::{Duration, OffsetDateTime};

use super::{
    Result, Store, micros,
    pools::{on_db, transaction},
};

/// A bucket that an attempt counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose: a hash, so that the table names nobody.
    pub key: [u8; 32],
    /// How many failures it holds.
    pub failures: u32,
    /// How long until one of them is forgiven.
    pub forgiven: Duration,
}

impl Bucket {
    fn forgiven_us(&self) -> i64 {
        i64::try_from(self.forgiven.whole_microseconds()).unwrap_or(i64::MAX / 1_000_000)
    }

    /// How far ahead of now the bucket's moment may lie.
    fn holds_us(&self) -> i64 {
        self.forgiven_us().saturating_mul(i64::from(self.failures))
    }
}

/// Whether a password may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may, and counts as a failure until it is taken back.
    Counted,
    /// Not before so long; nothing was counted.
    Refused {
        /// How long until one of the full buckets has room.
        retry_after: Duration,
    },
}

impl Store {
    /// Counts an attempt in all of `buckets`, or in none when one of them is full.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn begin_login_attempt(&self, buckets: &[Bucket], now: OffsetDateTime) -> Result<Attempt> {
        // The same order for all, so that no two transactions wait for each other's rows.
        let mut buckets = buckets.to_vec();
        buckets.sort_by_key(|bucket| bucket.key);
        let now_us = micros(now);
        transaction!(self, |tx| {
            for bucket in &buckets {
                let counted: Option<i64> = sqlx::query_scalar(
                    "INSERT INTO login_failures (failure_key, forgiven_us) VALUES ($1, $2 + $3)
                     ON CONFLICT (failure_key) DO UPDATE SET forgiven_us =
                         (CASE WHEN login_failures.forgiven_us > $2 THEN login_failures.forgiven_us ELSE $2 END) + $3
                     WHERE login_failures.forgiven_us + $3 <= $2 + $4
                     RETURNING forgiven_us",
                )
                .bind(bucket.key.as_slice())
                .bind(now_us)
                .bind(bucket.forgiven_us())
                .bind(bucket.holds_us())
                .fetch_optional(&mut *tx)
                .await?;
                if counted.is_none() {
                    let full: i64 = sqlx::query_scalar("SELECT forgiven_us FROM login_failures WHERE failure_key = $1")
                        .bind(bucket.key.as_slice())
                        .fetch_one(&mut *tx)
                        .await?;
                    let wait_us = full + bucket.forgiven_us() - now_us - bucket.holds_us();
                    return Ok(Attempt::Refused { retry_after: Duration::microseconds(wait_us.max(1)) });
                }
            }
            tx.commit().await?;
            Ok(Attempt::Counted)
        })
    }

    /// Takes an attempt back from the buckets it was counted in: the password was right, or was not looked at.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn take_back_login_attempt(&self, buckets: &[Bucket]) -> Result<()> {
        let mut buckets = buckets.to_vec();
        buckets.sort_by_key(|bucket| bucket.key);
        transaction!(self, |tx| {
            for bucket in &buckets {
                sqlx::query("UPDATE login_failures SET forgiven_us = forgiven_us - $2 WHERE failure_key = $1")
                    .bind(bucket.key.as_slice())
                    .bind(bucket.forgiven_us())
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            Ok(())
        })
    }

    /// Forgives all failures in `own`, the bucket of an account at this place, and remembers the place, so that
    /// guessing elsewhere does not keep the account from coming in here.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn remember_login_place(&self, own: &Bucket, place: [u8; 32], now: OffsetDateTime) -> Result<()> {
        transaction!(self, |tx| {
            let forgive = sqlx::query("DELETE FROM login_failures WHERE failure_key = $1").bind(own.key.as_slice());
            forgive.execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO login_places (place_key, used_us) VALUES ($1, $2)
                 ON CONFLICT (place_key) DO UPDATE SET used_us = excluded.used_us",
            )
            .bind(place.as_slice())
            .bind(micros(now))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Whether an account has come in at this place since `since`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn is_login_place(&self, place: [u8; 32], since: OffsetDateTime) -> Result<bool> {
        let found: Option<i64> = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT used_us FROM login_places WHERE place_key = $1 AND used_us >= $2")
                .bind(place.as_slice())
                .bind(micros(since))
                .fetch_optional(db)
                .await?
        });
        Ok(found.is_some())
    }
}
