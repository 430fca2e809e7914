//! A client's voice in all its channels: numbering, the choice between UDP and gateway, and one place where frames
//! come out, whichever way they came. No socket, no clock: driven by datagrams, messages and the time.

use antiphon_core::{
    clock::Micros,
    gateway::{AudioBytes, AudioData, AudioFrame, ChannelJoined, KeyRotated, UdpSetup, VoiceSetup},
    ids::{ChannelId, MediaSessionId, StreamId},
    wire::{
        control::ReportBlock,
        datagram::DATAGRAM_BYTES_MAX,
        frame::{FrameHeader, FrameKind},
    },
};

use super::{
    reception::{Reception, ReceptionCounters},
    udp::{DatagramDrop, Opened, SetupError, UdpCounters, UdpOutput, UdpSession},
};

/// How often reception is reported (docs/protocol.md, 2.6: about every 2 s).
const REPORT_INTERVAL: Micros = Micros::from_secs(2);

/// How often to look whether a loss of the way would be heard.
const WATCH_INTERVAL: Micros = Micros::from_millis(200);

/// After the last frame either way, so long is still looked.
const WATCH_FOR: Micros = Micros::from_secs(11);

/// Whoever sent a frame this short a while ago speaks.
const SPEAKING_FOR: Micros = Micros::from_secs(1);

/// An announced spurt of another's matters for so long.
const ANNOUNCED_FOR: Micros = Micros::from_secs(2);

/// A frame to send; the session numbers it.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingFrame<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// [`FrameHeader`]'s flags.
    pub flags: u8,
    /// RFC 6464 level.
    pub level: u8,
    /// 48 kHz sample clock.
    pub timestamp: u32,
    /// One Opus packet, or nothing.
    pub bytes: &'a [u8],
}

/// How a frame is to travel.
#[derive(Debug)]
pub enum Sent {
    /// As the so many first bytes of the datagram.
    Datagram(usize),
    /// In this message over the gateway.
    Tunnel(AudioData),
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The channel was not joined, or was left.
    #[error("not in that channel's voice")]
    NotJoined,
    /// The bytes fit no datagram.
    #[error("a frame of {0} bytes fits no datagram of {DATAGRAM_BYTES_MAX}")]
    TooLong(usize),
}

/// The way a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// In a datagram.
    Udp,
    /// As `AudioData`.
    Gateway,
}

/// A frame heard for the first time.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Where.
    pub channel: ChannelId,
    /// Whose, and which.
    pub header: FrameHeader,
    /// One Opus packet, or nothing.
    pub bytes: &'a [u8],
    /// Which way it came.
    pub route: Route,
}

/// What the session wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum VoiceOutput {
    /// Send this to the node.
    Datagram(Vec<u8>),
    /// Send this over the gateway.
    Tunnel(AudioData),
    /// Whether frames go by UDP has changed.
    UdpWorks(bool),
}

/// The client's voice.
#[derive(Default)]
pub struct VoiceSession {
    channels: Vec<JoinedChannel>,
    udp: Option<UdpSession>,
    /// The one before the last channel was left: should a node give it out again, its counters must go on.
    retired: Option<UdpSession>,
    reception: Reception,
    outputs: std::collections::VecDeque<VoiceOutput>,
    report_at: Option<Micros>,
    watch_at: Option<Micros>,
    active_at: Micros,
    announced_at: Option<Micros>,
    blocks: Vec<ReportBlock>,
}

struct JoinedChannel {
    id: ChannelId,
    stream: StreamId,
    next_sequence: u16,
    timestamp: u32,
    /// The last frame but an `AudioStop`.
    spoke_at: Option<Micros>,
}

impl VoiceSession {
    /// A session in no channel.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A channel was joined.
    ///
    /// # Errors
    /// When the answer's keys are unusable; the channel is then not joined here.
    pub fn join(&mut self, now: Micros, channel: ChannelId, voice: &VoiceSetup) -> Result<(), SetupError> {
        if let Some(setup) = &voice.udp {
            self.join_udp(now, channel, setup)?;
        }
        self.note_mix(channel, voice);
        // Joined again: the stream goes on, and so do its numbers.
        if self.channels.iter().any(|known| known.id == channel && known.stream == voice.stream_id) {
            return Ok(());
        }
        self.channels.retain(|known| known.id != channel);
        self.channels.push(JoinedChannel {
            id: channel,
            stream: voice.stream_id,
            next_sequence: 0,
            timestamp: 0,
            spoke_at: None,
        });
        Ok(())
    }

    /// Notes the stream of a channel's mix, if it is heard as one.
    fn note_mix(&mut self, channel: ChannelId, voice: &VoiceSetup) {
        if let (Some(udp), Some(mix)) = (&mut self.udp, voice.mix_stream_id) {
            udp.set_mix(channel, mix);
        }
    }

    fn join_udp(&mut self, now: Micros, channel: ChannelId, setup: &UdpSetup) -> Result<(), SetupError> {
        match &mut self.udp {
            Some(udp) => udp.join(now, channel, setup),
            None => {
                self.udp = match self.retired.take().filter(|retired| retired.id() == setup.session_id) {
                    Some(mut retired) => {
                        retired.join(now, channel, setup)?;
                        Some(retired)
                    }
                    None => Some(UdpSession::new(now, channel, setup)?),
                };
                Ok(())
            }
        }
    }

    /// A channel was left.
    pub fn leave(&mut self, channel: ChannelId) {
        self.channels.retain(|known| known.id != channel);
        if let Some(udp) = &mut self.udp {
            udp.leave(channel);
        }
        if self.channels.is_empty() {
            self.retired = self.udp.take();
        }
    }

    /// The gateway session was resumed: the same channels and streams, but new keys and addresses. Sequences go on.
    ///
    /// # Errors
    /// When the keys are unusable; UDP is then not used.
    pub fn resumed(&mut self, now: Micros, channels: &[ChannelJoined]) -> Result<(), SetupError> {
        let before = self.udp.take();
        self.channels.retain(|known| channels.iter().any(|joined| joined.channel_id == known.id));
        for joined in channels {
            let Some(known) = self.channels.iter_mut().find(|known| known.id == joined.channel_id) else {
                self.join(now, joined.channel_id, &joined.voice)?;
                continue;
            };
            known.stream = joined.voice.stream_id;
            match (&mut self.udp, &joined.voice.udp) {
                (_, None) => {}
                (Some(udp), Some(setup)) => udp.join(now, joined.channel_id, setup)?,
                (udp @ None, Some(setup)) => *udp = Some(UdpSession::new(now, joined.channel_id, setup)?),
            }
            self.note_mix(joined.channel_id, &joined.voice);
        }
        if let (Some(udp), Some(before)) = (&mut self.udp, before) {
            udp.inherit(now, before);
            self.outputs.push_back(VoiceOutput::UdpWorks(false));
        }
        Ok(())
    }

    /// A group's next key was announced.
    ///
    /// # Errors
    /// When the key is unusable.
    pub fn rotate(&mut self, now: Micros, rotated: &KeyRotated) -> Result<(), SetupError> {
        self.udp.as_mut().map_or(Ok(()), |udp| udp.rotate(now, rotated))
    }

    /// Another's stream is over, or begins anew.
    pub fn forget(&mut self, stream: StreamId) {
        self.reception.forget(stream);
    }

    /// Another's spurt was announced over the gateway: a loss of the way would be heard now.
    pub fn announced(&mut self, now: Micros) {
        self.announced_at = Some(now);
        self.look_after(now);
    }

    /// The streams we send, with their channels.
    pub fn streams(&self) -> impl Iterator<Item = (ChannelId, StreamId)> {
        self.channels.iter().map(|channel| (channel.id, channel.stream))
    }

    /// The UDP session's id, when there is one.
    pub fn media_session(&self) -> Option<MediaSessionId> {
        self.udp.as_ref().map(UdpSession::id)
    }

    /// Whether frames go by UDP.
    pub fn udp_works(&self) -> bool {
        self.udp.as_ref().is_some_and(UdpSession::works)
    }

    /// The smoothed round-trip time over UDP, once known.
    pub fn round_trip(&self) -> Option<Micros> {
        self.udp.as_ref().and_then(UdpSession::round_trip)
    }

    /// The node's clock now, once known.
    pub fn node_clock(&self, now: Micros) -> Option<Micros> {
        self.udp.as_ref().and_then(|udp| udp.node_clock(now))
    }

    /// What came by UDP so far.
    pub fn udp_counters(&self) -> UdpCounters {
        self.udp.as_ref().map(UdpSession::counters).unwrap_or_default()
    }

    /// What was heard so far.
    pub fn reception_counters(&self) -> ReceptionCounters {
        self.reception.counters()
    }

    /// Numbers a frame and makes it ready to travel.
    ///
    /// # Errors
    /// When the channel is not joined or the frame is too long.
    pub fn send(
        &mut self,
        now: Micros,
        channel: ChannelId,
        frame: &OutgoingFrame<'_>,
        datagram: &mut [u8; DATAGRAM_BYTES_MAX],
    ) -> Result<Sent, SendError> {
        let joined = self.channels.iter_mut().find(|known| known.id == channel).ok_or(SendError::NotJoined)?;
        let header = joined.number(now, frame);
        self.look_after(now);
        match self.udp.as_mut().filter(|udp| udp.works()) {
            Some(udp) => {
                udp.hurry(true);
                let length = udp.seal_frame(&header, frame.bytes, datagram);
                length.map(Sent::Datagram).ok_or(SendError::TooLong(frame.bytes.len()))
            }
            None => Ok(Sent::Tunnel(tunnel(channel, &header, frame.bytes))),
        }
    }

    /// Opens a datagram in place and gives every frame that was not heard before to `heard`.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn datagram(
        &mut self,
        now: Micros,
        datagram: &mut [u8],
        mut heard: impl FnMut(Heard<'_>),
    ) -> Result<(), DatagramDrop> {
        let udp = self.udp.as_mut().ok_or(DatagramDrop::UnknownKey)?;
        let Opened::Frames(channel, frames) = udp.open(now, datagram)? else { return Ok(()) };
        for (header, bytes) in frames {
            if self.reception.heard(now, &header) {
                heard(Heard { channel, header, bytes, route: Route::Udp });
            }
        }
        self.note_heard(now);
        Ok(())
    }

    /// Gives the bytes of every frame of a datagram that never arrived to `missed`, for whoever has lost it on purpose.
    pub fn missed(&self, datagram: &mut [u8], missed: impl FnMut(&[u8])) {
        let frames = self.udp.as_ref().and_then(|udp| udp.peek(datagram));
        frames.into_iter().flatten().map(|(_, bytes)| bytes).for_each(missed);
    }

    /// A frame that came over the gateway; `None` when it was heard before.
    pub fn tunnelled<'a>(&mut self, now: Micros, frame: &'a AudioFrame) -> Option<Heard<'a>> {
        let header = FrameHeader {
            stream: frame.stream_id,
            sequence: frame.sequence,
            timestamp: frame.timestamp,
            kind_flags: frame.kind,
            level: frame.level,
        };
        let fresh = self.reception.heard(now, &header);
        self.note_heard(now);
        fresh.then_some(Heard { channel: frame.channel_id, header, bytes: &frame.data.0, route: Route::Gateway })
    }

    fn note_heard(&mut self, now: Micros) {
        self.report_at.get_or_insert(now + REPORT_INTERVAL);
        self.look_after(now);
    }

    /// Something is under way that a loss of the way would harm.
    fn look_after(&mut self, now: Micros) {
        self.active_at = now;
        if self.watch_at.is_none() {
            self.watch(now);
        }
    }

    fn watch(&mut self, now: Micros) {
        let recent = |at: Option<Micros>, span: Micros| at.is_some_and(|at| (now - at) < span);
        let speaking = self.channels.iter().any(|channel| recent(channel.spoke_at, SPEAKING_FOR));
        let hurried = speaking || recent(self.announced_at, ANNOUNCED_FOR) || self.reception.stalled(now);
        if let Some(udp) = &mut self.udp {
            udp.hurry(hurried);
        }
        let goes_on = (now - self.active_at) < WATCH_FOR;
        self.watch_at = goes_on.then_some(now + WATCH_INTERVAL);
    }

    /// When [`timeout`](Self::timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Micros> {
        let udp = self.udp.as_ref().map(UdpSession::poll_timeout);
        [udp, self.report_at, self.watch_at].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Micros) {
        if self.watch_at.is_some_and(|at| at <= now) {
            self.watch(now);
        }
        if self.report_at.is_some_and(|at| at <= now) {
            self.report(now);
        }
        if let Some(udp) = &mut self.udp {
            udp.timeout(now);
        }
    }

    fn report(&mut self, now: Micros) {
        self.blocks.clear();
        let round_trip = self.round_trip();
        self.reception.report(now, round_trip, &mut self.blocks);
        // Reports go on while there is something to tell, and begin again with the next frame.
        self.report_at = (!self.blocks.is_empty()).then_some(now + REPORT_INTERVAL);
        if let Some(udp) = self.udp.as_mut().filter(|udp| udp.works()) {
            udp.report(&self.blocks);
        }
    }

    /// What the session wants done, in order.
    pub fn poll_output(&mut self) -> Option<VoiceOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        match self.udp.as_mut()?.poll_output()? {
            UdpOutput::Datagram(datagram) => Some(VoiceOutput::Datagram(datagram)),
            UdpOutput::Restored => Some(VoiceOutput::UdpWorks(true)),
            UdpOutput::Lost => {
                // An empty frame of silence over the gateway tells the node at once that its datagrams may not arrive.
                for channel in &mut self.channels {
                    let (id, timestamp) = (channel.id, channel.timestamp);
                    let header = channel.next_header(FrameKind::Silence as u8, 127, timestamp);
                    self.outputs.push_back(VoiceOutput::Tunnel(tunnel(id, &header, &[])));
                }
                Some(VoiceOutput::UdpWorks(false))
            }
        }
    }
}

impl JoinedChannel {
    fn number(&mut self, now: Micros, frame: &OutgoingFrame<'_>) -> FrameHeader {
        self.timestamp = frame.timestamp;
        self.spoke_at = (frame.kind != FrameKind::AudioStop).then_some(now);
        self.next_header(frame.kind as u8 | frame.flags, frame.level, frame.timestamp)
    }

    fn next_header(&mut self, kind_flags: u8, level: u8, timestamp: u32) -> FrameHeader {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        FrameHeader { stream: self.stream, sequence, timestamp, kind_flags, level }
    }
}

fn tunnel(channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> AudioData {
    AudioData {
        channel_id: channel,
        data: AudioBytes(bytes.to_vec()),
        sequence: Some(header.sequence),
        timestamp: Some(header.timestamp),
        kind: Some(header.kind_flags),
        level: Some(header.level),
    }
}
