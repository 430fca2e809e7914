//! Housekeeping: what has had its time is deleted, a bounded number of rows at once.

use time::{Duration, OffsetDateTime};

use super::{
    AUDIT_KEPT, NOTIFICATIONS_KEPT, Result, Store, codes::CODES_KEPT, micros, notifications::SENDS_KEPT,
    pools::transaction,
};

/// Rows of one kind that one sweep deletes at most, so that it never holds the database for long.
const BATCH: i64 = 500;

/// How long a place where an account logged in is remembered.
pub const LOGIN_PLACE_REMEMBERED: Duration = Duration::days(90);

/// How long a new guest may be without a refresh token: it is made after the guest.
const GUEST_GRACE: Duration = Duration::minutes(5);

/// How many rows a sweep deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Refresh tokens and families that have run out.
    pub refresh: u64,
    /// Failures to log in that are forgiven, and places unused for long.
    pub logins: u64,
    /// Invites that are used up or out of date.
    pub invites: u64,
    /// Bans that are over.
    pub bans: u64,
    /// Guests whose tokens have all ended and who own no channel.
    pub guests: u64,
    /// Entries of the audit log that were kept for long enough.
    pub audit: u64,
    /// Rooms in which nobody has been for a while.
    pub rooms: u64,
    /// Notifications that were kept for long enough.
    pub notifications: u64,
    /// What is known of codes that were sent, once it bounds no others any more.
    pub codes: u64,
    /// What is known of what people were told, likewise.
    pub sends: u64,
    /// Whether a batch was full: there is probably more to delete.
    pub more: bool,
}

/// What a statement of the sweep deletes.
#[derive(Clone, Copy)]
enum Kind {
    Refresh,
    Logins,
    Invites,
    Bans,
    Guests,
    Audit,
    Rooms,
    Notifications,
    Codes,
    Sends,
}

impl Store {
    /// Deletes what has had its time at `now`, at most some hundred rows of each kind. To be called every minute or so,
    /// and again at once while `more` is true.
    ///
    /// # Errors
    /// Only the database's; what was deleted before stays deleted.
    pub async fn sweep(&self, now: OffsetDateTime) -> Result<Swept> {
        let mut swept = Swept::default();
        let now_us = micros(now);
        for (kind, before_us, statement) in [
            (
                Kind::Refresh,
                now_us,
                "DELETE FROM refresh_tokens WHERE token_hash IN
                     (SELECT token_hash FROM refresh_tokens WHERE expires_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Refresh,
                now_us,
                "DELETE FROM refresh_families WHERE id IN
                     (SELECT id FROM refresh_families WHERE expires_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Logins,
                now_us,
                "DELETE FROM login_failures WHERE failure_key IN
                     (SELECT failure_key FROM login_failures WHERE forgiven_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Logins,
                micros(now - LOGIN_PLACE_REMEMBERED),
                "DELETE FROM login_places WHERE place_key IN
                     (SELECT place_key FROM login_places WHERE used_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Invites,
                now_us,
                "DELETE FROM invites WHERE code IN
                     (SELECT code FROM invites WHERE expires_us <= $1 OR uses >= max_uses LIMIT $2)",
            ),
            (
                Kind::Bans,
                now_us,
                "DELETE FROM bans WHERE (channel_id, user_id) IN
                     (SELECT channel_id, user_id FROM bans WHERE until_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Rooms,
                now_us,
                "DELETE FROM channels WHERE id IN
                     (SELECT channel_id FROM rooms WHERE expires_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Guests,
                micros(now - GUEST_GRACE),
                "DELETE FROM users WHERE id IN
                     (SELECT id FROM users WHERE is_guest = TRUE AND created_us <= $1
                          AND NOT EXISTS (SELECT 1 FROM refresh_families WHERE refresh_families.user_id = users.id)
                          AND NOT EXISTS (SELECT 1 FROM channels WHERE channels.owner_id = users.id) LIMIT $2)",
            ),
            (
                Kind::Audit,
                micros(now - AUDIT_KEPT),
                "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Notifications,
                micros(now - NOTIFICATIONS_KEPT),
                "DELETE FROM notifications WHERE id IN (SELECT id FROM notifications WHERE created_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Codes,
                micros(now - CODES_KEPT),
                "DELETE FROM notification_codes WHERE id IN
                     (SELECT id FROM notification_codes WHERE sent_us <= $1 LIMIT $2)",
            ),
            (
                Kind::Sends,
                micros(now - SENDS_KEPT),
                "DELETE FROM notification_sends WHERE (notification_id, way) IN
                     (SELECT notification_id, way FROM notification_sends WHERE sent_us <= $1 LIMIT $2)",
            ),
        ] {
            let deleted = self.delete(statement, before_us).await?;
            *match kind {
                Kind::Refresh => &mut swept.refresh,
                Kind::Logins => &mut swept.logins,
                Kind::Invites => &mut swept.invites,
                Kind::Bans => &mut swept.bans,
                Kind::Guests => &mut swept.guests,
                Kind::Audit => &mut swept.audit,
                Kind::Rooms => &mut swept.rooms,
                Kind::Notifications => &mut swept.notifications,
                Kind::Codes => &mut swept.codes,
                Kind::Sends => &mut swept.sends,
            } += deleted;
            swept.more |= deleted >= BATCH.unsigned_abs();
        }
        Ok(swept)
    }

    async fn delete(&self, statement: &'static str, before_us: i64) -> Result<u64> {
        transaction!(self, |tx| {
            let done = sqlx::query(statement).bind(before_us).bind(BATCH).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok(done.rows_affected())
        })
    }
}
