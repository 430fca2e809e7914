//! The journal of a channel: what happened in it, in order, so that whoever was away can be told all of it or be told
//! that it is too much.
//!
//! A place in it is an epoch and an offset ([`Position`]). Offsets grow by one with each event; a new epoch means that
//! a new journal began, and that nothing can be said about places in an older one. The journal keeps the newest
//! events only, as many as it was made for.
//!
//! ```text
//!            oldest kept                 newest
//!  offset        7        8        9       10
//!  event        [e7]     [e8]     [e9]    [e10]     position() = 10
//!
//!  since(6)  = e7 e8 e9 e10      since(10) = nothing missed
//!  since(5)  = None: e6 is gone  since(11) = None: not a place of this journal yet
//! ```

use std::collections::VecDeque;

use crate::gateway::Position;

/// A bounded, ordered record of events.
#[derive(Clone, Debug)]
pub struct Journal<E> {
    epoch: String,
    /// The newest event's; zero before the first.
    offset: u64,
    /// The newest events, the last of them at `offset`.
    events: VecDeque<E>,
    /// The most events kept.
    capacity: usize,
}

impl<E> Journal<E> {
    /// An empty journal. `epoch` must differ from that of every other journal of the same channel; `capacity` is how
    /// many events are kept.
    #[must_use]
    pub const fn new(epoch: String, capacity: usize) -> Self {
        Self { epoch, offset: 0, events: VecDeque::new(), capacity }
    }

    /// The newest event's place; offset zero before the first.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch.clone(), offset: self.offset }
    }

    /// Adds the event that `make` builds for its place, and drops the oldest where there are too many.
    pub fn append(&mut self, make: impl FnOnce(Position) -> E) -> &E {
        self.offset += 1;
        if self.events.len() >= self.capacity.max(1) {
            self.events.pop_front();
        }
        self.events.push_back(make(Position { epoch: self.epoch.clone(), offset: self.offset }));
        self.events.back().expect("it was pushed just now")
    }

    /// Every event after `position`, in order, or `None` when that cannot be said: another epoch, a place that is not
    /// here yet, or one so old that an event after it is gone.
    #[must_use]
    pub fn since(&self, position: &Position) -> Option<impl ExactSizeIterator<Item = &E>> {
        if position.epoch != self.epoch {
            return None;
        }
        let missed = usize::try_from(self.offset.checked_sub(position.offset)?).ok()?;
        let first = self.events.len().checked_sub(missed)?;
        Some(self.events.range(first..))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(events: u64, capacity: usize) -> Journal<u64> {
        let mut journal = Journal::new("one".to_owned(), capacity);
        for _ in 0..events {
            journal.append(|position| position.offset);
        }
        journal
    }

    fn at(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.to_owned(), offset }
    }

    #[test]
    fn an_event_knows_its_own_place() {
        let mut journal = Journal::new("one".to_owned(), 4);
        assert_eq!(journal.position(), at("one", 0));
        assert_eq!(journal.append(|position| position).offset, 1);
        assert_eq!(journal.append(|position| position).offset, 2);
        assert_eq!(journal.position(), at("one", 2));
    }

    #[test]
    fn the_edges_of_the_ring() {
        let journal = filled(10, 4);
        let since = |position| journal.since(&position).map(|events| events.copied().collect::<Vec<_>>());
        assert_eq!(since(at("one", 10)), Some(vec![]));
        assert_eq!(since(at("one", 6)), Some(vec![7, 8, 9, 10]));
        assert_eq!(since(at("one", 5)), None, "event 6 is gone");
        assert_eq!(since(at("one", 11)), None, "not a place of this journal yet");
        assert_eq!(since(at("one", u64::MAX)), None);
        assert_eq!(since(at("two", 9)), None, "another epoch");
    }

    proptest! {
        #[test]
        fn all_missed_events_or_none(events in 0_u64..60, capacity in 1_usize..40, from in 0_u64..70) {
            let journal = filled(events, capacity);
            let expected = (from <= events && events - from <= capacity as u64)
                .then(|| (from + 1..=events).collect::<Vec<_>>());
            prop_assert_eq!(journal.since(&at("one", from)).map(|found| found.copied().collect::<Vec<_>>()), expected);
        }
    }
}
