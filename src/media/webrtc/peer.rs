//! One connection: the library's state machine and what we know of its client.

use std::{
    collections::BTreeSet,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use antiphon_core::{clock::Micros, prefetch::prefetch_front, repeats::Repeats, rtp, video::Step};
use str0m::{
    Candidate, IceCreds, Input, Rtc, RtcError,
    bwe::Bitrate,
    net::{Protocol, Receive, TcpType, Transmit},
};

use super::{
    addresses::Addresses,
    api::{CANDIDATES_MAX, PeerError, PeerKey, Ways, way},
    checks::{self, Check},
    keys::Agreed,
    peer_places::PeerPlace,
    publishing::Publishing,
    sources::Sources,
    subscribing::{Subscribing, Track, forget_before},
    voice::Sealing,
};

/// How long a connection may take to come to stand.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long one that was lost is kept for its client to find another way.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A connection that carries voices alone is looked after so seldom, a second more at most, unless its client sends something. Clients check their way more
/// often than that: its timers only matter when they do not.
const QUIET: Micros = Micros::from_secs(5);
/// At multiples of this: a worker is woken once for all connections that are due about then.
const LOOKED_AFTER_AT: Micros = Micros::from_secs(1);
/// How long a client that was heard from another address is looked after as often as the library wants: it may choose another way.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// The first byte of what is no STUN (RFC 7983, 7).
const STUN_BELOW: u8 = 4;

/// Where a client is.
pub(in crate::media) type Address = (Protocol, SocketAddr);

/// What is fetched ahead of a listener's turn beside its key: each line of a processor's cache more is felt.
const _: () = assert!(Peer::FRONT_BYTES <= 4 * 64 && Track::FRONT_BYTES <= 4 * 64);

/// Which way its media goes.
#[expect(clippy::large_enum_variant, reason = "most subscribe, and each lies in its peer, which does not move")]
pub(super) enum Side {
    Publishing(Publishing),
    Subscribing(Subscribing),
}

/// A connection. What each packet of voice needs is at its front, and nothing else is: all of that is fetched from memory ahead.
#[repr(C, align(64))]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    /// Where the library sends its media.
    pub(super) nominated: Option<Address>,
    pub(super) connected: bool,
    /// What voice to it is sealed with, once there are keys.
    pub(super) sealing: Option<Sealing>,
    pub(super) side: Side,
    /// What it may have lost of voices, while it gets pictures as well.
    pub(super) repeats: Repeats,
    /// Apart: it is large, and voice goes past it.
    pub(super) rtc: Box<Rtc>,
    /// Where the keys of its DTLS are found.
    agreed: Agreed,
    unsettled_until: Option<Instant>,
    /// The last check of its way that the library answered, under the credentials that hold.
    pub(super) checked: Option<Check>,
    /// The transaction that it answered last.
    pub(super) answered: Option<[u8; 12]>,
    /// The fragments by which its client's STUN is known: the newest last.
    pub(super) fragments: Vec<String>,
    pub(super) addresses: Addresses,
    ways: Ways,
    /// Where its client said that it can be reached, under the credentials that hold.
    candidates: Vec<Address>,
    /// What its client sends, and said that it would.
    sources: Sources,
    /// When it wants to be looked after.
    pub(super) due: Instant,
    /// For when that is noted.
    pub(super) scheduled: Option<Instant>,
    /// It was given something and not looked after since.
    pub(super) dirty: bool,
    /// A new way is offered, under these credentials.
    pub(super) restarts: Option<IceCreds>,
    /// When it is given up unless it stands by then.
    pub(super) given_up_at: Option<Instant>,
    /// Its place on the node.
    pub(super) place: PeerPlace,
}

impl Peer {
    /// So much of it voice needs, with what says which side it is.
    const FRONT_BYTES: usize = offset_of!(Self, side) + align_of::<Side>() + Subscribing::FRONT_BYTES;

    pub(super) fn new(
        now: Instant,
        key: PeerKey,
        (mut rtc, agreed): (Rtc, Agreed),
        side: Side,
        fragment: String,
        (place, ways): (PeerPlace, Ways),
    ) -> Self {
        for candidate in candidates(&ways) {
            rtc.add_local_candidate(candidate);
        }
        Self {
            key,
            rtc: Box::new(rtc),
            side,
            agreed,
            sealing: None,
            repeats: Repeats::default(),
            nominated: None,
            unsettled_until: None,
            checked: None,
            answered: None,
            fragments: vec![fragment],
            addresses: Addresses::default(),
            ways,
            candidates: Vec::new(),
            sources: Sources::default(),
            due: now,
            scheduled: None,
            dirty: false,
            connected: false,
            restarts: None,
            place,
            given_up_at: Some(now + FIRST_PATIENCE),
        }
    }

    /// Has what voice needs of it fetched from memory.
    pub(super) fn prefetch_front(&self) {
        prefetch_front(self, Self::FRONT_BYTES);
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

    /// The library sends something; false where it is not to go. What is no STUN goes the way that was chosen.
    pub(super) fn sends(&mut self, now: Micros, transmit: &Transmit) -> bool {
        if transmit.contents.first().is_some_and(|first| *first >= STUN_BELOW) {
            self.nominated = Some((transmit.proto, transmit.destination));
        }
        self.answered = checks::answered_in(&transmit.contents).or(self.answered);
        let Side::Subscribing(side) = &mut self.side else { return true };
        let goes = side.sends(now, &transmit.contents);
        if !goes {
            forget_before(&mut self.rtc, &transmit.contents);
        }
        goes
    }

    /// Has congestion control do what the way needs.
    pub(super) fn tell_estimator(&mut self, step: Step) {
        let mut estimator = self.rtc.bwe();
        match step {
            Step::Desire(bps) => estimator.set_bitrate(Bitrate::ZERO, Bitrate::bps(bps)),
            Step::Anew(bps) => estimator.reset(Bitrate::bps(bps)),
        }
    }

    /// When it may be offered what it wishes for, if there is anything.
    pub(super) fn offers_at(&self) -> Option<Micros> {
        if let Side::Subscribing(side) = &self.side { side.offers_at() } else { None }
    }

    /// The client was heard at an address.
    pub(super) fn checks_from(&mut self, now: Instant, from: Address) {
        if self.nominated != Some(from) {
            self.unsettled_until = Some(now + SETTLES_WITHIN);
        }
    }

    /// Voice is sealed with the keys that were agreed upon, if there are new ones.
    pub(super) fn take_keys(&mut self) {
        if let Some(keys) = self.agreed.take() {
            self.sealing = Some(Sealing::new(keys));
        }
    }

    /// Whether the library has nothing to do of itself: it stands by a settled way, and sends no pictures.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let Side::Subscribing(side) = &self.side else { return false };
        let is_settled = self.unsettled_until.is_none_or(|until| until <= now);
        self.connected && self.given_up_at.is_none() && is_settled && self.nominated.is_some() && !side.has_pictures()
    }

    /// Whether a datagram is to be looked at: RTP is not of who only receives, nor of one source too many.
    pub(super) fn takes(&mut self, now: Micros, datagram: &[u8]) -> bool {
        let Some(source) = rtp::source(datagram) else { return true };
        let noted = matches!(self.side, Side::Publishing(_)).then(|| self.sources.heard(now, source)).flatten();
        if let Some(Some(former)) = noted {
            self.rtc.direct_api().remove_stream_rx(former.into());
        }
        noted.is_some()
    }

    /// Notes the sources that an offer names, before the library does.
    pub(super) fn offers(&mut self, now: Micros, sources: &BTreeSet<u32>) -> Result<(), PeerError> {
        for former in self.sources.named(now, sources).ok_or(PeerError::SOURCES)? {
            self.rtc.direct_api().remove_stream_rx(former.into());
        }
        Ok(())
    }

    /// Takes more ways to the client: all of them, or none where they would be too many.
    pub(super) fn trickled(&mut self, candidates: Vec<Candidate>) -> Result<(), PeerError> {
        let candidates = self.unknown(candidates);
        if self.candidates.len() + candidates.len() > CANDIDATES_MAX {
            return Err(PeerError::CANDIDATES);
        }
        self.add_candidates(candidates);
        Ok(())
    }

    /// Takes the ways to the client that a description named, as many as there is room for: its checks show where it is all the same.
    pub(super) fn described(&mut self, candidates: Vec<Candidate>) {
        let mut candidates = self.unknown(candidates);
        candidates.truncate(CANDIDATES_MAX.saturating_sub(self.candidates.len()));
        self.add_candidates(candidates);
    }

    fn unknown(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.retain(|candidate| !self.candidates.contains(&way(candidate)));
        candidates
    }

    fn add_candidates(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            self.candidates.push(way(&candidate));
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// Begins anew under these credentials: neither what was known of the client's ways holds any more, nor the fragments by which it
    /// was known, which are yielded.
    pub(super) fn renew(&mut self, ours: IceCreds) -> Vec<String> {
        let former = self.fragments.extract_if(.., |fragment| *fragment != ours.ufrag).collect();
        self.rtc.direct_api().set_local_ice_credentials(ours);
        self.checked = None;
        self.candidates.clear();
        former
    }
}

/// The library has drawn credentials of its own for a restart: puts ours, by which we know our clients, in their place
/// in a description that names them, which each candidate does as well.
pub(super) fn named_as(sdp: &str, drawn: &IceCreds, ours: &IceCreds) -> String {
    sdp.replace(&format!("a=ice-ufrag:{}", drawn.ufrag), &format!("a=ice-ufrag:{}", ours.ufrag))
        .replace(&format!("a=ice-pwd:{}", drawn.pass), &format!("a=ice-pwd:{}", ours.pass))
        .replace(&format!(" ufrag {}", drawn.ufrag), &format!(" ufrag {}", ours.ufrag))
}

/// When a connection that is quiet is looked after, from now on.
pub(super) fn quiet_until(now: Micros) -> Micros {
    Micros((now + QUIET).0.next_multiple_of(LOOKED_AFTER_AT.0))
}

fn candidates(ways: &Ways) -> Vec<Candidate> {
    let udp = ways.udp.iter().filter_map(|address| Candidate::host(*address, Protocol::Udp).ok());
    let passive =
        |address: &SocketAddr| Candidate::builder().tcp().host(*address).tcptype(TcpType::Passive).build().ok();
    udp.chain(ways.tcp.iter().filter_map(passive)).collect()
}
