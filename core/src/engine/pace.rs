//! A bound on the frame rate of a stream.

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
}
