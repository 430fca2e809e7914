//! Where people are told outside: addresses that they confirmed by a code, and browsers that they subscribed.

use antiphon_core::ids::{PushId, UserId};
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Result, Store, StoreError,
    deliveries::Way,
    micros, moment,
    pools::{Dialect, Lock, on_db, transaction},
};

/// Push subscriptions that one person can have.
pub const PUSH_PER_USER: i64 = 10;

/// Wrong codes until a new one must be asked for.
const CODE_TRIES_MAX: i64 = 5;

/// How long a code can be used.
pub const CODE_LASTS: Duration = Duration::minutes(15);

/// Between two codes for one person and way.
const CODE_EVERY: Duration = Duration::seconds(30);

/// Codes for one person and way within [`CODES_WITHIN`].
const CODES_MAX: i64 = 10;

/// Codes to one address, whoever asks, within an hour.
const CODES_TO_ADDRESS_MAX: i64 = 5;

/// See [`CODES_MAX`].
const CODES_WITHIN: Duration = Duration::days(1);

/// An address of somebody, for one way.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// For which way.
    pub way: Way,
    /// The one that is told, which they confirmed.
    pub confirmed: Option<String>,
    /// The one that a code was sent to.
    pub pending: Option<String>,
}

impl std::fmt::Debug for Address {
    /// Without the addresses.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({:?}, confirmed: {})", self.way, self.confirmed.is_some())
    }
}

/// What became of the wish for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeWish {
    /// It may be sent.
    Granted,
    /// Too many were sent: in so many seconds again.
    TooMany {
        /// How many.
        seconds: u64,
    },
}

/// What became of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeGiven {
    /// The address is confirmed.
    Right,
    /// It is another code.
    Wrong {
        /// So many tries are left.
        tries_left: u32,
    },
    /// There is none to be confirmed, or it has had its time or its tries.
    None,
}

/// A browser of somebody, as its push service knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct PushSubscription {
    /// Its id.
    pub id: PushId,
    /// Whose.
    pub user: UserId,
    /// Where messages for it are posted: who has it may do so.
    pub endpoint: String,
    /// Its public key, an uncompressed point of P-256.
    pub p256dh: Vec<u8>,
    /// The secret that it shares with us.
    pub auth: Vec<u8>,
    /// Since when.
    pub created_at: OffsetDateTime,
}

impl std::fmt::Debug for PushSubscription {
    /// Without the endpoint and its secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushSubscription({} of {})", self.id, self.user)
    }
}

#[derive(FromRow)]
struct AddressRow {
    way: String,
    address: Option<String>,
    pending: Option<String>,
}

#[derive(FromRow)]
struct CodeRow {
    code_sent_us: i64,
    codes: i64,
    codes_since_us: i64,
}

#[derive(FromRow)]
struct PushRow {
    id: Uuid,
    user_id: Uuid,
    endpoint: String,
    p256dh: Vec<u8>,
    auth: Vec<u8>,
    created_us: i64,
}

impl TryFrom<PushRow> for PushSubscription {
    type Error = StoreError;

    fn try_from(row: PushRow) -> Result<Self> {
        Ok(Self {
            id: PushId(row.id),
            user: UserId(row.user_id),
            endpoint: row.endpoint,
            p256dh: row.p256dh,
            auth: row.auth,
            created_at: moment(row.created_us)?,
        })
    }
}

/// How long until another code may be sent; `None`: it may now.
fn wait_us(known: &CodeRow, now_us: i64) -> Option<i64> {
    let since = |moment_us: i64, wait: Duration| {
        let wait_us = i64::try_from(wait.whole_microseconds()).unwrap_or(i64::MAX);
        // A clock that was set back makes nobody wait for longer.
        (moment_us + wait_us - now_us).clamp(0, wait_us)
    };
    let soonest = since(known.code_sent_us, CODE_EVERY);
    let of_day = if known.codes >= CODES_MAX { since(known.codes_since_us, CODES_WITHIN) } else { 0 };
    Some(soonest.max(of_day)).filter(|wait| *wait > 0)
}

impl Store {
    /// Somebody's addresses.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn addresses(&self, user: UserId) -> Result<Vec<Address>> {
        let rows: Vec<AddressRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT way, address, pending FROM notification_addresses WHERE user_id = $1 ORDER BY way")
                .bind(user.0)
                .fetch_all(db)
                .await?
        });
        let address = |row: AddressRow| {
            let unknown = || StoreError::corrupt(format!("{:?} is no way", row.way));
            let way = Way::from_text(&row.way).ok_or_else(unknown)?;
            Ok(Address { way, confirmed: row.address, pending: row.pending })
        };
        rows.into_iter().map(address).collect()
    }

    /// Notes that a code of that hash is to be sent to an address, unless too many were.
    ///
    /// # Errors
    /// `Missing` when the user is gone.
    pub async fn begin_confirming(
        &self,
        user: UserId,
        way: Way,
        address: &str,
        code_hash: &[u8],
        now: OffsetDateTime,
    ) -> Result<CodeWish> {
        let now_us = micros(now);
        transaction!(self, |tx| {
            // Changes nothing of a row that is there, but only one transaction at a time can hold it.
            let known: CodeRow = sqlx::query_as(
                "INSERT INTO notification_addresses
                     (user_id, way, code_until_us, code_tries, code_sent_us, codes, codes_since_us)
                 VALUES ($1, $2, 0, 0, 0, 0, $3)
                 ON CONFLICT (user_id, way) DO UPDATE SET codes = notification_addresses.codes
                 RETURNING code_sent_us, codes, codes_since_us",
            )
            .bind(user.0)
            .bind(way.as_str())
            .bind(now_us)
            .fetch_one(&mut *tx)
            .await?;
            let to_address: i64 = sqlx::query_scalar(
                "SELECT COUNT(*) FROM notification_addresses WHERE pending = $1 AND code_sent_us > $2 AND user_id <> $3",
            )
            .bind(address)
            .bind(now_us - 3_600_000_000)
            .bind(user.0)
            .fetch_one(&mut *tx)
            .await?;
            let wait = if to_address >= CODES_TO_ADDRESS_MAX { Some(3_600_000_000) } else { wait_us(&known, now_us) };
            if let Some(wait) = wait {
                return Ok(CodeWish::TooMany { seconds: wait.unsigned_abs().div_ceil(1_000_000) });
            }
            let begins_anew = micros(now - CODES_WITHIN) >= known.codes_since_us;
            sqlx::query(
                "UPDATE notification_addresses SET pending = $3, code_hash = $4, code_until_us = $5, code_tries = 0,
                     code_sent_us = $6, codes = $7, codes_since_us = $8
                 WHERE user_id = $1 AND way = $2",
            )
            .bind(user.0)
            .bind(way.as_str())
            .bind(address)
            .bind(code_hash)
            .bind(micros(now + CODE_LASTS))
            .bind(now_us)
            .bind(if begins_anew { 1 } else { known.codes + 1 })
            .bind(if begins_anew { now_us } else { known.codes_since_us })
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(CodeWish::Granted)
        })
    }

    /// Confirms the address that a code was sent to.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn confirm_address(
        &self,
        user: UserId,
        way: Way,
        code_hash: &[u8],
        now: OffsetDateTime,
    ) -> Result<CodeGiven> {
        transaction!(self, |tx| {
            // Counted before it is compared, so that tries at once count, too.
            let tried: Option<(i64, Option<Vec<u8>>)> = sqlx::query_as(
                "UPDATE notification_addresses SET code_tries = code_tries + 1
                 WHERE user_id = $1 AND way = $2 AND pending IS NOT NULL AND code_until_us > $3 AND code_tries < $4
                 RETURNING code_tries, code_hash",
            )
            .bind(user.0)
            .bind(way.as_str())
            .bind(micros(now))
            .bind(CODE_TRIES_MAX)
            .fetch_optional(&mut *tx)
            .await?;
            let Some((tries, Some(hash))) = tried else { return Ok(CodeGiven::None) };
            let is_right = aws_lc_rs::constant_time::verify_slices_are_equal(&hash, code_hash).is_ok();
            if is_right {
                sqlx::query(
                    "UPDATE notification_addresses SET address = pending, pending = NULL, code_hash = NULL, code_until_us = 0
                     WHERE user_id = $1 AND way = $2",
                )
                .bind(user.0)
                .bind(way.as_str())
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
            let tries_left = super::count((CODE_TRIES_MAX - tries).max(0))?;
            Ok(if is_right { CodeGiven::Right } else { CodeGiven::Wrong { tries_left } })
        })
    }

    /// Forgets an address, confirmed or not; how many codes were sent stays. False when there was none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn forget_address(&self, user: UserId, way: Way) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let forget = sqlx::query(
                "UPDATE notification_addresses SET address = NULL, pending = NULL, code_hash = NULL, code_until_us = 0
                 WHERE user_id = $1 AND way = $2 AND (address IS NOT NULL OR pending IS NOT NULL)",
            );
            Ok(forget.bind(user.0).bind(way.as_str()).execute(db).await?.rows_affected() > 0)
        })
    }

    /// Notes a browser of somebody. One that was another's is theirs from now on, under another id.
    ///
    /// # Errors
    /// `LimitReached`; `Missing` when the user is gone.
    pub async fn subscribe_push(
        &self,
        user: UserId,
        endpoint: &str,
        p256dh: &[u8],
        auth: &[u8],
    ) -> Result<PushSubscription> {
        let row: PushRow = transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Push).await?;
            sqlx::query("DELETE FROM push_subscriptions WHERE endpoint = $1 AND user_id <> $2")
                .bind(endpoint)
                .bind(user.0)
                .execute(&mut *tx)
                .await?;
            let row: Option<PushRow> = sqlx::query_as(
                "INSERT INTO push_subscriptions (id, user_id, endpoint, p256dh, auth, created_us)
                 SELECT $1, $2, $3, $4, $5, $6 WHERE (SELECT COUNT(*) FROM push_subscriptions
                     WHERE user_id = $2 AND endpoint <> $3) < $7
                 ON CONFLICT (endpoint) DO UPDATE SET p256dh = excluded.p256dh, auth = excluded.auth RETURNING *",
            )
            .bind(Uuid::now_v7())
            .bind(user.0)
            .bind(endpoint)
            .bind(p256dh)
            .bind(auth)
            .bind(micros(OffsetDateTime::now_utc()))
            .bind(PUSH_PER_USER)
            .fetch_optional(&mut *tx)
            .await?;
            let row = row.ok_or(StoreError::LimitReached("browsers that one can subscribe"))?;
            tx.commit().await?;
            Ok(row)
        })?;
        row.try_into()
    }

    /// Somebody's browsers.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn push_subscriptions(&self, user: UserId) -> Result<Vec<PushSubscription>> {
        let rows: Vec<PushRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM push_subscriptions WHERE user_id = $1 ORDER BY id")
                .bind(user.0)
                .fetch_all(db)
                .await?
        });
        rows.into_iter().map(PushSubscription::try_from).collect()
    }

    /// Forgets a browser of somebody; false when there was none.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unsubscribe_push(&self, user: UserId, id: PushId) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let delete = sqlx::query("DELETE FROM push_subscriptions WHERE user_id = $1 AND id = $2");
            Ok(delete.bind(user.0).bind(id.0).execute(db).await?.rows_affected() > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sent_now_and_then_and_so_many_a_day() {
        let second = 1_000_000;
        let known = |code_sent_us, codes| CodeRow { code_sent_us, codes, codes_since_us: 0 };
        assert_eq!(wait_us(&known(0, 1), 10 * second), Some(20 * second));
        assert_eq!(wait_us(&known(0, 1), 30 * second), None);
        assert_eq!(wait_us(&known(0, CODES_MAX), 3_600 * second), Some(23 * 3_600 * second));
        assert_eq!(wait_us(&known(0, CODES_MAX), 86_400 * second), None);
        assert_eq!(wait_us(&known(100 * second, 1), 0), Some(30 * second), "a clock that was set back");
    }
}
