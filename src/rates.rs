//! Rate limits for each of many keys, such as addresses, in memory.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use antiphon_core::gateway::ErrorCode;
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use crate::error::AppError;

/// One rate for each key, over a bounded number of keys. A burst may use a whole span's share at once.
#[derive(Debug)]
pub struct Rates<K: Hash + Eq + Clone> {
    /// How many, and in what time, for those who are refused.
    share: String,
    /// The whole of it.
    most: NonZeroU32,
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
        let quota = Quota::per_minute(NonZeroU32::new(per_minute)?);
        Some(Self::of(quota, format!("{per_minute} a minute")))
    }

    /// So many in that time; `None` when `most` is 0, or the time too short to be shared out: no limit.
    #[must_use]
    pub fn over(most: u32, time: Duration) -> Option<Self> {
        let burst = NonZeroU32::new(most)?;
        let quota = Quota::with_period(time / most)?.allow_burst(burst);
        Some(Self::of(quota, format!("{most} in {} s", time.as_secs())))
    }

    fn of(quota: Quota, share: String) -> Self {
        Self {
            share,
            most: quota.burst_size(),
            limiter: RateLimiter::keyed(quota),
            overflow: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one of `what` for `key`.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time until the next one is accepted.
    pub fn check(&self, key: &K, what: &str) -> Result<(), AppError> {
        self.check_all(key, NonZeroU32::MIN, what)
    }

    /// Counts so many of `what` for `key`, or none of them. More at once than the whole share are taken for as many as that is.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_all(&self, key: &K, count: NonZeroU32, what: &str) -> Result<(), AppError> {
        let count = count.min(self.most);
        let few = self.limiter.len() < KEYS_MAX;
        let outcome = if few { self.limiter.check_key_n(key, count) } else { self.overflow.check_n(count) };
        outcome.expect("no more than the whole share").map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message = format!("too many {what}: at most {}; try again in {seconds} s", self.share);
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
    fn several_are_counted_at_once_or_none() {
        let rates = Rates::over(100, Duration::from_secs(86_400)).expect("a limit");
        let lines = |count| rates.check_all(&1, NonZeroU32::new(count).expect("some"), "lines");
        assert!(lines(60).is_ok());
        assert!(lines(41).is_err_and(|refused| refused.message.contains("too many lines: at most 100 in 86400 s")));
        assert!(lines(40).is_ok() && lines(1).is_err());
        let whole = NonZeroU32::new(1_000).expect("some");
        assert!(rates.check_all(&2, whole, "lines").is_ok() && rates.check(&2, "lines").is_err(), "the whole share");
    }

    #[test]
    fn a_share_of_a_day_can_be_used_at_once_and_comes_back_slowly() {
        let rates = Rates::over(2, Duration::from_secs(86_400)).expect("a limit");
        assert!(
            rates.check(&1, "guests").is_ok() && rates.check(&1, "guests").is_ok() && rates.check(&2, "guests").is_ok()
        );
        let refused = rates.check(&1, "guests").expect_err("as many as may");
        assert!(refused.message.starts_with("too many guests: at most 2 in 86400 s; try again in 4"), "{refused}");
        assert!(Rates::<u32>::over(0, Duration::from_secs(1)).is_none());
    }

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
