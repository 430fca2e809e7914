//! How the load tester's clients travel: through an Antiphon node, or through the bare relay it is compared with.
//! All else, sockets, schedule, sweeping and counting, is the same for both.

use std::sync::Arc;

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, KeyId, StreamId},
    seal::{Direction, Key},
    wire::{
        datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, PacketType, TAG_BYTES},
        frame::{FrameHeader, Frames, write_frame},
    },
};

use super::peer::PeerWire;
use crate::voice::{DatagramDrop, OutgoingFrame, Route, Sent, VoiceOutput, VoiceSession};

/// Between attempts to make oneself known to the relay.
const RELAY_BIND_INTERVAL: Micros = Micros::from_millis(200);

/// One client's way.
pub(super) enum Wire {
    /// Through a node, by the native client's own session.
    Node(Box<VoiceSession>),
    /// Through a node by WebRTC, to hear.
    Peer(Box<PeerWire>),
    /// Through the bare relay.
    Relay(RelayWire),
}

/// What to do with a frame that was made ready.
pub(super) enum Ready {
    /// Send the first so many bytes of the datagram.
    Datagram(usize),
    /// It travels otherwise.
    Output(VoiceOutput),
}

impl Wire {
    /// Whether frames can be sent and received.
    pub(super) fn works(&self) -> bool {
        match self {
            Self::Node(voice) => voice.udp_works(),
            Self::Peer(peer) => peer.works(),
            Self::Relay(relay) => relay.bound,
        }
    }

    /// Makes a frame ready; `None` when it cannot be sent.
    pub(super) fn send(
        &mut self,
        now: Micros,
        channel: ChannelId,
        frame: &OutgoingFrame<'_>,
        datagram: &mut [u8; DATAGRAM_BYTES_MAX],
    ) -> Option<Ready> {
        match self {
            Self::Node(voice) => match voice.send(now, channel, frame, datagram).ok()? {
                Sent::Datagram(length) => Some(Ready::Datagram(length)),
                Sent::Tunnel(audio) => Some(Ready::Output(VoiceOutput::Tunnel(audio))),
            },
            Self::Peer(_) => None,
            Self::Relay(relay) => relay.seal_frame(frame, datagram).map(Ready::Datagram),
        }
    }

    /// Opens a datagram and gives the bytes of its frames to `heard`; false when it does not open.
    pub(super) fn open(&mut self, now: Micros, datagram: &mut [u8], mut heard: impl FnMut(&[u8], Route)) -> bool {
        match self {
            // One that was there before is counted by the session as such.
            Self::Node(voice) => !matches!(
                voice.datagram(now, datagram, |frame| heard(frame.bytes, frame.route)),
                Err(DatagramDrop::Malformed
                    | DatagramDrop::UnknownKey
                    | DatagramDrop::Unauthentic
                    | DatagramDrop::Unexpected)
            ),
            Self::Peer(peer) => peer.datagram(now, datagram, |bytes| heard(bytes, Route::Udp)),
            Self::Relay(relay) => relay.open(datagram, |bytes| heard(bytes, Route::Udp)),
        }
    }

    /// Does what is due and returns the next thing to send.
    pub(super) fn poll(&mut self, now: Micros) -> Option<VoiceOutput> {
        match self {
            Self::Node(voice) => {
                if voice.poll_timeout().is_some_and(|at| at <= now) {
                    voice.timeout(now);
                }
                voice.poll_output()
            }
            Self::Peer(peer) => peer.poll(now).map(VoiceOutput::Datagram),
            Self::Relay(relay) => relay.poll(now).map(VoiceOutput::Datagram),
        }
    }

    /// What names the session in datagrams to and from the node.
    pub(super) fn session(&self) -> Option<u32> {
        match self {
            Self::Node(voice) => voice.media_session().map(|session| session.0),
            Self::Peer(_) | Self::Relay(_) => None,
        }
    }

    /// Frames and datagrams that were dropped since they were there before.
    pub(super) fn duplicates(&self) -> u64 {
        match self {
            Self::Node(voice) => voice.reception_counters().duplicates + voice.udp_counters().replayed,
            Self::Peer(_) | Self::Relay(_) => 0,
        }
    }
}

/// A client of the relay. The relay forwards what it gets; so a frame is sealed with its speaker's key, which all
/// clients have, being one process.
pub(super) struct RelayWire {
    id: u32,
    /// Everyone's, by id; `None` for the bundling relay, which must read what it bundles and knows no keys.
    keys: Option<Arc<Vec<Key>>>,
    next_counter: u64,
    bind_at: Micros,
    bound: bool,
    next_sequence: u16,
}

impl RelayWire {
    pub(super) fn new(id: u32, keys: Option<Arc<Vec<Key>>>) -> Self {
        Self { id, keys, next_counter: 0, bind_at: Micros::ZERO, bound: false, next_sequence: 0 }
    }

    fn seal_frame(&mut self, frame: &OutgoingFrame<'_>, datagram: &mut [u8; DATAGRAM_BYTES_MAX]) -> Option<usize> {
        let header = FrameHeader {
            stream: StreamId(self.id),
            sequence: self.next_sequence,
            timestamp: frame.timestamp,
            kind_flags: frame.kind as u8 | frame.flags,
            level: frame.level,
        };
        self.next_sequence = self.next_sequence.wrapping_add(1);
        let room = HEADER_BYTES..DATAGRAM_BYTES_MAX - TAG_BYTES;
        let length = write_frame(&header, frame.bytes, &mut datagram[room])?;
        Some(self.seal(PacketType::Media, length, datagram))
    }

    fn seal(&mut self, packet_type: PacketType, plaintext: usize, datagram: &mut [u8]) -> usize {
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.id, counter: self.next_counter };
        self.next_counter += 1;
        if let Some(key) = self.keys.as_deref().and_then(|keys| keys.get(self.id as usize)) {
            return key.seal(Direction::ToNode, &header, datagram, plaintext);
        }
        if let Some(head) = datagram.first_chunk_mut() {
            header.write(head);
        }
        HEADER_BYTES + plaintext + TAG_BYTES
    }

    fn open(&mut self, datagram: &mut [u8], mut heard: impl FnMut(&[u8])) -> bool {
        let Ok(header) = Header::parse(datagram) else { return false };
        if header.packet_type == PacketType::BindAck {
            self.bound = true;
            return true;
        }
        let plaintext = match &self.keys {
            Some(keys) => {
                let key = keys.get(header.id as usize);
                key.and_then(|key| key.open(Direction::ToNode, &header, datagram)).map(|plaintext| &*plaintext)
            }
            None => datagram.get(HEADER_BYTES..datagram.len() - TAG_BYTES),
        };
        let Some(plaintext) = plaintext else { return false };
        Frames::new(plaintext).for_each(|(_, bytes)| heard(bytes));
        true
    }

    fn poll(&mut self, now: Micros) -> Option<Vec<u8>> {
        if self.bound || now < self.bind_at {
            return None;
        }
        self.bind_at = now + RELAY_BIND_INTERVAL;
        let mut datagram = vec![0; HEADER_BYTES + TAG_BYTES];
        self.seal(PacketType::Bind, 0, &mut datagram);
        Some(datagram)
    }
}
