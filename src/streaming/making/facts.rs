//! What was found out about a file while it was decoded.

use serde::{Deserialize, Serialize};

use crate::transcode::{Findings, Loudness, SAMPLE_RATE_HZ};

/// What was found out about a file while it was decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its length in samples at 48 kHz.
    pub samples: u64,
    /// Its own rate in Hz.
    pub sample_rate_hz: u32,
    /// Its own channels.
    pub channels: u16,
    /// How loud it is.
    pub loudness: Loudness,
    /// Parts of it that could not be decoded and are silence in what is made of it.
    pub damaged_packets: u32,
}

impl Facts {
    /// Its length in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE_HZ)
    }
}

impl From<&Findings> for Facts {
    fn from(found: &Findings) -> Self {
        Self {
            samples: found.samples,
            sample_rate_hz: found.sample_rate_hz,
            channels: found.channels,
            loudness: found.loudness,
            damaged_packets: found.damaged_packets,
        }
    }
}
