//! Frames on their way to the recorder, through a bounded queue: one that finds no room is dropped and counted, and nobody
//! waits.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

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
    sleeper: Arc<Sleeper>,
}

/// Who takes the frames.
#[derive(Default)]
struct Sleeper {
    thread: OnceLock<Thread>,
    is_asleep: AtomicBool,
}

impl RecordInlet {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: Arc::new(ArrayQueue::new(FRAMES_MAX)), sleeper: Arc::default() }
    }

    /// The same for tests of what takes them.
    #[cfg(test)]
    pub(crate) fn give(&self, at: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        self.leave(at, channel, header, bytes)
    }

    /// Leaves a frame; false when there is no room.
    pub(super) fn leave(&self, at: Micros, channel: ChannelId, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some(bytes) = FrameBytes::copy_from(bytes) else { return false };
        if self.frames.push(FrameToRecord { at, channel, header: *header, bytes }).is_err() {
            return false;
        }
        // One call of the system for all that come until it is awake, and none where nothing is recorded.
        if self.sleeper.is_asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.sleeper.thread.get()
        {
            thread.unpark();
        }
        true
    }

    /// Waits until a frame comes, so long at most. For the one thread that takes them.
    pub fn wait(&self, longest: Duration) {
        self.sleeper.thread.get_or_init(thread::current);
        self.sleeper.is_asleep.store(true, Ordering::SeqCst);
        if self.frames.is_empty() {
            thread::park_timeout(longest);
        }
        self.sleeper.is_asleep.store(false, Ordering::SeqCst);
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
    fn whoever_waits_is_woken_by_a_frame() {
        let inlet = RecordInlet::new();
        let header = FrameHeader { stream: StreamId(1), sequence: 2, timestamp: 3, kind_flags: 0, level: 4 };
        let waiting = thread::spawn({
            let inlet = inlet.clone();
            move || {
                // Far longer than a test may take: only a frame ends it.
                while inlet.take().is_none() {
                    inlet.wait(Duration::from_secs(3_600));
                }
            }
        });
        while !inlet.sleeper.is_asleep.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        assert!(inlet.leave(Micros(9), ChannelId(Uuid::from_u128(7)), &header, &[1, 2]));
        waiting.join().expect("it took the frame");
    }

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
