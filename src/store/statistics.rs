//! What channels, people and the server have carried, added up over nodes and restarts.

use antiphon_core::ids::{ChannelId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{
    Result, Store, micros, moment,
    pools::{on_db, transaction},
};

/// What a channel, or all of them, carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelTotals {
    /// How often somebody joined.
    pub joins: u64,
    /// Frames taken from speakers.
    pub frames_in: u64,
    /// Frames delivered: each listener of each frame counts.
    pub frames_out: u64,
    /// Bytes of the frames taken.
    pub bytes_in: u64,
    /// Bytes sent for them.
    pub bytes_out: u64,
    /// Frames missing between those taken.
    pub frames_lost: u64,
}

/// What somebody did in voice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserTotals {
    /// How often they joined a channel.
    pub joins: u64,
    /// How long they were in one, in milliseconds.
    pub voice_ms: u64,
    /// Frames taken from them.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// Totals, and since when they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<T> {
    /// The totals.
    pub totals: T,
    /// Since when.
    pub since: OffsetDateTime,
    /// When the last of it happened, to a few seconds; of a channel or the server: when it was counted first.
    pub last_at: OffsetDateTime,
}

/// What came since it was last stored.
#[derive(Clone, Debug, Default)]
pub struct Increments {
    /// Of channels.
    pub channels: Vec<(ChannelId, ChannelTotals)>,
    /// Of people.
    pub users: Vec<(UserId, UserTotals)>,
}

impl std::ops::AddAssign for ChannelTotals {
    fn add_assign(&mut self, more: Self) {
        self.joins += more.joins;
        self.frames_in += more.frames_in;
        self.frames_out += more.frames_out;
        self.bytes_in += more.bytes_in;
        self.bytes_out += more.bytes_out;
        self.frames_lost += more.frames_lost;
    }
}

impl std::ops::AddAssign for UserTotals {
    fn add_assign(&mut self, more: Self) {
        self.joins += more.joins;
        self.voice_ms += more.voice_ms;
        self.frames += more.frames;
        self.bytes += more.bytes;
    }
}

/// A row of `channel_statistics` or of `server_statistics`.
#[derive(FromRow)]
struct ChannelRow {
    since_us: i64,
    joins: i64,
    frames_in: i64,
    frames_out: i64,
    bytes_in: i64,
    bytes_out: i64,
    frames_lost: i64,
}

/// A row of `user_statistics`.
#[derive(FromRow)]
struct UserRow {
    since_us: i64,
    last_voice_us: i64,
    joins: i64,
    voice_ms: i64,
    frames: i64,
    bytes: i64,
}

impl ChannelRow {
    fn counted(self) -> Result<Counted<ChannelTotals>> {
        let totals = ChannelTotals {
            joins: self.joins.unsigned_abs(),
            frames_in: self.frames_in.unsigned_abs(),
            frames_out: self.frames_out.unsigned_abs(),
            bytes_in: self.bytes_in.unsigned_abs(),
            bytes_out: self.bytes_out.unsigned_abs(),
            frames_lost: self.frames_lost.unsigned_abs(),
        };
        let since = moment(self.since_us)?;
        Ok(Counted { totals, since, last_at: since })
    }
}

/// A count as the database keeps it.
fn column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

// Rows of channels and people that are gone by now would be nobody's: nothing is inserted for them.
const ADD_CHANNEL: &str = "
    INSERT INTO channel_statistics AS s
        (channel_id, since_us, joins, frames_in, frames_out, bytes_in, bytes_out, frames_lost)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE EXISTS (SELECT 1 FROM channels WHERE id = $1)
    ON CONFLICT (channel_id) DO UPDATE SET
        joins = s.joins + excluded.joins,
        frames_in = s.frames_in + excluded.frames_in,
        frames_out = s.frames_out + excluded.frames_out,
        bytes_in = s.bytes_in + excluded.bytes_in,
        bytes_out = s.bytes_out + excluded.bytes_out,
        frames_lost = s.frames_lost + excluded.frames_lost";

const ADD_USER: &str = "
    INSERT INTO user_statistics AS s (user_id, since_us, last_voice_us, joins, voice_ms, frames, bytes)
    SELECT $1, $2, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT 1 FROM users WHERE id = $1)
    ON CONFLICT (user_id) DO UPDATE SET
        last_voice_us = excluded.last_voice_us,
        joins = s.joins + excluded.joins,
        voice_ms = s.voice_ms + excluded.voice_ms,
        frames = s.frames + excluded.frames,
        bytes = s.bytes + excluded.bytes";

const ADD_SERVER: &str = "
    INSERT INTO server_statistics AS s (id, since_us, joins, frames_in, frames_out, bytes_in, bytes_out, frames_lost)
    VALUES (1, $1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (id) DO UPDATE SET
        joins = s.joins + excluded.joins,
        frames_in = s.frames_in + excluded.frames_in,
        frames_out = s.frames_out + excluded.frames_out,
        bytes_in = s.bytes_in + excluded.bytes_in,
        bytes_out = s.bytes_out + excluded.bytes_out,
        frames_lost = s.frames_lost + excluded.frames_lost";

impl Store {
    /// Adds to the totals what came since, in one step. What is of channels and people that are gone counts only for
    /// the server.
    ///
    /// # Errors
    /// Only the database's; nothing is added then, unless its answer was lost.
    pub async fn add_statistics(&self, increments: &Increments, now: OffsetDateTime) -> Result<()> {
        let now_us = micros(now);
        let mut server = ChannelTotals::default();
        increments.channels.iter().for_each(|(_, more)| server += *more);
        // In one order on all nodes, so that two of them do not wait for each other.
        let (mut channels, mut users) = (increments.channels.clone(), increments.users.clone());
        channels.sort_unstable_by_key(|(channel, _)| channel.0);
        users.sort_unstable_by_key(|(user, _)| user.0);
        transaction!(self, |tx| {
            for (channel, more) in &channels {
                sqlx::query(ADD_CHANNEL)
                    .bind(channel.0)
                    .bind(now_us)
                    .bind(column(more.joins))
                    .bind(column(more.frames_in))
                    .bind(column(more.frames_out))
                    .bind(column(more.bytes_in))
                    .bind(column(more.bytes_out))
                    .bind(column(more.frames_lost))
                    .execute(&mut *tx)
                    .await?;
            }
            for (user, more) in &users {
                sqlx::query(ADD_USER)
                    .bind(user.0)
                    .bind(now_us)
                    .bind(column(more.joins))
                    .bind(column(more.voice_ms))
                    .bind(column(more.frames))
                    .bind(column(more.bytes))
                    .execute(&mut *tx)
                    .await?;
            }
            // Last, since all nodes want this row.
            sqlx::query(ADD_SERVER)
                .bind(now_us)
                .bind(column(server.joins))
                .bind(column(server.frames_in))
                .bind(column(server.frames_out))
                .bind(column(server.bytes_in))
                .bind(column(server.bytes_out))
                .bind(column(server.frames_lost))
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// What a channel has carried; `None` when nothing is counted yet.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channel_totals(&self, channel: ChannelId) -> Result<Option<Counted<ChannelTotals>>> {
        let row: Option<ChannelRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM channel_statistics WHERE channel_id = $1")
                .bind(channel.0)
                .fetch_optional(db)
                .await?
        });
        row.map(ChannelRow::counted).transpose()
    }

    /// What all channels have carried, those that are deleted as well; `None` when nothing is counted yet.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn server_totals(&self) -> Result<Option<Counted<ChannelTotals>>> {
        let row: Option<ChannelRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM server_statistics WHERE id = 1").fetch_optional(db).await?
        });
        row.map(ChannelRow::counted).transpose()
    }

    /// What somebody did in voice; `None` when nothing is counted yet.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn user_totals(&self, user: UserId) -> Result<Option<Counted<UserTotals>>> {
        let row: Option<UserRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM user_statistics WHERE user_id = $1").bind(user.0).fetch_optional(db).await?
        });
        let counted = |row: UserRow| {
            let totals = UserTotals {
                joins: row.joins.unsigned_abs(),
                voice_ms: row.voice_ms.unsigned_abs(),
                frames: row.frames.unsigned_abs(),
                bytes: row.bytes.unsigned_abs(),
            };
            Ok(Counted { totals, since: moment(row.since_us)?, last_at: moment(row.last_voice_us)? })
        };
        row.map(counted).transpose()
    }

    /// How many channels somebody owns, and how many they are a member of, those included.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn channels_counts(&self, user: UserId) -> Result<(u64, u64)> {
        let (owned, member): (i64, i64) = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM channels WHERE owner_id = $1),
                        (SELECT COUNT(*) FROM memberships WHERE user_id = $1)",
            )
            .bind(user.0)
            .fetch_one(db)
            .await?
        });
        Ok((owned.unsigned_abs(), member.unsigned_abs()))
    }

    /// Begins all totals anew; how many rows that were.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn reset_statistics(&self) -> Result<u64> {
        transaction!(self, |tx| {
            let mut rows = 0;
            for statement in
                ["DELETE FROM channel_statistics", "DELETE FROM user_statistics", "DELETE FROM server_statistics"]
            {
                rows += sqlx::query(statement).execute(&mut *tx).await?.rows_affected();
            }
            tx.commit().await?;
            Ok(rows)
        })
    }
}
