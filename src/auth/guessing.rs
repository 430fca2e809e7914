//! What keeps passwords from being guessed.
//!
//! A wrong password counts for the account at that address, for the address, and for the account everywhere. Whoever
//! logged in from an address before is not held up there by what others try elsewhere: nobody can lock an account out
//! for good. Names that don't exist count as those that do, so that nothing shows which exist.

use std::net::IpAddr;

use aws_lc_rs::digest;
use time::Duration;

use crate::store::{Bucket, folded};

/// How many failures are let pass, and how fast they are forgiven.
#[derive(Clone, Copy, Debug)]
pub struct GuessingLimits {
    /// For one account from one address.
    pub per_account_and_address: u32,
    /// For one account from all addresses.
    pub per_account: u32,
    /// For one address, whatever the account.
    pub per_address: u32,
    /// Until one failure is forgiven.
    pub forgiven_after: Duration,
}

/// What one attempt counts in.
pub(super) struct Guess {
    /// The account at the address.
    pub(super) own: Bucket,
    /// The address.
    pub(super) address: Bucket,
    /// The account everywhere.
    pub(super) account: Bucket,
    /// The account and the address, as a place to log in from.
    pub(super) place: [u8; 32],
}

impl Guess {
    pub(super) fn new(limits: &GuessingLimits, username: &str, address: IpAddr) -> Self {
        let name = folded(username);
        let network = network(address);
        let bucket = |label: &str, parts: &[&[u8]], failures| Bucket {
            key: hash(label, parts),
            failures,
            forgiven: limits.forgiven_after,
        };
        Self {
            own: bucket("own", &[name.as_bytes(), &network], limits.per_account_and_address),
            address: bucket("address", &[&network], limits.per_address),
            account: bucket("account", &[name.as_bytes()], limits.per_account),
            place: hash("place", &[name.as_bytes(), &network]),
        }
    }

    /// The buckets that count, given whether the account logged in from this address before.
    pub(super) fn buckets(&self, is_known_place: bool) -> Vec<Bucket> {
        let mut buckets = vec![self.own, self.address];
        if !is_known_place {
            buckets.push(self.account);
        }
        buckets
    }
}

/// The part of an address that one attacker has to themselves: all of IPv4, the first 64 bits of IPv6.
pub(super) fn network(address: IpAddr) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(address) => (u64::from(address.to_bits()) | 1 << 32).to_be_bytes(),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

/// A SHA-256 over parts that cannot be confused with others: each comes with its length.
fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"antiphon login\0");
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GuessingLimits =
        GuessingLimits { per_account_and_address: 1, per_account: 2, per_address: 3, forgiven_after: Duration::MINUTE };

    fn guess(name: &str, address: &str) -> Guess {
        Guess::new(&LIMITS, name, address.parse().expect("an address"))
    }

    #[test]
    fn an_attempt_counts_for_the_account_however_it_is_written() {
        let one = guess("Alice", "192.0.2.1");
        let other = guess("aLICE", "::ffff:192.0.2.1");
        assert_eq!(
            (one.own.key, one.account.key, one.address.key),
            (other.own.key, other.account.key, other.address.key)
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(guess("a", "2001:db8::1").address.key, guess("a", "2001:db8::ffff:1").address.key);
        assert_ne!(guess("a", "2001:db8::1").address.key, guess("a", "2001:db8:0:1::1").address.key);
        assert_ne!(guess("a", "192.0.2.1").address.key, guess("a", "192.0.2.2").address.key);
        assert_ne!(guess("a", "0.0.0.5").address.key, guess("a", "::").address.key);
    }

    #[test]
    fn no_bucket_is_anothers() {
        let guess = guess("a", "192.0.2.1");
        let keys = [guess.own.key, guess.address.key, guess.account.key, guess.place];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
