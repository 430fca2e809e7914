//! Which peer a datagram is for, and which worker has it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use antiphon_core::{clock::Micros, engine::Engine, ids::WorkerIndex, wire::datagram::DATAGRAM_BYTES_MAX};
use str0m::net::Protocol;

use super::{
    super::{inbox::Inbox, outbox::Outbox},
    Address, PeerCounter, Peers, stun,
};

/// Addresses of other workers' peers that are remembered.
const ADDRESSES_MAX: usize = 1 << 16;

/// Something for the peers of another worker.
#[expect(clippy::large_enum_variant, reason = "datagrams travel inline so that handing over allocates nothing")]
pub(in crate::media) enum PeerDatagram {
    /// It came to the wrong worker, or by TCP.
    Came { from: Address, length: u16, bytes: [u8; DATAGRAM_BYTES_MAX] },
    /// A client at this address has its peer in that worker.
    IsAt { address: Address, worker: WorkerIndex },
}

impl PeerDatagram {
    /// Copies a datagram; `None` when it is too long for one.
    pub(in crate::media) fn came(from: Address, datagram: &[u8]) -> Option<Self> {
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self::Came { from, length: u16::try_from(datagram.len()).ok()?, bytes })
    }
}

/// Where clients are whose peers live in other workers: soft state, told anew as their STUN goes on. It is bounded by two halves, of
/// which the newer is filled and then takes the older's place; what is used moves into the newer, so that no number of new ones drives out
/// those by which media comes.
#[derive(Default)]
pub(super) struct Directory {
    newer: HashMap<Address, WorkerIndex>,
    older: HashMap<Address, WorkerIndex>,
}

impl Directory {
    fn note(&mut self, address: Address, worker: WorkerIndex) {
        if self.newer.len() >= ADDRESSES_MAX / 2 && !self.newer.contains_key(&address) {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(address, worker);
    }

    fn worker_at(&mut self, address: Address) -> Option<WorkerIndex> {
        if let Some(worker) = self.newer.get(&address) {
            return Some(*worker);
        }
        let worker = self.older.remove(&address)?;
        self.note(address, worker);
        Some(worker)
    }
}

impl Peers {
    /// A datagram that is no native one came to this worker's socket.
    pub(in crate::media) fn datagram(
        &mut self,
        now: Micros,
        from: SocketAddr,
        datagram: &[u8],
        (engine, outbox): (&Engine, &mut Outbox),
    ) {
        let from = (Protocol::Udp, SocketAddr::new(from.ip().to_canonical(), from.port()));
        self.take(now, from, datagram, true, (engine, outbox));
    }

    /// Another worker, or a TCP connection, leaves something.
    pub(in crate::media) fn handed_over(
        &mut self,
        now: Micros,
        left: &PeerDatagram,
        (engine, outbox): (&Engine, &mut Outbox),
    ) {
        match left {
            PeerDatagram::Came { from, length, bytes } => {
                self.take(now, *from, &bytes[..usize::from(*length)], false, (engine, outbox));
            }
            PeerDatagram::IsAt { address, worker } => {
                // Whoever was heard there before is there no more, or is heard again with its next check.
                self.by_address.remove(address);
                self.directory.note(*address, *worker);
            }
        }
    }

    /// What was passed on by another worker is not passed on once more, so that nothing goes round.
    fn take(
        &mut self,
        now: Micros,
        from: Address,
        datagram: &[u8],
        may_pass_on: bool,
        (engine, outbox): (&Engine, &mut Outbox),
    ) {
        let inboxes = Arc::clone(outbox.inboxes());
        let is_stun = datagram.first().is_some_and(|first| *first < 4);
        let fragment = if is_stun { stun::fragment_in(datagram) } else { None };
        let number = match fragment {
            Some(fragment) => str::from_utf8(fragment).ok().and_then(|fragment| self.by_fragment.get(fragment)),
            None => self.by_address.get(&from),
        };
        let Some(number) = number.copied() else {
            let named = fragment.and_then(stun::worker_of);
            let worker = if fragment.is_some() { named } else { self.directory.worker_at(from) };
            return self.pass_on(worker.filter(|_| may_pass_on), from, datagram, &inboxes);
        };
        if self.reports_on_voice(now, number, from, datagram) {
            return self.stats.count(PeerCounter::Taken);
        }
        let at = self.instant(now);
        if fragment.is_some() && self.answers_check(now, number, from, datagram, outbox) {
            return self.stats.count(PeerCounter::Taken);
        }
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if fragment.is_some() && !peer.addresses.may_be_at(now, from) {
            return self.stats.count(PeerCounter::TooManyAddresses);
        }
        if !peer.takes(now, datagram) {
            return self.stats.count(PeerCounter::Unexpected);
        }
        match peer.receive(at, from, datagram) {
            Ok(true) => {
                self.stats.count(PeerCounter::Taken);
                if fragment.is_some() {
                    peer.checks_from(at, from);
                    self.client_is_at(now, number, from, &inboxes);
                }
                self.drain(now, number, engine, outbox);
                if is_stun && let Some(peer) = self.peers.get_mut(&number) {
                    peer.note_check(at, from, datagram);
                }
                self.fed_back(now, number, from, datagram);
            }
            Ok(false) if is_stun => self.stats.count(PeerCounter::NotAuthentic),
            Ok(false) => self.stats.count(PeerCounter::Unknown),
            Err(_) => self.end(number, PeerCounter::Broken),
        }
    }

    /// To the worker that has the peer, if there is one.
    fn pass_on(&mut self, worker: Option<WorkerIndex>, from: Address, datagram: &[u8], inboxes: &[Inbox]) {
        let other = worker.filter(|worker| *worker != self.setup.worker);
        let Some(inbox) = other.and_then(|worker| inboxes.get(usize::from(worker.0))) else {
            return self.stats.count(PeerCounter::Unknown);
        };
        let left = PeerDatagram::came(from, datagram).is_some_and(|copy| inbox.leave_for_peers(copy));
        self.stats.count(if left { PeerCounter::HandedOver } else { PeerCounter::HandoversDropped });
    }

    /// A client proved by STUN that it is at an address.
    fn client_is_at(&mut self, now: Micros, number: u32, from: Address, inboxes: &[Inbox]) {
        self.by_address.insert(from, number);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let former = peer.addresses.heard_at(now, from);
        let tells = inboxes.len() > 1 && from.0 == Protocol::Udp && peer.addresses.tells(now, from);
        if let Some(former) = former {
            self.forget_address(number, former);
        }
        if tells {
            let me = self.setup.worker;
            let others = inboxes.iter().enumerate().filter(|(index, _)| *index != usize::from(me.0));
            for (_, inbox) in others {
                // One that has no room is told again with a later check.
                _ = inbox.leave_for_peers(PeerDatagram::IsAt { address: from, worker: me });
            }
        }
    }

    /// What comes from an address is no longer a client's, unless it is another's by now.
    pub(super) fn forget_address(&mut self, number: u32, address: Address) {
        if self.by_address.get(&address) == Some(&number) {
            self.by_address.remove(&address);
        }
    }
}

impl Outbox {
    /// Sends a datagram of a peer; false for one that is longer than any may be.
    pub(super) fn send_to_peer(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        let fits = datagram.len() <= DATAGRAM_BYTES_MAX;
        if fits {
            self.sender.fan_out(datagram, &[to]);
        }
        fits
    }
}

/// An address as the socket takes it.
pub(super) fn as_sent(address: SocketAddr, is_ipv6: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if is_ipv6 => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        (Protocol::Udp, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn numbered(number: usize) -> Address {
        (Protocol::Udp, SocketAddr::new(std::net::Ipv4Addr::from(number as u32).into(), 1))
    }

    #[test]
    fn what_is_remembered_of_other_workers_is_bounded_and_what_is_used_stays() {
        let mut directory = Directory::default();
        directory.note(address(9), WorkerIndex(2));
        directory.note(address(8), WorkerIndex(3));
        for number in 0..3 * ADDRESSES_MAX {
            directory.note(numbered(number), WorkerIndex(1));
            assert!(directory.newer.len() + directory.older.len() <= ADDRESSES_MAX);
            if number % 1_000 == 0 {
                assert_eq!(directory.worker_at(address(9)), Some(WorkerIndex(2)), "{number}");
            }
        }
        assert_eq!(directory.worker_at(address(8)), None, "nothing came from there");
        assert_eq!(directory.worker_at(numbered(3 * ADDRESSES_MAX - ADDRESSES_MAX / 2)), Some(WorkerIndex(1)));
    }

    #[test]
    fn a_client_that_has_moved_to_another_worker_is_found_there() {
        let mut directory = Directory::default();
        directory.note(address(9), WorkerIndex(1));
        (0..ADDRESSES_MAX / 2).for_each(|number| directory.note(numbered(number), WorkerIndex(1)));
        directory.note(address(9), WorkerIndex(2));
        assert_eq!(directory.worker_at(address(9)), Some(WorkerIndex(2)));
    }

    #[test]
    fn only_what_fits_is_copied() {
        assert!(PeerDatagram::came(address(1), &[0; DATAGRAM_BYTES_MAX]).is_some());
        assert!(PeerDatagram::came(address(1), &[0; DATAGRAM_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn a_socket_for_both_families_writes_addresses_as_ipv6() {
        let v4 = SocketAddr::from(([127, 0, 0, 1], 5));
        assert_eq!(as_sent(v4, false), v4);
        assert_eq!(as_sent(v4, true), "[::ffff:127.0.0.1]:5".parse().expect("an address"));
    }
}
