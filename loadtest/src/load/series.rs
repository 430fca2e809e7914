//! The measured time in steps: what was delivered in each and how late it was.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Steps of one phase; a longer phase has longer ones.
const STEPS_MAX: u64 = 600;

/// The shortest step.
const STEP_NS_MIN: u64 = 1_000_000_000;

/// Latencies above a minute count as one.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What happened in one step. Frames count in the step they were sent in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When it began, since the measured time did.
    pub at_s: f64,
    /// How long it was.
    pub seconds: f64,
    /// Deliveries that should have been.
    pub expected: u64,
    /// Deliveries to those who stayed.
    pub delivered: u64,
    /// Their latency, the median.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// Joins that were answered.
    pub joins: u64,
    /// The nodes' CPU time by time, in cores, as far as it is known.
    pub cpu_cores: Option<f64>,
    /// The nodes' memory at the end, as far as it is known.
    pub memory_bytes: Option<u64>,
}

/// How long a step of a phase of that length is.
pub(super) fn step_ns(measured_ns: u64) -> u64 {
    measured_ns.div_ceil(STEPS_MAX).max(STEP_NS_MIN)
}

#[derive(Clone, Debug)]
struct Counted {
    expected: u64,
    delivered: u64,
    latency: Histogram<u32>,
}

/// All steps.
#[derive(Clone, Debug)]
pub(super) struct Series {
    window_ns: Range<u64>,
    step_ns: u64,
    steps: Vec<Counted>,
}

impl Series {
    pub(super) fn new(window_ns: Range<u64>) -> Self {
        let length_ns = window_ns.end - window_ns.start;
        let step_ns = step_ns(length_ns);
        let latency =
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("constants within the histogram's bounds");
        let steps = vec![Counted { expected: 0, delivered: 0, latency }; length_ns.div_ceil(step_ns) as usize];
        Self { window_ns, step_ns, steps }
    }

    fn step(&mut self, sent_ns: u64) -> Option<&mut Counted> {
        let place = sent_ns.checked_sub(self.window_ns.start)? / self.step_ns;
        self.steps.get_mut(usize::try_from(place).ok()?)
    }

    /// A frame was sent to so many.
    pub(super) fn sent(&mut self, sent_ns: u64, listeners: u64) {
        if let Some(step) = self.step(sent_ns) {
            step.expected += listeners;
        }
    }

    /// It was delivered to one of them.
    pub(super) fn delivered(&mut self, sent_ns: u64, latency_us: u64) {
        if let Some(step) = self.step(sent_ns) {
            step.delivered += 1;
            step.latency.saturating_record(latency_us);
        }
    }

    /// What the swarm knows of each step.
    pub(super) fn steps(&self) -> Vec<Step> {
        let length_ns = self.window_ns.end - self.window_ns.start;
        let step = |(place, step): (u64, &Counted)| {
            let at = |quantile| step.latency.value_at_quantile(quantile) as f64 / 1_000.0;
            Step {
                at_s: (place * self.step_ns) as f64 / 1e9,
                seconds: self.step_ns.min(length_ns - place * self.step_ns) as f64 / 1e9,
                expected: step.expected,
                delivered: step.delivered,
                p50_ms: at(0.5),
                p95_ms: at(0.95),
                p99_ms: at(0.99),
                ..Step::default()
            }
        };
        (0..).zip(&self.steps).map(step).collect()
    }

    /// The 99th percentile of the last whole step before `now_ns`, in µs; 0 before there is one.
    pub(super) fn latest_p99_us(&self, now_ns: u64) -> u64 {
        let place = now_ns.saturating_sub(self.window_ns.start) / self.step_ns;
        let step = place.checked_sub(1).and_then(|place| self.steps.get(usize::try_from(place).ok()?));
        step.map_or(0, |step| step.latency.value_at_quantile(0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn frames_count_in_the_second_they_were_sent_in() {
        let mut series = Series::new(10 * S..12 * S + S / 2);
        for sent_ns in [9 * S, 10 * S, 11 * S - 1, 12 * S, 13 * S] {
            series.sent(sent_ns, 3);
        }
        series.delivered(10 * S, 2_000);
        series.delivered(12 * S, 8_000);
        let steps = series.steps();
        let seen: Vec<_> = steps.iter().map(|step| (step.at_s, step.seconds, step.expected, step.delivered)).collect();
        assert_eq!(seen, [(0.0, 1.0, 6, 1), (1.0, 1.0, 0, 0), (2.0, 0.5, 3, 1)]);
        assert!((steps[0].p99_ms - 2.0).abs() < 0.05 && (steps[2].p50_ms - 8.0).abs() < 0.1);
        assert!(series.latest_p99_us(10 * S) == 0 && series.latest_p99_us(11 * S + 1).abs_diff(2_000) < 50);
    }

    #[test]
    fn a_long_phase_has_longer_steps() {
        let steps = Series::new(0..3_600 * S).steps();
        assert_eq!((steps.len(), steps[1].at_s), (600, 6.0));
    }
}
