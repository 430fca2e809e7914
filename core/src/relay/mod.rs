//! The relay of a media worker: frames of a channel between the nodes that its members are on.
//!
//! ```text
//!  local_frame ──► edge ── hop 0 ──► owner ── hop 1 ──► other edges ──► deliver
//!                    └──── hop 2, while the owner is not heard ────────────┘
//! ```
//!
//! An edge that alone lost the owner is led to it by another, which passes frames on between the two as hop 2.
//!
//! One state machine for each worker, driven like [`crate::engine`] by datagrams, commands and the time; instances share
//! nothing. A channel lives in the worker that [`channel_worker`] names on every node, so that worker talks about it to the
//! corresponding worker of each other node.
//!
//! The owner of a channel is chosen by [`crate::ring`] among the nodes that are heard. Interest, node sets and speaker sets
//! are soft state: told at once on a change, repeated, forgotten when not repeated. So whatever was lost, and whoever has
//! died, the channel is whole again without anyone who decides. What every datagram holds is described in [`wire`].
//!
//! Nothing on a frame's way allocates once its stream and the nodes of its channel are known.

mod api;
mod channel;
mod edge;
mod frames;
mod keys;
mod limit;
mod link;
mod owner;
mod stats;
mod timers;
mod turn;
pub mod wire;

use crate::{
    clock::Micros,
    hash::IdMap,
    ids::{ChannelId, WorkerIndex},
    ring::{ChannelPlace, Ring},
    slab::{Slab, SlabKey},
    wire::frame::FrameHeader,
};
use channel::Channel;
use link::{Hearing, Leaving, Links, Outgoing, PathKey};
use timers::{Armed, Due, Timers};
use turn::{Framed, Turn, Work};
use wire::{Heartbeat, Hop, Interest, Kind, Level, Record, Records, read_audio};

pub use api::*;
pub use edge::REFRESH;
pub use link::{HEARTBEAT, HEARTBEAT_AT_LEAST};
pub use stats::{Counter, Family, RelayStats};

/// How many channels a worker takes from other nodes: more than a cluster should have.
const CHANNELS_MAX: usize = 1 << 18;
/// How many scores of a new ring are computed in a turn, so that frames wait for well under a millisecond.
pub const SCORES_PER_TURN: usize = 20_000;
/// How soon the next turn follows.
pub const NEXT_TURN: Micros = Micros(200);

/// The worker that a channel lives in on a node with so many, on every node alike.
#[must_use]
pub fn channel_worker(channel: ChannelId, workers: u16) -> WorkerIndex {
    ChannelPlace::of(channel).worker(workers)
}

/// One worker's relay.
///
/// Call [`datagram`](Self::datagram), [`local_frame`](Self::local_frame) and [`command`](Self::command) for whatever came at
/// once, then [`batch_end`](Self::batch_end); call [`timeout`](Self::timeout) when [`poll_timeout`](Self::poll_timeout)
/// says. Time must not go back. A relay is made once for each start of a node: its keys are derived from the start time.
pub struct Relay {
    channels: Slab<Channel>,
    by_channel: IdMap<ChannelId, SlabKey>,
    /// Channels that wait for the owner that the new ring gives them.
    unplaced: Vec<SlabKey>,
    ring_armed: Armed,
    /// The newest epoch that another node told of.
    newest_epoch: u64,
    work: Work,
}

impl Relay {
    /// A relay that knows no other node.
    #[must_use]
    pub fn new(config: &RelayConfig) -> Self {
        Self {
            channels: Slab::default(),
            by_channel: IdMap::default(),
            unplaced: Vec::new(),
            ring_armed: Armed::default(),
            newest_epoch: 0,
            work: Work {
                links: Links::new(&config.secret, config.worker),
                ring: Ring::default(),
                timers: Timers::default(),
                dirty: Vec::new(),
                stats: RelayStats::default(),
                numbers: Vec::new(),
            },
        }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> &RelayStats {
        &self.work.stats
    }

    /// The control plane wants something. To close what is not open is no error.
    pub fn command(&mut self, now: Micros, command: RelayCommand, out: &mut impl Output) {
        match command {
            RelayCommand::SetPeers { epoch, me, peers } => self.set_peers(now, epoch, &me, &peers),
            RelayCommand::Open { channel, max_speakers } => {
                let key = self.channel_of(channel);
                if let Some((channel, mut turn)) = self.turn(now, key, out) {
                    channel.open(&mut turn, max_speakers);
                }
            }
            RelayCommand::SetMaxSpeakers { channel, max_speakers } => {
                if let Some((channel, mut turn)) = self.known(now, channel, out) {
                    channel.set_max_speakers(&mut turn, max_speakers);
                }
            }
            RelayCommand::SetPictures { channel, wanted } => {
                if let Some((channel, mut turn)) = self.known(now, channel, out) {
                    channel.set_pictures(&mut turn, wanted);
                }
            }
            RelayCommand::Close { channel } => {
                if let Some((channel, mut turn)) = self.known(now, channel, out) {
                    channel.close(&mut turn);
                }
            }
        }
    }

    fn set_peers(&mut self, now: Micros, epoch: u64, me: &NodeInfo, peers: &[NodeInfo]) {
        self.work.links.set(now, me, peers);
        let known = self.work.links.len();
        while self.work.stats[Counter::PeersKnown] > known as u64 {
            self.work.stats.down(Counter::PeersKnown);
        }
        let more = known as u64 - self.work.stats[Counter::PeersKnown];
        self.work.stats.add(Counter::PeersKnown, more);
        let all = || std::iter::once(me).chain(peers);
        // Where everyone drains, channels must live somewhere until the members have left.
        let nobody_serves = !all().any(|node| node.serving);
        let owners = all().filter(|node| node.serving || nobody_serves);
        self.work.ring = Ring::new(epoch, owners.map(|node| (&node.id, node.number, node.capacity)));
        self.unplaced.clear();
        self.unplaced.extend(self.by_channel.values().copied());
        self.work.timers.arm(&mut self.ring_armed, now, Due::Ring);
    }

    /// A frame of a member here, checked. False when nobody is to hear it, here or elsewhere: the channel limits its
    /// speakers and others are louder. A channel that is not open is none of the relay's: everyone may be heard.
    pub fn local_frame(
        &mut self,
        now: Micros,
        channel: ChannelId,
        header: &FrameHeader,
        bytes: &[u8],
        out: &mut impl Output,
    ) -> bool {
        let Some((channel, mut turn)) = self.known(now, channel, out) else { return true };
        channel.local_frame(&mut turn, header, bytes)
    }

    /// A packet of a picture of somebody here for the nodes where it may be seen, or else a word of those who meet here for
    /// all nodes of the channel: its body is `head` and then `bytes`.
    pub fn local_record(
        &mut self,
        now: Micros,
        channel: ChannelId,
        is_picture: bool,
        (head, bytes): (&[u8], &[u8]),
        out: &mut impl Output,
    ) {
        let kind = if is_picture { Kind::Picture } else { Kind::Meeting };
        if let Some((channel, mut turn)) = self.known(now, channel, out) {
            channel.local_record(&mut turn, Framed { kind, head, bytes });
        }
    }

    /// A datagram arrived; it is opened in place.
    pub fn datagram(&mut self, now: Micros, datagram: &mut [u8], out: &mut impl Output) {
        let (opened, before) = match self.work.links.open(now, datagram) {
            Ok(opened) => opened,
            Err(reason) => return self.work.stats.count(reason),
        };
        self.work.stats.count(Counter::DatagramsReceived);
        let from = opened.from;
        if before == Hearing::Lost {
            self.heard_differently(now, from, out);
        }
        let mut records = Records::new(opened.plaintext);
        for record in records.by_ref() {
            if let Err(reason) = self.take(now, from, &record, out) {
                self.work.stats.count(reason);
            }
        }
        if !records.rest().is_empty() {
            self.work.stats.count(Counter::RecordCutOff);
        }
    }

    /// Everything that came at once has been given to the relay: what it has to send leaves.
    pub fn batch_end(&mut self, now: Micros, out: &mut impl Output) {
        while let Some(key) = self.work.dirty.pop() {
            let Some((channel, mut turn)) = self.turn(now, key, out) else { continue };
            channel.settle(&mut turn);
            self.remove_if_idle(key);
        }
        self.work.links.flush(&mut Leaving { now, stats: &mut self.work.stats, out });
    }

    /// When [`timeout`](Self::timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.work.timers.next_at()
    }

    /// Time passed: does what is due, and sends what comes of it.
    pub fn timeout(&mut self, now: Micros, out: &mut impl Output) {
        while let Some((at, due)) = self.work.timers.pop(now) {
            match due {
                Due::Path(path) => self.path_due(now, at, path, out),
                Due::Channel(key) => {
                    let Some((channel, mut turn)) = self.turn(now, key, out) else { continue };
                    if channel.armed.take(at) {
                        channel.due(&mut turn);
                        self.remove_if_idle(key);
                    }
                }
                Due::Ring => self.ring_due(now, at, out),
            }
        }
        self.batch_end(now, out);
    }

    fn take(&mut self, now: Micros, from: PathKey, record: &Record<'_>, out: &mut impl Output) -> Result<(), Counter> {
        let kind = record.kind.ok_or(Counter::RecordUnknown)?;
        let (id, body, link) = (record.channel, record.body, from.link);
        match kind {
            Kind::Audio => {
                let hop = record.hop.ok_or(Counter::RecordUnknown)?;
                let frame = read_audio(body).ok_or(Counter::RecordMalformed)?;
                self.work.stats.count(match hop {
                    Hop::ToOwner => Counter::ReceivedToOwner,
                    Hop::FromOwner => Counter::ReceivedFromOwner,
                    Hop::Direct => Counter::ReceivedDirect,
                });
                let (channel, mut turn) = self.known(now, id, out).ok_or(Counter::FrameNotOpen)?;
                channel.remote_frame(&mut turn, link, hop, (&frame.0, frame.1));
            }
            Kind::Interest => {
                let interest = Interest::read(body).ok_or(Counter::RecordMalformed)?;
                self.interest(now, id, link, &interest, out)?;
            }
            Kind::NodeSet => {
                let Some((channel, mut turn)) = self.known(now, id, out) else { return Ok(()) };
                channel.node_set(&mut turn, link, body).ok_or(Counter::RecordMalformed)?;
            }
            Kind::SpeakerSet => {
                let Some((channel, _)) = self.known(now, id, out) else { return Ok(()) };
                channel.speaker_set(now, link, body).ok_or(Counter::RecordMalformed)?;
            }
            Kind::Level => {
                let level = Level::read(body).ok_or(Counter::RecordMalformed)?;
                let Some((channel, turn)) = self.known(now, id, out) else { return Ok(()) };
                channel.level(now, turn.work, &level);
            }
            Kind::Picture | Kind::Meeting => {
                let hop = record.hop.ok_or(Counter::RecordUnknown)?;
                self.work.stats.count(if kind == Kind::Picture {
                    Counter::PicturesReceived
                } else {
                    Counter::MeetingsReceived
                });
                if let Some((channel, mut turn)) = self.known(now, id, out) {
                    channel.remote_record(&mut turn, link, hop, (kind, body));
                }
            }
            Kind::Heartbeat => {
                let heartbeat = Heartbeat::read(body).ok_or(Counter::RecordMalformed)?;
                self.heartbeat(&heartbeat, out);
            }
        }
        Ok(())
    }

    fn interest(
        &mut self,
        now: Micros,
        id: ChannelId,
        from: SlabKey,
        interest: &Interest,
        out: &mut impl Output,
    ) -> Result<(), Counter> {
        let key = match self.by_channel.get(&id) {
            Some(key) => *key,
            None if !interest.wanted => return Ok(()),
            None if self.channels.len() >= CHANNELS_MAX => return Err(Counter::RecordChannels),
            None => self.channel_of(id),
        };
        if let Some((channel, mut turn)) = self.turn(now, key, out) {
            channel.interest(&mut turn, from, interest);
        }
        Ok(())
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat, out: &mut impl Output) {
        let epoch = heartbeat.epoch;
        if epoch > self.work.ring.epoch() && epoch > self.newest_epoch {
            self.newest_epoch = epoch;
            out.event(RelayEvent::RingBehind { epoch });
        }
    }

    /// A worker of another node may have to hear of this one, or may have been silent for too long.
    fn path_due(&mut self, now: Micros, at: Micros, key: PathKey, out: &mut impl Output) {
        let Some(path) = self.work.links.path_mut(key) else { return };
        if !path.armed.take(at) {
            return;
        }
        let look = path.look(now);
        if let Some(again_at) = look.again_at {
            self.work.timers.arm(&mut path.armed, again_at.max(now + Micros(1)), Due::Path(key));
        }
        if look.heartbeat {
            let head = Heartbeat { versions: Versions::SPOKEN, epoch: self.work.ring.epoch() }.write();
            let channel = ChannelId(uuid::Uuid::nil());
            let record = Outgoing { channel, kind: (Kind::Heartbeat, Hop::ToOwner), head: &head, tail: &[] };
            self.work.links.push(key, &record, &mut Leaving { now, stats: &mut self.work.stats, out });
        }
        let (Some(worse), Some(link)) = (look.worse, self.work.links.get(key.link)) else { return };
        let (node, worker) = (link.node.number, key.worker);
        if worse == Hearing::Lost {
            self.work.stats.count(Counter::PeersLost);
            out.event(RelayEvent::PeerLost { node, worker });
            self.choose_again(now, key, out);
        } else {
            self.work.stats.count(Counter::PeersSuspected);
            out.event(RelayEvent::PeerSuspected { node, worker });
        }
    }

    /// A lost worker of another node is heard again.
    fn heard_differently(&mut self, now: Micros, key: PathKey, out: &mut impl Output) {
        let Some(link) = self.work.links.get(key.link) else { return };
        out.event(RelayEvent::PeerBack { node: link.node.number, worker: key.worker });
        self.work.stats.count(Counter::PeersBack);
        self.choose_again(now, key, out);
    }

    fn choose_again(&mut self, now: Micros, key: PathKey, out: &mut impl Output) {
        let turn = &mut Turn { now, out, work: &mut self.work };
        for channel in self.channels.values_mut() {
            if channel.concerns(key, turn.work) {
                channel.choose(turn);
            }
        }
    }

    /// Gives channels the owners of the new ring, a part of them in each turn.
    fn ring_due(&mut self, now: Micros, at: Micros, out: &mut impl Output) {
        if !self.ring_armed.take(at) {
            return;
        }
        let channels = (SCORES_PER_TURN / self.work.ring.len().max(1)).max(1);
        for _ in 0..channels {
            let Some(key) = self.unplaced.pop() else { return };
            if let Some((channel, mut turn)) = self.turn(now, key, out) {
                channel.ring_changed(&mut turn);
            }
        }
        self.work.timers.arm(&mut self.ring_armed, now + NEXT_TURN, Due::Ring);
    }

    /// The channel of an id, made if there is none.
    fn channel_of(&mut self, id: ChannelId) -> SlabKey {
        if let Some(key) = self.by_channel.get(&id) {
            return *key;
        }
        let work = &self.work;
        let key = self.channels.insert_with(|key| Channel::new(id, key, work));
        self.by_channel.insert(id, key);
        let room = self.channels.len().saturating_sub(self.work.dirty.len());
        self.work.dirty.reserve(room);
        key
    }

    fn remove_if_idle(&mut self, key: SlabKey) {
        if let Some(id) = self.channels.get(key).filter(|channel| channel.is_idle()).map(|channel| channel.about.id) {
            self.channels.remove(key);
            self.by_channel.remove(&id);
        }
    }

    fn known<'a, O: Output>(
        &'a mut self,
        now: Micros,
        id: ChannelId,
        out: &'a mut O,
    ) -> Option<(&'a mut Channel, Turn<'a, O>)> {
        let key = *self.by_channel.get(&id)?;
        self.turn(now, key, out)
    }

    fn turn<'a, O: Output>(
        &'a mut self,
        now: Micros,
        key: SlabKey,
        out: &'a mut O,
    ) -> Option<(&'a mut Channel, Turn<'a, O>)> {
        let channel = self.channels.get_mut(key)?;
        Some((channel, Turn { now, out, work: &mut self.work }))
    }
}
