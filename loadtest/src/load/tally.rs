//! Counts deliveries, each receiver and speaker apart, and their latencies.

use std::ops::Range;

use antiphon_core::replay::ReplayWindow;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    payload::{COMFORT, Payload},
    quality::Ear,
    series::Series,
    silence::Pair,
    swarm::Role,
};
use crate::voice::Route;

/// Latencies above a minute count as one.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Of each pair of listener and speaker so much is remembered, in words of 64 frames and one to spare: 5 s of frames,
/// and little enough that thousands of pairs fit the processor's cache.
const SEEN_WORDS: usize = 5;

/// What one receiver has of one speaker.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    window: ReplayWindow<SEEN_WORDS>,
    /// How long the last frame took; 0 before there was one.
    transit_us: u32,
    /// The smoothed difference of such times (RFC 3550, 6.4.1), times 16.
    jitter_sixteenths_us: u32,
}

impl Seen {
    /// Whether this sequence is here for the first time, as far as the last 256 tell; an older one counts as there
    /// before, so that a loss is never hidden.
    pub(super) fn first(&mut self, sequence: u32) -> bool {
        let first = self.window.check(sequence.into());
        if first {
            self.window.accept(sequence.into());
        }
        first
    }

    /// A frame took so long.
    fn took(&mut self, transit_us: u64) {
        let transit_us = u32::try_from(transit_us).unwrap_or(u32::MAX).max(1);
        let last = std::mem::replace(&mut self.transit_us, transit_us);
        if last > 0 {
            let jitter = self.jitter_sixteenths_us;
            let difference = last.abs_diff(transit_us).min(u32::MAX / 32);
            self.jitter_sixteenths_us = jitter - ((jitter + 8) >> 4) + difference;
        }
    }

    /// The jitter, once a frame was there.
    pub(super) fn jitter_us(&self) -> Option<f64> {
        (self.transit_us > 0).then(|| f64::from(self.jitter_sixteenths_us) / 16.0)
    }
}

/// Who speaks, and how much so far.
pub(super) struct Speaker {
    pub(super) slot: usize,
    pub(super) channel: usize,
    /// The speaker's number in the channel.
    pub(super) local: usize,
    pub(super) frames: u32,
    /// Of those, sent in the measured time.
    pub(super) counted: u64,
    /// Of those, lost by the run's own impairment on the way to the node.
    pub(super) lost_on_way: u64,
    /// How many who stay hear them.
    pub(super) listeners: u64,
}

/// Who heard something.
pub(super) struct Listener<'a> {
    pub(super) role: Role,
    pub(super) channel: usize,
    pub(super) seen: &'a mut [Seen],
    /// Of each speaker of the channel, where silences are watched for; else empty.
    pub(super) pairs: &'a mut [Pair],
    pub(super) ear: &'a mut Ear,
}

/// What was heard in the measured time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// When the run began. What was sent before it belongs to another, whose speakers counted from 0, too.
    begun_ns: u64,
    /// When counted frames were sent.
    pub(super) window_ns: Range<u64>,
    /// Since when silences are watched for.
    pub(super) silences_from_ns: u64,
    pub(super) delivered: u64,
    pub(super) duplicated: u64,
    /// Frames that are not what was sent, or not for this listener.
    pub(super) corrupt: u64,
    pub(super) over_gateway: u64,
    pub(super) datagrams: u64,
    /// Delivered to those who come and go.
    pub(super) to_passers: u64,
    /// Of frames that came by UDP.
    pub(super) latency: Times,
    /// Of those that came in the WebSocket.
    pub(super) tunnel_latency: Times,
    pub(super) series: Series,
}

impl Tally {
    /// Of a run that began then, and counts what is sent in that time.
    pub(super) fn new(begun_ns: u64, window_ns: Range<u64>) -> Self {
        Self {
            begun_ns,
            series: Series::new(window_ns.clone()),
            silences_from_ns: window_ns.start,
            window_ns,
            delivered: 0,
            duplicated: 0,
            corrupt: 0,
            over_gateway: 0,
            datagrams: 0,
            to_passers: 0,
            latency: Times::new(),
            tunnel_latency: Times::new(),
        }
    }

    /// Takes note of a frame that the run's own impairment has lost on its way to this listener.
    pub(super) fn lost_on_way(&self, listener: &mut Listener<'_>, bytes: &[u8], frame_bytes: usize) {
        let payload = Payload::verify(bytes, frame_bytes);
        let counted = payload.is_some_and(|payload| self.window_ns.contains(&payload.sent_ns));
        listener.ear.lost_on_way += u64::from(counted);
    }

    /// Verifies and counts a frame; true when it is one of the measured time.
    pub(super) fn heard(
        &mut self,
        listener: &mut Listener<'_>,
        speakers: &[Speaker],
        bytes: &[u8],
        frame_bytes: usize,
        arrived_ns: u64,
        route: Route,
    ) -> bool {
        // The end of a spurt, and what is heard between spurts.
        if bytes.is_empty() || bytes == COMFORT {
            return false;
        }
        let payload = Payload::verify(bytes, frame_bytes);
        let speaker = payload.and_then(|payload| speakers.get(payload.speaker as usize));
        let (Some(payload), Some(speaker)) = (payload, speaker.filter(|speaker| speaker.channel == listener.channel))
        else {
            self.corrupt += 1;
            return false;
        };
        if payload.sent_ns < self.begun_ns {
            return false;
        }
        let latency_us = arrived_ns.saturating_sub(payload.sent_ns) / 1_000;
        let seen = listener.seen.get_mut(speaker.local);
        let seen = seen.and_then(|seen| seen.first(payload.sequence).then_some(seen));
        let first = seen.is_some();
        if let Some(seen) = seen {
            seen.took(latency_us);
        }
        let counted = self.window_ns.contains(&payload.sent_ns);
        if first && let Some(pair) = listener.pairs.get_mut(speaker.local) {
            pair.heard(arrived_ns, self.silences_from_ns, counted);
        }
        if !counted {
            return false;
        }
        if !first {
            self.duplicated += 1;
            return true;
        }
        if listener.role == Role::Passes {
            self.to_passers += 1;
            return true;
        }
        self.delivered(listener.ear, &payload, latency_us, route);
        true
    }

    /// Counts a delivery to somebody who stays.
    fn delivered(&mut self, ear: &mut Ear, payload: &Payload, latency_us: u64, route: Route) {
        self.delivered += 1;
        ear.delivered += 1;
        ear.latency_us_sum += latency_us;
        self.series.delivered(payload.sent_ns, latency_us);
        match route {
            Route::Udp => self.latency.record_us(latency_us),
            Route::Gateway => {
                self.over_gateway += 1;
                self.tunnel_latency.record_us(latency_us);
            }
        }
    }
}

/// A distribution of times.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("constants within the histogram's bounds"))
    }

    pub(super) fn record_us(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Which share took at most how many ms: for a curve.
    pub(super) fn distribution(&self) -> Vec<(f64, f64)> {
        const SHARES: [f64; 22] = [
            0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99,
            0.995, 0.999, 1.0,
        ];
        if self.0.is_empty() {
            return Vec::new();
        }
        SHARES.iter().map(|&share| (self.0.value_at_quantile(share) as f64 / 1_000.0, share)).collect()
    }

    pub(super) fn summary(&self) -> TimesSummary {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        TimesSummary {
            count: self.0.len(),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: self.0.max() as f64 / 1_000.0,
        }
    }
}

/// A distribution in a few figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimesSummary {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// 95 of 100 are no longer.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_is_first_once_in_any_order() {
        let mut seen = Seen::default();
        let order = [0, 1, 5, 3, 3, 4, 2, 0, 70, 69, 7, 70];
        let first: Vec<bool> = order.iter().map(|sequence| seen.first(*sequence)).collect();
        assert_eq!(first, [true, true, true, true, false, true, true, false, true, true, true, false],);
        assert!(seen.first(2_000));
        assert!(!seen.first(71), "too old to tell");
    }

    /// A listener of one speaker, and how many frames were delivered in time.
    fn delivered(tally: &mut Tally, frames: &[(u32, u64)]) -> u64 {
        let speaker = Speaker { slot: 0, channel: 0, local: 0, frames: 0, counted: 0, lost_on_way: 0, listeners: 1 };
        let (mut seen, mut ear, mut bytes) = (vec![Seen::default()], Ear::default(), vec![0; 80]);
        for &(sequence, sent_ns) in frames {
            Payload { speaker: 0, sequence, sent_ns }.write(&mut bytes);
            let mut listener =
                Listener { role: Role::Stays, channel: 0, seen: &mut seen, pairs: &mut [], ear: &mut ear };
            tally.heard(&mut listener, std::slice::from_ref(&speaker), &bytes, 80, sent_ns + 1_000, Route::Udp);
        }
        ear.delivered
    }

    #[test]
    fn a_frame_of_the_run_before_that_comes_late_hides_none_of_this_one() {
        let mut tally = Tally::new(100, 200..2_000);
        assert_eq!(delivered(&mut tally, &[(5_000, 90), (0, 150), (1, 210), (2, 220), (2, 220)]), 2);
        assert_eq!((tally.duplicated, tally.corrupt), (1, 0));
    }

    #[test]
    fn jitter_is_how_unevenly_frames_come() {
        let mut seen = Seen::default();
        assert_eq!(seen.jitter_us(), None);
        for number in 0..1_000 {
            seen.took(if number % 2 == 0 { 1_000 } else { 5_000 });
        }
        let jitter_us = seen.jitter_us().expect("frames came");
        assert!((3_900.0..=4_000.0).contains(&jitter_us), "{jitter_us}");
    }

    #[test]
    fn summaries_are_in_milliseconds() {
        let mut times = Times::new();
        (1..=1_000).for_each(|number| times.record_us(number * 10));
        let summary = times.summary();
        assert_eq!(summary.count, 1_000);
        let close = |a: f64, b: f64| (a - b).abs() < b * 0.002;
        assert!(close(summary.p50_ms, 5.0) && close(summary.p99_ms, 9.9) && close(summary.max_ms, 10.0));
    }
}
