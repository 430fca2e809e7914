//! A worker's WebRTC peers: browsers and other standard clients, beside the native ones.
//!
//! ```text
//!  datagrams (STUN, DTLS, RTP, RTCP) ──► peer's state machine ──► voice ──► engine ──► frames of everyone ─┐
//!                                              ▲                 └► pictures ──► other subscribers         │
//!                                              └──────────────────────── voice and pictures ◄──────────────┘
//! ```
//!
//! A peer lives in the worker of its channel, so that what one publishes reaches all subscribers without another thread.
//! The kernel steers STUN by the worker that our fragment names (`stun`); whatever else comes from an address goes where
//! its STUN went, and is handed over by the worker that it came to. Unknown addresses are dropped before anything is
//! allocated. Voice becomes frames of the engine, under whose rules it is from then on, and goes to subscribers past the library
//! (`voice`); pictures are forwarded here, as the layer that each subscriber's way carries ([`antiphon_core::video`]).

mod addresses;
mod api;
mod checks;
mod counters;
mod demux;
mod elsewhere;
mod forward;
mod keys;
mod negotiate;
mod peer;
mod peer_places;
mod publishing;
mod recent;
mod setup;
mod sources;
pub(super) mod stun;
mod subscribing;
mod tcp;
#[cfg(test)]
mod tests;
mod video;
mod voice;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Engine, Hears},
    gateway::{PeerRole, PublishKind},
    ids::{ChannelId, StreamId, WorkerIndex},
};
use str0m::{
    Event, IceConnectionState, Input, Output,
    bwe::BweKind,
    config::DtlsCert,
    net::{Protocol, Transmit},
};
use tokio::sync::mpsc;

use super::{Clock, counters::SocketCounter, outbox::Outbox};
use demux::Directory;
use peer::{PATIENCE, Peer, Side, quiet_until};
use subscribing::SourceKey;
use video::{MEASURE_INTERVAL, Video};

pub use api::{
    CANDIDATES_MAX, Described, OfferedTrack, PeerCommand, PeerError, PeerEvent, PeerKey, Reply, Ways, Wish, way,
};
pub use counters::{PeerCounter, PeerStats};
pub(super) use demux::PeerDatagram;
pub(super) use elsewhere::ToRelay;
pub(super) use peer::Address;
pub(super) use peer_places::PeerPlaces;
pub(super) use publishing::Arrived;
pub use recent::NEW_MAX as SOURCES_NEW_MAX;
pub(super) use setup::certificate;
pub use subscribing::SECTIONS_MAX;
pub use tcp::IceTcp;

/// How long a peer may be looked after before others get their turn: it answers what came with some packets.
const OUTPUTS_MAX: usize = 256;
/// Peers looked after in a turn: native frames wait for no more.
const PEERS_PER_TURN: usize = 64;
/// So many reports of voices are told at once, however soon they came.
const REPORTS_AT_ONCE: usize = 64;

/// Something by numbers that are given out here, so that nobody can choose any that collide.
type ByNumber<T> = HashMap<u32, T, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers by a multiplication (Knuth's).
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What all workers' peers are set up with.
#[derive(Clone)]
pub(super) struct PeersSetup {
    pub(super) worker: WorkerIndex,
    pub(super) clock: Clock,
    pub(super) certificate: DtlsCert,
    pub(super) events: mpsc::Sender<PeerEvent>,
    /// What connections take a place of, in whatever worker.
    pub(super) places: Arc<PeerPlaces>,
    /// There are other nodes.
    pub(super) is_relayed: bool,
    /// The socket speaks IPv6, in which IPv4 addresses are written as such.
    pub(super) is_ipv6: bool,
}

/// Somebody who publishes here.
#[derive(Clone, Copy)]
struct Publisher {
    /// By which connection.
    number: u32,
    /// Their session is another node's.
    departs: bool,
}

/// What a channel's peers share.
#[derive(Default)]
struct PeerRoom {
    publishers: HashMap<StreamId, Publisher>,
    subscribers: Vec<u32>,
    videos: HashMap<SourceKey, Video>,
    /// Whether it had any when that was last looked at.
    had_videos: bool,
    /// Those who publish on other nodes, and when that was last heard.
    elsewhere: HashMap<StreamId, Micros>,
    /// What the control plane was told that each publishes.
    told: HashMap<StreamId, Vec<PublishKind>>,
}

/// All of one worker's.
pub(super) struct Peers {
    setup: PeersSetup,
    peers: ByNumber<Box<Peer>>,
    by_key: HashMap<PeerKey, u32>,
    by_fragment: HashMap<String, u32>,
    by_address: HashMap<Address, u32>,
    directory: Directory,
    next_number: u32,
    rooms: HashMap<ChannelId, PeerRoom>,
    /// Members whose switches are known.
    deafened: HashMap<(ChannelId, StreamId), bool>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    dirty: VecDeque<u32>,
    /// What came of looking after peers, to be acted upon.
    happened: Vec<(u32, Event)>,
    arrived: Vec<Arrived>,
    to_relay: Vec<ToRelay>,
    /// Events that the control plane had no room for: of each connection and each stream the last of its kind, so no more than there
    /// are of those.
    untold: VecDeque<PeerEvent>,
    /// What receivers reported of voices since that was last told: the control plane is not woken up for each.
    reported: Vec<PeerEvent>,
    /// Ways to clients by TCP.
    tcp: HashMap<Address, mpsc::Sender<Box<[u8]>>>,
    measured_at: Micros,
    /// Set aside for those that are to be marked.
    marked: Vec<u32>,
    pub(super) stats: PeerStats,
}

impl Peers {
    pub(super) fn new(setup: PeersSetup) -> Self {
        Self {
            peers: ByNumber::default(),
            by_key: HashMap::new(),
            by_fragment: HashMap::new(),
            by_address: HashMap::new(),
            directory: Directory::default(),
            next_number: 0,
            rooms: HashMap::new(),
            deafened: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: VecDeque::new(),
            happened: Vec::new(),
            arrived: Vec::new(),
            to_relay: Vec::new(),
            untold: VecDeque::new(),
            reported: Vec::new(),
            tcp: HashMap::new(),
            marked: Vec::new(),
            measured_at: setup.clock.now(),
            stats: PeerStats::default(),
            setup,
        }
    }

    /// Whether there is nobody, and nothing to tell of anybody: there is no need of a turn then, at no time. Of who has gone a timer
    /// may be left for some seconds, which only a turn takes away.
    pub(super) fn is_idle(&self) -> bool {
        let (nobody, nothing_due) = (self.rooms.is_empty() && self.peers.is_empty(), self.timers.is_empty());
        nobody && nothing_due && self.dirty.is_empty() && self.untold.is_empty() && self.to_relay.is_empty()
    }

    fn instant(&self, now: Micros) -> Instant {
        self.setup.clock.instant(now)
    }

    /// The peers follow the members of the engine.
    pub(super) fn follow(&mut self, command: &Command) {
        match command {
            Command::AddMember { channel, stream, hears: Hears::Peer, flags, .. } => {
                self.deafened.insert((*channel, *stream), flags.deafened);
            }
            Command::SetMemberFlags { channel, stream, flags } => {
                let Some(deafened) = self.deafened.get_mut(&(*channel, *stream)) else { return };
                *deafened = flags.deafened;
                let key = PeerKey { channel: *channel, stream: *stream, role: PeerRole::Subscriber };
                if let Some(Side::Subscribing(side)) = self.peer_by_key(key).map(|peer| &mut peer.side) {
                    side.deafened = flags.deafened;
                }
            }
            Command::RemoveMember { channel, stream } => {
                self.deafened.remove(&(*channel, *stream));
                for role in [PeerRole::Publisher, PeerRole::Subscriber] {
                    self.close(PeerKey { channel: *channel, stream: *stream, role });
                }
            }
            Command::CloseChannel { channel } => {
                self.rooms.remove(channel);
            }
            _ => {}
        }
    }

    fn peer_by_key(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.peers.get_mut(self.by_key.get(&key)?).map(|peer| &mut **peer)
    }

    /// Looks after the peers that were given something or whose time has come, and acts upon what they say. Voice that came
    /// is in [`Self::take_arrived`] then, numbered by what `engine` knows of its streams. True when more wait.
    pub(super) fn turn(&mut self, now: Micros, engine: &Engine, outbox: &mut Outbox) -> bool {
        let at = self.instant(now);
        while let Some(Reverse((due, number))) = self.timers.peek().copied().filter(|Reverse((due, _))| *due <= at) {
            self.timers.pop();
            self.timer_due(at, due, number);
        }
        if now.since(self.measured_at) >= MEASURE_INTERVAL && !self.rooms.is_empty() {
            self.measured_at = now;
            self.measure(now);
        }
        for _ in 0..PEERS_PER_TURN {
            let Some(number) = self.dirty.pop_front() else { break };
            self.look_after(now, number, engine, outbox);
        }
        self.tell_untold();
        !self.dirty.is_empty()
    }

    fn timer_due(&mut self, at: Instant, due: Instant, number: u32) {
        let Some(peer) = self.peers.get_mut(&number).filter(|peer| peer.scheduled == Some(due)) else { return };
        peer.scheduled = None;
        if peer.due <= at || peer.given_up_at.is_some_and(|given_up_at| given_up_at <= at) {
            self.mark(number);
        } else {
            self.schedule(number);
        }
    }

    /// Voice that came since this was last asked, in place of what `room` is emptied of.
    pub(super) fn take_arrived(&mut self, room: &mut Vec<Arrived>) {
        room.clear();
        std::mem::swap(&mut self.arrived, room);
    }

    /// When [`Self::turn`] is to be called.
    pub(super) fn poll_timeout(&self, now: Micros) -> Option<Micros> {
        if !self.dirty.is_empty() || !self.untold.is_empty() {
            return Some(now + Micros::from_millis(1));
        }
        let at = self.instant(now);
        let timer = self.timers.peek().map(|Reverse((due, _))| {
            let wait = due.saturating_duration_since(at).min(Duration::from_secs(60));
            now + Micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) + 1)
        });
        let measure = (!self.rooms.is_empty()).then(|| self.measured_at + MEASURE_INTERVAL);
        timer.into_iter().chain(measure).min()
    }

    /// Has a peer looked after in this turn.
    fn mark(&mut self, number: u32) {
        let Some(peer) = self.peers.get_mut(&number).filter(|peer| !peer.dirty) else { return };
        peer.dirty = true;
        self.dirty.push_back(number);
    }

    fn schedule(&mut self, number: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let due = peer.given_up_at.map_or(peer.due, |at| at.min(peer.due));
        if peer.scheduled.is_none_or(|scheduled| due < scheduled) {
            peer.scheduled = Some(due);
            self.timers.push(Reverse((due, number)));
        }
    }

    fn look_after(&mut self, now: Micros, number: u32, engine: &Engine, outbox: &mut Outbox) {
        let at = self.instant(now);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.dirty = false;
        if peer.given_up_at.is_some_and(|given_up_at| given_up_at <= at) {
            let counter = if peer.connected { PeerCounter::Lost } else { PeerCounter::NeverConnected };
            return self.end(number, counter);
        }
        if peer.rtc.handle_input(Input::Timeout(at)).is_err() {
            return self.end(number, PeerCounter::Broken);
        }
        if peer.offers_at().is_some_and(|at| at <= now) {
            self.offer(now, number, false);
        }
        self.repeat_voices(now, number, outbox);
        self.drain(now, number, engine, outbox);
    }

    /// Takes all that a peer has to say and to send, and acts upon it. To be done after each datagram that it was given: it
    /// holds no more than one packet that came.
    fn drain(&mut self, now: Micros, number: u32, engine: &Engine, outbox: &mut Outbox) {
        let at = self.instant(now);
        let mut outputs = 0;
        loop {
            let Some(peer) = self.peers.get_mut(&number) else { return };
            match peer.rtc.poll_output() {
                Ok(Output::Timeout(due)) => {
                    let quiet_until = self.setup.clock.instant(quiet_until(now));
                    let due = if peer.is_quiet(at) { due.max(quiet_until) } else { due };
                    let ours = peer.repeats.due().into_iter().chain(peer.offers_at()).min();
                    peer.due = ours.map_or(due, |ours| self.setup.clock.instant(ours).min(due));
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    if peer.sends(now, &transmit) {
                        self.send(&transmit, outbox);
                    } else {
                        self.stats.count(PeerCounter::VideoLeftOver);
                    }
                }
                Ok(Output::Event(event)) => self.happened.push((number, event)),
                Err(_) => return self.end(number, PeerCounter::Broken),
            }
            outputs += 1;
            if outputs == OUTPUTS_MAX {
                self.mark(number);
                break;
            }
        }
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.take_keys();
        }
        let mut happened = std::mem::take(&mut self.happened);
        for (number, event) in happened.drain(..) {
            self.act_upon(now, number, event, engine);
        }
        self.happened = happened;
        if self.peers.get(&number).is_some_and(|peer| !peer.rtc.is_alive()) {
            return self.end(number, PeerCounter::Lost);
        }
        self.schedule(number);
    }

    fn send(&mut self, transmit: &Transmit, outbox: &mut Outbox) {
        let bytes: &[u8] = &transmit.contents;
        self.stats.count(PeerCounter::Sent);
        if transmit.proto != Protocol::Udp {
            let way = self.tcp.get(&(transmit.proto, transmit.destination));
            if way.is_none_or(|way| way.try_send(bytes.into()).is_err()) {
                self.stats.count(PeerCounter::TcpDropped);
            }
        } else if !outbox.send_to_peer(demux::as_sent(transmit.destination, self.setup.is_ipv6), bytes) {
            outbox.sender.stats.add(SocketCounter::SendErrors, 1);
        }
    }

    fn act_upon(&mut self, now: Micros, number: u32, event: Event, engine: &Engine) {
        match event {
            Event::RtpPacket(packet) => self.packet(now, number, packet, engine),
            Event::KeyframeRequest(request) => self.picture_wanted(now, number, request.mid),
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, can_probe }) => {
                if let Some(Side::Subscribing(side)) = self.peers.get_mut(&number).map(|peer| &mut peer.side) {
                    side.way.measured(can_probe.then_some(estimate.as_u64()));
                    self.choose_layers(now, number);
                }
            }
            Event::PeerStats(stats) => self.way_seen(now, number, &stats),
            Event::Connected => self.connected(now, number),
            Event::IceConnectionStateChange(state) => self.ice_changed(now, number, state),
            Event::MediaAdded(added) => {
                let Some(peer) = self.peers.get_mut(&number) else { return };
                let Side::Subscribing(side) = &mut peer.side else { return };
                side.added(added.mid, added.kind);
                side.settle(&mut peer.rtc);
                let channel = peer.key.channel;
                self.pictures_changed(now, channel);
            }
            Event::Closed => self.end(number, PeerCounter::Lost),
            _ => {}
        }
    }

    fn connected(&mut self, now: Micros, number: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.given_up_at = None;
        if let Side::Subscribing(side) = &mut peer.side {
            side.connected_at = side.connected_at.or(Some(now));
        }
        let (key, is_first) = (peer.key, !std::mem::replace(&mut peer.connected, true));
        if is_first {
            peer.place.stands();
            self.stats.count(PeerCounter::Connected);
            self.stats.count(PeerCounter::Established);
            self.tell(PeerEvent::Connected { key });
        }
        self.choose_layers(now, number);
    }

    fn ice_changed(&mut self, now: Micros, number: u32, state: IceConnectionState) {
        let at = self.instant(now);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        match state {
            IceConnectionState::Disconnected => peer.given_up_at = Some(at + PATIENCE),
            IceConnectionState::Connected | IceConnectionState::Completed if peer.connected => peer.given_up_at = None,
            _ => {}
        }
    }

    /// Closes a connection that the control plane wants no longer.
    fn close(&mut self, key: PeerKey) {
        if let Some(number) = self.by_key.get(&key).copied() {
            self.remove(number);
        }
    }

    /// A connection has ended by itself.
    fn end(&mut self, number: u32, why: PeerCounter) {
        let Some(peer) = self.peers.get(&number) else { return };
        let key = peer.key;
        self.stats.count(why);
        self.remove(number);
        self.tell(PeerEvent::Gone { key });
    }

    fn remove(&mut self, number: u32) {
        let Some(peer) = self.peers.remove(&number) else { return };
        if self.by_key.get(&peer.key) == Some(&number) {
            self.by_key.remove(&peer.key);
        }
        peer.fragments.iter().for_each(|fragment| _ = self.by_fragment.remove(fragment));
        peer.addresses.iter().for_each(|address| self.forget_address(number, address));
        if peer.connected {
            self.stats.down(PeerCounter::Connected);
        }
        self.stats.down(match peer.side {
            Side::Publishing(_) => PeerCounter::Publishers,
            Side::Subscribing(_) => PeerCounter::Subscribers,
        });
        let PeerKey { channel, stream, role } = peer.key;
        let Some(room) = self.rooms.get_mut(&channel) else { return };
        match role {
            PeerRole::Subscriber => {
                room.subscribers.retain(|other| *other != number);
                self.tell_interest(channel);
            }
            PeerRole::Publisher => {
                if room.publishers.get(&stream).is_some_and(|publisher| publisher.number == number) {
                    room.publishers.remove(&stream);
                    self.tell_publishes(channel, stream, Vec::new(), true);
                }
            }
        }
    }

    fn tell(&mut self, event: PeerEvent) {
        self.untold.retain(|untold| !event.supersedes(untold));
        self.untold.push_back(event);
    }

    /// Has a report told soon. It is worth nothing later: where there is no room then it is dropped, which is counted.
    fn reported(&mut self, event: PeerEvent) {
        self.reported.push(event);
        if self.reported.len() >= REPORTS_AT_ONCE {
            self.tell_reported();
        }
    }

    fn tell_reported(&mut self) {
        for event in self.reported.drain(..) {
            if !self.untold.is_empty() || self.setup.events.try_send(event).is_err() {
                self.stats.count(PeerCounter::ReportsDropped);
            }
        }
    }

    fn tell_untold(&mut self) {
        while let Some(event) = self.untold.pop_front() {
            match self.setup.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => return self.untold.push_front(event),
                // Nobody listens any more: the node is stopping.
                Err(mpsc::error::TrySendError::Closed(_)) => return self.untold.clear(),
            }
        }
    }
}
