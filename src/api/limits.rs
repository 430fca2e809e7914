//! Rate limits: for each address, for each account, and for sign-ups and logins of an address.

use std::{hash::Hash, net::IpAddr};

use antiphon_core::ids::UserId;

use crate::{
    client_address::ClientAddress,
    error::AppError,
    rates::Rates,
    telemetry::metrics::{RateLimit, metrics},
};

/// How many requests a minute; 0 is no limit. A burst may use the whole minute's share at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// All requests of one address.
    pub address_per_minute: u32,
    /// All requests of one account.
    pub account_per_minute: u32,
    /// Requests of one address for audio files.
    pub stream_per_minute: u32,
    /// Sign-ups, logins and refreshes of one address.
    pub login_per_minute: u32,
    /// Channels and rooms that one address makes.
    pub channel_per_minute: u32,
}

/// All limits of the API.
#[derive(Debug)]
pub struct Limits {
    address: Option<Rates<IpAddr>>,
    account: Option<Rates<UserId>>,
    stream: Option<Rates<IpAddr>>,
    login: Option<Rates<IpAddr>>,
    channel: Option<Rates<IpAddr>>,
    observation: Option<Rates<IpAddr>>,
}

/// Requests for figures a minute and address. They are counted apart, so that a busy address (a proxy's, that of the
/// host itself) does not blind whoever watches; and bounded, since each costs more than an answer to a probe.
const OBSERVATIONS_PER_MINUTE: u32 = 240;

impl Limits {
    /// Limits as configured.
    #[must_use]
    pub fn new(config: LimitsConfig) -> Self {
        Self {
            address: Rates::new(config.address_per_minute),
            account: Rates::new(config.account_per_minute),
            stream: Rates::new(config.stream_per_minute),
            login: Rates::new(config.login_per_minute),
            channel: Rates::new(config.channel_per_minute),
            observation: Rates::new(OBSERVATIONS_PER_MINUTE),
        }
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    ///
    /// `RATE_LIMITED`, with the time until the next one is accepted.
    pub fn check_address(&self, client: ClientAddress) -> Result<(), AppError> {
        check(self.address.as_ref(), &client.limit_key(), RateLimit::Address, "requests from this address")
    }

    /// Counts a request of `user`.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_account(&self, user: UserId) -> Result<(), AppError> {
        check(self.account.as_ref(), &user, RateLimit::Account, "requests of this account")
    }

    /// Counts a request of `client` for an audio file.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_stream(&self, client: ClientAddress) -> Result<(), AppError> {
        let what = "requests for audio files from this address";
        check(self.stream.as_ref(), &client.limit_key(), RateLimit::Stream, what)
    }

    /// Counts a sign-up, login or refresh of `client`.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_login(&self, client: ClientAddress) -> Result<(), AppError> {
        check(self.login.as_ref(), &client.limit_key(), RateLimit::Login, "sign-ups and logins from this address")
    }

    /// Counts a channel or a room that `client` makes.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_new_channel(&self, client: ClientAddress) -> Result<(), AppError> {
        let what = "new channels and rooms from this address";
        check(self.channel.as_ref(), &client.limit_key(), RateLimit::Channel, what)
    }

    /// Counts a request of `client` for figures: `/metrics` and `/health/detailed`.
    ///
    /// # Errors
    ///
    /// As [`Limits::check_address`].
    pub fn check_observation(&self, client: ClientAddress) -> Result<(), AppError> {
        let what = "requests for figures from this address";
        check(self.observation.as_ref(), &client.limit_key(), RateLimit::Observation, what)
    }

    /// Forgets who has not been seen for a while: to be called every few seconds.
    pub fn sweep(&self) {
        for addresses in
            [&self.address, &self.stream, &self.login, &self.channel, &self.observation].into_iter().flatten()
        {
            addresses.sweep();
        }
        if let Some(accounts) = &self.account {
            accounts.sweep();
        }
    }
}

fn check<K: Hash + Eq + Clone>(
    rates: Option<&Rates<K>>,
    key: &K,
    limit: RateLimit,
    what: &str,
) -> Result<(), AppError> {
    let Some(rates) = rates else { return Ok(()) };
    rates.check(key, what).inspect_err(|_| metrics().http.rate_limited.of(limit).increment(1))
}

#[cfg(test)]
mod tests {
    use antiphon_core::gateway::ErrorCode;

    use super::*;

    fn client(last: u8) -> ClientAddress {
        ClientAddress(IpAddr::from([203, 0, 113, last]))
    }

    #[test]
    fn each_address_has_its_own_share_and_is_told_when_to_return() {
        let limits = Limits::new(LimitsConfig {
            address_per_minute: 3,
            account_per_minute: 0,
            stream_per_minute: 0,
            login_per_minute: 1,
            channel_per_minute: 1,
        });
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
        let limits = Limits::new(LimitsConfig {
            address_per_minute: 0,
            account_per_minute: 0,
            stream_per_minute: 0,
            login_per_minute: 0,
            channel_per_minute: 0,
        });
        for _ in 0..10_000 {
            limits.check_account(UserId(uuid::Uuid::nil())).expect("no limit");
        }
    }
}
