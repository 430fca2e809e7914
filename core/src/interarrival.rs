//! Interarrival jitter as RFC 3550 (6.4.1 and A.8) defines it: how unevenly frames arrive that were sent evenly.

use crate::clock::Micros;

/// Two frames further apart are not of one talk spurt, or the sender's clock has jumped.
const SPURT_GAP_US: u64 = 1_000_000;

/// The smoothed jitter of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterarrivalJitter {
    last: Option<(Micros, u32)>,
    /// The estimate times 16.
    sixteenths_us: u32,
}

impl InterarrivalJitter {
    /// A frame with this 48 kHz timestamp arrived.
    pub fn arrived(&mut self, now: Micros, timestamp: u32) {
        let Some((last_at, last_timestamp)) = self.last.replace((now, timestamp)) else { return };
        let arrival_us = i64::try_from(now.since(last_at).0).unwrap_or(i64::MAX);
        // Signed: a frame may arrive after its successor.
        let sent_us = i64::from(timestamp.wrapping_sub(last_timestamp).cast_signed()) * 1_000 / 48;
        if arrival_us.unsigned_abs() > SPURT_GAP_US || sent_us.unsigned_abs() > SPURT_GAP_US {
            return;
        }
        let difference_us = u32::try_from(arrival_us.abs_diff(sent_us)).unwrap_or(u32::MAX);
        self.sixteenths_us = self.sixteenths_us + difference_us - ((self.sixteenths_us + 8) >> 4);
    }

    /// The next frame does not follow the last one: their distance says nothing.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// The smoothed jitter.
    #[must_use]
    pub const fn micros(&self) -> u32 {
        self.sixteenths_us >> 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_no_jitter_and_an_alternating_one_has_its_swing() {
        let mut jitter = InterarrivalJitter::default();
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
        let mut jitter = InterarrivalJitter::default();
        jitter.arrived(Micros::ZERO, 0);
        jitter.arrived(Micros::from_secs(60), 960);
        jitter.arrived(Micros::from_secs(60), 4_000_000_000);
        assert_eq!(jitter.micros(), 0);
        jitter.interrupt();
        jitter.arrived(Micros::from_secs(61), 4_000_000_000);
        assert_eq!(jitter.micros(), 0, "nothing to compare it with");
    }

    #[test]
    fn frames_out_of_order_count_by_how_far_they_are_from_their_place() {
        let mut jitter = InterarrivalJitter::default();
        jitter.arrived(Micros::ZERO, 1_920);
        jitter.arrived(Micros(1_000), 960);
        // 1 ms passed where -20 ms would have: 21 ms, of which a sixteenth counts.
        assert_eq!(jitter.micros(), 21_000 / 16);
    }

    #[test]
    fn the_wildest_arrivals_overflow_nothing() {
        let mut jitter = InterarrivalJitter::default();
        for frame in 0..10_000_u64 {
            jitter.arrived(Micros(frame * 1_000_000), if frame % 2 == 0 { 0 } else { 48_000 });
        }
        assert!(jitter.micros() <= 2_000_000, "{}", jitter.micros());
    }
}
