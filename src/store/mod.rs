//! Durable data, in SQLite or PostgreSQL.
//!
//! Both are spoken to in the same SQL, with `$1` placeholders; a method's body is compiled once for each (`on_db`).
//! Where they differ, `Dialect` says how. Moments are kept as microseconds since 1970 UTC, ids as UUIDs, so that both
//! compare exactly. Migrations lie in `migrations/sqlite` and `migrations/postgres` and are applied by [`Store::open`];
//! each must leave the database usable by the release before.

mod addresses;
mod audio;
mod audit;
mod bans;
mod channels;
mod chat;
mod codes;
mod deliveries;
mod error;
mod facts;
mod failures;
mod identities;
mod invites;
mod library;
mod listens;
mod listing;
mod members;
mod messages;
mod mutes;
mod names;
mod notifications;
mod pools;
mod presence;
mod recordings;
mod refresh;
mod reports;
mod rooms;
mod statistics;
mod sweep;
mod types;
mod users;
mod webhooks;
mod words;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use antiphon_core::permission::ChannelRole;
use time::OffsetDateTime;

pub use addresses::{Address, PUSH_PER_USER, PushSubscription};
pub use audio::AudioConfiguration;
pub use audit::{AUDIT_KEPT, Audit, NewAudit};
pub use channels::ChannelLimits;
pub use chat::{ChatTerms, Expired, UNREAD_MAX, Unread};
pub use codes::{CODE_LASTS, CodeGiven, CodeWish};
pub use deliveries::{AT_ONCE_PER_USER, Delivery, DeliveryState, DuePlace, LOOKED_AT_ONCE, OutboxFacts, Tried, Way};
pub use error::StoreError;
pub use facts::DatabaseFacts;
pub use failures::{Attempt, Bucket};
pub use library::{Claim, Claimed, FileSeen, LibraryFile, LibraryQuery, SEARCH_WORDS_MAX, Touched};
pub use listens::{Listen, ListenTotals};
pub use listing::{UserDeletion, UserOrder, UserQuery};
pub use members::Inviter;
pub use messages::{
    Applied, Change, Event, Happening, Message, NewMessage, Outcome, Part, Refusal, SIGNERS_MAX, SIGNS_MAX, Scope,
    Signs,
};
pub use names::{DISPLAY_NAME_CHARS_MAX, NAME_CHARS_MAX, check_name, check_printable, folded, tidied};
pub use notifications::{Lately, NOTIFICATIONS_KEPT, NOTIFICATIONS_PER_USER, NewDelivery, Notification, Routed};
pub use presence::PresenceRun;
pub use recordings::{MixState, NewRecording, Recording, RecordingLimits, RecordingTrack};
pub use refresh::{Lifetimes, Rotation};
pub use reports::{Handled, Report};
pub use rooms::RoomTerms;
pub use statistics::{ChannelTotals, Counted, Increments, UserTotals};
pub use sweep::{LOGIN_PLACE_REMEMBERED, Swept};
pub use types::{Ban, Channel, ChannelChange, Invite, Membership, NewChannel, NewInvite, NewUser, User, rfc3339};
pub use webhooks::{Attempted, Webhook};
pub use words::words;

use pools::{Pools, on_db};

/// What every method of the store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A handle on the database. Cheap to clone; all clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    /// SQLite has one writer at a time: a pool of one connection is its queue, and readers never wait for it. With
    /// PostgreSQL both are the same pool.
    writers: Pools,
    readers: Pools,
    /// Told when a notification was written, so that it need not wait for the next look.
    outbox: Arc<tokio::sync::Notify>,
}

/// Connections of [`Store::open`].
const CONNECTIONS: u32 = 8;

impl Store {
    /// Opens the database at `url` (`sqlite:FILE` or `postgres://…`), makes it if it is a file that isn't there, and
    /// brings its tables up to date.
    ///
    /// # Errors
    /// When the URL is wrong, the database cannot be reached or its tables cannot be brought up to date.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, CONNECTIONS).await
    }

    /// Like [`Store::open`], with at most `connections` at once.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(url: &str, connections: u32) -> Result<Self> {
        let (writers, readers) = pools::open(url, connections).await?;
        Ok(Self { writers, readers, outbox: Arc::default() })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<()> {
        on_db!(&self.readers, |db| {
            sqlx::query("SELECT 1").execute(db).await?;
        });
        Ok(())
    }

    /// What the database's clock shows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn clock(&self) -> Result<SystemTime> {
        let micros = on_db!(&self.readers, |db| pools::clock(db).await?);
        Ok(UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs()))
    }

    /// Waits for what is under way and closes all connections.
    pub async fn close(&self) {
        on_db!(&self.readers, |db| db.close().await);
        on_db!(&self.writers, |db| db.close().await);
    }
}

/// Microseconds since 1970 UTC, as the database keeps moments.
fn micros(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// The moment of a column.
fn moment(micros: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .map_err(|_| StoreError::corrupt(format!("{micros} is no moment")))
}

/// A count of a column.
fn count(value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} is no count")))
}
