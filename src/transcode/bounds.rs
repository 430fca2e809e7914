//! What a file may cost.

use std::time::Duration;

use super::{SAMPLE_RATE_HZ, TranscodeError};

/// Channels of a file: more than 7.1 is no recording of anything that people listen to with two ears.
pub(super) const CHANNELS_MAX: usize = 8;

/// Rates in Hz that recordings have: a telephone's, below Opus's lowest, up to eight times 48 kHz.
pub(super) const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=384_000;

/// Limits for one file.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The longest sound that is decoded: a file of silence can be a thousand times smaller than what it holds.
    pub sound: Duration,
}

impl Bounds {
    /// Refuses more than so many samples at 48 kHz.
    pub(super) fn check_length(&self, samples: u64) -> Result<(), TranscodeError> {
        if samples > self.sound.as_secs() * u64::from(SAMPLE_RATE_HZ) {
            return Err(TranscodeError::TooMuch(format!(
                "it holds more than {} s of sound, the most that is decoded",
                self.sound.as_secs()
            )));
        }
        Ok(())
    }
}
