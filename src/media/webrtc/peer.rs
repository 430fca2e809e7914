//! One connection: the library's state machine and what we know of its client.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use str0m::{
    Candidate, IceCreds, Input, Rtc, RtcError,
    net::{Protocol, Receive, TcpType},
};

use super::{
    api::{PeerError, PeerKey, Ways},
    publishing::Publishing,
    subscribing::Subscribing,
};

/// How long a connection may take to come to stand, and how long one that was lost is kept for its client to find another
/// way.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of a client that are known at a time: it tries all of its own, and keeps one.
const ADDRESSES_MAX: usize = 16;
/// Candidates that a client may send for one connection.
const CANDIDATES_MAX: usize = 64;

/// Where a client is.
pub(in crate::media) type Address = (Protocol, SocketAddr);

/// Which way its media goes.
pub(super) enum Side {
    Publishing(Publishing),
    Subscribing(Subscribing),
}

/// A connection.
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) rtc: Rtc,
    pub(super) side: Side,
    /// The fragments by which its client's STUN is known: the newest last.
    pub(super) fragments: Vec<String>,
    pub(super) addresses: Vec<Address>,
    ways: Ways,
    candidates: usize,
    /// When it wants to be looked after.
    pub(super) due: Instant,
    /// For when that is noted.
    pub(super) scheduled: Option<Instant>,
    /// It was given something and not looked after since.
    pub(super) dirty: bool,
    pub(super) connected: bool,
    /// A new way is offered, under these credentials.
    pub(super) restarts: Option<IceCreds>,
    /// When it is given up unless it stands by then.
    pub(super) given_up_at: Option<Instant>,
}

impl Peer {
    pub(super) fn new(now: Instant, key: PeerKey, mut rtc: Rtc, side: Side, fragment: String, ways: Ways) -> Self {
        for candidate in candidates(&ways) {
            rtc.add_local_candidate(candidate);
        }
        Self {
            key,
            rtc,
            side,
            fragments: vec![fragment],
            addresses: Vec::new(),
            ways,
            candidates: 0,
            due: now,
            scheduled: None,
            dirty: false,
            connected: false,
            restarts: None,
            given_up_at: Some(now + PATIENCE),
        }
    }

    /// Gives it a datagram; false when it is none of this client's.
    pub(super) fn receive(&mut self, now: Instant, from: Address, bytes: &[u8]) -> Result<bool, RtcError> {
        let (proto, source) = from;
        let Some(destination) = self.reached_at(proto, source.ip()) else { return Ok(false) };
        let Ok(receive) = Receive::new(proto, source, destination, bytes) else { return Ok(false) };
        let input = Input::Receive(now, receive);
        if !self.rtc.accepts(&input) {
            return Ok(false);
        }
        self.rtc.handle_input(input)?;
        Ok(true)
    }

    /// The address of ours that a datagram is taken to have come to: the sockets do not tell, and every one of a family is
    /// as good as another.
    fn reached_at(&self, proto: Protocol, from: IpAddr) -> Option<SocketAddr> {
        let ways = if proto == Protocol::Udp { &self.ways.udp } else { &self.ways.tcp };
        ways.iter().copied().find(|way| way.is_ipv4() == from.is_ipv4())
    }

    /// Notes an address of the client, which it has proved to be at. The one that gives way to it, if there are many.
    pub(super) fn heard_at(&mut self, from: Address) -> Option<Address> {
        if self.addresses.contains(&from) {
            return None;
        }
        self.addresses.push(from);
        (self.addresses.len() > ADDRESSES_MAX).then(|| self.addresses.remove(0))
    }

    pub(super) fn add_candidate(&mut self, candidate: Candidate) -> Result<(), PeerError> {
        if self.candidates >= CANDIDATES_MAX {
            return Err(PeerError::TooMany("a connection takes at most 64 candidates"));
        }
        self.candidates += 1;
        self.rtc.add_remote_candidate(candidate);
        Ok(())
    }

    /// The library has drawn credentials of its own for a restart: puts ours, by which we know our clients, in their place
    /// in a description that names them.
    pub(super) fn restart_as(&mut self, sdp: &str, drawn: &IceCreds, ours: &IceCreds) -> String {
        self.fragments.push(ours.ufrag.clone());
        sdp.replace(&format!("a=ice-ufrag:{}", drawn.ufrag), &format!("a=ice-ufrag:{}", ours.ufrag))
            .replace(&format!("a=ice-pwd:{}", drawn.pass), &format!("a=ice-pwd:{}", ours.pass))
    }
}

fn candidates(ways: &Ways) -> Vec<Candidate> {
    let udp = ways.udp.iter().filter_map(|address| Candidate::host(*address, Protocol::Udp).ok());
    let passive =
        |address: &SocketAddr| Candidate::builder().tcp().host(*address).tcptype(TcpType::Passive).build().ok();
    udp.chain(ways.tcp.iter().filter_map(passive)).collect()
}
