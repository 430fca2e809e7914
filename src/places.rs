//! How much goes on at once, in all and for each of those whom it is for.

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::telemetry::family::Gauge;

/// How many places there are, and who has them.
pub(crate) struct Places<K> {
    in_all: u32,
    for_each: u32,
    taken: Mutex<Taken<K>>,
    /// Shows how many are taken, where that is to be seen.
    gauge: Option<&'static Gauge>,
}

struct Taken<K> {
    in_all: u32,
    by_key: HashMap<K, u32>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// So many are taken, and there are no more.
    InAll(u32),
    /// Whoever asks has so many, and may have no more.
    ForEach(u32),
}

/// A place among those whom something goes on for, until it is dropped.
pub struct Place<K: Copy + Eq + Hash = IpAddr> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Copy + Eq + Hash> Places<K> {
    pub(crate) fn new(in_all: u32, for_each: u32, gauge: &'static Gauge) -> Self {
        Self { gauge: Some(gauge), ..Self::unseen(in_all, for_each) }
    }

    /// Places whose number is not shown.
    pub(crate) fn unseen(in_all: u32, for_each: u32) -> Self {
        let taken = Mutex::new(Taken { in_all: 0, by_key: HashMap::new() });
        Self { in_all, for_each, taken, gauge: None }
    }

    /// A place for `key`, if there is one.
    pub(crate) fn take(this: &Arc<Self>, key: K) -> Result<Place<K>, NoPlace> {
        let mut taken = this.taken.lock();
        if taken.in_all >= this.in_all {
            return Err(NoPlace::InAll(this.in_all));
        }
        let own = taken.by_key.get(&key).copied().unwrap_or(0);
        if own >= this.for_each {
            return Err(NoPlace::ForEach(this.for_each));
        }
        taken.in_all += 1;
        taken.by_key.insert(key, own + 1);
        if let Some(gauge) = this.gauge {
            gauge.increment(1.0);
        }
        drop(taken);
        Ok(Place { places: Arc::clone(this), key })
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.in_all -= 1;
        if let Some(own) = taken.by_key.get_mut(&self.key) {
            *own -= 1;
            if *own == 0 {
                taken.by_key.remove(&self.key);
            }
        }
        if let Some(gauge) = self.places.gauge {
            gauge.decrement(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::metrics;

    #[test]
    fn places_are_bounded_in_all_and_for_each_and_come_back() {
        let places = Arc::new(Places::new(3, 2, &metrics().streaming.streams));
        let take = |last: u8| Places::take(&places, IpAddr::from([203, 0, 113, last]));
        let first = take(1).expect("free");
        let _second = take(1).expect("free");
        assert_eq!(take(1).err(), Some(NoPlace::ForEach(2)));
        let _third = take(2).expect("free");
        assert_eq!(take(3).err(), Some(NoPlace::InAll(3)));
        drop(first);
        drop(take(1).expect("free again"));
        drop(take(3).expect("free again"));
        assert_eq!(places.taken.lock().by_key.len(), 2, "who has none is forgotten");
    }
}
