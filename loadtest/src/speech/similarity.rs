//! How like the original degraded speech is, as in ViSQOL: patches of the original's spectrogram are looked for in the other
//! one, and compared by their structure (NSIM). From Hines, Skoglund, Kokaram, Harte, "ViSQOL: an objective speech quality
//! model", EURASIP Journal on Audio, Speech, and Music Processing 2015:13. It is not ViSQOL, whose bands are gammatone
//! filters and whose result is mapped to opinion scores: it ranks, and is worth nothing beside figures of other tools.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use crate::audio::SAMPLE_RATE_HZ;

/// The spectrogram's window and step, in samples: 80 and 20 ms.
const WINDOW: usize = 3_840;
const STEP: usize = 960;

/// Bands, evenly on the mel scale, and where they begin and end in Hz: what speech has.
const BANDS: usize = 21;
const LOWEST_HZ: f64 = 50.0;
const HIGHEST_HZ: f64 = 8_000.0;

/// Frames of a patch: 400 ms.
const PATCH: usize = 20;

/// So many frames to each side of where it was the last patch's counterpart is looked for.
const SHIFT_MAX: usize = 10;

/// Of levels only those within so many dB of the loudest count.
const RANGE_DB: f64 = 45.0;

/// By frame, the level in dB of each band.
type Spectrogram = Vec<[f64; BANDS]>;

/// From 0, nothing alike, to 1, the same. Patches of the original in which nobody speaks do not count.
pub(super) fn similarity(original: &[f32], degraded: &[f32]) -> f64 {
    let analysis = Analysis::new();
    let (mut original, mut degraded) = (analysis.spectrogram(original), analysis.spectrogram(degraded));
    let loudest = original.iter().flatten().copied().fold(f64::MIN, f64::max);
    let floor = loudest - RANGE_DB;
    for level in original.iter_mut().chain(&mut degraded).flatten() {
        *level = (*level - floor).clamp(0.0, RANGE_DB);
    }
    let (mut sum, mut count, mut shift) = (0.0, 0, 0);
    for start in (0..original.len().saturating_sub(PATCH)).step_by(PATCH) {
        let patch = &original[start..start + PATCH];
        let speaks = patch.iter().filter(|frame| frame.iter().any(|level| *level > RANGE_DB / 2.0)).count();
        if speaks < PATCH / 2 {
            continue;
        }
        let (found, likeness) = counterpart(patch, &degraded, start + shift);
        shift = found.saturating_sub(start);
        sum += likeness;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// Where near `expected` a patch's counterpart begins, and how like it is.
fn counterpart(patch: &[[f64; BANDS]], degraded: &[[f64; BANDS]], expected: usize) -> (usize, f64) {
    let starts = expected.saturating_sub(SHIFT_MAX)..=expected + SHIFT_MAX;
    let compared = starts.filter_map(|start| Some((start, nsim(patch, degraded.get(start..start + PATCH)?))));
    compared.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or((expected, 0.0))
}

/// The neurogram similarity index: the mean over all places of how like level and structure are within three bands and
/// three frames (equations 2 and 3 there).
fn nsim(one: &[[f64; BANDS]], other: &[[f64; BANDS]]) -> f64 {
    let c1 = (0.01 * RANGE_DB).powi(2);
    let c3 = (0.03 * RANGE_DB).powi(2) / 2.0;
    let (mut sum, mut count) = (0.0, 0);
    for (one, other) in one.windows(3).zip(other.windows(3)) {
        for band in 0..BANDS - 2 {
            // Nine places of each, as sums: so it is one pass, and this is where all the time goes.
            let [mut a, mut b, mut aa, mut bb, mut ab] = [0.0; 5];
            for (one, other) in one.iter().zip(other) {
                for (x, y) in one[band..band + 3].iter().zip(&other[band..band + 3]) {
                    (a, b) = (a + x, b + y);
                    (aa, bb, ab) = (aa + x * x, bb + y * y, ab + x * y);
                }
            }
            let (a, b) = (a / 9.0, b / 9.0);
            let covariance = ab / 9.0 - a * b;
            let deviations = ((aa / 9.0 - a * a).max(0.0) * (bb / 9.0 - b * b).max(0.0)).sqrt();
            sum += (2.0 * a * b + c1) / (a * a + b * b + c1) * (covariance + c3) / (deviations + c3);
            count += 1;
        }
    }
    sum / f64::from(count.max(1))
}

/// Makes spectrograms.
struct Analysis {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    /// For each band, the first bin that counts, and how much it and those behind it do.
    bands: Vec<(usize, Vec<f64>)>,
}

impl Analysis {
    fn new() -> Self {
        let hann = |n: usize| 0.5 - 0.5 * (n as f64 / WINDOW as f64 * std::f64::consts::TAU).cos();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(WINDOW),
            window: (0..WINDOW).map(hann).collect(),
            bands: (0..BANDS).map(band).collect(),
        }
    }

    fn spectrogram(&self, samples: &[f32]) -> Spectrogram {
        let (mut input, mut output) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut levels = |samples: &[f32]| {
            for ((place, sample), weight) in input.iter_mut().zip(samples).zip(&self.window) {
                *place = f64::from(*sample) * weight;
            }
            self.fft.process(&mut input, &mut output).expect("the lengths are the plan's");
            let level = |(first, weights): &(usize, Vec<f64>)| {
                let power: f64 =
                    output[*first..].iter().zip(weights).map(|(bin, weight)| bin.norm_sqr() * weight).sum();
                10.0 * (power + 1e-12).log10()
            };
            let mut frame = [0.0; BANDS];
            frame.iter_mut().zip(&self.bands).for_each(|(place, band)| *place = level(band));
            frame
        };
        samples.windows(WINDOW).step_by(STEP).map(&mut levels).collect()
    }
}

/// A triangle between the centres of its neighbours, O'Shaughnessy's mel scale.
fn band(number: usize) -> (usize, Vec<f64>) {
    let mel = |hz: f64| 2_595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f64| 700.0 * (10_f64.powf(mel / 2_595.0) - 1.0);
    let step = (mel(HIGHEST_HZ) - mel(LOWEST_HZ)) / (BANDS + 1) as f64;
    let edge = |number: usize| hz(mel(LOWEST_HZ) + step * number as f64);
    let (from, centre, to) = (edge(number), edge(number + 1), edge(number + 2));
    let bin_hz = f64::from(SAMPLE_RATE_HZ) / WINDOW as f64;
    let first = (from / bin_hz).ceil() as usize;
    let weight = |bin: usize| {
        let at = bin as f64 * bin_hz;
        if at <= centre { (at - from) / (centre - from) } else { (to - at) / (to - centre) }
    };
    (first, (first..=(to / bin_hz) as usize).map(weight).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tones(hz: &[f32], seconds: usize) -> Vec<f32> {
        let sample = |n: usize| {
            let t = n as f32 / SAMPLE_RATE_HZ as f32;
            let rhythm = (t * 3.0).sin().powi(2);
            hz.iter().map(|hz| (t * hz * std::f32::consts::TAU).sin() * rhythm * 0.2).sum()
        };
        (0..seconds * SAMPLE_RATE_HZ as usize).map(sample).collect()
    }

    #[test]
    fn the_same_is_the_same_also_late() {
        let original = tones(&[300.0, 1_200.0, 2_900.0], 4);
        assert!((similarity(&original, &original) - 1.0).abs() < 1e-9);
        let late: Vec<f32> = std::iter::repeat_n(0.0, 5 * STEP).chain(original.iter().copied()).collect();
        let likeness = similarity(&original, &late);
        assert!(likeness > 0.99, "{likeness}");
    }

    #[test]
    fn the_more_is_missing_the_less_it_is_like() {
        let original = tones(&[300.0, 1_200.0, 2_900.0], 8);
        let without = |every: usize| {
            let frames = original.chunks(STEP).enumerate();
            let silenced = frames
                .flat_map(|(n, frame)| frame.iter().map(move |sample| if n % every == 0 { 0.0 } else { *sample }));
            similarity(&original, &silenced.collect::<Vec<f32>>())
        };
        let (few, some, many) = (without(20), without(10), without(4));
        assert!(1.0 > few && few > some && some > many && many > 0.0, "{few} {some} {many}");
        let other = similarity(&original, &tones(&[200.0, 800.0, 5_000.0], 8));
        assert!(other < many, "{other} {many}");
    }
}
