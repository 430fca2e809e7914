//! What can go wrong with the database, and what a client is told of it.

use antiphon_core::gateway::ErrorCode;

use crate::{
    error::AppError,
    telemetry::metrics::{StoreFailure, metrics},
};

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Something unique exists already: what.
    #[error("the {0} is taken")]
    Conflict(&'static str),
    /// There are as many as there may be: of what.
    #[error("there are as many {0} as there may be")]
    LimitReached(&'static str),
    /// What the change is about, or belongs to, does not exist (any more).
    #[error("a row that the change needs does not exist")]
    Missing,
    /// The owner of a channel can be neither removed, banned nor given a lesser role: someone else has to become owner
    /// first.
    #[error("a channel cannot be without its owner")]
    OwnerStays,
    /// The database cannot be reached or is overloaded: later it may work. The text is for logs.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database undid the change, several times, to let others go on that wanted the same rows.
    #[error("the database undid the change for another's sake")]
    Interrupted,
    /// The database holds, or said, what it should not. The text is for logs.
    #[error("the database: {0}")]
    Corrupt(String),
}

/// When a client should try again while the database is away.
const RETRY_AFTER_S: u64 = 2;

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict("username") => Self::new(
                ErrorCode::Conflict,
                "this username is taken; choose another. A guest's is free again once the guest has been away for as long as the \
                 operator has set (auth.guest_ttl_s)",
            ),
            StoreError::Conflict(what) => {
                Self::new(ErrorCode::Conflict, format!("this {what} is taken; choose another"))
            }
            StoreError::LimitReached(what) => {
                Self::new(ErrorCode::LimitReached, format!("there are as many {what} as there may be"))
            }
            StoreError::Missing => Self::new(ErrorCode::NotFound, "what this is about does not exist (any more)"),
            StoreError::OwnerStays => Self::new(
                ErrorCode::Conflict,
                "the owner can be neither removed, banned nor given a lesser role: make another member owner first",
            ),
            StoreError::Unavailable(_) | StoreError::Interrupted => Self::retry(
                ErrorCode::TemporarilyUnavailable,
                "the database cannot be reached; try again shortly",
                RETRY_AFTER_S,
            ),
            StoreError::Corrupt(_) => {
                Self::new(ErrorCode::InternalError, "an internal error; the server's log has more")
            }
        }
    }
}

impl StoreError {
    /// The database holds what it should not: counted and logged, since whoever asked is only told that something went
    /// wrong.
    pub(super) fn corrupt(text: String) -> Self {
        metrics().store.failures.of(StoreFailure::Corrupt).increment(1);
        tracing::error!(error = text, "the database answered what it should not");
        Self::Corrupt(text)
    }

    /// The database cannot be asked: counted, and logged in detail only, since it concerns all requests at once and the
    /// health check says so, too.
    fn unavailable(text: String) -> Self {
        metrics().store.failures.of(StoreFailure::Unavailable).increment(1);
        tracing::debug!(error = text, "the database is not available");
        Self::Unavailable(text)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match error {
            sqlx::Error::Database(error) if error.is_foreign_key_violation() => Self::Missing,
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict(unique(error.message())),
            sqlx::Error::Database(error) if is_interrupted(error.code().as_deref()) => Self::Interrupted,
            sqlx::Error::Database(error) if is_passing(error.code().as_deref()) => Self::unavailable(text),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::unavailable(text),
            _ => Self::corrupt(text),
        }
    }
}

/// What is unique under the constraint that a database's message names: `users.username_folded` (SQLite) or
/// `users_username_folded_key` (PostgreSQL).
fn unique(message: &str) -> &'static str {
    if message.contains("username") {
        "username"
    } else if message.contains("recordings") {
        "recording of this channel"
    } else if message.contains("channels") {
        "channel name"
    } else {
        "id"
    }
}

/// PostgreSQL's codes for a deadlock and for transactions that cannot have been one after the other.
fn is_interrupted(code: Option<&str>) -> bool {
    matches!(code, Some("40P01" | "40001"))
}

/// Codes of what passes by itself. SQLite: busy, locked, read-only (as is a file that was moved), I/O error, full, cannot
/// open (in the low byte of extended codes). PostgreSQL's classes: 08 connection, 53 resources, 55 locks, 57 operator, 58
/// system.
fn is_passing(code: Option<&str>) -> bool {
    match code {
        Some(code) if code.len() == 5 => ["08", "53", "55", "57", "58"].contains(&&code[..2]),
        Some(code) => code.parse::<u32>().is_ok_and(|code| [5, 6, 8, 10, 13, 14].contains(&(code & 0xff))),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_worth_another_try() {
        for passing in ["5", "6", "8", "261", "517", "1032", "13", "53300", "57P01", "08006"] {
            assert!(is_passing(Some(passing)), "{passing}");
        }
        for lasting in ["1", "19", "2067", "23505", "42P01", ""] {
            assert!(!is_passing(Some(lasting)), "{lasting}");
        }
    }

    #[test]
    fn clients_see_nothing_of_the_database() {
        for error in [StoreError::Unavailable("host db1".into()), StoreError::Corrupt("host db1".into())] {
            assert!(!AppError::from(error).to_string().contains("db1"));
        }
    }
}
