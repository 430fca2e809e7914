//! Any rate to 48 kHz.

use rubato::{Fft, FixedSync, Indexing, Resampler, WindowFunction, audioadapter_buffers::direct::InterleavedSlice};

use super::{SAMPLE_RATE_HZ, TranscodeError, bounds::RATES_HZ};

/// Frames in a block of the transform: long enough that its filter leaves all that is heard, short enough for the cache.
const BLOCK_FRAMES: usize = 1_024;

/// Brings interleaved samples to 48 kHz: as many as their time says, and none of the filter's delay.
pub(super) struct To48k {
    /// `None` where there is nothing to do.
    resampler: Option<Fft<f32>>,
    rate_hz: u32,
    channels: usize,
    /// What is not yet a whole block.
    waiting: Vec<f32>,
    block: Vec<f32>,
    /// Frames that came in.
    taken: u64,
    /// Frames that went out.
    given: u64,
    /// Frames still to be left out at the begin: the filter's delay.
    skip: usize,
}

/// Whether sound of this rate is decoded.
pub(super) fn check_rate(rate_hz: u32) -> Result<(), TranscodeError> {
    if RATES_HZ.contains(&rate_hz) {
        return Ok(());
    }
    let (least, most) = (RATES_HZ.start(), RATES_HZ.end());
    Err(TranscodeError::TooMuch(format!("its sample rate is {rate_hz} Hz, and {least} to {most} Hz are decoded")))
}

impl To48k {
    /// From `rate_hz`.
    pub(super) fn new(rate_hz: u32, channels: u16) -> Result<Self, TranscodeError> {
        check_rate(rate_hz)?;
        let channels = usize::from(channels);
        let resampler = (rate_hz != SAMPLE_RATE_HZ).then(|| {
            let (from, to) = (rate_hz as usize, SAMPLE_RATE_HZ as usize);
            let window = WindowFunction::BlackmanHarris2;
            Fft::new_custom(from, to, block_frames(from, to), 1, channels, window, FixedSync::Input)
        });
        let resampler = resampler.transpose().map_err(|error| TranscodeError::Unsupported(error.to_string()))?;
        let skip = resampler.as_ref().map_or(0, Resampler::output_delay);
        let (waiting, block) = (Vec::new(), Vec::new());
        Ok(Self { resampler, rate_hz, channels, waiting, block, taken: 0, given: 0, skip })
    }

    /// Appends what `samples` come to, but for what waits for more, to `out`.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), TranscodeError> {
        self.taken += (samples.len() / self.channels) as u64;
        let Some(resampler) = &self.resampler else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        self.waiting.extend_from_slice(samples);
        let wanted = resampler.input_frames_next() * self.channels;
        let whole = self.waiting.len() / wanted * wanted;
        for from in (0..whole).step_by(wanted) {
            self.step(from, None, out)?;
        }
        self.waiting.drain(..whole);
        Ok(())
    }

    /// Appends the rest.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), TranscodeError> {
        let Some(resampler) = &self.resampler else { return Ok(()) };
        let wanted = resampler.input_frames_next() * self.channels;
        let due = (self.taken * u64::from(SAMPLE_RATE_HZ)).div_ceil(u64::from(self.rate_hz));
        let mut partial = self.waiting.len() / self.channels;
        self.waiting.resize(wanted, 0.0);
        while self.given < due {
            self.step(0, Some(partial), out)?;
            partial = 0;
        }
        let surplus = usize::try_from(self.given - due).unwrap_or(0) * self.channels;
        out.truncate(out.len() - surplus.min(out.len()));
        Ok(())
    }

    /// One block, of which only `partial` frames count.
    fn step(&mut self, from: usize, partial: Option<usize>, out: &mut Vec<f32>) -> Result<(), TranscodeError> {
        let Some(resampler) = &mut self.resampler else { return Ok(()) };
        let failed = |error: &dyn std::fmt::Display| TranscodeError::Undecodable(format!("cannot resample: {error}"));
        let wanted = resampler.input_frames_next();
        let space = resampler.output_frames_max();
        self.block.resize(space * self.channels, 0.0);
        let input = &self.waiting[from..from + wanted * self.channels];
        let input = InterleavedSlice::new(input, self.channels, wanted).map_err(|error| failed(&error))?;
        let mut output =
            InterleavedSlice::new_mut(&mut self.block[..], self.channels, space).map_err(|error| failed(&error))?;
        let indexing = Indexing { input_offset: 0, output_offset: 0, partial_len: partial, active_channels_mask: None };
        let (_, frames) =
            resampler.process_into_buffer(&input, &mut output, Some(&indexing)).map_err(|error| failed(&error))?;
        let skipped = self.skip.min(frames);
        self.skip -= skipped;
        self.given += (frames - skipped) as u64;
        out.extend_from_slice(&self.block[skipped * self.channels..frames * self.channels]);
        Ok(())
    }
}

/// Frames of a block: a whole and even number of the ratio's own steps, so that half of it, the filter's delay, is no
/// fraction of a sample.
fn block_frames(from: usize, to: usize) -> usize {
    let (mut one, mut other) = (from, to);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    let step = from / one;
    step * BLOCK_FRAMES.div_ceil(step).next_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn resampled(rate_hz: u32, channels: u16, samples: &[f32], step: usize) -> Vec<f32> {
        let mut resampler = To48k::new(rate_hz, channels).expect("a rate");
        let mut out = Vec::new();
        for part in samples.chunks(step * usize::from(channels)) {
            resampler.push(part, &mut out).expect("takes it");
        }
        resampler.finish(&mut out).expect("ends");
        out
    }

    #[test]
    fn a_tone_keeps_its_length_place_and_height() {
        for rate in [8_000, 11_025, 44_100, 48_000, 96_000, 192_000, 44_056] {
            let frames = rate as usize / 2;
            let tone = |rate: f32, at: usize| (TAU * 440.0 * at as f32 / rate).sin() * 0.5;
            let stereo: Vec<f32> = (0..frames).flat_map(|at| [tone(rate as f32, at), 0.25]).collect();
            let out = resampled(rate, 2, &stereo, 777);
            assert_eq!(out.len(), 2 * (frames * 48_000).div_ceil(rate as usize), "{rate}");
            // Away from the ends, where the filter sees silence.
            for at in 2_000..22_000 {
                let error = (out[at * 2] - tone(48_000.0, at)).abs();
                assert!(error < 0.01, "{rate} at {at}: off by {error}");
                assert!((out[at * 2 + 1] - 0.25).abs() < 0.01, "{rate} at {at}: the other channel");
            }
        }
    }

    #[test]
    fn little_and_nothing_have_their_length_too() {
        for frames in [0, 1, 147, 1_023, 1_024, 1_025] {
            let out = resampled(44_100, 1, &vec![0.1; frames], 100);
            assert_eq!(out.len(), (frames * 48_000).div_ceil(44_100), "{frames}");
        }
    }

    #[test]
    fn rates_that_no_recording_has_are_refused() {
        for rate in [0, 1, 3_999, 384_001, u32::MAX] {
            let error = To48k::new(rate, 1).err().expect("refused");
            assert!(error.to_string().contains("4000 to 384000"), "{error}");
        }
        // A prime, for which the transform is longest.
        assert_eq!(resampled(383_987, 1, &[0.0; 1_000], 1_000).len(), 126);
    }
}
