//! A limiter that keeps the sum of many voices within what a sample can say, without clipping it.
//!
//! A block is looked at in parts of 2.5 ms. Each has the gain that keeps its peak at [`CEILING`]; between parts the gain
//! moves in a straight line between values that are low enough for both, so it has fallen before a peak comes and rises
//! slowly after it. A peak right at the beginning of a block, which nothing announced, is bent by a soft knee instead of
//! being cut off.

use super::codec::FRAME_SAMPLES;

/// The highest sample that the gain lets through: -1.4 dB of full scale.
pub const CEILING: i32 = 27_853;
/// What no sample exceeds, whatever comes.
pub const LIMIT: i32 = i16::MAX as i32;

/// Samples of a part: 2.5 ms.
const PART: usize = 120;
const PARTS: usize = FRAME_SAMPLES / PART;
/// The share of what is missing to full gain that is made up in a part: 200 ms to two thirds.
const RELEASE: f32 = 0.0125;
/// A gain this close to one is one.
const NEARLY_ONE: f32 = 0.9995;

/// The limiter of one mix.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// At the end of the last block.
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    /// The gain at the end of the last block; below one while it limits.
    #[must_use]
    pub fn gain(&self) -> f32 {
        self.gain
    }

    /// Brings a block of sums into the range of samples.
    pub fn limit(&mut self, sum: &[i32; FRAME_SAMPLES], out: &mut [i16; FRAME_SAMPLES]) {
        let needed: [f32; PARTS] = std::array::from_fn(|part| gain_for(peak(&sum[part * PART..(part + 1) * PART])));
        if self.gain >= NEARLY_ONE && needed.iter().all(|gain| *gain >= 1.0) {
            self.gain = 1.0;
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = bent(*sum as f32);
            }
            return;
        }
        for part in 0..PARTS {
            let next = needed.get(part + 1).copied().unwrap_or(1.0);
            let risen = self.gain + (1.0 - self.gain) * RELEASE;
            let end = risen.min(needed[part]).min(next);
            // Where nothing announced the peak, the gain falls within the part.
            let begin = self.gain.min(1.0);
            let range = part * PART..(part + 1) * PART;
            for (step, (out, sum)) in out[range.clone()].iter_mut().zip(&sum[range]).enumerate() {
                let gain = begin + (end - begin) * (step as f32 + 1.0) / PART as f32;
                *out = bent(*sum as f32 * gain);
            }
            self.gain = end;
        }
    }
}

fn peak(samples: &[i32]) -> i32 {
    samples.iter().map(|sample| sample.saturating_abs()).max().unwrap_or(0)
}

fn gain_for(peak: i32) -> f32 {
    if peak <= CEILING { 1.0 } else { CEILING as f32 / peak as f32 }
}

/// Bends what exceeds the ceiling towards the limit, which it never reaches.
fn bent(sample: f32) -> i16 {
    let (ceiling, room) = (CEILING as f32, (LIMIT - CEILING) as f32);
    let size = sample.abs();
    if size <= ceiling {
        return sample.round() as i16;
    }
    let over = (size - ceiling) / room;
    // Rises from the knee with slope one: x / (1 + x).
    (ceiling + room * over / (1.0 + over)).copysign(sample) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tone(amplitude: f32, frequency_hz: f32, from: usize) -> [i32; FRAME_SAMPLES] {
        std::array::from_fn(|n| {
            let t = (from + n) as f32 / 48_000.0;
            ((t * frequency_hz * std::f32::consts::TAU).sin() * amplitude) as i32
        })
    }

    fn limited(limiter: &mut Limiter, sum: &[i32; FRAME_SAMPLES]) -> [i16; FRAME_SAMPLES] {
        let mut out = [0; FRAME_SAMPLES];
        limiter.limit(sum, &mut out);
        out
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let mut limiter = Limiter::default();
        for block in 0..10 {
            let sum = tone(CEILING as f32, 440.0, block * FRAME_SAMPLES);
            let out = limited(&mut limiter, &sum);
            assert!(out.iter().zip(&sum).all(|(out, sum)| i32::from(*out) == *sum));
        }
    }

    #[test]
    fn what_is_too_loud_comes_out_at_the_ceiling_and_keeps_its_form() {
        let mut limiter = Limiter::default();
        for block in 0..20 {
            let sum = tone(200_000.0, 440.0, block * FRAME_SAMPLES);
            let out = limited(&mut limiter, &sum);
            if block == 0 {
                continue;
            }
            let highest = out.iter().map(|sample| i32::from(*sample).abs()).max().expect("samples");
            assert!((25_000..=CEILING + 1).contains(&highest), "block {block}: {highest}");
            // Its form: the same zero crossings, and in between a multiple of the input.
            let steep = out.windows(2).filter(|pair| i32::from(pair[1]) - i32::from(pair[0]) == 0).count();
            assert!(steep < FRAME_SAMPLES / 10, "{steep} samples at one height: cut off");
        }
    }

    #[test]
    fn the_gain_comes_back_slowly() {
        let mut limiter = Limiter::default();
        limited(&mut limiter, &tone(100_000.0, 440.0, 0));
        assert!(limiter.gain() < 0.4, "{}", limiter.gain());
        let mut gains = Vec::new();
        for block in 1..=50 {
            limited(&mut limiter, &tone(1_000.0, 440.0, block * FRAME_SAMPLES));
            gains.push(limiter.gain());
        }
        assert!(gains.is_sorted() && gains[0] < 0.5 && gains[49] > 0.95, "{gains:?}");
    }

    proptest! {
        #[test]
        fn it_never_clips_and_never_turns_a_sample_round(
            peaks in proptest::collection::vec(-3_000_000_i32..3_000_000, 40),
        ) {
            let mut limiter = Limiter::default();
            for block in peaks.chunks(4) {
                let mut sum = [0; FRAME_SAMPLES];
                for (n, sample) in sum.iter_mut().enumerate() {
                    *sample = block[n * block.len() / FRAME_SAMPLES] / ((n % 7) as i32 + 1);
                }
                let out = limited(&mut limiter, &sum);
                for (out, sum) in out.iter().zip(&sum) {
                    prop_assert!(i32::from(*out).abs() <= LIMIT);
                    prop_assert!(i32::from(*out).signum() * sum.signum() >= 0);
                }
            }
        }
    }
}
