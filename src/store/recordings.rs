//! Recordings of channels, and the tracks that came of them.

use antiphon_core::{
    gateway::RecordingEnd,
    ids::{ChannelId, RecordingId, TrackId, UserId},
};
use sqlx::{FromRow, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, micros, moment,
    pools::{Dialect, Lock, on_db, transaction},
    users::LOOKED_AT_ONCE,
};

/// Recordings that one page shows, and that one sweep removes.
const AT_ONCE: i64 = 100;

/// A recording of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Its id.
    pub id: RecordingId,
    /// Of which channel.
    pub channel: ChannelId,
    /// What it is called.
    pub name: String,
    /// Who began it.
    pub by: UserId,
    /// Their username then.
    pub by_name: String,
    /// When.
    pub started_at: OffsetDateTime,
    /// When it ended; `None` while it goes on.
    pub ended_at: Option<OffsetDateTime>,
    /// Why.
    pub ended_why: Option<RecordingEnd>,
    /// By whom; `None` when by the server.
    pub ended_by: Option<UserId>,
    /// Since when nobody is in the channel.
    pub empty_since: Option<OffsetDateTime>,
    /// When all tracks were there.
    pub finished_at: Option<OffsetDateTime>,
    /// How its mix is.
    pub mix: MixState,
    /// How many tracks are there.
    pub tracks: u32,
    /// Bytes of them.
    pub bytes: u64,
}

/// How the mix of a recording is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MixState {
    /// Nobody wanted one.
    None,
    /// It is wanted, or being made.
    Wanted,
    /// It is there.
    Ready,
    /// It cannot be made, and why.
    Failed(String),
}

/// A recording that is to begin.
#[derive(Clone, Debug)]
pub struct NewRecording {
    /// Of which channel.
    pub channel: ChannelId,
    /// What it is called.
    pub name: String,
    /// Who begins it.
    pub by: UserId,
    /// Their username.
    pub by_name: String,
}

/// How many recordings there may be.
#[derive(Clone, Copy, Debug)]
pub struct RecordingLimits {
    /// That go on at once.
    pub at_once: u32,
    /// Bytes of all together.
    pub bytes: u64,
}

/// One speaker as one node heard them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingTrack {
    /// Its id.
    pub id: TrackId,
    /// Of which recording.
    pub recording: RecordingId,
    /// Who speaks.
    pub user: UserId,
    /// Their username then.
    pub username: String,
    /// The node's name.
    pub node: String,
    /// When its first sample was said.
    pub started_at: OffsetDateTime,
    /// Samples at 48 kHz.
    pub samples: u64,
    /// Bytes.
    pub bytes: u64,
    /// Audio channels.
    pub channels: u8,
}

#[derive(FromRow)]
struct RecordingRow {
    id: Uuid,
    channel_id: Uuid,
    name: String,
    started_by: Uuid,
    started_by_name: String,
    started_us: i64,
    ended_us: Option<i64>,
    ended_why: Option<String>,
    ended_by: Option<Uuid>,
    empty_since_us: Option<i64>,
    finished_us: Option<i64>,
    mix_state: String,
    mix_error: Option<String>,
    tracks: i64,
    bytes: i64,
}

impl TryFrom<RecordingRow> for Recording {
    type Error = StoreError;

    fn try_from(row: RecordingRow) -> Result<Self> {
        let mix = match row.mix_state.as_str() {
            "wanted" => MixState::Wanted,
            "ready" => MixState::Ready,
            "failed" => MixState::Failed(row.mix_error.unwrap_or_default()),
            _ => MixState::None,
        };
        Ok(Self {
            id: RecordingId(row.id),
            channel: ChannelId(row.channel_id),
            name: row.name,
            by: UserId(row.started_by),
            by_name: row.started_by_name,
            started_at: moment(row.started_us)?,
            ended_at: row.ended_us.map(moment).transpose()?,
            ended_why: row.ended_why.as_deref().and_then(RecordingEnd::from_text),
            ended_by: row.ended_by.map(UserId),
            empty_since: row.empty_since_us.map(moment).transpose()?,
            finished_at: row.finished_us.map(moment).transpose()?,
            mix,
            tracks: super::count(row.tracks)?,
            bytes: row.bytes.unsigned_abs(),
        })
    }
}

#[derive(FromRow)]
struct TrackRow {
    id: Uuid,
    recording_id: Uuid,
    user_id: Uuid,
    username: String,
    node: String,
    started_us: i64,
    samples: i64,
    bytes: i64,
    channels: i64,
}

impl TryFrom<TrackRow> for RecordingTrack {
    type Error = StoreError;

    fn try_from(row: TrackRow) -> Result<Self> {
        Ok(Self {
            id: TrackId(row.id),
            recording: RecordingId(row.recording_id),
            user: UserId(row.user_id),
            username: row.username,
            node: row.node,
            started_at: moment(row.started_us)?,
            samples: row.samples.unsigned_abs(),
            bytes: row.bytes.unsigned_abs(),
            channels: u8::try_from(row.channels).unwrap_or(2),
        })
    }
}

/// A recording with what came of it.
const SELECT: &str =
    "SELECT r.id, r.channel_id, r.name, r.started_by, r.started_by_name, r.started_us, r.ended_us, r.ended_why,
    r.ended_by, r.empty_since_us, r.finished_us, r.mix_state, r.mix_error,
    (SELECT COUNT(*) FROM recording_tracks t WHERE t.recording_id = r.id AND t.is_waiting = 0) AS tracks,
    (SELECT CAST(COALESCE(SUM(t.bytes), 0) AS BIGINT) FROM recording_tracks t
        WHERE t.recording_id = r.id AND t.is_waiting = 0) AS bytes
    FROM recordings r WHERE ";

fn all(rows: Vec<RecordingRow>) -> Result<Vec<Recording>> {
    rows.into_iter().map(Recording::try_from).collect()
}

impl Store {
    /// Begins a recording, if the channel has none that goes on.
    ///
    /// # Errors
    /// `Conflict` when it has; `LimitReached`; `Missing` when there is no such channel.
    pub async fn begin_recording(&self, new: NewRecording, limits: RecordingLimits) -> Result<Recording> {
        let (id, now) = (RecordingId(Uuid::now_v7()), OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Recordings).await?;
            let (open, bytes): (i64, i64) = sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM recordings WHERE ended_us IS NULL),
                        (SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM recording_tracks)",
            )
            .fetch_one(&mut *tx)
            .await?;
            if open >= i64::from(limits.at_once) {
                return Err(StoreError::LimitReached("recordings at once (recording.at_once)"));
            }
            if bytes.unsigned_abs() >= limits.bytes {
                return Err(StoreError::LimitReached("bytes of recordings (recording.quota_mb)"));
            }
            sqlx::query(
                "INSERT INTO recordings (id, channel_id, name, started_by, started_by_name, started_us, mix_state, mix_until_us)
                 VALUES ($1, $2, $3, $4, $5, $6, 'none', 0)",
            )
            .bind(id.0)
            .bind(new.channel.0)
            .bind(&new.name)
            .bind(new.by.0)
            .bind(&new.by_name)
            .bind(micros(now))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })?;
        self.recording(id).await?.ok_or(StoreError::Missing)
    }

    /// Ends a recording; `None` when it had ended, or is none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn end_recording(
        &self,
        id: RecordingId,
        why: RecordingEnd,
        by: Option<UserId>,
    ) -> Result<Option<Recording>> {
        let done = on_db!(&self.writers, |db| {
            sqlx::query(
                "UPDATE recordings SET ended_us = $2, ended_why = $3, ended_by = $4 WHERE id = $1 AND ended_us IS NULL",
            )
            .bind(id.0)
            .bind(micros(OffsetDateTime::now_utc()))
            .bind(why.as_str())
            .bind(by.map(|by| by.0))
            .execute(db)
            .await?
            .rows_affected()
        });
        if done == 0 { Ok(None) } else { self.recording(id).await }
    }

    /// A recording.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn recording(&self, id: RecordingId) -> Result<Option<Recording>> {
        let select = format!("{SELECT} r.id = $1");
        let row: Option<RecordingRow> = on_db!(&self.readers, |db| {
            // Only text of our own is put together.
            sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(id.0).fetch_optional(db).await?
        });
        row.map(Recording::try_from).transpose()
    }

    /// The recording of a channel that goes on.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn open_recording(&self, channel: ChannelId) -> Result<Option<Recording>> {
        let select = format!("{SELECT} r.channel_id = $1 AND r.ended_us IS NULL");
        let row: Option<RecordingRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(channel.0).fetch_optional(db).await?
        });
        row.map(Recording::try_from).transpose()
    }

    /// All recordings that go on, or whose tracks are not all there yet.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unfinished_recordings(&self) -> Result<Vec<Recording>> {
        let select = format!("{SELECT} r.finished_us IS NULL ORDER BY r.id");
        all(on_db!(&self.readers, |db| sqlx::query_as(sqlx::AssertSqlSafe(select)).fetch_all(db).await?))
    }

    /// A channel's recordings, the newest first; some hundred at most, older than `before` where that is named.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn recordings(&self, channel: ChannelId, before: Option<RecordingId>) -> Result<Vec<Recording>> {
        let select = format!("{SELECT} r.channel_id = $1 AND ($2 IS NULL OR r.id < $2) ORDER BY r.id DESC LIMIT $3");
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(sqlx::AssertSqlSafe(select))
                .bind(channel.0)
                .bind(before.map(|before| before.0))
                .bind(AT_ONCE)
                .fetch_all(db)
                .await?
        }))
    }

    /// Recordings that ended before a moment, a hundred at most.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn recordings_ended_before(&self, before: OffsetDateTime) -> Result<Vec<Recording>> {
        let select = format!("{SELECT} r.ended_us < $1 ORDER BY r.ended_us LIMIT $2");
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(sqlx::AssertSqlSafe(select)).bind(micros(before)).bind(AT_ONCE).fetch_all(db).await?
        }))
    }

    /// Which of `ids` are recordings.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn known_recordings(&self, ids: &[RecordingId]) -> Result<Vec<RecordingId>> {
        let mut known = Vec::new();
        for some in ids.chunks(LOOKED_AT_ONCE) {
            let rows: Vec<Uuid> = on_db!(&self.readers, |db| {
                let mut select = QueryBuilder::new("SELECT id FROM recordings WHERE id IN (");
                let mut list = select.separated(", ");
                for id in some {
                    list.push_bind(id.0);
                }
                select.push(")");
                select.build_query_scalar().fetch_all(db).await?
            });
            known.extend(rows.into_iter().map(RecordingId));
        }
        Ok(known)
    }

    /// Notes since when nobody is in a recording's channel, or that somebody is.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_recording_empty(&self, id: RecordingId, since: Option<OffsetDateTime>) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query("UPDATE recordings SET empty_since_us = $2 WHERE id = $1 AND ended_us IS NULL")
                .bind(id.0)
                .bind(since.map(micros))
                .execute(db)
                .await?;
        });
        Ok(())
    }

    /// Notes that all tracks of a recording that has ended are there; false when that was known, and while one waits to be sent.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn finish_recording(&self, id: RecordingId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let finish = sqlx::query(
                "UPDATE recordings SET finished_us = $2 WHERE id = $1 AND ended_us IS NOT NULL AND finished_us IS NULL
                 AND NOT EXISTS (SELECT 1 FROM recording_tracks t WHERE t.recording_id = $1 AND t.is_waiting = 1)",
            );
            let done = finish.bind(id.0).bind(micros(OffsetDateTime::now_utc())).execute(db).await?;
            Ok(done.rows_affected() > 0)
        })
    }

    /// Forgets a recording with its tracks; false when there is none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn delete_recording(&self, id: RecordingId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("DELETE FROM recordings WHERE id = $1").bind(id.0).execute(db).await?;
            Ok(done.rows_affected() > 0)
        })
    }

    /// Notes that a track is where all nodes find it.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn track_was_sent(&self, id: TrackId) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query("UPDATE recording_tracks SET is_waiting = 0 WHERE id = $1").bind(id.0).execute(db).await?;
        });
        Ok(())
    }

    /// Adds a track, which may wait to be sent to where all nodes find it; one that is known is as it was. False when the recording is
    /// no more.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn add_recording_track(&self, track: &RecordingTrack, is_waiting: bool) -> Result<bool> {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let added = async {
            on_db!(&self.writers, |db| {
                sqlx::query(
                    "INSERT INTO recording_tracks (id, recording_id, user_id, username, node, started_us, samples, bytes, channels, is_waiting)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
                )
                .bind(track.id.0)
                .bind(track.recording.0)
                .bind(track.user.0)
                .bind(&track.username)
                .bind(&track.node)
                .bind(micros(track.started_at))
                .bind(bytes(track.samples))
                .bind(bytes(track.bytes))
                .bind(i64::from(track.channels))
                .bind(i64::from(is_waiting))
                .execute(db)
                .await?;
            });
            Ok(())
        };
        match added.await {
            Ok(()) => Ok(true),
            Err(StoreError::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A recording's tracks, by when they began; those that wait to be sent are not there yet.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn recording_tracks(&self, id: RecordingId) -> Result<Vec<RecordingTrack>> {
        let rows: Vec<TrackRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM recording_tracks WHERE recording_id = $1 AND is_waiting = 0 ORDER BY started_us, id",
            )
            .bind(id.0)
            .fetch_all(db)
            .await?
        });
        rows.into_iter().map(RecordingTrack::try_from).collect()
    }

    /// Bytes of all tracks, but of recordings that go on only those that are there: what waits of them is counted where it is, on its
    /// node's disk.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn recorded_bytes(&self) -> Result<u64> {
        let bytes: i64 = on_db!(&self.readers, |db| {
            sqlx::query_scalar(
                "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM recording_tracks
                 WHERE is_waiting = 0 OR recording_id IN (SELECT id FROM recordings WHERE ended_us IS NOT NULL)",
            )
            .fetch_one(db)
            .await?
        });
        Ok(bytes.unsigned_abs())
    }

    /// Has a mix made of a recording whose tracks are all there, unless it is there or on its way.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn want_mix(&self, id: RecordingId) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "UPDATE recordings SET mix_state = 'wanted', mix_error = NULL, mix_until_us = 0
                 WHERE id = $1 AND mix_state IN ('none', 'failed')",
            )
            .bind(id.0)
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Takes on a recording whose mix is wanted, until `until`: no other node gets it meanwhile.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn claim_mix(&self, now: OffsetDateTime, until: OffsetDateTime) -> Result<Option<RecordingId>> {
        let row: Option<(Uuid,)> = transaction!(self, |tx| {
            let row = sqlx::query_as(
                "UPDATE recordings SET mix_until_us = $2 WHERE mix_until_us <= $1 AND id IN
                     (SELECT id FROM recordings WHERE mix_state = 'wanted' AND mix_until_us <= $1
                      ORDER BY mix_until_us LIMIT 1)
                 RETURNING id",
            )
            .bind(micros(now))
            .bind(micros(until))
            .fetch_optional(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(row)
        })?;
        Ok(row.map(|(id,)| RecordingId(id)))
    }

    /// Notes how making a mix ended; it must have been taken on until `until`. False when another node has it by now.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn mix_made(&self, id: RecordingId, until: OffsetDateTime, error: Option<&str>) -> Result<bool> {
        let state = if error.is_none() { "ready" } else { "failed" };
        on_db!(&self.writers, |db| {
            let done = sqlx::query(
                "UPDATE recordings SET mix_state = $3, mix_error = $4, mix_until_us = 0
                 WHERE id = $1 AND mix_state = 'wanted' AND mix_until_us = $2",
            )
            .bind(id.0)
            .bind(micros(until))
            .bind(state)
            .bind(error)
            .execute(db)
            .await?;
            Ok(done.rows_affected() > 0)
        })
    }
}
