//! What all clients of this node together may leave unread.
//!
//! Each connection's queue is bounded, and many of them are too much for the node all the same. What is counted is the
//! memory of encoded messages, each once however many it waits for; who makes room is whoever has most unread.

use std::{cmp::Reverse, time::Duration};

use tokio::sync::Notify;

use super::{Gateway, close::CloseCause, outbox::End};
use crate::{rooms::encoded_bytes, telemetry::metrics::metrics};

/// How long nothing is looked at after room was made: what was closed gives its memory back meanwhile.
const REST: Duration = Duration::from_millis(50);

/// The bound, and who is woken when it is passed.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    exceeded: Notify,
}

impl Default for Budget {
    /// None.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, exceeded: Notify::new() }
    }

    /// Has room made if more waits than may. To be called when something was queued.
    pub(super) fn check(&self) {
        if encoded_bytes() > self.bytes_max {
            self.exceeded.notify_one();
        }
    }

    /// How much must go so that it does not overflow with the next message: an eighth is left free.
    fn excess(&self, waiting: usize) -> usize {
        if waiting <= self.bytes_max { 0 } else { waiting - (self.bytes_max - self.bytes_max / 8) }
    }
}

impl Gateway {
    /// Makes room whenever too much waits, for ever.
    pub(super) async fn keep_within_budget(self) {
        loop {
            self.inner.budget.exceeded.notified().await;
            self.close_slowest(encoded_bytes());
            tokio::time::sleep(REST).await;
        }
    }

    /// Closes those who have most unread, until enough of the bytes that wait will be gone.
    fn close_slowest(&self, waiting: usize) {
        let outboxes = self.outboxes();
        let (ending, mut open): (Vec<_>, Vec<_>) = outboxes
            .iter()
            .map(|outbox| (outbox.unread_bytes(), outbox))
            .partition(|(_, outbox)| outbox.end_in_sight().is_some());
        // What goes with those whose end is certain needs nobody else's.
        let going: usize = ending.iter().map(|(bytes, _)| bytes).sum();
        let mut excess = self.inner.budget.excess(waiting.saturating_sub(going));
        open.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        for (bytes, outbox) in open {
            if excess == 0 || bytes == 0 {
                break;
            }
            outbox.end(End::Close(CloseCause::NodeFull));
            excess = excess.saturating_sub(bytes);
        }
    }

    /// Shows how much waits. To be called every few seconds.
    pub fn show_unread(&self) {
        metrics().gateway.unread_bytes.set(encoded_bytes() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_freed_once_the_bound_is_passed() {
        let budget = Budget::new(800);
        assert_eq!([0, 700, 800, 801, 1_000].map(|waiting| budget.excess(waiting)), [0, 0, 0, 101, 300]);
        assert_eq!(Budget::default().excess(usize::MAX), 0);
    }
}
