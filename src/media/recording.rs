//! Frames on their way to the recorder, through a bounded queue: one that finds no room is dropped and counted, and nobody
//! waits.

use std::sync::Arc;

use antiphon_core::{clock::Micros, engine::FrameBytes, ids::ChannelId, wire::frame::FrameHeader};
use crossbeam_queue::ArrayQueue;

/// Frames that may wait for the recorder: two seconds of a disk that does not answer with forty people speaking.
const FRAMES_MAX: usize = 4_096;

/// A frame to be recorded.
pub struct FrameToRecord {
    /// When it came, by the node's clock.
    pub at: Micros,
    /// Of which channel.
    pub channel: ChannelId,
    /// Its header.
    pub header: FrameHeader,
    /// Its bytes.
    pub bytes: FrameBytes,
}

/// Where media workers leave frames for the recorder. Cheap to clone.
#[derive(Clone)]
pub struct RecordInlet {
    frames: Arc<ArrayQueue<FrameToRecord>>,
}

impl RecordInlet {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: Arc::new(ArrayQueue::new(FRAMES_MAX)) }
    }

    /// The same for tests of what takes them.
    #[cfg(test)]
    pub(crate) fn give(&self, at: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.leave(at, channel, header, bytes)
    }

    /// Leaves a frame; false when there is no room.
    pub(super) fn leave(&self, at: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some(bytes) = FrameBytes::copy_from(bytes) else { return false };
        self.frames.push(FrameToRecord { at, channel, header: *header, bytes }).is_ok()
    }

    /// The next frame.
    #[must_use]
    pub fn take(&self) -> Option<FrameToRecord> {
        self.frames.pop()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.frames.len()
    }
}

impl Default for RecordInlet {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RecordInlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordInlet({} frames wait)", self.waiting())
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::StreamId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_finds_no_room_is_refused() {
        let inlet = RecordInlet::new();
        let header = FrameHeader { stream: StreamId(1), sequence: 2, timestamp: 3, kind_flags: 0, level: 4 };
        let channel = ChannelId(Uuid::from_u128(7));
        let left = (0..FRAMES_MAX + 5).filter(|_| inlet.leave(Micros(9), channel, &header, &[1, 2])).count();
        assert_eq!((left, inlet.waiting()), (FRAMES_MAX, FRAMES_MAX));
        let taken = inlet.take().expect("a frame");
        assert_eq!(
            (taken.at, taken.channel, taken.header, taken.bytes.as_slice()),
            (Micros(9), channel, header, &[1, 2][..])
        );
    }
}
