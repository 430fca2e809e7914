//! The one error that the product's operations give to a client, over HTTP or the gateway alike.

mod http;

use antiphon_core::gateway::ErrorCode;

pub use http::ErrorBody;
pub(crate) use http::{respond, status_of};

/// What a client is told: a code for programs, a sentence for people, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct AppError {
    /// For programs.
    pub code: ErrorCode,
    /// What is wrong and what would be right; nothing private, nothing internal.
    pub message: String,
    /// When to try again, for `RATE_LIMITED` and `TEMPORARILY_UNAVAILABLE`.
    pub retry_after_s: Option<u64>,
}

impl AppError {
    /// An error with `code` and a sentence for people.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }

    /// An error that passes after `seconds`.
    pub fn retry(code: ErrorCode, message: impl Into<String>, seconds: u64) -> Self {
        Self { code, message: message.into(), retry_after_s: Some(seconds) }
    }
}
