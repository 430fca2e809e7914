//! What single people are told of, in the order in which it happened, and what they have read of it.
//!
//! A notification is written in the transaction of what caused it. Later one node takes it on, tells the user's sessions, and
//! writes its ways outside ([`Store::route_notification`]), which are sent one by one (`deliveries`).

use antiphon_core::{
    gateway::NotificationKind,
    ids::{ChannelId, MessageId, NotificationId, PushId, UserId},
};
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Result, Scope, Store, StoreError, UNREAD_MAX, count,
    deliveries::Way,
    messages::{message_id, stored},
    micros, moment,
    pools::{on_db, transaction},
};
use crate::telemetry::metrics::metrics;

/// How long notifications are kept.
pub const NOTIFICATIONS_KEPT: Duration = Duration::days(30);

/// Notifications that one person has at most. Beyond that, the oldest of whoever caused most of them go: nobody who writes much
/// drives out what others wrote.
pub const NOTIFICATIONS_PER_USER: u32 = 500;

/// How long it is known what somebody was told, to bound what else they are.
pub(super) const SENDS_KEPT: Duration = Duration::days(1);

/// So often within [`SENDS_KEPT`] somebody is told that one and the same account took them in, whatever channels it has.
pub(super) const INVITATIONS_PER_SENDER: i64 = 10;

/// An hour.
pub(super) const HOUR_US: i64 = 3_600_000_000;

/// Notifications that one node takes on at once.
const ROUTED_AT_ONCE: i64 = 64;

/// Something that somebody is told of. What it says is the message's as it is now.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// Grows with time.
    pub id: NotificationId,
    /// Who is told.
    pub user: UserId,
    /// Why.
    pub kind: NotificationKind,
    /// Who wrote, or invited. The account may be gone.
    pub from: UserId,
    /// What they were called then.
    pub from_name: String,
    /// In which channel; `None` between two people.
    pub channel: Option<ChannelId>,
    /// What that is called.
    pub channel_name: Option<String>,
    /// The message.
    pub message: Option<MessageId>,
    /// What it says now; empty without one.
    pub content: String,
    /// The message was taken away since.
    pub is_deleted: bool,
    /// When it happened.
    pub created_at: OffsetDateTime,
    /// When they read it.
    pub read_at: Option<OffsetDateTime>,
}

impl std::fmt::Debug for Notification {
    /// Without what it says.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notification({} for {}: {:?})", self.id, self.user, self.kind)
    }
}

/// One way outside, to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Which way.
    pub way: Way,
    /// By which push subscription, for that way.
    pub push: Option<PushId>,
    /// When.
    pub next_at: OffsetDateTime,
}

/// How many other notifications went to somebody by one way lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lately {
    /// Within the hour.
    pub in_hour: u64,
    /// Those that wait to be sent.
    pub waiting: u64,
}

/// What became of a notification's ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Deliveries that were written.
    pub written: u64,
    /// Older notifications of the person that had to go.
    pub forgotten: u64,
}

#[derive(FromRow)]
pub(super) struct NotificationRow {
    id: Uuid,
    user_id: Uuid,
    kind: String,
    from_id: Uuid,
    from_name: String,
    channel_id: Option<Uuid>,
    channel_name: Option<String>,
    message_id: Option<i64>,
    content: Option<String>,
    deleted_us: Option<i64>,
    created_us: i64,
    read_us: Option<i64>,
}

/// The columns of [`NotificationRow`].
macro_rules! select_notifications {
    ($($rest:tt)+) => {
        concat!(
            "SELECT notifications.id, notifications.user_id, kind, notifications.from_id, from_name,
                 notifications.channel_id, channels.name AS channel_name, message_id, messages.content,
                 messages.deleted_us, notifications.created_us, read_us
             FROM notifications LEFT JOIN messages ON messages.id = message_id
             LEFT JOIN channels ON channels.id = notifications.channel_id ",
            $($rest)+
        )
    };
}

/// What of `$1`'s notifications they may see at `$2`: `permission::decide` for all of them at once. A test compares the two.
macro_rules! seen {
    () => {
        "NOT EXISTS (SELECT 1 FROM blocks WHERE blocks.user_id = $1 AND blocked_id = notifications.from_id)
         AND NOT EXISTS (SELECT 1 FROM messages AS said WHERE said.id = notifications.message_id
             AND said.deleted_us IS NOT NULL)
         AND (notifications.channel_id IS NULL OR EXISTS (
             SELECT 1 FROM channels AS place JOIN users AS reader ON reader.id = $1
             LEFT JOIN memberships ON memberships.channel_id = place.id AND memberships.user_id = $1
             LEFT JOIN chat_scopes ON chat_scopes.scope_id = place.id
             WHERE place.id = notifications.channel_id AND (reader.role = 'admin' OR
                 (place.is_private = FALSE OR memberships.role IS NOT NULL)
                 AND NOT EXISTS (SELECT 1 FROM bans WHERE bans.channel_id = place.id AND bans.user_id = $1
                     AND (until_us IS NULL OR until_us > $2))
                 AND (notifications.kind = 'invitation' OR COALESCE(history, 'everyone') = 'everyone'
                     OR history = 'members' AND memberships.role IS NOT NULL
                     OR memberships.role IN ('owner', 'moderator')))))"
    };
}

impl TryFrom<NotificationRow> for Notification {
    type Error = StoreError;

    fn try_from(row: NotificationRow) -> Result<Self> {
        let unknown = || StoreError::corrupt(format!("{:?} is no kind of notification", row.kind));
        Ok(Self {
            id: NotificationId(row.id),
            user: UserId(row.user_id),
            kind: NotificationKind::from_text(&row.kind).ok_or_else(unknown)?,
            from: UserId(row.from_id),
            from_name: row.from_name,
            channel: row.channel_id.map(ChannelId),
            channel_name: row.channel_name,
            message: row.message_id.map(message_id).transpose()?,
            content: row.content.unwrap_or_default(),
            is_deleted: row.deleted_us.is_some(),
            created_at: moment(row.created_us)?,
            read_at: row.read_us.map(moment).transpose()?,
        })
    }
}

/// Writes that `$user` is told of `$kind`, in the transaction `$tx`: 1, or 0 where they are gone or were told of the message.
macro_rules! notify {
    ($tx:ident, $user:expr, $kind:expr, $from:expr, $from_name:expr, $channel:expr, $message:expr, $now_us:expr) => {
        sqlx::query(
            "INSERT INTO notifications
                 (id, user_id, kind, from_id, from_name, channel_id, message_id, created_us, lease_until_us)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, 0 WHERE EXISTS (SELECT 1 FROM users WHERE id = $2)
             ON CONFLICT DO NOTHING",
        )
        .bind(uuid::Uuid::now_v7())
        .bind($user)
        .bind($kind)
        .bind($from)
        .bind($from_name)
        .bind($channel)
        .bind($message)
        .bind($now_us)
        .execute(&mut *$tx)
        .await?
        .rows_affected()
    };
}
pub(super) use notify;

/// Whether `$user` was told within a day that they are a member of `$channel`, or has not read yet that they are, or heard often
/// enough of what `$by` takes them in, in the transaction `$tx`.
macro_rules! was_invited {
    ($tx:ident, $user:expr, $channel:expr, $by:expr, $now_us:expr) => {{
        let by_them: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM notification_sends
             WHERE user_id = $1 AND way = 'invitation' AND sent_us > $3 AND from_id = $2",
        )
        .bind($user.0)
        .bind($by.0)
        .bind($now_us - 24 * $crate::store::notifications::HOUR_US)
        .fetch_one(&mut *$tx)
        .await?;
        let told: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM notifications WHERE user_id = $1 AND channel_id = $2 AND kind = 'invitation'
                 AND (read_us IS NULL OR created_us > $3)",
        )
        .bind($user.0)
        .bind($channel.0)
        .bind($now_us - 24 * $crate::store::notifications::HOUR_US)
        .fetch_one(&mut *$tx)
        .await?;
        told > 0 || by_them >= $crate::store::notifications::INVITATIONS_PER_SENDER
    }};
}
pub(super) use was_invited;

/// Notes that `$user` was told by `$way` of the notification `$id`, in the transaction `$tx`.
macro_rules! note_send {
    ($tx:ident, $id:expr, $way:expr, $user:expr, $from:expr, $now_us:expr) => {
        sqlx::query(
            "INSERT INTO notification_sends (notification_id, way, user_id, from_id, sent_us) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
        )
        .bind($id)
        .bind($way)
        .bind($user)
        .bind($from)
        .bind($now_us)
        .execute(&mut *$tx)
        .await?
    };
}
pub(super) use note_send;

/// Writes a way outside, in the transaction `$tx`: 1, or 0 where it is there already.
macro_rules! write_delivery {
    ($tx:ident, $notification:ident, $delivery:ident, $now_us:ident) => {
        sqlx::query(
            "INSERT INTO notification_deliveries
                 (id, notification_id, user_id, way, target_id, state, attempts, created_us, next_us, lease_until_us)
             VALUES ($1, $2, $3, $4, $5, 'waiting', 0, $6, $7, 0) ON CONFLICT DO NOTHING",
        )
        .bind(Uuid::now_v7())
        .bind($notification.id.0)
        .bind($notification.user.0)
        .bind($delivery.way.as_str())
        .bind($delivery.push.map_or($notification.user.0, |push| push.0))
        .bind($now_us)
        .bind(micros($delivery.next_at))
        .execute(&mut *$tx)
        .await?
        .rows_affected()
    };
}

/// Forgets what `$user` has above their bound, in the transaction `$tx`: how many.
macro_rules! forget_surplus {
    ($tx:ident, $user:expr) => {{
        let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM notifications WHERE user_id = $1")
            .bind($user.0)
            .fetch_one(&mut *$tx)
            .await?;
        let surplus = known - i64::from(NOTIFICATIONS_PER_USER);
        if surplus > 0 {
            sqlx::query(
                "DELETE FROM notifications WHERE id IN (SELECT id FROM notifications WHERE user_id = $1 AND from_id =
                     (SELECT from_id FROM notifications WHERE user_id = $1
                      GROUP BY from_id ORDER BY COUNT(*) DESC, MIN(created_us) LIMIT 1)
                 ORDER BY id LIMIT $2)",
            )
            .bind($user.0)
            .bind(surplus)
            .execute(&mut *$tx)
            .await?
            .rows_affected()
        } else {
            0
        }
    }};
}

fn all(rows: Vec<NotificationRow>) -> Result<Vec<Notification>> {
    rows.into_iter().map(Notification::try_from).collect()
}

impl Store {
    /// Returns when a notification was written through this store since the last time.
    pub async fn notification_written(&self) {
        self.outbox.notified().await;
    }

    /// So many notifications were written just now.
    pub(super) fn note_written(&self, count: u64) {
        if count > 0 {
            metrics().notifications.written.increment(count);
            self.outbox.notify_one();
        }
    }

    /// Takes on notifications that nobody has routed, until `until`, the oldest first: no other node gets them meanwhile.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn claim_notifications(&self, now: OffsetDateTime, until: OffsetDateTime) -> Result<Vec<NotificationId>> {
        let mut ids: Vec<Uuid> = transaction!(self, |tx| {
            let ids = sqlx::query_scalar(
                "UPDATE notifications SET lease_until_us = $2 WHERE lease_until_us <= $1 AND id IN
                     (SELECT id FROM notifications WHERE routed_us IS NULL AND lease_until_us <= $1
                      ORDER BY id LIMIT $3)
                 RETURNING id",
            )
            .bind(micros(now))
            .bind(micros(until))
            .bind(ROUTED_AT_ONCE)
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(ids)
        })?;
        ids.sort_unstable();
        Ok(ids.into_iter().map(NotificationId).collect())
    }

    /// How many notifications but this one went to its user lately, by each way that some did, or wait to go. Asked before it is
    /// routed, so that nobody waits for the count: nodes that route for one person at the same moment do not count each other's.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn lately(&self, notification: &Notification) -> Result<Vec<(Way, Lately)>> {
        let rows: Vec<(String, i64, i64)> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT way, COUNT(DISTINCT lately), COUNT(DISTINCT waiting) FROM (
                     SELECT way, CASE WHEN created_us > $3 THEN notification_id END AS lately, notification_id AS waiting
                     FROM notification_deliveries WHERE user_id = $1 AND notification_id <> $2 AND state = 'waiting'
                     UNION ALL
                     SELECT way, notification_id AS lately, NULL AS waiting
                     FROM notification_sends WHERE user_id = $1 AND sent_us > $3 AND way <> 'invitation') AS told
                 GROUP BY way",
            )
            .bind(notification.user.0)
            .bind(notification.id.0)
            .bind(micros(OffsetDateTime::now_utc()) - HOUR_US)
            .fetch_all(db)
            .await?
        });
        let lately = |(way, in_hour, waiting): (String, i64, i64)| {
            Ok((Way::stored(&way)?, Lately { in_hour: in_hour.unsigned_abs(), waiting: waiting.unsigned_abs() }))
        };
        rows.into_iter().map(lately).collect()
    }

    /// Writes by which ways a notification goes outside, and that it is routed. `until` must be what it was taken on until:
    /// `None` when another node has it by now.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn route_notification(
        &self,
        notification: &Notification,
        until: OffsetDateTime,
        ways: &[NewDelivery],
    ) -> Result<Option<Routed>> {
        let now_us = micros(OffsetDateTime::now_utc());
        transaction!(self, |tx| {
            let taken = sqlx::query(
                "UPDATE notifications SET routed_us = $3, lease_until_us = 0
                 WHERE id = $1 AND lease_until_us = $2 AND routed_us IS NULL",
            )
            .bind(notification.id.0)
            .bind(micros(until))
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            if taken.rows_affected() == 0 {
                return Ok(None);
            }
            let mut routed = Routed::default();
            for delivery in ways {
                routed.written += write_delivery!(tx, notification, delivery, now_us);
            }
            routed.forgotten = forget_surplus!(tx, notification.user);
            tx.commit().await?;
            Ok(Some(routed))
        })
    }

    /// A notification.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn notification(&self, id: NotificationId) -> Result<Option<Notification>> {
        let row: Option<NotificationRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(select_notifications!("WHERE notifications.id = $1")).bind(id.0).fetch_optional(db).await?
        });
        row.map(Notification::try_from).transpose()
    }

    /// Those of somebody's notifications that they may see now, the newest first: those before `before`, at most `limit`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn notifications(
        &self,
        user: UserId,
        before: Option<NotificationId>,
        only_unread: bool,
        limit: u32,
    ) -> Result<Vec<Notification>> {
        let before = before.map_or(Uuid::max(), |before| before.0);
        all(on_db!(&self.readers, |db| {
            sqlx::query_as(select_notifications!(
                "WHERE notifications.user_id = $1 AND notifications.id < $3 AND (read_us IS NULL OR $4 = FALSE) AND ",
                seen!(),
                " ORDER BY notifications.id DESC LIMIT $5"
            ))
            .bind(user.0)
            .bind(micros(OffsetDateTime::now_utc()))
            .bind(before)
            .bind(only_unread)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        }))
    }

    /// How many somebody has not read of the notifications that they may see now; [`UNREAD_MAX`] stands for that many or more.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unread_notifications(&self, user: UserId) -> Result<u32> {
        let unread: i64 = on_db!(&self.readers, |db| {
            sqlx::query_scalar(concat!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM notifications WHERE user_id = $1 AND read_us IS NULL AND ",
                seen!(),
                " LIMIT $3) AS counted"
            ))
            .bind(user.0)
            .bind(micros(OffsetDateTime::now_utc()))
            .bind(i64::from(UNREAD_MAX))
            .fetch_one(db)
            .await?
        });
        count(unread)
    }

    /// Notes that somebody has read their notifications up to `up_to`; how many of them were not read before.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn read_notifications(&self, user: UserId, up_to: NotificationId) -> Result<u64> {
        on_db!(&self.writers, |db| {
            let read = sqlx::query(
                "UPDATE notifications SET read_us = $3 WHERE user_id = $1 AND id <= $2 AND read_us IS NULL",
            );
            let read = read.bind(user.0).bind(up_to.0).bind(micros(OffsetDateTime::now_utc()));
            Ok(read.execute(db).await?.rows_affected())
        })
    }

    /// Notes that somebody has read one of their notifications; `None` when they have none of that id, false when it was
    /// read before.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn read_notification(&self, user: UserId, id: NotificationId) -> Result<Option<bool>> {
        on_db!(&self.writers, |db| {
            let read =
                sqlx::query("UPDATE notifications SET read_us = $3 WHERE user_id = $1 AND id = $2 AND read_us IS NULL");
            let read = read.bind(user.0).bind(id.0).bind(micros(OffsetDateTime::now_utc()));
            if read.execute(db).await?.rows_affected() > 0 {
                return Ok(Some(true));
            }
            let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM notifications WHERE user_id = $1 AND id = $2")
                .bind(user.0)
                .bind(id.0)
                .fetch_one(db)
                .await?;
            Ok((known > 0).then_some(false))
        })
    }

    /// Notes that somebody has read what tells them of messages of a scope up to `up_to`; how many they had not.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn read_notifications_in(&self, user: UserId, scope: Scope, up_to: MessageId) -> Result<u64> {
        on_db!(&self.writers, |db| {
            let read = sqlx::query(
                "UPDATE notifications SET read_us = $4 WHERE user_id = $1 AND read_us IS NULL AND message_id <= $3
                     AND EXISTS (SELECT 1 FROM messages WHERE id = message_id AND scope_id = $2)",
            );
            let read = read.bind(user.0).bind(scope.id()).bind(stored(up_to)).bind(micros(OffsetDateTime::now_utc()));
            Ok(read.execute(db).await?.rows_affected())
        })
    }

    /// What somebody wants to be told and how, as it was set.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn notification_preferences(&self, user: UserId) -> Result<Option<String>> {
        Ok(on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT document FROM notification_preferences WHERE user_id = $1")
                .bind(user.0)
                .fetch_optional(db)
                .await?
        }))
    }

    /// Sets it.
    ///
    /// # Errors
    /// `Missing` when they are gone.
    pub async fn set_notification_preferences(&self, user: UserId, document: &str) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO notification_preferences (user_id, document) VALUES ($1, $2)
                 ON CONFLICT (user_id) DO UPDATE SET document = excluded.document",
            )
            .bind(user.0)
            .bind(document)
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// A key that all nodes share: the one that is kept, or else `new`, which is kept from now on.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn server_key(&self, name: &str, new: &str) -> Result<String> {
        on_db!(&self.writers, |db| {
            sqlx::query("INSERT INTO server_keys (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(name)
                .bind(new)
                .execute(db)
                .await?;
            Ok(sqlx::query_scalar("SELECT secret FROM server_keys WHERE name = $1").bind(name).fetch_one(db).await?)
        })
    }
}
