//! The ways outside that notifications take: claimed by one node at a time, tried again, given up.

use antiphon_core::ids::{DeliveryId, NotificationId, PushId, UserId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Result, Store, StoreError, count, micros, moment,
    notifications::note_send,
    pools::{on_db, transaction},
};

/// Attempts for one person by one way at once, on all nodes: a push service that does not answer for them keeps others waiting
/// no longer.
pub const AT_ONCE_PER_USER: i64 = 4;

/// Due deliveries that one look takes in. Most of them may be behind others of the same people, or under way.
pub const LOOKED_AT_ONCE: i64 = 1_024;

/// Takes on, until `$2`, at most `$4` deliveries by the way `$3` that are due at `$1`: of the first `$8` behind the place
/// (`$6`, `$7`) those that are not under way, and have fewer than `$5` of the same person before them.
///
/// Every part is a walk along an index that ends by itself, in both databases (a test asks SQLite; PostgreSQL's plan is a
/// nested loop of the same three index scans): the look along `notification_deliveries_due_by_way` after `$8` entries, the
/// count for each along `notification_deliveries_due_by_user` after `$5`, and the update along the primary key. With
/// 100,000 due that few people are owed, a claim that finds nothing takes 5 to 9 ms in PostgreSQL and 1.3 in SQLite, where
/// one without the bound took 770 and 200. The look is in order, so `$4` of it are those due for longest; to ask for that
/// order again would have SQLite count for all of the look before it takes the first.
const CLAIM: &str = "UPDATE notification_deliveries SET lease_until_us = $2
     WHERE lease_until_us <= $1 AND state = 'waiting' AND id IN
         (SELECT id FROM
              (SELECT id, user_id, next_us, lease_until_us FROM notification_deliveries
               WHERE way = $3 AND state = 'waiting' AND next_us <= $1 AND (next_us, id) > ($6, $7)
               ORDER BY next_us, id LIMIT $8) AS due
          WHERE lease_until_us <= $1 AND (SELECT COUNT(*) FROM
              (SELECT 1 FROM notification_deliveries AS own WHERE own.user_id = due.user_id AND own.way = $3
                   AND own.state = 'waiting' AND (own.next_us, own.id) < (due.next_us, due.id) LIMIT $5) AS earlier) < $5
          LIMIT $4)
     RETURNING *";

/// How far a node has looked at what is due by one way, behind what is due for longest. Begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DuePlace(Option<(i64, Uuid)>);

impl DuePlace {
    /// Everything behind it is greater than these.
    fn bounds(self) -> (i64, Uuid) {
        self.0.unwrap_or((i64::MIN, Uuid::nil()))
    }
}

/// A way outside.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A mail.
    Email,
    /// A short message to a phone.
    Sms,
    /// To a browser, by its push service.
    Push,
}

impl Way {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Email, Self::Sms, Self::Push];

    /// Its text in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Push => "push",
        }
    }

    /// The one of that text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == text)
    }

    /// The one of a column.
    pub(super) fn stored(text: &str) -> Result<Self> {
        Self::from_text(text).ok_or_else(|| StoreError::corrupt(format!("{text:?} is no way")))
    }
}

/// How far a delivery has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is sent when its time has come.
    Waiting,
    /// The receiver took it.
    Sent,
    /// It was not sent, because there was no reason to any more: it was read, taken away, or is not for them any more.
    Skipped,
    /// It was not sent, and is not tried again by itself.
    GivenUp,
}

impl DeliveryState {
    const ALL: [Self; 4] = [Self::Waiting, Self::Sent, Self::Skipped, Self::GivenUp];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Skipped => "skipped",
            Self::GivenUp => "given_up",
        }
    }
}

/// One way outside of one notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The same in each attempt.
    pub id: DeliveryId,
    /// Of what.
    pub notification: NotificationId,
    /// To whom.
    pub user: UserId,
    /// Which way.
    pub way: Way,
    /// By which push subscription, for that way.
    pub push: PushId,
    /// How far it has got.
    pub state: DeliveryState,
    /// Attempts that were made.
    pub attempts: u32,
    /// Why the last one failed, or why it was not sent.
    pub last_error: Option<String>,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// When it is tried next.
    pub next_at: OffsetDateTime,
    /// When it was sent, skipped or given up.
    pub done_at: Option<OffsetDateTime>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It was taken.
    Sent,
    /// It need not be sent any more.
    Skipped(&'static str),
    /// Not now: again then. No attempt was made.
    Postponed(OffsetDateTime),
    /// It failed: again then.
    Failed(String, OffsetDateTime),
    /// It failed for the last time.
    GivenUp(String),
}

/// What waits to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxFacts {
    /// So many deliveries, by each way that some do.
    pub waiting: Vec<(Way, u64)>,
    /// So many notifications that no node has routed.
    pub not_routed: u64,
    /// Since when an attempt is due that was not made, or a notification is not routed.
    pub oldest_due_at: Option<OffsetDateTime>,
}

#[derive(FromRow)]
struct DeliveryRow {
    id: Uuid,
    notification_id: Uuid,
    user_id: Uuid,
    way: String,
    target_id: Uuid,
    state: String,
    attempts: i64,
    last_error: Option<String>,
    created_us: i64,
    next_us: i64,
    done_us: Option<i64>,
}

impl TryFrom<DeliveryRow> for Delivery {
    type Error = StoreError;

    fn try_from(row: DeliveryRow) -> Result<Self> {
        let unknown = || StoreError::corrupt(format!("{:?} is no state", row.state));
        Ok(Self {
            id: DeliveryId(row.id),
            notification: NotificationId(row.notification_id),
            user: UserId(row.user_id),
            way: Way::stored(&row.way)?,
            push: PushId(row.target_id),
            state: DeliveryState::ALL.into_iter().find(|state| state.as_str() == row.state).ok_or_else(unknown)?,
            attempts: count(row.attempts)?,
            last_error: row.last_error,
            created_at: moment(row.created_us)?,
            next_at: moment(row.next_us)?,
            done_at: row.done_us.map(moment).transpose()?,
        })
    }
}

fn all(rows: Vec<DeliveryRow>) -> Result<Vec<Delivery>> {
    rows.into_iter().map(Delivery::try_from).collect()
}

impl Store {
    /// Takes on at most `most` deliveries by one way that are due at `now`, until `until`: no other node gets them meanwhile.
    /// Of one person's only the first [`AT_ONCE_PER_USER`] are taken on, whichever nodes have them.
    ///
    /// It looks at the [`LOOKED_AT_ONCE`] that are due for longest, and where those do not suffice at as many behind `place`,
    /// where the look before ended: what one call costs does not grow with what waits, and all that waits has its turn.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn claim_deliveries(
        &self,
        way: Way,
        now: OffsetDateTime,
        until: OffsetDateTime,
        most: usize,
        place: &mut DuePlace,
    ) -> Result<Vec<Delivery>> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let mut claimed = self.claim_behind(DuePlace::default(), way, (now, until), most).await?;
        if claimed.len() >= most {
            *place = DuePlace::default();
            return Ok(claimed);
        }
        *place = self.end_of_look(*place, way, now).await?;
        if place.0.is_some() {
            let further = self.claim_behind(*place, way, (now, until), most - claimed.len()).await?;
            claimed.extend(further);
        }
        Ok(claimed)
    }

    async fn claim_behind(
        &self,
        place: DuePlace,
        way: Way,
        (now, until): (OffsetDateTime, OffsetDateTime),
        most: usize,
    ) -> Result<Vec<Delivery>> {
        let (next_us, id) = place.bounds();
        let rows: Vec<DeliveryRow> = transaction!(self, |tx| {
            let rows = sqlx::query_as(CLAIM)
                .bind(micros(now))
                .bind(micros(until))
                .bind(way.as_str())
                .bind(i64::try_from(most).unwrap_or(i64::MAX))
                .bind(AT_ONCE_PER_USER)
                .bind(next_us)
                .bind(id)
                .bind(LOOKED_AT_ONCE)
                .fetch_all(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(rows)
        })?;
        all(rows)
    }

    /// Where a look that begins behind `place` ends; the beginning where nothing is due behind it.
    async fn end_of_look(&self, place: DuePlace, way: Way, now: OffsetDateTime) -> Result<DuePlace> {
        let (next_us, id) = place.bounds();
        let last: Option<(i64, Uuid)> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT next_us, id FROM notification_deliveries WHERE way = $1 AND state = 'waiting' AND next_us <= $2
                     AND (next_us, id) > ($3, $4) ORDER BY next_us, id LIMIT 1 OFFSET $5",
            )
            .bind(way.as_str())
            .bind(micros(now))
            .bind(next_us)
            .bind(id)
            .bind(LOOKED_AT_ONCE - 1)
            .fetch_optional(db)
            .await?
        });
        Ok(DuePlace(last))
    }

    /// Notes how an attempt ended, and lets others have the delivery. `until` must be what it was taken on until: false when
    /// another node has it by now.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn delivery_tried(&self, id: DeliveryId, until: OffsetDateTime, tried: &Tried) -> Result<bool> {
        let now = OffsetDateTime::now_utc();
        let (state, made, error, next_at) = match tried {
            Tried::Sent => (DeliveryState::Sent, 1, None, now),
            Tried::Skipped(why) => (DeliveryState::Skipped, 0, Some((*why).to_owned()), now),
            Tried::Postponed(until) => (DeliveryState::Waiting, 0, None, *until),
            Tried::Failed(error, again_at) => (DeliveryState::Waiting, 1, Some(error.clone()), *again_at),
            Tried::GivenUp(error) => (DeliveryState::GivenUp, 1, Some(error.clone()), now),
        };
        let done_us = (state != DeliveryState::Waiting).then(|| micros(now));
        let was_told = matches!(state, DeliveryState::Sent | DeliveryState::GivenUp);
        transaction!(self, |tx| {
            let done: Option<(Uuid, Uuid, String)> = sqlx::query_as(
                "UPDATE notification_deliveries SET state = $3, attempts = attempts + $4, last_error = $5, next_us = $6,
                     done_us = $7, lease_until_us = 0
                 WHERE id = $1 AND lease_until_us = $2 RETURNING notification_id, user_id, way",
            )
            .bind(id.0)
            .bind(micros(until))
            .bind(state.as_str())
            .bind(i64::from(made))
            .bind(&error)
            .bind(micros(next_at))
            .bind(done_us)
            .fetch_optional(&mut *tx)
            .await?;
            let Some((notification, user, way)) = done else { return Ok(false) };
            if was_told {
                note_send!(tx, notification, way.as_str(), user, None::<Uuid>, micros(now));
            }
            tx.commit().await?;
            Ok(true)
        })
    }

    /// The ways outside of somebody's notifications, from `oldest` on.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn deliveries_of(&self, user: UserId, oldest: NotificationId, limit: u32) -> Result<Vec<Delivery>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM notification_deliveries WHERE user_id = $1 AND notification_id >= $2
                 ORDER BY notification_id DESC, id LIMIT $3",
            )
            .bind(user.0)
            .bind(oldest.0)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        }))
    }

    /// What was given up, whosever it is, the latest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn deliveries_given_up(&self, limit: u32) -> Result<Vec<Delivery>> {
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT * FROM notification_deliveries WHERE state = 'given_up' ORDER BY done_us DESC LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        }))
    }

    /// Tries again at once what was given up; false when there is none of that id.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn retry_delivery(&self, id: DeliveryId) -> Result<bool> {
        let now_us = micros(OffsetDateTime::now_utc());
        on_db!(&self.writers, |db| {
            let retry = sqlx::query(
                "UPDATE notification_deliveries SET state = 'waiting', attempts = 0, created_us = $2, next_us = $2,
                     done_us = NULL
                 WHERE id = $1 AND state = 'given_up'",
            );
            Ok(retry.bind(id.0).bind(now_us).execute(db).await?.rows_affected() > 0)
        })
    }

    /// What waits to be sent at `now`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn outbox_facts(&self, now: OffsetDateTime) -> Result<OutboxFacts> {
        let now_us = micros(now);
        let (waiting, (not_routed, written)) = on_db!(&self.readers, |db| {
            let waiting: Vec<(String, i64, i64)> = sqlx::query_as(
                "SELECT way, COUNT(*), MIN(next_us) FROM notification_deliveries WHERE state = 'waiting' GROUP BY way",
            )
            .fetch_all(db)
            .await?;
            let not_routed: (i64, Option<i64>) =
                sqlx::query_as("SELECT COUNT(*), MIN(created_us) FROM notifications WHERE routed_us IS NULL")
                    .fetch_one(db)
                    .await?;
            (waiting, not_routed)
        });
        let next = waiting.iter().map(|(.., next_us)| *next_us).filter(|next_us| *next_us <= now_us);
        let oldest = next.chain(written).min();
        let counted = |(way, count, _): (String, i64, i64)| Ok((Way::stored(&way)?, count.unsigned_abs()));
        Ok(OutboxFacts {
            waiting: waiting.into_iter().map(counted).collect::<Result<_>>()?,
            not_routed: not_routed.unsigned_abs(),
            oldest_due_at: oldest.map(moment).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::pools::Pools;

    #[tokio::test]
    async fn a_claim_walks_along_indexes() {
        let store = Store::open("sqlite::memory:").await.expect("opens");
        let Pools::Sqlite(db) = &store.readers else { panic!("SQLite") };
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CLAIM}")))
                .fetch_all(db)
                .await
                .expect("a plan");
        let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
        let has = |step: &str| steps.iter().any(|known| known.contains(step));
        assert!(has("due_by_way (way=? AND (next_us,id)>(?,?) AND next_us<?)"), "{steps:?}");
        assert!(has("due_by_user (user_id=? AND way=? AND (next_us,id)<(?,?))"), "{steps:?}");
        assert!(has("SEARCH notification_deliveries USING INDEX sqlite_autoindex_notification_deliveries_1 (id=?)"));
        assert!(!has("SCAN notification_deliveries") && !has("TEMP B-TREE"), "{steps:?}");
    }
}
