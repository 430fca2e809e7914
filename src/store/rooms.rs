//! Channels that were made as rooms: they end when nobody has been in them for a while.

use antiphon_core::{gateway::RoomView, ids::ChannelId};
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{
    Channel, Result, Store, count, micros, moment,
    pools::{on_db, transaction},
    types::rfc3339,
};

/// Channels whose end is put off in one statement's turn.
const BATCH: usize = 200;

/// What makes a channel a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomTerms {
    /// How many may publish at once; 0 for all.
    pub max_publishers: u32,
    /// When it ends unless somebody is in it.
    pub expires_at: OffsetDateTime,
}

#[derive(FromRow)]
struct TermsRow {
    max_publishers: i64,
    expires_us: i64,
}

impl Channel {
    /// As rooms show it, with `current_users` in it now; a channel without terms stays.
    #[must_use]
    pub fn room_view(&self, terms: Option<RoomTerms>, current_users: u32) -> RoomView {
        RoomView {
            room_id: self.id,
            name: self.name.clone(),
            max_publishers: terms.map_or(0, |terms| terms.max_publishers),
            max_users: self.max_users,
            current_users,
            created_at: rfc3339(self.created_at),
            expires_at: terms.map(|terms| rfc3339(terms.expires_at)),
        }
    }
}

impl Store {
    /// Makes a channel a room.
    ///
    /// # Errors
    /// `Missing` when there is no such channel.
    pub async fn set_room_terms(&self, channel: ChannelId, terms: RoomTerms) -> Result<()> {
        transaction!(self, |tx| {
            sqlx::query(
                "INSERT INTO rooms (channel_id, max_publishers, expires_us) VALUES ($1, $2, $3)
                 ON CONFLICT (channel_id) DO UPDATE SET max_publishers = excluded.max_publishers,
                     expires_us = excluded.expires_us",
            )
            .bind(channel.0)
            .bind(i64::from(terms.max_publishers))
            .bind(micros(terms.expires_at))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        })
    }

    /// What makes a channel a room; `None` for one that is none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn room_terms(&self, channel: ChannelId) -> Result<Option<RoomTerms>> {
        let row: Option<TermsRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT max_publishers, expires_us FROM rooms WHERE channel_id = $1")
                .bind(channel.0)
                .fetch_optional(db)
                .await?
        });
        let terms = |row: TermsRow| {
            Ok(RoomTerms { max_publishers: count(row.max_publishers)?, expires_at: moment(row.expires_us)? })
        };
        row.map(terms).transpose()
    }

    /// Puts off the end of those of these channels that are rooms.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn keep_rooms(&self, channels: &[ChannelId], until: OffsetDateTime) -> Result<()> {
        for batch in channels.chunks(BATCH) {
            transaction!(self, |tx| {
                for channel in batch {
                    sqlx::query("UPDATE rooms SET expires_us = $2 WHERE channel_id = $1 AND expires_us < $2")
                        .bind(channel.0)
                        .bind(micros(until))
                        .execute(&mut *tx)
                        .await?;
                }
                tx.commit().await?;
                Ok(())
            })?;
        }
        Ok(())
    }
}
