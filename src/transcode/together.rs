//! Several files into one, each beginning at its own moment: a recording's tracks as they were heard together.

use std::{collections::VecDeque, io::Write};

use super::{Bounds, Input, Quality, SAMPLE_RATE_HZ, Sound, TranscodeError, Watch, encode::OpusFile, mix::Mixed};

/// Samples that are put together at once: a tenth of a second.
const BLOCK: usize = 4_800;

/// From where on what is too loud is bent instead of cut.
const KNEE: f32 = 0.8;

/// A file, and the sample at 48 kHz at which it begins.
#[derive(Debug)]
pub struct Voice<'a> {
    /// The file.
    pub input: Input<'a>,
    /// When it begins.
    pub begins_at: u64,
}

/// A file that is being heard.
struct Playing<'a> {
    sound: Sound<'a>,
    mixed: Mixed,
    raw: Vec<f32>,
    ready: Vec<f32>,
    waiting: VecDeque<f32>,
    /// Silence before it, in samples of the block that is being made.
    before: usize,
    is_over: bool,
}

/// Mixes files into one Ogg Opus file; how many samples it has. What was written until an error is no whole file.
///
/// # Errors
/// When a file cannot be decoded, breaks a bound, or the result cannot be written; also when the watch says to stop.
pub fn mix_together(
    voices: &[Voice<'_>],
    output: &mut dyn Write,
    quality: Quality,
    bounds: &Bounds,
    watch: &Watch,
) -> Result<u64, TranscodeError> {
    let mut file = OpusFile::new(output, quality, 1)?;
    let mut to_come: Vec<&Voice<'_>> = voices.iter().collect();
    to_come.sort_by_key(|voice| std::cmp::Reverse(voice.begins_at));
    let (mut playing, mut at): (Vec<Playing<'_>>, u64) = (Vec::new(), 0);
    let mut block = vec![0.0_f32; BLOCK];
    while !(to_come.is_empty() && playing.is_empty()) {
        watch.check()?;
        bounds.check_length(at)?;
        while let Some(next) = to_come.pop_if(|next| next.begins_at < at + BLOCK as u64) {
            let before = usize::try_from(next.begins_at.saturating_sub(at)).unwrap_or(0);
            playing.push(Playing::open(&next.input, before, bounds, watch)?);
        }
        block.fill(0.0);
        for voice in &mut playing {
            voice.add_to(&mut block)?;
        }
        playing.retain(|voice| !voice.is_over);
        block.iter_mut().for_each(|sample| *sample = bent(*sample));
        file.add(&block)?;
        at += BLOCK as u64;
    }
    file.finish()?;
    Ok(at)
}

impl<'a> Playing<'a> {
    fn open(input: &Input<'a>, before: usize, bounds: &'a Bounds, watch: &'a Watch) -> Result<Self, TranscodeError> {
        let sound = Sound::open(input, bounds, watch)?;
        if sound.rate_hz() != SAMPLE_RATE_HZ {
            return Err(TranscodeError::Unsupported("only what was recorded here is mixed".to_owned()));
        }
        let (raw, ready, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        Ok(Self { sound, mixed: Mixed::new(1), raw, ready, waiting, before, is_over: false })
    }

    /// Adds its next samples to a block.
    fn add_to(&mut self, block: &mut [f32]) -> Result<(), TranscodeError> {
        let from = std::mem::take(&mut self.before).min(block.len());
        let wanted = block.len() - from;
        while self.waiting.len() < wanted && self.sound.next(&mut self.raw)? {
            self.ready.clear();
            self.mixed.mix(&self.raw, self.sound.layout(), &mut self.ready);
            self.waiting.extend(&self.ready);
        }
        let there = wanted.min(self.waiting.len());
        for (sample, said) in block[from..].iter_mut().zip(self.waiting.drain(..there)) {
            *sample += said;
        }
        self.is_over = there < wanted;
        Ok(())
    }
}

/// Several voices at once may be louder than there is room for.
fn bent(sample: f32) -> f32 {
    let over = sample.abs() - KNEE;
    if over <= 0.0 { sample } else { sample.signum() * (KNEE + (1.0 - KNEE) * (over / (1.0 - KNEE)).tanh()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_loud_stays_within_bounds_and_the_rest_as_it_is() {
        assert_eq!((bent(0.5), bent(-0.8)), (0.5, -0.8));
        assert!(bent(3.0) <= 1.0 && bent(3.0) > 0.95 && bent(-3.0) >= -1.0 && bent(0.9) > 0.8);
    }
}
