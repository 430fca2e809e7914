//! Codes that confirm addresses: how many may be sent, to whom and by whom, and what comes back.

use antiphon_core::ids::UserId;
use aws_lc_rs::digest::{SHA256, digest};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Result, Store, count,
    deliveries::Way,
    micros,
    pools::{Dialect, Lock, on_db, transaction},
};
use crate::telemetry::metrics::CodeBound;

/// Wrong codes until a new one must be asked for.
const CODE_TRIES_MAX: i64 = 5;

/// How long a code can be used.
pub const CODE_LASTS: Duration = Duration::minutes(15);

/// Between two codes for one person and way.
const CODE_EVERY: Duration = Duration::seconds(30);

/// Codes for one person, whatever the way, within [`CODES_KEPT`].
const CODES_PER_USER: i64 = 10;

/// Codes to one address, whoever asks, within an hour.
const CODES_PER_ADDRESS: i64 = 5;

/// How long it is known that a code was sent.
pub(super) const CODES_KEPT: Duration = Duration::days(1);

/// What became of the wish for a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeWish {
    /// It may be sent.
    Granted,
    /// Too many were sent: in so many seconds again.
    TooMany {
        /// Whose bound it is.
        bound: CodeBound,
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

/// A bound of codes, and when the oldest was sent of as many as it lets through; `None` while there are not so many.
struct Met {
    bound: CodeBound,
    within: Duration,
    sent_us: Option<i64>,
}

/// When that one of the codes that `$which` names was asked for after which `$after` more were, in the transaction `$tx`.
macro_rules! sent_before {
    ($tx:ident, $after:expr, $which:literal, $($value:expr),+) => {{
        let sent_us: Option<i64> = sqlx::query_scalar(concat!(
            "SELECT sent_us FROM notification_codes WHERE ", $which, " ORDER BY sent_us DESC LIMIT 1 OFFSET $1"
        ))
        .bind($after)
        $(.bind($value))+
        .fetch_optional(&mut *$tx)
        .await?;
        sent_us
    }};
}

/// All bounds of a code, in the transaction `$tx`.
macro_rules! bounds {
    ($tx:ident, $user:ident, $way:ident, $address_hash:ident, $most_in_hour:ident) => {{
        let (user, way, hash) = ($user.0, $way.as_str(), &$address_hash);
        let soonest = sent_before!($tx, 0_i64, "user_id = $2 AND way = $3", user, way);
        let own = sent_before!($tx, CODES_PER_USER - 1, "user_id = $2 AND was_sent", user);
        let to_it = sent_before!($tx, CODES_PER_ADDRESS - 1, "way = $2 AND address_hash = $3 AND was_sent", way, hash);
        let of_all = match $most_in_hour {
            Some(most) => sent_before!($tx, i64::from(most) - 1, "way = $2 AND was_sent", way),
            None => None,
        };
        [
            Met { bound: CodeBound::Account, within: CODE_EVERY, sent_us: soonest },
            Met { bound: CodeBound::Account, within: CODES_KEPT, sent_us: own },
            Met { bound: CodeBound::Address, within: Duration::HOUR, sent_us: to_it },
            Met { bound: CodeBound::Server, within: Duration::HOUR, sent_us: of_all },
        ]
    }};
}

/// Writes that a code is to be sent, in the transaction `$tx`.
macro_rules! note_sent {
    ($tx:ident, $user:ident, $way:ident, $address_hash:ident, $now_us:ident) => {
        sqlx::query(
            "INSERT INTO notification_codes (id, user_id, way, address_hash, sent_us) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(Uuid::now_v7())
        .bind($user.0)
        .bind($way.as_str())
        .bind(&$address_hash)
        .bind($now_us)
        .execute(&mut *$tx)
        .await?
    };
}

/// The bound that lets nothing through for longest, if one does not, and for how long.
fn longest_wait(all: &[Met], now_us: i64) -> Option<(CodeBound, i64)> {
    let waits = all.iter().filter_map(|met| {
        let within_us = i64::try_from(met.within.whole_microseconds()).unwrap_or(i64::MAX);
        // A clock that was set back makes nobody wait for longer.
        let wait_us = (met.sent_us? + within_us - now_us).clamp(0, within_us);
        Some((met.bound, wait_us))
    });
    waits.filter(|(_, wait_us)| *wait_us > 0).max_by_key(|(_, wait_us)| *wait_us)
}

/// What an address is counted under: the same for all that lead into one mailbox, as far as that shows.
fn address_hash(way: Way, address: &str) -> Vec<u8> {
    let address = address.to_lowercase();
    let (name, host) = address.split_once('@').unwrap_or((&address, ""));
    let name = if way == Way::Email { name.split('+').next().unwrap_or_default() } else { name };
    let bound = ["antiphon address", way.as_str(), name, host].join("\0");
    digest(&SHA256, bound.as_bytes()).as_ref().to_vec()
}

impl Store {
    /// Notes that a code of that hash is to be sent to an address, unless too many were: to whoever asks, to the address, or by
    /// this way in all, which may be `most_in_hour`.
    ///
    /// # Errors
    /// `Missing` when the user is gone.
    pub async fn begin_confirming(
        &self,
        user: UserId,
        way: Way,
        address: &str,
        code_hash: &[u8],
        most_in_hour: Option<u32>,
        now: OffsetDateTime,
    ) -> Result<CodeWish> {
        let (now_us, address_hash) = (micros(now), address_hash(way, address));
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Codes).await?;
            let bounds = bounds!(tx, user, way, address_hash, most_in_hour);
            if let Some((bound, wait_us)) = longest_wait(&bounds, now_us) {
                return Ok(CodeWish::TooMany { bound, seconds: wait_us.unsigned_abs().div_ceil(1_000_000) });
            }
            sqlx::query(
                "INSERT INTO notification_addresses (user_id, way, pending, code_hash, code_until_us, code_tries,
                     code_sent_us, codes, codes_since_us)
                 VALUES ($1, $2, $3, $4, $5, 0, $6, 0, $6)
                 ON CONFLICT (user_id, way) DO UPDATE SET pending = excluded.pending, code_hash = excluded.code_hash,
                     code_until_us = excluded.code_until_us, code_tries = 0, code_sent_us = excluded.code_sent_us",
            )
            .bind(user.0)
            .bind(way.as_str())
            .bind(address)
            .bind(code_hash)
            .bind(micros(now + CODE_LASTS))
            .bind(now_us)
            .execute(&mut *tx)
            .await?;
            note_sent!(tx, user, way, address_hash, now_us);
            tx.commit().await?;
            Ok(CodeWish::Granted)
        })
    }

    /// Notes that the code granted at `asked_at` was not sent, and counts for none of the bounds but that between two codes:
    /// whoever sends them is not asked without end.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn code_not_sent(&self, user: UserId, way: Way, asked_at: OffsetDateTime) -> Result<()> {
        on_db!(&self.writers, |db| {
            // Between two of one person's codes by one way lie seconds, so the moment names it.
            let note =
                "UPDATE notification_codes SET was_sent = FALSE WHERE user_id = $1 AND way = $2 AND sent_us = $3";
            sqlx::query(note).bind(user.0).bind(way.as_str()).bind(micros(asked_at)).execute(db).await?;
        });
        Ok(())
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
            let tries_left = count((CODE_TRIES_MAX - tries).max(0))?;
            Ok(if is_right { CodeGiven::Right } else { CodeGiven::Wrong { tries_left } })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_lasts_longest_says_when_to_ask_again() {
        let second = 1_000_000;
        let met = |within, sent_us| Met { bound: CodeBound::Account, within, sent_us };
        let every = |sent_us| [met(CODE_EVERY, sent_us)];
        assert_eq!(longest_wait(&every(Some(0)), 10 * second), Some((CodeBound::Account, 20 * second)));
        assert_eq!(longest_wait(&every(Some(0)), 30 * second), None);
        assert_eq!(longest_wait(&every(None), 0), None);
        let back = longest_wait(&every(Some(100 * second)), 0);
        assert_eq!(back, Some((CodeBound::Account, 30 * second)), "a clock that was set back");
        let both =
            [met(CODE_EVERY, Some(0)), Met { bound: CodeBound::Address, within: Duration::HOUR, sent_us: Some(0) }];
        assert_eq!(longest_wait(&both, 10 * second), Some((CodeBound::Address, 3_590 * second)));
    }

    #[test]
    fn one_mailbox_is_counted_once() {
        let hash = |address| address_hash(Way::Email, address);
        assert_eq!(hash("ada@example.org"), hash("ADA+spam@Example.org"));
        assert_ne!(hash("ada@example.org"), hash("ada@example.com"));
        assert_ne!(hash("ada@example.org"), hash("adam@example.org"));
        assert_ne!(address_hash(Way::Sms, "+33612345678"), address_hash(Way::Sms, "+33612345679"));
    }
}
