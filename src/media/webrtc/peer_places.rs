//! How many connections a node takes, whichever workers they are in: a room lives in one worker, and may have them all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Offers that may wait for their client even where a quarter of the places is less: a few people who come at once.
const WAITING_MIN: usize = 16;

/// The places of a node.
pub(in crate::media) struct PeerPlaces {
    most: usize,
    waiting_most: usize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// Too many wait for their clients: offers cost whoever sends them nothing, so they may not have all places.
    TooManyWait,
}

/// A place for a connection, which waits for its client until [`PeerPlace::stands`].
pub(super) struct PeerPlace {
    places: Arc<PeerPlaces>,
    waits: bool,
}

impl PeerPlaces {
    /// So many places, of which a quarter is for connections that never stood.
    pub(in crate::media) fn new(most: usize) -> Self {
        let waiting_most = most.div_ceil(4).max(WAITING_MIN);
        Self { most, waiting_most, taken: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn take(self: &Arc<Self>) -> Result<PeerPlace, NoPlace> {
        if !count_one(&self.taken, self.most) {
            return Err(NoPlace::Full);
        }
        if !count_one(&self.waiting, self.waiting_most) {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::TooManyWait);
        }
        Ok(PeerPlace { places: Arc::clone(self), waits: true })
    }
}

/// Counts one more, unless there are `most`.
fn count_one(number: &AtomicUsize, most: usize) -> bool {
    let more = |count: usize| (count < most).then_some(count + 1);
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl PeerPlace {
    /// Its connection came to stand.
    pub(super) fn stands(&mut self) {
        if std::mem::replace(&mut self.waits, false) {
            self.places.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.stands();
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_without_a_client_have_a_quarter_and_all_places_come_back() {
        let places = Arc::new(PeerPlaces::new(100));
        let take = || places.take();
        let mut held: Vec<_> = (0..25).map(|_| take().expect("a quarter")).collect();
        assert_eq!(take().err(), Some(NoPlace::TooManyWait));
        for _ in 0..3 {
            held.iter_mut().for_each(PeerPlace::stands);
            held.extend((0..25).map(|_| take().expect("those before stand")));
        }
        assert_eq!(take().err(), Some(NoPlace::Full), "full is full, whoever waits");
        held.truncate(99);
        held.iter_mut().for_each(PeerPlace::stands);
        held.push(take().expect("one is gone"));
        held.clear();
        assert_eq!((places.taken.load(Ordering::Relaxed), places.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_small_node_is_not_made_smaller() {
        let places = Arc::new(PeerPlaces::new(4));
        let held: Vec<_> = (0..4).map(|_| places.take().expect("as many as are set")).collect();
        assert_eq!(places.take().err(), Some(NoPlace::Full));
        drop(held);
    }
}
