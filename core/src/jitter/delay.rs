//! How long playing must wait: the lateness of frames, measured within their talk spurt.

use crate::{clock::Micros, interarrival::InterarrivalJitter};

use super::JitterConfig;

/// Lateness is told apart in steps of this.
const BUCKET_US: u64 = 5_000;
/// Up to half a second; what is later counts as that.
const BUCKETS: usize = 100;
/// The share of frames that shall be there when their time comes.
const ON_TIME: f32 = 0.98;
/// Each frame makes up one in so many of what is remembered: after 10 s of 20 ms frames the past counts a third.
const MEMORY_FRAMES: u32 = 500;
/// The starting value counts as so many frames.
const PRIOR_FRAMES: u32 = 10;
/// A frame that seems to be so far from its place says that the sender's sample clock has jumped.
const CLOCK_JUMP_US: u64 = 1_000_000;

/// Watches arrivals and says how long a spurt's first frame is to be held.
///
/// A frame's *transit* is its arrival by our clock less its timestamp by the sender's: meaningless by itself, but
/// the least of a spurt is the *base*, and what is above it is lateness. The base begins anew with each spurt,
/// since some senders' sample clocks stand still in silence.
#[derive(Clone, Debug)]
pub(super) struct DelayEstimator {
    target_min: Micros,
    target_max: Micros,
    /// Shares of frames by lateness, one in sum.
    histogram: [f32; BUCKETS],
    weight_frames: u32,
    base_us: Option<i64>,
    jitter: InterarrivalJitter,
    spurt: u32,
}

impl DelayEstimator {
    pub(super) fn new(config: &JitterConfig) -> Self {
        let mut histogram = [0.0; BUCKETS];
        histogram[bucket(config.delay_initial.0.saturating_sub(1))] = 1.0;
        Self {
            target_min: config.delay_min,
            target_max: config.delay_max,
            histogram,
            weight_frames: PRIOR_FRAMES,
            base_us: None,
            jitter: InterarrivalJitter::default(),
            spurt: 0,
        }
    }

    /// The next arrival is the first of a spurt.
    pub(super) fn begin_spurt(&mut self) {
        self.base_us = None;
        self.jitter.interrupt();
        self.spurt = self.spurt.wrapping_add(1);
    }

    /// Which spurt is being observed.
    pub(super) fn spurt(&self) -> u32 {
        self.spurt
    }

    /// Takes note of a frame of the current spurt.
    pub(super) fn observe(&mut self, now: Micros, timestamp: u64) {
        let transit = now.0 as i64 - samples_to_us(timestamp);
        if self.base_us.is_some_and(|base| transit.abs_diff(base) > CLOCK_JUMP_US) {
            self.begin_spurt();
        }
        self.jitter.arrived(now, timestamp as u32);
        let Some(base) = self.base_us else {
            self.base_us = Some(transit);
            return;
        };
        self.remember(transit.saturating_sub(base).max(0) as u64);
        // The least transit, and a slow drift upwards, so that a clock that runs slower than ours is followed.
        self.base_us = Some(transit.min(base + ((transit - base) >> 10)));
    }

    /// How long to hold a spurt's first frame.
    pub(super) fn target(&self) -> Micros {
        let mut share = 0.0;
        let enough = self.histogram.iter().position(|bucket| {
            share += bucket;
            share >= ON_TIME
        });
        let buckets = enough.unwrap_or(BUCKETS - 1) as u64 + 1;
        Micros(buckets * BUCKET_US).clamp(self.target_min, self.target_max)
    }

    /// How far behind the fastest possible playing a frame is when it is played now.
    pub(super) fn delay_of(&self, now: Micros, timestamp: u64) -> Option<Micros> {
        let transit = now.0 as i64 - samples_to_us(timestamp);
        Some(Micros(transit.saturating_sub(self.base_us?).max(0) as u64))
    }

    /// Interarrival jitter as reports carry it.
    pub(super) fn jitter_us(&self) -> u32 {
        self.jitter.micros()
    }

    fn remember(&mut self, lateness_us: u64) {
        self.weight_frames = (self.weight_frames + 1).min(MEMORY_FRAMES);
        let share = 1.0 / self.weight_frames as f32;
        for bucket in &mut self.histogram {
            *bucket *= 1.0 - share;
        }
        self.histogram[bucket(lateness_us)] += share;
    }
}

fn bucket(lateness_us: u64) -> usize {
    usize::try_from(lateness_us / BUCKET_US).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// 48 kHz samples in microseconds: exactly 125 / 6 each.
pub(super) const fn samples_to_us(samples: u64) -> i64 {
    (samples as i128 * 125 / 6) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus_packet::USUAL_SAMPLES;

    /// Observes `count` frames of 20 ms; `late_us` says how late each is.
    fn observe(estimator: &mut DelayEstimator, count: u64, late_us: impl Fn(u64) -> u64) {
        for number in 0..count {
            let now = Micros::from_secs(5) + Micros(number * 20_000 + late_us(number));
            estimator.observe(now, number * u64::from(USUAL_SAMPLES));
        }
    }

    fn estimator() -> DelayEstimator {
        DelayEstimator::new(&JitterConfig::default())
    }

    #[test]
    fn begins_with_the_configured_delay() {
        assert_eq!(estimator().target(), JitterConfig::default().delay_initial);
    }

    #[test]
    fn a_steady_stream_needs_the_least() {
        let mut estimator = estimator();
        observe(&mut estimator, 1_000, |_| 0);
        assert_eq!(estimator.target(), JitterConfig::default().delay_min);
        assert_eq!(estimator.jitter_us(), 0);
    }

    #[test]
    fn rare_lateness_is_borne_and_frequent_is_waited_for() {
        let mut rare = estimator();
        observe(&mut rare, 2_000, |number| if number % 100 == 0 { 90_000 } else { 0 });
        assert_eq!(rare.target(), JitterConfig::default().delay_min);
        let mut frequent = estimator();
        observe(&mut frequent, 2_000, |number| if number % 10 == 1 { 90_000 } else { 0 });
        assert_eq!(frequent.target(), Micros::from_millis(95));
    }

    #[test]
    fn the_target_stays_within_its_limits() {
        let mut estimator = estimator();
        observe(&mut estimator, 2_000, |number| if number % 2 == 1 { 900_000 } else { 0 });
        assert_eq!(estimator.target(), JitterConfig::default().delay_max);
    }

    #[test]
    fn a_clock_that_stood_still_is_no_lateness() {
        let mut estimator = estimator();
        observe(&mut estimator, 1_000, |_| 0);
        // The sample clock goes on where it was, 700 ms later.
        estimator.begin_spurt();
        observe(&mut estimator, 1_000, |_| 700_000);
        assert_eq!(estimator.target(), JitterConfig::default().delay_min);
    }

    #[test]
    fn a_jump_of_the_clock_begins_a_spurt() {
        let mut estimator = estimator();
        estimator.observe(Micros::from_secs(9), 0);
        let spurt = estimator.spurt();
        estimator.observe(Micros::from_secs(9), 48_000 * 3_600);
        assert_ne!(estimator.spurt(), spurt);
        assert_eq!(estimator.delay_of(Micros::from_secs(9), 48_000 * 3_600), Some(Micros::ZERO));
    }

    #[test]
    fn a_slower_clock_is_followed() {
        let mut estimator = estimator();
        // 200 ppm: after an hour 720 ms, which is no lateness.
        observe(&mut estimator, 180_000, |number| number * 4);
        assert!(estimator.target() <= Micros::from_millis(20), "{:?}", estimator.target());
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut estimator = estimator();
        observe(&mut estimator, 1_000, |number| (number % 2) * 8_000);
        assert!((7_500..=8_000).contains(&estimator.jitter_us()), "{}", estimator.jitter_us());
    }
}
