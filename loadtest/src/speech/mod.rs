//! How speech sounds through a bad network, with and without the advice that a node gives its speakers.
//!
//! ```text
//!  samples ──► encoder ──► netsim (loss, delay, jitter) ──► jitter buffer ──► decoder ──► similarity to the samples
//!                 ▲                                              │
//!                 └── hints ◄── QualityAdvisor ◄── reports, 2 s ─┘
//! ```
//!
//! All of it is what clients and nodes run, in virtual time: the same seed gives the same run.

mod similarity;
mod trial;

use std::{fs::File, io::BufReader, path::Path};

use serde::Serialize;

pub use self::trial::{SpeechNetwork, SpeechRun};
use crate::audio::{FRAME_SAMPLES, Resampler, WavError, WavReader};

/// Why there is nothing to say of a file.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// It cannot be read.
    #[error(transparent)]
    Wav(#[from] WavError),
    /// It cannot be opened.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// libopus refuses.
    #[error("Opus: {0}")]
    Opus(#[from] opus::Error),
    /// Nobody speaks in it.
    #[error("it holds less than a second of sound")]
    Short,
}

/// What adaptation is worth in one network.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The network.
    pub network: SpeechNetwork,
    /// The encoder stays as it begins.
    pub fixed: SpeechRun,
    /// The encoder follows the hints.
    pub adapted: SpeechRun,
}

/// The networks that speech is sent through by default: 5 and 10 % of the frames lost, by chance and three in a row.
#[must_use]
pub fn usual_networks() -> Vec<SpeechNetwork> {
    let losses = [(0.05, 1.0), (0.05, 3.0), (0.10, 1.0), (0.10, 3.0)];
    losses.map(|(loss, burst_mean)| SpeechNetwork { loss, burst_mean }).to_vec()
}

/// The speech of a WAV file, mono at 48 kHz.
///
/// # Errors
/// When it cannot be read, or is shorter than a second.
pub fn read_speech(path: &Path) -> Result<Vec<f32>, SpeechError> {
    let mut reader = WavReader::new(BufReader::new(File::open(path)?))?;
    let format = reader.format();
    let channels = usize::from(format.channels);
    let mut resampler = Resampler::new(format.rate_hz, 1);
    let (mut input, mut samples) = (Vec::new(), Vec::new());
    while reader.read(FRAME_SAMPLES, &mut input)? > 0 {
        let mono: Vec<f32> = input.chunks(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
        resampler.push(&mono, &mut samples);
        input.clear();
    }
    resampler.finish(&mut samples);
    if samples.len() < 50 * FRAME_SAMPLES { Err(SpeechError::Short) } else { Ok(samples) }
}

/// Sends speech of `seconds`, repeated as often as it takes, through each network, with and without adaptation.
///
/// # Errors
/// When libopus refuses.
pub fn compare_adaptation(
    speech: &[f32],
    seconds: u32,
    networks: &[SpeechNetwork],
    seed: u64,
) -> Result<Vec<Comparison>, SpeechError> {
    let frames = seconds as usize * 50;
    let samples: Vec<f32> = speech.iter().copied().cycle().take(frames * FRAME_SAMPLES).collect();
    let compare = |network: &SpeechNetwork| {
        let run = |adapts| trial::run(&samples, network, adapts, seed);
        Ok(Comparison { network: network.clone(), fixed: run(false)?, adapted: run(true)? })
    };
    networks.iter().map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Syllables: a voice of 110 to 160 Hz with three formants, four a second, with rests.
    fn syllables() -> Vec<f32> {
        let (mut phase, mut noise) = (0.0_f32, 1_u32);
        (0..3 * 48_000)
            .map(|n| {
                let t = n as f32 / 48_000.0;
                let (syllable, within) = ((t * 4.0) as u32, (t * 4.0).fract());
                phase = (phase + (110.0 + 17.0 * (syllable % 4) as f32) / 48_000.0).fract();
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let hiss = (noise >> 16) as f32 / 32_768.0 - 1.0;
                let formants = [500.0, 1_500.0 + 150.0 * (syllable % 5) as f32, 2_500.0];
                let voice: f32 =
                    formants.iter().map(|hz| (phase * hz / 110.0 * std::f32::consts::TAU).sin() * (1.0 - phase)).sum();
                let envelope = if syllable % 6 == 5 { 0.0 } else { (within * std::f32::consts::PI).sin().powi(2) };
                (voice * 0.15 + hiss * 0.02) * envelope
            })
            .collect()
    }

    #[test]
    fn adaptation_is_heard_and_a_good_network_needs_none() {
        let speech = syllables();
        let networks = [usual_networks(), vec![SpeechNetwork { loss: 0.0, burst_mean: 1.0 }]].concat();
        let compared = compare_adaptation(&speech, 24, &networks, 7).expect("libopus");
        let (bad, good) = compared.split_at(4);
        for Comparison { network, fixed, adapted } in bad {
            // Of losses in a row correction repairs the last, which is less than it costs a sound as dense as this one; a real
            // voice gains all the same (docs/performance.md).
            let is_repaired = network.burst_mean < 2.0;
            assert!(!is_repaired || adapted.similarity > fixed.similarity, "{network:?}: {adapted:?}, {fixed:?}");
            assert!(
                (fixed.hints, fixed.repaired) == (0, 0) && adapted.hints > 0 && adapted.repaired > 0,
                "{adapted:?}"
            );
        }
        assert_eq!((good[0].adapted.hints, good[0].adapted.made_up), (0, 0));
        assert_eq!(good[0].adapted.similarity, good[0].fixed.similarity);
        assert!(bad.iter().all(|bad| bad.adapted.similarity < good[0].fixed.similarity));
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let speech = syllables();
        let network = [SpeechNetwork { loss: 0.1, burst_mean: 2.0 }];
        let run = |seed| compare_adaptation(&speech, 5, &network, seed).expect("libopus").remove(0).fixed;
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
