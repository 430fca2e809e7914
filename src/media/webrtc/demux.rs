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

/// What other workers' addresses are remembered without being told again: clients check their way every 5 s at most.
const REMEMBERED: Micros = Micros::from_secs(60);
/// Addresses of other workers' peers that are remembered.
const ADDRESSES_MAX: usize = 1 << 16;
/// How often the other workers are told an address.
const TELL_INTERVAL: Micros = Micros::from_secs(10);

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

/// Where clients are whose peers live in other workers: soft state, told anew as their STUN goes on.
#[derive(Default)]
pub(super) struct Directory {
    others: HashMap<Address, (WorkerIndex, Micros)>,
    told: HashMap<Address, Micros>,
}

impl Directory {
    fn note(&mut self, now: Micros, address: Address, worker: WorkerIndex) {
        if self.others.len() >= ADDRESSES_MAX {
            self.others.retain(|_, (_, at)| now.since(*at) < REMEMBERED);
        }
        if self.others.len() < ADDRESSES_MAX {
            self.others.insert(address, (worker, now));
        }
    }

    fn worker_at(&self, address: &Address) -> Option<WorkerIndex> {
        self.others.get(address).map(|(worker, _)| *worker)
    }

    /// Whether the others are to be told an address now.
    fn tells(&mut self, now: Micros, address: Address) -> bool {
        if self.told.len() >= ADDRESSES_MAX {
            self.told.retain(|_, at| now.since(*at) < TELL_INTERVAL);
        }
        let tells = self.told.get(&address).is_none_or(|at| now.since(*at) >= TELL_INTERVAL);
        if tells {
            self.told.insert(address, now);
        }
        tells
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
            PeerDatagram::IsAt { address, worker } => self.directory.note(now, *address, *worker),
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
            let worker = if fragment.is_some() { named } else { self.directory.worker_at(&from) };
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
        if self.by_address.insert(from, number) != Some(number)
            && let Some(peer) = self.peers.get_mut(&number)
            && let Some(former) = peer.heard_at(from)
        {
            self.by_address.remove(&former);
        }
        let me = self.setup.worker;
        if inboxes.len() > 1 && from.0 == Protocol::Udp && self.directory.tells(now, from) {
            let others = inboxes.iter().enumerate().filter(|(index, _)| *index != usize::from(me.0));
            for (_, inbox) in others {
                // One that has no room is told again with the client's next check.
                _ = inbox.leave_for_peers(PeerDatagram::IsAt { address: from, worker: me });
            }
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

    #[test]
    fn an_address_is_told_now_and_then() {
        let mut directory = Directory::default();
        let told: Vec<_> = (0..=20).map(|second| directory.tells(Micros::from_secs(second), address(1))).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 3);
        assert!(directory.tells(Micros::ZERO, address(2)));
    }

    #[test]
    fn what_is_remembered_of_other_workers_is_bounded() {
        let mut directory = Directory::default();
        for number in 0..ADDRESSES_MAX + 5 {
            let ip = std::net::Ipv4Addr::from(number as u32);
            directory.note(Micros::ZERO, (Protocol::Udp, SocketAddr::new(ip.into(), 1)), WorkerIndex(1));
        }
        assert_eq!(directory.others.len(), ADDRESSES_MAX);
        directory.note(REMEMBERED, address(9), WorkerIndex(2));
        assert_eq!((directory.others.len(), directory.worker_at(&address(9))), (1, Some(WorkerIndex(2))));
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
