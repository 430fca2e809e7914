//! Where a connection's client was heard: a client tries all addresses that it has, and keeps one.
//!
//! Each new one costs the library a candidate that it keeps until a restart and a pair that it sorts in, and the other workers a note.

use antiphon_core::clock::Micros;

use super::{Address, recent::Recent};

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
pub(super) struct Addresses(Recent<Known>);

impl Default for Addresses {
    fn default() -> Self {
        Self(Recent::new(ONE_MORE_EVERY))
    }
}

impl Addresses {
    /// Whether what comes from there is to be looked at: it is known, or there is room for one more.
    pub(super) fn may_be_at(&self, now: Micros, address: Address) -> bool {
        self.0.room(now) > 0 || self.iter().any(|known| known == address)
    }

    /// Notes where the client is. The one that gives way to it, if there are many.
    pub(super) fn heard_at(&mut self, now: Micros, address: Address) -> Option<Address> {
        if self.0.hears(|known| known.address == address) {
            return None;
        }
        self.0.add(now, Known { address, tell_at: now }).map(|former| former.address)
    }

    /// Whether the other workers are to be told now that the client is there.
    pub(super) fn tells(&mut self, now: Micros, address: Address) -> bool {
        let known = self.0.iter_mut().find(|known| known.address == address && known.tell_at <= now);
        known.map(|known| known.tell_at = now + TELL_INTERVAL).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Address> {
        self.0.iter().map(|known| known.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use str0m::net::Protocol;

    use super::{super::recent::NEW_MAX, *};

    const NOW: Micros = Micros::from_secs(1_000);

    fn address(port: u16) -> Address {
        (Protocol::Udp, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    #[test]
    fn where_a_client_is_known_to_be_it_may_be_and_it_is_new_but_once() {
        let mut addresses = Addresses::default();
        (0..1_000).for_each(|_| assert_eq!(addresses.heard_at(NOW, address(1)), None));
        for port in 2..=NEW_MAX as u16 {
            assert!(addresses.may_be_at(NOW, address(port)));
            assert_eq!(addresses.heard_at(NOW, address(port)), None);
        }
        assert!(addresses.may_be_at(NOW, address(1)) && !addresses.may_be_at(NOW, address(1_000)));
        assert_eq!(addresses.iter().count(), NEW_MAX);
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
