//! Where a connection's client was heard: a client tries all addresses that it has, and keeps one.
//!
//! Each new one costs the library a candidate that it keeps until a restart and a pair that it sorts in, and the other workers a note.
//! So there is a bound to how many may be new at once, more than any client has, and to how soon others may follow.

use antiphon_core::clock::Micros;

use super::Address;

/// Addresses of a client that may be new at once.
pub(super) const NEW_MAX: u8 = 64;
/// Addresses of a client that are known at a time: so many that no new ones drive out one that it goes on to check.
const KNOWN_MAX: usize = 2 * NEW_MAX as usize;
/// After so long one more may be new: a client that travels, or whose NAT gives it another port now and then.
const ONE_MORE_EVERY: Micros = Micros::from_secs(10);
/// How often the other workers are told an address.
const TELL_INTERVAL: Micros = Micros::from_secs(10);

struct Known {
    address: Address,
    /// When the other workers are to be told of it.
    tell_at: Micros,
}

/// The addresses at which a client has proved to be.
#[derive(Default)]
pub(super) struct Addresses {
    /// Those that were heard last at the end.
    known: Vec<Known>,
    /// By then as many may be new as ever.
    used_until: Micros,
}

impl Addresses {
    /// Whether what comes from there is to be looked at: it is known, or there is room for one more.
    pub(super) fn may_be_at(&self, now: Micros, address: Address) -> bool {
        let all_but_one = Micros(ONE_MORE_EVERY.0 * (u64::from(NEW_MAX) - 1));
        self.used_until <= now + all_but_one || self.known.iter().any(|known| known.address == address)
    }

    /// Notes where the client is. The one that gives way to it, if there are many.
    pub(super) fn heard_at(&mut self, now: Micros, address: Address) -> Option<Address> {
        if let Some(place) = self.known.iter().position(|known| known.address == address) {
            self.known[place..].rotate_left(1);
            return None;
        }
        self.used_until = self.used_until.max(now) + ONE_MORE_EVERY;
        self.known.push(Known { address, tell_at: now });
        (self.known.len() > KNOWN_MAX).then(|| self.known.remove(0).address)
    }

    /// Whether the other workers are to be told now that the client is there.
    pub(super) fn tells(&mut self, now: Micros, address: Address) -> bool {
        let known = self.known.iter_mut().find(|known| known.address == address && known.tell_at <= now);
        known.map(|known| known.tell_at = now + TELL_INTERVAL).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Address> {
        self.known.iter().map(|known| known.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use str0m::net::Protocol;

    use super::*;

    const NOW: Micros = Micros::from_secs(1_000);

    fn address(port: u16) -> Address {
        (Protocol::Udp, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// A client that was heard at as many as it may be.
    fn full() -> Addresses {
        let mut addresses = Addresses::default();
        for port in 0..u16::from(NEW_MAX) {
            assert!(addresses.may_be_at(NOW, address(port)));
            assert_eq!(addresses.heard_at(NOW, address(port)), None);
        }
        addresses
    }

    #[test]
    fn many_may_be_new_at_once_and_then_one_now_and_then() {
        let mut addresses = full();
        assert!(!addresses.may_be_at(NOW, address(1_000)) && addresses.may_be_at(NOW, address(0)));
        let mut new = 0;
        for second in 0..1_000 {
            let now = NOW + Micros::from_secs(second);
            let (one, another) = (address(1_000 + 2 * second as u16), address(1_001 + 2 * second as u16));
            for address in [one, another] {
                if addresses.may_be_at(now, address) {
                    addresses.heard_at(now, address);
                    new += 1;
                }
            }
        }
        assert_eq!(new, 99);
    }

    #[test]
    fn the_one_that_was_not_heard_for_longest_gives_way() {
        let mut addresses = full();
        for port in u16::from(NEW_MAX)..KNOWN_MAX as u16 {
            assert_eq!(addresses.heard_at(NOW, address(port)), None);
        }
        assert_eq!(addresses.heard_at(NOW, address(0)), None, "it is known");
        assert_eq!(addresses.heard_at(NOW, address(1_000)), Some(address(1)));
        assert_eq!(addresses.iter().count(), KNOWN_MAX);
    }

    #[test]
    fn an_address_is_told_now_and_then() {
        let mut addresses = Addresses::default();
        assert!(!addresses.tells(NOW, address(1)), "nobody was heard there");
        addresses.heard_at(NOW, address(1));
        let told = (0..=20).filter(|second| addresses.tells(NOW + Micros::from_secs(*second), address(1))).count();
        assert_eq!(told, 3);
    }
}
