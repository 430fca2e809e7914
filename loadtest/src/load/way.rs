//! A client's way when it is impaired: a bad network in each direction between its socket and itself.

use antiphon_core::{clock::Micros, netsim::Network};

use crate::scenario::Impairment;

/// Both directions.
pub(super) struct Way {
    up: Network<Vec<u8>>,
    down: Network<Vec<u8>>,
}

impl Way {
    /// The way of the client in that slot; the same seed loses the same.
    pub(super) fn new(impairment: &Impairment, seed: u64, slot: usize) -> Self {
        let seed = seed ^ ((slot as u64 + 1) << 17);
        Self {
            up: Network::new(impairment.network(), seed << 1),
            down: Network::new(impairment.network(), (seed << 1) | 1),
        }
    }

    /// Lets a datagram leave; false when it is lost.
    pub(super) fn leave(&mut self, now: Micros, datagram: &[u8]) -> bool {
        passes(&mut self.up, now, datagram)
    }

    /// When the next one has passed the way to the node.
    pub(super) fn next_at_node(&self) -> Option<Micros> {
        self.up.poll_timeout()
    }

    /// The next one that has.
    pub(super) fn at_node(&mut self, now: Micros) -> Option<Vec<u8>> {
        self.up.receive(now)
    }

    /// A datagram of the node has reached the socket; false when it is lost from there.
    pub(super) fn arrive(&mut self, at: Micros, datagram: &[u8]) -> bool {
        passes(&mut self.down, at, datagram)
    }

    /// The next one that has come through by now, and when it did.
    pub(super) fn at_client(&mut self, now: Micros) -> Option<(Micros, Vec<u8>)> {
        let at = self.down.poll_timeout()?;
        Some((at, self.down.receive(now)?))
    }
}

fn passes(network: &mut Network<Vec<u8>>, now: Micros, datagram: &[u8]) -> bool {
    let lost = |network: &Network<Vec<u8>>| network.stats().lost + network.stats().overflowed;
    let before = lost(network);
    network.send(now, datagram.to_vec());
    lost(network) == before
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_lost_is_told_and_all_else_comes_through_in_its_time() {
        let impairment = Impairment { loss: 0.3, delay: Duration::from_millis(20), ..Impairment::default() };
        let mut way = Way::new(&impairment, 7, 3);
        let sent: Vec<u8> = (0..100).filter(|number| way.arrive(Micros(u64::from(*number)), &[*number])).collect();
        assert!((50..90).contains(&sent.len()), "{sent:?}");
        assert_eq!(way.at_client(Micros(19_999)), None);
        let mut came = Vec::new();
        while let Some((at, datagram)) = way.at_client(Micros::from_secs(1)) {
            assert_eq!(at, Micros(20_000 + u64::from(datagram[0])));
            came.extend(datagram);
        }
        assert_eq!(came, sent);
        let mut other = Way::new(&impairment, 7, 4);
        let others: Vec<u8> = (0..100).filter(|number| other.arrive(Micros(u64::from(*number)), &[*number])).collect();
        assert_ne!(others, sent, "not everyone loses the same");
        assert!(way.leave(Micros::ZERO, &[1]) == way.next_at_node().is_some());
    }
}
