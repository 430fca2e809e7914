//! The engine of a media worker: one state machine, driven by datagrams, commands and the time.
//!
//! ```text
//!  datagram ──► session: open, replay, roam ──► frames ──► channel (or hand-over to its worker)
//!                                                           checks · speaker selection · talk spurts
//!                                                           bundle ──► seal once per cipher ──► fan_out
//!  command ──► sessions, channels, members, keys           └─► Tunnel event for members without UDP
//! ```
//!
//! A channel lives in one worker, a session too; they are usually the same. A frame is opened where its session
//! lives and sealed where its channel lives. Nothing on a frame's way allocates, but for the first of a stream of another
//! node: memory is set aside when sessions, channels and members are added.

mod api;
mod bundle;
mod channel;
mod commands;
mod group;
mod member;
mod mixing;
mod output;
mod pace;
mod proof;
mod reach;
mod receive;
mod remote;
mod sequence;
mod session;
mod speaking;
mod stats;
mod timers;
mod turn;
mod voice;

use std::net::SocketAddr;

use crate::{
    clock::Micros,
    hash::IdMap,
    ids::{ChannelId, MediaSessionId, StreamId, WorkerIndex},
    slab::{Slab, SlabKey},
    wire::frame::FrameHeader,
};
use channel::Channel;
use session::Session;
use timers::Due;
use turn::{Turn, Work};

pub use api::*;
pub use bundle::FRAME_BYTES_MAX;
pub use mixing::MixedFrame;
pub use output::Output;
pub use stats::{Counter, EngineStats, Family};

/// How an engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Which of the node's workers it is.
    pub worker: WorkerIndex,
    /// How long a frame may wait for others when several people speak in its channel; zero: no longer than its batch.
    pub hold: Micros,
    /// The longest datagram that is taken; above 1,500 bytes none is, whatever this says.
    pub datagram_bytes_max: usize,
    /// Whether there is a relay to other nodes: it takes every frame ([`Output::relay`]) and selects the speakers.
    pub relayed: bool,
}

/// One media worker's state machine.
///
/// Call [`datagram`](Self::datagram), [`command`](Self::command) and [`handover`](Self::handover) for whatever came at
/// once, then [`batch_end`](Self::batch_end); call [`timeout`](Self::timeout) when [`poll_timeout`](Self::poll_timeout)
/// says. Time must not go back.
pub struct Engine {
    worker: WorkerIndex,
    datagram_bytes_max: usize,
    sessions: Slab<Session>,
    by_session: IdMap<MediaSessionId, SlabKey>,
    channels: Slab<Channel>,
    by_channel: IdMap<ChannelId, SlabKey>,
    work: Work,
}

impl Engine {
    /// An engine without sessions and channels.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        Self {
            worker: config.worker,
            datagram_bytes_max: config.datagram_bytes_max,
            sessions: Slab::default(),
            by_session: IdMap::default(),
            channels: Slab::default(),
            by_channel: IdMap::default(),
            work: Work::new(config.hold, config.relayed),
        }
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> &EngineStats {
        &self.work.stats
    }

    /// When the first of the frames came that were sent since this was last asked; `None` when none were.
    pub fn take_oldest_sent(&mut self) -> Option<Micros> {
        self.work.oldest_sent.take()
    }

    /// A datagram arrived; it is opened in place.
    pub fn datagram(&mut self, now: Micros, from: SocketAddr, datagram: &mut [u8], out: &mut impl Output) {
        if let Err(reason) = self.take_datagram(now, from, datagram, out) {
            self.work.stats.count(reason);
        }
    }

    /// The control plane wants something.
    pub fn command(&mut self, now: Micros, command: Command, out: &mut impl Output) {
        if self.obey(now, command, out).is_none() {
            self.work.stats.count(Counter::CommandsRefused);
        }
    }

    /// Another worker's engine hands something over.
    pub fn handover(&mut self, now: Micros, handover: Handover, out: &mut impl Output) {
        match handover {
            Handover::Frame { channel, header, bytes } => self.accept(now, channel, header, bytes.as_slice(), out),
            Handover::Reach { channel, stream, session, address } => {
                let retired = self
                    .channel_turn(now, channel, out)
                    .and_then(|(channel, mut turn)| channel.set_reach(&mut turn, stream, session, address));
                self.retire(retired, out);
            }
            Handover::Mixed { session, header, bytes } => self.send_mix(session, &header, bytes.as_slice(), out),
            Handover::Unprove { session } => self.end_proof(now, session, out),
            Handover::Retire { session } => {
                self.forget_session(session);
            }
        }
    }

    /// A frame of a member by WebRTC; `header` is numbered as [`Self::next_sequence`] says.
    pub fn peer_frame(
        &mut self,
        now: Micros,
        channel: ChannelId,
        header: FrameHeader,
        bytes: &[u8],
        out: &mut impl Output,
    ) {
        self.accept(now, channel, header, bytes, out);
    }

    /// The number after the newest that is known of a member's stream; `None` for one who is not here.
    #[must_use]
    pub fn next_sequence(&self, channel: ChannelId, stream: StreamId) -> Option<u16> {
        self.channels.get(*self.by_channel.get(&channel)?)?.next_sequence(stream)
    }

    /// The relay brings a frame of a member on another node. It may bring it twice.
    pub fn remote_frame(
        &mut self,
        now: Micros,
        channel: ChannelId,
        header: &FrameHeader,
        bytes: &[u8],
        out: &mut impl Output,
    ) {
        let accepted = match self.channel_turn(now, channel, out) {
            Some((channel, mut turn)) => channel.accept_remote(&mut turn, *header, bytes),
            None => Err(Counter::FrameUnknownMember),
        };
        if let Err(reason) = accepted {
            self.work.stats.count(reason);
        }
    }

    /// Everything that came at once has been given to the engine: what need not wait leaves.
    pub fn batch_end(&mut self, now: Micros, out: &mut impl Output) {
        while let Some(key) = self.work.dirty.pop() {
            if let Some(channel) = self.channels.get_mut(key) {
                channel.settle(&mut Turn { now, out, work: &mut self.work });
            }
        }
    }

    /// When [`timeout`](Self::timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.work.timers.next_at()
    }

    /// Time passed: does what is due.
    pub fn timeout(&mut self, now: Micros, out: &mut impl Output) {
        while let Some(due) = self.work.timers.pop(now) {
            match due {
                Due::Proof(session) => self.proof_due(now, session, out),
                Due::Retell(session) => self.retell_due(now, session, out),
                Due::Flush(channel)
                | Due::Traffic(channel)
                | Due::Spurt { channel, .. }
                | Due::RemoteSpurt { channel, .. }
                | Due::RemoteSilent { channel, .. }
                | Due::Replaced { channel, .. } => {
                    self.channel_due(now, channel, due, out);
                }
            }
        }
    }

    fn channel_due(&mut self, now: Micros, channel: SlabKey, due: Due, out: &mut impl Output) {
        let Some(channel) = self.channels.get_mut(channel) else { return };
        let turn = &mut Turn { now, out, work: &mut self.work };
        match due {
            Due::Flush(_) => channel.flush_due(turn),
            Due::Traffic(_) => channel.tell_traffic(turn),
            Due::Spurt { member, .. } => channel.spurt_due(turn, member),
            Due::RemoteSpurt { remote, .. } => channel.remote_spurt_due(turn, remote),
            Due::RemoteSilent { remote, .. } => channel.remote_silent_due(turn, remote),
            Due::Replaced { member, .. } => {
                let retired = channel.replaced_due(turn, member);
                self.retire(retired, out);
            }
            Due::Proof(_) | Due::Retell(_) => {}
        }
    }

    /// A channel of this worker and what it needs for a step.
    fn channel_turn<'a, O: Output>(
        &'a mut self,
        now: Micros,
        id: ChannelId,
        out: &'a mut O,
    ) -> Option<(&'a mut Channel, Turn<'a, O>)> {
        let channel = self.channels.get_mut(*self.by_channel.get(&id)?)?;
        Some((channel, Turn { now, out, work: &mut self.work }))
    }
}
