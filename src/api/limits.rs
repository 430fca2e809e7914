//! Rate limits: for each address, for each account, and for sign-ups and logins of an address.

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, time::Duration};

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::client_address::ClientAddress;
use crate::{
    error::AppError,
    telemetry::metrics::{RateLimit, metrics},
};

/// How many requests a minute; 0 is no limit. A burst may use the whole minute's share at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// All requests of one address.
    pub address_per_minute: u32,
    /// All requests of one account.
    pub account_per_minute: u32,
    /// Sign-ups, logins and refreshes of one address.
    pub login_per_minute: u32,
}

/// All limits of the API.
#[derive(Debug)]
pub struct Limits {
    address: Option<Keyed<IpAddr>>,
    account: Option<Keyed<UserId>>,
    login: Option<Keyed<IpAddr>>,
}

impl Limits {
    /// Limits as configured.
    #[must_use]
    pub fn new(config: LimitsConfig) -> Self {
        Self {
            address: Keyed::new(config.address_per_minute),
            account: Keyed::new(config.account_per_minute),
            login: Keyed::new(config.login_per_minute),
        }
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    ///
    /// `RATE_LIMITED`, with the time until the next one is accepted.
    pub fn check_address(&self, client: ClientAddress) -> Result<(), AppError> {
        check(self.address.as_ref(), client.limit_key(), RateLimit::Address, "requests from this address")
    }

    /// Counts a request of `user`.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_account(&self, user: UserId) -> Result<(), AppError> {
        check(self.account.as_ref(), user, RateLimit::Account, "requests of this account")
    }

    /// Counts a sign-up, login or refresh of `client`.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_login(&self, client: ClientAddress) -> Result<(), AppError> {
        check(self.login.as_ref(), client.limit_key(), RateLimit::Login, "sign-ups and logins from this address")
    }

    /// Forgets who has not been seen for a while: to be called every few seconds.
    pub fn sweep(&self) {
        for addresses in [&self.address, &self.login].into_iter().flatten() {
            addresses.limiter.retain_recent();
        }
        if let Some(accounts) = &self.account {
            accounts.limiter.retain_recent();
        }
    }
}

fn check<K: Hash + Eq + Clone>(keyed: Option<&Keyed<K>>, key: K, limit: RateLimit, what: &str) -> Result<(), AppError> {
    let Some(keyed) = keyed else { return Ok(()) };
    keyed.check(key).map_err(|wait| {
        metrics().http.rate_limited.of(limit).increment(1);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let message = format!("too many {what}: at most {} a minute; try again in {seconds} s", keyed.per_minute);
        AppError::retry(ErrorCode::RateLimited, message, seconds)
    })
}

/// One limit for each key, over a bounded number of keys.
#[derive(Debug)]
struct Keyed<K: Hash + Eq + Clone> {
    per_minute: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<K>,
    /// What newcomers share while more keys are active than are kept apart.
    overflow: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

/// So many keys are kept apart; each costs about 100 bytes.
const KEYS_MAX: usize = 100_000;

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// `None` when `per_minute` is 0: no limit.
    fn new(per_minute: u32) -> Option<Self> {
        let per_minute = NonZeroU32::new(per_minute)?;
        let quota = Quota::per_minute(per_minute);
        Some(Self {
            per_minute,
            limiter: RateLimiter::keyed(quota),
            overflow: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
        })
    }

    /// Counts one, or says how long to wait.
    fn check(&self, key: K) -> Result<(), Duration> {
        let outcome = if self.limiter.len() < KEYS_MAX { self.limiter.check_key(&key) } else { self.overflow.check() };
        outcome.map_err(|refused| refused.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientAddress {
        ClientAddress(IpAddr::from([203, 0, 113, last]))
    }

    #[test]
    fn each_address_has_its_own_share_and_is_told_when_to_return() {
        let limits = Limits::new(LimitsConfig { address_per_minute: 3, account_per_minute: 0, login_per_minute: 1 });
        for _ in 0..3 {
            limits.check_address(client(1)).expect("within the limit");
        }
        let error = limits.check_address(client(1)).expect_err("one too many");
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!((1..=20).contains(&error.retry_after_s.expect("a time")), "{error:?}");
        assert!(error.message.contains("at most 3 a minute"), "{error}");
        limits.check_address(client(2)).expect("another address");
        limits.check_login(client(1)).expect("another limit");
        limits.check_login(client(1)).expect_err("one too many");
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits::new(LimitsConfig { address_per_minute: 0, account_per_minute: 0, login_per_minute: 0 });
        for _ in 0..10_000 {
            limits.check_account(UserId(uuid::Uuid::nil())).expect("no limit");
        }
    }

    #[test]
    fn a_flood_of_addresses_shares_one_limit_and_is_forgotten() {
        let keyed = Keyed::new(60_000).expect("a limit");
        for key in 0..KEYS_MAX {
            let _ = keyed.check(key);
        }
        assert_eq!(keyed.limiter.len(), KEYS_MAX);
        for key in KEYS_MAX..KEYS_MAX + 1_000 {
            keyed.check(key).expect("the shared limit has room");
        }
        assert_eq!(keyed.limiter.len(), KEYS_MAX, "no more keys are kept");
    }
}
