//! Where in a speaker's track a frame belongs: by the speaker's own clock within what they say, which is exact, and by the
//! node's from one thing said to the next, so that neither drift nor a clock that was set leads away from the truth.

use antiphon_core::clock::Micros;

/// A frame that is so much later than its timestamp says, in samples at 48 kHz, belongs where it came: the speaker's clock
/// stood still or was set.
const LATE_MAX: i64 = 24_000;

/// The same for the first frame of something said, when speakers that count frames instead of time go on where they were.
const LATE_AT_BEGIN_MAX: i64 = 9_600;

/// Frames cannot come before they are said: one that is so much earlier, in samples, has another clock.
const EARLY_MAX: i64 = 24_000;

/// A hole of so many samples ends something said.
pub(super) const HOLE_SAMPLES: i64 = 9_600;

/// After so many frames the quickest of them is taken for one that did not wait anywhere.
const FRAMES_TO_JUDGE: u32 = 25;

/// Somebody who never pauses is looked at every so many frames.
const FRAMES_WITHOUT_PAUSE: u32 = 500;

/// Drift that is not worth a correction in a pause, and that is worth a hole where there is none, in samples.
const DRIFT_MIN: i64 = 120;
const DRIFT_MAX: i64 = 960;

/// Where frames of one track belong.
#[derive(Debug)]
pub(super) struct Placing {
    /// When the track's first sample was said, by the node's clock.
    began: Micros,
    /// The newest frame's timestamp, and where it belongs in samples from the begin.
    newest: (u32, i64),
    /// The least that a frame was late since this was last looked at, in samples, and of how many.
    least_late: i64,
    judged: u32,
    /// Whether `began` is what it will be.
    is_settled: bool,
}

impl Placing {
    /// A track that begins with a frame which came at `at`.
    pub(super) fn new(at: Micros, timestamp: u32) -> Self {
        Self { began: at, newest: (timestamp, 0), least_late: i64::MAX, judged: 0, is_settled: false }
    }

    /// When the track's first sample was said: better known after the first second, since its frame may have been slow.
    pub(super) fn began(&self) -> Micros {
        self.began
    }

    /// Whether a frame begins something said: it says so, or there is a hole before it.
    pub(super) fn begins(&self, timestamp: u32, is_start: bool) -> bool {
        is_start || self.since_newest(timestamp) > HOLE_SAMPLES
    }

    /// Where a frame belongs that came at `at`, in samples from the track's begin. It `begins` something said, or goes on with
    /// it; what is there already ends at `end`.
    pub(super) fn place(&mut self, at: Micros, timestamp: u32, begins: bool, end: i64) -> i64 {
        let drift = self.drift(begins);
        let by_timestamp = self.newest.1 + self.since_newest(timestamp);
        let by_arrival = samples(at.since(self.began));
        let late = by_arrival - by_timestamp;
        let late_max = if begins { LATE_AT_BEGIN_MAX } else { LATE_MAX };
        if late > late_max || late < -EARLY_MAX {
            self.forget_drift();
            return self.is_at(timestamp, by_arrival.max(end));
        }
        self.least_late = self.least_late.min(late - drift);
        self.judged += 1;
        let place = by_timestamp + drift;
        // In a pause there is room for a correction back; elsewhere nothing said is given up for one.
        self.is_at(timestamp, if begins { place.max(end) } else { place })
    }

    /// The newest frame was put somewhere else than it belongs.
    pub(super) fn is_at(&mut self, timestamp: u32, place: i64) -> i64 {
        if self.since_newest(timestamp) >= 0 {
            self.newest = (timestamp, place);
        }
        place
    }

    fn since_newest(&self, timestamp: u32) -> i64 {
        i64::from(timestamp.wrapping_sub(self.newest.0).cast_signed())
    }

    /// By how much the speaker's clock is to be corrected before the next frame, in samples.
    fn drift(&mut self, begins: bool) -> i64 {
        let may_judge = self.judged >= if begins { FRAMES_TO_JUDGE } else { FRAMES_WITHOUT_PAUSE };
        let settles = !self.is_settled && self.judged >= 2 * FRAMES_TO_JUDGE;
        if !may_judge && !settles {
            return 0;
        }
        let least_late = self.least_late;
        self.forget_drift();
        if !self.is_settled {
            // The first frame was slower than the quickest: all was said earlier by as much.
            self.is_settled = true;
            self.began = self.began - micros(-least_late.min(0));
            return 0;
        }
        if begins && least_late.abs() >= DRIFT_MIN || least_late >= DRIFT_MAX { least_late } else { 0 }
    }

    fn forget_drift(&mut self) {
        (self.least_late, self.judged) = (i64::MAX, 0);
    }
}

/// A time in samples at 48 kHz.
pub(super) fn samples(time: Micros) -> i64 {
    i64::try_from(time.0 * 48 / 1_000).unwrap_or(i64::MAX)
}

/// Samples at 48 kHz as a time.
pub(super) fn micros(samples: i64) -> Micros {
    Micros(u64::try_from(samples).unwrap_or(0) * 1_000 / 48)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Micros = Micros::from_secs(1_000);

    fn ms(count: u64) -> Micros {
        START + Micros::from_millis(count)
    }

    #[test]
    fn frames_that_come_unevenly_are_where_they_were_said() {
        let mut placing = Placing::new(ms(0), 7);
        for (number, delay_ms) in [(1, 15), (2, 0), (4, 30), (3, 60)] {
            let place = placing.place(ms(u64::from(number) * 20 + delay_ms), 7 + number * 960, false, 0);
            assert_eq!(place, i64::from(number) * 960);
        }
    }

    #[test]
    fn a_first_frame_that_was_slow_moves_the_begin() {
        let mut placing = Placing::new(ms(30), 0);
        for number in 1..60_u32 {
            placing.place(ms(u64::from(number) * 20), number * 960, false, 0);
        }
        assert_eq!(placing.began(), ms(0));
    }

    #[test]
    fn whoever_counts_frames_instead_of_time_is_where_they_came() {
        let mut placing = Placing::new(ms(0), 0);
        assert_eq!(placing.place(ms(20), 960, false, 960), 960);
        // Ten seconds of nothing, which their timestamps do not know of.
        assert_eq!(placing.place(ms(10_040), 1_920, true, 1_920), 10_040 * 48);
        assert_eq!(placing.place(ms(10_060), 2_880, false, 10_060 * 48), 10_060 * 48);
        // A clock that was set.
        assert_eq!(placing.place(ms(10_080), 0xf000_0000, false, 10_080 * 48), 10_080 * 48);
    }

    #[test]
    fn a_clock_that_drifts_is_put_right_in_pauses() {
        let mut placing = Placing::new(ms(0), 0);
        let mut worst = 0;
        // 200 parts in a million too slow: 12 ms in a minute, of which ten seconds are paused.
        for second in 0..3_600_u64 {
            if second % 60 >= 50 {
                continue;
            }
            for frame in 0..50 {
                let said_us = second * 1_000_000 + frame * 20_000;
                let timestamp = said_us as f64 * 48e-3 * (1.0 - 200e-6);
                let at = START + Micros(said_us);
                let begins = placing.begins(timestamp as u32, false);
                let place = placing.place(at, timestamp as u32, begins, 0);
                worst = worst.max((place - samples(at.since(placing.began()))).abs());
            }
        }
        assert!(worst < 48 * 20, "{} ms", worst / 48);
    }

    #[test]
    fn who_never_pauses_gets_a_hole_where_their_clock_is_too_slow() {
        let mut placing = Placing::new(ms(0), 0);
        let mut late = 0;
        for number in 1..60_000_u64 {
            let timestamp = (number as f64 * 960.0 * (1.0 - 200e-6)) as u32;
            let place = placing.place(ms(number * 20), timestamp, false, 0);
            late = samples(ms(number * 20).since(placing.began())) - place;
        }
        assert!(late < 48 * 40, "{} ms", late / 48);
    }
}
