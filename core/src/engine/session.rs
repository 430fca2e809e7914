//! A client's UDP session: its key, where it is, and whether UDP to it works.

use std::net::SocketAddr;

use super::{Counter, proof::Proof};
use crate::{
    clock::Micros,
    gateway::Cipher,
    ids::{ChannelId, KeyId, MediaSessionId, StreamId, WorkerIndex},
    replay::ReplayWindow,
    seal::{Direction, Key, KeyLengthError},
    wire::{
        control::{ANSWER_BYTES_MAX, Answer},
        datagram::{DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, PacketType},
    },
};

/// The longest BindAck or Pong.
pub(super) const ANSWER_DATAGRAM_BYTES_MAX: usize = DATAGRAM_BYTES_MIN + ANSWER_BYTES_MAX;
/// Reports come about every 2 s; more than two a second say nothing new.
const REPORT_INTERVAL: Micros = Micros::from_millis(500);
/// Datagrams taken in within that time: a report of more streams than one holds, 73, comes in several at once.
const REPORTS_MAX: u8 = 4;

/// One of a session's streams and where its frames go.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamRoute {
    pub(super) stream: StreamId,
    pub(super) channel: ChannelId,
    /// The channel's worker.
    pub(super) home: WorkerIndex,
}

/// An authentic datagram's contents.
pub(super) struct Opened<'a> {
    pub(super) plaintext: &'a [u8],
    /// It is newer than all before it.
    pub(super) newest: bool,
}

/// The session of one client.
pub(super) struct Session {
    pub(super) id: MediaSessionId,
    key: Key,
    replay: ReplayWindow,
    /// The counter of the next datagram to the client under the session's key: answers and the frames of its mix.
    next_counter: u64,
    /// Where the client is; `None` before its first Bind.
    pub(super) address: Option<SocketAddr>,
    pub(super) proof: Proof,
    /// The timer of the proof's end is pending.
    pub(super) proof_armed: bool,
    /// What the control plane was last told.
    pub(super) proven_told: bool,
    /// What the channels' workers were last told.
    pub(super) reach_told: Option<SocketAddr>,
    /// When they were told last.
    pub(super) reach_told_at: Micros,
    /// One of them had no room for it.
    pub(super) reach_refused: bool,
    pub(super) retell_armed: bool,
    pub(super) streams: Vec<StreamRoute>,
    /// Since when `reports` counts.
    reported_from: Option<Micros>,
    reports: u8,
}

impl Session {
    pub(super) fn new(id: MediaSessionId, cipher: Cipher, key: &[u8]) -> Result<Self, KeyLengthError> {
        Ok(Self {
            id,
            key: Key::new(cipher, key)?,
            replay: ReplayWindow::new(),
            next_counter: 0,
            address: None,
            proof: Proof::default(),
            proof_armed: false,
            proven_told: false,
            reach_told: None,
            reach_told_at: Micros::ZERO,
            reach_refused: false,
            retell_armed: false,
            streams: Vec::new(),
            reported_from: None,
            reports: 0,
        })
    }

    /// Where datagrams for the client go, while that is proven to work.
    pub(super) fn reach(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.proof.is_proven())
    }

    pub(super) fn route(&self, stream: StreamId) -> Option<StreamRoute> {
        self.streams.iter().find(|route| route.stream == stream).copied()
    }

    /// Opens a datagram. Nothing of the session changes unless it is authentic.
    pub(super) fn open<'a>(&mut self, header: &Header, datagram: &'a mut [u8]) -> Result<Opened<'a>, Counter> {
        if !self.replay.check(header.counter) {
            return Err(Counter::DroppedReplayed);
        }
        if header.key_id != KeyId::SESSION {
            return Err(Counter::DroppedNotAuthentic);
        }
        let plaintext = self.key.open(Direction::ToNode, header, datagram).ok_or(Counter::DroppedNotAuthentic)?;
        let newest = self.replay.accept(header.counter).newest;
        if self.address.is_none() && header.packet_type != PacketType::Bind {
            return Err(Counter::DroppedNotBound);
        }
        Ok(Opened { plaintext, newest })
    }

    /// Takes the source of the newest datagram as the client's address. True when that is another.
    pub(super) fn move_to(&mut self, address: SocketAddr) -> bool {
        if self.address == Some(address) {
            return false;
        }
        self.address = Some(address);
        self.proof.moved();
        true
    }

    /// Writes a BindAck or Pong to `out`; its length. Its clock, echoed, proves the way to the session's address.
    pub(super) fn answer(
        &mut self,
        now: Micros,
        packet_type: PacketType,
        client_clock: Micros,
        to: SocketAddr,
        out: &mut [u8; ANSWER_DATAGRAM_BYTES_MAX],
    ) -> usize {
        let mut plaintext = [0; ANSWER_BYTES_MAX];
        let length = Answer { client_clock, node_clock: now, address: to }.write(&mut plaintext);
        out[HEADER_BYTES..HEADER_BYTES + length].copy_from_slice(&plaintext[..length]);
        let header = Header { packet_type, key_id: KeyId::SESSION, id: self.id.0, counter: self.next_counter };
        self.next_counter += 1;
        if self.address == Some(to) {
            self.proof.issue(now);
        }
        self.key.seal(Direction::FromNode, &header, out, length)
    }

    /// Seals the `plaintext_len` bytes behind the header's place, frames of the session's mix; the length of the datagram.
    pub(super) fn seal_mix(&mut self, datagram: &mut [u8], plaintext_len: usize) -> usize {
        let (packet_type, key_id) = (PacketType::Media, KeyId::SESSION);
        let header = Header { packet_type, key_id, id: self.id.0, counter: self.next_counter };
        self.next_counter += 1;
        self.key.seal(Direction::FromNode, &header, datagram, plaintext_len)
    }

    /// Whether a datagram of a report may be taken in now.
    pub(super) fn may_report(&mut self, now: Micros) -> bool {
        if self.reported_from.is_none_or(|from| now.since(from) >= REPORT_INTERVAL) {
            (self.reported_from, self.reports) = (Some(now), 0);
        }
        let may = self.reports < REPORTS_MAX;
        self.reports += u8::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MediaSessionId = MediaSessionId(7);

    fn session() -> Session {
        Session::new(ID, Cipher::Aes128Gcm, &[3; 16]).expect("16 bytes")
    }

    fn datagram(packet_type: PacketType, counter: u64) -> (Header, [u8; DATAGRAM_BYTES_MIN + 16]) {
        let header = Header { packet_type, key_id: KeyId::SESSION, id: ID.0, counter };
        let mut bytes = [0; DATAGRAM_BYTES_MIN + 16];
        Key::new(Cipher::Aes128Gcm, &[3; 16]).expect("16 bytes").seal(Direction::ToNode, &header, &mut bytes, 16);
        (header, bytes)
    }

    fn open(session: &mut Session, packet_type: PacketType, counter: u64) -> Result<bool, Counter> {
        let (header, mut bytes) = datagram(packet_type, counter);
        session.open(&header, &mut bytes).map(|opened| opened.newest)
    }

    #[test]
    fn a_report_of_many_streams_comes_in_several_datagrams() {
        let mut session = session();
        let taken =
            |session: &mut Session, at: u64| (0..10).filter(|_| session.may_report(Micros::from_millis(at))).count();
        assert_eq!(taken(&mut session, 1_000), usize::from(REPORTS_MAX));
        assert_eq!(taken(&mut session, 1_499), 0);
        assert_eq!(taken(&mut session, 1_500), usize::from(REPORTS_MAX));
    }

    #[test]
    fn nothing_but_a_bind_is_accepted_first() {
        let mut session = session();
        assert_eq!(open(&mut session, PacketType::Media, 0), Err(Counter::DroppedNotBound));
        assert_eq!(open(&mut session, PacketType::Bind, 1), Ok(true));
        session.move_to(([127, 0, 0, 1], 1).into());
        assert_eq!(open(&mut session, PacketType::Media, 5), Ok(true));
        assert_eq!(open(&mut session, PacketType::Media, 4), Ok(false), "late");
        assert_eq!(open(&mut session, PacketType::Media, 5), Err(Counter::DroppedReplayed));
    }

    #[test]
    fn what_is_not_authentic_changes_nothing() {
        let mut session = session();
        let (header, mut bytes) = datagram(PacketType::Bind, 9);
        bytes[20] ^= 1;
        assert_eq!(session.open(&header, &mut bytes).err(), Some(Counter::DroppedNotAuthentic));
        let (mut header, mut bytes) = datagram(PacketType::Bind, 9);
        header.key_id = KeyId::FIRST;
        assert_eq!(session.open(&header, &mut bytes).err(), Some(Counter::DroppedNotAuthentic));
        assert_eq!(open(&mut session, PacketType::Bind, 0), Ok(true), "the window has not moved");
    }

    #[test]
    fn answers_to_elsewhere_prove_nothing() {
        let mut session = session();
        let (here, there) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        session.move_to(here);
        let mut out = [0; ANSWER_DATAGRAM_BYTES_MAX];
        session.answer(Micros(5), PacketType::Pong, Micros(1), there, &mut out);
        session.proof.echo(Micros(6), Micros(5));
        assert_eq!(session.reach(), None);
        session.answer(Micros(7), PacketType::Pong, Micros(1), here, &mut out);
        session.proof.echo(Micros(8), Micros(7));
        assert_eq!(session.reach(), Some(here));
    }

    #[test]
    fn answers_and_mixes_never_share_a_counter() {
        let mut session = session();
        let (mut answer, mut mix) = ([0; ANSWER_DATAGRAM_BYTES_MAX], [0; 64]);
        let mut counters = Vec::new();
        for _ in 0..3 {
            let length =
                session.answer(Micros(1), PacketType::Pong, Micros(1), ([127, 0, 0, 1], 1).into(), &mut answer);
            counters.push(Header::parse(&answer[..length]).expect("a datagram").counter);
            let length = session.seal_mix(&mut mix, 20);
            let header = Header::parse(&mix[..length]).expect("a datagram");
            assert_eq!((header.packet_type, header.key_id, header.id), (PacketType::Media, KeyId::SESSION, ID.0));
            counters.push(header.counter);
        }
        assert_eq!(counters, [0, 1, 2, 3, 4, 5]);
    }
}
