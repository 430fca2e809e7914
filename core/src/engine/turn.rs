//! What every step of an engine has at hand: the time, the output, and memory that is set aside once.

use std::net::SocketAddr;

use super::{
    ChannelTraffic, Counter, EngineStats, Event, Output, bundle,
    timers::{self, Timers},
};
use crate::{clock::Micros, slab::SlabKey, wire::datagram::DATAGRAM_BYTES_MAX};

/// An engine's own tools, used in turn by its channels and sessions.
#[derive(Debug)]
pub(super) struct Work {
    /// How long frames may wait for others.
    pub(super) hold: Micros,
    /// A relay takes every frame and selects the speakers.
    pub(super) relayed: bool,
    pub(super) timers: Timers,
    /// Channels that got frames in this batch.
    pub(super) dirty: Vec<SlabKey>,
    /// Where a datagram is put together and sealed.
    pub(super) datagram: Box<[u8; DATAGRAM_BYTES_MAX]>,
    /// Listeners whose own frames are in the bundle that is being sent: their place and key.
    pub(super) speakers: Vec<(usize, SlabKey)>,
    pub(super) stats: EngineStats,
    /// When the first of the frames came that were sent since somebody asked.
    pub(super) oldest_sent: Option<Micros>,
}

impl Work {
    pub(super) fn new(hold: Micros, relayed: bool) -> Self {
        Self {
            hold,
            relayed,
            timers: Timers::default(),
            dirty: Vec::new(),
            datagram: Box::new([0; DATAGRAM_BYTES_MAX]),
            speakers: Vec::with_capacity(bundle::FRAMES_MAX),
            stats: EngineStats::default(),
            oldest_sent: None,
        }
    }

    /// Makes room for one more of `channels` channels.
    pub(super) fn reserve_channel(&mut self, channels: usize) {
        self.timers.reserve(timers::PER_CHANNEL);
        self.dirty.reserve((channels + 1).saturating_sub(self.dirty.len()));
    }
}

/// One call into the engine.
pub(super) struct Turn<'a, O> {
    pub(super) now: Micros,
    pub(super) out: &'a mut O,
    pub(super) work: &'a mut Work,
}

impl<O: Output> Turn<'_, O> {
    /// Tells the control plane something that is told again when it has no room.
    pub(super) fn tell(&mut self, event: Event) -> bool {
        let told = self.out.event(event);
        if !told {
            self.work.stats.count(Counter::EventsDelayed);
        }
        told
    }

    /// Tells the control plane something that is dropped when it has no room.
    pub(super) fn mention(&mut self, event: Event) {
        if !self.out.event(event) {
            self.work.stats.count(Counter::EventsLost);
        }
    }

    /// Sends the datagram of `length` bytes that was put together.
    pub(super) fn fan_out(&mut self, length: usize, to: &[SocketAddr]) {
        match to {
            [] => {}
            [one] => self.out.send(*one, &self.work.datagram[..length]),
            many => self.out.fan_out(&self.work.datagram[..length], many),
        }
    }

    /// Notes that frames are sent of which the first came at `since`.
    pub(super) fn note_sent(&mut self, since: Micros) {
        self.work.oldest_sent = Some(self.work.oldest_sent.map_or(since, |oldest| oldest.min(since)));
    }

    /// Counts a datagram that was sealed and sent to `listeners`.
    pub(super) fn count_sent(&mut self, traffic: &mut ChannelTraffic, frames: usize, length: usize, listeners: usize) {
        let delivered = (frames * listeners) as u64;
        let bytes = (length * listeners) as u64;
        traffic.frames_out += delivered;
        traffic.bytes_out += bytes;
        let stats = &mut self.work.stats;
        stats.count(Counter::Sealed);
        stats.add(Counter::FramesSent, delivered);
        stats.add(Counter::of_bundle(frames), listeners as u64);
        stats.add(Counter::BytesSent, bytes);
    }
}
