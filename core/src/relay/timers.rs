//! What a relay must do later.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::link::PathKey;
use crate::{clock::Micros, slab::SlabKey};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A worker of another node may have to be told that this one lives, or may have been silent for too long.
    Path(PathKey),
    /// A channel has something to tell, or to forget.
    Channel(SlabKey),
    /// Channels wait for the owner that the new ring gives them.
    Ring,
}

/// One timer: at most one of its entries in the heap counts, the earliest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Armed(Option<Micros>);

impl Armed {
    /// Whether an entry that came due is the one that counts; it counts no longer.
    pub(super) fn take(&mut self, at: Micros) -> bool {
        self.0.take_if(|armed| *armed == at).is_some()
    }
}

/// A heap of due times. An entry that an earlier one took the place of stays until it is due and is then passed over.
/// Timers are armed when something changes and when they come due, never by a frame, so the heap stays as large as what
/// there is.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Micros, Due)>>,
}

impl Timers {
    /// Arms a timer, unless it is armed for an earlier time.
    pub(super) fn arm(&mut self, armed: &mut Armed, at: Micros, due: Due) {
        if armed.0.is_none_or(|other| at < other) {
            armed.0 = Some(at);
            self.heap.push(Reverse((at, due)));
        }
    }

    pub(super) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop(&mut self, now: Micros) -> Option<(Micros, Due)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_counts_and_the_others_are_passed_over() {
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        timers.arm(&mut armed, Micros(20), Due::Ring);
        timers.arm(&mut armed, Micros(10), Due::Ring);
        timers.arm(&mut armed, Micros(15), Due::Ring);
        assert_eq!(timers.pop(Micros(9)), None);
        let counting: Vec<_> =
            std::iter::from_fn(|| timers.pop(Micros(30))).map(|(at, _)| (at.0, armed.take(at))).collect();
        assert_eq!(counting, [(10, true), (20, false)]);
    }
}
