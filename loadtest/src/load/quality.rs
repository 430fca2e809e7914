//! How the conversation sounds to each listener, by the E-model, from what they received.

use antiphon_core::e_model::Path;
use serde::{Deserialize, Serialize};

/// What one listener received in the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ear {
    pub(super) delivered: u64,
    /// Latencies of those deliveries, by whichever way.
    pub(super) latency_us_sum: u64,
    /// Frames that the run's own impairment lost on the way to this listener.
    pub(super) lost_on_way: u64,
}

/// What that came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Experience {
    pub(super) expected: u64,
    pub(super) ear: Ear,
    /// Mean interarrival jitter over the talkers they hear.
    pub(super) jitter_us: f64,
}

/// The opinion scores of all who had something to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// How many listeners.
    pub listeners: u64,
    /// Mean opinion score, 1 to 4.5, on average over listeners.
    pub mos_mean: f64,
    /// 95 of 100 have at least this.
    pub mos_p5: f64,
    /// The worst.
    pub mos_min: f64,
}

impl Experience {
    /// The mean opinion score that this corresponds to.
    fn mos(&self) -> f64 {
        let Self { expected, ear, jitter_us } = self;
        let lost = expected.saturating_sub(ear.delivered);
        let latency_ms = ear.latency_us_sum as f64 / 1_000.0 / ear.delivered.max(1) as f64;
        // From mouth to ear is measured here, which is what the round trip stands for in the model.
        let path = Path {
            round_trip_ms: latency_ms,
            jitter_ms: jitter_us / 1_000.0,
            loss: lost as f64 / (*expected).max(1) as f64,
        };
        mos_of(path.rating())
    }
}

/// ITU-T G.107, annex B: the mean opinion score of a rating.
fn mos_of(rating: f64) -> f64 {
    if rating <= 0.0 {
        return 1.0;
    }
    let rating = rating.min(100.0);
    // The cubic falls a little below 1 for the lowest ratings.
    (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).max(1.0)
}

impl Quality {
    /// Of all these; `None` when nobody had anything to hear.
    pub(super) fn of(experiences: impl Iterator<Item = Experience>) -> Option<Self> {
        let mut scores: Vec<f64> = experiences.filter(|one| one.expected > 0).map(|one| one.mos()).collect();
        scores.sort_by(f64::total_cmp);
        let count = scores.len();
        let (min, p5) = (*scores.first()?, scores[count / 20]);
        Some(Self {
            listeners: count as u64,
            mos_mean: scores.iter().sum::<f64>() / count as f64,
            mos_p5: p5,
            mos_min: min,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experience(delivered: u64, latency_ms: u64, jitter_us: f64) -> Experience {
        let ear = Ear { delivered, latency_us_sum: delivered * latency_ms * 1_000, lost_on_way: 0 };
        Experience { expected: 1_000, ear, jitter_us }
    }

    #[test]
    fn scores_are_those_of_annex_b() {
        // G.107, table B.1: R = 90, 80, 70, 60, 50 are 4.34, 4.03, 3.60, 3.10, 2.58.
        for (rating, mos) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58), (0.0, 1.0)] {
            assert!((mos_of(rating) - mos).abs() < 0.01, "{rating}: {}", mos_of(rating));
        }
        assert!(mos_of(3.0) >= 1.0);
    }

    #[test]
    fn loss_delay_and_jitter_are_each_heard() {
        let good = experience(1_000, 1, 0.0).mos();
        assert!(good > 4.3, "{good}");
        for worse in [experience(950, 1, 0.0), experience(1_000, 300, 0.0), experience(1_000, 1, 90_000.0)] {
            assert!(worse.mos() < good - 0.1, "{worse:?}: {}", worse.mos());
        }
        assert!(experience(0, 0, 0.0).mos() < 2.0);
    }

    #[test]
    fn a_few_bad_listeners_show_in_the_worst_and_not_in_the_95() {
        let everyone = (0..100).map(|number| experience(if number < 4 { 500 } else { 1_000 }, 1, 0.0));
        let quality = Quality::of(everyone).expect("listeners");
        assert!(quality.mos_min < 3.0 && quality.mos_p5 > 4.3 && quality.mos_mean < quality.mos_p5, "{quality:?}");
        let nothing = Experience { expected: 0, ..experience(0, 0, 0.0) };
        assert_eq!(Quality::of(std::iter::once(nothing)), None);
    }
}
