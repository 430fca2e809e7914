//! A file's waveform: the lowest and highest sample of each hundredth of a second.

/// Samples at 48 kHz behind each pair: 10 ms.
pub const BASE_SAMPLES: u32 = 480;

/// A waveform: pairs of the lowest and the highest sample, of both channels together, in 1/127 of full scale.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peaks {
    pairs: Vec<(i8, i8)>,
    lowest: f32,
    highest: f32,
    /// Frames in the pair that is not whole yet.
    frames: u32,
}

impl Peaks {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those that [`Peaks::to_bytes`] wrote; `None` for other bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let pairs = pairs.iter().map(|[low, high]| (low.cast_signed(), high.cast_signed())).collect();
        rest.is_empty().then_some(Self { pairs, ..Self::default() })
    }

    /// Two bytes for each pair.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pairs.iter().flat_map(|(low, high)| [low.cast_unsigned(), high.cast_unsigned()]).collect()
    }

    /// All pairs.
    #[must_use]
    pub fn pairs(&self) -> &[(i8, i8)] {
        &self.pairs
    }

    /// The same with `factor` pairs made one.
    #[must_use]
    pub fn zoomed(&self, factor: usize) -> Vec<(i8, i8)> {
        let widest = |pairs: &[(i8, i8)]| {
            pairs.iter().fold((i8::MAX, i8::MIN), |(low, high), pair| (low.min(pair.0), high.max(pair.1)))
        };
        self.pairs.chunks(factor.max(1)).map(widest).collect()
    }

    /// Interleaved samples at 48 kHz.
    pub(super) fn add(&mut self, samples: &[f32], channels: usize) {
        for frame in samples.chunks_exact(channels) {
            for sample in frame {
                self.lowest = self.lowest.min(*sample);
                self.highest = self.highest.max(*sample);
            }
            self.frames += 1;
            if self.frames == BASE_SAMPLES {
                self.close();
            }
        }
    }

    /// Closes the last pair.
    pub(super) fn end(&mut self) {
        if self.frames > 0 {
            self.close();
        }
    }

    fn close(&mut self) {
        self.pairs.push((scaled(self.lowest), scaled(self.highest)));
        (self.lowest, self.highest, self.frames) = (0.0, 0.0, 0);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn scaled(sample: f32) -> i8 {
    (sample * 127.0).round().clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_the_extremes_of_their_time() {
        let mut peaks = Peaks::new();
        let mut samples = vec![0.0; 2 * 1_000];
        samples[2 * 10] = 0.5;
        samples[2 * 20 + 1] = -1.0;
        samples[2 * 500] = 7.0;
        peaks.add(&samples[..700], 2);
        peaks.add(&samples[700..], 2);
        peaks.end();
        assert_eq!(peaks.pairs(), [(-127, 64), (0, 127), (0, 0)]);
        assert_eq!(peaks.zoomed(2), [(-127, 127), (0, 0)]);
        assert_eq!(peaks.zoomed(100), [(-127, 127)]);
        assert_eq!(Peaks::of_bytes(&peaks.to_bytes()).expect("pairs").pairs(), peaks.pairs());
        assert_eq!(Peaks::of_bytes(&[1]), None);
    }
}
