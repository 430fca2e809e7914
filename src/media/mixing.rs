//! Frames on their way to the mixer, and what it made on its way back. Both go through bounded queues: a frame that finds no
//! room is dropped and counted, and nobody waits.

use std::sync::Arc;

use antiphon_core::{
    clock::Micros,
    engine::FrameBytes,
    ids::{ChannelId, WorkerIndex},
    mix::{MIX_BYTES_MAX, MixTo, TOGETHER_MAX},
    relay,
    wire::frame::FrameHeader,
};
use crossbeam_queue::ArrayQueue;

/// Frames that may wait for one mixing thread: 20 ms, between two of its ticks, of a thousand speakers.
const FRAMES_MAX: usize = 1_024;

/// A frame for a mix.
pub struct FrameForMix {
    /// When it came, by the node's clock.
    pub at: Micros,
    /// Of which channel.
    pub channel: ChannelId,
    /// Its header.
    pub header: FrameHeader,
    /// Its bytes.
    pub bytes: FrameBytes,
}

/// Where media workers leave frames for the mixing threads: a queue for each thread. Cheap to clone.
#[derive(Clone)]
pub struct MixInlets {
    inlets: Arc<[ArrayQueue<FrameForMix>]>,
}

impl MixInlets {
    /// Queues for so many threads, at least one.
    #[must_use]
    pub fn new(threads: u16) -> Self {
        Self { inlets: (0..threads.max(1)).map(|_| ArrayQueue::new(FRAMES_MAX)).collect() }
    }

    /// How many threads they are for.
    #[must_use]
    pub fn threads(&self) -> u16 {
        u16::try_from(self.inlets.len()).unwrap_or(u16::MAX)
    }

    /// The thread that mixes a channel.
    #[must_use]
    pub fn thread_of(&self, channel: ChannelId) -> usize {
        usize::from(relay::channel_worker(channel, self.threads()).0)
    }

    /// Leaves a frame for its channel's thread; false when there is no room.
    pub(super) fn leave(&self, now: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some(bytes) = FrameBytes::copy_from(bytes) else { return false };
        let frame = FrameForMix { at: now, channel, header: *header, bytes };
        self.inlets[self.thread_of(channel)].push(frame).is_ok()
    }

    /// The next frame for a thread.
    #[must_use]
    pub fn take(&self, thread: usize) -> Option<FrameForMix> {
        self.inlets.get(thread)?.pop()
    }

    /// How many wait for a thread.
    #[must_use]
    pub fn waiting(&self, thread: usize) -> usize {
        self.inlets.get(thread).map_or(0, ArrayQueue::len)
    }
}

impl std::fmt::Debug for MixInlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MixInlets({} threads)", self.inlets.len())
    }
}

/// A packet of a mix for up to [`TOGETHER_MAX`] members of a channel, on its way to the channel's worker.
pub struct MixedPacket {
    channel: ChannelId,
    timestamp: u32,
    level: u8,
    count: u8,
    to: [MixTo; TOGETHER_MAX],
    length: u16,
    bytes: [u8; MIX_BYTES_MAX],
}

impl MixedPacket {
    /// Copies both lists; what is beyond their capacity is left out.
    #[must_use]
    pub fn new(channel: ChannelId, to: &[MixTo], timestamp: u32, level: u8, bytes: &[u8]) -> Self {
        let (count, length) = (to.len().min(TOGETHER_MAX), bytes.len().min(MIX_BYTES_MAX));
        let mut packet = Self {
            channel,
            timestamp,
            level,
            count: count as u8,
            to: [MixTo::NOBODY; TOGETHER_MAX],
            length: length as u16,
            bytes: [0; MIX_BYTES_MAX],
        };
        packet.to[..count].copy_from_slice(&to[..count]);
        packet.bytes[..length].copy_from_slice(&bytes[..length]);
        packet
    }

    /// As the engine takes it.
    pub(super) fn frame(&self) -> antiphon_core::engine::MixedFrame<'_> {
        antiphon_core::engine::MixedFrame {
            channel: self.channel,
            to: &self.to[..usize::from(self.count)],
            timestamp: self.timestamp,
            level: self.level,
            bytes: &self.bytes[..usize::from(self.length)],
        }
    }
}

impl super::Media {
    /// Gives a channel's worker a packet of its mix; false when its queue is full: the packet is dropped.
    #[must_use]
    pub fn try_mixed(&self, worker: WorkerIndex, packet: MixedPacket) -> bool {
        self.inner.inboxes.get(usize::from(worker.0)).is_some_and(|inbox| inbox.leave_mixed(packet))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::{ids::StreamId, wire::frame::FrameKind};
    use uuid::Uuid;

    use super::*;

    fn header() -> FrameHeader {
        FrameHeader { stream: StreamId(1), sequence: 2, timestamp: 3, kind_flags: 0, level: 4 }
    }

    #[test]
    fn a_channel_has_one_thread_and_what_finds_no_room_is_refused() {
        let inlets = MixInlets::new(3);
        let channel = ChannelId(Uuid::from_u128(7));
        let thread = inlets.thread_of(channel);
        let left = (0..FRAMES_MAX + 5).filter(|_| inlets.leave(Micros(9), channel, &header(), &[1, 2])).count();
        assert_eq!((left, inlets.waiting(thread)), (FRAMES_MAX, FRAMES_MAX));
        let taken = inlets.take(thread).expect("a frame");
        assert_eq!(
            (taken.at, taken.channel, taken.header, taken.bytes.as_slice()),
            (Micros(9), channel, header(), &[1, 2][..])
        );
        for other in (0..3).filter(|other| *other != thread) {
            assert!(inlets.take(other).is_none());
        }
        let threads: std::collections::HashSet<usize> =
            (0..100).map(|channel| inlets.thread_of(ChannelId(Uuid::from_u128(channel << 64 | channel)))).collect();
        assert_eq!(threads.len(), 3, "channels are spread");
    }

    #[test]
    fn a_packet_holds_what_it_was_made_of() {
        let to = MixTo { member: StreamId(1), mix: StreamId(2), sequence: 3, kind: FrameKind::Audio };
        let packet = MixedPacket::new(ChannelId(Uuid::nil()), &[to; TOGETHER_MAX], 960, 20, &[7; MIX_BYTES_MAX]);
        let frame = packet.frame();
        assert_eq!((frame.to, frame.timestamp, frame.level), (&[to; TOGETHER_MAX][..], 960, 20));
        assert_eq!(frame.bytes, [7; MIX_BYTES_MAX]);
        let empty = MixedPacket::new(ChannelId(Uuid::nil()), &[to], 960, 127, &[]);
        assert_eq!((empty.frame().to.len(), empty.frame().bytes.len()), (1, 0));
    }
}
