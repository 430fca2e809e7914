//! Rate limits for each of many keys, such as addresses, in memory.

use std::{hash::Hash, num::NonZeroU32};

use antiphon_core::gateway::ErrorCode;
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::error::AppError;

/// One rate for each key, over a bounded number of keys. A burst may use a whole minute's share at once.
#[derive(Debug)]
pub struct Rates<K: Hash + Eq + Clone> {
    per_minute: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<K>,
    /// What all share while as many keys are active as are kept apart.
    overflow: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

/// So many keys are kept apart; each costs about 100 bytes.
const KEYS_MAX: usize = 100_000;

impl<K: Hash + Eq + Clone> Rates<K> {
    /// So many a minute; `None` when `per_minute` is 0: no limit.
    #[must_use]
    pub fn new(per_minute: u32) -> Option<Self> {
        let per_minute = NonZeroU32::new(per_minute)?;
        let quota = Quota::per_minute(per_minute);
        Some(Self {
            per_minute,
            limiter: RateLimiter::keyed(quota),
            overflow: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
        })
    }

    /// Counts one of `what` for `key`.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next one is accepted.
    pub fn check(&self, key: &K, what: &str) -> Result<(), AppError> {
        let outcome = if self.limiter.len() < KEYS_MAX { self.limiter.check_key(key) } else { self.overflow.check() };
        outcome.map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message = format!("too many {what}: at most {} a minute; try again in {seconds} s", self.per_minute);
            AppError::retry(ErrorCode::RateLimited, message, seconds)
        })
    }

    /// Forgets keys that have all their share again: to be called every few seconds.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_shares_one_limit_and_is_forgotten() {
        let rates = Rates::new(60_000).expect("a limit");
        for key in 0..KEYS_MAX {
            let _ = rates.check(&key, "keys");
        }
        assert_eq!(rates.limiter.len(), KEYS_MAX);
        for key in KEYS_MAX..KEYS_MAX + 1_000 {
            rates.check(&key, "keys").expect("the shared limit has room");
        }
        assert_eq!(rates.limiter.len(), KEYS_MAX, "no more keys are kept");
    }
}
