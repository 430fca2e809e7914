//! How loud a file is, as EBU R128 (ITU-R BS.1770) measures it.

use ebur128::{EbuR128, Mode};
use serde::{Deserialize, Serialize};

use super::{SAMPLE_RATE_HZ, TranscodeError};

/// Silence has no loudness; what is quieter than the absolute gate of BS.1770 counts as it.
const SILENCE_LUFS: f64 = -70.0;

/// How loud a file is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loudness {
    /// Of the whole, in LUFS; -70 for silence.
    pub integrated_lufs: f64,
    /// How far loud and quiet parts are apart, in LU (EBU Tech 3342).
    pub range_lu: f64,
    /// The highest value between samples, in dBTP; -100 at least.
    pub true_peak_dbtp: f64,
}

/// Measures 48 kHz samples.
pub(super) struct Meter {
    meter: EbuR128,
    channels: u32,
}

impl Meter {
    /// For one or two channels.
    pub(super) fn new(channels: u16) -> Result<Self, TranscodeError> {
        // The histogram keeps memory the same however long the file is.
        let mode = Mode::I | Mode::LRA | Mode::TRUE_PEAK | Mode::HISTOGRAM;
        let mut meter = EbuR128::new(channels.into(), SAMPLE_RATE_HZ, mode).map_err(failed)?;
        if channels == 1 {
            // One channel is heard from both sides.
            meter.set_channel(0, ebur128::Channel::DualMono).map_err(failed)?;
        }
        Ok(Self { meter, channels: channels.into() })
    }

    pub(super) fn add(&mut self, samples: &[f32]) -> Result<(), TranscodeError> {
        self.meter.add_frames_f32(samples).map_err(failed)
    }

    pub(super) fn read(&self) -> Result<Loudness, TranscodeError> {
        let mut peak = 0.0_f64;
        for channel in 0..self.channels {
            peak = peak.max(self.meter.true_peak(channel).map_err(failed)?);
        }
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        Ok(Loudness {
            integrated_lufs: tenths(self.meter.loudness_global().map_err(failed)?.max(SILENCE_LUFS)),
            range_lu: tenths(self.meter.loudness_range().map_err(failed)?),
            true_peak_dbtp: tenths(20.0 * peak.max(1e-5).log10()),
        })
    }
}

fn failed(error: ebur128::Error) -> TranscodeError {
    TranscodeError::Undecodable(format!("its loudness cannot be measured: {error}"))
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn measured(channels: u16, amplitude: f32, seconds: usize) -> Loudness {
        let mut meter = Meter::new(channels).expect("a meter");
        let mut samples = Vec::new();
        for at in 0..seconds * SAMPLE_RATE_HZ as usize {
            let sample = (TAU * 997.0 * at as f32 / SAMPLE_RATE_HZ as f32).sin() * amplitude;
            samples.extend(std::iter::repeat_n(sample, channels.into()));
        }
        meter.add(&samples).expect("takes it");
        meter.read().expect("reads")
    }

    #[test]
    fn the_standards_tone_has_the_standards_loudness() {
        // EBU Tech 3341, test 1: a stereo tone of 1 kHz at -23 dBFS is -23 LUFS.
        let amplitude = 10.0_f32.powf(-23.0 / 20.0);
        for channels in [1, 2] {
            let loudness = measured(channels, amplitude, 20);
            assert!((loudness.integrated_lufs + 23.0).abs() <= 0.1, "{channels}: {loudness:?}");
            assert!((loudness.true_peak_dbtp + 23.0).abs() <= 0.2, "{channels}: {loudness:?}");
            assert!(loudness.range_lu < 0.2, "{channels}: {loudness:?}");
        }
    }

    #[test]
    fn silence_and_moments_have_numbers_too() {
        let silence = measured(2, 0.0, 5);
        assert_eq!((silence.integrated_lufs, silence.true_peak_dbtp, silence.range_lu), (-70.0, -100.0, 0.0));
        let mut moment = Meter::new(1).expect("a meter");
        moment.add(&[0.5; 100]).expect("takes it");
        let moment = moment.read().expect("reads");
        assert!(moment.integrated_lufs.is_finite() && moment.true_peak_dbtp > -7.0, "{moment:?}");
    }
}
