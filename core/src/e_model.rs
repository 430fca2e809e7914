//! How good a conversation sounds, from what is measured of its way: the E-model of ITU-T G.107, simplified as by
//! Cole and Rosenbluth ("Voice over IP performance monitoring", 2001), with loss as in G.107 equation 7-29.

/// What is measured of the way from mouth to ear.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// There and back between clients and the node, mean.
    pub round_trip_ms: f64,
    /// Interarrival jitter, mean. A receiver waits about twice that long to hide it.
    pub jitter_ms: f64,
    /// The share of frames lost, 0 to 1.
    pub loss: f64,
}

/// The rating of a way with neither delay nor loss (G.107 with all other parameters at their defaults).
const RATING_MAX: f64 = 93.2;

/// One Opus frame of 20 ms and the codec's look-ahead of 6.5 ms (RFC 6716, 2.1.3).
const CODEC_DELAY_MS: f64 = 26.5;

/// Delay above this disturbs the turns of a conversation (G.107, as fitted by Cole and Rosenbluth).
const TURN_DELAY_MS: f64 = 177.3;

/// Robustness against random loss (`Bpl`). G.113 has no value for Opus; this is G.711's with concealment, which Opus
/// with its own concealment and in-band correction does not fall short of.
const LOSS_ROBUSTNESS_PERCENT: f64 = 25.1;

impl Path {
    /// The transmission rating R, 0 to 93.2: above 80 most are satisfied, below 60 nearly nobody is (G.107 annex B).
    #[must_use]
    pub fn rating(self) -> f64 {
        // Both clients are as far from the node as one round trip covers: half there from one, half from there to the other.
        let delay_ms = self.round_trip_ms + 2.0 * self.jitter_ms + CODEC_DELAY_MS;
        let delay_impairment = 0.024 * delay_ms + 0.11 * (delay_ms - TURN_DELAY_MS).max(0.0);
        let loss_percent = 100.0 * self.loss.clamp(0.0, 1.0);
        let loss_impairment = 95.0 * loss_percent / (loss_percent + LOSS_ROBUSTNESS_PERCENT);
        (RATING_MAX - delay_impairment - loss_impairment).clamp(0.0, RATING_MAX)
    }

    /// The rating as a share of the best possible, 0 to 1.
    #[must_use]
    pub fn score(self) -> f64 {
        self.rating() / RATING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(round_trip_ms: f64, jitter_ms: f64, loss: f64) -> f64 {
        Path { round_trip_ms, jitter_ms, loss }.rating()
    }

    #[test]
    fn known_points() {
        // 93.2 - 0.024 × 26.5
        assert!((rating(0.0, 0.0, 0.0) - 92.564).abs() < 1e-9);
        // d = 226.5: 93.2 - 5.436 - 0.11 × 49.2
        assert!((rating(200.0, 0.0, 0.0) - 82.352).abs() < 1e-9);
        // 5 % loss: 95 × 5 / 30.1 = 15.781
        assert!((rating(0.0, 0.0, 0.05) - (92.564 - 95.0 * 5.0 / 30.1)).abs() < 1e-9);
    }

    #[test]
    fn worse_ways_never_sound_better() {
        let mut last = f64::MAX;
        for step in 0..100 {
            let now = rating(f64::from(step) * 20.0, f64::from(step), f64::from(step) / 100.0);
            assert!(now <= last && (0.0..=93.2).contains(&now));
            last = now;
        }
        let best = Path::default().score();
        assert!(best > 0.99 && best <= 1.0);
        assert!(rating(2_000.0, 100.0, 1.0) == 0.0);
    }
}
