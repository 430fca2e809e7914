//! A channel's mix for those who are no members: packet after packet without an end, silence included, several at a time.
//!
//! The mixing thread fills it as one more listener, who never speaks and so shares the others' encoder. Who reads it too
//! slowly misses the oldest; the thread waits for nobody.

use std::sync::Arc;

use antiphon_core::ids::StreamId;
use tokio::sync::broadcast;

/// Packets that are passed on together: 100 ms of them.
pub const FEED_PACKETS: usize = 5;
/// How many of these a reader may be behind, before the oldest are gone for it: 6.4 s.
const FEED_WAITING_MAX: usize = 64;
/// Opus's own packet of 20 ms of silence (CELT, full band, one channel).
pub const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// [`FEED_PACKETS`] packets of 20 ms each.
pub type FeedPart = Arc<[Vec<u8>]>;

/// What readers come from. The feed ends for them when the last clone is gone.
pub type FeedSender = broadcast::Sender<FeedPart>;

/// A feed that nobody reads yet.
#[must_use]
pub fn feed() -> FeedSender {
    broadcast::Sender::new(FEED_WAITING_MAX)
}

/// The mixing thread's end of it.
pub(super) struct Feed {
    /// By which it is known as a listener.
    pub(super) member: StreamId,
    sender: FeedSender,
    /// What the current tick brought, if anything.
    current: Option<Vec<u8>>,
    part: Vec<Vec<u8>>,
}

impl Feed {
    pub(super) fn new(member: StreamId, sender: FeedSender) -> Self {
        Self { member, sender, current: None, part: Vec::with_capacity(FEED_PACKETS) }
    }

    /// This tick's packet; an empty one is the end of a spurt.
    pub(super) fn take(&mut self, packet: &[u8]) {
        if !packet.is_empty() {
            self.current = Some(packet.to_vec());
        }
    }

    /// A tick is over: what it did not bring is silence.
    pub(super) fn ticked(&mut self) {
        let packet = self.current.take().unwrap_or_else(|| SILENCE.to_vec());
        self.part.push(packet);
        if self.part.len() >= FEED_PACKETS {
            let part: FeedPart = self.part.drain(..).collect();
            // Nobody may be reading just now.
            let _ = self.sender.send(part);
        }
    }

    /// So many ticks were left out.
    pub(super) fn skip(&mut self, ticks: u64) {
        // Of a long stop no reader keeps more than this.
        let most = (FEED_PACKETS * FEED_WAITING_MAX) as u64;
        (0..ticks.min(most)).for_each(|_| self.ticked());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tick_does_not_bring_is_silence_and_skipped_ticks_are_too() {
        let sender = feed();
        let mut reader = sender.subscribe();
        let mut feed = Feed::new(StreamId(1), sender);
        feed.take(&[1]);
        feed.ticked();
        feed.take(&[]);
        feed.ticked();
        feed.skip(2);
        assert!(reader.try_recv().is_err(), "a part is passed on when it is whole");
        feed.take(&[2]);
        feed.ticked();
        let part = reader.try_recv().expect("a part");
        assert_eq!(*part, [vec![1], SILENCE.to_vec(), SILENCE.to_vec(), SILENCE.to_vec(), vec![2]]);
    }

    #[test]
    fn who_reads_too_slowly_misses_the_oldest() {
        let sender = feed();
        let mut reader = sender.subscribe();
        let mut feed = Feed::new(StreamId(1), sender);
        (0..(FEED_WAITING_MAX + 3) * FEED_PACKETS).for_each(|_| feed.ticked());
        assert!(matches!(reader.try_recv(), Err(broadcast::error::TryRecvError::Lagged(3))));
        assert_eq!(reader.len(), FEED_WAITING_MAX);
    }
}
