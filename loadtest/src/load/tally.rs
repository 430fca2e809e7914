//! Counts deliveries, each receiver and speaker apart, and their latencies.

use std::ops::Range;

use antiphon_core::replay::ReplayWindow;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{payload::Payload, silence::Pair, swarm::Role};
use crate::voice::Route;

/// Latencies above a minute count as one.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Of each pair of listener and speaker so much is remembered, in words of 64 frames and one to spare: 5 s of frames,
/// and little enough that thousands of pairs fit the processor's cache.
const SEEN_WORDS: usize = 5;

/// What one receiver has of one speaker.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(ReplayWindow<SEEN_WORDS>);

impl Seen {
    /// Whether this sequence is here for the first time, as far as the last 256 tell; an older one counts as there
    /// before, so that a loss is never hidden.
    pub(super) fn first(&mut self, sequence: u32) -> bool {
        let first = self.0.check(sequence.into());
        if first {
            self.0.accept(sequence.into());
        }
        first
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
}

/// Who heard something.
pub(super) struct Listener<'a> {
    pub(super) role: Role,
    pub(super) channel: usize,
    pub(super) seen: &'a mut [Seen],
    /// Of each speaker of the channel, where silences are watched for; else empty.
    pub(super) pairs: &'a mut [Pair],
}

/// What was heard in the measured time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
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
    pub(super) latency: Times,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            window_ns: 0..0,
            silences_from_ns: 0,
            delivered: 0,
            duplicated: 0,
            corrupt: 0,
            over_gateway: 0,
            datagrams: 0,
            to_passers: 0,
            latency: Times::new(),
        }
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
        // The end of a spurt.
        if bytes.is_empty() {
            return false;
        }
        let payload = Payload::verify(bytes, frame_bytes);
        let speaker = payload.and_then(|payload| speakers.get(payload.speaker as usize));
        let (Some(payload), Some(speaker)) = (payload, speaker.filter(|speaker| speaker.channel == listener.channel))
        else {
            self.corrupt += 1;
            return false;
        };
        let first = listener.seen.get_mut(speaker.local).is_some_and(|seen| seen.first(payload.sequence));
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
        self.delivered += 1;
        self.over_gateway += u64::from(route == Route::Gateway);
        self.latency.record_us(arrived_ns.saturating_sub(payload.sent_ns) / 1_000);
        true
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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
