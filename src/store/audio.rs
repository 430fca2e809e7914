//! The audio configuration that an administrator put in the place of the settings'.

use antiphon_core::ids::UserId;
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{Result, Store, StoreError, count, micros, pools::on_db};

/// What clients should capture and play. Its values are checked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioConfiguration {
    /// Samples per second of a stream whose speaker names no other rate.
    pub sample_rate: u32,
    /// Channels of a stream whose speaker names no other count, 1 or 2.
    pub channels: u8,
    /// Bits per sample of the PCM that clients encode.
    pub bit_depth: u8,
    /// Samples per block to capture and play at once.
    pub buffer_size: u32,
    /// The delay from mouth to ear to aim at.
    pub latency_target_ms: u32,
}

/// A row of `audio_configuration`.
#[derive(FromRow)]
struct Row {
    sample_rate: i64,
    channels: i64,
    bit_depth: i64,
    buffer_size: i64,
    latency_target_ms: i64,
}

impl TryFrom<Row> for AudioConfiguration {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let small =
            |value: i64| u8::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} in a configuration")));
        Ok(Self {
            sample_rate: count(row.sample_rate)?,
            channels: small(row.channels)?,
            bit_depth: small(row.bit_depth)?,
            buffer_size: count(row.buffer_size)?,
            latency_target_ms: count(row.latency_target_ms)?,
        })
    }
}

impl Store {
    /// The configuration that holds instead of the settings'; `None` when those hold.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn audio_configuration(&self) -> Result<Option<AudioConfiguration>> {
        let row: Option<Row> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM audio_configuration WHERE id = 1").fetch_optional(db).await?
        });
        row.map(AudioConfiguration::try_from).transpose()
    }

    /// Lets a configuration hold on all nodes from now on.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_audio_configuration(&self, new: AudioConfiguration, by: UserId) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO audio_configuration
                     (id, sample_rate, channels, bit_depth, buffer_size, latency_target_ms, by_id, changed_us)
                 VALUES (1, $1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (id) DO UPDATE SET sample_rate = excluded.sample_rate, channels = excluded.channels,
                     bit_depth = excluded.bit_depth, buffer_size = excluded.buffer_size,
                     latency_target_ms = excluded.latency_target_ms, by_id = excluded.by_id,
                     changed_us = excluded.changed_us",
            )
            .bind(i64::from(new.sample_rate))
            .bind(i64::from(new.channels))
            .bind(i64::from(new.bit_depth))
            .bind(i64::from(new.buffer_size))
            .bind(i64::from(new.latency_target_ms))
            .bind(by.0)
            .bind(micros(OffsetDateTime::now_utc()))
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Lets the settings hold again; false when they did.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn drop_audio_configuration(&self) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("DELETE FROM audio_configuration WHERE id = 1").execute(db).await?;
            Ok(done.rows_affected() > 0)
        })
    }
}
