//! What an engine must do later.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::clock::Micros;
use crate::slab::SlabKey;

/// What is due. Of each kind a session, channel or member has at most one pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A channel's bundle has waited long enough.
    Flush(SlabKey),
    /// A channel's traffic is to be told.
    Traffic(SlabKey),
    /// A member's talk spurt may have ended.
    Spurt {
        /// Of which channel.
        channel: SlabKey,
        /// Whose.
        member: SlabKey,
    },
    /// A talk spurt of another node's stream may have ended.
    RemoteSpurt {
        /// Of which channel.
        channel: SlabKey,
        /// Which stream.
        remote: SlabKey,
    },
    /// A stream of another node may not have been heard for long.
    RemoteSilent {
        /// Of which channel.
        channel: SlabKey,
        /// Which stream.
        remote: SlabKey,
    },
    /// A member's replaced UDP session has had its time.
    Replaced {
        /// Of which channel.
        channel: SlabKey,
        /// Whose.
        member: SlabKey,
    },
    /// The proof of UDP to a session may lapse.
    Proof(SlabKey),
    /// A session's reach could not be told, or was to be told later.
    Retell(SlabKey),
}

/// A heap of due times. It never allocates while no more are pending than [`Timers::reserve`] was told of.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Micros, Due)>>,
    /// How many live things may still arm a timer, armed ones included.
    reserved: usize,
}

/// A session's: its proof and the telling of it.
pub(super) const PER_SESSION: usize = 2;
/// A channel's: its bundle and its traffic.
pub(super) const PER_CHANNEL: usize = 2;
/// A member's: their talk spurt and their replaced session.
pub(super) const PER_MEMBER: usize = 2;
/// A stream of another node's: its talk spurt and its being forgotten.
pub(super) const PER_REMOTE: usize = 2;

impl Timers {
    /// Something came to life that may have `count` timers pending at a time.
    pub(super) fn reserve(&mut self, count: usize) {
        self.reserved += count;
        // Timers of what is gone stay until they are due, beside those of what lives.
        self.heap.reserve(self.reserved);
    }

    /// It is gone.
    pub(super) fn release(&mut self, count: usize) {
        self.reserved -= count;
    }

    pub(super) fn arm(&mut self, at: Micros, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub(super) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop(&mut self, now: Micros) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, due))| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    #[test]
    fn timers_come_due_in_order_and_not_before() {
        let mut slab = Slab::default();
        let (first, second) = (slab.insert(()), slab.insert(()));
        let mut timers = Timers::default();
        timers.arm(Micros(20), Due::Flush(first));
        timers.arm(Micros(10), Due::Proof(second));
        assert_eq!(timers.next_at(), Some(Micros(10)));
        assert_eq!(timers.pop(Micros(9)), None);
        assert_eq!(timers.pop(Micros(30)), Some(Due::Proof(second)));
        assert_eq!(timers.pop(Micros(30)), Some(Due::Flush(first)));
        assert_eq!(timers.pop(Micros(30)), None);
    }

    #[test]
    fn what_was_reserved_is_armed_without_growing_however_many_came_and_went() {
        let mut slab = Slab::default();
        let mut timers = Timers::default();
        for _ in 0..100 {
            timers.reserve(PER_MEMBER);
            let capacity = timers.heap.capacity();
            timers.arm(Micros(1), Due::Flush(slab.insert(())));
            timers.arm(Micros(1), Due::Flush(slab.insert(())));
            assert_eq!(timers.heap.capacity(), capacity);
            timers.release(PER_MEMBER);
        }
    }
}
