//! Who listened to what, and what that comes to.

use sqlx::{FromRow, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, count, micros, moment,
    pools::{on_db, transaction},
};

/// Rows that one statement writes.
const ROWS_AT_ONCE: usize = 200;

/// From how much of a file on, in thousandths, it counts as heard to its end: players leave the last moments out.
const COMPLETE_PERMILLE: i64 = 900;

/// A day in microseconds.
const DAY_US: i64 = 86_400_000_000;

/// Somebody's listening to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its own.
    pub id: Uuid,
    /// Which file.
    pub path: String,
    /// In which quality.
    pub quality: String,
    /// Its first request.
    pub began: OffsetDateTime,
    /// The end of its last answer.
    pub ended: OffsetDateTime,
    /// What was sent, some of it perhaps again.
    pub bytes: u64,
    /// How much of the file, in thousandths, was sent at all.
    pub heard_permille: u32,
    /// Which bytes of it: `FROM-UNTIL`, with commas between.
    pub ranges: String,
    /// Tells networks apart on one day.
    pub origin: String,
}

/// What a number of listens come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct ListenTotals {
    /// How many.
    pub listens: i64,
    /// Of these, heard to their end.
    pub complete: i64,
    /// Networks that they came from, on each day anew.
    pub origins: i64,
    /// Bytes sent.
    pub sent_bytes: i64,
    /// From their first requests to the ends of their last answers, in microseconds.
    pub listened_us: i64,
}

#[derive(FromRow)]
struct NamedTotals<N> {
    name: N,
    listens: i64,
    complete: i64,
    origins: i64,
    sent_bytes: i64,
    listened_us: i64,
}

impl<N> NamedTotals<N> {
    fn split(self) -> (N, ListenTotals) {
        let Self { name, listens, complete, origins, sent_bytes, listened_us } = self;
        (name, ListenTotals { listens, complete, origins, sent_bytes, listened_us })
    }
}

#[derive(FromRow)]
struct ListenRow {
    id: Uuid,
    path: String,
    quality: String,
    began_us: i64,
    ended_us: i64,
    sent_bytes: i64,
    heard_permille: i64,
    ranges: String,
    origin: String,
}

impl TryFrom<ListenRow> for Listen {
    type Error = super::StoreError;

    fn try_from(row: ListenRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            path: row.path,
            quality: row.quality,
            began: moment(row.began_us)?,
            ended: moment(row.ended_us)?,
            bytes: row.sent_bytes.unsigned_abs(),
            heard_permille: count(row.heard_permille)?,
            ranges: row.ranges,
            origin: row.origin,
        })
    }
}

/// The columns of totals; `$1` is from how much of a file on it is complete.
macro_rules! totals {
    ($before:literal, $after:literal) => {
        concat!(
            "SELECT ",
            $before,
            "COUNT(*) AS listens,
                 CAST(COALESCE(SUM(CASE WHEN heard_permille >= $1 THEN 1 ELSE 0 END), 0) AS BIGINT) AS complete,
                 COUNT(DISTINCT origin) AS origins, CAST(COALESCE(SUM(sent_bytes), 0) AS BIGINT) AS sent_bytes,
                 CAST(COALESCE(SUM(ended_us - began_us), 0) AS BIGINT) AS listened_us
             FROM listens WHERE ended_us >= $2 ",
            $after
        )
    };
}

impl Store {
    /// Keeps listens; those that are kept already stay as they are.
    ///
    /// # Errors
    /// Only the database's; then none of the rest is kept.
    pub async fn keep_listens(&self, listens: &[Listen]) -> Result<()> {
        for listens in listens.chunks(ROWS_AT_ONCE) {
            transaction!(self, |tx| {
                let mut insert = QueryBuilder::new(
                    "INSERT INTO listens (id, path, quality, began_us, ended_us, sent_bytes, heard_permille, ranges, origin) ",
                );
                insert.push_values(listens, |mut row, listen| {
                    row.push_bind(listen.id)
                        .push_bind(listen.path.as_str())
                        .push_bind(listen.quality.as_str())
                        .push_bind(micros(listen.began))
                        .push_bind(micros(listen.ended))
                        .push_bind(i64::try_from(listen.bytes).unwrap_or(i64::MAX))
                        .push_bind(i64::from(listen.heard_permille))
                        .push_bind(listen.ranges.as_str())
                        .push_bind(listen.origin.as_str());
                });
                insert.push(" ON CONFLICT (id) DO NOTHING");
                insert.build().execute(&mut *tx).await?;
                tx.commit().await?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What all listens since `since` come to.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn listen_totals(&self, since: OffsetDateTime) -> Result<ListenTotals> {
        on_db!(&self.readers, |db| {
            let totals = sqlx::query_as(totals!("", "")).bind(COMPLETE_PERMILLE).bind(micros(since));
            Ok(totals.fetch_one(db).await?)
        })
    }

    /// The files listened to most since `since`, at most `limit`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn listens_by_path(&self, since: OffsetDateTime, limit: u32) -> Result<Vec<(String, ListenTotals)>> {
        let rows: Vec<NamedTotals<String>> = on_db!(&self.readers, |db| {
            sqlx::query_as(totals!("path AS name, ", "GROUP BY path ORDER BY COUNT(*) DESC, path LIMIT $3"))
                .bind(COMPLETE_PERMILLE)
                .bind(micros(since))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
        });
        Ok(rows.into_iter().map(NamedTotals::split).collect())
    }

    /// The same for each day (UTC) that had any, the last first: the moment at which it began.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn listens_by_day(
        &self,
        since: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<(OffsetDateTime, ListenTotals)>> {
        let rows: Vec<NamedTotals<i64>> = on_db!(&self.readers, |db| {
            sqlx::query_as(totals!(
                "ended_us / 86400000000 AS name, ",
                "GROUP BY ended_us / 86400000000 ORDER BY ended_us / 86400000000 DESC LIMIT $3"
            ))
            .bind(COMPLETE_PERMILLE)
            .bind(micros(since))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        });
        let split = |row: NamedTotals<i64>| {
            let (day, totals) = row.split();
            Ok((moment(day.saturating_mul(DAY_US))?, totals))
        };
        rows.into_iter().map(split).collect()
    }

    /// The last listens to a file, at most `limit`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn listens_of(&self, path: &str, limit: u32) -> Result<Vec<Listen>> {
        let rows: Vec<ListenRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM listens WHERE path = $1 ORDER BY ended_us DESC LIMIT $2")
                .bind(path)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
        });
        rows.into_iter().map(Listen::try_from).collect()
    }

    /// Deletes listens that ended before `before`, some at once; true where there are probably more.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn sweep_listens(&self, before: OffsetDateTime) -> Result<bool> {
        const BATCH: i64 = 500;
        on_db!(&self.writers, |db| {
            let done =
                sqlx::query("DELETE FROM listens WHERE id IN (SELECT id FROM listens WHERE ended_us < $1 LIMIT $2)")
                    .bind(micros(before))
                    .bind(BATCH)
                    .execute(db)
                    .await?;
            Ok(done.rows_affected() >= BATCH.unsigned_abs())
        })
    }
}
