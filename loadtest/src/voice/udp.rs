//! One UDP session with one node: keys, counters, windows and whether the way works. No socket, no clock.

use std::collections::VecDeque;

use antiphon_core::{
    clock::Micros,
    gateway::{Cipher, GroupKeySetup, KeyRotated, UdpSetup},
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId},
    replay::ReplayWindow,
    seal::{Direction, Key},
    wire::{
        control::{Answer, Bind, Ping, REPORT_BLOCK_BYTES, REQUEST_BYTES, ReportBlock},
        datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL_MAX, HEADER_BYTES, Header, PacketType, TAG_BYTES},
        frame::{FrameHeader, Frames, write_frame},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::path::{Path, PathAction};

/// How long a group's last key is kept after the next was announced (docs/protocol.md, 2.2).
const LAST_KEY_KEPT: Micros = Micros::from_secs(10);

/// Keys kept at once: a group's current and next, and as many again of each further channel.
const GROUP_KEYS_MAX: usize = 64;

/// Blocks of a Report that fit the usual datagram.
const REPORT_BLOCKS_MAX: usize = (DATAGRAM_BYTES_USUAL_MAX - HEADER_BYTES - TAG_BYTES) / REPORT_BLOCK_BYTES;

/// Why a join's answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A key is no base64 or not of its cipher's length.
    #[error("the server gave an unusable {0}")]
    Key(&'static str),
    /// The server put a second channel on another UDP session.
    #[error("the server gave the session a second UDP session id while the first is in use")]
    OtherSession,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramDrop {
    /// No datagram of this protocol.
    Malformed,
    /// For none of our keys.
    UnknownKey,
    /// Its counter was seen, or is older than the window.
    Replayed,
    /// It does not open.
    Unauthentic,
    /// Not what a node sends.
    Unexpected,
}

/// How many datagrams came and were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Authentic datagrams.
    pub received: u64,
    /// Authentic datagrams with frames.
    pub media: u64,
    /// Dropped: no datagram of this protocol, or none that a node sends.
    pub malformed: u64,
    /// Dropped: no such key.
    pub unknown_key: u64,
    /// Dropped: replayed.
    pub replayed: u64,
    /// Dropped: it did not open.
    pub unauthentic: u64,
}

/// What an authentic datagram held.
#[derive(Debug)]
pub enum Opened<'d> {
    /// Frames of a channel.
    Frames(ChannelId, Frames<'d>),
    /// An answer, which the session has dealt with.
    Answer,
}

/// What the session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpOutput {
    /// Send this to the node.
    Datagram(Vec<u8>),
    /// UDP works from now on.
    Restored,
    /// UDP no longer works: frames go over the gateway.
    Lost,
}

/// The session.
pub struct UdpSession {
    id: MediaSessionId,
    cipher: Cipher,
    key: Key,
    next_counter: u64,
    /// Of all that the node seals with the session's key: answers and mixes.
    answers: ReplayWindow,
    /// Streams of mixes and the channels that they are of.
    mixes: Vec<(StreamId, ChannelId)>,
    groups: Vec<GroupKey>,
    path: Path,
    reports: VecDeque<Vec<u8>>,
    counters: UdpCounters,
}

struct GroupKey {
    channel: ChannelId,
    group: GroupId,
    key_id: KeyId,
    key: Key,
    window: ReplayWindow,
    /// Set once the next key was announced.
    expires: Option<Micros>,
}

impl UdpSession {
    /// A session as a join's answer describes it; it binds at once.
    ///
    /// # Errors
    /// When its keys are unusable.
    pub fn new(now: Micros, channel: ChannelId, setup: &UdpSetup) -> Result<Self, SetupError> {
        let mut this = Self {
            id: setup.session_id,
            cipher: setup.cipher,
            key: decode_key(setup.cipher, &setup.session_key, "session key")?,
            next_counter: 0,
            answers: ReplayWindow::new(),
            mixes: Vec::new(),
            groups: Vec::new(),
            path: Path::new(now, Micros::from_millis(setup.ping_ms)),
            reports: VecDeque::new(),
            counters: UdpCounters::default(),
        };
        this.join(now, channel, setup)?;
        Ok(this)
    }

    /// The session's id.
    pub fn id(&self) -> MediaSessionId {
        self.id
    }

    /// Whether frames go by UDP.
    pub fn works(&self) -> bool {
        self.path.works()
    }

    /// The smoothed round-trip time, once there was an answer.
    pub fn round_trip(&self) -> Option<Micros> {
        self.path.round_trip()
    }

    /// The node's clock now, once there was an answer.
    pub fn node_clock(&self, now: Micros) -> Option<Micros> {
        self.path.node_clock(now)
    }

    /// What came so far.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// A further channel of the same session.
    ///
    /// # Errors
    /// When its keys are unusable or it names another session.
    pub fn join(&mut self, now: Micros, channel: ChannelId, setup: &UdpSetup) -> Result<(), SetupError> {
        if setup.session_id != self.id {
            return Err(SetupError::OtherSession);
        }
        self.add_key(now, channel, setup.group_id, &setup.group_key)
    }

    /// A group's next key was announced; the last one is kept for 10 s.
    ///
    /// # Errors
    /// When the key is unusable.
    pub fn rotate(&mut self, now: Micros, rotated: &KeyRotated) -> Result<(), SetupError> {
        let setup = GroupKeySetup { key_id: rotated.key_id, key: rotated.key.clone() };
        self.add_key(now, rotated.channel_id, rotated.group_id, &setup)
    }

    /// A channel was left: its keys go.
    pub fn leave(&mut self, channel: ChannelId) {
        self.groups.retain(|group| group.channel != channel);
        self.mixes.retain(|(_, known)| *known != channel);
    }

    /// A channel is heard as a mix, the stream `mix`.
    pub fn set_mix(&mut self, channel: ChannelId, mix: StreamId) {
        self.mixes.retain(|(_, known)| *known != channel);
        self.mixes.push((mix, channel));
    }

    /// Takes over the group keys of the session before a Resume, which may still seal what is on its way.
    pub fn inherit(&mut self, now: Micros, mut before: Self) {
        for mut old in before.groups.drain(..) {
            let replaced = self.groups.iter().any(|new| (new.group, new.key_id) == (old.group, old.key_id));
            if !replaced && self.groups.len() < GROUP_KEYS_MAX {
                old.expires.get_or_insert(now + LAST_KEY_KEPT);
                self.groups.push(old);
            }
        }
    }

    fn add_key(
        &mut self,
        now: Micros,
        channel: ChannelId,
        group: GroupId,
        setup: &GroupKeySetup,
    ) -> Result<(), SetupError> {
        let key = decode_key(self.cipher, &setup.key, "group key")?;
        self.groups.retain(|known| (known.group, known.key_id) != (group, setup.key_id));
        self.groups.retain(|known| known.expires.is_none_or(|expires| expires > now));
        for known in self.groups.iter_mut().filter(|known| known.channel == channel) {
            known.expires.get_or_insert(now + LAST_KEY_KEPT);
        }
        if self.groups.len() == GROUP_KEYS_MAX {
            self.groups.remove(0);
        }
        let key_id = setup.key_id;
        self.groups.push(GroupKey { channel, group, key_id, key, window: ReplayWindow::new(), expires: None });
        Ok(())
    }

    /// Whether to look after the way more often, since a loss would be heard.
    pub fn hurry(&mut self, hurried: bool) {
        self.path.hurry(hurried);
    }

    /// Seals one frame into `datagram` and returns the length, or `None` when the frame is too long for one.
    pub fn seal_frame(
        &mut self,
        header: &FrameHeader,
        bytes: &[u8],
        datagram: &mut [u8; DATAGRAM_BYTES_MAX],
    ) -> Option<usize> {
        let room = HEADER_BYTES..DATAGRAM_BYTES_MAX - TAG_BYTES;
        let length = write_frame(header, bytes, &mut datagram[room])?;
        Some(self.seal(PacketType::Media, length, datagram))
    }

    /// Seals the plaintext that lies behind the header's place.
    fn seal(&mut self, packet_type: PacketType, plaintext: usize, datagram: &mut [u8]) -> usize {
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.id.0, counter: self.next_counter };
        self.next_counter += 1;
        self.key.seal(Direction::ToNode, &header, datagram, plaintext)
    }

    fn sealed(&mut self, packet_type: PacketType, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; HEADER_BYTES + plaintext.len() + TAG_BYTES];
        datagram[HEADER_BYTES..][..plaintext.len()].copy_from_slice(plaintext);
        self.seal(packet_type, plaintext.len(), &mut datagram);
        datagram
    }

    /// Queues a report.
    pub fn report(&mut self, blocks: &[ReportBlock]) {
        for blocks in blocks.chunks(REPORT_BLOCKS_MAX) {
            let mut plaintext = Vec::with_capacity(blocks.len() * REPORT_BLOCK_BYTES);
            for block in blocks {
                let mut bytes = [0; REPORT_BLOCK_BYTES];
                block.write(&mut bytes);
                plaintext.extend(bytes);
            }
            let datagram = self.sealed(PacketType::Report, &plaintext);
            self.reports.push_back(datagram);
        }
    }

    /// Opens a datagram in place.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn open<'d>(&mut self, now: Micros, datagram: &'d mut [u8]) -> Result<Opened<'d>, DatagramDrop> {
        let opened = self.try_open(now, datagram);
        match &opened {
            Ok(Opened::Frames(..)) => {
                self.counters.received += 1;
                self.counters.media += 1;
            }
            Ok(Opened::Answer) => self.counters.received += 1,
            Err(DatagramDrop::Malformed | DatagramDrop::Unexpected) => self.counters.malformed += 1,
            Err(DatagramDrop::UnknownKey) => self.counters.unknown_key += 1,
            Err(DatagramDrop::Replayed) => self.counters.replayed += 1,
            Err(DatagramDrop::Unauthentic) => self.counters.unauthentic += 1,
        }
        opened
    }

    fn try_open<'d>(&mut self, now: Micros, datagram: &'d mut [u8]) -> Result<Opened<'d>, DatagramDrop> {
        let header = Header::parse(datagram).map_err(|_| DatagramDrop::Malformed)?;
        match header.packet_type {
            PacketType::Media => self.open_media(now, &header, datagram),
            PacketType::BindAck | PacketType::Pong => self.open_answer(now, &header, datagram),
            PacketType::Bind | PacketType::Ping | PacketType::Report => Err(DatagramDrop::Unexpected),
        }
    }

    fn open_media<'d>(
        &mut self,
        now: Micros,
        header: &Header,
        datagram: &'d mut [u8],
    ) -> Result<Opened<'d>, DatagramDrop> {
        if header.key_id == KeyId::SESSION {
            return self.open_mix(header, datagram);
        }
        let group = self
            .groups
            .iter_mut()
            .find(|known| known.key_id == header.key_id && known.group.0 == header.id)
            .filter(|known| known.expires.is_none_or(|expires| expires > now))
            .ok_or(DatagramDrop::UnknownKey)?;
        if !group.window.check(header.counter) {
            return Err(DatagramDrop::Replayed);
        }
        let plaintext = group.key.open(Direction::FromNode, header, datagram).ok_or(DatagramDrop::Unauthentic)?;
        group.window.accept(header.counter);
        Ok(Opened::Frames(group.channel, Frames::new(plaintext)))
    }

    /// Opens a datagram of a mix: its frames are of the channel that their stream says. One of a mix that we were not told of,
    /// or no longer have, is dropped.
    fn open_mix<'d>(&mut self, header: &Header, datagram: &'d mut [u8]) -> Result<Opened<'d>, DatagramDrop> {
        let plaintext = self.open_own(header, datagram)?;
        let frames = Frames::new(plaintext);
        let stream = frames.clone().next().map(|(header, _)| header.stream).ok_or(DatagramDrop::Unexpected)?;
        let mix = self.mixes.iter().find(|(mix, _)| *mix == stream);
        mix.map(|(_, channel)| Opened::Frames(*channel, frames)).ok_or(DatagramDrop::UnknownKey)
    }

    /// Opens what the node has sealed with the session's key.
    fn open_own<'d>(&mut self, header: &Header, datagram: &'d mut [u8]) -> Result<&'d mut [u8], DatagramDrop> {
        if header.id != self.id.0 || header.key_id != KeyId::SESSION {
            return Err(DatagramDrop::UnknownKey);
        }
        if !self.answers.check(header.counter) {
            return Err(DatagramDrop::Replayed);
        }
        let plaintext = self.key.open(Direction::FromNode, header, datagram).ok_or(DatagramDrop::Unauthentic)?;
        self.answers.accept(header.counter);
        Ok(plaintext)
    }

    /// The frames of a datagram that never arrived, for whoever has lost it on purpose: nothing is noted of it.
    pub fn peek<'d>(&self, datagram: &'d mut [u8]) -> Option<Frames<'d>> {
        let header = Header::parse(datagram).ok().filter(|header| header.packet_type == PacketType::Media)?;
        let of_group = |known: &&GroupKey| known.key_id == header.key_id && known.group.0 == header.id;
        let plaintext = self.groups.iter().find(of_group)?.key.open(Direction::FromNode, &header, datagram)?;
        Some(Frames::new(plaintext))
    }

    fn open_answer<'d>(
        &mut self,
        now: Micros,
        header: &Header,
        datagram: &'d mut [u8],
    ) -> Result<Opened<'d>, DatagramDrop> {
        let plaintext = self.open_own(header, datagram)?;
        let answer = Answer::parse(plaintext).ok_or(DatagramDrop::Unexpected)?;
        self.path.answer(now, answer.client_clock, answer.node_clock);
        Ok(Opened::Answer)
    }

    /// When [`timeout`](Self::timeout) has something to do next.
    pub fn poll_timeout(&self) -> Micros {
        self.path.poll_timeout()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Micros) {
        self.path.timeout(now);
    }

    /// What the session wants done, in order.
    pub fn poll_output(&mut self) -> Option<UdpOutput> {
        if let Some(report) = self.reports.pop_front() {
            return Some(UdpOutput::Datagram(report));
        }
        let mut plaintext = [0; REQUEST_BYTES];
        Some(match self.path.poll_action()? {
            PathAction::Bind { client_clock } => {
                Bind { client_clock }.write(&mut plaintext);
                UdpOutput::Datagram(self.sealed(PacketType::Bind, &plaintext))
            }
            PathAction::Ping { client_clock, node_clock } => {
                Ping { client_clock, node_clock }.write(&mut plaintext);
                UdpOutput::Datagram(self.sealed(PacketType::Ping, &plaintext))
            }
            PathAction::Restored => UdpOutput::Restored,
            PathAction::Lost => UdpOutput::Lost,
        })
    }
}

fn decode_key(cipher: Cipher, text: &str, what: &'static str) -> Result<Key, SetupError> {
    let bytes = STANDARD.decode(text).map_err(|_| SetupError::Key(what))?;
    Key::new(cipher, &bytes).map_err(|_| SetupError::Key(what))
}
