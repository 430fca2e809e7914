//! Where people are told outside: addresses that they confirmed by a code (`codes`), and browsers that they subscribed.

use antiphon_core::ids::{PushId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, count,
    deliveries::Way,
    micros, moment,
    pools::{Dialect, Lock, on_db, transaction},
};

/// Push subscriptions that one person can have.
pub const PUSH_PER_USER: i64 = 10;

/// How often in a row a push service may say that it takes nothing from this server until the subscription is forgotten.
const PUSH_REFUSALS_MAX: i64 = 3;

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
    /// How often in a row its push service said that it takes nothing from this server.
    pub refusals: u32,
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
struct PushRow {
    id: Uuid,
    user_id: Uuid,
    endpoint: String,
    p256dh: Vec<u8>,
    auth: Vec<u8>,
    created_us: i64,
    refusals: i64,
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
            refusals: count(row.refusals)?,
        })
    }
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
        let address =
            |row: AddressRow| Ok(Address { way: Way::stored(&row.way)?, confirmed: row.address, pending: row.pending });
        rows.into_iter().map(address).collect()
    }

    /// Forgets an address, confirmed or not; that codes were sent there is not forgotten. False when there was none.
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
                 ON CONFLICT (endpoint) DO UPDATE SET p256dh = excluded.p256dh, auth = excluded.auth, refusals = 0
                 RETURNING *",
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

    /// Notes that its push service takes messages for a browser again.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn push_taken(&self, id: PushId) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query("UPDATE push_subscriptions SET refusals = 0 WHERE id = $1").bind(id.0).execute(db).await?;
        });
        Ok(())
    }

    /// Notes that its push service takes nothing from this server for a browser, which is forgotten when that comes too often
    /// in a row; whether it was.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn push_refused(&self, id: PushId) -> Result<bool> {
        transaction!(self, |tx| {
            sqlx::query("UPDATE push_subscriptions SET refusals = refusals + 1 WHERE id = $1")
                .bind(id.0)
                .execute(&mut *tx)
                .await?;
            let ended = sqlx::query("DELETE FROM push_subscriptions WHERE id = $1 AND refusals >= $2")
                .bind(id.0)
                .bind(PUSH_REFUSALS_MAX)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(ended.rows_affected() > 0)
        })
    }
}
