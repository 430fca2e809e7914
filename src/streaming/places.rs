//! How many files are sent at once, in all and to one address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use antiphon_core::gateway::ErrorCode;
use parking_lot::Mutex;

use crate::{
    error::AppError,
    telemetry::metrics::{StreamRefusal, metrics},
};

/// When to come back to a node that is busy, in seconds.
const RETRY_S: u64 = 5;

/// Who is being sent files.
#[derive(Debug)]
pub(super) struct Places {
    in_all: u32,
    per_address: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// A place among them, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(in_all: u32, per_address: u32) -> Self {
        Self { in_all, per_address, taken: Mutex::default() }
    }

    /// A place for `address`, if there is one.
    pub(super) fn take(this: &Arc<Self>, address: IpAddr) -> Result<Place, AppError> {
        let mut taken = this.taken.lock();
        let refused = |why| metrics().streaming.refused.of(why).increment(1);
        if taken.in_all >= this.in_all {
            refused(StreamRefusal::Busy);
            let message = format!("this node sends {} files at once and no more", this.in_all);
            return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S));
        }
        let own = taken.by_address.get(&address).copied().unwrap_or(0);
        if own >= this.per_address {
            refused(StreamRefusal::AddressBusy);
            let message = format!("too many files at once: at most {} are sent to one address", this.per_address);
            return Err(AppError::retry(ErrorCode::RateLimited, message, RETRY_S));
        }
        taken.in_all += 1;
        taken.by_address.insert(address, own + 1);
        drop(taken);
        metrics().streaming.streams.increment(1.0);
        Ok(Place { places: Arc::clone(this), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.in_all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
        metrics().streaming.streams.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_for_each_and_come_back() {
        let places = Arc::new(Places::new(3, 2));
        let take = |last: u8| Places::take(&places, IpAddr::from([203, 0, 113, last]));
        let first = take(1).expect("free");
        let _second = take(1).expect("free");
        assert_eq!(take(1).expect_err("its share").code, ErrorCode::RateLimited);
        let _third = take(2).expect("free");
        assert_eq!(take(3).expect_err("all").code, ErrorCode::TemporarilyUnavailable);
        drop(first);
        drop(take(1).expect("free again"));
        drop(take(3).expect("free again"));
        assert_eq!(places.taken.lock().by_address.len(), 2, "who has none is forgotten");
    }
}
