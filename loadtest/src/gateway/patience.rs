//! How long, and how often, a lost session is tried to be resumed: the same for whoever has a task and whoever has none.

use std::time::Duration;

use antiphon_core::gateway::ErrorCode;

use super::{connection::ConnectionError, session::GatewayError};

/// Pauses between attempts to resume: the first, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The server keeps a lost session for 30 s; after twice that, even one that was unreachable meanwhile is gone.
pub(crate) const RESUME_FOR: Duration = Duration::from_secs(60);

/// Silence of so many heartbeats, and the connection counts as lost.
pub(crate) const HEARTBEATS_UNANSWERED_MAX: u32 = 2;

/// The pauses, each twice as long as the one before.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(BACKOFF_FIRST)
    }

    /// The next: between half of its length and all of it, so that clients that lost the same server do not come back
    /// together.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(BACKOFF_MAX);
        let random = uuid::Uuid::new_v4().as_u128() as u32;
        pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

impl GatewayError {
    /// Whether it says that the session is gone, so that no other attempt to resume it would end otherwise.
    pub(crate) fn ends_session(&self) -> bool {
        match self {
            Self::Refused(error) => is_final(error.error_code),
            Self::Connection(ConnectionError::Closed(closed)) => !closed.resume,
            Self::Connection(_) | Self::Protocol(_) => false,
        }
    }
}

/// Whether trying again would be answered the same.
pub(super) const fn is_final(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::RateLimited | ErrorCode::TemporarilyUnavailable | ErrorCode::Timeout | ErrorCode::InternalError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_never_the_same_for_all() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.pause()).collect();
        for (pause, whole_ms) in pauses.iter().zip([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000]) {
            let whole = Duration::from_millis(whole_ms);
            assert!((whole / 2..=whole).contains(pause), "{pauses:?}");
        }
        let first: Vec<Duration> = (0..20).map(|_| Backoff::new().pause()).collect();
        assert!(first.iter().any(|pause| *pause != first[0]), "{first:?}");
    }
}
