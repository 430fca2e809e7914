//! Connections that wait for company, after a write, all by one timer.
//!
//! A timer of each connection's own would be armed, and its writer woken, once more for each write. So whoever rests first
//! begins a moment for all, and at its end everyone who joined meanwhile writes what came: where much is written, each
//! connection has one write and one waking in each moment.

use std::{mem, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::outbox::Outbox;

/// How long after a write events wait for company, at most: too short to be noticed, and four of them share a write where 200
/// a second come.
const MOMENT: Duration = Duration::from_millis(20);

/// Those who rest.
#[derive(Debug, Default)]
pub(super) struct Company {
    resting: Mutex<Vec<Arc<Outbox>>>,
}

impl Company {
    /// Lets a connection rest until the moment ends that goes on now, or begins with it.
    pub(super) fn join(self: &Arc<Self>, outbox: Arc<Outbox>) {
        let is_first = {
            let mut resting = self.resting.lock();
            resting.push(outbox);
            resting.len() == 1
        };
        if is_first {
            let company = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(MOMENT).await;
                company.end_moment();
            });
        }
    }

    /// Wakes everyone who rests and has something to write. Whoever joins from now on begins the next moment.
    fn end_moment(&self) {
        let rested = mem::take(&mut *self.resting.lock());
        rested.iter().for_each(|outbox| outbox.end_rest());
    }
}
