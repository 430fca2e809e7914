//! What a channel has carried since its first member came, as counters and reports tell.

use std::{sync::Arc, time::SystemTime};

use antiphon_core::{
    clock::Micros,
    engine::ChannelTraffic,
    ids::{ChannelId, StreamId},
    wire::control::ReportBlock,
};
use parking_lot::{Mutex, MutexGuard};

use super::{Rooms, measure::Work, reports::Reports};

/// A channel's counters since `since`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStats {
    /// When somebody first joined since this node started; `None` while nobody has.
    pub since: Option<SystemTime>,
    /// How often somebody joined.
    pub joins: u64,
    /// Members in voice now.
    pub current_users: u32,
    /// Members in a talk spurt now.
    pub speaking_users: u32,
    /// The sums of all increments; `jitter_us` is the latest.
    pub traffic: ChannelTraffic,
    /// The listeners' round-trip time in milliseconds, the median for each stream and the mean over streams; `None` before
    /// the first report.
    pub round_trip_ms: Option<f32>,
    /// Likewise the share of frames that listeners report lost, 0 to 1.
    pub reported_loss: Option<f32>,
}

/// A channel's counters, in whatever room it is open.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Counters>);

#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    since: Option<SystemTime>,
    joins: u64,
    pub(super) traffic: ChannelTraffic,
    pub(super) reports: Reports,
    pub(super) work: Work,
}

impl Totals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock()
    }

    pub(super) fn joined(&self, now: SystemTime) {
        let counters = &mut *self.0.lock();
        counters.joins += 1;
        counters.since.get_or_insert(now);
    }

    pub(super) fn carried(&self, more: &ChannelTraffic) {
        let traffic = &mut self.0.lock().traffic;
        traffic.frames_in += more.frames_in;
        traffic.frames_out += more.frames_out;
        traffic.bytes_in += more.bytes_in;
        traffic.bytes_out += more.bytes_out;
        traffic.frames_lost += more.frames_lost;
        traffic.jitter_us = more.jitter_us;
    }

    /// Takes in what one listener says of one speaker.
    pub(super) fn reported(&self, now: Micros, listener: StreamId, block: &ReportBlock) {
        self.0.lock().reports.take(now, listener, block);
    }
}

impl Rooms {
    /// What a channel has carried since this node started.
    pub async fn traffic(&self, channel: ChannelId) -> ChannelStats {
        let totals = self.inner.totals.get(&channel).map(|totals| Arc::clone(&totals));
        let counters = totals.map_or_else(Counters::default, |totals| totals.0.lock().clone());
        let speaking = self.room(channel).map_or(0, |room| room.live().roster.speaking());
        let reported = counters.reports.summary();
        ChannelStats {
            since: counters.since,
            joins: counters.joins,
            current_users: self.occupancy(channel).await,
            speaking_users: u32::try_from(speaking).unwrap_or(u32::MAX),
            traffic: counters.traffic,
            round_trip_ms: reported.map(|reported| reported.round_trip_ms),
            reported_loss: reported.map(|reported| reported.loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_add_up_and_jitter_is_the_latest() {
        let totals = Totals::default();
        for jitter_us in [900, 300] {
            let traffic = ChannelTraffic {
                frames_in: 50,
                frames_out: 150,
                bytes_in: 4_000,
                bytes_out: 20_000,
                frames_lost: 2,
                jitter_us,
            };
            totals.carried(&traffic);
        }
        let traffic = totals.0.lock().traffic;
        assert_eq!((traffic.frames_in, traffic.frames_out, traffic.frames_lost), (100, 300, 4));
        assert_eq!((traffic.bytes_in, traffic.bytes_out, traffic.jitter_us), (8_000, 40_000, 300));
    }
}
