//! Per-stream measures of arrival: a bound on the frame rate, and jitter.

use crate::clock::Micros;

/// The most frames a stream may send: Opus's shortest packets last 2.5 ms.
const FRAME_INTERVAL: Micros = Micros(2_500);
/// How far ahead of that rate a stream may run: 1,000 frames, 20 s of usual ones that a stalled link lets go at once.
const BURST: Micros = Micros(1_000 * FRAME_INTERVAL.0);

/// A leaky bucket in one number: when the stream would be back to even.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameRate {
    even_at: Micros,
}

impl FrameRate {
    /// Whether one more frame is within the rate.
    pub(super) fn allow(&mut self, now: Micros) -> bool {
        let even_at = self.even_at.max(now);
        if even_at.since(now) > BURST {
            return false;
        }
        self.even_at = even_at + FRAME_INTERVAL;
        true
    }
}

/// Interarrival jitter as RFC 3550, 6.4.1 and A.8, define it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Jitter {
    last: Option<(Micros, u32)>,
    /// The estimate times 16.
    sixteenths_us: u32,
}

impl Jitter {
    /// Two frames further apart are not of one talk spurt.
    const SPURT_GAP: Micros = Micros::from_secs(1);

    /// A frame with this 48 kHz timestamp arrived, newer than all before it.
    pub(super) fn arrived(&mut self, now: Micros, timestamp: u32) {
        let Some((last_at, last_timestamp)) = self.last.replace((now, timestamp)) else { return };
        let arrival_us = now.since(last_at).0;
        let sent_us = u64::from(timestamp.wrapping_sub(last_timestamp)) * 1_000 / 48;
        if arrival_us > Self::SPURT_GAP.0 || sent_us > Self::SPURT_GAP.0 {
            return;
        }
        let difference_us = u32::try_from(arrival_us.abs_diff(sent_us)).unwrap_or(u32::MAX);
        self.sixteenths_us = self.sixteenths_us + difference_us - ((self.sixteenths_us + 8) >> 4);
    }

    /// The smoothed jitter.
    pub(super) const fn micros(&self) -> u32 {
        self.sixteenths_us >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_frames_pass_for_ever_and_a_flood_is_cut() {
        let mut rate = FrameRate::default();
        assert!((0..10_000).all(|frame| rate.allow(Micros(frame * 2_500))));
        let mut rate = FrameRate::default();
        let passed = (0..20_000).filter(|frame| rate.allow(Micros(frame * 50))).count();
        assert!((1_395..=1_405).contains(&passed), "{passed}: the burst, and 400 in the second");
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_an_alternating_one_has_its_swing() {
        let mut jitter = Jitter::default();
        for frame in 0..1_000_u32 {
            jitter.arrived(Micros(u64::from(frame) * 20_000), frame.wrapping_mul(960));
        }
        assert_eq!(jitter.micros(), 0);
        for frame in 1_000..2_000_u32 {
            let late = if frame % 2 == 0 { 4_000 } else { 0 };
            jitter.arrived(Micros(u64::from(frame) * 20_000 + late), frame * 960);
        }
        assert!((3_900..=4_000).contains(&jitter.micros()), "{}", jitter.micros());
    }

    #[test]
    fn a_pause_or_a_new_clock_is_no_jitter() {
        let mut jitter = Jitter::default();
        jitter.arrived(Micros::ZERO, 0);
        jitter.arrived(Micros::from_secs(60), 960);
        jitter.arrived(Micros::from_secs(60), 4_000_000_000);
        assert_eq!(jitter.micros(), 0);
    }
}
