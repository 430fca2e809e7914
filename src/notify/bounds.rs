//! How much waits and goes outside. Each way and each person have their own bounds, so that a slow way or a busy person takes no
//! others' places.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    store::{Lately, Way},
    telemetry::metrics::NotificationDrop,
};

/// Bounds of what waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Notifications that go to one person by one way in an hour.
    pub per_hour: u32,
    /// Notifications that wait for one person and way.
    pub waiting_per_person: u32,
    /// Deliveries that wait for one way, whosever they are.
    pub waiting: u32,
}

impl OutboxLimits {
    /// The bound that keeps another notification, with so many deliveries, from going a way by which so much went to the person
    /// lately, and for which so much waits.
    pub(super) fn met(self, lately: Lately, waiting: u64, deliveries: u64) -> Option<NotificationDrop> {
        if lately.in_hour >= self.per_hour.into() {
            return Some(NotificationDrop::Rate);
        }
        if lately.waiting >= self.waiting_per_person.into() {
            return Some(NotificationDrop::Person);
        }
        (waiting + deliveries > self.waiting.into()).then_some(NotificationDrop::Waiting)
    }
}

/// How many deliveries wait for each way: as many as when they were last counted, and what this node has written since. To count
/// them for each notification would cost more than to send it.
#[derive(Debug, Default)]
pub(super) struct Waiting([AtomicU64; Way::ALL.len()]);

impl Waiting {
    pub(super) fn of(&self, way: Way) -> u64 {
        self.0[way as usize].load(Ordering::Relaxed)
    }

    /// One more waits.
    pub(super) fn add(&self, way: Way) {
        self.0[way as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// They were counted.
    pub(super) fn set(&self, counted: &[(Way, u64)]) {
        for way in Way::ALL {
            let count = counted.iter().find(|(known, _)| *known == way).map_or(0, |(_, count)| *count);
            self.0[way as usize].store(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_met_by_itself() {
        let limits = OutboxLimits { per_hour: 3, waiting_per_person: 2, waiting: 10 };
        let lately = |in_hour, waiting| Lately { in_hour, waiting };
        assert_eq!(limits.met(lately(2, 1), 8, 2), None);
        assert_eq!(limits.met(lately(3, 0), 0, 1), Some(NotificationDrop::Rate));
        assert_eq!(limits.met(lately(2, 2), 0, 1), Some(NotificationDrop::Person));
        assert_eq!(limits.met(lately(0, 0), 9, 2), Some(NotificationDrop::Waiting));
    }

    #[test]
    fn one_way_fills_up_by_itself() {
        let waiting = Waiting::default();
        waiting.set(&[(Way::Sms, 7)]);
        waiting.add(Way::Sms);
        assert_eq!(Way::ALL.map(|way| waiting.of(way)), [0, 8, 0]);
        waiting.set(&[(Way::Push, 1)]);
        assert_eq!(Way::ALL.map(|way| waiting.of(way)), [0, 0, 1]);
    }
}
