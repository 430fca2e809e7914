//! Until when people were there.
//!
//! A process of a node says who is there through it when they come and when they go, and in between only that it lives:
//! one short statement, however many are there. Where it ends without a word, whoever was there through it was seen until
//! it last said so.

use std::collections::HashMap;

use antiphon_core::ids::UserId;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, micros, moment,
    pools::{on_db, transaction},
};

/// A process of a node, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceRun(Uuid);

impl PresenceRun {
    /// One that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self(Uuid::now_v7())
    }
}

/// People that one statement looks for.
const LOOKED_AT_ONCE: usize = 200;

/// Notes that `$user` was there at `$at_us`, in the transaction `$tx`; that they were later stays.
macro_rules! note_seen {
    ($tx:ident, $user:expr, $at_us:expr) => {
        sqlx::query(
            "INSERT INTO last_seen (user_id, at_us) VALUES ($1, $2)
             ON CONFLICT (user_id) DO UPDATE SET at_us = excluded.at_us WHERE last_seen.at_us < excluded.at_us",
        )
        .bind($user.0)
        .bind($at_us)
        .execute(&mut *$tx)
        .await?
    };
}

impl Store {
    /// Notes that somebody is there from `at` on, through the process `run`.
    ///
    /// # Errors
    /// `Missing` when their account is gone.
    pub async fn note_came(&self, user: UserId, run: PresenceRun, at: OffsetDateTime) -> Result<()> {
        transaction!(self, |tx| {
            note_seen!(tx, user, micros(at));
            // Also when it was taken for dead meanwhile.
            sqlx::query("INSERT INTO presence_runs (id, alive_us) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(run.0)
                .bind(micros(at))
                .execute(&mut *tx)
                .await?;
            sqlx::query("INSERT INTO presences (user_id, run_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(user.0)
                .bind(run.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Notes that somebody was there until `at`, through the process `run`.
    ///
    /// # Errors
    /// `Missing` when their account is gone.
    pub async fn note_went(&self, user: UserId, run: PresenceRun, at: OffsetDateTime) -> Result<()> {
        transaction!(self, |tx| {
            note_seen!(tx, user, micros(at));
            sqlx::query("DELETE FROM presences WHERE user_id = $1 AND run_id = $2")
                .bind(user.0)
                .bind(run.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// Notes that the process `run` lives at `at`. False when it was taken for dead, so that nobody is there through it.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn note_alive(&self, run: PresenceRun, at: OffsetDateTime) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let note = sqlx::query("UPDATE presence_runs SET alive_us = $2 WHERE id = $1").bind(run.0).bind(micros(at));
            Ok(note.execute(db).await?.rows_affected() > 0)
        })
    }

    /// When somebody was last there, as far as is known; of who is there now, some seconds ago.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn last_seen(&self, user: UserId) -> Result<Option<OffsetDateTime>> {
        Ok(self.last_seen_of(&[user]).await?.remove(&user))
    }

    /// The same of several people at once; those of whom nothing is known are missing.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn last_seen_of(&self, users: &[UserId]) -> Result<HashMap<UserId, OffsetDateTime>> {
        let mut seen = HashMap::with_capacity(users.len());
        for some in users.chunks(LOOKED_AT_ONCE) {
            let rows: Vec<(Uuid, i64)> = on_db!(&self.readers, |db| {
                let mut select = QueryBuilder::new("SELECT user_id, MAX(at_us) FROM (");
                for part in [
                    "SELECT user_id, at_us FROM last_seen WHERE user_id IN (",
                    " UNION ALL SELECT user_id, alive_us AS at_us FROM presences
                         JOIN presence_runs ON presence_runs.id = run_id WHERE user_id IN (",
                ] {
                    select.push(part);
                    let mut list = select.separated(", ");
                    for user in some {
                        list.push_bind(user.0);
                    }
                    select.push(")");
                }
                select.push(") AS seen GROUP BY user_id");
                select.build_query_as().fetch_all(db).await?
            });
            for (user, at) in rows {
                seen.insert(UserId(user), moment(at)?);
            }
        }
        Ok(seen)
    }

    /// Forgets processes that have not said since `before` that they live, and keeps until when people were there through
    /// them; how many.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn settle_presence(&self, before: OffsetDateTime) -> Result<u64> {
        let before_us = micros(before);
        transaction!(self, |tx| {
            sqlx::query(
                "INSERT INTO last_seen (user_id, at_us)
                 SELECT user_id, MAX(alive_us) FROM presences JOIN presence_runs ON presence_runs.id = run_id
                 WHERE alive_us < $1 GROUP BY user_id
                 ON CONFLICT (user_id) DO UPDATE SET at_us = excluded.at_us WHERE last_seen.at_us < excluded.at_us",
            )
            .bind(before_us)
            .execute(&mut *tx)
            .await?;
            let forgotten = sqlx::query("DELETE FROM presence_runs WHERE alive_us < $1")
                .bind(before_us)
                .execute(&mut *tx)
                .await?
                .rows_affected();
            tx.commit().await?;
            Ok(forgotten)
        })
    }
}
