//! What a channel has carried since its first member came, as counters and reports tell.

use std::{sync::Arc, time::SystemTime};

use antiphon_core::{engine::ChannelTraffic, ids::ChannelId, wire::control::ReportBlock};
use parking_lot::Mutex;

use super::Rooms;

/// How much a new report counts against what is known: about the last 32 reports decide.
const REPORT_WEIGHT: f32 = 1.0 / 32.0;

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
    /// The listeners' mean round-trip time in milliseconds; `None` before the first report.
    pub round_trip_ms: Option<f32>,
    /// The mean share of frames that listeners report lost, 0 to 1; `None` before the first report.
    pub reported_loss: Option<f32>,
}

/// A channel's counters, in whatever room it is open.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Counters>);

#[derive(Clone, Debug, Default)]
struct Counters {
    since: Option<SystemTime>,
    joins: u64,
    traffic: ChannelTraffic,
    round_trip_ms: Option<f32>,
    reported_loss: Option<f32>,
}

impl Totals {
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

    /// Takes in what one listener says of one speaker. A report about no frames at all says nothing.
    pub(super) fn reported(&self, block: &ReportBlock) {
        if block.received == 0 && block.lost_fraction == 0 {
            return;
        }
        let counters = &mut *self.0.lock();
        blend(&mut counters.round_trip_ms, f32::from(block.round_trip_ms));
        blend(&mut counters.reported_loss, f32::from(block.lost_fraction) / 65_536.0);
    }
}

fn blend(mean: &mut Option<f32>, value: f32) {
    let known = mean.unwrap_or(value);
    *mean = Some(known + (value - known) * REPORT_WEIGHT);
}

impl Rooms {
    /// What a channel has carried since this node started.
    pub async fn traffic(&self, channel: ChannelId) -> ChannelStats {
        let totals = self.inner.totals.get(&channel).map(|totals| Arc::clone(&totals));
        let counters = totals.map_or_else(Counters::default, |totals| totals.0.lock().clone());
        let speaking = self.room(channel).map_or(0, |room| room.live().roster.speaking());
        ChannelStats {
            since: counters.since,
            joins: counters.joins,
            current_users: self.occupancy(channel).await,
            speaking_users: u32::try_from(speaking).unwrap_or(u32::MAX),
            traffic: counters.traffic,
            round_trip_ms: counters.round_trip_ms,
            reported_loss: counters.reported_loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::StreamId;

    use super::*;

    fn block(round_trip_ms: u16, lost_fraction: u16, received: u32) -> ReportBlock {
        ReportBlock { stream: StreamId(1), lost_fraction, round_trip_ms, jitter_us: 0, received }
    }

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

    #[test]
    fn means_begin_with_the_first_report_and_follow_the_next() {
        let totals = Totals::default();
        totals.reported(&block(0, 0, 0));
        assert_eq!(totals.0.lock().round_trip_ms, None, "a report about nothing");
        totals.reported(&block(40, 0, 100));
        assert_eq!(totals.0.lock().round_trip_ms, Some(40.0));
        for _ in 0..300 {
            totals.reported(&block(80, 6_554, 90));
        }
        let counters = totals.0.lock();
        assert!((counters.round_trip_ms.expect("known") - 80.0).abs() < 0.1);
        assert!((counters.reported_loss.expect("known") - 0.1).abs() < 0.001);
    }
}
