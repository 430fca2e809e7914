//! Any rate from 8 to 48 kHz up to 48 kHz, by a windowed sinc.

use std::collections::VecDeque;

use super::SAMPLE_RATE_HZ;

/// Input samples on each side of an output sample that take part in it.
const HALF_TAPS: usize = 24;
const TAPS: usize = 2 * HALF_TAPS;

/// How much of the band below half the input rate passes; the rest is the filter's slope.
const PASS_BAND: f64 = 0.92;

/// Turns interleaved samples of one rate into samples at 48 kHz, as a stream.
pub struct Resampler {
    channels: usize,
    /// `step / phases` input samples to each output sample.
    phases: usize,
    step: usize,
    /// `TAPS` weights for each fractional position.
    weights: Vec<f32>,
    /// Input that output still needs, interleaved; begins `HALF_TAPS - 1` samples before the next output's.
    pending: VecDeque<f32>,
    /// The fractional position of the next output sample, in 1/`phases` of an input sample.
    phase: usize,
}

impl Resampler {
    /// A resampler for interleaved `channels` at `rate_hz`, which is 1 to 48,000.
    ///
    /// # Panics
    /// When `rate_hz` or `channels` is out of range; the WAV reader has refused such files.
    #[must_use]
    pub fn new(rate_hz: u32, channels: usize) -> Self {
        assert!((1..=SAMPLE_RATE_HZ).contains(&rate_hz) && channels > 0, "{rate_hz} Hz, {channels} channels");
        let divisor = greatest_common_divisor(rate_hz, SAMPLE_RATE_HZ);
        let phases = (SAMPLE_RATE_HZ / divisor) as usize;
        let step = (rate_hz / divisor) as usize;
        let pending = std::iter::repeat_n(0.0, (HALF_TAPS - 1) * channels).collect();
        Self { channels, phases, step, weights: weights(phases), pending, phase: 0 }
    }

    /// Takes interleaved input and appends what it allows of the output.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        if self.phases == 1 && self.step == 1 {
            output.extend_from_slice(input);
            return;
        }
        self.pending.extend(input);
        self.drain(output);
    }

    /// Gives the output that was waiting for input after the end.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        if self.phases == 1 && self.step == 1 {
            return;
        }
        self.pending.extend(std::iter::repeat_n(0.0, HALF_TAPS * self.channels));
        self.drain(output);
    }

    fn drain(&mut self, output: &mut Vec<f32>) {
        while self.pending.len() >= TAPS * self.channels {
            let weights = &self.weights[self.phase * TAPS..][..TAPS];
            for channel in 0..self.channels {
                let samples = self.pending.iter().skip(channel).step_by(self.channels);
                output.push(weights.iter().zip(samples).map(|(weight, sample)| weight * sample).sum());
            }
            self.phase += self.step;
            // The rate only grows, so this passes over at most one input sample.
            if self.phase >= self.phases {
                self.phase -= self.phases;
                self.pending.drain(..self.channels);
            }
        }
    }
}

/// Blackman-windowed sinc at each of `phases` positions between two input samples, each normalised to unit gain.
fn weights(phases: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(phases * TAPS);
    for phase in 0..phases {
        let fraction = phase as f64 / phases as f64;
        let row: Vec<f64> = (0..TAPS)
            .map(|tap| {
                let distance = tap as f64 - (HALF_TAPS - 1) as f64 - fraction;
                sinc(distance * PASS_BAND) * blackman(distance / HALF_TAPS as f64)
            })
            .collect();
        let gain: f64 = row.iter().sum();
        all.extend(row.iter().map(|weight| (weight / gain) as f32));
    }
    all
}

fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle }
}

/// The window at `x` from -1 to 1.
fn blackman(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        return 0.0;
    }
    let angle = std::f64::consts::PI * x;
    0.42 + 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos()
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate_hz: u32, frequency_hz: f64, samples: usize) -> Vec<f32> {
        let step = 2.0 * std::f64::consts::PI * frequency_hz / f64::from(rate_hz);
        (0..samples).map(|n| (step * n as f64).sin() as f32 * 0.5).collect()
    }

    #[test]
    fn a_sine_stays_a_sine_of_the_same_length() {
        for rate_hz in [8_000, 11_025, 16_000, 22_050, 24_000, 44_100] {
            let input = sine(rate_hz, 440.0, rate_hz as usize);
            let mut resampler = Resampler::new(rate_hz, 1);
            let mut output = Vec::new();
            for piece in input.chunks(700) {
                resampler.push(piece, &mut output);
            }
            resampler.finish(&mut output);
            assert!(output.len().abs_diff(48_000) <= 6, "{rate_hz} Hz gave {} samples", output.len());
            let ideal = sine(48_000, 440.0, output.len());
            // The ends lean on the silence around the input.
            let inner = 300..output.len() - 300;
            let worst = inner.map(|n| (output[n] - ideal[n]).abs()).fold(0.0, f32::max);
            assert!(worst < 0.002, "{rate_hz} Hz is off by {worst}");
        }
    }

    #[test]
    fn channels_stay_apart() {
        let left = sine(16_000, 300.0, 4_000);
        let interleaved: Vec<f32> = left.iter().flat_map(|&sample| [sample, -0.25]).collect();
        let mut output = Vec::new();
        let mut resampler = Resampler::new(16_000, 2);
        resampler.push(&interleaved, &mut output);
        let right: Vec<f32> = output.iter().skip(1).step_by(2).skip(200).copied().collect();
        assert!(right.iter().all(|sample| (sample + 0.25).abs() < 1e-4));
    }

    #[test]
    fn full_rate_passes_untouched() {
        let input = sine(48_000, 1_000.0, 1_000);
        let mut output = Vec::new();
        let mut resampler = Resampler::new(48_000, 1);
        resampler.push(&input, &mut output);
        resampler.finish(&mut output);
        assert_eq!(output, input);
    }
}
